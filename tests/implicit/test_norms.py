"""Norms as coupled activations: every bound against the function itself, evaluated to 40 digits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.build import build_implicit
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.small_networks import graph

Array = np.ndarray[Any, Any]
DIGITS = 60
SEEDS = st.integers(0, 2**32 - 1)


def exactly(phi: Normalised, entries: Array) -> tuple[list[mpf], mpf]:
    """Return x and the factor 1 / s of one group."""
    z = [mpf(float(value)) for value in entries]
    d = [value - mpmath.fsum(z) / len(z) for value in z] if phi.centred else z
    square = mpmath.fsum(value * value for value in d) / mpf(phi.count)
    size = max(mpmath.sqrt(square + mpf(phi.under)) + mpf(phi.beside), mpf(phi.least))
    return [value / size for value in d], 1 / size


def drawn(rng: np.random.Generator, *, aided: bool) -> Normalised:
    n = int(rng.integers(1, 6))
    under, beside, least = (float(rng.choice([0.0, 0.0, a, b])) for a, b in ((1e-5, 1.0), (1e-3, 1e-6), (1e-2, 1e-12)))
    if not under + beside + least:
        under = 1e-5
    count = float(rng.choice([1.0, n, max(n - 1, 1), n / 1.7]))
    return Normalised(n + 1, count, under, beside, least, bool(rng.integers(2)), aided)


def box_of(phi: Normalised, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return the ends of a box for two groups, and points in it whose last entries are the factors."""
    far = 0.0 if phi.aided else float(rng.choice([0.0, 1e6]))
    centre = rng.normal(size=(2, phi.n)) * 10.0 ** rng.integers(-3, 3) + far
    reach = np.abs(rng.normal(size=(2, phi.n))) * rng.choice([0.0, 1e-8, 1e-2, 1.0, 10.0])
    shares = np.where(
        rng.random((25, 2, phi.n)) < 0.5, rng.choice([-1.0, 1.0], size=(25, 2, phi.n)), rng.uniform(-1, 1)
    )
    points = centre + reach * shares
    if phi.aided and phi.centred:
        points = centred(points)
    factors = np.array([[float(exactly(phi, group)[1]) for group in point] for point in points])
    z = np.concatenate([points, factors[..., None]], axis=-1)
    lo, hi = (np.nextafter(end(z, axis=0), way).reshape(-1) for end, way in ((np.min, -np.inf), (np.max, np.inf)))
    return lo, hi, z.reshape(25, -1)


def centred(points: Array) -> Array:
    """Return entries whose sum is 0 exactly: whole numbers of 2^-30 of a size."""
    unit = 2.0**-30 * np.maximum(np.abs(points).max(axis=-1, keepdims=True), 1e-300)
    unit = 2.0 ** np.floor(np.log2(unit))
    whole = np.round(points / unit)
    whole[..., 0] -= whole.sum(axis=-1)
    return np.asarray(whole * unit)


@given(seed=SEEDS, aided=st.booleans())
@settings(deadline=None, max_examples=60)
def test_values_intervals_and_lower_supports_enclose_the_function(seed: int, aided: bool) -> None:
    rng = np.random.default_rng(seed)
    phi = drawn(rng, aided=aided)
    lo, hi, points = box_of(phi, rng)
    low, high = phi.interval(lo, hi)
    size = points.shape[1]
    v, other = rng.normal(size=(2, 4, size)) * 10.0 ** rng.integers(-3, 3, size=(2, 4, 1))
    usual = phi.multipliers(v, lo[None], hi[None])
    errors = np.abs(v) * rng.choice([0.0, 1e-9, 0.1], size=(4, 1))
    moved = v + errors * rng.choice([-1.0, 1.0], size=v.shape)
    for lam in (usual, usual + other, np.zeros_like(v)):
        bound = phi.lower_support(v, errors, lam, lo[None], hi[None])
        with mpmath.workdps(DIGITS):
            for z in points[:12]:
                for g in range(2):
                    group = slice(g * phi.width, (g + 1) * phi.width)
                    x, _ = exactly(phi, z[group][:-1])
                    x.append(mpf(float(z[group][-1])))
                    for value, a, b in zip(x, low[group], high[group], strict=True):
                        assert mpf(float(a)) <= value <= mpf(float(b))
                    for r in range(4):
                        found = mpmath.fsum(
                            mpf(float(c)) * value - mpf(float(one)) * mpf(float(place))
                            for c, value, one, place in zip(moved[r, group], x, lam[r, group], z[group], strict=True)
                        )
                        slip = abs(mpf(float(v[r, group][-1])) - mpf(float(lam[r, group][-1]))) + errors[r, group][-1]
                        slip *= mpf(2) ** -50 * abs(x[-1])  # the factor of a point is rounded
                        assert mpmath.fsum(mpf(float(b)) for b in bound[r, group]) <= found + slip


