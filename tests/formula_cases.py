"""Random formulas, right and wrong."""

import random
import string

ONE = ("sqrt", "exp", "log", "ln", "sin", "cos", "tan", "sinh", "cosh", "tanh", "abs")
NUMBERS = ("0", "1", "2", "3", "0.5", "1e-3", "1e300", "64", "65", "-1", "1e999", "1j", "0x10", "1_0", "1e")


def formula(generator: random.Random, depth: int) -> str:
    """A text that mostly is one."""
    if depth == 0 or generator.random() < 0.15:
        return generator.choice(
            ["x", "y", "x", "y", "pi", "e", *NUMBERS[: generator.choice([6, 6, len(NUMBERS)])]]
        )
    parts = [formula(generator, depth - 1) for _ in range(2)]
    match generator.randrange(10):
        case 0 | 1 | 2:
            return f"{generator.choice(ONE)}({parts[0]})"
        case 3:
            return f"{generator.choice(['max', 'min'])}({parts[0]}, {parts[1]})"
        case 4:
            return f"({parts[0]}){generator.choice(['²', '³', '^2', '**0.5', '⁻¹', f'^({parts[1]})'])}"
        case 5:
            return f"-({parts[0]})"
        case _:
            return f"({parts[0]}) {generator.choice('+-*/·−×')} ({parts[1]})"


def nested(generator: random.Random, depth: int) -> str:
    """One function in another, which may double what it is applied to each time."""
    text = generator.choice(["x", "x*y", "x + y"])
    for _ in range(generator.randrange(depth)):
        text = f"{generator.choice(ONE)}({text})"
    return text


def spoiled(generator: random.Random, text: str) -> str:
    """The text with a few characters put in, taken away or exchanged."""
    noise = string.printable + "√²⁻−·π∞\u0000\ud800\U0001f600" + "()" * 10
    letters = list(text)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(letters) + 1)
        letters[at : at + generator.randint(0, 2)] = generator.choices(noise, k=generator.randint(0, 2))
    return "".join(letters)
