"""State in files: what a file holds, and a file that holds what was converted.

    .pt .pth             a torch `state_dict`, or a checkpoint that holds one
    .keras               a Keras model with its optimizer
    .weights.h5          likewise, without the optimizer's configuration
    .npz .safetensors    a state of thalweg.numpy; or a pytree of Optax's or thalweg.jax's, its leaves by path

A file is replaced whole or not at all.
"""

import io
import json
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from thalweg import statefile
from thalweg.convert.parts import Array, Converted, Refused, Shapes
from thalweg.errors import Argument, InvalidArgumentError, InvalidFileError, MissingPackageError
from thalweg.rule import Rule
from thalweg.statefile import State
from thalweg.untrusted import archive, blamed, bound, native, opened, size_of

_TREE = "thalweg tree 1"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_VARIABLES = "optimizer/vars"
_MODEL, _WEIGHTS_FILE = "a Keras model", "a Keras weights file"
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
        raise InvalidFileError(f"{path.name} cannot hold a state of {moved.kind}: {_ENDINGS[family]}")
    if into is not None and (_kind(into) != kind or kind == "arrays"):
        raise InvalidArgumentError(
            Argument("into", into.name), f": only a file of the kind of {path.name!r} can go into it"
        )
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
        raise InvalidArgumentError(
            f"{path.name} holds a whole Keras model: give one whose optimizer is to be replaced, as ",
            Argument("into"),
        )
    elif kind == "h5":
        with opened(into, _WEIGHTS_FILE) as file:
            content = _with_variables(file.read(), moved)
    else:
        content = _keras_file(into, moved)
    with statefile.replaced(path) as written:
        written.write(content)


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
    arrays, about = statefile.read_arrays(path)
    if not about:
        return Held(arrays, "")
    with blamed(path, "a state that thalweg wrote"):
        if about.get("format") != _TREE:
            return Held(statefile.state_of(arrays, about), "thalweg.numpy")
        kind = str(about["kind"])
        framework = "thalweg.jax" if kind.startswith("thalweg.") else "optax" if kind else ""
        if about["rule"] is None:
            return Held(arrays, framework)
        state = statefile.checked(State(**{**about["rule"], "slots": {}}))
    held = {k: v for k, v in schedules.items() if state.hyperparameters.get(k, 0) is None}
    return Held(arrays, framework, state.rebuilt(**held))


# -- torch -------------------------------------------------------------------------------------------


def _load_torch(path: Path) -> Any:
    import pickle

    import torch

    with opened(path, "a torch checkpoint that holds tensors and numbers alone") as file:
        size = size_of(file)
        with archive(file) as members:
            _check_members(members)
        try:
            # Tensors lie in the mapped file: one that claims more than it stores reads no other memory.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise ValueError("what else it holds is not read") from None
        tensors = list(_tensors(content, size))
        bound(((tuple(tensor.shape), tensor.element_size()) for tensor in tensors), size)
        return content


def _check_members(members: zipfile.ZipFile) -> None:
    """Refuse an archive that is damaged, or that torch would not write: it may take any amount of memory.

    Raises:
        ValueError: it is.
    """
    for member in members.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member {member.filename!r} is compressed")
        if member.filename.casefold().endswith("data.pkl"):
            for opcode, argument, _ in pickletools.genops(members.read(member)):
                # Of what weights_only calls, these fill as much memory as they are told to.
                if opcode.name == "GLOBAL" and str(argument).split()[-1] in ("bytearray", "encode"):
                    raise ValueError("it holds bytes")
    if (damaged := members.testzip()) is not None:  # which torch does not look for
        raise ValueError(f"its member {damaged!r} has another checksum")


def _tensors(content: Any, most: int) -> Iterator[Any]:
    """The tensors in nested containers.

    Raises:
        ValueError: these contain themselves, or one another over and over, so that more than `most` are met.
    """
    import torch

    pending = [content]
    met = 0
    while pending:
        met += 1
        if met > most:
            raise ValueError("it contains itself over and over")
        item = pending.pop()
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, Mapping):
            pending += [*item, *item.values()]
        elif isinstance(item, list | tuple | set):
            pending += item


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
        raise InvalidArgumentError(
            f"{path} does not tell where the optimizer's state is; give ",
            Argument("key"),
            f": it has {_keys(content)}",
        )
    return content[keys[0]]


def _keys(content: Any) -> str:
    return ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__


def _torch_file(moved: Converted, into: Path | None, key: str | None) -> bytes:
    import torch

    for group in moved.state["param_groups"]:
        if scheduled := [k for k, v in group.items() if callable(v)]:
            raise Refused(
                f"a schedule gives {scheduled[0]}, which no file holds: give ",
                Argument(scheduled[0], hyperparameter=True),
            )
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
        with opened(path, _WEIGHTS_FILE) as file:
            return None, _variables_in(file.read())
    config, weights = _keras_parts(path)
    compiled = config.get("compile_config") or {}
    with blamed(path, _MODEL):
        optimizer = compiled.get("optimizer")
        if isinstance(optimizer, Mapping):
            _check_objects(optimizer["config"])
            return dict(optimizer), _variables_in(weights)
    raise ValueError(f"the model in {path} has no optimizer: it was saved before compile()")


