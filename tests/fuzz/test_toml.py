"""TOML files for `compare` with anything in them: they make a plan, or are refused in one line."""

from study_cases import BLOBS
from thalweg.study.errors import StudyError
from thalweg.study.planning.configuration import from_toml
from thalweg.study.planning.plan import make

WHOLE = """
dialect = "torch"
seeds = 4
search_seeds = 2
batch_size = 16
every = 5
halving = true
proposer = "grid"
defaults = false

[budget]
trials = 6
epochs = 3

[optimizers.sgd]

[optimizers."adam+cosine"]
dialect = "keras"
batch_size = 4
space.lr = { low = 1e-4, high = 0.1 }
space.beta_1 = { values = [0.8, 0.9] }
space.beta_2 = {}
fixed.epsilon = 1e-6

[optimizers.mine]
optimizer = "nadam"
schedule = "warmup"
"""

# In place of what stands there, as TOML writes it.
VALUES = (
    *("nan", "-inf", "inf", "0", "-1", "1e308", "0.5", "true", "false", '"x"', '""', "[]", "{}", "[1, 'a']"),
    *("[[]]", "1979-05-27", "07:32:00", f"{10**30}", f"{10**400}", '"\\u0000"', '"a\\nb"', "'''\n'''"),
    *("{ low = 1, high = 0 }", "{ values = [1, 1] }", "{ low = 'x' }", "'adam@nowhere'", "'a:b'", "'x.py:y'"),
    *("'sgd+sgd'", "''", "'+'", "'@'", "':'", "999999999", "1e-320"),
)
KEYS = (
    "seeds",
    "lr",
    "momentum",
    "budget",
    "low",
    "steps",
    "seconds",
    '"a\\nb"',
    '""',
    "schedule",
    "amsgrad",
)


def line_of(generator, lines):
    return generator.choice([i for i, line in enumerate(lines) if line])


def mutant(generator):
    """The file with one to three things changed: values, keys, lines, characters."""
    lines = WHOLE.splitlines()
    for _ in range(generator.randint(1, 3)):
        i = line_of(generator, lines)
        key, equals, _ = lines[i].partition(" = ")
        kind = generator.randrange(6)
        if kind < 3 and equals:
            lines[i] = f"{key} = {generator.choice(VALUES)}"
        elif kind == 3 and equals:
            lines[i] = f"{generator.choice(KEYS)} = {lines[i].partition(' = ')[2]}"
        elif kind == 4:
            lines.insert(i, generator.choice(lines))
        else:
            place = generator.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:place] + generator.choice('"[]{}=.,#\n\x00é0') + lines[i][place + 1 :]
    return "\n".join(lines)


def outcome(path):
    """The plan that a file makes, or the line that says why not."""
    try:
        return make(BLOBS, **from_toml(path)), ""
    except (StudyError, ValueError) as error:
        return None, str(error)


def test_a_file_makes_a_plan_or_is_refused_in_one_line(tmp_path, rounds, generator):
    path = tmp_path / "study.toml"
    made = 0
    for _ in range(rounds):
        content = mutant(generator).encode()
        if generator.random() < 0.1:
            place = generator.randrange(len(content))
            content = content[:place] + generator.randbytes(3) + content[place:]
        path.write_bytes(content)
        plan, said = outcome(path)
        if plan:
            made += 1
            assert plan.total > 0
        else:
            assert said.strip(), content
            assert "\n" not in said, content
            assert len(said) < 600, content
    assert 0 < made < rounds, "some are right by chance, most are not"


def test_the_file_itself_is_right(tmp_path):
    (tmp_path / "study.toml").write_text(WHOLE)
    assert len(make(BLOBS, **from_toml(tmp_path / "study.toml")).contestants) == 3
