"""Zonotopes: no exact value escapes them, and they lose no more than they say; where they stand in for lines."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import COUPLED
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, Reindexed, Selection, Sparse
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof import linear_bounds, zonotopes
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.check import check, proved_stage
from idl_audit.proof.forms import moving
from idl_audit.proof.intervals import interval_bounds, with_interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.proof.proof import trivial
from idl_audit.proof.split_products import product
from idl_audit.proof.symbol_terms import Terms, pushed, summed
from idl_audit.proof.zonotopes import Zonotope, Zonotopes
from idl_audit.values.box import Box
from idl_audit.values.check import unchecked
from idl_audit.values.errors import BudgetError
from idl_audit.values.query import Conjunction, Query
from tests.proof.test_crown import random_convolution, random_images
from tests.proof.test_intervals import OVERFLOWING, escapes
from tests.shared.small_networks import (
    KINKED,
    SMOOTH,
    ExactModel,
    all_corners,
    dense,
    layered,
    long_double,
    random_box,
    random_network,
    some_points,
)

seeds = st.integers(0, 2**32 - 1)


def corners_and_points(rng: np.random.Generator, box: Box) -> Any:
    """Return some corners of a box of many inputs, and points inside."""
    corners = np.where(rng.random((30, box.size)) < 0.5, box.lo, box.hi)
    return np.vstack([corners, some_points(rng, box, 10)])


class Watched(Zonotopes):
    """Zonotopes that remember what they were: of z before an activation uses its rows up, and of x."""

    def __init__(self, model: ImplicitModel, inputs: Interval, more: int = 10**6) -> None:
        """Take as many symbols as inputs move, and some more."""
        super().__init__(model, inputs)
        self._left = moving(inputs).size + more
        self.seen: dict[tuple[str, int], Zonotope] = {}

    def all_bounds(self) -> StateBounds:
        """Return the bounds of all blocks by intervals and zonotopes."""
        bounds = StateBounds()
        for k in self._model.evaluation_order:
            bounds = self.bounded(k, with_interval(self._model, k, bounds, self._box))
            self.seen |= {("z", k): copied(self._z[k])} | {("x", j): copied(x) for j, x in self._x.items()}
        assert self._inputs is not None
        self.seen["u", zonotopes.INPUT] = self._inputs
        return bounds


def copied(one: Zonotope) -> Zonotope:
    groups = {name: Terms(terms.place, terms.rows.copy()) for name, terms in one.groups.items()}
    return Zonotope(one.centre, one.error, one.norm, one.reach, groups)


def fraction(value: Any) -> Fraction:
    return Fraction(float(value))


class Symbols:
    """The values that symbols take at one input, found where they were made, exactly."""

    def __init__(self) -> None:
        self.of: dict[tuple[tuple[int, int], int], Fraction] = {}

    def rest(self, zonotope: Zonotope, i: int, value: Fraction, *, new: int | None) -> Fraction:
        """Return what of a value its known symbols leave; one that is new takes what it may."""
        left, own = value - fraction(zonotope.centre[i]), None
        for name, terms in zonotope.groups.items():
            if terms.place[i] < 0:
                continue
            row = terms.rows[terms.place[i]]
            for j in np.flatnonzero(row):
                if (name, int(j)) in self.of:
                    left -= fraction(row[j]) * self.of[name, int(j)]
                else:
                    assert name[0] == new, "a value has a symbol of values that come later"
                    assert own is None, "a value has two symbols of its own"
                    own = name, int(j), fraction(row[j])
        if own is not None:
            taken = max(Fraction(-1), min(Fraction(1), left / own[2]))
            self.of[own[0], own[1]], left = taken, left - taken * own[2]
        return left

    def check(self, zonotope: Zonotope, values: Any, *, new: int | None = None) -> None:
        """Assert that values lie in a zonotope: the rest of each within its error, and all within the norm."""
        rests = [self.rest(zonotope, i, Fraction(value), new=new) for i, value in enumerate(values)]
        wanted = np.isfinite(zonotope.reach)
        assert all(abs(rest) <= fraction(e) for rest, e, w in zip(rests, zonotope.error, wanted, strict=True) if w)
        squares = sum((rest * rest for rest, w in zip(rests, wanted, strict=True) if w), start=Fraction(0))
        assert not np.isfinite(zonotope.norm) or squares <= fraction(zonotope.norm) ** 2
        sums = np.sum([terms.sums for terms in zonotope.groups.values()], axis=0, initial=0.0)
        assert (sums * (1 - 1e-12) <= zonotope.reach).all()


@settings(deadline=None, max_examples=40)
@given(seed=seeds, cancelling=st.booleans(), depth=st.integers(1, 4), more=st.sampled_from([0, 1, 3, 100]))
def test_exact_states_lie_in_their_zonotopes(seed: int, cancelling: bool, depth: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3,) * depth, activations=list(KINKED), cancelling=cancelling)
    box = random_box(rng, 2)
    watched = Watched(model, Interval.of_boxes(box), more)
    bounds = watched.all_bounds()
    exact = ExactModel(model)
    for u in [*all_corners(box), *some_points(rng, box, 4)]:
        z, x, _ = exact.evaluate(u)
        symbols = Symbols()
        symbols.check(watched.seen["u", zonotopes.INPUT], [Fraction(float(v)) for v in u], new=zonotopes.INPUT)
        for k in model.evaluation_order:
            symbols.check(watched.seen["z", k], z[k])
            if ("x", k) in watched.seen:
                symbols.check(watched.seen["x", k], x[k], new=k)
        assert escapes(bounds, z, x) == []


@settings(deadline=None, max_examples=20)
@given(seed=seeds, spread=st.sampled_from([1e-6, 1.0, 30.0, 1000.0]))
def test_states_of_smooth_networks_lie_inside_the_bounds(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4, 3), activations=[*sorted(set(SMOOTH) - COUPLED), "relu"])
    box = random_box(rng, 3)
    box = Box.between(box.centre - (box.hi - box.centre) * spread, box.centre + (box.hi - box.centre) * spread)
    points = np.clip(some_points(rng, box, 100), box.lo, box.hi)
    z, x, _ = long_double(model, points)
    assert escapes(Watched(model, Interval.of_boxes(box)).all_bounds(), z, x) == []


@settings(deadline=None, max_examples=25)
@given(seed=seeds, rank=st.integers(1, 2), together=st.sampled_from([1, 3, 192]))
def test_images_of_every_kind_stay_inside_and_are_no_looser_than_intervals(seed: int, rank: int, together: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_images(rng, rank, 3)
    box = random_box(rng, model.n_inputs)
    inputs = Interval.of_boxes(box)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zonotopes, "TOGETHER", together)
        bounds = Watched(model, inputs).all_bounds()
    plain = interval_bounds(model, inputs)
    z, x, _ = long_double(model, corners_and_points(rng, box))
    assert escapes(bounds, z, x) == []
    for k in model.evaluation_order:
        slack = 1e-12 * (1 + plain.z[k].largest)  # other intervals of x, other roundings
        assert (bounds.z[k].lo >= plain.z[k].lo - slack).all()
        assert (bounds.z[k].hi <= plain.z[k].hi + slack).all()


def test_a_small_case_by_hand() -> None:
    """z = (relu(u) + relu(-u)) / 2 over [-1, 1] lies in [0, 1/2]; intervals say [0, 1]."""
    model = layered([([[1.0], [-1.0]], [0.0, 0.0]), ([[0.5, 0.5]], [0.0])], ([[1.0]], [0.0]))
    bounds = Watched(model, Interval(np.full((1, 1), -1.0), np.ones((1, 1)))).all_bounds()
    # both bend: u/2 + 1/4 + t/4 and -u/2 + 1/4 + s/4, whose half sum is 1/4 + t/8 + s/8
    assert bounds.z[0].lo[0, 0] == pytest.approx(0.0, abs=1e-12)
    assert bounds.z[0].hi[0, 0] == pytest.approx(0.5)
    assert interval_bounds(model, Interval(np.full((1, 1), -1.0), np.ones((1, 1)))).z[0].hi[0, 0] == pytest.approx(1.0)


def test_where_nothing_bends_they_are_the_affine_map_of_the_box() -> None:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(6, n)), np.full(6, 60.0 * 6**i)) for i, n in enumerate((4, 6, 6))]
    model = layered(layers, (np.eye(6), np.zeros(6)))
    box = Box.around(np.zeros(4), 0.1)
    bounds = Watched(model, Interval.of_boxes(box)).all_bounds()
    slopes = layers[1][0] @ layers[0][0]
    assert all((bounds.z[k].lo > 0).all() for k in range(3))
    np.testing.assert_allclose(bounds.z[1].width[0], 0.2 * np.abs(slopes).sum(axis=1), rtol=1e-9)


def test_symbols_are_never_worse_than_errors() -> None:
    model, box = images_and_box(2)
    inputs = Interval.of_boxes(box)
    few, many = (Watched(model, inputs, more).all_bounds() for more in (0, 1000))
    widths = [sum(float(bounds.z[k].width.sum()) for k in range(len(model.blocks))) for bounds in (few, many)]
    assert widths[1] < widths[0]


def test_what_overflows_says_nothing() -> None:
    inputs = Interval(np.full((1, OVERFLOWING.n_inputs), -1.0), np.ones((1, OVERFLOWING.n_inputs)))
    with np.errstate(over="ignore", invalid="ignore"):
        bounds, plain = Watched(OVERFLOWING, inputs).all_bounds(), interval_bounds(OVERFLOWING, inputs)
    for k, z in bounds.z.items():
        assert not np.isnan(z.lo).any()
        assert not np.isnan(z.hi).any()
        assert (z.lo >= plain.z[k].lo).all()


def test_rounding_grows_by_spectral_norms() -> None:
    """Twenty orthogonal maps with rows of many small numbers: |W| would multiply errors by about 6 each."""
    rng = np.random.default_rng(2)
    turns = [np.linalg.qr(rng.normal(size=(64, 64)))[0] for _ in range(20)]
    model = layered([(turn, np.full(64, 30.0)) for turn in turns], (np.eye(64), np.zeros(64)))
    watched = Watched(model, Interval.of_boxes(Box.around(np.zeros(64), 1e-6)))
    watched.all_bounds()
    last = watched.seen["z", 0]
    assert last.error.max() <= last.norm * (1 + 1e-12) < 1e-6


# --- terms -----------------------------------------------------------------------------------------------------------


def as_matrix(terms: Terms) -> Any:
    """Return all coefficients, (n, s)."""
    full = np.zeros((terms.place.size, terms.count))
    full[terms.reached] = terms.rows[terms.place[terms.reached]]
    return full


def some_terms(rng: np.random.Generator, n: int, count: int) -> Terms:
    values = np.sort(rng.choice(n, size=int(rng.integers(0, n + 1)), replace=False))
    return Terms.of(n, rng.permutation(values), rng.normal(size=(values.size, count)))


MAPS: dict[str, Any] = {
    "convolution": lambda rng: random_convolution(rng, (2, 5, 4)),
    "dense": lambda rng: dense(rng.normal(size=(7, 12))),
    "sparse": lambda rng: Sparse(matrix=dense(rng.normal(size=(7, 12)) * (rng.random((7, 12)) < 0.2)).to_sparse()),
    "selection": lambda rng: Selection(index=rng.integers(-1, 12, 9), size_in=12, weights=rng.normal(size=9)),
    "identity": lambda rng: Selection.identity(12),
    "reindexed": lambda rng: Reindexed(
        left=Selection(index=rng.integers(-1, 7, 9), size_in=7, weights=rng.normal(size=9)),
        core=dense(rng.normal(size=(7, 12))),
        right=Selection(index=rng.permutation(12), size_in=12, weights=rng.normal(size=12)),
    ),
}


@pytest.mark.parametrize("name", sorted(MAPS))
@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_terms_go_through_maps_as_matrices_do(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    linear_map = MAPS[name](rng)
    groups = [some_terms(rng, linear_map.n_in, count) for count in (1, 3)]
    before = [as_matrix(terms) for terms in groups]
    wanted = rng.random(linear_map.n_out) < 0.7
    made = pushed(linear_map, groups, wanted, 10**9, unchecked)
    assert made is not None
    for own, terms in zip(before, made, strict=True):
        assert not terms.reached[~wanted].any()
        expected = linear_map.to_sparse().toarray() @ own
        np.testing.assert_allclose(as_matrix(terms)[wanted], expected[wanted], atol=1e-12)
        terms.rows[:] = np.nan
    assert all((as_matrix(terms) == own).all() for terms, own in zip(groups, before, strict=True)), "shared memory"
    assert pushed(linear_map, groups, np.ones(linear_map.n_out, np.bool_), -1, unchecked) is None


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_terms_of_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = some_terms(rng, 9, 4), some_terms(rng, 9, 4)
    expected = as_matrix(one) + as_matrix(other)
    np.testing.assert_allclose(as_matrix(summed(one, other)), expected, atol=1e-15)


def test_what_taps_read() -> None:
    convolution = Convolution(kernel=np.ones((1, 1, 3)), spatial_in=(4,), strides=(2,), pads=(1, 1), dilations=(1,))
    assert convolution.reads.tolist() == [[-1, 0, 1], [1, 2, 3]]


# --- in the place of lines -------------------------------------------------------------------------------------------


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let zonotopes stand in for all lines."""
    monkeypatch.setattr(zonotopes, "DEAR", -1)
    monkeypatch.setattr(zonotopes, "CHEAP", -1)


