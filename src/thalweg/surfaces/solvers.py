"""Methods that ask for the loss again within a step: line searches, conjugate gradients, quasi-Newton.

All but the first are scipy's, followed iteration by iteration.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import UnknownSolverError
from thalweg.hyperparameters import fold
from thalweg.surfaces.functions import Surface

__all__ = ["Solver", "get", "knows", "names"]

Array: TypeAlias = NDArray[np.float64]

_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Solver:
    """One method.

    Attributes:
        name: as `get` takes it.
        title: its name in words.
        method: scipy's name for it; empty for what is written here.
        needs: what it asks for besides values: "", "gradient" or "hessian".
        source: where it comes from.
    """

    name: str
    title: str
    method: str
    needs: str
    source: str

    def follow(
        self, surface: Surface, start: Array, steps: int
    ) -> tuple[Array, dict[str, NDArray[np.int64]]]:
        """The points (iterations + 1, n) that it goes through, and the evaluations asked for before each.

        Args:
            surface: what to go down; its noise is left out.
            start: (n,).
            steps: at most so many iterations; it ends sooner where it has arrived, is lost, or finds no
                lower point.

        Raises:
            ImportError: scipy is not there.
        """
        asked: Counter[str] = Counter()
        points, counts = [start.copy()], [dict(asked)]

        def counting(what: str) -> Callable[[Array], Any]:
            function = getattr(surface, what)

            def counted(x: Array) -> Any:
                asked[what] += 1
                return float(function(x)) if what == "value" else function(x)

            return counted

        def visit(x: Array) -> None:
            if not np.isfinite(x).all():
                raise StopIteration
            points.append(np.array(x))
            counts.append(dict(asked))

        value, gradient, hessian = map(counting, ("value", "gradient", "hessian"))
        # scipy warns where a search ends without success; the path shows where that was.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.method:
                _minimizer(self.name)(
                    value,
                    start,
                    method=self.method,
                    jac=gradient if self.needs else None,
                    hess=hessian if self.needs == "hessian" else None,
                    tol=_TOLERANCE,
                    callback=visit,
                    options={"maxiter": steps},
                )
            else:
                _steepest(value, gradient, start, steps, visit)
        evaluations = {
            what: np.array([c.get(what, 0) for c in counts]) for what in ("value", "gradient", "hessian")
        }
        return np.array(points), evaluations


def _minimizer(name: str) -> Callable[..., Any]:
    try:
        from scipy.optimize import minimize
    except ModuleNotFoundError as error:
        raise ImportError(f"the solver {name} needs scipy: pip install scipy") from error
    return minimize  # type: ignore[no-any-return]


def _steepest(
    value: Callable[[Array], float],
    gradient: Callable[[Array], Array],
    x: Array,
    steps: int,
    visit: Callable[[Array], None],
) -> None:
    """Down the gradient, each step halved until the value falls by a share of what the slope promises.

    Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1; a search begins at twice the last step.
    """
    rate, here = 0.5, value(x)
    for _ in range(steps):
        g = gradient(x)
        slope = float(g @ g)
        if not _TOLERANCE**2 < slope < np.inf:
            return
        rate *= 2
        while not (there := value(x - rate * g)) <= here - 1e-4 * rate * slope:  # NaN is not
            rate /= 2
            if rate * slope < 1e-16 * abs(here):
                return
        x, here = x - rate * g, there
        visit(x)


def names() -> list[str]:
    """The names that `get` takes."""
    return list(_SOLVERS)


def knows(name: str) -> bool:
    """Whether `get` takes the name."""
    return fold(name) in map(fold, _SOLVERS)


def get(name: str) -> Solver:
    """A solver by name; capitals, underscores, hyphens and spaces make no difference.

    Raises:
        UnknownSolverError: no solver has the name; the message names the nearest.
    """
    if not knows(name):
        raise UnknownSolverError(name, _SOLVERS)
    return {fold(known): solver for known, solver in _SOLVERS.items()}[fold(name)]


_SOLVERS = {
    solver.name: solver
    for solver in (
        Solver(
            "line_search",
            "Gradient descent with line search",
            "",
            "gradient",
            "Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1",
        ),
        Solver(
            "cg",
            "Nonlinear conjugate gradients",
            "CG",
            "gradient",
            "Polak & Ribière 1969; Nocedal & Wright 2006, section 5.2",
        ),
        Solver(
            "newton_cg",
            "Newton's method by conjugate gradients",
            "Newton-CG",
            "hessian",
            "Nocedal & Wright 2006, section 7.1",
        ),
        Solver("bfgs", "BFGS", "BFGS", "gradient", "Nocedal & Wright 2006, section 6.1"),
        Solver(
            "l_bfgs",
            "L-BFGS",
            "L-BFGS-B",
            "gradient",
            "Byrd, Lu, Nocedal & Zhu 1995, https://doi.org/10.1137/0916069",
        ),
        Solver(
            "nelder_mead",
            "Nelder–Mead simplex",
            "Nelder-Mead",
            "",
            "Nelder & Mead 1965, https://doi.org/10.1093/comjnl/7.4.308",
        ),
    )
}
