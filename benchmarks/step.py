"""The optimizer step alone, beside torch's own: loop, foreach and fused.

    python benchmarks/step.py [--seconds 3] [--only 20m,mlp] [--rules adam,nadam]

Prints, for each list of tensors and each rule: milliseconds a step, bytes a second, the share of this
machine's memory bandwidth (torch's sum in place over as many bytes, in the same rounds), and how many
times faster Thalweg is than each of torch's variants: median and quartiles over rounds in which all
take turns; then which required ratios hold.
"""

import argparse
import resource
from collections.abc import Callable, Iterator
from typing import Any

import torch

import thalweg
import thalweg.torch
from timing import Times, machine, memory_probe, take_turns

Shapes = list[tuple[int, ...]]

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {}),
    "adamax": ("Adamax", {}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
    "adabelief": ("AdaBelief", {}),
    "adan": ("Adan", {}),
    "lion": ("Lion", {}),
}
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")
# Required of small tensors: so many times torch's fused variant.
SMALL = {("mlp", "adam"): 1.5, ("mlp", "sgd"): 1.0, ("mixed", "adam"): 2.0}
# Required at 20 M entries: six times torch's default.
SIX_TIMES = ("rmsprop", "adadelta", "adamax", "nadam", "amsgrad")


def mlp() -> Shapes:
    """784-300-100-10, weights and biases."""
    return [(300, 784), (300,), (100, 300), (100,), (10, 100), (10,)]


def mixed() -> Shapes:
    """160 tensors of 8 to 8,000 entries."""
    generator = torch.Generator().manual_seed(1)
    return [(int(n),) for n in torch.randint(8, 8000, (160,), generator=generator)]


def resnet(blocks: list[int], bottleneck: bool) -> Shapes:
    """The parameters of a ResNet for ImageNet (He et al. 2016, Table 1)."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]

    def convolution(out: int, into: int, size: int) -> None:
        shapes.extend([(out, into, size, size), (out,), (out,)])

    into = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        out = width * 4 if bottleneck else width
        for block in range(count):
            if bottleneck:
                convolution(width, into, 1)
                convolution(width, width, 3)
                convolution(out, width, 1)
            else:
                convolution(width, into, 3)
                convolution(width, width, 3)
            if block == 0 and into != out:
                convolution(out, into, 1)
            into = out
    return [*shapes, (1000, into), (1000,)]


LISTS: dict[str, Callable[[], Shapes]] = {
    "mlp": mlp,
    "mixed": mixed,
    "resnet18": lambda: resnet([2, 2, 2, 2], bottleneck=False),
    "resnet50": lambda: resnet([3, 4, 6, 3], bottleneck=True),
    "20m": lambda: [(20_000_000,)],
}


def parameters(shapes: Shapes) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p)
    return made


def contenders(rule: str, shapes: Shapes) -> Iterator[tuple[str, Callable[[], object]]]:
    name, settings = RULES[rule]
    # All step on the same tensors: where memory happens to lie makes a difference of a tenth.
    params = parameters(shapes)
    yield "thalweg", getattr(thalweg.torch, name)(params, **settings).step
    kind = getattr(torch.optim, name, None)
    if kind is not None:
        yield "loop", kind(params, foreach=False, **settings).step
        yield "foreach", kind(params, foreach=True, **settings).step
        if name in FUSED:
            yield "fused", kind(params, fused=True, **settings).step


def traffic(rule: str, entries: int) -> int:
    # torch.optim.AdamW's decay reads the parameter, which is read anyway: the rule's own count holds.
    return thalweg.trace(thalweg.get(rule)).bytes_per_entry() * entries


def extra_memory() -> float:
    """Peak memory that ten steps of Adam on 20 M entries add, as a share of the parameters' own."""
    made = parameters([(20_000_000,)])
    optimizer = thalweg.torch.Adam(made)
    optimizer.step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        optimizer.step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * 20_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender (3)")
    parser.add_argument("--only", default=",".join(LISTS), help=f"of {','.join(LISTS)}")
    parser.add_argument("--rules", default=",".join(RULES), help=f"of {','.join(RULES)}")
    options = parser.parse_args()

    print(machine())
    extra = extra_memory()
    verdicts = [("extra memory a step, share of the model", f"{extra:.3f}", extra < 0.01)]
    for list_name in options.only.split(","):
        shapes = LISTS[list_name]()
        entries = sum(torch.Size(s).numel() for s in shapes)
        print(f"\n{list_name}: {len(shapes)} tensors, {entries:,} entries, float32")
        print(f"{'rule':10} {'ms':>9} {'GB/s':>7} {'share':>18}   times faster than torch's")
        for rule in options.rules.split(","):
            moved = traffic(rule, entries)
            taking = {**dict(contenders(rule, shapes)), "memory": memory_probe(moved)}
            times = take_turns(taking, options.seconds)
            ms = times.median("thalweg") * 1e3
            others = [n for n in times.rounds if n not in ("thalweg", "memory")]
            ratios = "   ".join(f"{n} {times.ratio(n, 'thalweg')}" for n in others)
            share = times.ratio("memory", "thalweg")
            print(f"{rule:10} {ms:9.3f} {moved / ms / 1e6:7.1f} {share:>18}   {ratios}")
            verdicts += judge(list_name, rule, times)
    print("\nrequired")
    for what, found, holds in verdicts:
        print(f"{'yes' if holds else 'NO ':3} {what}: {found}")


def judge(list_name: str, rule: str, times: Times) -> list[tuple[str, str, bool]]:
    """The required figures that this row bears on."""

    def ratio(other: str, least: float) -> tuple[str, str, bool]:
        middle = times.quartiles(other, "thalweg")[1]
        return f"{list_name} {rule}: ≥ {least} × {other}", times.ratio(other, "thalweg"), middle >= least

    verdicts = []
    if list_name == "20m":
        verdicts.append(ratio("memory", 0.85))
        if "fused" in times.rounds:
            verdicts.append(ratio("fused", 0.95))
        if rule in SIX_TIMES:
            verdicts.append(ratio("loop", 6))
    if (list_name, rule) in SMALL:
        verdicts.append(ratio("fused", SMALL[list_name, rule]))
    return verdicts


if __name__ == "__main__":
    main()
