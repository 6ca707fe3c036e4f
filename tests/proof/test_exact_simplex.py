"""Linear programs over the rationals: the optimum of every vertex, told exactly."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.proof.exact import simplex
from idl_audit.proof.exact.simplex import maximise

seeds = st.integers(0, 2**32 - 1)


def integers(values: object) -> np.ndarray:
    given_values = np.asarray(values)
    made = np.empty(given_values.shape, object)
    made[...] = given_values.tolist()
    return made


def solved(rows: list[list[Fraction]], right: list[Fraction]) -> list[Fraction] | None:
    """Return the one solution of a square system by Gauss's elimination; None where there is none or more."""
    n = len(rows)
    table = [[*row, value] for row, value in zip(rows, right, strict=True)]
    for k in range(n):
        pivot = next((i for i in range(k, n) if table[i][k]), None)
        if pivot is None:
            return None
        table[k], table[pivot] = table[pivot], table[k]
        table[k] = [value / table[k][k] for value in table[k]]
        for i in range(n):
            if i != k and table[i][k]:
                table[i] = [a - table[i][k] * b for a, b in zip(table[i], table[k], strict=True)]
    return [row[-1] for row in table]


def best_vertex(c: np.ndarray, A: np.ndarray, b: np.ndarray) -> Fraction | None:
    """Return the greatest c . v over the vertices of a bounded polytope; None where it is empty."""
    n = len(c)
    rows = [[Fraction(int(a)) for a in row] for row in A] + [
        [Fraction(-int(i == j)) for j in range(n)] for i in range(n)
    ]
    right = [Fraction(int(value)) for value in b] + [Fraction(0)] * n
    best = None
    for chosen in combinations(range(len(rows)), n):
        v = solved([rows[i] for i in chosen], [right[i] for i in chosen])
        if v is None:
            continue
        if all(
            sum(a * x for a, x in zip(row, v, strict=True)) <= limit for row, limit in zip(rows, right, strict=True)
        ):
            value = sum((int(a) * x for a, x in zip(c, v, strict=True)), Fraction(0))
            best = value if best is None else max(best, value)
    return best


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_the_optimum_is_that_of_the_best_vertex(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 4)), int(rng.integers(0, 5))
    A = np.vstack([rng.integers(-4, 5, (m, n)), np.eye(n, dtype=int)])
    b = np.concatenate([rng.integers(-6, 7, m), rng.integers(0, 5, n)])
    c = rng.integers(-3, 4, n)
    if m > 1 and rng.random() < 0.5:  # an equality
        A[1], b[1] = -A[0], -b[0]
    found, truth = maximise(integers(c), integers(A), integers(b)), best_vertex(c, A, b)
    assert found.is_feasible == (truth is not None)
    if truth is not None:
        assert found.value == truth
        assert found.is_bounded
        assert all(value >= 0 for value in found.point)
        assert sum(int(a) * x for a, x in zip(c, found.point, strict=True)) == truth
        assert all(
            sum(int(a) * x for a, x in zip(row, found.point, strict=True)) <= limit
            for row, limit in zip(A, b, strict=True)
        )


def test_what_grows_without_end_is_told() -> None:
    assert not maximise(integers([1]), integers([[-1]]), integers([0])).is_bounded


def test_degenerate_programs_end() -> None:
    """Beale's, on which the largest coefficient alone turns in a circle."""
    A = integers([[1, -32, -4, 36], [1, -24, -1, 6], [0, 0, 1, 0]])
    found = maximise(integers([3, -80, 2, -24]), A, integers([0, 0, 1]))
    assert (found.is_feasible, found.is_bounded, found.value) == (True, True, Fraction(5))


def test_numbers_of_any_length_are_exact() -> None:
    big = 10**60
    found = maximise(integers([1]), integers([[3 * big]]), integers([big]))
    assert found.point == (Fraction(1, 3),)
    tight = integers([[big], [-big]])
    assert maximise(integers([0]), tight, integers([1, -1])).point == (Fraction(1, big),)
    assert not maximise(integers([0]), tight, integers([1, -2])).is_feasible


def test_it_looks_at_the_clock_at_each_pivot() -> None:
    class Over(Exception):
        pass

    def check() -> None:
        raise Over

    with pytest.raises(Over):
        maximise(integers([1]), integers([[1]]), integers([1]), check=check)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_no_guess_changes_the_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    A = integers(np.vstack([rng.integers(-4, 5, (m, n)), np.eye(n, dtype=int)]))
    b, c = integers(np.concatenate([rng.integers(-6, 7, m), np.full(n, 4)])), integers(rng.integers(-3, 4, n))
    truth = maximise(c, A, b)
    for basis in (set(), {-1}, set(range(n)), set(rng.choice(n + len(A), len(A), replace=False).tolist())):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(simplex, "guessed_basis", lambda c, A, b, basis=basis: basis)
            found = maximise(c, A, b)
        assert (found.is_feasible, found.value) == (truth.is_feasible, truth.value)


def test_a_good_guess_leaves_few_pivots() -> None:
    rng = np.random.default_rng(4)
    n = 12
    A = integers(np.vstack([rng.integers(-9, 10, (20, n)), np.eye(n, dtype=int)]))
    b, c = integers(np.concatenate([rng.integers(-3, 30, 20), np.full(n, 7)])), integers(rng.integers(-9, 10, n))
    pivots = []
    with_guess = maximise(c, A, b, check=lambda: pivots.append("with"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simplex, "guessed_basis", lambda c, A, b: set(range(n, n + len(A))))
        without = maximise(c, A, b, check=lambda: pivots.append("without"))
    assert with_guess.value == without.value
    assert pivots.count("with") < pivots.count("without")
