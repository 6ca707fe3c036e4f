"""Strict rows: where they hold, how far outputs are from them, what refutes them, and that they are part of a claim."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from idl_audit.proof.check import check
from idl_audit.proof.files.claims import is_asked
from idl_audit.proof.proof import trivial
from idl_audit.proof.rows import Rows, plus, with_sums
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query, violated
from idl_audit.values.rounding import LEAST
from tests.shared.small_networks import layered

UNIT = Box.between(np.zeros(1), np.ones(1))


def rows(matrix: list[list[float]], offsets: list[float], strict: list[bool]) -> Conjunction:
    return Conjunction(np.array(matrix), np.array(offsets), (), np.array(strict))


@pytest.mark.parametrize(("y", "closed", "strict"), [(0.5, True, True), (1.0, True, False), (1.5, False, False)])
def test_a_strict_row_does_not_hold_at_its_border(y: float, closed: bool, strict: bool) -> None:
    outputs = np.array([[y]])
    for is_strict, holds in ((False, closed), (True, strict)):
        query = Query(UNIT, (rows([[1.0]], [-1.0], [is_strict]),))
        assert query.holds(outputs).tolist() == [holds]
        assert bool(query.distance(outputs)[0] <= 0) == holds


def test_rows_are_not_strict_unless_they_are_said_to_be() -> None:
    assert Conjunction(np.eye(2), np.zeros(2)).strict.tolist() == [False, False]


def test_exact_offsets_decide_beside_what_float64_holds() -> None:
    third = Fraction(1, 3)
    near = Conjunction(np.ones((1, 1)), np.array([-0.34]), (-third,), np.array([True]))
    below = [third - Fraction(1, 10**40)]
    assert near.holds_between(below, below) is True
    assert near.holds_between([third], [third]) is False
    assert near.holds_between(below, [third]) is None
    closed = replace(near, strict=np.array([False]))
    assert closed.holds_between([third], [third]) is True
    assert closed.holds_between([third], [Fraction(1, 2)]) is None


def test_a_bound_of_0_refutes_a_strict_row_alone_and_no_number_refutes_nothing() -> None:
    lower = np.array([-1.0, 0.0, 1.0, np.nan])
    told = violated(lower, np.array([True] * 4))
    assert (told > 0).tolist() == [False, True, True, False]
    assert told[1] == LEAST
    assert (violated(lower, np.array([False] * 4)) > 0).tolist() == [False, False, True, False]
    assert plus(np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([True, True])).tolist() == [LEAST, 1 - 2**-53]


def test_a_sum_is_strict_where_one_of_its_rows_is() -> None:
    summed = with_sums(rows([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.0, 0.0, 0.0], [False, True, False]))
    sums = {
        tuple(row): strict for row, strict in zip(summed.rows.tolist()[3:], summed.strict.tolist()[3:], strict=True)
    }
    assert sums == {(1.0, 1.0): True, (2.0, 1.0): False, (1.0, 2.0): True, (2.0, 2.0): True}
    query = Query(UNIT, (rows([[1.0], [3.0]], [0.0, 0.0], [False, True]),))
    found = Rows.of(query)
    assert found.best(found.shifted(np.array([[0.0, 0.0, -1.0]]))).tolist() == [[LEAST]]
    assert found.best(found.shifted(np.array([[0.0, -1.0, -1.0]]))).tolist() == [[0.0]]


def test_sums_keep_the_offsets_as_they_were_written() -> None:
    exact = (Fraction(1, 3), Fraction(1, 7))
    summed = with_sums(Conjunction(np.ones((2, 1)), np.array([0.3, 0.1]), exact))
    assert summed.exact_offsets == (*exact, Fraction(10, 21))


def test_a_proof_that_a_strict_row_fails_is_one_of_its_own_claim_alone() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.5]))  # y = relu(u) + .5
    open_, closed = (Query(UNIT, (rows([[1.0]], [-0.25], [strict]),)) for strict in (True, False))
    assert check(model, open_, trivial(1)) == check(model, closed, trivial(1)) == []
    assert is_asked(open_, open_)
    assert not is_asked(open_, closed)
    assert not is_asked(closed, open_)


def test_what_is_attained_refutes_no_strict_row_beside_it() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    for offset in (-1e-9, -0.5):
        assert check(model, Query(UNIT, (rows([[1.0]], [offset], [True]),)), trivial(1)) != []
