"""The ladder of properties: unsat is never contradicted, sat is the original network's word, whatever the rungs say."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide import ladder, rungs
from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.decide.rungs import PROOFS, RUNGS, Rung
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.proof.rows import with_sums
from idl_audit.search import branching
from idl_audit.search.branching import BranchOutcome
from idl_audit.search.judge import Found
from idl_audit.search.splitting.boxes import SplitOutcome, Splitting
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError, SolverError
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.small_networks import ExactModel, layered, long_double, random_network, some_points

seeds = st.integers(0, 2**32 - 1)
QUICK = ("interval", "quick", "linear")


def evaluated(model: ImplicitModel) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: model(points.astype(np.float64))


def decide(
    model: ImplicitModel, query: Query, *, network: Callable[[np.ndarray], np.ndarray] | None = None, **options: object
) -> Result:
    given_options = Options(**{"time_limit": 5.0, **options})  # type: ignore[arg-type]
    return decide_query(model, network or evaluated(model), query, given_options)


def below(rows: object, offsets: object) -> Conjunction:
    """Return rows y + offsets <= 0."""
    return Conjunction(np.atleast_2d(np.asarray(rows, np.float64)), np.atleast_1d(np.asarray(offsets, np.float64)))


def unit_box(p: int) -> Box:
    return Box.between(-np.ones(p), np.ones(p))


def random_query(rng: np.random.Generator, model: ImplicitModel, box: Box) -> Query:
    """Return alternatives of one to three rows that hold somewhere near the border of what the network reaches."""
    y = model(some_points(rng, box, 20))
    alternatives = []
    for _ in range(int(rng.integers(1, 4))):
        rows = rng.integers(-2, 3, (int(rng.integers(1, 4)), model.n_outputs)).astype(float)
        least = (y @ rows.T).min(axis=0)
        alternatives.append(below(rows, -least + rng.normal(size=len(rows)) * 0.1 + rng.choice([-0.1, 0.1])))
    return Query(box, tuple(alternatives))


def contradiction(model: ImplicitModel, query: Query, found: Result, rng: np.random.Generator) -> str:
    """Return what is wrong with a result, or nothing."""
    if found.verdict is Verdict.FALSIFIED:
        if found.found is None or found.found.point.dtype != np.float32:
            return "sat without a point"
        if not query.box.contains(found.found.point):
            return "the point lies outside the box"
        y = model(found.found.point[None].astype(np.float64))
        confirmed = query.holds(y)[0] and (y[0] == found.found.outputs).all()
        return "" if confirmed else "the network does not confirm the point"
    if found.found is not None and found.found.holds:
        return f"{found.verdict} with a counterexample"
    if found.verdict is Verdict.CERTIFIED:
        y = np.asarray(long_double(model, some_points(rng, query.box, 1000))[2], np.float64)
        distance = query.distance(y).min()
        if distance < -1e-9:
            return f"unsat although a point holds by {distance}"
        for alternative in query.alternatives:
            if len(alternative.rows) == 1 and query.box.size <= 2:
                least = ExactModel(model).minimum(alternative.rows[0], query.box)
                if least + Fraction(float(alternative.offsets[0])) <= 0:
                    return "unsat although the exact minimum holds"
    return ""


# ---- laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_cheap_rungs_are_never_contradicted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=int(rng.integers(1, 4)), widths=(4, 3))
    query = random_query(rng, model, unit_box(model.n_inputs))
    assert contradiction(model, query, decide(model, query, methods=QUICK), rng) == ""


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_whole_ladder_is_never_contradicted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=int(rng.integers(1, 3)), widths=(5, 4))
    query = random_query(rng, model, unit_box(model.n_inputs))
    found = decide(model, query, time_limit=2.0)
    assert contradiction(model, query, found, rng) == ""


def test_the_ladder_decides_small_networks() -> None:
    """For two inputs and one row the truth is known exactly: nothing but ties may stay open."""
    counts = {Verdict.FALSIFIED: 0, Verdict.CERTIFIED: 0}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(4, 4))
        row = rng.normal(size=model.n_outputs)
        least = ExactModel(model).minimum(row, unit_box(2))
        for shift, truth in ((0.01, Verdict.CERTIFIED), (-0.01, Verdict.FALSIFIED)):
            query = Query(unit_box(2), (below(row, -float(least) + shift),))
            found = decide(model, query, time_limit=60.0)
            assert found.verdict is truth, (seed, truth)
            counts[truth] += 1
    assert set(counts.values()) == {12}


@settings(max_examples=100)
@given(seeds)
def test_sums_of_rows_follow_from_the_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, q = int(rng.integers(1, 16)), int(rng.integers(1, 5))
    rows = rng.integers(-4, 5, (k, q)) * 2.0 ** rng.integers(-40, 40, (k, q))
    exact = tuple(Fraction(int(rng.integers(-99, 100)), int(rng.integers(1, 99))) for _ in range(k))
    alternative = Conjunction(rows, np.array([np.nextafter(float(c), -np.inf) for c in exact]), exact)
    summed = with_sums(alternative)
    sums, offsets = summed.rows[k:], summed.offsets[k:]
    assert len(sums) == len(offsets)
    fractions = [[Fraction(float(value)) for value in row] for row in rows]
    everything = [[a + b for a, b in zip(*pair, strict=True)] for pair in _pairs(fractions)] if k <= 12 else []
    totals = [sum(pair) for pair in _pairs(list(exact))] if k <= 12 else []
    if k > 2:
        everything.append([sum(column) for column in zip(*fractions, strict=True)])
        totals.append(sum(exact))
    known = list(zip(everything, totals, strict=True))
    for row, offset in zip(sums, offsets, strict=True):
        own = [Fraction(float(value)) for value in row]
        assert any(own == total and 0 <= c - Fraction(float(offset)) <= Fraction(2) ** -37 for total, c in known)


def _pairs(values: list) -> list:  # type: ignore[type-arg]
    return [(values[i], values[j]) for i in range(len(values)) for j in range(i + 1, len(values))]


def test_a_combination_of_rows_refutes_what_no_row_does() -> None:
    """y = (relu(u) - relu(-u), ...) = (u, -u): u <= -0.1 and -u <= -0.1 contradict each other."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]))
    query = Query(unit_box(1), (below(np.eye(2), [0.1, 0.1]),))
    assert decide(model, query, methods=("interval", "quick")).verdict is Verdict.UNKNOWN
    found = decide(model, query, methods=QUICK)
    assert (found.verdict, found.method) == (Verdict.CERTIFIED, "linear")
    touching = Query(unit_box(1), (below(np.eye(2), [0.0, 0.0]),))  # u = 0 satisfies both
    assert decide(model, touching).verdict is Verdict.FALSIFIED


