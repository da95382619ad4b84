"""TOML files for `compare` with anything in them: they make a plan, or are refused in one line."""

from study_cases import TOML, planned
from thalweg.study.errors import StudyError

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
    lines = TOML.splitlines()
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


def outcome(folder, content):
    """The plan that a file makes, or the line that says why not."""
    try:
        return planned(folder, content), ""
    except (StudyError, ValueError) as error:
        return None, str(error)


def test_a_file_makes_a_plan_or_is_refused_in_one_line(tmp_path, rounds, generator):
    made = 0
    for _ in range(rounds):
        content = mutant(generator).encode()
        if generator.random() < 0.1:
            place = generator.randrange(len(content))
            content = content[:place] + generator.randbytes(3) + content[place:]
        plan, said = outcome(tmp_path, content)
        if plan:
            made += 1
            assert plan.total > 0
        else:
            assert said.strip(), content
            assert "\n" not in said, content
            assert len(said) < 600, content
    assert 0 < made < rounds, "some are right by chance, most are not"
