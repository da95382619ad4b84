"""One word, one class; and a formula in a docstring keeps its case."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import thalweg

SOURCE = Path(thalweg.__file__).parent
TREES = {
    path.relative_to(SOURCE): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")
}

# These speak their frameworks' language: each front end has an Optimizer, and torch's Adam is no one else's.
FRONT_ENDS = {"numpy", "torch", "keras", "jax", "convert"}


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path, tree in TREES.items():
        if path.parts[0] not in FRONT_ENDS:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    places[node.name.lstrip("_")].append(f"{path}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
    assert len(places) > 100, "classes were found"


def test_a_formula_in_a_docstring_keeps_its_case() -> None:
    """Whatever begins with one capital and goes on with an operator would be another quantity: G + λp."""
    formula = re.compile(r"(?!A )(?:[GLNMVPUT]|Lr|Step)(?: ?[+·−*/=≤→∝²]|\.$| within)")
    found = [
        f"{path}:{node.lineno} {first}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for first in (ast.get_docstring(node) or "").splitlines()[:1]
        if formula.match(first)
    ]
    assert found == []


def test_the_command_line_recognises_no_error_by_its_prose() -> None:
    for path, tree in TREES.items():
        if path.parts[0] == "cli":
            modules = {
                name.name
                for node in ast.walk(tree)
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in node.names
            }
            assert "re" not in modules, path
