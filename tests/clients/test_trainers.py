"""Trainers around torch: Lightning, Hugging Face's, skorch, Opacus."""

from pathlib import Path
from typing import Any

import accelerate
import lightning
import opacus
import peft
import pytest
import skorch
import skorch.callbacks
import torch
import transformers
from cases import beside_torch, data, ends, fit, loss, network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data()), batch_size=4)


def decayed(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)


@pytest.mark.parametrize("kind", ["AdamW", "NAdam"])
def test_lightning(kind: str, tmp_path: Path) -> None:
    class Module(lightning.LightningModule):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.inner, self.module = network(), module

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, y = batch
            return (self.inner(x) - y).square().mean()

        def configure_optimizers(self) -> Any:
            optimizer = getattr(self.module, kind)(self.parameters(), lr=0.05)
            return {"optimizer": optimizer, "lr_scheduler": decayed(optimizer)}

    def trainer(epochs: int) -> Any:
        return lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            gradient_clip_val=0.05,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    def act(module: Any) -> list[torch.Tensor]:
        whole, halves, resumed = Module(module), Module(module), Module(module)
        trainer(4).fit(whole, loader())
        first = trainer(2)
        first.fit(halves, loader())
        first.save_checkpoint(tmp_path / "half.ckpt")
        trainer(4).fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
        assert all(map(torch.equal, ends(whole), ends(resumed)))
        return ends(whole)

    beside_torch(act)


def language_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    return transformers.GPT2LMHeadModel(config)


def sentences() -> list[dict[str, list[int]]]:
    return [{"input_ids": [*range(k, k + 6)], "labels": [*range(k, k + 6)]} for k in range(8)]


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_hugging_face_trainer(kind: str, tmp_path: Path) -> None:
    def act(module: Any) -> list[torch.Tensor]:
        def trainer(steps: int) -> Any:
            model = language_model()
            settings = {"momentum": 0.9} if kind == "SGD" else {"weight_decay": 0.1, "eps": 1e-4}
            # The gradient of a key's bias is rounding error: a small eps would make steps of it.
            optimizer = getattr(module, kind)(model.parameters(), lr=0.05, **settings)
            return transformers.Trainer(
                model,
                transformers.TrainingArguments(
                    output_dir=str(tmp_path / module.__name__),
                    max_steps=steps,
                    save_steps=3,
                    per_device_train_batch_size=2,
                    gradient_accumulation_steps=2,
                    use_cpu=True,
                    report_to=[],
                    disable_tqdm=True,
                    dataloader_pin_memory=False,
                ),
                train_dataset=sentences(),
                optimizers=(optimizer, decayed(optimizer)),
            )

        whole, halves, resumed = trainer(6), trainer(3), trainer(6)
        whole.train()
        halves.train()
        resumed.train(resume_from_checkpoint=str(tmp_path / module.__name__ / "checkpoint-3"))
        for p, q in zip(ends(whole.model), ends(resumed.model), strict=True):
            torch.testing.assert_close(p, q)
        return ends(resumed.model)

    beside_torch(act)


def test_accelerate(tmp_path: Path) -> None:
    def act(module: Any) -> list[torch.Tensor]:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = network()
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        model, optimizer, batches, scheduler = accelerator.prepare(
            model, optimizer, loader(), decayed(optimizer)
        )

        def epoch() -> None:
            for x, y in batches:
                with accelerator.accumulate(model):
                    accelerator.backward((model(x) - y).square().mean())
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 0.1)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()

        epoch()
        accelerator.save_state(str(tmp_path / module.__name__))
        epoch()
        once = ends(model)
        accelerator.load_state(str(tmp_path / module.__name__))
        epoch()
        assert all(map(torch.equal, once, ends(model)))
        accelerator.free_memory()
        return once

    beside_torch(act)


