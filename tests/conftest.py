"""Where kernels are kept during the suite, and fixtures that more than one file uses."""

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from pairwise import superfluous

hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=20, database=None, print_blob=False
)
hypothesis.settings.load_profile("suite")

# Keras chooses its backend when it is imported; this one computes in float64 where it is asked to.
os.environ.setdefault("KERAS_BACKEND", "jax")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=40, help="how many hostile inputs a fuzz test tries (40)")
    parser.addoption(
        "--all-combinations",
        action="store_true",
        help="of tests marked pairwise run every combination of parameters, not every pair",
    )
    parser.addoption("--seed", type=int, default=0, help="which hostile inputs those are (0)")


def pytest_configure(config: pytest.Config) -> None:
    # Under nohup SIGHUP is ignored, here and in what is started from here; tests send it to commands.
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # One folder for all workers, kept between runs: each kernel is compiled once.
    cache = getattr(config, "cache", None)  # there is none under -p no:cacheprovider
    if cache is not None:
        kernels = cache.mkdir("kernels")
        kernels.chmod(0o700)  # whatever the umask: others may not write to where kernels are kept
        os.environ.setdefault("THALWEG_CACHE_DIR", str(kernels))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all-combinations") and (left := superfluous(items)):
        config.hook.pytest_deselected(items=left)
        out = {*left}
        items[:] = [item for item in items if item not in out]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are given to rules within the test are free again after it."""
    from thalweg import registry

    monkeypatch.setattr(registry, "_rules", dict(registry._rules))


@pytest.fixture
def float64() -> Iterator[None]:
    """Torch's default dtype float64, in which torch then also keeps its own scalars."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch set to two threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["kernel", "eager"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of taking a step: the kernel, and the rule as written where there is no kernel."""
    if request.param == "eager":
        monkeypatch.setattr("thalweg.torch.plan.has_kernel", lambda tensors: False)
    return str(request.param)


_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_QUIETLY = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-unsafe-swiftshader"),
]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread, as in a trial; several threads on busy cores wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Of a module and no more: while Playwright runs, no test of its process can run a loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as run:
        started = run.chromium.launch(executable_path=path, args=_QUIETLY)
        yield started
        started.close()
