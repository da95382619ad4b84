"""No import runs upward, and none in a circle: `python tests/test_layers.py` prints the layers.

Every import of the package is read, those within functions and those for types alone among them.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

# Bottom first. A module or folder imports from layers below its own, and from what stands left of it there.
LAYERS = {
    "for all": "hyperparameters errors untrusted palette notebook",
    "a rule traced": "program process ops",
    "a rule": "rule schedules treatments rules",
    "by name": "dialects registry",
    "stepped": "eager statefile kernels",
    "front ends": "numpy torch keras jax",
    "state moved, rules explained and checked": "convert explain testing",
    "pictures": "surfaces plot gallery",
    "choosing": "study",
    "the front door": "thalweg",
    "what users start": "play cli __main__",
}
# The same, within a folder that has folders of its own.
STUDY = [
    "errors",
    "schema",
    "data",
    "records",
    "fingerprint",
    "contestant",
    "learners",
    "task",
    "tasks",
    "planning",
    "running",
    "comparison",
    "statistics",
    "reporting",
    "study",
]

FRONT_ENDS = LAYERS["front ends"].split()
MOST_MODULES = 14

# Where a framework may be imported.
FRAMEWORKS = {
    "torch": (
        *("torch", "kernels.torch_tensors", "kernels.torch_glance", "convert"),
        "keras.fused",  # Keras on torch
        *("study.learners", "study.tasks", "study.running.trial", "study.reporting.trackers"),
        "gallery.landscape",  # of a network
    ),
    "keras": ("keras", "convert", "study.learners"),
    "tensorflow": ("keras", "study.learners", "study.running.trial"),
    "jax": ("jax", "keras.scheduled", "convert", "study.learners", "study.running.trial"),
    "optax": ("jax", "convert"),
    "numba": ("kernels",),
}


@cache
def modules() -> dict[str, Path]:
    """Each module's file, by its name: "" for the front door, "torch.base"."""
    found = {}
    for path in sorted((SOURCE / "thalweg").rglob("*.py")):
        *_, name = (".".join(path.relative_to(SOURCE / "thalweg").with_suffix("").parts),)
        found[name.removesuffix("__init__").removesuffix(".")] = path
    return found


@cache
def imported(module: str) -> tuple[str, ...]:
    """Full names of all modules that a module imports."""
    return tuple(dict.fromkeys(_imported(module)))


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(source), level=0, names=names):
                for alias in names:
                    name = f"{source}.{alias.name}"
                    yield name if name.removeprefix("thalweg.") in modules() else source
            case ast.ImportFrom():
                yield "a relative import"
            case ast.Call(func=ast.Name("import_module") | ast.Attribute(attr="import_module")):
                if isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value)


def own(module: str) -> list[str]:
    """The package's modules that a module imports."""
    found = [name.removeprefix("thalweg").removeprefix(".") for name in imported(module) if is_own(name)]
    return [name for name in found if name != module]


def is_own(name: str) -> bool:
    return name.partition(".")[0] == "thalweg"


def within(module: str, places: tuple[str, ...] | list[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def upward(order: list[str], below: str = "") -> list[str]:
    """Imports from a module or folder of an order to a later one, all of them within one folder."""
    found = []
    for module in modules():
        for other in own(module):
            if below and not (within(module, [below]) and within(other, [below])):
                continue
            here, there = (_unit(name, below) for name in (module, other))
            if here == there or not (here and there):
                continue
            assert {here, there} <= {*order}, f"{here} and {there} must each stand in a layer"
            if order.index(there) > order.index(here):
                found.append(f"{module} imports {other}")
    return found


def _unit(module: str, below: str) -> str:
    rest = module.removeprefix(below).removeprefix(".")
    return rest.partition(".")[0] or ("" if below else "thalweg")


def test_no_import_runs_upward() -> None:
    assert upward(" ".join(LAYERS.values()).split()) == []


def test_no_import_runs_upward_within_study() -> None:
    assert upward(STUDY, "study") == []


def test_no_import_closes_a_circle() -> None:
    try:
        TopologicalSorter({module: own(module) for module in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_the_layers_name_what_there_is() -> None:
    there = {name.partition(".")[0] or "thalweg" for name in modules()}
    assert there == {*" ".join(LAYERS.values()).split()}
    alone = {name for name, path in modules().items() if "." not in name and path.stem == name}
    assert len(alone - {"__main__"}) <= MOST_MODULES


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_is_imported_where_it_is_at_home(framework: str) -> None:
    users = {m for m in modules() for name in imported(m) if name.partition(".")[0] == framework}
    assert users
    assert {m for m in users if not within(m, FRAMEWORKS[framework])} == set()


def test_front_ends_import_no_other() -> None:
    crossing = {
        f"{module} imports {other}"
        for end in FRONT_ENDS
        for module in modules()
        if within(module, [end])
        for other in own(module)
        if within(other, [e for e in FRONT_ENDS if e != end])
    }
    assert crossing == set()


@pytest.mark.parametrize("folder", ["study", "plot"])
def test_studies_and_pictures_do_not_reach_into_kernels(folder: str) -> None:
    assert [m for m in modules() if within(m, [folder]) if within("kernels", own(m))] == []


if __name__ == "__main__":
    for number, (layer, names) in reversed([*enumerate(LAYERS.items(), 1)]):
        print(f"{number:2}  {layer:42} {names}")
    print("\nimported by each:\n")
    for unit in " ".join(LAYERS.values()).split():
        inside = [module for module in modules() if _unit(module, "") == unit]
        others = {_unit(other, "") for module in inside for other in own(module)} - {unit}
        print(f"{unit:16} {' '.join(name for name in ' '.join(LAYERS.values()).split() if name in others)}")
