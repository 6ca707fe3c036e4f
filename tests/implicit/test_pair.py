"""Two models as one: the same numbers in both forms, equal parts shared, bounds that hold and are tight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.alignment import aligned
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.pair import FORMS, equal_outputs, has_differences, paired_model, why_not_comparable
from idl_audit.implicit.scaling import Scale, rescale, scaled_by
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.errors import OptionError
from tests.shared.cyclic_models import plain
from tests.shared.pairs import activation, chain, layered, moved, points_of

SMOOTH = ("relu", "tanh", "leaky_relu", "sigmoid", "abs", "gelu")


def farthest(model, lo, hi):
    """Return proved bounds of |y - y'|, (q,)."""
    q = model.n_outputs // 3
    inputs = Interval(lo[None], hi[None])
    unit = np.eye(3 * q)[2 * q :]
    bounds = backward_state_bounds(model, inputs)
    lower = output_lower_bounds(model, inputs, bounds, np.concatenate([unit, -unit]))[0]
    return -np.minimum(lower[:q], lower[q:])


@given(seed=st.integers(0, 2**32 - 1), skip=st.booleans())
@settings(max_examples=40, deadline=None)
def test_both_forms_are_the_two_models_and_their_bounds_hold(seed, skip):
    rng = np.random.default_rng(seed)
    kinds = tuple(str(kind) for kind in rng.choice(SMOOTH, size=int(rng.integers(1, 4))))
    sizes = (3, *(int(n) for n in rng.integers(1, 6, len(kinds))), 2)
    first = layered(rng, sizes, kinds, skip=skip)
    near = float(rng.choice([0.0, 1e-7, 1e-2, 1.0]))
    second = moved(first, lambda m: m + near * rng.normal(size=m.shape) * (rng.random(m.shape) < 0.6))
    if rng.random() < 0.3:  # another activation in one place: its blocks stand apart
        second = replace(
            second, blocks=(*second.blocks[:-1], replace(second.blocks[-1], activation=activation("elu", 1)))
        )
    lo = rng.normal(size=3)
    hi = lo + float(rng.choice([0.0, 0.1, 2.0]))
    points = points_of(rng, lo, hi, 60)
    y, z = first(points), second(points)
    expected = np.hstack([y, z, y - z])
    for form in FORMS:
        model = paired_model(first, second, form)
        np.testing.assert_allclose(model(points), expected, rtol=0, atol=1e-10 * (1 + np.abs(expected).max()))
        assert (farthest(model, lo, hi) >= np.abs(y - z).max(axis=0) - 1e-13 * (1 + np.abs(y).max())).all()
        states = interval_bounds(model, Interval(lo[None], hi[None]))
        for k, x in enumerate(model.state(points)):
            assert (states.x[k].lo - 1e-12 <= x).all()
            assert (x <= states.x[k].hi + 1e-12).all()


@pytest.mark.parametrize("narrow", [(3, 2, 4, 2), (3, 5, 1, 2), (3, 2, 1, 2)])
def test_networks_with_layers_of_other_widths_have_both_forms(narrow):
    """As where a network was pruned: maps of such layers cannot be subtracted, and what follows may pair up again."""
    rng = np.random.default_rng(0)
    first, second = (layered(rng, sizes, ("relu", "tanh"), skip=True) for sizes in ((3, 5, 4, 2), narrow))
    lo, hi = np.zeros(3), np.full(3, 0.25)
    points = points_of(rng, lo, hi, 60)
    y, z = first(points), second(points)
    for form in FORMS:
        model = paired_model(first, second, form)
        np.testing.assert_allclose(model(points), np.hstack([y, z, y - z]), rtol=0, atol=1e-12)
        assert (farthest(model, lo, hi) >= np.abs(y - z).max(axis=0)).all()
        assert not equal_outputs(model).any()


def test_a_model_and_itself_have_no_difference():
    first = layered(np.random.default_rng(0), (3, 4, 4, 2), ("relu", "tanh"), skip=True)
    model = paired_model(first, moved(first, np.copy), "differences")
    assert equal_outputs(model).all()
    assert model.n_states == first.n_states, "equal states are there once"
    assert not equal_outputs(paired_model(first, moved(first, np.copy), "apart")).any()


