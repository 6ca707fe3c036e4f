"""Interval bounds: nothing escapes them, in rational arithmetic, and they are exact where one can know it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, Activation
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.intervals import affine_interval, centre_and_radius, interval_bounds
from idl_audit.values.box import Box
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    all_corners,
    dense,
    layered,
    long_double,
    pool_of_doubled,
    pool_of_inputs,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def escapes(bounds: StateBounds, z: dict[int, np.ndarray], x: dict[int, np.ndarray]) -> list[str]:
    """Return every value outside its bounds; compares floats with Fractions (or long doubles) exactly."""
    found = []
    for name, intervals, values in (("z", bounds.z, z), ("x", bounds.x, x)):
        for k, interval in intervals.items():
            rows = np.atleast_2d(values[k])
            for i in range(rows.shape[1]):
                lo, hi = interval.lo[0, i], interval.hi[0, i]
                if not (np.isfinite(lo) and np.isfinite(hi)):
                    found.append(f"{name}{k}[{i}] has bounds {lo}, {hi}")
                elif not all(lo <= value <= hi for value in rows[:, i]):
                    found.append(f"{name}{k}[{i}] in [{rows[:, i].min()}, {rows[:, i].max()}], not [{lo}, {hi}]")
    return found


@settings(deadline=None, max_examples=40)
@given(seed=seeds, cancelling=st.booleans(), depth=st.integers(1, 4))
def test_exact_states_lie_inside_the_bounds(seed: int, cancelling: bool, depth: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3,) * depth, activations=list(KINKED), cancelling=cancelling)
    box = random_box(rng, 2)
    bounds = interval_bounds(model, Interval.of_boxes(box))
    exact = ExactModel(model)
    for u in [*all_corners(box), *some_points(rng, box, 4)]:
        z, x, _ = exact.evaluate(u)
        assert escapes(bounds, z, x) == []


@settings(deadline=None, max_examples=25)
@given(seed=seeds, spread=st.sampled_from([1.0, 30.0, 1000.0]))
def test_states_of_smooth_networks_lie_inside_the_bounds(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 3), activations=["tanh", "sigmoid", "relu"])
    box = random_box(rng, 3)
    box = Box.between(box.lo * spread, box.hi * spread)
    z, x, _ = long_double(model, some_points(rng, box, 100))
    assert escapes(interval_bounds(model, Interval.of_boxes(box)), z, x) == []


def test_boxes_without_width_give_the_exact_value_and_hardly_more() -> None:
    rng = np.random.default_rng(5)
    model = random_network(rng, p=2, widths=(4, 4), activations=list(KINKED), cancelling=True)
    point = rng.normal(size=2)
    bounds = interval_bounds(model, Interval.of_boxes(Box.between(point, point)))
    z, x, _ = ExactModel(model).evaluate(point)
    assert escapes(bounds, z, x) == []


def test_cancellation_is_paid_for() -> None:
    """1e16 u + u - 1e16 u: float64 sums give 0 or 2 where the truth is 1; the interval must hold the truth."""
    model = layered([([[1e16, 1.0, -1e16]], [0.0])], ([[1.0]], [0.0]))
    box = Box.between(np.ones(3), np.ones(3))
    bounds = interval_bounds(model, Interval.of_boxes(box))
    assert bounds.z[0].lo[0, 0] <= 1.0 <= bounds.z[0].hi[0, 0]
    assert bounds.z[0].hi[0, 0] - bounds.z[0].lo[0, 0] < 200


def test_exact_small_case() -> None:
    """z = u1 - 2 u2 + 1 on [-1, 2] x [0, 3]: [-6, 3]; relu gives [0, 3], then 2 - x lies in [-1, 2]."""
    model = layered([([[1.0, -2.0]], [1.0]), ([[-1.0]], [2.0])], ([[1.0]], [0.0]))
    bounds = interval_bounds(model, Interval.of_boxes(Box.between(np.array([-1.0, 0.0]), np.array([2.0, 3.0]))))
    found = [bounds.z[1].lo, bounds.z[1].hi, bounds.x[1].lo, bounds.x[1].hi, bounds.z[0].lo, bounds.z[0].hi]
    np.testing.assert_allclose([v[0, 0] for v in found], [-6, 3, 0, 3, -1, 2], atol=1e-13)


@pytest.mark.parametrize(
    ("phi", "lo", "hi", "least", "most"),
    [
        (("relu",), -1.0, 2.0, 0.0, 2.0),
        (("relu",), -2.0, -1.0, 0.0, 0.0),
        (("relu",), 1.0, 2.0, 1.0, 2.0),
        (("abs",), -3.0, 2.0, 0.0, 3.0),
        (("abs",), -3.0, -2.0, 2.0, 3.0),
        (("leaky_relu", 2.0), -1.0, 1.0, -2.0, 1.0),
        (("leaky_relu", -0.5), -4.0, 1.0, 0.0, 2.0),
        (("leaky_relu", -0.5), -4.0, -2.0, 1.0, 2.0),
        (("leaky_relu", 0.5), 0.0, 0.0, 0.0, 0.0),
        (("tanh",), -1e6, 1e6, -1.0, 1.0),
    ],
)
def test_activations_have_their_exact_range(phi: tuple, lo: float, hi: float, least: float, most: float) -> None:
    activation: Activation = ACTIVATIONS[phi[0]](*phi[1:])
    low, high = StateBlock("b", "Relu", activation, (1,)).interval(np.array([[lo]]), np.array([[hi]]))
    assert low[0, 0] <= least
    assert high[0, 0] >= most
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [least, most], atol=1e-13)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, m=st.integers(1, 4))
def test_a_batch_of_boxes_gives_what_each_box_gives(seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 3, 4), activations=[*KINKED, *SMOOTH])
    boxes = [random_box(rng, 3) for _ in range(m)]
    together = interval_bounds(model, Interval.of_boxes(boxes))
    for j, box in enumerate(boxes):
        alone = interval_bounds(model, Interval.of_boxes(box))
        for k in range(3):
            np.testing.assert_allclose(together.z[k].lo[j], alone.z[k].lo[0], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(together.x[k].hi[j], alone.x[k].hi[0], rtol=1e-12, atol=1e-12)


def check_window(model: ImplicitModel, n: int, factor: float) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        box = random_box(rng, n)
        bounds = interval_bounds(model, Interval.of_boxes(box))
        least, most = factor * box.lo.max(), factor * box.hi.max()
        assert bounds.x[0].lo[0, 0] <= least
        assert bounds.x[0].hi[0, 0] >= most
        np.testing.assert_allclose([bounds.x[0].lo[0, 0], bounds.x[0].hi[0, 0]], [least, most], rtol=1e-13)


WINDOWS = [2, 3, 4, 5, 7, 9, 16, 25, 49]


@pytest.mark.parametrize("n", WINDOWS)
def test_maximum_of_a_window_lies_between_the_largest_lower_and_upper_bound(n: int) -> None:
    check_window(pool_of_doubled(n), n, 2.0)


@pytest.mark.parametrize("n", WINDOWS)
def test_maximum_of_inputs_lies_between_the_largest_lower_and_upper_bound(n: int) -> None:
    check_window(pool_of_inputs(n), n, 1.0)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, bias=st.sampled_from([-3.0, 0.0, 3.0]), positive=st.booleans())
def test_states_of_pooled_networks_lie_inside_the_bounds(seed: int, bias: float, positive: bool) -> None:
    rng = np.random.default_rng(seed)
    model = pooled_network(rng, bias=bias, positive=positive)
    box = random_box(rng, 16)
    z, x, _ = long_double(model, some_points(rng, box, 60))
    assert escapes(interval_bounds(model, Interval.of_boxes(box)), z, x) == []


def test_states_of_rescaled_pooled_networks_lie_inside_the_bounds() -> None:
    rng = np.random.default_rng(0)
    model = rescale(pooled_network(rng, bias=3.0, positive=True))
    assert model.scaling is not None
    assert model.scaling.norm_after is not None
    box = Box.between(np.zeros(16), np.full(16, 0.5))
    z, x, _ = long_double(model, some_points(rng, box, 60))
    assert escapes(interval_bounds(model, Interval.of_boxes(box)), z, x) == []


@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_states_of_rescaled_networks_lie_inside_the_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = rescale(random_network(rng, p=3, widths=(4, 4, 3), activations=["relu", "abs", "steep", *SMOOTH]))
    box = random_box(rng, 3)
    z, x, _ = long_double(model, some_points(rng, box, 60))
    assert escapes(interval_bounds(model, Interval.of_boxes(box)), z, x) == []


@settings(deadline=None, max_examples=200)
@given(lo=st.floats(-1e308, 1e308), hi=st.floats(-1e308, 1e308))
def test_centre_and_radius_enclose_the_interval(lo: float, hi: float) -> None:
    lo, hi = min(lo, hi), max(lo, hi)
    centre, radius = centre_and_radius(Interval(np.array([[lo]]), np.array([[hi]])))
    c, r = Fraction(centre[0, 0]), Fraction(radius[0, 0])
    assert c - r <= Fraction(lo)
    assert c + r >= Fraction(hi)


def test_declared_errors_of_maps_and_constants_widen_the_interval() -> None:
    """u1 + u2 + 1 with coefficients 1 +- .25 in one case, 1 +- (.25, .5) in the other, and the constant 1 +- .5."""
    inputs = Interval(np.array([[-1.0, 1.0]]), np.array([[2.0, 1.0]]))
    sure = dense([[1.0, 1.0]])
    for uncertain, reach in ((sure.uncertain(0.25), 0.75), (sure.uncertain(0.0, dense([[0.25, 0.5]])), 1.0)):
        interval = affine_interval(Affine({}, uncertain, np.array([1.0]), constant_error=0.5), {}, inputs)
        lo, hi = interval.lo[0, 0], interval.hi[0, 0]
        assert lo <= 1.0 - 0.5 - reach + 0.25  # u1 = -1 takes the smaller share
        assert hi >= 4.0 + 0.5 + reach
        assert lo >= 1.0 - 0.5 - 2 * reach - 1e-9
        assert hi <= 4.0 + 0.5 + 2 * reach + 1e-9


def test_underflow_is_paid_for() -> None:
    """Products below 2^-1074 vanish; later layers make them large again."""
    model = layered([([[1e-200]], [0.0]), ([[1e-200]], [0.0]), ([[1e200]], [0.0])], ([[1e200]], [0.0]))
    bounds = interval_bounds(model, Interval.of_boxes(Box.between(np.array([1.0]), np.array([2.0]))))
    z, x, _ = ExactModel(model).evaluate([2.0])
    assert escapes(bounds, z, x) == []


OVERFLOWING = layered([([[1e308, 1e308, -1e308, -1e308]], [0.0])], ([[1.0]], [0.0]))


def holds(interval: Interval, value: float) -> bool:
    """Whether nothing says that the value is outside; NaN says nothing."""
    return not (interval.lo[0, 0] > value or interval.hi[0, 0] < value)


def test_overflowing_sums_do_not_give_false_bounds() -> None:
    """z = 1e308 (u1 + u2 - u3 - u4) is 0 at u = 1, whatever overflows on the way."""
    ones = Box.between(np.ones(4), np.ones(4))
    with np.errstate(all="ignore"):
        bounds = interval_bounds(OVERFLOWING, Interval.of_boxes(ones))
    assert holds(bounds.z[0], 0.0)


def test_a_model_without_states_has_no_bounds() -> None:
    model = ImplicitModel((), (), Affine({}, dense(np.eye(2)), np.zeros(2)), (2,), (2,))
    assert interval_bounds(model, Interval.of_boxes(random_box(np.random.default_rng(0), 2))).z == {}


@settings(deadline=None, max_examples=50)
@given(seed=seeds, m=st.integers(1, 3), n=st.integers(1, 4), r=st.integers(0, 9))
def test_proved_sides_are_put_in_one_by_one(seed: int, m: int, n: int, r: int) -> None:
    """A value may be named several times, from both sides; NaN changes nothing, nor do the arrays of the caller."""
    rng = np.random.default_rng(seed)
    before = Interval(-rng.random((m, n)), rng.random((m, n)))
    states, signs = rng.integers(0, n, r), rng.choice([-1.0, 1.0], r)
    lower = rng.choice([np.nan, -np.inf, 0.5, -0.5, -0.1, -2.0], (m, r))
    wanted = Interval(before.lo.copy(), before.hi.copy())
    after = before.tightened(states, signs, lower)
    np.testing.assert_array_equal(before.lo, wanted.lo)
    np.testing.assert_array_equal(before.hi, wanted.hi)
    for box in range(m):
        for state, sign, value in zip(states, signs, lower[box], strict=True):
            if sign > 0 and value > wanted.lo[box, state]:
                wanted.lo[box, state] = value
            elif sign < 0 and -value < wanted.hi[box, state]:
                wanted.hi[box, state] = -value
    np.testing.assert_array_equal(after.lo, wanted.lo)
    np.testing.assert_array_equal(after.hi, wanted.hi)
    if (signs > 0).all():
        one_sign = before.tightened(states, 1.0, lower)
        np.testing.assert_array_equal(one_sign.lo, after.lo)
