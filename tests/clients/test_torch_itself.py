"""What torch does around an optimizer: compiling, scaling, schedules, averages, steps in backward passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import STEPS, beside_torch, data, ends, fit, loss, network
from torch import nn
from torch.optim import lr_scheduler, swa_utils

import thalweg.torch


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "NAdam"])
def test_a_step_in_the_backward_pass(kind: str) -> None:
    """An optimizer for each parameter, whose gradient is freed as soon as it has been used."""

    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizers = {p: getattr(module, kind)([p], lr=0.05) for p in model.parameters()}

        def step(p: torch.Tensor) -> None:
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(step)
        for _ in range(STEPS):
            loss(model).backward()
            assert all(p.grad is None for p in model.parameters())
        whole = network()
        fit(whole, getattr(module, kind)(whole.parameters(), lr=0.05))
        torch.testing.assert_close(ends(model), ends(whole), rtol=1e-7, atol=1e-9)
        return ends(model)

    beside_torch(act)


def test_grad_scaler() -> None:
    """Steps that overflow are skipped; gradients are unscaled once, clipped, and stepped with."""

    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        scales = []
        for step in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(model)
            scaler.scale(value * (float("inf") if step == 2 else 1)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        return [*ends(model), torch.tensor(scales)]

    beside_torch(act)


@pytest.fixture
def fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_model() -> None:
    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(compiled).backward()
            optimizer.step()
        return ends(model)

    beside_torch(act)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("what", ["train step", "optimizer step"])
def test_a_compiled_step(what: str) -> None:
    """Our step stays outside of the graph, and is taken."""

    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = module.AdamW(model.parameters(), lr=0.05)

        def train_step() -> None:
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()

        if what == "train step":
            compiled = torch.compile(train_step, backend="aot_eager")
            for _ in range(STEPS):
                compiled()
            return ends(model)
        step = torch.compile(optimizer.step, backend="aot_eager")
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(model).backward()
            step()
        return ends(model)

    beside_torch(act)


# Every schedule of torch's; what it multiplies or replaces is in a parameter group.
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 0.8),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 4], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.3, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.3, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS + 1),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
    "SWALR": lambda o: swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=3),
}


def test_every_schedule_of_torchs_is_here() -> None:
    theirs = {
        name
        for name, kind in vars(lr_scheduler).items()
        if isinstance(kind, type)
        and issubclass(kind, lr_scheduler.LRScheduler)
        and kind not in (lr_scheduler.LRScheduler, lr_scheduler._LRScheduler)
    }
    assert theirs <= SCHEDULES.keys()


@pytest.mark.parametrize(("kind", "settings"), [("SGD", {"momentum": 0.9}), ("Adam", {}), ("RMSprop", {})])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, kind: str, settings: dict[str, float]) -> None:
    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.02}]
        optimizer = getattr(module, kind)(groups, lr=0.05, **settings)
        schedule = SCHEDULES[name](optimizer)
        rates = []
        for step in range(STEPS):
            if step == 3:  # saved and loaded in the middle
                optimizer.load_state_dict(optimizer.state_dict())
                schedule.load_state_dict(schedule.state_dict())
            fit(model, optimizer, 1)
            schedule.step(*([loss(model).detach() + step] if name == "ReduceLROnPlateau" else []))
            rates += [g["lr"] for g in optimizer.param_groups]
        return [*ends(model), torch.tensor(rates)]

    beside_torch(act)


@pytest.mark.parametrize("average", [None, swa_utils.get_ema_multi_avg_fn(0.9)], ids=["mean", "decaying"])
def test_averaged_weights(average: Any) -> None:
    def act(module: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        # No bias before the normalization, where its gradient would be rounding error.
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = module.Adam(model.parameters(), lr=0.05)
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        schedule = swa_utils.SWALR(optimizer, swa_lr=0.01, anneal_epochs=3)
        for _ in range(STEPS):
            fit(model, optimizer, 1)
            averaged.update_parameters(model)
            schedule.step()
        swa_utils.update_bn([data()[0]], averaged)
        return [*ends(averaged), *(b.double() for b in averaged.buffers())]

    beside_torch(act)


def test_generic_optimizers_go_where_their_namesakes_go() -> None:
    """Any rule, in a client: what holds for thalweg.torch.Adam holds for Optimizer(Adam())."""
    model, twin = network(), network()
    fit(model, thalweg.torch.Adam(model.parameters(), lr=0.05, eps=1e-8))
    fit(twin, thalweg.torch.Optimizer(twin.parameters(), thalweg.get("adam", lr=0.05, dialect="torch")))
    torch.testing.assert_close(ends(twin), ends(model), rtol=1e-7, atol=1e-9)