def test_offsets_count_exactly() -> None:
    """y = u on [0, 1]: y <= -c fails for c = 1e-300 and holds for c = 0."""
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    box = Box.between(np.zeros(1), np.ones(1))
    assert decide(model, Query(box, (below([1.0], 0.0),))).verdict is Verdict.FALSIFIED
    assert decide(model, Query(box, (below([1.0], 1e-300),)), max_nodes=300).verdict is not Verdict.FALSIFIED
    exact = Conjunction(np.ones((1, 1)), np.zeros(1), (Fraction(1, 10**320),))
    assert decide(model, Query(box, (exact,)), max_nodes=300).verdict is not Verdict.FALSIFIED


# ---- who has the last word -------------------------------------------------------------------------------------------


def chain() -> tuple[ImplicitModel, Query]:
    """Return a model and a query that some points satisfy."""
    model = layered([(np.eye(2), [0.5, 0.5])], ([[1.0, -1.0]], [0.0]))
    return model, Query(unit_box(2), (below([1.0], 0.9),))


def test_sat_needs_the_original_network() -> None:
    model, query = chain()
    assert decide(model, query).verdict is Verdict.FALSIFIED
    found = decide(model, query, network=lambda points: np.ones((len(points), 1)), max_nodes=300)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.NODE_LIMIT)
    nan = decide(model, query, network=lambda points: np.full((len(points), 1), np.nan), max_nodes=300)
    assert (nan.verdict, nan.reason) == (Verdict.UNKNOWN, Reason.NODE_LIMIT)


