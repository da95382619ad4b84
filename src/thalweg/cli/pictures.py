"""The commands that draw: what they take, call and print."""

import argparse
import textwrap
from pathlib import Path

from thalweg import registry, surfaces
from thalweg.cli.arguments import UsageError, asked, names
from thalweg.rule import Rule
from thalweg.rules import WELL_KNOWN
from thalweg.surfaces import solvers
from thalweg.surfaces.solvers import Solver

_WIDTH = 88


def path(arguments: argparse.Namespace) -> int:
    """Draw the paths of optimizers down a surface: .png, .svg, .pdf, .html, .gif or .mp4."""
    with asked():
        from thalweg import plot
        from thalweg.surfaces.race import compete

        surface = surfaces.named(arguments.surface, window=arguments.window, start=arguments.start)
        found = compete(
            surface,
            [_method(name) for name in arguments.optimizers],
            lr=arguments.lr,
            start=arguments.start,
            steps=arguments.steps,
            trials=arguments.trials,
            seed=arguments.seed,
            noise=arguments.noise,
        )
        out = arguments.out or Path(f"{surface.name}.png")
        plot.write(found, out, view=arguments.view, theme=arguments.theme)
    print(out, "", textwrap.fill(found.caption, _WIDTH, break_on_hyphens=False), sep="\n")
    return 0


def figure(arguments: argparse.Namespace) -> int:
    """Draw one of the field's classic pictures, each from data computed anew; --list names them."""
    if arguments.list == bool(arguments.name):
        raise UsageError("name a figure, or --list them all")
    with asked():
        from thalweg import gallery, plot
    if arguments.list:
        width = max(map(len, gallery.names()))
        for name in gallery.names():
            print(f"{name:{width}}  {gallery.get(name).title}")
        return 0
    with asked():
        out = arguments.out or Path(f"{arguments.name}.png")
        drawn = gallery.get(arguments.name).draw(theme=arguments.theme)
        plot.save(drawn.figure, out)
    print(out, "", textwrap.fill(drawn.caption, _WIDTH, break_on_hyphens=False), sep="\n")
    return 0


def _path_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    known = ", ".join(surfaces.names())
    add("surface", metavar="SURFACE", help=f"{known}; or a formula in x and y, such as 'x**2/20 + y**2'")
    add(
        "--optimizers",
        type=names,
        default=[*WELL_KNOWN[:4]],
        metavar="A,B",
        help=f"rules, with @dialect (rmsprop@keras), and the solvers {', '.join(solvers.names())} "
        f"(default: {','.join(WELL_KNOWN[:4])})",
    )
    add("--lr", type=float, metavar="X", help="of every rule (default: tuned for each, with an equal budget)")
    add("--steps", type=int, default=100, metavar="N", help="how many each takes (default: 100)")
    add("--start", type=_numbers, metavar="X,Y", help="where they begin (default: the surface's own)")
    add("--window", type=_window, metavar="X0,X1,Y0,Y1", help="what is shown of a formula")
    add("--noise", type=float, metavar="S", help="deviation of the gradients' noise (default: the surface's)")
    add("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    add("--trials", type=int, default=61, metavar="N", help="learning rates tried for each (default: 61)")
    add("--view", choices=("map", "3d"), default="map", help="from above, or in three dimensions")
    _out_arguments(command, "SURFACE.png; .png, .svg, .pdf, .html, .gif or .mp4")


def _figure_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", nargs="?", help="what --list names")
    command.add_argument("--list", action="store_true", help="the names of all figures")
    _out_arguments(command, "NAME.png; .png, .svg or .pdf")


def _out_arguments(command: argparse.ArgumentParser, default: str) -> None:
    add = command.add_argument
    add("--theme", choices=("light", "dark"), default="light", help="of the paper (default: light)")
    add("--out", type=Path, metavar="FILE", help=f"where to write it (default: {default})")


def _method(text: str) -> Rule | Solver:
    name, _, dialect = text.partition("@")
    if not dialect and solvers.knows(name):
        return solvers.get(name)
    return registry.get(name, dialect=dialect or "paper")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between, such as -1,2; got {text!r}") from None


def _window(text: str) -> list[tuple[float, float]]:
    found = _numbers(text)
    if len(found) % 2 or not found:
        raise argparse.ArgumentTypeError(f"a low and a high number for each variable; got {text!r}")
    return list(zip(found[::2], found[1::2], strict=True))


COMMANDS = {
    "figure": (figure, _figure_arguments),
    "path": (path, _path_arguments),
}