def images_and_box(seed: int) -> tuple[ImplicitModel, Box]:
    rng = np.random.default_rng(seed)
    model = random_images(rng, 2, 3)
    return model, random_box(rng, model.n_inputs)


@pytest.mark.usefixtures("always")
def test_they_stand_in_for_lines_that_would_be_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    model, box = images_and_box(3)
    inputs = Interval.of_boxes(box)
    monkeypatch.setattr(linear_bounds, "tightened_by_lines", None)  # nobody asks for lines
    found, plain = backward_state_bounds(model, inputs), Watched(model, inputs).all_bounds()
    for k in model.evaluation_order:
        assert (found.z[k].lo == plain.z[k].lo).all()
        assert (found.z[k].hi == plain.z[k].hi).all()
    stage = proved_stage(model, inputs, None)
    assert all((stage.z[k].lo == found.z[k].lo).all() for k in model.evaluation_order)


def test_lines_come_after_them_where_they_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    model, box = images_and_box(3)
    inputs = Interval.of_boxes(box)
    by_lines = backward_state_bounds(model, inputs)
    monkeypatch.setattr(zonotopes, "DEAR", -1)
    both = backward_state_bounds(model, inputs)
    rows = np.vstack([np.eye(model.n_outputs), -np.eye(model.n_outputs)])
    lowers = [output_lower_bounds(model, inputs, bounds, rows) for bounds in (by_lines, both)]
    assert (lowers[1] >= lowers[0] - 1e-9).all()


