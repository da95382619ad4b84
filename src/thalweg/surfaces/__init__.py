"""Surfaces to watch a rule on, rules followed down them, and what the paths show."""

from thalweg.surfaces.functions import (
    Noise,
    QuadraticForm,
    Surface,
    get,
    ill_conditioned,
    named,
    names,
    parse,
    quadratic,
)

__all__ = [
    "Noise",
    "QuadraticForm",
    "Surface",
    "get",
    "ill_conditioned",
    "named",
    "names",
    "parse",
    "quadratic",
]
