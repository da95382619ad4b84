"""Races of the classical rules, each with its own tuned learning rate."""

from thalweg import registry
from thalweg.gallery.registry import FigureBuilder, picture
from thalweg.rule import Rule
from thalweg.rules import WELL_KNOWN
from thalweg.surfaces.race import compete

# The well-known rules but for Adam's variants, whose paths are Adam's here.
_RACERS = [name for name in registry.rules() if name in {*WELL_KNOWN} - {"adamax", "nadam"}]

_WHAT = {
    "sgd": (
        "Gradient descent zigzags between the steep walls: its rate must suit them, and is too small for "
        "the floor."
    ),
    "momentum": (
        "Momentum adds up along the floor what all gradients agree on, and cancels the to and fro across "
        "it; it swings through the minimum before it comes to rest."
    ),
    "adagrad": (
        "AdaGrad gives each direction a rate of its own, so that x and y shrink alike: the path heads for "
        "the minimum, with steps that get shorter as gradients add up."
    ),
    "rmsprop": (
        "RMSprop divides by the recent size of gradients: both directions have steps of one length, until "
        "the shorter way is done."
    ),
    "adam": (
        "Adam is momentum over RMSprop's divisor, corrected at the start: a smooth curve, with a swing at "
        "the end."
    ),
}


def _alone(rule: Rule, what: str) -> None:
    name = rule.name

    @picture(f"ravine-{name}", f"{type(rule).__name__} in the ravine")
    def ravine(builder: FigureBuilder) -> str:
        race = compete("ravine", [rule], steps=60)
        builder.race(race.paths, f"{type(rule).__name__}", height=4.0)
        return builder.caption(what, race.how)


for _name, _what in _WHAT.items():
    _alone(registry.get(_name), _what)


@picture("ravine", "Five rules in the ravine")
def ravine_of_all(builder: FigureBuilder) -> str:
    """The five together."""
    race = compete("ravine", [*_WHAT], steps=60)
    builder.race(race.paths, "Ravine", height=4.0)
    return builder.caption(
        "Gradient descent zigzags, momentum swings, and the rules with a rate for each direction head for "
        "the minimum. On a ravine along the axes that is an advantage they would lose if it lay askew.",
        race.how,
    )


@picture("race-valley", "Race: the long valley")
def race_valley(builder: FigureBuilder) -> str:
    """Curvatures 500 times apart."""
    race = compete("long_valley", _RACERS, steps=120)
    builder.race(race.paths, "Long valley")
    return builder.caption(
        "Across the valley the curvature is 500 times that along it. Gradient descent, whose rate the "
        "walls limit, is left far behind; momentum gathers speed; rules that scale each entry hardly "
        f"see a valley. {builder.arrivals(race)}",
        race.how,
    )


@picture("race-saddle", "Race: off a saddle point")
def race_saddle(builder: FigureBuilder) -> str:
    """Beside the ridge."""
    race = compete("saddle", _RACERS, steps=40)
    builder.race(race.paths, "Saddle", height=4.8)
    return builder.caption(
        "All start a thousandth beside the ridge that leads to the saddle (cross). Gradient descent "
        "follows the slope to the saddle and stays until the tiny gradient across has grown; momentum "
        "swings about it meanwhile. Rules that divide by the gradient's size go down at once: a tiny "
        f"gradient gives them as long a step as a large one. {builder.arrivals(race)}",
        race.how,
    )


@picture("race-beale", "Race: Beale's function")
def race_beale(builder: FigureBuilder) -> str:
    """Steep walls and a flat, bent valley."""
    race = compete("beale", _RACERS, steps=120)
    builder.race(race.paths, "Beale", height=5.0)
    return builder.caption(
        "The gradient is a hundred times larger at the start than on the flat valley that leads to the "
        "minimum (star). A rate that survives the start is slow in the valley; a step scaled by past "
        "gradients suffers less from that. "
        f"{builder.arrivals(race)}",
        race.how,
    )
