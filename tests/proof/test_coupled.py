"""Products, matrix products and softmax: planes, summands for any multipliers, bounds, trees, programs and files."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, COUPLED, Coupled
from idl_audit.implicit.activations.contraction import Contraction
from idl_audit.implicit.activations.product import Product, usual_shares
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval
from idl_audit.proof.crown import Crown, Targets
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers, output_lower_bounds
from idl_audit.proof.wanted import to_tighten
from idl_audit.search.relaxation import TriangleRelaxation, program_bytes
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED, Budget
from tests.shared.implicit_models import built, floats, node
from tests.shared.small_networks import dense, layered, long_double, random_box, random_network, some_points

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 2**32 - 1)
SIZES = {"product": [()], "softmax": [(1,), (2,), (5,)], "contraction": [(1, 1, 1), (2, 3, 2), (3, 1, 4), (1, 4, 1)]}
KINDS = [(name, sizes) for name, every in SIZES.items() for sizes in every]


def test_every_coupled_activation_is_tested() -> None:
    assert set(SIZES) | {"normalised"} == COUPLED  # which has tests of its own


def coupled(name: str, sizes: tuple[int, ...]) -> Coupled:
    found = ACTIVATIONS[name](*sizes)
    assert isinstance(found, Coupled)
    return found


def exact_states(phi: Coupled, z: Array) -> list[Any]:
    """Return phi of one point by its definition, in 50 digits or in Fractions."""
    groups = z.reshape(-1, phi.width)
    found: list[Any] = []
    for group in groups:
        if isinstance(phi, Softmax):
            powers = [mpmath.exp(mpmath.mpf(float(value))) for value in group]
            found += [power / mpmath.fsum(powers) for power in powers]
            continue
        exact = [Fraction(float(value)) for value in group]
        if isinstance(phi, Product):
            found += [exact[0] * exact[1], exact[1]]
            continue
        rows, inner, columns = (int(phi.parameters[name]) for name in ("rows", "inner", "columns"))
        first, second = exact[: rows * inner], exact[rows * inner : (rows + columns) * inner]
        sums = [
            sum((first[i * inner + k] * second[k * columns + j] for k in range(inner)), Fraction(0))
            for i in range(rows)
            for j in range(columns)
        ]
        found += [*sums, *[Fraction(0)] * (phi.width - len(sums))]
    return [
        value if isinstance(value, mpmath.mpf) else mpmath.mpf(value.numerator) / value.denominator for value in found
    ]


def drawn(rng: np.random.Generator, shape: int | tuple[int, ...], *, far: float = 1.0) -> Array:
    """Return numbers of many sizes, some of them 0 or alike."""
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 3, size=shape) * far
    return np.where(rng.random(shape) < 0.25, rng.choice([0.0, 1.0, -1.0]), values)


@pytest.mark.parametrize(("name", "sizes"), KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_ranges_and_summands_hold_for_any_multipliers(name: str, sizes: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    phi = coupled(name, sizes)
    n = 2 * phi.width
    centre, radius = drawn(rng, n), np.abs(drawn(rng, n))
    lo, hi = centre - radius, centre + radius
    v, error = drawn(rng, n), np.abs(drawn(rng, n)) * rng.choice([0.0, 1e-9, 1.0])
    lam = phi.multipliers(v, lo, hi) + rng.choice([0.0, 1e-6, 1.0]) * drawn(rng, n)
    low, high = phi.interval(lo, hi)
    bound = phi.lower_support(v, error, lam, lo, hi)
    with mpmath.workdps(50):
        total = mpmath.fsum(mpmath.mpf(float(part)) for part in bound)
        for _ in range(6):
            z = np.where(rng.random(n) < 0.5, lo, hi)
            z = np.where(rng.random(n) < 0.3, np.clip(lo + rng.random(n) * (hi - lo), lo, hi), z)
            x = exact_states(phi, z)
            assert all(
                mpmath.mpf(float(a)) <= value <= mpmath.mpf(float(b)) for a, value, b in zip(low, x, high, strict=True)
            )
            sign = rng.choice([-1.0, 1.0], size=n)
            terms = [
                (mpmath.mpf(float(v[i])) + mpmath.mpf(float(sign[i])) * mpmath.mpf(float(error[i]))) * x[i]
                - mpmath.mpf(float(lam[i])) * mpmath.mpf(float(z[i]))
                for i in range(n)
            ]
            assert total <= mpmath.fsum(terms)


EXACT = [(name, sizes) for name, sizes in KINDS if name in ("contraction", "product")]


def wild(rng: np.random.Generator, n: int) -> Array:
    """Return numbers of any size that float64 holds, subnormal ones too."""
    sizes = 10.0 ** rng.uniform(-300, 300, size=n) * 10.0 ** rng.choice([0, -20], size=n)
    return np.where(rng.random(n) < 0.1, 0.0, rng.choice([-1.0, 1.0], size=n) * sizes)


@pytest.mark.parametrize(("name", "sizes"), EXACT)
@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_summands_hold_where_products_leave_the_range_of_float64(name: str, sizes: tuple[int, ...], seed: int) -> None:
    """What overflows proves nothing, what underflows is paid for, whichever product of three numbers it is."""
    rng = np.random.default_rng(seed)
    phi = coupled(name, sizes)
    n = phi.width
    lo, hi = np.sort(np.stack([wild(rng, n), wild(rng, n)]), axis=0)
    v = wild(rng, n)
    with np.errstate(all="ignore"):
        lam = phi.multipliers(v, lo, hi)
        lam = np.where(rng.random(n) < 0.2, wild(rng, n), lam)
        bound = phi.lower_support(v, np.zeros(n), lam, lo, hi)
    if not np.isfinite(bound).all():
        return
    total = sum((Fraction(float(part)) for part in bound), Fraction(0))
    for _ in range(8):
        z = np.where(rng.random(n) < 0.5, lo, hi)
        with mpmath.workdps(1400):
            x = exact_states(phi, z)
            value = mpmath.fsum(
                mpmath.mpf(float(v[i])) * x[i] - mpmath.mpf(float(lam[i])) * float(z[i]) for i in range(n)
            )
            assert mpmath.mpf(total.numerator) / total.denominator <= value


def test_a_product_that_overflows_at_its_least_corner_alone_proves_nothing() -> None:
    """v z1 z2 is 5e209 for v = 1e-100, and z1 z2 = 1e310 no number."""
    lo, hi, v = np.full(2, 3e153), np.full(2, 1e155), np.array([-1e-100, 0.0])
    with np.errstate(all="ignore"):
        found = coupled("product", ()).lower_support(v, np.zeros(2), np.zeros(2), lo, hi).sum()
    assert not found > -9.9e209


def test_multipliers_that_overflow_are_no_zeros_in_a_summand() -> None:
    phi, zero = coupled("contraction", (1, 1, 1)), np.zeros(2)
    lo, hi = np.array([1e110, -1e-279]), np.array([1e110, 1e-279])
    v = np.array([-1e200, 0.0])
    with np.errstate(all="ignore"):
        found = phi.lower_support(v, zero, phi.multipliers(v, lo, hi), lo, hi).sum()
    assert not found > -1e31


@pytest.mark.parametrize(("name", "sizes"), KINDS)
def test_what_is_no_number_or_endless_proves_nothing(name: str, sizes: tuple[int, ...]) -> None:
    phi = coupled(name, sizes)
    n, one = phi.width, np.ones(phi.width)
    for bad in (np.nan, np.inf, 1e308):
        for where in range(n):
            lo, hi = -one, one.copy()
            hi[where] = bad
            with np.errstate(all="ignore"):
                found = phi.lower_support(one, 0 * one, one, lo, hi).sum()
                assert not found > -1e300 or np.isfinite(hi).all()
                assert not np.isnan(phi.multipliers(one, lo, hi)).any()
        with np.errstate(all="ignore"):
            assert not phi.lower_support(bad * one, 0 * one, one, -one, one).sum() > 0 or bad == 1e308


class TestProducts:
    def test_the_hull_of_a_square_box_is_exact(self) -> None:
        """x - z1 - z2 >= -1 on [-1, 1]^2, attained."""
        phi, one = coupled("product", ()), np.ones(2)
        found = phi.lower_support(np.array([1.0, 0.0]), 0 * one, one, -one, one).sum()
        assert -1 - 1e-12 <= found <= -1

    @settings(deadline=None, max_examples=100)
    @given(seed=seeds)
    def test_the_summand_is_the_least_corner(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        lo, hi = np.sort(rng.normal(size=(2, 2)), axis=0)
        v, lam = rng.normal(size=(2, 2))
        least = min(
            Fraction(float(v[0])) * Fraction(float(a)) * Fraction(float(b))
            + (Fraction(float(v[1])) - Fraction(float(lam[1]))) * Fraction(float(b))
            - Fraction(float(lam[0])) * Fraction(float(a))
            for a, b in itertools.product((lo[0], hi[0]), (lo[1], hi[1]))
        )
        found = coupled("product", ()).lower_support(v, np.zeros(2), lam, lo, hi).sum()
        assert least - Fraction(1, 10**13) <= Fraction(float(found)) <= least

    @settings(deadline=None, max_examples=100)
    @given(seed=seeds, side=st.sampled_from([1.0, -1.0]))
    def test_the_usual_plane_is_no_worse_than_the_interval(self, seed: int, side: float) -> None:
        rng = np.random.default_rng(seed)
        lo, hi = np.sort(rng.normal(size=(2, 2)) * 10.0 ** rng.integers(-3, 3, 2), axis=0)
        phi = coupled("product", ())
        v = np.array([side, 0.0])
        lam = phi.multipliers(v, lo, hi)
        plane = phi.lower_support(v, np.zeros(2), lam, lo, hi).sum() + np.minimum(lam * lo, lam * hi).sum()
        low, high = phi.interval(lo, hi)
        interval = low[0] if side > 0 else -high[0]
        assert plane >= interval - 1e-9 * (1 + abs(interval))

    def test_any_share_is_sound_and_some_are_better(self) -> None:
        phi, zero, one = coupled("product", ()), np.zeros(2), np.ones(2)
        v = np.array([1.0, 0.0])
        bounds = []
        for share in (0.0, 0.25, 0.5, 1.0, -3.0, 7.0, np.nan):
            lam = phi.multipliers(v, zero, one, np.full(2, share))
            bounds.append(phi.lower_support(v, zero, lam, zero, one).sum() + np.minimum(lam, 0).sum())
        assert max(bounds) <= 0.0
        assert bounds[3] >= -1e-12  # x >= 0
        assert bounds[0] < -0.9  # z1 + z2 - 1 alone

    def test_shares_of_endless_intervals_are_numbers(self) -> None:
        with np.errstate(all="ignore"):
            shares = usual_shares(*(np.array([value]) for value in (-np.inf, np.inf, 0.0, 1.0)))
        assert ((shares >= 0) & (shares <= 1)).all()

    def test_a_product_with_a_number_does_not_bend(self) -> None:
        phi = coupled("product", ())
        lo, hi = np.array([[-1.0, 2.0, -1.0, 2.0]]), np.array([[1.0, 2.0, 1.0, 3.0]])
        assert phi.bends(lo, hi).tolist() == [[False, False, True, True]]

    def test_one_by_one_matrices_are_products_with_equal_shares(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(50):
            lo, hi = np.sort(rng.normal(size=(2, 2)), axis=0)
            v, zero = np.array([rng.normal(), 0.0]), np.zeros(2)
            lam = coupled("product", ()).multipliers(v, lo, hi, np.full(2, 0.5))
            other = coupled("contraction", (1, 1, 1)).multipliers(v, lo, hi)
            np.testing.assert_allclose(lam, other, rtol=1e-12, atol=1e-14)
            bound = coupled("product", ()).lower_support(v, zero, lam, lo, hi).sum()
            looser = coupled("contraction", (1, 1, 1)).lower_support(v, zero, lam, lo, hi).sum()
            assert looser == pytest.approx(bound, abs=1e-12)


class TestSoftmax:
    def test_planes_touch_what_does_not_move(self) -> None:
        phi = coupled("softmax", (3,))
        z = np.array([0.3, -1.0, 2.0])
        assert isinstance(phi, Softmax)
        planes = phi.softmax_planes(z, z)
        for slopes, at in ((planes.below, planes.at_below), (planes.above, planes.at_above)):
            np.testing.assert_allclose((slopes[0] @ z + at[0]), phi(z), rtol=0, atol=1e-11)

    def test_planes_are_second_order_on_small_boxes(self) -> None:
        phi = coupled("softmax", (4,))
        rng = np.random.default_rng(1)
        z, v = rng.normal(size=(2, 4))
        losses = []
        for radius in (1e-1, 1e-2, 1e-3):
            lam = phi.multipliers(v, z - radius, z + radius)
            bound = phi.lower_support(v, np.zeros(4), lam, z - radius, z + radius).sum()
            losses.append(v @ phi(z) - lam @ z - bound)
        assert losses[0] / losses[1] > 60
        assert losses[1] / losses[2] > 60

    def test_groups_with_too_many_slopes_have_their_ranges(self, monkeypatch: pytest.MonkeyPatch) -> None:
        phi, rng = coupled("softmax", (4,)), np.random.default_rng(3)
        assert isinstance(phi, Softmax)
        lo, v = rng.normal(size=(2, 8))
        hi = lo + 0.5
        fine = phi.lower_support(v, np.zeros(8), np.zeros(8), lo, hi).sum()
        monkeypatch.setattr("idl_audit.implicit.activations.softmax.MOST_SLOPES", 8)
        assert not phi.multipliers(v, lo, hi).any()
        assert phi.planes(lo, hi) == []
        planes, (low, high) = phi.softmax_planes(lo, hi), phi.interval(lo, hi)
        np.testing.assert_array_equal(planes.at_below.reshape(-1), low)
        np.testing.assert_array_equal(planes.at_above.reshape(-1), high)
        found = phi.lower_support(v, np.zeros(8), np.zeros(8), lo, hi).sum()
        assert found == pytest.approx(np.where(v >= 0, v * low, v * high).sum(), abs=1e-12)
        assert found <= fine

    def test_the_sum_of_a_group_is_1(self) -> None:
        """v = 1 everywhere: the range alone would say [sum of the least, sum of the greatest]."""
        phi = coupled("softmax", (3,))
        lo, hi = np.array([-2.0, -1.0, 0.0]), np.array([2.0, 1.0, 3.0])
        found = phi.lower_support(np.ones(3), np.zeros(3), np.zeros(3), lo, hi).sum()
        assert 1 - 1e-10 <= found <= 1


ATTENTION = [
    node("MatMul", "x wq", "q"),
    node("MatMul", "x wk", "k"),
    node("MatMul", "x wv", "v"),
    node("Transpose", "k", "kt", perm=[0, 2, 1]),
    node("MatMul", "q kt", "s"),
    node("Softmax", "s", "p", axis=-1),
    node("MatMul", "p v", "a"),
    node("Flatten", "a", "f"),
    node("Gemm", "f wo"),
]


def attention(rng: np.random.Generator, tokens: int = 3, size: int = 4) -> ImplicitModel:
    weights = {name: floats(rng, size, size, scale=0.7) for name in ("wq", "wk", "wv")}
    return built(ATTENTION, (1, tokens, size), {**weights, "wo": floats(rng, tokens * size, 3)})


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.5])
def test_bounds_of_attention_hold_and_products_are_close_to_what_occurs(
    fused: bool, radius: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fused:
        monkeypatch.setattr("idl_audit.implicit.lowering.linear.FEW_TERMS", 0)
    rng = np.random.default_rng(5)
    model = attention(rng)
    assert ("contraction" in {block.activation.name for block in model.blocks}) == fused
    box = Box.around(rng.normal(size=12), radius)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    points = np.clip(some_points(rng, box, 3000), box.lo, box.hi)
    found = model.solve(points)
    for k in range(len(model.blocks)):
        for values, own in ((found.pre_activations[k], bounds.z[k]), (found.states[k], bounds.x[k])):
            slack = 1e-12 * (1 + np.abs(values).max())
            assert (values >= own.lo - slack).all()
            assert (values <= own.hi + slack).all()
    y = model(points)
    lower = output_lower_bounds(model, inputs, bounds, np.eye(3))[0]
    assert (y >= lower - 1e-12).all()
    if radius == 1e-3:  # linear at this scale: what lines lose is of second order
        assert (y.min(axis=0) - lower <= 0.3 * (y.max(axis=0) - y.min(axis=0))).all()


@settings(deadline=None, max_examples=40)
@given(seed=seeds, m=st.integers(1, 3))
def test_the_pass_is_as_tight_as_the_dual_bound_with_the_same_planes(seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    names = [*SIZES, "relu", "tanh", "identity"]
    model = random_network(rng, p=3, widths=(4, 6, 4), q=2, activations=names)
    boxes = [random_box(rng, 3, radius=0.3) for _ in range(m)]
    inputs = Interval.of_boxes(boxes)
    bounds = backward_state_bounds(model, inputs)
    rows = rng.normal(size=(3, 2))
    found = Crown(model, inputs).lower_bound(bounds, Targets.of_outputs(model, rows))
    choose = line_multipliers(model, bounds)
    other = lower_bound(model, inputs, bounds, Functionals.of_outputs(model, rows), choose)
    assert (np.abs(found - other) <= 1e-9 * (1 + np.abs(other))).all()
    for j, box in enumerate(boxes):
        z, x, y = long_double(model, some_points(rng, box, 60))
        assert (found[j] <= (y @ rows.T.astype(np.longdouble)).min(axis=0)).all()
        for k in range(len(model.blocks)):
            for values, own in ((z[k], bounds.z[k]), (x[k], bounds.x[k])):
                assert (values >= own.lo[j]).all()
                assert (values <= own.hi[j]).all()


def test_a_state_is_tightened_once_however_often_it_is_a_factor() -> None:
    """Two states of an identity block, each a factor of three products."""
    hidden = StateBlock("hidden", "Gemm", ACTIVATIONS["tanh"](), (2,))
    factor = StateBlock("factor", "Gemm", ACTIVATIONS["identity"](), (2,))
    pairs = StateBlock("pairs", "Mul", ACTIVATIONS["product"](), (6,))
    read = Selection(index=np.array([0, 1, 0, 1, 0, 1]), size_in=2)
    rows = (
        Affine({1: read}, None, np.zeros(6)),
        Affine({2: dense([[1.0, -1.0], [1.0, 1.0]])}, None, np.zeros(2)),
        Affine({}, dense(np.eye(2)), np.zeros(2)),
    )
    model = ImplicitModel(
        (pairs, factor, hidden), rows, Affine({0: dense(np.ones((1, 6)))}, None, np.zeros(1)), (2,), (1,)
    )
    bounds = interval_bounds(model, Interval(-np.ones((1, 2)), np.ones((1, 2))))
    assert not to_tighten(model, 0, bounds).any()
    assert to_tighten(model, 1, bounds).all()


class TestPrograms:
    def test_a_product_has_its_hull_in_linear_programs(self) -> None:
        """x - z1 - z2 over [-1, 1]^2, with z1 and z2 read by the output as well: -1."""
        model = layered(
            [(np.eye(2), np.zeros(2))], ([[1.0, 0.0]], [0.0]), ACTIVATIONS["product"](), skip=[[-1.0, -1.0]]
        )
        inputs = Interval(-np.ones((1, 2)), np.ones((1, 2)))
        answer = TriangleRelaxation(model, inputs, interval_bounds(model, inputs)).minimise(np.ones(1))
        assert answer.lower == pytest.approx(-1.0, abs=1e-6)

    def test_a_matrix_product_has_its_exact_minimum(self) -> None:
        """X Y - Yc . X - Xc . Y = dX dY - Xc Yc, at least -rX rY - Xc Yc; its states beyond the first are constants."""
        lo, hi = np.array([[-1.0, 2.0, 1.0, -3.0]]), np.array([[1.0, 3.0, 4.0, -1.0]])
        centre, radius = (lo + hi)[0] / 2, (hi - lo)[0] / 2
        skip = -np.concatenate([centre[2:], centre[:2]])[None]
        model = layered(
            [(np.eye(4), np.zeros(4))], ([[1.0, 0, 0, 0]], [0.0]), coupled("contraction", (1, 2, 1)), skip=skip
        )
        inputs = Interval(lo, hi)
        answer = TriangleRelaxation(model, inputs, interval_bounds(model, inputs)).minimise(np.ones(1))
        exact = -radius[:2] @ radius[2:] - centre[:2] @ centre[2:]
        assert answer.lower == pytest.approx(exact, abs=1e-6)
        assert answer.lower <= exact
        assert answer.solution.objective == pytest.approx(exact, abs=1e-6)

    @pytest.mark.parametrize("sizes", [(2, 3, 2), (4, 1, 3), (1, 4, 1)])
    def test_rows_of_matrix_products_hold_at_every_point(self, sizes: tuple[int, ...]) -> None:
        phi, rng = coupled("contraction", sizes), np.random.default_rng(sum(sizes))
        assert isinstance(phi, Contraction)
        n = 2 * phi.width
        model = layered([(rng.normal(size=(n, 4)), rng.normal(size=n))], (np.eye(n), np.zeros(n)), phi)
        box = Box.around(rng.normal(size=4), 0.3)
        inputs = Interval.of_boxes(box)
        form = TriangleRelaxation(model, inputs, backward_state_bounds(model, inputs)).form
        assert len(form.matrix.indptr) - 1 - form.live.size == 4 * sizes[0] * sizes[2]  # two a entry, in two groups
        limits, radius = form.limits, (inputs.hi - inputs.lo)[0] / 2
        points = np.clip(some_points(rng, box, 500), box.lo, box.hi)
        found = model.solve(points)
        x, z = found.states[0][:, form.live], found.pre_activations[0][:, form.live]
        columns = np.concatenate([(points - form.centre) / radius, x, x - z], axis=1)
        rows = columns @ form.matrix.T
        slack = 1e-9 * (1 + np.abs(rows).max())
        assert ((rows >= limits.row_lo - slack) & (rows <= limits.row_hi + slack)).all()
        assert ((columns >= limits.lo - slack) & (columns <= limits.hi + slack)).all()
        ends = [
            side[form.live.size :].reshape(-1, 2, 2) for side in (limits.row_lo, limits.row_hi)
        ]  # entry, side, group
        first, second = phi.factors(form.bounds.z[0].hi[0] / 2 - form.bounds.z[0].lo[0] / 2)
        widths = 2 * np.matmul(first, second).reshape(2, -1).T
        np.testing.assert_allclose(ends[1][:, 1] - ends[0][:, 0], widths, rtol=1e-9)

    @pytest.mark.parametrize("radius", [0.01, 0.2])
    def test_planes_of_attention_are_worth_their_rows(self, radius: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("idl_audit.implicit.lowering.linear.FEW_TERMS", 0)
        rng = np.random.default_rng(0)
        model = attention(rng)
        box = Box.around(rng.normal(size=12), radius)
        inputs = Interval.of_boxes(box)
        bounds = backward_state_bounds(model, inputs)
        least = model(np.clip(some_points(rng, box, 1000), box.lo, box.hi)).min(axis=0)

        def losses(budget: Budget = UNLIMITED) -> tuple[Array, int]:
            relaxation = TriangleRelaxation(model, inputs, bounds, budget=budget)
            lower = np.array([relaxation.minimise(row).lower for row in np.eye(3)])
            assert (lower <= least).all()
            return least - lower, relaxation.form.matrix.shape[0]

        with_planes, rows = losses()
        without, fewer = losses(Budget(max_bytes=program_bytes(model)))
        assert rows > fewer  # planes that have no place are left out, and the program is there all the same
        assert (with_planes < 0.8 * without).all()
        monkeypatch.setattr("idl_audit.search.relaxation.MOST_PLANE_ENTRIES", 0)
        assert losses()[1] == fewer

    @settings(deadline=None, max_examples=15)
    @given(seed=seeds)
    def test_their_bounds_hold(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        model = random_network(rng, p=2, widths=(4, 4), q=2, activations=[*SIZES, "relu"])
        box = random_box(rng, 2)
        inputs = Interval.of_boxes(box)
        relaxation = TriangleRelaxation(model, inputs, backward_state_bounds(model, inputs))
        y = long_double(model, some_points(rng, box, 100))[2]
        for j in range(2):
            assert relaxation.minimise(np.eye(2)[j]).lower <= y[:, j].min()
