"""Kernel files with every kind of damage: each is noticed before its code is linked, and made anew."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg import trace
from thalweg.kernels import cache
from thalweg.kernels.linking import link_object


def flipped(r: random.Random, whole: bytes, _: bytes) -> bytes:
    """A few bits, or one of the digest, or one of the symbol."""
    found = bytearray(whole)
    for _bit in range(r.choice((1, 1, 3, 50))):
        place = r.randrange(r.choice((cache._DIGEST, 100, len(whole))))
        found[place] ^= 1 << r.randrange(8)
    return bytes(found)


def cut(r: random.Random, whole: bytes, _: bytes) -> bytes:
    return whole[: r.randrange(r.choice((cache._DIGEST + 1, len(whole))))]


def lengthened(r: random.Random, whole: bytes, _: bytes) -> bytes:
    return whole + r.randbytes(r.choice((1, 4096)))


def spliced(r: random.Random, whole: bytes, other: bytes) -> bytes:
    """The end, the middle or the digest of another kernel's file."""
    a, b = sorted((r.randrange(len(whole)), r.randrange(len(whole))))
    return r.choice((whole[:a] + other[a:], whole[:a] + other[a:b] + whole[b:], other[:32] + whole[32:]))


def swapped(_: random.Random, __: bytes, other: bytes) -> bytes:
    return other


def zeroed(r: random.Random, whole: bytes, _: bytes) -> bytes:
    """As after a crash: a block that never reached the disk."""
    start = r.randrange(len(whole))
    return whole[:start] + bytes(len(whole[start : start + 4096])) + whole[start + 4096 :]


DAMAGE: list[Callable[[random.Random, bytes, bytes], bytes]] = [
    flipped,
    cut,
    lengthened,
    spliced,
    swapped,
    zeroed,
]


def test_damage_is_noticed_before_anything_is_linked(
    rounds: int, generator: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THALWEG_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_places", [])
    monkeypatch.setattr(cache, "_kernels", {})

    def kernel(rule: thalweg.Rule) -> Any:
        cache._kernels.clear()
        program = trace(rule)
        return cache.step_kernel(program, ("float64",) * (2 + len(program.slots)))

    kernel(thalweg.SGD())
    (file,) = tmp_path.glob("*.o")
    whole = file.read_bytes()
    kernel(thalweg.Momentum())
    (other,) = {*tmp_path.glob("*.o")} - {file}
    foreign = other.read_bytes()
    compiled, linked = [], []

    def compile_again(*_: Any) -> bytes:
        compiled.append(1)
        return whole[cache._DIGEST :]

    def link(symbol: str, code: bytes, arguments: int) -> None:
        linked.append(f"{symbol}\n".encode() + code)

    monkeypatch.setattr(cache, "_compile", compile_again)
    monkeypatch.setattr(cache, "link_object", link)
    for _ in range(rounds):
        damaged = generator.choice(DAMAGE)(generator, whole, foreign)
        file.write_bytes(damaged)
        kernel(thalweg.SGD())
        assert len(compiled) == (damaged != whole)
        assert linked == [whole[cache._DIGEST :]]
        assert file.read_bytes() == whole
        compiled.clear()
        linked.clear()
    assert {found.suffix for found in tmp_path.iterdir()} == {".o", ".py"}
    symbol, _, code = whole[cache._DIGEST :].partition(b"\n")
    assert link_object(symbol.decode(), code, 8).address
