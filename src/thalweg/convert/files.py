"""State in files: what a file holds, and a file that holds what was converted.

    .pt .pth             a torch `state_dict`, or a checkpoint that holds one
    .keras               a Keras model with its optimizer
    .weights.h5          likewise, without the optimizer's configuration
    .npz .safetensors    a state of thalweg.numpy; or a pytree of Optax's or thalweg.jax's, its leaves by path

A file is replaced whole or not at all.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from thalweg import statefile
from thalweg.convert.parts import Array, Converted, Refused, Shapes
from thalweg.rule import Rule
from thalweg.statefile import State

_TREE = "thalweg tree 1"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_VARIABLES = "optimizer/vars"
# Where checkpoints keep an optimizer's state.
_KEYS = ("optimizer", "optimizer_state_dict", "optimizer_state", "optim")


class Held:
    """What a file holds.

    Attributes:
        state: as `thalweg.convert.state` takes it.
        framework: whose it is, where the file tells; its native one where that makes no difference.
        rule: what it follows, where the file tells.
    """

    def __init__(self, state: Any, framework: str, rule: Rule | None = None) -> None:
        self.state, self.framework, self.rule = state, framework, rule


def read(path: Path, key: str | None = None, schedules: Mapping[str, Any] | None = None) -> Held:
    """Read what a file holds.

    Args:
        path: the file; its ending tells its kind.
        key: where a torch checkpoint holds the state; keys on the way with "/" between.
        schedules: hyperparameters that a schedule gives, which no file holds.

    Raises:
        ValueError: the file is of no known kind, is damaged, or holds no state.
        OSError: it cannot be read.
    """
    match _kind(path):
        case "torch":
            return Held(_at(path, _load_torch(path), key), "torch")
        case "keras" | "h5":
            config, variables = _load_keras(path)
            if not variables:
                raise ValueError(f"{path} holds no optimizer's variables")
            name = str((config or {}).get("registered_name") or (config or {}).get("class_name"))
            return Held((config, variables), "thalweg.keras" if name.startswith("thalweg>") else "keras")
        case _:
            return _load_arrays(path, schedules or {})


def write(path: Path, moved: Converted, into: Path | None = None, key: str | None = None) -> None:
    """Write what was converted.

    Args:
        path: the file; its ending must be one that can hold it.
        moved: what `thalweg.convert.state` returned.
        into: a file of the same kind whose optimizer is replaced in the copy that is written; needed for
            Keras, whose files hold a whole model.
        key: where a torch checkpoint `into` holds the state.

    Raises:
        Refused: the file cannot hold all of it.
        ValueError: another ending, or `into` does not fit.
        OSError: a file cannot be read or written.
    """
    kind, family = _kind(path), moved.kind.split(".")[0 if not moved.kind.startswith("thalweg") else 1]
    family = {"optax": "jax"}.get(family, family)
    wanted = {"torch": ("torch",), "keras": ("keras", "h5")}.get(family, ("arrays",))
    if kind not in wanted:
        raise ValueError(f"{path.name} cannot hold a state of {moved.kind}: {_ENDINGS[family]}")
    if into is not None and (_kind(into) != kind or kind == "arrays"):
        raise ValueError(f"into={into.name!r}: only a file of the kind of {path.name!r} can go into it")
    if kind == "torch":
        content = _torch_file(moved, into, key)
    elif kind == "arrays":
        if family == "numpy":
            statefile.write(path, moved.state)
        else:
            write_tree(path, moved.state, moved.kind, moved.rule)
        return
    elif moved.undecayed:
        raise Refused(
            f"a Keras file does not hold that {', '.join(moved.undecayed)} do not decay: convert in a "
            "program, where optimizer() sees to that"
        )
    elif into is None:
        raise ValueError(
            f"{path.name} holds a whole Keras model: give one whose optimizer is to be replaced, as into="
        )
    elif kind == "h5":
        content = _with_variables(into.read_bytes(), moved)
    else:
        content = _keras_file(into, moved)
    with statefile.replaced(path) as file:
        file.write(content)


def shapes_in(path: Path) -> Shapes | None:
    """The shapes of the parameters whose state a Keras file holds; None where it does not tell them."""
    from thalweg.convert import keras
    from thalweg.convert.parts import Source

    config, variables = _load_keras(path)
    if config is None or not variables:
        return None
    return keras.read(Source((config, variables), "keras", True, "keras", values={"lr": 1.0})).shapes or None


# -- trees -------------------------------------------------------------------------------------------


def write_tree(path: Path, tree: Any, kind: str = "", rule: Rule | None = None) -> None:
    """Write a pytree of arrays, such as an Optax state, to a .npz or .safetensors file: its leaves by path.

    Args:
        path: the file.
        tree: the tree.
        kind: what it is the state of, such as "optax.adam".
        rule: the rule that it follows, for who reads the file.
    """
    from thalweg.convert.jax import leaves_of

    about = asdict(State.of(rule, 0, {}, {})) if rule is not None else None
    leaves = {path: np.asarray(leaf) for path, leaf in leaves_of(tree).items()}
    statefile.write_arrays(path, leaves, {"format": _TREE, "kind": kind, "rule": about})


def read_tree(path: Path, like: Any) -> Any:
    """Read a pytree that `write_tree` wrote.

    Args:
        path: the file.
        like: a tree of its structure, such as `optimizer.init(params)`.

    Raises:
        ValueError: the file holds another tree, or is damaged.
    """
    from thalweg.convert.jax import leaves_of, with_leaves

    leaves, _ = statefile.read_arrays(path)
    wanted = {k: np.shape(leaf) for k, leaf in leaves_of(like).items()}
    found = {k: leaf.shape for k, leaf in leaves.items()}
    if wanted != found:
        differ = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
        raise ValueError(f"{path} holds another tree: {', '.join(differ[:4])}")
    import jax.numpy as jnp

    return with_leaves(like, {k: jnp.asarray(leaf) for k, leaf in leaves.items()})


def _load_arrays(path: Path, schedules: Mapping[str, Any]) -> Held:
    arrays, about = _arrays(path)
    if about.get("format") != _TREE:
        return Held(statefile.read(path), "thalweg.numpy") if about else Held(arrays, "")
    kind = str(about["kind"])
    framework = "thalweg.jax" if kind.startswith("thalweg.") else "optax" if kind else ""
    if about["rule"] is None:
        return Held(arrays, framework)
    state = State(**{**about["rule"], "slots": {}})
    held = {k: v for k, v in schedules.items() if state.hyperparameters.get(k, 0) is None}
    return Held(arrays, framework, state.rebuilt(**held))


def _arrays(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays in a file, and what it says about them: nothing where someone else wrote it."""
    if path.suffix == ".npz":
        with path.open("rb") as raw:
            named = {name.removesuffix(".npy") for name in _members(path, raw)}
            if "" not in named:
                raw.seek(0)
                with np.load(raw, allow_pickle=False) as file:
                    return {k: file[k] for k in file.files}, {}
    return statefile.read_arrays(path)