@pytest.mark.usefixtures("always")
def test_the_checker_follows_them() -> None:
    model, box = images_and_box(5)
    inputs = Interval.of_boxes(box)
    least = output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), np.eye(model.n_outputs)[:1])[0, 0]
    for shift, holds in ((1e-6, True), (-1e-6, False)):
        query = Query(box, (Conjunction(np.eye(model.n_outputs)[:1], np.array([-least + shift])),))
        assert (check(model, query, trivial(1)) == []) is holds


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("units", [0, 1, 5, 40, 200])
def test_where_the_time_is_over_blocks_keep_their_intervals(units: int) -> None:
    model, box = images_and_box(3)
    inputs, left = Interval.of_boxes(box), [units]

    def tighten() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise BudgetError("over")

    bounds, plain = backward_state_bounds(model, inputs, tighten=tighten), interval_bounds(model, inputs)
    whole = backward_state_bounds(model, inputs)
    for k in model.evaluation_order:
        assert (bounds.z[k].lo >= plain.z[k].lo).all()
        assert (bounds.z[k].lo <= whole.z[k].lo).all()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("limit", ["MOST_NUMBERS", "MOST_SYMBOLS", "max_bytes"])
def test_those_that_would_be_too_large_leave_all_to_lines(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, box = images_and_box(3)
    inputs = Interval.of_boxes(box)
    if limit != "max_bytes":
        monkeypatch.setattr(zonotopes, limit, 1)
    found = backward_state_bounds(model, inputs, max_bytes=1000 if limit == "max_bytes" else None)
    monkeypatch.undo()
    usual = backward_state_bounds(model, inputs)
    assert all((found.z[k].lo == usual.z[k].lo).all() for k in model.evaluation_order)


def test_sets_and_models_that_they_are_not_for() -> None:
    model, box = images_and_box(3)
    both = Interval.of_boxes([box, box])
    assert zonotopes.zonotopes_over(model, both) is None
    assert isinstance(zonotopes.zonotopes_over(model, Interval.of_boxes(box)), Zonotopes)
    assert isinstance(model.rows[0].states[1], (Convolution, Dense, Reindexed, Selection, Sparse))


# --- centres ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MAPS))
@settings(deadline=None, max_examples=25)
@given(seed=seeds, scale=st.sampled_from([0, -8, 130, -200]))
def test_split_products_are_rounded_about_once(name: str, seed: int, scale: int) -> None:
    """Against rational arithmetic; of kernels and matrices the bound is a few units of the last place of the result."""
    rng = np.random.default_rng(seed)
    linear_map = MAPS[name](rng)
    values = rng.normal(size=linear_map.n_in) * 10.0 ** rng.choice([scale, 0], size=linear_map.n_in)
    found, error = product(linear_map, values)
    for i, row in enumerate(linear_map.to_sparse().toarray()):
        exact = sum((Fraction(float(w)) * Fraction(float(v)) for w, v in zip(row, values, strict=True)), Fraction(0))
        room = Fraction(1, 2**50) * abs(exact) if name == "reindexed" else Fraction(0)  # its entries are products
        assert abs(Fraction(float(found[i])) - exact) <= Fraction(float(error[i])) + room
    if name in ("convolution", "dense") and not scale:
        largest = float(np.abs(values).max()) * float(np.abs(linear_map.to_sparse().toarray()).max())
        assert error.max() <= 2.0**-50 * np.abs(found).max() + 2.0**-60 * largest * linear_map.row_terms**2


def test_products_of_what_has_no_scale_are_plain_ones() -> None:
    for size in (0.0, 1e-300, 1e300):
        found, error = product(dense(np.full((1, 2), size)), np.full(2, size))
        assert not found[0] < 0
        assert error[0] >= 0
