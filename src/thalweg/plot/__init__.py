"""Pictures of surfaces, paths and maps: matplotlib axes and figures, plotly figures, animations.

    from thalweg import plot
    race = thalweg.surfaces.race.compete("beale", ["sgd", "momentum", "adam"])
    plot.race(race.paths)  # the map with the loss beside it
    plot.save(plot.race(race.paths, theme="dark"), "race.pdf")
    plot.save(plot.interactive.race(race.paths), "race.html")
    plot.animate(race.paths, "race.gif")

What takes `ax` draws into axes of yours, and returns them.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("thalweg.plot needs matplotlib: pip install 'thalweg[plot]'") from error

# isort: off
from thalweg.plot.theme import THEMES, LineStyle, Theme
from thalweg.plot.writer import save
from thalweg.plot.maps import basins, rate_map
from thalweg.plot.paths import loss, path, race, surface
from thalweg.plot.three_d import race_3d, surface_3d
from thalweg.plot.animation import animate
from thalweg.plot import interactive
from thalweg.plot.export import FORMATS, inline, write
# isort: on

__all__ = [
    "FORMATS",
    "THEMES",
    "LineStyle",
    "Theme",
    "animate",
    "basins",
    "inline",
    "interactive",
    "loss",
    "path",
    "race",
    "race_3d",
    "rate_map",
    "save",
    "surface",
    "surface_3d",
    "write",
]