def test_skorch(tmp_path: Path) -> None:
    x, y = (a.numpy() for a in data())

    def act(module: Any) -> list[torch.Tensor]:
        def regressor() -> Any:
            torch.manual_seed(0)
            return skorch.NeuralNetRegressor(
                network,
                optimizer=module.RMSprop,
                optimizer__momentum=0.5,
                optimizer__param_groups=[("0.*", {"lr": 0.02})],
                lr=0.005,
                max_epochs=3,
                batch_size=4,
                train_split=None,
                verbose=0,
                callbacks=[skorch.callbacks.GradientNormClipping(0.1)],
            )

        files = {f"f_{part}": str(tmp_path / f"{module.__name__} {part}") for part in ("params", "optimizer")}
        model = regressor().fit(x, y)
        model.save_params(**files)
        twin = regressor().initialize()
        twin.load_params(**files)
        for m in (model, twin):
            m.partial_fit(x, y)
            m.set_params(optimizer__param_groups=[("0.*", {"lr": 0.01})], lr=0.001)
        assert all(map(torch.equal, ends(model.module_), ends(twin.module_)))
        return ends(model.module_)

    beside_torch(act)


def test_peft() -> None:
    def act(module: Any) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = peft.get_peft_model(
            language_model(), peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        )
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        words = torch.tensor([s["input_ids"] for s in sentences()])
        for _ in range(4):
            optimizer.zero_grad()
            model(input_ids=words, labels=words).loss.backward()
            optimizer.step()
        assert 0 < sum(p.grad is not None for p in model.parameters()) < len([*model.parameters()])
        return ends(model)

    beside_torch(act)


def test_opacus() -> None:
    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = module.Adam(model.parameters(), lr=0.05)
        model, optimizer, batches = opacus.PrivacyEngine().make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader(),
            noise_multiplier=0.5,
            max_grad_norm=0.1,
            poisson_sampling=False,
            noise_generator=torch.Generator().manual_seed(3),
        )
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        return ends(model)

    beside_torch(act)


def test_timm_style_layer_wise_rates() -> None:
    """Groups with an `lr_scale` of their own that a schedule multiplies by, as in BEiT and timm."""

    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = module.AdamW(
            [
                {"params": model[0].parameters(), "lr_scale": 0.25, "name": "layer 0"},
                {"params": model[2].parameters(), "lr_scale": 1.0, "name": "layer 1"},
            ],
            lr=0.1,
        )
        for step in range(4):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (1 + step) * group["lr_scale"]
            fit(model, optimizer, 1)
        assert [g["lr_scale"] for g in optimizer.state_dict()["param_groups"]] == [0.25, 1.0]
        other = network()
        twin = module.AdamW([{"params": m.parameters(), "lr_scale": 9.0} for m in (other[0], other[2])])
        twin.load_state_dict(optimizer.state_dict())
        assert [g["lr_scale"] for g in twin.param_groups] == [0.25, 1.0]
        return ends(model)

    beside_torch(act)


def test_sharpness_aware_minimisation() -> None:
    """SAM as its programs write it: an optimizer around another, whose groups it shares."""

    class SAM(torch.optim.Optimizer):
        def __init__(self, params: Any, base: Any, rho: float = 0.05, **settings: Any) -> None:
            super().__init__(params, {"rho": rho, **settings})
            self.base = base(self.param_groups, **settings)
            self.param_groups = self.base.param_groups
            self.defaults.update(self.base.defaults)

        @torch.no_grad()
        def climb(self) -> None:
            norm = torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm()
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["before"] = p.data.clone()
                    p.add_(p.grad * (group["rho"] / (norm + 1e-12)))

        @torch.no_grad()
        def descend(self) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.data = self.state[p]["before"]
            self.base.step()

    def act(module: Any) -> list[torch.Tensor]:
        model = network()
        optimizer = SAM(model.parameters(), module.SGD, lr=0.1, momentum=0.9)
        for _ in range(4):
            for part in (optimizer.climb, optimizer.descend):
                optimizer.zero_grad()
                loss(model).backward()
                part()
        return ends(model)

    beside_torch(act)