def _members(path: Path, raw: Any) -> list[str]:
    try:
        with zipfile.ZipFile(raw) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a .npz file, or is damaged: {error}") from None


# -- torch -------------------------------------------------------------------------------------------


def _load_torch(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and numbers, which is not read: {reason}"
        ) from None


def _at(path: Path, content: Any, key: str | None) -> Any:
    """The `state_dict` in a checkpoint."""
    found = content
    for part in key.split("/") if key else ():
        try:
            found = found[int(part) if isinstance(found, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"{path} has no {key!r}; it has {_keys(content)}") from None
    if key or (isinstance(found, Mapping) and {"state", "param_groups"} <= set(found)):
        return found
    keys = [k for k in _KEYS if isinstance(content, Mapping) and k in content]
    if len(keys) != 1:
        raise ValueError(
            f"{path} does not tell where the optimizer's state is; give key=: it has {_keys(content)}"
        )
    return content[keys[0]]


def _keys(content: Any) -> str:
    return ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__


def _torch_file(moved: Converted, into: Path | None, key: str | None) -> bytes:
    import torch

    for group in moved.state["param_groups"]:
        if scheduled := [k for k, v in group.items() if callable(v)]:
            raise Refused(f"a schedule gives {scheduled[0]}, which no file holds: give {scheduled[0]}=")
    content: Any = moved.state
    if into is not None:
        content = _load_torch(into)
        old = _at(into, content, key)
        if old is content:
            content = moved.state
        else:
            old.clear()
            old.update(moved.state)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


# -- Keras -------------------------------------------------------------------------------------------


def _load_keras(path: Path) -> tuple[dict[str, Any] | None, list[Array]]:
    """The optimizer's configuration, where the file holds one, and its variables."""
    if _kind(path) == "h5":
        return None, _variables_in(path, path.read_bytes())
    config, weights = _keras_parts(path)
    compiled = config.get("compile_config") or {}
    if not isinstance(compiled.get("optimizer"), Mapping):
        raise ValueError(f"the model in {path} has no optimizer: it was saved before compile()")
    return dict(compiled["optimizer"]), _variables_in(path, weights)


def _keras_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_CONFIG)), archive.read(_WEIGHTS)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a Keras model, or is damaged: {error}") from None


