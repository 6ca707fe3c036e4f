"""Many boxes at once: what is certified together is true, what is open is decided alone, and a lie is not believed."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from idl_audit.decide import many
from idl_audit.decide.ladder import Options
from idl_audit.decide.many import decided_together
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.check import check
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query, alike
from idl_audit.values.verdicts import Verdict
from tests.proof.test_intervals import OVERFLOWING
from tests.shared.budgets import enough, no_time
from tests.shared.small_networks import ExactModel, random_network

COUNT = 40


def curve(seed: int = 1) -> ImplicitModel:
    return random_network(np.random.default_rng(seed), p=1, widths=(6, 6), q=1, activations=["relu"], skips=False)


def network_of(model: ImplicitModel):  # type: ignore[no-untyped-def]
    return lambda points: model(np.asarray(points, np.float64))


def cells(model: ImplicitModel, margin: float, count: int = COUNT) -> list[Query]:
    """Return for each part of [-1, 1] the query for y below its least or above its greatest value there, and less."""
    ends = np.linspace(-1, 1, count + 1)
    queries = []
    for lo, hi in itertools.pairwise(ends):
        y = model(np.linspace(lo, hi, 2001)[:, None])[:, 0]
        rows = (np.ones((1, 1)), -np.ones((1, 1)))
        offsets = (np.array([margin - y.min()]), np.array([margin + y.max()]))
        box = Box.between(np.array([lo]), np.array([hi]))
        queries.append(Query(box, tuple(Conjunction(r, o) for r, o in zip(rows, offsets, strict=True))))
    return queries


def test_small_boxes_are_certified_together_and_truly() -> None:
    model = curve()
    queries = cells(model, 0.05)
    found = decided_together(model, network_of(model), queries, Options(record=True), enough())
    assert set(found) == set(range(COUNT))
    exact = ExactModel(model)
    for number, result in found.items():
        assert result.verdict is Verdict.CERTIFIED
        lo, hi = queries[number].box.lo, queries[number].box.hi
        for share in (0.0, 0.3, 1.0):
            y = exact.evaluate(np.clip(lo + share * (hi - lo), lo, hi))[2][0]
            low, high = (Fraction(float(one.offsets[0])) for one in queries[number].alternatives)
            assert Fraction(result.lowers[0]) <= y + low
            assert Fraction(result.lowers[1]) <= -y + high
    assert {result.method for result in found.values()} <= {"linear", "split"}
    for number in (0, 17):
        query, result = queries[number], found[number]
        proof = proof_of(model, network_of(model), query, result.recorded, budget=enough())
        assert proof is not None
        assert check(model, query, proof) == []


def test_a_counterexample_among_them_is_met() -> None:
    model = curve()
    queries = cells(model, 0.05)
    box = queries[23].box
    y = model(np.linspace(box.lo[0], box.hi[0], 2001)[:, None])[:, 0]
    queries[23] = Query(
        box, (Conjunction(np.ones((1, 1)), np.array([-y.mean()])), Conjunction(-np.ones((1, 1)), np.array([9.0])))
    )
    found = decided_together(model, network_of(model), queries, Options(), enough())
    result = found[23]
    assert result.verdict is Verdict.FALSIFIED
    assert result.found is not None
    assert box.contains(result.found.point)
    assert list(found)[-1] == 23, "what comes after it is of no interest"


def test_the_original_network_has_the_last_word() -> None:
    model = curve()
    queries = cells(model, -0.2)  # within the range: each has counterexamples of the model

    def other(points: Float32Array) -> FloatArray:
        return np.full((len(points), 1), np.nan)

    found = decided_together(model, other, queries, Options(), enough())
    assert all(result.verdict is Verdict.CERTIFIED for result in found.values())
    assert len(found) < COUNT


def test_boxes_without_width_and_a_margin_of_nothing() -> None:
    model = curve()
    queries = [
        Query(Box.between(np.full(1, u), np.full(1, u)), (Conjunction(np.ones((1, 1)), -model(np.full((1, 1), u))[0]),))
        for u in np.linspace(-1, 1, COUNT)
    ]
    for number, result in decided_together(model, network_of(model), queries, Options(), enough()).items():
        y = ExactModel(model).evaluate(queries[number].box.lo)[2][0]
        holds = y + Fraction(float(queries[number].alternatives[0].offsets[0])) <= 0
        assert not (holds and result.verdict is Verdict.CERTIFIED)


def test_few_queries_loops_and_no_time_are_left_out() -> None:
    model = curve()
    queries = cells(model, 0.05)
    assert decided_together(model, network_of(model), queries[: many.MANY - 1], Options(), enough()) == {}
    assert decided_together(model, network_of(model), queries, Options(), no_time()) == {}


def test_overflows_certify_nothing() -> None:
    box = Box.between(np.full(4, 1.0), np.full(4, 1.5))
    query = Query(box, (Conjunction(np.ones((1, 1)), np.array([-1e-300])),))
    found = decided_together(OVERFLOWING, network_of(OVERFLOWING), [query] * 20, Options(max_nodes=40), enough())
    assert all(result.verdict is not Verdict.CERTIFIED for result in found.values())


def test_queries_are_alike_by_their_rows() -> None:
    model = curve()
    queries = cells(model, 0.05, 4)
    other = Query(queries[0].box, queries[0].alternatives[:1])
    both = Query(queries[0].box, (Conjunction(np.array([[1.0], [-1.0]]), np.zeros(2)),))
    groups = [group.tolist() for group in alike([queries[0], other, *queries[1:], both])]
    assert groups == [[0, 2, 3, 4], [1], [5]]


@pytest.mark.parametrize("at_once", [1, 7, 512])
def test_passes_of_any_size_come_to_the_same(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = curve(2)
    queries = cells(model, 0.03)
    whole = decided_together(model, network_of(model), queries, Options(), enough())
    monkeypatch.setattr(many, "MOST_AT_ONCE", at_once)
    parts = decided_together(model, network_of(model), queries, Options(), enough())
    assert set(whole) == set(parts)
