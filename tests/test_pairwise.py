"""Few combinations of parameters that try all pairs."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from pairwise import covering, pairs

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(SIZES)
def test_all_pairs_are_tried(sizes: list[int]) -> None:
    every = [dict(zip("abcd", values, strict=False)) for values in product(*map(range, sizes))]
    chosen = [every[place] for place in covering(every)]
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, every))


def test_far_fewer_than_all_are_needed() -> None:
    every = [dict(zip("abc", values, strict=True)) for values in product(range(10), repeat=3)]
    assert 100 <= len(covering(every)) <= 150


def test_pairs_that_no_combination_has_are_not_asked_for() -> None:
    some = [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}]
    assert covering(some) == [0, 1]


def test_values_that_look_alike_are_told_apart() -> None:
    assert covering([{"a": 1, "b": 0}, {"a": True, "b": 0}, {"a": [], "b": 0}]) == [0, 1, 2]
