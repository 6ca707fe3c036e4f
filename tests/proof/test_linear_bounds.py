"""Backward linear bounds: sound in rational arithmetic, as tight as a plain CROWN, exact where nothing bends."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.proof import crown as backward
from idl_audit.proof import linear_bounds
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search.relaxation import TriangleRelaxation
from idl_audit.values.box import Box
from tests.proof.test_intervals import OVERFLOWING, escapes
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    all_corners,
    exact,
    graph,
    layered,
    leaky_relu,
    long_double,
    pool_of_doubled,
    pooled_network,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, cancelling=st.booleans(), depth=st.integers(1, 4))
def test_exact_states_and_outputs_lie_inside_the_bounds(seed: int, cancelling: bool, depth: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3,) * depth, activations=list(KINKED), cancelling=cancelling)
    box = random_box(rng, 2)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    least = output_lower_bounds(model, inputs, bounds, np.vstack([np.eye(3), -np.eye(3)]))[0]
    exact = ExactModel(model)
    for u in [*all_corners(box), *some_points(rng, box, 4)]:
        z, x, y = exact.evaluate(u)
        assert escapes(bounds, z, x) == []
        assert all(least[i] <= y[i] <= -least[3 + i] for i in range(3))


@settings(deadline=None, max_examples=25)
@given(seed=seeds, cancelling=st.booleans())
def test_output_bounds_are_below_the_exact_minimum(seed: int, cancelling: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3), activations=list(KINKED), cancelling=cancelling)
    box = random_box(rng, 2)
    inputs = Interval.of_boxes(box)
    functionals = rng.normal(size=(2, 3))
    found = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), functionals)[0]
    exact = ExactModel(model)
    for value, functional in zip(found, functionals, strict=True):
        assert value <= exact.minimum(functional, box)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, spread=st.sampled_from([1.0, 30.0, 1000.0]), scaled=st.booleans())
def test_states_and_outputs_of_smooth_networks_lie_inside_the_bounds(seed: int, spread: float, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 3), activations=["tanh", "sigmoid", "relu"])
    model = rescale(model) if scaled else model
    box = random_box(rng, 3)
    inputs = Interval.of_boxes(Box.between(box.lo * spread, box.hi * spread))
    bounds = backward_state_bounds(model, inputs)
    z, x, y = long_double(model, some_points(rng, Box.between(inputs.lo[0], inputs.hi[0]), 100))
    assert escapes(bounds, z, x) == []
    functionals = rng.normal(size=(4, 3))
    found = output_lower_bounds(model, inputs, bounds, functionals)[0]
    assert (found <= (y @ functionals.T.astype(np.longdouble)).min(axis=0)).all()


@settings(deadline=None, max_examples=15)
@given(seed=seeds, bias=st.sampled_from([-3.0, 0.0, 3.0]))
def test_states_and_outputs_of_pooled_networks_lie_inside_the_bounds(seed: int, bias: float) -> None:
    rng = np.random.default_rng(seed)
    model = pooled_network(rng, bias=bias)
    box = random_box(rng, 16, radius=0.2)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    z, x, y = long_double(model, some_points(rng, box, 60))
    assert escapes(bounds, z, x) == []
    assert (output_lower_bounds(model, inputs, bounds, np.eye(3))[0] <= y.min(axis=0)).all()


@settings(deadline=None, max_examples=25)
@given(seed=seeds, depth=st.integers(2, 4))
def test_backward_bounds_are_never_looser_than_intervals(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4,) * depth, activations=[*KINKED, *SMOOTH])
    inputs = Interval.of_boxes(random_box(rng, 3))
    loose, tight = interval_bounds(model, inputs), backward_state_bounds(model, inputs)
    for k in range(depth):
        slack = 1e-12 * (1 + np.abs(loose.z[k].lo) + np.abs(loose.z[k].hi))
        assert (tight.z[k].lo >= loose.z[k].lo - slack).all()
        assert (tight.z[k].hi <= loose.z[k].hi + slack).all()
        assert (tight.z[k].lo <= tight.z[k].hi).all()


def crown(
    weights: list[np.ndarray],
    biases: list[np.ndarray],
    bounds: list[tuple[np.ndarray, np.ndarray]],
    seed: np.ndarray,
    box: Box,
) -> np.ndarray:
    """Return CROWN's lower bounds of seed . (W_n relu(... relu(W_1 u + b_1)) + b_n), adaptive slopes."""
    a, const = seed, np.zeros(len(seed))
    for layer in range(len(weights) - 1, -1, -1):
        const = const + a @ biases[layer]
        a = a @ weights[layer]
        if layer:
            lo, hi = bounds[layer - 1]
            unstable = (lo < 0) & (hi > 0)
            upper = np.where(unstable, hi / np.where(unstable, hi - lo, 1.0), (lo >= 0).astype(float))
            cut = np.where(unstable, -upper * lo, 0.0)
            lower = np.where(unstable, (hi > -lo).astype(float), (lo >= 0).astype(float))
            const = const + np.minimum(a, 0) @ cut
            a = np.maximum(a, 0) * lower + np.minimum(a, 0) * upper
    return np.asarray(const + np.minimum(a * box.lo, a * box.hi).sum(axis=1))