def _keras_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    with opened(path, _MODEL) as file, archive(file) as members:
        config = json.loads(members.read(_CONFIG))
        if not isinstance(config, dict):
            raise ValueError("its configuration is no dictionary")
        return config, members.read(_WEIGHTS)


def _check_objects(config: Any) -> None:
    """Refuse a configuration that would have Keras make anything but schedules: what it makes, it runs.

    Raises:
        ValueError: it would.
    """
    if isinstance(config, list):
        for entry in config:
            _check_objects(entry)
    if not isinstance(config, Mapping):
        return
    if "class_name" in config:
        import keras

        name = config.get("registered_name") or config["class_name"]
        schedule = getattr(keras.optimizers.schedules, str(config["class_name"]), None)
        if not (config.get("module") == "keras.optimizers.schedules" and schedule is not None) and (
            keras.saving.get_registered_object(name) is None
        ):
            raise ValueError(f"it names {name!r}, which is no learning rate schedule")
    for value in config.values():
        _check_objects(value)


def _variables_in(weights: bytes) -> list[Array]:
    with _h5(weights, "r") as file:
        group = _optimizer_in(file)
        if group is None:
            return []
        datasets = [_member(group, str(i)) for i in range(len(group))]
        for dataset in datasets:
            _check_dataset(dataset)
        shapes = [(dataset.shape, dataset.dtype.itemsize) for dataset in datasets]
        shapes += [(dataset.chunks, dataset.dtype.itemsize) for dataset in datasets if dataset.chunks]
        bound(shapes, len(weights))
        return [_array(dataset) for dataset in datasets]


def _optimizer_in(file: Any) -> Any:
    """The group of the optimizer's variables; None where there is none."""
    found = file
    for name in _VARIABLES.split("/"):
        found = None if found is None else _member(found, name)
    return found


def _member(group: Any, name: str) -> Any:
    """What a group of an HDF5 file has under a name, if anything; never what a link leads to.

    Raises:
        ValueError: it is a link, to another place or another file.
    """
    import h5py

    links, key = group.id.links, name.encode()
    if not links.exists(key):
        return None
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name!r} is a link to elsewhere")
    return group[name]


def _check_dataset(dataset: Any) -> None:
    """Refuse what is no array of numbers in this very file, as large as it says.

    Raises:
        ValueError: it is not.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError("a variable is missing, or no array")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"variable {dataset.name} is kept in another file")
    if dataset.dtype.kind not in "biufV" or dataset.dtype.hasobject:
        raise ValueError(f"variable {dataset.name} is of {dataset.dtype}, which is no number")
    if dataset.shape is None or (not dataset.chunks and dataset.nbytes > dataset.id.get_storage_size()):
        raise ValueError(f"variable {dataset.name} is not stored whole")


def _array(dataset: Any) -> Array:
    a: Array = native(np.asarray(dataset[()]))
    marked = "dtype" in dataset.attrs and dataset.attrs.get_id("dtype").shape == ()
    if marked and dataset.attrs["dtype"] == "bfloat16":  # as Keras marks it
        import ml_dtypes

        return a.view(ml_dtypes.bfloat16)
    return a


def _with_variables(weights: bytes, moved: Converted) -> bytes:
    """A weights file with other optimizer variables."""
    buffer = io.BytesIO(weights)
    with _h5(buffer, "r+") as file:
        group = _optimizer_in(file)
        if group is None:
            group = file.create_group(_VARIABLES)
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
    if not isinstance(compiled, dict) or not compiled:
        raise ValueError(f"the model in {into} has no optimizer: compile and save it first")
    module, _, kind = moved.kind.rpartition(".")
    optimizer = getattr(import_module(module), kind)(**moved.settings)
    compiled["optimizer"] = keras.optimizers.serialize(optimizer)
    with opened(into, _MODEL) as file, archive(file) as old:
        members = {member: old.read(member) for member in old.infolist()}
        new = {_CONFIG: json.dumps(config).encode(), _WEIGHTS: _with_variables(weights, moved)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for member, content in members.items():
            written.writestr(member, new.get(member.filename, content))
    return buffer.getvalue()


def _snake(name: str) -> str:
    from keras.src.utils.naming import to_snake_case

    return str(to_snake_case(name))


def _h5(content: bytes | io.BytesIO, mode: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError("a file of Keras's", "h5py", "keras") from error
    return h5py.File(io.BytesIO(content) if isinstance(content, bytes) else content, mode)


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
