"""What a bare import brings in."""

from helpers import output, python

FRAMEWORKS = [
    "numba",
    "llvmlite",
    "torch",
    "keras",
    "jax",
    "tensorflow",
    "matplotlib",
    "sklearn",
    "joblib",
    "rich",
]


def loaded(source: str) -> set[str]:
    return set(
        output(python(f"import sys; {source}; print(*{{n.split('.')[0] for n in sys.modules}})")).split()
    )


def test_the_front_door_brings_in_no_framework() -> None:
    assert not loaded("import thalweg; thalweg.get('adam'); thalweg.trace(thalweg.Adam())") & {*FRAMEWORKS}


def test_the_numpy_front_end_brings_in_no_other_framework() -> None:
    assert not loaded("import thalweg.numpy") & ({*FRAMEWORKS} - {"numba", "llvmlite"})


def test_every_name_of_the_front_door_is_there() -> None:
    import thalweg
    import thalweg.torch

    for module in (thalweg, thalweg.torch, thalweg.schedules):
        assert all(hasattr(module, name) for name in module.__all__)
    assert {type(thalweg.get(name)).__name__ for name in thalweg.rules()} <= {*thalweg.__all__}