def in_other_units(model, rng):
    """Return an equal model, its states divided by powers of two: any of homogeneous ones, one a block of others."""
    exponents = {}
    for k, block in enumerate(model.blocks):
        own = rng.integers(-6, 7, block.size)
        exponents[k] = own if block.activation.positively_homogeneous else np.full_like(own, own[0])
    return scaled_by(model, Scale(exponents))


@given(seed=st.integers(0, 2**32 - 1), skip=st.booleans())
@settings(max_examples=8, deadline=None)
def test_states_in_other_units_pair_up(seed, skip):
    """As `convert` writes them: the pair is the one without a scale, coefficient by coefficient."""
    rng = np.random.default_rng(seed)
    kinds = tuple(str(kind) for kind in rng.choice(SMOOTH, size=int(rng.integers(1, 4))))
    first = layered(rng, (3, *(int(n) for n in rng.integers(1, 6, len(kinds))), 2), kinds, skip=skip)
    for other in (rescale(first), in_other_units(first, rng)):
        for one, two in ((first, other), (other, first), (other, rescale(first, kappa=0.1))):
            assert equal_outputs(paired_model(one, two, "differences")).all()
    near = moved(first, lambda m: m * (1 + 1e-3 * rng.normal(size=m.shape)))
    lo = rng.normal(size=3)
    hi = lo + 0.1
    asked, other = (
        paired_model(first, near, "differences"),
        paired_model(first, in_other_units(near, rng), "differences"),
    )
    np.testing.assert_array_equal(farthest(other, lo, hi), farthest(asked, lo, hi))
    points = points_of(rng, lo, hi, 30)
    np.testing.assert_allclose(other(points), asked(points), rtol=0, atol=1e-12 * (1 + np.abs(asked(points)).max()))


def test_what_constants_may_be_off_by_changes_units_with_their_states():
    """The second model's states are 2^-9 times the first's, its constants others within their error."""
    rng, unit, error = np.random.default_rng(8), 2.0**-9, 2.0**-20
    weights, biases = [rng.normal(size=size) for size in ((4, 3), (2, 4))], [rng.normal(size=4), rng.normal(size=2)]
    first = chain(weights, biases, ("relu",))
    said = chain([weights[0] * unit, weights[1] / unit], [biases[0] * unit, biases[1]], ("relu",))
    said = replace(said, rows=(replace(said.rows[0], constant_error=error),))
    off = error * rng.choice([-1.0, 1.0], 4)
    true = replace(said, rows=(replace(said.rows[0], constant=said.rows[0].constant + off),))
    lo = rng.normal(size=3)
    points = points_of(rng, lo, lo + 0.5, 200)
    apart = np.abs(true(points) - first(points)).max(axis=0)
    assert (apart > 2.0**-14).all()
    for pair in ((first, said), (said, first)):
        assert (farthest(paired_model(*pair, "differences"), lo, lo + 0.5) >= apart).all()
    assert scaled_by(said, Scale({0: np.full(4, -9)})).rows[0].constant_error >= error / unit


def test_units_that_fit_nothing_or_lose_numbers_are_left():
    """Rows that are no power of two apart, rows of zeros, numbers that would leave the range of float64."""
    rng = np.random.default_rng(3)
    first = layered(rng, (3, 4, 2), ("relu",))
    for factor in (1.4, 0.0, np.nextafter(0, 1)):
        own = first.rows[0]
        rows = (replace(own, input=Dense(matrix=factor * own.input.matrix), constant=factor * own.constant),)
        second = replace(first, rows=rows)
        assert aligned(first, second)[1].rows[0].input is second.rows[0].input
        points = points_of(rng, np.zeros(3), np.ones(3), 20)
        y, z = first(points), second(points)
        lower = farthest(paired_model(first, second, "differences"), np.zeros(3), np.ones(3))
        assert (lower >= np.abs(y - z).max(axis=0) - 1e-13).all()


def test_what_only_rounding_may_have_changed_is_not_equal():
    first = layered(np.random.default_rng(0), (3, 4, 2), ("relu",))
    own = first.rows[0]
    unsure = replace(own, input=own.input.uncertain(1e-15))
    other = replace(first, rows=(unsure,))
    for one, two in ((other, other), (first, other), (other, first)):
        model = paired_model(one, two, "differences")
        assert not equal_outputs(model).any()
        assert model.n_states == 2 * first.n_states
    off = replace(first, output=replace(first.output, constant_error=1e-15))
    assert not equal_outputs(paired_model(first, off, "differences")).any()


