"""Optimizer state from one framework, dialect and layout to another, so that the next steps are the same.

    moved = thalweg.convert.state(torch_optimizer, source="torch", target="keras", names=names,
                                  target_params=model.trainable_variables)
    model.optimizer = moved.optimizer(model.trainable_variables)

Each framework has one reader and one writer; between them a state is the same for all, with the rule
that it belongs to. What the target's own optimizers cannot do exactly is refused with the reason;
`approximate=True` takes the nearest and lists what is lost. Thalweg's own front ends can do all of it.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from thalweg.convert import files
from thalweg.convert.files import read_tree, write_tree
from thalweg.convert.names import Names, arrays, inverted, propose_names, renamed
from thalweg.convert.parts import Converted, Refused, Run, Source, Target
from thalweg.errors import Argument, InvalidArgumentError, nearest
from thalweg.rule import Rule
from thalweg.untrusted import blamed

__all__ = [
    "FRAMEWORKS",
    "Converted",
    "Refused",
    "arrays",
    "file",
    "inverted",
    "propose_names",
    "read_tree",
    "state",
    "write_tree",
]

# Name in `source` and `target`: the module here that reads and writes it; the dialect of its defaults.
FRAMEWORKS = {
    "torch": ("torch", "torch"),
    "thalweg.torch": ("torch", "torch"),
    "keras": ("keras", "keras"),
    "thalweg.keras": ("keras", "keras"),
    "optax": ("jax", "optax"),
    "thalweg.jax": ("jax", "optax"),
    "thalweg.numpy": ("numpy", "paper"),
}


def state(
    state: Any,
    *,
    source: str,
    target: str,
    rule: str | Rule | None = None,
    dialect: str | None = None,
    names: Names | Sequence[str] | None = None,
    source_params: Any = None,
    target_params: Any = None,
    step: int | None = None,
    approximate: bool = False,
    **values: Any,
) -> Converted:
    """An optimizer's state, with its settings, in another framework's terms.

    Args:
        state: the source's state. Of torch a `state_dict`, or the optimizer. Of Keras the optimizer, or a
            pair of its configuration (as `keras.optimizers.serialize` writes it, or None) and its variables.
            Of Optax and thalweg.jax the state, or a tree that holds it, or its leaves by path. Of
            thalweg.numpy a `State`, or the optimizer.
        source: whose state it is: "torch", "keras" or "optax" for the frameworks' own optimizers,
            "thalweg.torch", "thalweg.keras", "thalweg.jax" or "thalweg.numpy" for Thalweg's.
        target: likewise, whose it is to be.
        rule: where the state does not tell: its name, as `thalweg.get` takes it, or a rule with its values.
            Optax's and thalweg.jax's states never tell; torch's do unless it has taken no step.
        dialect: of a rule that is given by name; the source's own by default.
        names: which parameter becomes which: the target's name for each of the source's, or a pair of it and
            the order in which the target has the axes ((1, 0) for a matrix that is transposed); or the
            target's names in the source's order; or "propose", to match shapes as `propose_names` does. By
            default names are the same.
        source_params: the source's parameters in order, where the state has no names of its own: arrays by
            name, pairs as `model.named_parameters()` gives, Keras's variables, or names alone.
        target_params: likewise the target's; for Optax and JAX their tree.
        step: number of steps taken, where the state does not tell (torch's SGD, some of Optax's).
        approximate: whether the nearest will do where no exact conversion exists; `lost` says how it differs.
        values: hyperparameters that the state does not hold, such as Optax's; or others to go on with.

    Returns:
        what the target loads, how to make the optimizer, and what is lost. Nothing is shared with the source.

    Raises:
        Refused: no exact conversion exists, or the state does not tell what it is; the message says why.
        ValueError: an unknown name, or a state, map or shape that does not fit.
        TypeError: a state of another kind.
    """
    reader, writer = _module(source, "source"), _module(target, "target")
    given = Source(
        state,
        source,
        native=not source.startswith("thalweg."),
        dialect=dialect or FRAMEWORKS[source][1],
        rule=rule,
        params=None if source_params is None else reader.parameters(source_params),
        step=step,
        values=values,
    )
    wanted = Target(target, not target.startswith("thalweg."), approximate, target_params)
    run: Run = reader.read(given)
    for part in run.parts:
        part.rule = part.rule.replaced(**values)
    if run.other and not run.family == FRAMEWORKS[target][0] == "keras":
        replace(wanted, native=False).lose(run, run.other)
    if names is None and target_params is None:
        _check_layouts(run, FRAMEWORKS[target][0])
    shapes = None if target_params is None else writer.parameters(target_params)
    run, pairs = renamed(run, names, shapes)
    moved: Converted = writer.write(run, wanted)
    return replace(moved, lost=tuple(run.lost), map=pairs)


def file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    source: str | None = None,
    target: str | None = None,
    into: str | os.PathLike[str] | None = None,
    key: str | None = None,
    names: Names | Sequence[str] | None = None,
    **asked: Any,
) -> Converted:
    """State in one file as another file; see `thalweg.convert.files` for what each can hold.

    Args:
        path: the file to read.
        out: the file to write, whole or not at all; its ending tells what it is.
        source: the framework, where the file does not tell.
        target: likewise; by default that of the ending ("torch", "keras" or "thalweg.numpy").
        into: a file whose optimizer is replaced in what is written: a Keras model, which is needed, or a
            checkpoint of torch's.
        key: where a torch checkpoint holds the state, if not under a usual name.
        names: as in `state`; the parameters of torch's and Keras's files are numbered in their order. With a
            Keras file `into` that tells the shapes, proposed from them by default.
        asked: the rest as in `state`.

    Returns:
        what has been written.

    Raises:
        Refused: as in `state`, or a file does not tell what it holds.
        ValueError: a file is of no known kind, is damaged, or does not fit; the message names it.
        OSError: a file cannot be read or written.
    """
    there = Path(out)
    target = target or files.usual_framework(there)
    with blamed(Path(path), but=(Refused, OSError)):
        held = files.read(Path(path), key, asked)
    if not (source or held.framework):
        raise Refused(f"{path} does not tell which framework's state it holds: give ", Argument("source"))
    if held.rule is not None:
        asked.setdefault("rule", held.rule)
    params = files.shapes_in(Path(into)) if into is not None and target.endswith("keras") else None
    if params is not None and names is None:
        names = "propose"
    asked |= {"source": source or held.framework, "target": target, "names": names, "target_params": params}
    with files.in_full(target), blamed(Path(path), but=(Refused, OSError)):
        moved = state(held.state, **asked)
    files.write(there, moved, None if into is None else Path(into), key)
    return moved


def _check_layouts(run: Run, family: str) -> None:
    """Refuse to number Keras's kernels as torch's weights, which are their transposes."""
    numbered = all(name.isdigit() for name in run.names)
    if (run.family, family) == ("keras", "torch") and numbered:
        matrices = (name for name, shape in run.shapes.items() if shape is not None and len(shape) > 1)
        if (name := next(matrices, None)) is not None:
            raise Refused(
                f"parameter {name} has no name, and its axes {run.shapes[name]} are (in, out) in Keras, "
                "(out, in) in torch: give ",
                Argument("names"),
                ', such as {"0": ["0", [1, 0]], "1": "1"}',
            )


def _module(name: str, argument: str) -> Any:
    """What reads and writes a framework's state; imported when it is needed, and the framework with it."""
    if name not in FRAMEWORKS:
        last = {known.rpartition(".")[2]: known for known in reversed(FRAMEWORKS)}
        raise InvalidArgumentError(
            Argument(argument, name), f": there is no such framework; {nearest(name, FRAMEWORKS, last)}"
        )
    return import_module(f"thalweg.convert.{FRAMEWORKS[name][0]}")
