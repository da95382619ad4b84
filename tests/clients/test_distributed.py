"""Training in several processes, by gloo over loopback: storage is swapped, resized and sharded."""

import copy
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint.state_dict as dcp_state
import torch.multiprocessing as mp
from cases import STEPS, beside_torch, ends, fit, loss, network
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import thalweg.torch

Act = Callable[[Any, int, int, Path], list[torch.Tensor]]


def _worker(rank: int, act: Act, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    try:
        beside_torch(lambda module: act(module, rank, world, folder))
    finally:
        dist.destroy_process_group()


def together(act: Act, world: int, folder: Path) -> None:
    """Do `act` in that many processes, in each with torch's optimizers and with ours."""
    mp.spawn(_worker, (act, world, folder), nprocs=world)


def train(model: nn.Module, optimizer: Any, rank: int, world: int, steps: int = STEPS) -> None:
    """Each process with its own rows."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, slice(rank, None, world)).backward()
        optimizer.step()


def whole(model: nn.Module) -> list[torch.Tensor]:
    """The parameters, gathered where they are sharded."""
    return [p.full_tensor() if isinstance(p, DTensor) else p for p in ends(model)]


def data_parallel(module: Any, rank: int, world: int, folder: Path) -> list[torch.Tensor]:
    model = DistributedDataParallel(network(), gradient_as_bucket_view=True)
    optimizer = module.AdamW(model.parameters(), lr=0.05)
    train(model, optimizer, rank, world)
    alone = network()  # as one process would, with all rows
    fit(alone, module.AdamW(alone.parameters(), lr=0.05))
    torch.testing.assert_close(ends(model), ends(alone), rtol=1e-7, atol=1e-9)
    return ends(model)


def zero(module: Any, rank: int, world: int, folder: Path) -> list[torch.Tensor]:
    def made() -> tuple[nn.Module, Any]:
        model = DistributedDataParallel(network())
        return model, ZeroRedundancyOptimizer(model.parameters(), module.Adam, lr=0.05, weight_decay=0.1)

    model, optimizer = made()
    train(model, optimizer, rank, world, 3)
    optimizer.param_groups[0]["lr"] = 0.02  # as a scheduler does
    train(model, optimizer, rank, world, 1)
    optimizer.consolidate_state_dict(0)
    saved = [optimizer.state_dict() if rank == 0 else None]
    dist.broadcast_object_list(saved)
    twin, resumed = made()
    twin.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(saved[0]))  # which on the CPU shares memory with `optimizer`
    for m, o in ((model, optimizer), (twin, resumed)):
        train(m, o, rank, world, 2)
    torch.testing.assert_close(ends(model), ends(twin), rtol=0, atol=0)
    return ends(model)


def _fsdp1(original: bool, module: Any, rank: int, world: int) -> list[torch.Tensor]:
    inner, how = network(), {"use_orig_params": original, "device_id": torch.device("cpu")}
    model = FullyShardedDataParallel(
        nn.Sequential(FullyShardedDataParallel(inner[0], **how), *inner[1:]), **how
    )
    optimizer = module.AdamW(model.parameters(), lr=0.05)
    train(model, optimizer, rank, world, 3)
    state = copy.deepcopy(FullyShardedDataParallel.optim_state_dict(model, optimizer))
    resumed = module.AdamW(model.parameters(), lr=0.7)
    resumed.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(model, resumed, state))
    train(model, resumed, rank, world, 3)
    assert resumed.param_groups[0]["lr"] == 0.05
    with FullyShardedDataParallel.summon_full_params(model):
        return ends(model)


def fsdp1_of_parameters(module: Any, rank: int, world: int, folder: Path) -> list[torch.Tensor]:
    return _fsdp1(True, module, rank, world)


def fsdp1_of_flat_parameters(module: Any, rank: int, world: int, folder: Path) -> list[torch.Tensor]:
    return _fsdp1(False, module, rank, world)


def fsdp2(module: Any, rank: int, world: int, folder: Path) -> list[torch.Tensor]:
    def made() -> tuple[nn.Module, Any]:
        model = network()
        mesh = init_device_mesh("cpu", (world,))
        for layer in (model[0], model):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        return model, module.AdamW(model.parameters(), lr=0.05)

    model, optimizer = made()
    assert all(isinstance(p, DTensor) for p in model.parameters())
    train(model, optimizer, rank, world, 3)
    checkpoint = folder / module.__name__
    weights, state = dcp_state.get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=checkpoint)
    twin, resumed = made()
    weights, state = dcp_state.get_state_dict(twin, resumed)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=checkpoint)
    dcp_state.set_state_dict(twin, resumed, model_state_dict=weights, optim_state_dict=state)
    for m, o in ((model, optimizer), (twin, resumed)):
        train(m, o, rank, world, 3)
    torch.testing.assert_close(whole(model), whole(twin), rtol=0, atol=0)
    return whole(model)


def tensor_parallel(module: Any, rank: int, world: int, folder: Path) -> list[torch.Tensor]:
    mesh = init_device_mesh("cpu", (world,))
    model = parallelize_module(network(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    optimizer = module.AdamW(model.parameters(), lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model).backward()  # each process with all rows, and its share of every layer
        optimizer.step()
    return whole(model)


@pytest.mark.parametrize("world", [1, 2])
def test_data_parallel(world: int, tmp_path: Path) -> None:
    together(data_parallel, world, tmp_path)


@pytest.mark.parametrize(
    "act",
    [zero, fsdp1_of_parameters, fsdp1_of_flat_parameters, fsdp2, tensor_parallel],
    ids=lambda act: act.__name__,
)
def test_sharded(act: Act, tmp_path: Path) -> None:
    together(act, 2, tmp_path)


# -- distributed checkpoints, in one process -----------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05},
    "SGD-momentum": {"lr": 0.05, "momentum": 0.9},
    "Adagrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.05},
    "Adadelta": {"lr": 0.5},
    "AdamW": {"lr": 0.05, "amsgrad": True},
    "Adamax": {"lr": 0.05},
    "NAdam": {"lr": 0.05},
    "RAdam": {"lr": 0.05},
}


def optimizer_of(module: Any, form: str, model: nn.Module) -> torch.optim.Optimizer:
    return getattr(module, form.partition("-")[0])(model.parameters(), **SETTINGS[form])


PAIRS = [("torch", "thalweg"), ("thalweg", "torch"), ("thalweg", "thalweg")]


@pytest.mark.parametrize(
    ("form", "flat"), [*((form, False) for form in SETTINGS), ("SGD", True), ("AdamW", True)]
)
@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_checkpoints_of_either(writer: str, reader: str, form: str, flat: bool, tmp_path: Path) -> None:
    modules = {"torch": torch.optim, "thalweg": thalweg.torch}
    how = dcp_state.StateDictOptions(flatten_optimizer_state_dict=flat)
    model = network()
    optimizer = optimizer_of(modules[writer], form, model)
    fit(model, optimizer, 3)
    weights, state = dcp_state.get_state_dict(model, optimizer, options=how)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "3")
    twin = network(seed=1)
    resumed = optimizer_of(modules[reader], form, twin)
    weights, state = dcp_state.get_state_dict(twin, resumed, options=how)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "3")
    dcp_state.set_state_dict(twin, resumed, model_state_dict=weights, optim_state_dict=state, options=how)
    fit(model, optimizer, 3)
    fit(twin, resumed, 3)
    torch.testing.assert_close(ends(twin), ends(model), rtol=1e-7, atol=1e-9)


# -- Hogwild: processes without locks on one model -----------------------------------------------


def _hogwild(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    torch.set_num_threads(1)
    fit(model, optimizer, steps)


def _in_processes(targets: list[tuple[Any, ...]], at_once: bool) -> None:
    context = mp.get_context("spawn")
    started = []
    for arguments in targets:
        process = context.Process(target=_hogwild, args=arguments)
        process.start()
        started.append(process)
        if not at_once:
            process.join(120)
    for process in started:
        process.join(120)
        assert process.exitcode == 0


def test_hogwild_with_shared_state() -> None:
    """The model and the optimizer's state are shared; one process goes on where the other ended."""

    def act(module: Any) -> list[torch.Tensor]:
        model = network().share_memory()
        optimizer = module.Adam(model.parameters(), lr=0.05)
        fit(model, optimizer, 1)
        for state in optimizer.state.values():
            for value in state.values():
                value.share_memory_()
        _in_processes([(model, optimizer, 2)] * 2, at_once=False)
        fit(model, optimizer, 2)
        states = [v for s in optimizer.state.values() for v in s.values()]
        return [*ends(model), *(v.clone().double() for v in states)]

    beside_torch(act)


def test_hogwild_at_once() -> None:
    model = network().share_memory()
    before = loss(model).item()
    made = [thalweg.torch.SGD(model.parameters(), lr=0.02, momentum=0.5) for _ in range(2)]
    _in_processes([(model, o, 30) for o in made], at_once=True)
    assert loss(model).item() < before


# -- the storage of a parameter freed and laid anew, as FSDP does it -----------------------------


def test_storage_freed_and_laid_anew() -> None:
    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        for _ in range(4):
            fit(model, optimizer, 1)
            for p in model.parameters():
                kept, storage = p.detach().clone(), p.untyped_storage()
                size = storage.size()
                storage.resize_(0)
                _ = [torch.empty(size // 8) for _ in range(8)]  # others take the memory
                storage.resize_(size)
                with torch.no_grad():
                    p.copy_(kept)
        return ends(model)

    beside_torch(act)
