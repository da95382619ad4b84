"""State in files of every kind, and from each to the others."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import keras
import ml_dtypes
import numpy as np
import optax
import pytest
import torch

import thalweg
import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from convert_cases import KERAS_WARNS
from thalweg import convert
from thalweg.convert import files

pytestmark = KERAS_WARNS

SHAPES = {"0": (4, 3), "1": (4,), "2": (2, 4), "3": (2,)}


def gradient(shape: tuple[int, ...], t: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) - 3.0 + t).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What a torch program saves: a model and an optimizer after some steps."""
    params = [torch.ones(s, requires_grad=True) for s in SHAPES.values()]
    optimizer = torch.optim.AdamW(params, lr=0.02, betas=(0.9, 0.2), eps=1e-3)
    for t in range(25):
        for p in params:
            p.grad = torch.tensor(gradient(tuple(p.shape), t))
        optimizer.step()
    path = tmp_path / "run.pt"
    torch.save({"model": {"w": params[0].detach()}, "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """A Keras model of the transposed shapes, compiled and saved."""
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    made.compile("adam", "mse")
    made.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    path = tmp_path / "model.keras"
    made.save(path)
    yield made, path
    keras.backend.clear_session()


def optimizer_state(path: Path) -> Any:
    return torch.load(path, weights_only=True)["optimizer"]["state"]


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("target", ["thalweg.numpy", "optax", "thalweg.jax"])
def test_from_torch_to_arrays_and_back(checkpoint: Path, tmp_path: Path, target: str, ending: str) -> None:
    there, back = tmp_path / f"state.{ending}", tmp_path / "back.pt"
    convert.file(checkpoint, there, target=target)
    convert.file(there, back, into=checkpoint)
    saved = torch.load(back, weights_only=True)
    before = torch.load(checkpoint, weights_only=True)
    assert (saved["epoch"], set(saved)) == (3, {"model", "optimizer", "epoch"})
    assert saved["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    for place, state in before["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(saved["optimizer"]["state"][place][key], value)


def test_into_keras_the_map_is_proposed_and_keras_loads_the_result(
    checkpoint: Path, model: tuple[Any, Path], tmp_path: Path
) -> None:
    out = tmp_path / "moved.keras"
    moved = convert.file(checkpoint, out, into=model[1])
    assert moved.kind == "keras.optimizers.AdamW"
    assert dict(moved.map) == {"0": ("0", (1, 0)), "1": "1", "2": ("2", (1, 0)), "3": "3"}
    loaded = keras.saving.load_model(out)
    assert type(loaded.optimizer) is keras.optimizers.AdamW
    assert float(loaded.optimizer.learning_rate.numpy()) == pytest.approx(0.02)
    assert (int(loaded.optimizer.iterations.numpy()), loaded.optimizer.beta_2) == (25, 0.2)
    first = loaded.optimizer.variables[2].numpy()
    np.testing.assert_array_equal(first, optimizer_state(checkpoint)[0]["exp_avg"].numpy().T)
    np.testing.assert_array_equal(loaded.get_weights()[0], model[0].get_weights()[0])
    loaded.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    back = tmp_path / "back.pt"
    again = convert.file(out, back, names=convert.inverted(moved.map))
    assert again.kind == "torch.optim.AdamW"
    state = torch.load(back, weights_only=True)
    assert torch.equal(state["state"][2]["exp_avg_sq"], optimizer_state(checkpoint)[2]["exp_avg_sq"])


def test_thalweg_keras_is_written_and_known_again(
    checkpoint: Path, model: tuple[Any, Path], tmp_path: Path
) -> None:
    out = tmp_path / "moved.keras"
    state = torch.load(checkpoint, weights_only=True)
    state["optimizer"]["param_groups"][0]["betas"] = (0.9, 0.999)  # ε now makes a difference
    torch.save(state, checkpoint)
    with pytest.raises(convert.Refused, match="adds ε to √v after the bias correction"):
        convert.file(checkpoint, out, into=model[1])
    convert.file(checkpoint, out, target="thalweg.keras", into=model[1])
    loaded = keras.saving.load_model(out)
    assert type(loaded.optimizer) is thalweg.keras.AdamW
    assert loaded.optimizer.rule.values["epsilon"] == 1e-3
    assert files.read(out).framework == "thalweg.keras"


def test_weights_of_keras_are_loaded_by_keras(
    checkpoint: Path, model: tuple[Any, Path], tmp_path: Path
) -> None:
    made, _ = model
    into, out = tmp_path / "model.weights.h5", tmp_path / "moved.weights.h5"
    made.save_weights(into)
    names = {"0": ["0", [1, 0]], "1": "1", "2": ["2", [1, 0]], "3": "3"}
    convert.file(checkpoint, out, into=into, names=names)  # type: ignore[arg-type]
    made.compile(keras.optimizers.AdamW(), "mse")
    made.optimizer.build(made.trainable_variables)
    made.load_weights(out)
    assert int(made.optimizer.iterations.numpy()) == 25
    np.testing.assert_array_equal(
        made.optimizer.variables[4].numpy(), optimizer_state(checkpoint)[1]["exp_avg"].numpy()
    )
    with pytest.raises(convert.Refused, match="does not tell which rule it follows: give rule="):
        convert.file(out, tmp_path / "back.pt")
    asked = {"rule": "adamw", "beta_2": 0.2, "epsilon": 1e-3, "weight_decay": 0.01}
    with pytest.raises(convert.Refused, match=r"parameter 0 has no name, .* \(in, out\) in Keras"):
        convert.file(out, tmp_path / "back.pt", **asked)
    moved = convert.file(out, tmp_path / "back.pt", names=names, **asked)
    assert (moved.settings["lr"], moved.step) == (pytest.approx(0.02), 25)


def test_a_tree_of_optaxs_is_kept_by_path(tmp_path: Path) -> None:
    params = {"layer": {"w": jnp.ones((3, 2)), "b": jnp.ones(2, jnp.bfloat16)}}
    optimizer = optax.adam(0.1)
    _, state = optimizer.update(params, optimizer.init(params), params)
    path = tmp_path / "state.npz"
    convert.write_tree(path, state)
    with np.load(path) as file:
        assert "0/mu/layer/w" in file.files
    again = convert.read_tree(path, optimizer.init(params))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    with pytest.raises(ValueError, match=r"holds another tree: 0/count, 0/mu/layer/b"):
        convert.read_tree(path, optax.sgd(0.1, momentum=0.9).init(params))
    out = tmp_path / "state.pt"
    with pytest.raises(convert.Refused, match="does not tell which framework's state it holds: give source="):
        convert.file(path, out)
    with pytest.raises(convert.Refused, match="give rule="):
        convert.file(path, out, source="optax")
    moved = convert.file(path, out, source="optax", rule="adam", lr=0.1)
    assert set(moved.names) == {"layer/w", "layer/b"}
    assert torch.load(out, weights_only=True)["state"][0]["exp_avg"].dtype in (torch.float32, torch.bfloat16)


def test_leaves_by_path_from_any_program(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **{"0/count": np.int32(7), "0/mu/w": np.ones(3), "0/nu/w": np.ones(3)})  # type: ignore[arg-type]
    moved = convert.file(path, tmp_path / "out.npz", source="optax", rule="adam", lr=0.1)
    assert (moved.state.t, moved.names) == (7, ("w",))


def test_a_state_of_thalweg_jax_tells_its_rule(tmp_path: Path) -> None:
    rule = thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.get("rmsprop", dialect="optax", momentum=0.5))
    optimizer = thalweg.numpy.Optimizer(rule)
    optimizer.update({"w": np.ones(3, np.float32)}, {"w": np.ones(3)})
    optimizer.save(tmp_path / "a.npz")
    convert.file(tmp_path / "a.npz", tmp_path / "b.npz", target="thalweg.jax")
    moved = convert.file(tmp_path / "b.npz", tmp_path / "c.safetensors")
    assert moved.rule == rule
    other = thalweg.numpy.Optimizer(rule)
    other.load(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(other.state().slots["b"]["w"], optimizer.state().slots["b"]["w"])


def test_a_schedule_is_asked_for_since_files_hold_none(tmp_path: Path) -> None:
    rule = thalweg.Adam(lr=thalweg.schedules.Exponential(0.1, 0.9))
    optimizer = thalweg.numpy.Optimizer(rule)
    optimizer.update({"w": np.ones(3)}, {"w": np.ones(3)})
    optimizer.save(tmp_path / "a.npz")
    out = tmp_path / "b.pt"
    with pytest.raises(ValueError, match="a schedule gives lr, and a state holds no schedules: give lr="):
        convert.file(tmp_path / "a.npz", out)
    assert convert.file(tmp_path / "a.npz", out, lr=0.05).settings["lr"] == 0.05
    state = convert.state(optimizer, source="thalweg.numpy", target="thalweg.torch")
    with pytest.raises(convert.Refused, match="a schedule gives lr, which no file holds: give lr="):
        files.write(out, state)


def test_bfloat16_variables_of_keras(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("bfloat16")
    try:
        made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4)])
        made.compile(keras.optimizers.SGD(0.25, momentum=0.5), "mse")
        made.fit(np.ones((4, 3)), np.ones((4, 4)), verbose=0)
        made.save(tmp_path / "a.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    moved = convert.file(tmp_path / "a.keras", tmp_path / "b.npz")
    velocity = moved.state.slots["b"]["0"]
    assert velocity.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(velocity, np.asarray(made.optimizer.variables[2].value))
    back = tmp_path / "c.keras"
    convert.file(tmp_path / "b.npz", back, into=tmp_path / "a.keras")
    again = convert.file(back, tmp_path / "d.npz")
    np.testing.assert_array_equal(again.state.slots["b"]["0"], velocity)


# -- what goes wrong ---------------------------------------------------------------------------------


def test_the_key_of_a_checkpoint_may_be_given(checkpoint: Path, tmp_path: Path) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    out = tmp_path / "out.npz"
    nested = tmp_path / "nested.pt"
    torch.save({"trainer": {"states": [saved["optimizer"]]}, "x": 1}, nested)
    with pytest.raises(
        ValueError, match="does not tell where the optimizer's state is; give key=: it has trainer, x"
    ):
        convert.file(nested, out)
    with pytest.raises(ValueError, match="has no 'trainer/state'"):
        convert.file(nested, out, key="trainer/state")
    assert convert.file(nested, out, key="trainer/states/0").step == 25
    back = tmp_path / "back.pt"
    convert.file(out, back, into=nested, key="trainer/states/0")
    assert torch.load(back, weights_only=True)["x"] == 1
    assert convert.file(back, out, key="trainer/states/0").step == 25
    bare = tmp_path / "bare.pth"
    torch.save(saved["optimizer"], bare)
    assert convert.file(bare, out).step == 25
    convert.file(out, back, into=bare)
    assert set(torch.load(back, weights_only=True)) == {"state", "param_groups"}


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"optimizer": Path("x")}, path)
    with pytest.raises(
        ValueError, match=r"evil.pt is not a torch checkpoint that holds tensors and numbers alone"
    ):
        convert.file(path, tmp_path / "out.npz")


@pytest.mark.parametrize("name", ["a.pt", "a.keras", "a.weights.h5", "a.npz", "a.safetensors"])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(ValueError, match=name):
        convert.file(path, tmp_path / "out.npz", rule="adam")
    with pytest.raises(FileNotFoundError):
        convert.file(tmp_path / f"absent{path.suffix}", tmp_path / "out.npz")


@pytest.mark.parametrize(
    ("out", "asked", "message"),
    [
        ("out.pkl", {}, "a file of state ends in .pt, .pth, .keras"),
        (
            "out.npz",
            {"target": "torch"},
            "out.npz cannot hold a state of torch.optim.AdamW: it ends in .pt or .pth",
        ),
        ("out.pt", {"target": "optax"}, "out.pt cannot hold a state of optax.adamw: it ends in .npz or"),
        ("out.keras", {}, "holds a whole Keras model: give one whose optimizer is to be replaced, as into="),
        ("out.npz", {"into": "run.pt"}, "into='run.pt': only a file of the kind of 'out.npz' can go into it"),
    ],
)
def test_nothing_is_written_where_something_is_wrong(
    checkpoint: Path, out: str, asked: dict[str, Any], message: str
) -> None:
    path = checkpoint.parent / out
    path.write_bytes(b"what was there")
    if "into" in asked:
        asked = {"into": checkpoint}
    with pytest.raises(ValueError, match=message):
        convert.file(checkpoint, path, **asked)
    assert path.read_bytes() == b"what was there"
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == sorted(["run.pt", out])


def test_a_model_without_an_optimizer_is_named(tmp_path: Path, checkpoint: Path) -> None:
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4)])
    path = tmp_path / "bare.keras"
    made.save(path)
    with pytest.raises(
        ValueError, match=r"the model in .*bare.keras has no optimizer: it was saved before compile"
    ):
        convert.file(path, tmp_path / "out.npz")
    with pytest.raises(ValueError, match=r"bare.keras has no optimizer"):
        convert.file(checkpoint, tmp_path / "out.keras", into=path)


def test_a_failure_while_writing_leaves_the_old_file(
    checkpoint: Path, model: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model[1].read_bytes()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="disk full"):
        convert.file(checkpoint, model[1], into=model[1])
    assert model[1].read_bytes() == before
    assert sorted(p.name for p in model[1].parent.iterdir()) == ["model.keras", "run.pt"]


def test_what_a_keras_file_cannot_hold_is_refused(model: tuple[Any, Path], tmp_path: Path) -> None:
    params = [torch.ones(s, requires_grad=True) for s in SHAPES.values()]
    groups = [{"params": params[::2]}, {"params": params[1::2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, eps=0.0)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "groups.pt")
    order = {"0": ("0", (1, 0)), "1": ("2", (1, 0)), "2": "1", "3": "3"}
    with pytest.raises(convert.Refused, match="does not hold that 1, 3 do not decay"):
        convert.file(tmp_path / "groups.pt", tmp_path / "out.keras", into=model[1], names=order)


def test_a_keras_file_that_tells_no_shapes_takes_names_as_they_are(
    checkpoint: Path, model: tuple[Any, Path], tmp_path: Path
) -> None:
    made, path = model
    made.compile("sgd", "mse")
    made.save(path)
    names = {"0": ("0", (1, 0)), "1": "1", "2": ("2", (1, 0)), "3": "3"}
    convert.file(checkpoint, tmp_path / "out.keras", into=path, names=names)
    assert int(keras.saving.load_model(tmp_path / "out.keras").optimizer.iterations.numpy()) == 25
    config = json.loads(zipfile.ZipFile(tmp_path / "out.keras").read("config.json"))
    assert config["compile_config"]["optimizer"]["class_name"] == "AdamW"
    with h5py.File(checkpoint.parent / "x.h5", "w") as file:
        file["nothing"] = 1
    with pytest.raises(ValueError, match=r"x\.h5 holds no optimizer's variables"):
        convert.file(checkpoint.parent / "x.h5", tmp_path / "out.npz", rule="adam")