def _variables_in(path: Path, weights: bytes) -> list[Array]:
    with _h5(weights, "r", path) as file:
        if _VARIABLES not in file:
            return []
        group = file[_VARIABLES]
        return [_array(group[str(i)]) for i in range(len(group))]


def _array(dataset: Any) -> Array:
    a: Array = dataset[()] if dataset.shape else np.asarray(dataset[()])
    if dataset.attrs.get("dtype") == "bfloat16":  # as Keras marks it
        import ml_dtypes

        return np.asarray(a).view(ml_dtypes.bfloat16)
    return np.asarray(a)


def _with_variables(weights: bytes, moved: Converted) -> bytes:
    """A weights file with other optimizer variables."""
    buffer = io.BytesIO(weights)
    with _h5(buffer, "r+", Path("into")) as file:
        group = file.require_group(_VARIABLES)
        for name in list(group):
            del group[name]
        group.attrs["name"] = _snake(moved.kind.rsplit(".", 1)[-1])
        for i, a in enumerate(moved.state):
            dataset = group.create_dataset(str(i), data=a)
            if a.dtype.name == "bfloat16":
                dataset.attrs["dtype"] = "bfloat16"
    return buffer.getvalue()


def _keras_file(into: Path, moved: Converted) -> bytes:
    """A model file with another optimizer."""
    import keras

    config, weights = _keras_parts(into)
    compiled = config.get("compile_config")
    if not compiled:
        raise ValueError(f"the model in {into} has no optimizer: compile and save it first")
    module, _, kind = moved.kind.rpartition(".")
    optimizer = getattr(import_module(module), kind)(**moved.settings)
    compiled["optimizer"] = keras.optimizers.serialize(optimizer)
    new = {_CONFIG: json.dumps(config).encode(), _WEIGHTS: _with_variables(weights, moved)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(into) as old, zipfile.ZipFile(buffer, "w") as archive:
        for member in old.infolist():
            archive.writestr(member, new.get(member.filename) or old.read(member.filename))
    return buffer.getvalue()


def _snake(name: str) -> str:
    from keras.src.utils.naming import to_snake_case

    return str(to_snake_case(name))


def _h5(content: Any, mode: str, path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("Keras's files need the package h5py: pip install 'thalweg[keras]'") from error
    try:
        return h5py.File(io.BytesIO(content) if isinstance(content, bytes) else content, mode)
    except OSError as error:
        raise ValueError(f"{path} is not a Keras weights file, or is damaged: {error}") from None


_ENDINGS = {
    "torch": "it ends in .pt or .pth",
    "keras": "it ends in .keras or .weights.h5",
    "numpy": "it ends in .npz or .safetensors",
    "jax": "it ends in .npz or .safetensors",
}


def in_full(target: str) -> AbstractContextManager[Any]:
    """Within: JAX keeps float64, as a file does, whatever this process computes in."""
    if target not in ("optax", "thalweg.jax"):
        return nullcontext()
    import jax
    import jax.experimental

    # where it is in older JAX and in newer
    module = jax if hasattr(jax, "enable_x64") else jax.experimental
    enable: Any = vars(module)["enable_x64"]
    return enable(True)  # type: ignore[no-any-return]


def usual_framework(path: Path) -> str:
    """Whose state a file of that ending holds if nothing else is said."""
    return {"torch": "torch", "arrays": "thalweg.numpy"}.get(_kind(path), "keras")


def _kind(path: Path) -> str:
    kinds: dict[str, str] = {".pt": "torch", ".pth": "torch", ".keras": "keras", ".h5": "h5"}
    kinds |= {".npz": "arrays", ".safetensors": "arrays"}
    if path.suffix not in kinds:
        raise ValueError(
            f"{path.name}: a file of state ends in .pt, .pth, .keras, .weights.h5, .npz or .safetensors"
        )
    return kinds[path.suffix]