@settings(deadline=None, max_examples=30)
@given(seed=seeds, depth=st.integers(1, 4), width=st.integers(1, 12), radius=st.floats(1e-3, 1.0))
def test_bounds_of_dense_relu_networks_are_as_tight_as_crown(seed: int, depth: int, width: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = [3, *[width] * depth, 4]
    weights = [rng.normal(size=(n, m)) / np.sqrt(m) for m, n in itertools.pairwise(sizes)]
    biases = [rng.normal(size=n) * 0.2 for n in sizes[1:]]
    model = layered(list(zip(weights[:-1], biases[:-1], strict=True)), (weights[-1], biases[-1]))
    box = random_box(rng, 3, radius=radius)
    inputs = Interval.of_boxes(box)
    ours = backward_state_bounds(model, inputs)
    plain = interval_bounds(model, inputs)
    known = [(ours.z[depth - 1 - j].lo[0], ours.z[depth - 1 - j].hi[0]) for j in range(depth)]
    for layer in range(depth):
        eye = np.eye(width)
        k = depth - 1 - layer
        for sign, found in ((1.0, known[layer][0]), (-1.0, -known[layer][1])):
            reference = crown(weights[: layer + 1], biases[: layer + 1], known[:layer], sign * eye, box)
            bends = (plain.z[k].lo[0] < 0) & (plain.z[k].hi[0] > 0) & (known[layer][0] < 0) & (known[layer][1] > 0)
            assert (found >= reference - 1e-9)[bends].all()
    functionals = np.vstack([np.eye(4), rng.normal(size=(3, 4))])
    found = output_lower_bounds(model, inputs, ours, functionals)[0]
    np.testing.assert_allclose(found, crown(weights, biases, known, functionals, box), atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, activation=st.sampled_from(["relu", "abs", "steep", "negative", "prelu", "identity"]))
def test_bounds_are_exact_where_no_state_bends(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 3), activations=[activation])
    centre = rng.normal(size=2)
    margin = min(float(np.abs(z).min()) for z in model.pre_activations(centre[None]))
    radius = min(1e-3, 1e-3 * margin)
    box = Box.between(centre - radius, centre + radius)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    if any(bounds.unstable(k, block).any() for k, block in enumerate(model.blocks)):
        return
    functional = rng.normal(size=(1, 3))
    truth = ExactModel(model).minimum(functional[0], box)
    found = output_lower_bounds(model, inputs, bounds, functional)[0, 0]
    assert found <= truth
    assert float(truth) - found < 1e-12 * (1 + abs(float(truth)))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 2.5, -0.5, -1.0])
def test_one_state_of_one_input_is_bounded_by_the_line_of_its_hull(alpha: float) -> None:
    """phi on [-1, 3]: the chord side is exact, min of the other side is attained at a vertex."""
    model = layered([([[1.0]], [0.0])], ([[1.0], [-1.0]], [0.0, 0.0]), leaky_relu(alpha))
    box = Box.between(np.array([-1.0]), np.array([3.0]))
    inputs = Interval.of_boxes(box)
    found = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), np.eye(2))[0]
    exact = ExactModel(model)
    for value, functional in zip(found, np.eye(2), strict=True):
        truth = float(exact.minimum(functional, box))
        assert value <= truth
        assert value >= min(truth, -3.0) - 1e-12


def test_known_case_by_hand() -> None:
    """x = relu(u), u in [-1, 3]; y = x - u: slope 1 below (3 > 1), hence y >= 0; u - x >= 3/4 (u + ...) gives -3/4.

    u - x: x <= 3/4 u + 3/4, so u - x >= u/4 - 3/4 >= -1 at u = -1.
    """
    model = layered([([[1.0]], [0.0])], ([[1.0], [-1.0]], [0.0, 0.0]), skip=[[-1.0], [1.0]])
    inputs = Interval.of_boxes(Box.between(np.array([-1.0]), np.array([3.0])))
    found = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), np.eye(2))[0]
    np.testing.assert_allclose(found, [0.0, -1.0], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, m=st.integers(2, 5))
