"""What underflows between the steps of a map is multiplied by the later ones: every bound must pay for it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock, dense
from idl_audit.implicit.upward import pulled, pushed
from idl_audit.proof.bounds import Interval
from idl_audit.proof.crown import Crown, Targets
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.forms import Form, affine_form
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.proof.linear_bounds import line_multipliers

NOTHING = np.zeros(0, np.int64)


def factors(left: float, core: float, right: float) -> Reindexed:
    """Return a map of one entry, left core right."""
    ends = [Selection.diagonal(np.array([weight])) for weight in (left, right)]
    return Reindexed(left=ends[0], core=Dense(matrix=np.array([[core]])), right=ends[1])


def product(*numbers: float) -> Fraction:
    """Return an exact product."""
    result = Fraction(1)
    for number in numbers:
        result *= Fraction(number)
    return result


@pytest.mark.parametrize("x", [1.0, 3.3e-220, 9.9e-284, 2.0**-1074])
@pytest.mark.parametrize("weights", [(1e100, 1e38, 1e-60), (1e250, 1e38, 1e-200), (1.0, 1e38, 1e-37), (1e-3, 2.0, 3.0)])
def test_intervals_and_forms_hold_what_is_lost_on_the_way(x: float, weights: tuple[float, float, float]) -> None:
    row, point = Affine({}, factors(*weights), np.zeros(1)), Interval(np.full((1, 1), x), np.full((1, 1), x))
    exact = product(*weights, x)
    found = affine_interval(row, {}, point)
    assert Fraction(float(found.lo[0, 0])) <= exact <= Fraction(float(found.hi[0, 0]))
    form = affine_form(row, {}, Form.of_inputs(point, NOTHING))
    reach = Fraction(float(form.error[0, 0]))
    assert abs(Fraction(float(form.terms[0, 0, 0])) - exact) <= reach


@pytest.mark.parametrize("seed", [1.0, 3.3e-220, 1e-300])
@pytest.mark.parametrize("weights", [(1e-60, 1e38, 1e100), (1e-50, 1e-50, 1e100), (1e-200, 1e38, 1e250)])
def test_backward_bounds_are_never_above_what_is_lost_on_the_way(
    seed: float, weights: tuple[float, float, float]
) -> None:
    u = -2.0
    inputs = Interval(np.full((1, 1), u), np.full((1, 1), u))
    for sign in (1.0, -1.0):
        model = ImplicitModel((), (), Affine({}, factors(*weights), np.zeros(1)), (1,), (1,))
        rows = np.array([[sign * seed]])
        exact = product(sign * seed, *weights, u)
        by_vertices = lower_bound(
            model, inputs, interval_bounds(model, inputs), Functionals.of_outputs(model, rows), lambda k, v: v
        )
        by_lines = Crown(model, inputs).lower_bound(interval_bounds(model, inputs), Targets.of_outputs(model, rows))
        assert Fraction(float(by_vertices[0, 0])) <= exact
        assert Fraction(float(by_lines[0, 0])) <= exact


def test_a_small_error_meets_a_large_multiplier() -> None:
    """y = relu(u) (1 + 2^-54 - 1): the products cancel but for one that rounding loses, and seeds are large."""
    block = StateBlock("b", "Gemm", ACTIVATIONS["relu"](), (1,))
    column = np.array([[1.0], [2.0**-54], [-1.0]])
    model = ImplicitModel(
        (block,),
        (Affine({}, Dense(matrix=np.eye(1)), np.zeros(1)),),
        Affine({0: Dense(matrix=column)}, None, np.zeros(3)),
        (1,),
        (3,),
    )
    u = 2.0**-1040
    inputs = Interval(np.full((1, 1), u), np.full((1, 1), u))
    bounds = interval_bounds(model, inputs)
    rows = np.full((1, 3), -(2.0**900))
    exact = -(Fraction(2) ** 900) * Fraction(2) ** -54 * Fraction(u)
    found = Crown(model, inputs).lower_bound(bounds, Targets.of_outputs(model, rows))
    other = lower_bound(model, inputs, bounds, Functionals.of_outputs(model, rows), line_multipliers(model, bounds))
    assert Fraction(float(found[0, 0])) <= exact
    assert Fraction(float(other[0, 0])) <= exact


@pytest.mark.parametrize("n", [100, 3000])
def test_long_rows_of_what_is_uncertain_are_summed_with_their_own_rounding(n: int) -> None:
    slack: LinearMap = Dense(matrix=np.full((1, n), 1 / 3))
    nothing = Sparse(matrix=Dense(matrix=np.zeros((1, n))).to_sparse(), slack=slack)
    row, box = Affine({}, nothing, np.zeros(1)), Interval(np.zeros((1, n)), np.ones((1, n)))
    exact = n * Fraction(1 / 3)
    assert Fraction(float(affine_interval(row, {}, box).hi[0, 0])) >= exact
    form = affine_form(row, {}, Form.of_inputs(box, NOTHING))
    assert Fraction(float(form.terms[0, 0, 0])) + Fraction(float(form.error[0, 0])) >= exact


def test_an_output_that_reads_nothing_is_bounded_over_many_boxes() -> None:
    model = ImplicitModel((), (), Affine({}, None, np.array([2.0])), (1,), (1,))
    inputs = Interval(np.zeros((3, 1)), np.ones((3, 1)))
    found = Crown(model, inputs).lower_bound(interval_bounds(model, inputs), Targets.of_outputs(model, np.eye(1)))
    np.testing.assert_allclose(found, 2.0)


def test_the_recursion_of_sensitivities_and_dense_entries_pay_as_well() -> None:
    x = np.array([[1e-280]])
    forth, back = factors(1e100, 1e38, 1e-60), factors(1e-60, 1e38, 1e100)
    assert Fraction(float(pushed(forth, x)[0, 0])) >= product(1e100, 1e38, 1e-60, 1e-280)
    assert Fraction(float(pulled(back, x)[0, 0])) >= product(1e-60, 1e38, 1e100, 1e-280)
    entries = dense(factors(0.1, 0.3, 0.7))
    assert entries.error is not None
    off = abs(Fraction(float(entries.matrix[0, 0])) - product(0.1, 0.3, 0.7))
    assert off <= Fraction(float(entries.error[0, 0]))