def test_equal_layers_are_shared_and_only_what_follows_differs():
    """As where the last layers were trained further."""
    rng = np.random.default_rng(1)
    first = layered(rng, (3, 5, 5, 5, 2), ("relu", "softmax", "relu"))
    rows = list(first.rows)
    rows[0] = replace(rows[0], constant=rows[0].constant + 0.01)
    second = replace(first, rows=tuple(rows))
    model = paired_model(first, second, "differences")
    assert [block.size for block in model.blocks] == [10, 5, 5]
    whole = replace(first, output=replace(first.output, constant=np.zeros(2)))
    only = replace(first, output=replace(first.output, constant=np.array([0.0, 0.5])))
    model = paired_model(whole, only, "differences")
    assert model.n_states == first.n_states
    assert equal_outputs(model).tolist() == [True, False]
    assert farthest(model, np.zeros(3), np.ones(3)) == pytest.approx([0.0, 0.5], abs=1e-12)


def test_a_shift_of_one_state_is_exact():
    """y = relu(u), y' = relu(u + 1/4): -1/4 <= y - y' <= 0, and |y - y'| <= 1/4 needs pairs."""
    one, shift = np.eye(1), np.array([0.25])
    first, second = (
        chain([one, one], [0 * shift, 0 * shift], ("relu",)),
        chain([one, one], [shift, 0 * shift], ("relu",)),
    )
    lo, hi = np.array([-1.0]), np.array([1.0])
    assert farthest(paired_model(first, second, "differences"), lo, hi) == pytest.approx([0.25], abs=1e-12)
    assert farthest(paired_model(first, second, "apart"), lo, hi)[0] > 0.5


def test_differences_are_bounded_by_what_differs():
    rng = np.random.default_rng(2)
    first = layered(rng, (4, 20, 20, 3), ("relu", "relu"))
    second = moved(first, lambda m: m.astype(np.float16).astype(np.float64))
    lo, hi = -0.3 * np.ones(4), 0.3 * np.ones(4)
    apart, near = (farthest(paired_model(first, second, form), lo, hi).max() for form in FORMS)
    assert 20 * near < apart


def test_differences_of_float32_weights_are_exact():
    rng = np.random.default_rng(3)
    first = moved(layered(rng, (4, 6, 2), ("relu",)), lambda m: m.astype(np.float32).astype(np.float64))
    second = moved(first, lambda m: (m * 1.001).astype(np.float32).astype(np.float64))
    model = paired_model(first, second, "differences")
    assert all(linear_map.slack is None for linear_map in model.maps)
    third = moved(first, lambda m: m / 3)
    model = paired_model(first, moved(third, lambda m: m * 1e-17), "differences")
    (row,) = model.rows
    assert row.input.slack is not None, "a - 1e-17 b rounds"


def test_loops_stand_apart():
    first = plain([[0.3]], [[1.0]], [[1.0]])
    second = plain([[0.2]], [[1.0]], [[1.0]])
    assert not has_differences(first, second)
    model = paired_model(first, second, "apart")
    assert model.is_well_posed
    u = np.array([[1.0], [-1.0]])
    np.testing.assert_allclose(model(u), np.hstack([first(u), second(u), first(u) - second(u)]), atol=1e-9)
    with pytest.raises(OptionError, match="no states that pair up"):
        paired_model(first, second, "differences")


def test_other_inputs_or_outputs_are_refused():
    rng = np.random.default_rng(0)
    first = layered(rng, (3, 4, 2), ("relu",))
    for sizes, told in (((4, 4, 2), "3 inputs, and the second 4"), ((3, 4, 3), "2 outputs, and the second 3")):
        second = layered(rng, sizes, ("relu",))
        assert told in why_not_comparable(first, second)
        with pytest.raises(OptionError, match="same inputs and outputs"):
            paired_model(first, second, "apart")


def test_input_terms_are_subtracted_too():
    rng = np.random.default_rng(4)
    first = layered(rng, (3, 2, 2), ("relu",), skip=True)
    second = replace(first, output=replace(first.output, input=Dense(matrix=first.output.input.matrix + 1.0)))
    found = farthest(paired_model(first, second, "differences"), np.zeros(3), np.ones(3))
    assert found == pytest.approx([3.0, 3.0])