@pytest.mark.parametrize(
    "point", [np.array([9.0, 9.0]), np.array([0.0, 0.0]), np.array([np.nan, 0.0])], ids=["outside", "wrong", "nan"]
)
def test_a_search_that_lies_about_a_point_is_not_believed(monkeypatch: pytest.MonkeyPatch, point: np.ndarray) -> None:
    """Outside the box a point is put into it first, where the network is asked about it."""
    model = layered([(np.eye(2), [0.5, 0.5])], ([[1.0, 1.0]], [1.0]))
    query = Query(unit_box(2), (below([1.0], -0.9),))  # y >= 1: never
    lie = Found(point.astype(np.float32), np.zeros(1), -1.0, True)
    monkeypatch.setattr(Splitting, "run", lambda *_, **__: SplitOutcome(False, lie, 1, 0, ""))
    monkeypatch.setattr(branching, "branch", lambda *_, **__: BranchOutcome(False, lie, 1, 0, (-np.inf,)))
    monkeypatch.setattr(rungs, "attack_query", lambda *_, **__: True)
    found = decide(model, query, methods=("attack", "split", "branch"))
    assert found.verdict is Verdict.UNKNOWN


def test_a_box_without_float32_points_is_never_sat() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    between = np.array([1.0 + 2.0**-40])
    found = decide(model, Query(Box.between(between, between), (below([1.0], -5.0),)))
    assert found.verdict is Verdict.UNKNOWN
    assert decide(model, Query(Box.between(between, between), (below([1.0], 0.0),))).verdict is Verdict.CERTIFIED


@dataclass(frozen=True)
class Fault:
    error: Exception
    reason: Reason


@pytest.mark.parametrize(
    "fault",
    [Fault(SolverError("no"), Reason.SOLVER_FAILED), Fault(MemoryError(), Reason.MEMORY_LIMIT)],
    ids=lambda fault: fault.reason.value,
)
def test_a_rung_that_fails_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    def fail(*_: object) -> None:
        raise fault.error

    model, query = chain()
    monkeypatch.setattr(ladder, "RUNGS", MappingProxyType({**RUNGS, "quick": Rung(fail, 1.0)}))
    assert decide(model, query, methods=("quick", "attack")).verdict is Verdict.FALSIFIED
    found = decide(model, query, methods=("quick",))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, fault.reason)


def test_a_model_without_a_proof_of_one_state_stays_unknown() -> None:
    eye = np.eye(1)
    model = plain_model(2 * eye, eye, eye, 0 * eye, np.zeros(1), np.zeros(1), [DeclaredBlock("relu", 1, {})])
    assert not model.is_well_posed
    found = decide(model, Query(unit_box(1), (below([1.0], 0.0),)))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.NO_UNIQUENESS_PROOF)


# ---- options and time ------------------------------------------------------------------------------------------------


def test_time_is_kept() -> None:
    """The model's minimum is 0 and the network disagrees: neither proof nor counterexample, so the attack goes on."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, 1.0]], [0.0]))  # |u|
    query = Query(unit_box(1), (below([1.0], 0.0),))

    def network(points: np.ndarray) -> np.ndarray:
        return np.ones((len(points), 1))

    decide(model, query, network=network, max_nodes=20)  # loads what the rungs need
    start = time.monotonic()
    found = decide(model, query, network=network, time_limit=0.3)
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason is Reason.TIME_LIMIT
    assert 0.25 < found.seconds <= time.monotonic() - start < 5


def test_the_same_seed_gives_the_same_result() -> None:
    model, query = chain()
    first, second = (decide(model, query, seed=3) for _ in range(2))
    assert first.found is not None
    assert second.found is not None
    np.testing.assert_array_equal(first.found.point, second.found.point)


def test_wrong_options_are_refused() -> None:
    model, query = chain()
    for name in ("sign", "pgd", "mip"):
        with pytest.raises(OptionError, match=f"the method {name} is not for properties"):
            decide(model, query, methods=(name,))


def test_the_proofs_are_rungs() -> None:
    assert set(RUNGS) > PROOFS
    assert all(0 < rung.share <= 1 for rung in RUNGS.values())
