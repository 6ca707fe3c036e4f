"""Statements over whole ranges: what is proved or fails in a part does so at its points, and shares of volumes."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.decide.everywhere import Everywhere, Part, cut, decide_everywhere, decide_rising
from idl_audit.decide.ladder import Options
from idl_audit.decide.monotone import Question
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact.point import ExactNetwork
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.demand import Limits
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.cyclic_models import plain
from tests.shared.pairs import chain, layered


def box(lo: float, hi: float, p: int) -> Cell:
    return Cell(Box.between(np.full(p, lo), np.full(p, hi)), ())


def ruled(model: ImplicitModel, cell: Cell, query: Query, nodes: int = 200) -> Everywhere:
    options = Options(("interval", "linear"), confirm=ExactNetwork(model), max_nodes=nodes)
    budget = Budget.of(60.0, nodes=nodes)
    return decide_everywhere(model, lambda u: model(u.astype(np.float64)), cell, query, options, budget)


def below(cell: Cell, value: float, q: int = 1) -> Query:
    limits = Limits(np.arange(q), np.full(q, -1), np.full(q, value), np.ones(q, np.bool_))
    return limits.query(cell.hull, q)


def never(cell: Cell, label: int, q: int) -> Query:
    return Query.prediction(cell.hull, q, label)


def inside(points: FloatArray, parts: tuple[Part, ...]) -> np.ndarray:
    found = np.zeros(len(points), np.bool_)
    for part in parts:
        found |= ((points >= part.lo) & (points <= part.hi)).all(axis=1)
    return found


def check_points(model: ImplicitModel, cell: Cell, query: Query, found: Everywhere, n: int, seed: int) -> None:
    """No counterexample in a part that is proved; nothing else in one that fails. Borders are left to both sides."""
    rng = np.random.default_rng(seed)
    hull = cell.hull
    points = hull.lo + rng.random((n, hull.size)) * (hull.hi - hull.lo)
    points[: n // 4] = np.where(rng.random((n // 4, hull.size)) < 0.5, hull.lo, hull.hi)
    distance = query.distance(model(points))
    assert not (~inside(points, (*found.open, *found.failing)) & (distance < -1e-9)).any()
    assert not (inside(points, found.failing) & ~inside(points, found.open) & (distance > 1e-9)).any()
    assert found.open_share + found.failing_share + found.holding_share == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(6))
def test_no_point_contradicts_a_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = tuple(str(kind) for kind in rng.choice(("relu", "tanh", "abs", "leaky_relu"), 2))
    model = layered(rng, (3, 5, 5, 3), kinds)
    cell = box(-1.0, 1.0, 3)
    query = never(cell, int(rng.integers(3)), 3) if seed % 2 else below(cell, float(rng.normal()), 3)
    found = ruled(model, cell, query)
    check_points(model, cell, query, found, 10_000, seed)
    if found.verdict is Verdict.FALSIFIED:
        assert found.found is not None
        assert query.holds(model(found.found.point[None].astype(np.float64)))[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 106))
def test_no_point_of_many_contradicts_a_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = layered(rng, (2, 6, 6, 3), ("relu", "relu"))
    cell = box(-2.0, 2.0, 2)
    query = never(cell, int(rng.integers(3)), 3)
    found = ruled(model, cell, query, 1500)
    check_points(model, cell, query, found, 100_000, seed)


def linear(*weights: float) -> ImplicitModel:
    """y = w . u, behind states that do not bend above -16."""
    w = np.array([weights])
    return relus([np.eye(w.size), w], [np.full(w.size, 16.0), -16.0 * w.sum(axis=1)])


def relus(weights: list[FloatArray], biases: list[FloatArray]) -> ImplicitModel:
    return chain(weights, biases, ("relu",) * (len(weights) - 1))


def test_shares_of_a_half_plane_are_never_too_large() -> None:
    """-u0 < 0 fails on [-1, 0]: parts are never more than a half, and open ones lie at the border alone."""
    model, cell = linear(-1.0, 0.0), box(-1.0, 1.0, 2)
    found = ruled(model, cell, below(cell, 0.0))
    assert found.verdict is Verdict.FALSIFIED
    assert 0.49 <= found.failing_share <= 0.5
    assert 0.49 <= found.holding_share <= 0.5
    assert (np.array([part.hi[0] for part in found.failing]) <= 0).all()
    assert all(part.lo[0] <= 0.02 and part.hi[0] >= -0.02 for part in found.open)


def test_a_quarter_that_fails_by_a_row_for_each_input() -> None:
    """max(u0, u1) stays above 0.5 nowhere but in three quarters of [0, 1]^2: relu(u0 - u1) + u1."""
    model = relus([np.array([[1.0, -1.0], [0.0, 1.0]]), np.array([[1.0, 1.0]])], [np.zeros(2), np.zeros(1)])
    cell = box(0.0, 1.0, 2)
    limits = Limits(np.arange(1), np.ones(1, int), np.full(1, 0.5), np.ones(1, np.bool_))
    found = ruled(model, cell, limits.query(cell.hull, 1), 3000)
    assert found.verdict is Verdict.FALSIFIED
    assert 0.24 <= found.failing_share <= 0.25
    assert 0.735 <= found.holding_share <= 0.75


def test_a_part_of_a_certified_range_is_certified() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = layered(rng, (2, 5, 2), ("relu",))
        whole = box(-1.0, 1.0, 2)
        top = float(model(rng.uniform(-1, 1, (4000, 2))).max()) + 0.05
        assert ruled(model, whole, below(whole, top, 2)).verdict is Verdict.CERTIFIED
        for lo, hi in ((-1.0, 0.25), (0.5, 1.0), (-0.125, 0.375)):
            part = box(lo, hi, 2)
            assert ruled(model, part, below(part, top, 2)).verdict is Verdict.CERTIFIED


def test_valid_rows_alone_falsify_and_share_by_their_number() -> None:
    """y = u0 + 2 u1 - 2 u2 of a whole number 0..3 and a category: below 3.5 but at 2 and 3 of the first category."""
    model = linear(1.0, 2.0, -2.0)
    choices = (Choice((0,), np.arange(4.0)[:, None]), Choice((1, 2), np.eye(2)))
    cell = Cell(Box.between(np.zeros(3), np.array([3.0, 1.0, 1.0])), choices)
    found = ruled(model, cell, below(cell, 3.5))
    assert found.verdict is Verdict.FALSIFIED
    assert found.found is not None
    assert found.found.point.tolist() in ([2.0, 1.0, 0.0], [3.0, 1.0, 0.0])
    assert (found.failing_share, found.open_share, found.holding_share) == (0.25, 0.0, 0.75)
    assert ruled(model, cell, below(cell, 5.25)).verdict is Verdict.CERTIFIED
    assert ruled(model, cell, below(cell, 4.75)).verdict is Verdict.FALSIFIED


def test_what_overflows_is_proved_nowhere() -> None:
    model = relus([np.array([[1e200]]), np.array([[1e200]])], [np.zeros(1), np.zeros(1)])
    found = ruled(model, box(0.0, 1.0, 1), below(box(0.0, 1.0, 1), 1.0), 30)
    assert found.holding_share < 1
    assert found.verdict is not Verdict.CERTIFIED


def test_loops_are_refused() -> None:
    model = plain(np.array([[0.25]]), np.eye(1), np.eye(1))
    with pytest.raises(UnsupportedModelError, match="without loops"):
        ruled(model, box(0.0, 1.0, 1), below(box(0.0, 1.0, 1), 2.0))


# --- scores that rise -------------------------------------------------------------------------------------------------


def rising(model: ImplicitModel, cell: Cell, nodes: int = 150) -> Everywhere:
    one = Question(0, np.ones((1, 1)), lambda y: y[:, 0], lambda y: y[:, 0])
    return decide_rising(model, lambda u: model(u.astype(np.float64)), one, cell, Budget.of(60.0, nodes=nodes))


def dip(at: float, width: float) -> ImplicitModel:
    """y = u0 but for a fall of 2 on [at, at + width]: u0 - (2 / width + 1) times a ramp."""
    slope = 2.0 / width + 1.0
    first = np.array([[1.0], [1.0], [1.0]])
    offsets = np.array([10.0, -at, -at - width])
    return relus([first, np.array([[1.0, -slope, slope]])], [offsets, np.zeros(1)])


def test_a_score_that_rises_everywhere_is_proved_and_one_that_does_not_is_mapped() -> None:
    assert rising(dip(20.0, 0.5), box(0.0, 4.0, 1)).verdict is Verdict.CERTIFIED
    found = rising(dip(2.0, 0.5), box(0.0, 4.0, 1))
    assert found.verdict is Verdict.FALSIFIED
    assert found.fall is not None
    assert found.fall.scores[0] > found.fall.scores[1]
    assert found.failing_share == pytest.approx(0.125, abs=0.01)
    assert all(2.0 <= part.lo[0] <= part.hi[0] <= 2.5 for part in found.failing)


def whole(n: int) -> Cell:
    return Cell(Box.between(np.zeros(1), np.array([n - 1.0])), (Choice((0,), np.arange(float(n))[:, None]),))


def test_a_fall_between_whole_numbers_is_no_proof_and_no_counterexample() -> None:
    """It falls by 2 on [1.25, 1.75], from 1 to 2 by 1: a gap between two parts would hide that."""
    found = rising(dip(1.25, 0.5), whole(4))
    assert found.verdict is Verdict.FALSIFIED
    assert found.fall is not None
    assert float(found.fall.low[0]).is_integer()
    assert float(found.fall.high[0]).is_integer()


def test_a_dip_that_whole_numbers_do_not_see_stays_open() -> None:
    """y falls between 1.25 and 1.5 by .25, and rises by .5 from 1 to 2."""
    first = np.array([[1.0], [1.0], [1.0]])
    model = relus([first, np.array([[1.0, -2.0, 2.0]])], [np.array([10.0, -1.25, -1.5]), np.zeros(1)])
    found = rising(model, whole(4), 40)
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason is not None


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_of_points_contradicts_a_rising_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, cell = layered(rng, (2, 4, 4, 1), ("relu", "tanh")), box(-1.0, 1.0, 2)
    found = rising(model, cell, 30)
    u = rng.uniform(-1, 1, (3000, 2))
    v = u.copy()
    v[:, 0] += rng.random(3000) * 1e-3
    bad = (v[:, 0] <= 1) & (model(v)[:, 0] < model(u)[:, 0] - 1e-12)
    assert inside(u, (*found.open, *found.failing))[bad].all()
    good = (v[:, 0] <= 1) & (model(v)[:, 0] > model(u)[:, 0] + 1e-12)
    failing, others = inside(u, found.failing) & inside(v, found.failing), inside(u, found.open)
    assert not (good & failing & ~others).any()


# --- cuts -------------------------------------------------------------------------------------------------------------


def test_a_cut_shares_a_part_out() -> None:
    choices = (Choice((1,), np.arange(5.0)[:, None]),)
    part = Part(np.zeros(2), np.array([1.0, 4.0]), choices)
    for scores in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        halves = cut(part, scores, part)
        assert sum(half.share for half in halves) == 1.0
    assert [len(half.choices[0].values) for half in cut(part, np.array([0.0, 1.0]), part)] == [2, 3]
    point = Part(np.zeros(1), np.zeros(1), ())
    assert cut(point, np.ones(1), point) == ()
    assert Reason.RELAXATION_GAP in Reason
