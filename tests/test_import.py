"""What a bare import brings in."""

import pytest

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
    "polars",
    "scipy",
]


def loaded(source: str) -> set[str]:
    return set(
        output(python(f"import sys; {source}; print(*{{n.split('.')[0] for n in sys.modules}})")).split()
    )


def test_the_front_door_brings_in_no_framework() -> None:
    assert not loaded("import thalweg; thalweg.get('adam'); thalweg.trace(thalweg.Adam())") & {*FRAMEWORKS}


def test_the_front_door_reads_no_surface() -> None:
    assert output(python("import sys, thalweg; print('thalweg.surfaces' in sys.modules)")) == "False"


def test_the_numpy_front_end_brings_in_no_other_framework() -> None:
    assert not loaded("import thalweg.numpy") & ({*FRAMEWORKS} - {"numba", "llvmlite"})


def test_an_optimizer_brings_in_no_compiler_of_torch() -> None:
    source = (
        "import sys, torch, thalweg.torch; p = torch.nn.Parameter(torch.ones(2)); p.grad = torch.ones(2); "
        "thalweg.torch.Adam([p]).step(); print('torch._dynamo' in sys.modules)"
    )
    assert output(python(source)) == "False"


def test_paths_and_surfaces_bring_in_no_framework() -> None:
    source = (
        "from thalweg.surfaces import maps; maps.rate_map('ravine', 'adam', lr=[0.1]); "
        "maps.basins('beale', 'line_search', 2)"
    )
    assert not loaded(source) & {*FRAMEWORKS, "scipy"}


def test_every_name_of_the_front_door_is_there() -> None:
    import thalweg
    import thalweg.torch

    for module in (thalweg, thalweg.torch, thalweg.schedules):
        assert all(hasattr(module, name) for name in module.__all__)
    assert {type(thalweg.get(name)).__name__ for name in thalweg.rules()} <= {*thalweg.__all__}


def test_what_looks_and_compares_is_loaded_when_it_is_asked_for() -> None:
    import thalweg
    from thalweg import surfaces
    from thalweg.study import contestant, study, task
    from thalweg.study.learners import batches, metrics
    from thalweg.study.planning import budget
    from thalweg.surfaces import maps, paths

    for module, name in (
        (budget, "Budget"),
        (contestant, "Contestant"),
        (study, "Study"),
        (task, "Task"),
        (study, "compare"),
        (metrics, "Metric"),
        (batches, "Loaders"),
        (paths, "path"),
        (paths, "paths"),
        (maps, "basins"),
        (maps, "rate_map"),
    ):
        assert getattr(thalweg, name) is getattr(module, name)
        assert name in dir(thalweg)
    assert thalweg.surfaces is surfaces
    with pytest.raises(AttributeError, match="module 'thalweg' has no attribute 'compere'"):
        _ = thalweg.compere  # type: ignore[attr-defined]


def test_what_compares_names_the_extra_where_it_is_missing() -> None:
    said = output(
        python(
            "import sys; sys.modules['joblib'] = None; import thalweg\n"
            "try: from thalweg import compare\n"
            "except ImportError as error: print(error)"
        )
    )
    assert said.strip() == "thalweg.compare needs joblib: pip install 'thalweg[study]'"