@given(seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_two_points_differ_by_no_more_than_the_spread_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    phi = drawn(rng, aided=bool(rng.integers(2)))
    lo, hi, points = box_of(phi, rng)
    for known in (phi, phi.within(lo, hi)):
        gains = known.spread(np.eye(points.shape[1]))
        with mpmath.workdps(DIGITS):
            for one, two in zip(points[::2], points[1::2], strict=False):
                for g in range(2):
                    place = g * phi.width
                    first, second = one[place : place + phi.n], two[place : place + phi.n]
                    steps = [abs(mpf(float(a)) - mpf(float(b))) for a, b in zip(first, second, strict=True)]
                    for i, (a, b) in enumerate(zip(exactly(phi, first)[0], exactly(phi, second)[0], strict=True)):
                        row = gains[place + i, place : place + phi.n]
                        assert abs(a - b) <= mpmath.fsum(mpf(float(k)) * s for k, s in zip(row, steps, strict=True))
                        steepest = np.broadcast_to(known.lipschitz, points.shape[1])[place + i]
                        assert abs(a - b) <= mpf(float(steepest)) * max(steps)


def test_pull_back_is_the_transposed_jacobian() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        phi = drawn(rng, aided=False)
        z, v = rng.normal(size=(2, 1, 2 * phi.width))
        step = 1e-6
        steps = step * np.eye(2 * phi.width)
        slopes = (phi(z + steps) - phi(z - steps)) / (2 * step)
        np.testing.assert_allclose(phi.pull_back(z, v)[0], slopes @ v[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(phi.derivative(z)[0], np.diag(slopes), rtol=1e-4, atol=1e-4)


class TestKnownValues:
    def test_two_entries_and_a_vanishing_epsilon_give_plus_or_minus_one(self) -> None:
        phi = Normalised(3, 2.0, 1e-300)
        x = phi(np.array([[1.0, 3.0, 1.0], [5.0, -1e-100, 1.0]]))
        np.testing.assert_allclose(x[:, :2], [[-1, 1], [1, -1]], rtol=1e-12)
        low, high = phi.interval(np.array([-7.0, -7.0, 0.0]), np.array([9.0, 9.0, 1.0]))
        np.testing.assert_allclose(high[:2], 1, rtol=1e-12)
        np.testing.assert_allclose(low[:2], -1, rtol=1e-12)

    @pytest.mark.parametrize(("centred", "limit"), [(True, np.sqrt(3)), (False, 2.0)])
    def test_no_entry_is_beyond_the_root_of_n_less_one(self, centred: bool, limit: float) -> None:
        lo, hi = np.full(5, -1e200), np.full(5, 1e200)
        low, high = Normalised(5, 4.0, 1e-5, centred=centred).interval(lo, hi)
        np.testing.assert_allclose([-low[:4], high[:4]], limit, rtol=1e-12)

    def test_entries_of_a_million_keep_their_variance(self) -> None:
        rng = np.random.default_rng(0)
        entries = 1e6 + rng.normal(size=64)
        lo, hi = np.append(entries - 1e-3, 0.0), np.append(entries + 1e-3, 1e9)
        seen = Normalised(65, 64.0, 1e-5).seen(lo, hi)
        assert 1 / 1.1 < seen.smallest[0] * np.std(entries) < seen.largest[0] * np.std(entries) < 1.1
        wide = Normalised(65, 64.0, 1e-5).seen(np.full(65, -1e6), np.full(65, 1e6))
        np.testing.assert_allclose(wide.largest, 1e-5**-0.5, rtol=1e-12)

    def test_the_spread_of_two_entries(self) -> None:
        np.testing.assert_allclose(Normalised(3, 2.0, 1.0).spread(np.eye(3))[:2, :2], 0.5, rtol=1e-14)

    def test_the_spread_without_a_mean_has_ones_on_its_diagonal(self) -> None:
        gains = Normalised(4, 1.0, least=0.25, centred=False).spread(np.eye(4))[:3, :3]
        np.testing.assert_allclose(gains, 4 * (0.5 + 0.5 * np.eye(3)), rtol=1e-14)

    def test_vectors_are_no_longer_than_their_root_of_count(self) -> None:
        """Of all entries at once |v . x| <= |v| sqrt(count): better than entry by entry."""
        n = 16
        phi = Normalised(n + 1, float(n), 1e-5, centred=False)
        v = np.append(np.ones(n), 0.0)
        lo, hi = np.append(np.full(n, -1.0), 0.0), np.append(np.full(n, 1.0), 1e9)
        bound = phi.lower_support(v, np.zeros(n + 1), np.zeros(n + 1), lo, hi).sum()
        assert -n * (1 + 1e-9) <= bound <= -n

    def test_the_tangent_is_taken_where_the_factor_hardly_moves(self) -> None:
        phi = Normalised(3, 2.0, 1.0, centred=False, aided=True)
        z = np.array([2.0, 0.0, 1 / np.sqrt(3.0)])
        reach = np.array([1e-6, 1e-6, 1e-7])
        lo, hi = z - reach, z + reach
        v = np.array([1.0, -2.0, 0.0])
        lam = phi.multipliers(v, lo, hi)
        np.testing.assert_allclose(lam, [1 / np.sqrt(3.0), -2 / np.sqrt(3.0), 2.0], rtol=1e-6)
        least = phi.lower_support(v, np.zeros(3), lam, lo, hi).sum()
        assert least == pytest.approx(2 / np.sqrt(3) - lam @ z, abs=1e-11)

    def test_planes_hold_where_their_states_are(self) -> None:
        rng = np.random.default_rng(0)
        phi = replace(drawn(rng, aided=True), centred=True)
        lo, hi, points = box_of(phi, rng)
        x = phi(points).reshape(-1, 2, phi.width)
        z = points.reshape(-1, 2, phi.width)
        for plane in phi.planes(lo, hi):
            side = x[..., plane.state] - (plane.slopes * z).sum(axis=-1) - plane.intercept
            assert ((side if plane.is_lower else -side) >= -1e-9).all()


def test_a_divisor_that_may_be_0_has_no_spread() -> None:
    phi = Normalised(3, 1.0, centred=False)
    assert np.isinf(phi.lipschitz)
    with pytest.raises(UnsupportedModelError, match="divisor may be 0"):
        phi.spread(np.ones(3))
    known = phi.within(np.array([1.0, -1.0, 0.0]), np.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(known.spread(np.eye(3))[:2, :2], [[1, 0.5], [0.5, 1]], rtol=1e-12)


def test_what_is_stored_relies_on_nothing() -> None:
    phi = Normalised(3, 2.0, 1e-5, aided=True)
    again = ACTIVATIONS["normalised"](**phi.parameters)
    assert isinstance(again, Normalised)
    assert not again.aided
    lo, hi = np.array([-1.0, -1.0, 1.0]), np.array([1.0, 1.0, 1.0])
    assert again.seen(lo, hi).largest[0] > 300  # a factor of 1 is no fact where it may be any number
    assert phi.seen(lo, hi).largest[0] == 1


@pytest.mark.parametrize("wrong", [{"width": 1.0}, {"count": 0.0}])
def test_groups_without_entries_or_a_divisor_do_not_fit(wrong: dict[str, float]) -> None:
    phi = ACTIVATIONS["normalised"](**wrong)
    assert isinstance(phi, Normalised)
    assert not phi.fits(6)
    assert not ACTIVATIONS["normalised"](width=4.0).fits(6)


def support(phi: Normalised, v: list[float], lam: list[float], lo: list[float], hi: list[float]) -> float:
    """Return the bound of one group."""
    ends = np.array(lo), np.array(hi)
    return float(phi.lower_support(np.array(v), np.zeros(len(v)), np.array(lam), *ends).sum())


@pytest.mark.parametrize("size", [1e-150, 1e-155, 1e-161, 1e-163, 1e-170, 1e-300])
def test_the_length_of_small_coefficients_does_not_underflow(size: float) -> None:
    phi = Normalised(3, 2.0, 1e-5)
    found = support(phi, [size, -size, 0.0], [0.0] * 3, [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0])
    assert found <= -2 * size / np.sqrt(1 + 1e-5)


@pytest.mark.parametrize(
    ("phi", "entry", "n"),
    [
        (Normalised(2, 1e-300, centred=False), 1e-165, 1),
        (Normalised(2, 1e20, least=1.0, centred=False), 1e165, 1),
        (Normalised(2, 1.0, centred=False), float(np.sqrt(1.55)) * 2.0**-537, 1),
        (Normalised(2, 1e-320, centred=False), 1.0, 1),
        (Normalised(2, 1e-300, centred=False), 1e10, 1),
        (Normalised(2**18 + 1, 1.0, centred=False), 1.5 * 2.0**-538, 2**18),
    ],
)
def test_states_of_tiny_and_huge_entries_lie_in_their_intervals(phi: Normalised, entry: float, n: int) -> None:
    z = np.append(np.full(n, entry), 1.0)
    low, high = replace(phi, under=0.0).interval(z, z)
    with mpmath.workdps(DIGITS):
        d = mpf(entry)
        value = d / max(mpmath.sqrt(n * d * d / mpf(phi.count)), mpf(phi.least))
        assert mpf(float(low[0])) <= value <= mpf(float(high[0]))


@pytest.mark.parametrize("centred", [False, True])
def test_of_nothing_divided_by_nothing_nothing_is_known(centred: bool) -> None:
    lo, hi = [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]
    phi = Normalised(3, 1.0, centred=centred)
    low, high = phi.interval(np.array(lo), np.array(hi))
    assert np.all(low[:2] == -np.inf)
    assert np.all(high[:2] == np.inf)
    assert support(phi, [1.0, 0.0, 0.0], [0.0] * 3, lo, hi) == -np.inf
    aided = Normalised(3, 1.0, centred=False, aided=True)  # a finite factor: s is not 0
    assert np.isfinite(aided.interval(np.array(lo), np.array(hi))).all()


def test_what_overflows_proves_nothing() -> None:
    phi = Normalised(3, 2.0, 1e-5, aided=True, centred=False)
    found = support(phi, [0.0, 0.0, 1.5e308], [0.0, 0.0, -1.5e308], [-1.0, -1.0, 1.0], [1.0, 1.0, 2.0])
    assert found == -np.inf or found <= 1.7e308


def lrn(**attributes: float) -> Any:
    nodes: list[Any] = [("LRN", ("u",), "h", attributes), ("Flatten", ("h",), "y", {})]
    return build_implicit(graph(nodes, {}, (1, 3, 1, 1)))


def test_windows_of_any_width_reach_no_farther_than_the_channels() -> None:
    u, size = np.array([[0.5, -1.0, 2.0]]), 2**31
    found = lrn(size=size, alpha=float(2**30), beta=0.5)(u)
    assert np.allclose(found, u / np.sqrt(1 + (u * u).sum() / 2))


def test_local_norms_to_the_power_minus_1_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="beta = -1"):
        lrn(size=3, beta=-1.0)


def test_weights_that_a_product_was_rounded_to_are_not_exact() -> None:
    model = build_implicit(graph([("LpNormalization", ("u",), "y", {"axis": -1, "p": 2})], {}, (1, 2)))
    factors = [k for k, block in enumerate(model.blocks) if block.activation.name == "rsqrt"]
    maps = [part for k in factors for part in model.rows[k].states.values()]
    assert maps
    assert all(part.relative > 0 for part in maps if hasattr(part, "relative"))
