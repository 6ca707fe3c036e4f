"""The ladder of bounds: nothing escapes any rung, rungs only tighten, U_card is exact where one can know it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.measure.state_bounds import (
    METHODS,
    Counts,
    SetBounds,
    bound_set,
    counts,
    prepare,
    state_model,
)
from idl_audit.proof import linear_bounds
from idl_audit.proof.bounds import Interval
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.errors import OptionError, UnsupportedModelError
from idl_audit.values.input_sets import InputSet
from tests.shared.budgets import no_time
from tests.shared.small_networks import (
    KINKED,
    STEADY,
    ExactModel,
    dense,
    layered,
    long_double,
    pool_of_doubled,
    pooled_network,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def random_set(rng: np.random.Generator, p: int, *, sparse: bool) -> InputSet:
    centre, sigma = rng.normal(size=p) * 0.3, rng.choice([0.0, 1e-3, 0.5, 1.0], size=p)
    clip = (-1.0, 1.0) if np.abs(centre).max() <= 1 and rng.random() < 0.5 else (None, None)
    if not sparse:
        return Box.around(centre, 0.7, sigma=sigma, valid_lo=clip[0], valid_hi=clip[1])
    k = int(rng.integers(1, p + 1))
    return SparseBall.around(centre, 0.7, k, sigma=sigma, valid_lo=clip[0], valid_hi=clip[1])


def points_of(rng: np.random.Generator, inputs: InputSet, count: int) -> FloatArray:
    """Return points of the set, corners among them; those of U_card change as many inputs as they may."""
    if isinstance(inputs, Box):
        return some_points(rng, inputs, count)
    points = some_points(rng, inputs.box, count)
    for point in points:
        kept = rng.permutation(point.size)[inputs.k :]
        point[kept] = inputs.centre[kept]
    return points


def escapes(found: SetBounds, z: dict, x: dict, y: np.ndarray) -> list[str]:
    """Return every value outside its bounds, compared exactly."""
    out = []
    named = [("z", k, i, z[k]) for k, i in found.states.z.items()]
    named += [("x", k, i, x[k]) for k, i in found.states.x.items()]
    named += [(rung.method, "y", rung.outputs, y) for rung in found.rungs]
    named += [("outputs", "y", found.outputs, y)]
    for name, k, interval, values in named:
        rows = np.atleast_2d(values)
        for i in range(rows.shape[1]):
            if not all(interval.lo[0, i] <= value <= interval.hi[0, i] for value in rows[:, i]):
                out.append(f"{name}{k}[{i}]: {rows[:, i].min()} .. {rows[:, i].max()}, not {interval}")
    return out


def some_methods(rng: np.random.Generator) -> tuple[str, ...]:
    """Return all methods, or some of them, in any order."""
    names = rng.permutation(METHODS)
    return tuple(str(name) for name in (names if rng.random() < 0.5 else names[: rng.integers(1, len(names))]))


@settings(deadline=None, max_examples=60)
@given(seed=seeds, sparse=st.booleans(), cancelling=st.booleans(), depth=st.integers(1, 3))
def test_exact_values_lie_inside_the_bounds(seed: int, sparse: bool, cancelling: bool, depth: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(3,) * depth, activations=list(KINKED), cancelling=cancelling)
    inputs = random_set(rng, 3, sparse=sparse)
    found = bound_set(prepare(model, some_methods(rng), sparse=sparse), inputs)
    exact = ExactModel(model)
    for u in points_of(rng, inputs, 4):
        assert escapes(found, *exact.evaluate(u)) == []


@settings(deadline=None, max_examples=40)
@given(seed=seeds, sparse=st.booleans())
def test_values_of_smooth_and_coupled_networks_lie_inside_the_bounds(seed: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=4, widths=(4, 5, 3), activations=[*STEADY, "relu", "abs"])
    inputs = random_set(rng, 4, sparse=sparse)
    found = bound_set(prepare(model, some_methods(rng), sparse=sparse), inputs)
    assert escapes(found, *long_double(model, points_of(rng, inputs, 60))) == []


@pytest.mark.parametrize("sparse", [False, True])
def test_values_of_pooled_networks_lie_inside_the_bounds(sparse: bool) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model = pooled_network(rng)
        inputs = random_set(rng, 16, sparse=sparse)
        found = bound_set(prepare(model, sparse=sparse), inputs)
        assert [rung.method for rung in found.rungs] == ["norm", "norm-matrix", "sensitivity", "interval", "linear"]
        z, x, y = long_double(model, points_of(rng, inputs, 100))
        assert escapes(found, z, x, y) == []


@settings(deadline=None, max_examples=30)
@given(seed=seeds, sparse=st.booleans())
def test_rungs_only_tighten_the_outputs_and_settle_more_states(seed: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 4), activations=["relu", "softmax", "tanh"])
    rungs = bound_set(prepare(model, sparse=sparse), random_set(rng, 3, sparse=sparse)).rungs[1:]
    for before, after in itertools.pairwise(rungs):
        assert (after.outputs.lo >= before.outputs.lo).all()
        assert (after.outputs.hi <= before.outputs.hi).all()
        assert before.unstable is not None
        assert after.unstable is not None
        assert after.unstable <= before.unstable


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_the_ladder_is_at_least_as_tight_as_backward_bounds_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 5, 5))
    box = random_set(rng, 3, sparse=False)
    assert isinstance(box, Box)
    inputs = Interval.of_boxes(box)
    alone = backward_state_bounds(model, inputs)
    found = bound_set(prepare(model, ("interval", "linear")), box)
    for k in model.evaluation_order:
        assert (found.states.z[k].lo >= alone.z[k].lo - 1e-12).all()
        assert (found.states.z[k].hi <= alone.z[k].hi + 1e-12).all()
    lowers = output_lower_bounds(model, inputs, found.states, np.eye(3))
    assert (found.outputs.lo >= lowers - 1e-12).all()


# ---------------------------------------------------------------------------------------------- known cases


def widths(model: ImplicitModel, inputs: InputSet) -> dict[str, list[float]]:
    found = bound_set(prepare(model, sparse=isinstance(inputs, SparseBall)), inputs)
    return {rung.method: rung.outputs.width[0].tolist() for rung in found.rungs}


@pytest.mark.parametrize("k", [1, 2, 3])
def test_only_the_k_largest_changes_count(k: int) -> None:
    """y = relu(u1 + 2 u2 - 3 u3 + 20), every input moves by 1 at most: 3, then 5, then 6 each way."""
    model = layered([([[1.0, 2.0, -3.0]], [20.0])], ([[1.0]], [0.0]))
    found = widths(model, SparseBall.around(np.zeros(3), 1.0, k))
    for method in ("sensitivity", "interval", "linear"):
        assert found[method] == pytest.approx([2 * (0, 3, 5, 6)[k]], abs=1e-12)


def test_each_rung_alone_in_a_case_done_by_hand() -> None:
    """x = relu(u + (1, 1/2)), y = x1 - x2 on [-2, 2], y0 = 1/2.

    rho = ||B|| ||C|| = 2; S(1/2, 1/2) = |C| |B| / 2 + |C B| / 2 = 1; x1 in [0, 3], x2 in [0, 5/2]; and by lines
    u + 1 - 5/8 (u + 2) <= y <= 3/4 (u + 2) - (u + 1/2), which is [-1, 3/2].
    """
    model = layered([([[1.0], [1.0]], [1.0, 0.5])], ([[1.0, -1.0]], [0.0]))
    box = Box.between(np.array([-2.0]), np.array([2.0]))
    expected = {"norm": (-3.5, 4.5), "sensitivity": (-1.5, 2.5), "interval": (-2.5, 3.0), "linear": (-1.0, 1.5)}
    for name in METHODS:
        alone = bound_set(prepare(model, (name,)), box).outputs
        np.testing.assert_allclose([alone.lo[0, 0], alone.hi[0, 0]], expected[name], atol=1e-9)


def test_sums_of_many_inputs_gain_from_cardinality_at_every_depth() -> None:
    """Sixteen inputs of [0, 1], two may change: the first layer's intervals and the backward bounds both know."""
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=(8, 16)), rng.normal(size=(8, 8)), rng.normal(size=(2, 8))]
    model = layered([(w, np.zeros(len(w))) for w in weights[:-1]], (weights[-1], np.zeros(2)))
    u = rng.random(16)
    ball = SparseBall.around(u, 0.2, 2, valid_lo=0.0, valid_hi=1.0)
    sparse, box = (bound_set(prepare(model, sparse=True), inputs).rungs for inputs in (ball, ball.box))
    for mine, all_at_once in zip(sparse[1:], box[1:], strict=True):
        assert mine.outputs.width.max() < 0.5 * all_at_once.outputs.width.max()


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_u_card_of_all_inputs_is_the_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4))
    box = Box.around(rng.normal(size=3), 0.4)
    ball = SparseBall(box.centre, box, 3)
    for name in METHODS:
        mine = bound_set(prepare(model, (name,), sparse=True), ball).outputs
        theirs = bound_set(prepare(model, (name,)), box).outputs
        np.testing.assert_allclose([mine.lo, mine.hi], [theirs.lo, theirs.hi], rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_affine_networks_are_bounded_exactly(seed: int) -> None:
    """With the identity in place of an activation, backward bounds are the support function of U_card itself."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=4, widths=(3, 3), activations=["identity"])
    ball = random_set(rng, 4, sparse=True)
    at_zero, gain = model(np.zeros((1, 4)))[0], model(np.eye(4)) - model(np.zeros((1, 4)))
    found = bound_set(prepare(model, ("linear",), sparse=True), ball).outputs
    np.testing.assert_allclose(found.hi[0], at_zero + ball.support(gain.T), atol=1e-10)
    np.testing.assert_allclose(found.lo[0], at_zero - ball.support(-gain.T), atol=1e-10)


@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_outputs_stay_on_the_right_side_of_the_exact_extremes_over_u_card(seed: int) -> None:
    """k = 1 of two inputs: the set is two segments, on each of which the exact minimum is known."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3), activations=["relu", "abs"])
    ball = SparseBall.around(rng.normal(size=2) * 0.3, 0.5, 1)
    segments = []
    for moving in range(2):
        lo, hi = ball.centre.copy(), ball.centre.copy()
        lo[moving], hi[moving] = ball.box.lo[moving], ball.box.hi[moving]
        segments.append(Box.between(lo, hi))
    found = bound_set(prepare(model, sparse=True), ball)
    exact = ExactModel(model)
    for i, unit in enumerate(np.eye(3)):
        least = min(exact.minimum(unit, box) for box in segments)
        most = max(-exact.minimum(-unit, box) for box in segments)
        for rung in found.rungs:
            assert Fraction(float(rung.outputs.lo[0, i])) <= least
            assert Fraction(float(rung.outputs.hi[0, i])) >= most


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_any_multipliers_give_a_bound_over_u_card(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(3, 3), activations=["relu", "tanh"], cancelling=bool(rng.random() < 0.5))
    ball = random_set(rng, 3, sparse=True)
    bounds = bound_set(prepare(model, ("interval",), sparse=True), ball).states

    def noise(k: int, v: FloatArray) -> FloatArray:
        return rng.normal(size=v.shape) * 10.0 ** rng.integers(-3, 4)

    found = lower_bound(model, Interval.of_set(ball), bounds, Functionals.of_outputs(model, np.eye(3)), noise)
    y = long_double(model, points_of(rng, ball, 40))[2]
    assert (found <= y.min(axis=0)).all()


def test_inputs_with_radius_zero_do_not_move_anything() -> None:
    model = layered([([[1.0, 100.0]], [0.0])], ([[1.0]], [0.0]))
    box = Box.around(np.array([1.0, 0.0]), 0.5, sigma=np.array([1.0, 0.0]))
    ball = SparseBall.around(np.array([1.0, 0.0]), 0.5, 1, sigma=np.array([1.0, 0.0]))
    for inputs in (box, ball):
        assert widths(model, inputs)["linear"] == pytest.approx([1.0], abs=1e-9)


@pytest.mark.parametrize("method", ["sensitivity", "interval", "linear"])
def test_uncertain_coefficients_of_the_input_are_paid_for(method: str) -> None:
    """relu(2 u1 + u2 + 20) with coefficients known to a quarter: one input within 1 moves it by 2.5, not by 2."""
    model = layered([([[2.0, 1.0]], [20.0])], ([[1.0]], [0.0]))
    row = model.rows[0]
    assert row.input is not None
    uncertain = replace(model, rows=(replace(row, input=row.input.uncertain(0.25)),))
    found = bound_set(prepare(uncertain, (method,), sparse=True), SparseBall.around(np.zeros(2), 1.0, 1)).outputs
    assert found.hi[0, 0] - 20 == pytest.approx(2.5, abs=1e-9)
    assert found.lo[0, 0] - 20 == pytest.approx(-2.5, abs=1e-9)


def test_bounded_activations_bound_the_outputs() -> None:
    """y = tanh(100 u), u moves by 5: S alone would say +- 500."""
    model = layered([([[100.0]], [0.0])], ([[1.0]], [0.0]), ACTIVATIONS["tanh"]())
    found = bound_set(prepare(model, ("sensitivity",)), Box.around(np.array([0.0]), 5.0))
    np.testing.assert_allclose([found.outputs.lo[0, 0], found.outputs.hi[0, 0]], [-1, 1], atol=1e-9)


def test_the_norm_matrix_serves_softmax_and_pools_and_no_others() -> None:
    rng = np.random.default_rng(0)
    plain = random_network(rng, widths=(3,), skips=False)
    assert prepare(plain).norms is None
    soft = random_network(rng, widths=(3,), activations=["softmax"], skips=False)
    assert prepare(soft).norms is not None
    assert prepare(pool_of_doubled(4)).norms is not None
    assert prepare(soft, ("interval",)).norms is None
    found = bound_set(prepare(pool_of_doubled(9), ("norm",)), Box.around(np.zeros(9), 0.5))
    assert found.outputs.width[0, 0] == pytest.approx(2.0, abs=1e-9)  # 2 max(u), each u within 1/2


# ---------------------------------------------------------------------------------------------- limits, refusals


@pytest.mark.parametrize(
    ("phi", "lo", "hi", "expected"),
    [
        ("relu", [-2.0, 1.0, -1.0, 0.0], [-1.0, 2.0, 1.0, 1.0], Counts(1, 2, 1)),
        ("abs", [-2.0, 1.0, -1.0, 0.0], [-1.0, 2.0, 1.0, 1.0], Counts(0, 3, 1)),
        ("identity", [-2.0, 1.0, -1.0, 0.0], [-1.0, 2.0, 1.0, 1.0], Counts(0, 4, 0)),
        ("tanh", [-2.0, 1.0, -1.0, 0.0], [-1.0, 2.0, 1.0, 1.0], Counts(0, 0, 4)),
        ("relu", [-np.inf, -np.inf, 0.0, 5.0], [np.inf, 0.0, np.inf, 5.0], Counts(1, 2, 1)),
    ],
)
def test_states_are_counted(phi: str, lo: list[float], hi: list[float], expected: Counts) -> None:
    block = StateBlock("b", "Relu", ACTIVATIONS[phi](), (4,))
    assert counts(block, Interval(np.array([lo]), np.array([hi]))) == expected


@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_too_large_is_left_out_and_said_so(sparse: bool) -> None:
    rng = np.random.default_rng(4)
    model = random_network(rng, p=3, widths=(6, 6), skips=False)
    whole, small = prepare(model, sparse=sparse), prepare(model, sparse=sparse, max_bytes=700)
    assert whole.left_out == {}
    assert set(small.left_out) == ({"sensitivity", "interval"} if sparse else {"sensitivity"})
    assert "2 of 2 blocks" in small.left_out["sensitivity"]
    assert small.state_matrices == small.input_matrices == {}
    inputs = random_set(rng, 3, sparse=sparse)
    found = bound_set(small, inputs)
    assert found.rungs[1].method == "sensitivity"
    assert found.rungs[1].unstable is None
    assert escapes(found, *long_double(model, points_of(rng, inputs, 50))) == []


def test_an_s_that_does_not_fit_itself_leaves_the_other_methods() -> None:
    model = random_network(np.random.default_rng(4), p=3, widths=(6, 6), skips=False)
    small = prepare(model, max_bytes=100)
    assert "S has 3 x 3 entries" in small.left_out["sensitivity"]
    assert small.methods == ("norm", "interval", "linear")
    found = bound_set(small, Box.around(np.zeros(3), 0.1))
    assert [rung.method for rung in found.rungs] == ["norm", "interval", "linear"]


def test_without_time_states_keep_their_intervals() -> None:
    rng = np.random.default_rng(5)
    model = random_network(rng, p=3, widths=(6, 6, 6), skips=False)
    box = Box.around(np.zeros(3), 1.0)
    prepared = prepare(model, ("interval", "linear"))
    found = bound_set(prepared, box, budget=no_time())
    whole = bound_set(prepared, box)
    assert found.cut_short
    assert not whole.cut_short
    intervals = bound_set(prepare(model, ("interval",)), box)
    for k in model.evaluation_order:
        assert (found.states.z[k].lo == intervals.states.z[k].lo).all()
    assert found.outputs.width.sum() > whole.outputs.width.sum()
    assert escapes(found, *long_double(model, some_points(rng, box, 50))) == []


def test_pieces_of_a_backward_pass_give_what_one_pass_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    model = random_network(rng, p=3, widths=(6, 7, 6), skips=False)
    ball = SparseBall.around(np.zeros(3), 1.0, 2)
    whole = bound_set(prepare(model, sparse=True), ball)
    monkeypatch.setattr(linear_bounds, "ROWS_AT_ONCE", 15)
    parts = bound_set(prepare(model, sparse=True), ball)
    np.testing.assert_allclose(parts.outputs.lo, whole.outputs.lo, rtol=1e-12)
    for k in model.evaluation_order:
        np.testing.assert_allclose(parts.states.z[k].hi, whole.states.z[k].hi, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [pooled_network, lambda rng: random_network(rng, p=16, widths=(3, 4, 3, 2))])
def test_a_block_s_model_computes_its_pre_activations(make: Callable[[np.random.Generator], ImplicitModel]) -> None:
    rng = np.random.default_rng(7)
    model = make(rng)
    u = rng.normal(size=(5, 16))
    for k, z in enumerate(model.pre_activations(u)):
        part = state_model(model, k)
        assert len(part.blocks) == len(model.blocks) - k - 1
        assert (part(u) == z).all()
        assert all(
            block.maximum is None or part.blocks[block.maximum.source].name == model.blocks[own.maximum.source].name
            for block, own in zip(part.blocks, model.blocks[k + 1 :], strict=True)
            if own.maximum is not None
        )


def test_unknown_methods_and_cycles_are_refused() -> None:
    model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]))
    with pytest.raises(OptionError, match="no method 'magic'"):
        prepare(model, ("magic",))
    loop = replace(model, rows=(replace(model.rows[0], states={0: dense([[2.0]])}),))
    with pytest.raises(UnsupportedModelError, match="nothing proves"):
        prepare(loop)