def test_a_batch_of_boxes_is_sound_for_each_and_bounds_as_one_box_does(seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4), activations=[*KINKED, *SMOOTH], skips=False)
    boxes = [random_box(rng, 3) for _ in range(m)]
    together = backward_state_bounds(model, Interval.of_boxes(boxes))
    functionals = rng.normal(size=(2, 3))
    found = output_lower_bounds(model, Interval.of_boxes(boxes), together, functionals)
    for j, box in enumerate(boxes):
        alone = backward_state_bounds(model, Interval.of_boxes(box))
        for k in range(2):
            slack = 1e-12 * (1 + np.abs(alone.z[k].lo[0]) + np.abs(alone.z[k].hi[0]))
            assert (together.z[k].lo[j] >= alone.z[k].lo[0] - slack).all()
            assert (together.z[k].hi[j] <= alone.z[k].hi[0] + slack).all()
            bends = alone.unstable(k, model.blocks[k])[0]
            np.testing.assert_allclose(together.z[k].lo[j][bends], alone.z[k].lo[0][bends], rtol=1e-9, atol=1e-12)
        single = output_lower_bounds(model, Interval.of_boxes(box), alone, functionals)
        assert (found[j] >= single[0] - 1e-9 * (1 + np.abs(single[0]))).all()
        y = long_double(model, some_points(rng, box, 20))[2]
        assert (found[j] <= (y @ functionals.T.astype(np.longdouble)).min(axis=0)).all()


@settings(deadline=None, max_examples=20)
@given(seed=seeds, cancelling=st.booleans(), at_once=st.sampled_from([8, 40, 2**18]))
def test_exact_states_lie_inside_the_bounds_of_each_of_many_boxes(seed: int, cancelling: bool, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 4, 3), activations=list(KINKED), cancelling=cancelling)
    boxes = [random_box(rng, 2, radius=10.0 ** rng.uniform(-3, 0)) for _ in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_bounds, "ROWS_AT_ONCE", at_once)
        linear_bounds._cost_of_row.cache_clear()
        bounds = backward_state_bounds(model, Interval.of_boxes(boxes))
    exact = ExactModel(model)
    for j, box in enumerate(boxes):
        own = bounds.of_boxes(np.array([j]))
        for u in [*all_corners(box), *some_points(rng, box, 3)]:
            z, x, _ = exact.evaluate(u)
            assert escapes(own, z, x) == []


@pytest.mark.parametrize("rows", [1, 7, 20])
def test_passes_in_several_parts_give_the_same_bounds(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    model = random_network(rng, p=3, widths=(5, 6, 5), activations=["relu", "tanh"])
    inputs = Interval.of_boxes([random_box(rng, 3, radius=0.5), random_box(rng, 3, radius=0.5)])
    whole = backward_state_bounds(model, inputs)
    monkeypatch.setattr(backward, "NUMBERS_AT_ONCE", rows * 12)
    parts = backward_state_bounds(model, inputs)
    for k in range(3):
        np.testing.assert_allclose(parts.z[k].lo, whole.z[k].lo, rtol=1e-12)
        np.testing.assert_allclose(parts.z[k].hi, whole.z[k].hi, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4, 9, 16, 49])
def test_the_maximum_of_a_window_keeps_its_enclosure(n: int) -> None:
    rng = np.random.default_rng(n)
    model = pool_of_doubled(n)
    box = random_box(rng, n, radius=0.5)
    bounds = backward_state_bounds(model, Interval.of_boxes(box))
    np.testing.assert_allclose(bounds.x[0].lo[0, 0], 2 * box.lo.max(), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(bounds.x[0].hi[0, 0], 2 * box.hi.max(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "identity", "tanh", "sigmoid"])
def test_every_activation_is_bounded_on_wide_narrow_and_degenerate_intervals(name: str) -> None:
    phi = ACTIVATIONS[name]()
    rng = np.random.default_rng(1)
    model = layered([(np.eye(2), np.zeros(2)), (rng.normal(size=(2, 2)), rng.normal(size=2))], (np.eye(2), [0, 0]), phi)
    for width in (0.0, 1e-300, 1e-15, 1e-6, 1.0, 1e3, 1e6):
        for middle in (0.0, 1e-12, 1.0, -1.0, 40.0, -40.0):
            box = Box.between(np.full(2, middle - width), np.full(2, middle + width))
            inputs = Interval.of_boxes(box)
            bounds = backward_state_bounds(model, inputs)
            z, x, y = long_double(model, some_points(rng, box, 20))
            assert escapes(bounds, z, x) == []
            found = output_lower_bounds(model, inputs, bounds, np.vstack([np.eye(2), -np.eye(2)]))[0]
            assert (found[:2] <= y.min(axis=0)).all()
            assert (-found[2:] >= y.max(axis=0)).all()


@settings(deadline=None, max_examples=30)
@given(seed=seeds, cancelling=st.booleans())
def test_bounds_hold_for_the_weights_in_the_file_where_layers_were_multiplied_out(seed: int, cancelling: bool) -> None:
    """relu(W2 (s (W1 u + b1) + t) + b2), then W4 (W3 x + b3): what is multiplied out in float64 is rounded."""
    rng = np.random.default_rng(seed)
    constants = {
        "a": rng.normal(size=(2, 5)),
        "b": rng.normal(size=5),
        "s": rng.normal(size=5),
        "t": rng.normal(size=5),
        "c": rng.normal(size=(5, 4)),
        "d": rng.normal(size=4),
        "e": rng.normal(size=(4, 5)),
        "f": rng.normal(size=5),
        "g": rng.normal(size=(5, 2)),
        "h": rng.normal(size=2),
    }
    if cancelling:
        constants["c"][4] = -(constants["a"] * constants["s"])[0, :4] @ constants["c"][:4] / constants["a"][0, 4]
        constants["c"][4] /= constants["s"][4]
        constants["g"] *= 1e8
        constants["g"][4] = -(constants["e"][0, :4] @ constants["g"][:4]) / constants["e"][0, 4]
    nodes = [
        ("Gemm", ("u", "a", "b"), "1", {}),
        ("Mul", ("1", "s"), "2", {}),
        ("Add", ("2", "t"), "3", {}),
        ("Gemm", ("3", "c", "d"), "4", {}),
        ("Relu", ("4",), "5", {}),
        ("Gemm", ("5", "e", "f"), "6", {}),
        ("Gemm", ("6", "g", "h"), "y", {}),
    ]
    model = build_implicit(graph(nodes, constants, (1, 2)))
    w = {name: exact(value) for name, value in constants.items()}

    def network(u: np.ndarray) -> np.ndarray:
        inner = ((exact(u) @ w["a"] + w["b"]) * w["s"] + w["t"]) @ w["c"] + w["d"]
        return (np.maximum(inner, Fraction(0)) @ w["e"] + w["f"]) @ w["g"] + w["h"]

    box = random_box(rng, 2)
    inputs = Interval.of_boxes(box)
    functionals = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, -1.0]])
    plain = interval_bounds(model, inputs)
    tight = backward_state_bounds(model, inputs)
    found = [output_lower_bounds(model, inputs, bounds, functionals)[0] for bounds in (plain, tight)]
    lp = TriangleRelaxation(model, inputs, tight)
    found.append(np.array([lp.minimise(row).lower for row in functionals]))
    for u in [*all_corners(box), *some_points(rng, box, 3)]:
        values = exact(functionals) @ network(u)
        for lower in found:
            assert all(low <= value for low, value in zip(lower, values, strict=True))


def vanishing(*, float32: bool) -> ImplicitModel:
    """y_0 = 1e-80 - 1e-76 u in exact arithmetic, through states of 1e300; multipliers vanish below 2^-1074."""
    weights = [1e38] * 8 + [1e-38] * 9 if float32 else [1e160, 1e144, 1e-170, 1e-200]
    last = -1e-38 if float32 else -1e-10
    return layered([([[w]], [0.0]) for w in weights], ([[last], [0.0]], [1e-80, 0.0]))


@pytest.mark.parametrize("float32", [True, False])
def test_multipliers_that_underflow_do_not_give_false_bounds(float32: bool) -> None:
    model = vanishing(float32=float32)
    box = Box.between(np.array([1.0]), np.array([2.0]))
    inputs = Interval.of_boxes(box)
    found = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), np.array([[1.0, -1.0]]))[0, 0]
    truth = ExactModel(model).minimum([1.0, -1.0], box)
    assert truth < 0
    assert found <= truth


def test_overflowing_sums_give_no_false_output_bound() -> None:
    ones = Box.between(np.ones(4), np.ones(4))
    with np.errstate(all="ignore"):
        bounds = backward_state_bounds(OVERFLOWING, Interval.of_boxes(ones))
        found = output_lower_bounds(OVERFLOWING, Interval.of_boxes(ones), bounds, np.eye(1))
    assert not found[0, 0] > 0.0
