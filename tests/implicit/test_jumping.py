"""Stairs and steps: every bound against the least number over the closed pieces, in rational arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, JUMPS, Mixed
from idl_audit.implicit.activations.jumping import LARGEST, RULES, Jumping, Stairs, Step, ceil, floor, rounding, step
from idl_audit.implicit.activations.parts import restricted, side_by_side
from idl_audit.implicit.compose import feedback
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.implicit.storage import load_model, save_model
from idl_audit.values.errors import ModelFileError, UnsupportedModelError
from tests.shared.small_networks import layered

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
N = 12

EXAMPLES: dict[str, Jumping] = {
    "round": rounding(),
    "int8": rounding(-128.0, 127.0),
    "uint8 with a zero point": rounding(-3.0, 252.0),
    "one level": rounding(4.0, 4.0),
    "a level for each state": rounding(np.arange(N) - 30.0, np.arange(N) - 1.0),
    "floor": floor(),
    "floor above 0": floor(lowest=0.0),
    "ceil": ceil(),
    "ceil of two levels": ceil(0.0, 1.0),
    "step": step(),
    "int32": rounding(reach=2.0**31),
    "twice as high": step(jump=2.0, share=1.0),
    "a fall": step(jump=-1.5, share=1.0),
    "thresholded relu": step(above=1.0, jump=0.7),
    "slopes and a jump": step(below=-0.3, above=2.5, jump=-0.1, share=1.0),
    "steps of their own": step(np.linspace(-1, 1, N), np.linspace(2, -2, N), np.linspace(-1, 1, N), np.arange(N) % 2.0),
}
EVERY = pytest.mark.parametrize("name", EXAMPLES)
Piece = tuple[Fraction, Fraction, Fraction, Fraction]
"""z from, z to, x = slope z + intercept."""


def test_every_constructor_has_an_example_and_is_made_again_by_its_parameters() -> None:
    assert {phi.name for phi in EXAMPLES.values()} == set(JUMPS)
    for phi in EXAMPLES.values():
        again = JUMPS[phi.name](**phi.parameters)
        z = np.linspace(-40, 40, N)
        np.testing.assert_array_equal(again(z), phi(z))


def pieces(phi: Jumping, i: int, lo: Fraction, hi: Fraction) -> Iterator[Piece]:
    """Yield the closed pieces of the graph of state i that meet [lo, hi], cut to it."""
    if isinstance(phi, Step):
        below, above, jump = (Fraction(float(np.broadcast_to(part, N)[i])) for part in (phi.below, phi.above, phi.jump))
        if lo <= 0:
            yield lo, min(hi, Fraction(0)), below, Fraction(0)
        if hi >= 0:
            yield max(lo, Fraction(0)), hi, above, jump
        return
    assert isinstance(phi, Stairs)
    lowest, highest = (float(np.broadcast_to(end, N)[i]) for end in (phi.lowest, phi.highest))
    centre, half = Fraction(RULES[phi.name].centre), Fraction(1, 2)
    first, last = -((half + centre - lo).__floor__()), (hi - centre + half).__floor__()
    first, last = (int(min(max(k, lowest), highest)) for k in (first, last))
    for k in range(first, last + 1):
        left = lo if k == first else k + centre - half
        right = hi if k == last else k + centre + half
        yield left, right, Fraction(0), Fraction(k)


def corner_values(phi: Jumping, i: int, lo: float, hi: float) -> list[tuple[Fraction, Fraction]]:
    """Return the ends of all pieces of state i over [lo, hi] as points (z, x)."""
    ends = pieces(phi, i, Fraction(lo), Fraction(hi))
    return [(z, slope * z + cut) for left, right, slope, cut in ends for z in (left, right)]


def intervals(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return intervals that begin, end or lie at thresholds, hair-thin ones and wide ones."""
    grid = rng.integers(-300, 300, size=(2, N)) / 2.0
    near = np.nextafter(grid, rng.choice([-np.inf, np.inf], size=(2, N)))
    free = rng.normal(size=(2, N)) * 10.0 ** rng.integers(-6, 2, size=(2, N))
    drawn = np.where(rng.random((2, N)) < 0.4, grid, np.where(rng.random((2, N)) < 0.3, near, free))
    drawn[1] = np.where(rng.random(N) < 0.3, drawn[0] + rng.integers(0, 3, N) / 2.0, drawn[1])
    return np.minimum(*drawn), np.maximum(*drawn)


@EVERY
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_the_support_is_the_least_number_over_the_closed_pieces(name: str, seed: int) -> None:
    phi, rng = EXAMPLES[name], np.random.default_rng(seed)
    lo, hi = intervals(rng)
    v, lam = rng.normal(size=(2, N)) * 10.0 ** rng.integers(-3, 3, size=(2, N))
    lam = np.where(rng.random(N) < 0.3, v, lam)
    v_error = np.where(rng.random(N) < 0.5, 0.0, np.abs(v) * rng.random(N) * 2)
    found = phi.lower_support(v, v_error, lam, lo, hi)
    for i in range(N):
        corners = corner_values(phi, i, lo[i], hi[i])
        a, e, b = Fraction(v[i]), Fraction(v_error[i]), Fraction(lam[i])
        least = min(w * x - b * z for z, x in corners for w in (a - e, a + e))
        size = max(abs(a * x) + e * abs(x) + abs(b * z) for z, x in corners)
        assert Fraction(found[i]) <= least
        if e == 0:
            assert float(least - Fraction(found[i])) <= 1e-12 * float(size) + 1e-290


@EVERY
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_intervals_and_slopes_are_those_of_the_pieces(name: str, seed: int) -> None:
    phi = EXAMPLES[name]
    lo, hi = intervals(np.random.default_rng(seed))
    (low, high), (least, most) = phi.interval(lo, hi), phi.slopes(lo, hi)
    for i in range(N):
        values = [x for _, x in corner_values(phi, i, lo[i], hi[i])]
        assert Fraction(low[i]) <= min(values)
        assert Fraction(high[i]) >= max(values)
        assert float(min(values) - Fraction(low[i])) <= 1e-12 * (1 + abs(low[i]))
        own = list(pieces(phi, i, Fraction(lo[i]), Fraction(hi[i])))
        assert all(least[i] <= float(slope) <= most[i] for _, _, slope, _ in own)
        heights = {slope * z + cut for left, right, slope, cut in own for z in {left, right} if len(own) > 1}
        if isinstance(phi, Stairs):
            assert (most[i] == np.inf) == (len(heights) > 1)
        elif lo[i] <= 0 <= hi[i]:
            jump = np.broadcast_to(phi.jump, N)[i]  # type: ignore[attr-defined]
            assert jump == 0 or np.inf in (most[i], -least[i])


@EVERY
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS, exponent=st.sampled_from([0, -3, 4]))
def test_lines_lie_on_their_side_of_every_corner(name: str, seed: int, exponent: int) -> None:
    phi, rng = EXAMPLES[name], np.random.default_rng(seed)
    lo, hi = intervals(rng)
    block = StateBlock("b", "Op", phi, (N,), exponent=exponent)
    below, above = block.lines(np.ldexp(lo, -exponent), np.ldexp(hi, -exponent))
    slopes = block.relaxation_slopes(np.ldexp(lo, -exponent), np.ldexp(hi, -exponent))
    assert np.isfinite(slopes).all()
    for side, lines in ((1.0, below), (-1.0, above)):
        for slope, cut in lines:
            assert np.isfinite(slope).all()
            for i in range(N):
                for z, x in corner_values(phi, i, lo[i], hi[i]):
                    at = (float(z) * slope[i] + np.ldexp(cut[i], exponent), float(x))
                    assert side * (at[1] - at[0]) >= -1e-11 * (1 + abs(at[1]) + abs(float(z) * slope[i]))


@EVERY
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_the_usual_lines_are_sides_of_the_hull(name: str, seed: int) -> None:
    """In the middle no other line below the graph is higher; so the one above, and for two corners at one place."""
    phi, rng = EXAMPLES[name], np.random.default_rng(seed)
    lo, hi = intervals(rng)
    slopes, none = phi.relaxation_slopes(lo, hi), np.zeros(N)
    middle = lo + 0.5 * (hi - lo)
    for side, own in ((1.0, slopes[0]), (-1.0, slopes[1])):
        height = phi.lower_support(np.full(N, side), none, side * own, lo, hi) + side * own * middle
        for other in (none, own + 0.1, own - 0.1, rng.normal(size=N)):
            rival = phi.lower_support(np.full(N, side), none, side * other, lo, hi) + side * other * middle
            assert (rival <= height + 1e-9 * (1 + np.abs(height) + np.abs(own * middle))).all()


@EVERY
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_the_graph_is_touched_where_the_support_is(name: str, seed: int) -> None:
    phi, rng = EXAMPLES[name], np.random.default_rng(seed)
    lo, hi = intervals(rng)
    side, k = rng.choice([-1.0, 1.0], size=N), rng.normal(size=N)
    z, x = phi.touched(side, k, lo, hi)
    assert ((z >= np.nextafter(lo, -np.inf) - 1e-250) & (z <= np.nextafter(hi, np.inf) + 1e-250)).all()
    found = phi.lower_support(side, np.zeros(N), side * k, lo, hi)
    np.testing.assert_allclose(side * (x - k * z), found, rtol=1e-9, atol=1e-9)
    least, most = phi.line_slopes(lo, hi)
    assert (np.isfinite(least) & np.isfinite(most) & (least <= most)).all()


def wide_pieces(phi: Stairs, i: int, lo: Fraction, hi: Fraction) -> int:
    """Return how many pieces meet [lo, hi] in more than a point; at thresholds both neighbours meet it in one."""
    return sum(left < right for left, right, _, _ in pieces(phi, i, lo, hi))


@EVERY
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_a_cut_leaves_fewer_pieces_on_both_sides(name: str, seed: int) -> None:
    phi = EXAMPLES[name]
    lo, hi = intervals(np.random.default_rng(seed))
    cut = phi.cut(lo, hi)
    for i in range(N):
        if not isinstance(phi, Stairs):
            assert cut[i] == 0
            continue
        ends = (lo[i], hi[i]), (lo[i], cut[i]), (cut[i], hi[i])
        whole, *sides = (wide_pieces(phi, i, Fraction(a), Fraction(b)) for a, b in ends)
        if whole > 1:
            assert lo[i] <= cut[i] <= hi[i]
            assert sum(sides) == whole
            assert max(sides) < whole


@EVERY
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, exponent=st.sampled_from([0, -3, 4]))
def test_the_sides_of_a_cut_have_the_whole_graph_and_each_value_at_it_once(name: str, seed: int, exponent: int) -> None:
    phi, rng = EXAMPLES[name], np.random.default_rng(seed)
    block = StateBlock("b", "Op", phi, (N,), exponent=exponent)
    lo, hi = (np.ldexp(end, -exponent) for end in intervals(rng))
    cut = np.where(rng.random(N) < 0.7, block.threshold(lo, hi), lo + rng.random(N) * (hi - lo))
    below, above = block.sides(cut)
    v, lam = rng.normal(size=(2, N))
    none = np.zeros(N)
    halves = [
        block.lower_support(v, none, lam, lo, np.minimum(hi, below)),
        block.lower_support(v, none, lam, np.maximum(lo, above), hi),
    ]
    inside = (lo < cut) & (cut < hi)
    for i in np.flatnonzero(inside):
        scale = Fraction(2) ** exponent
        corners = corner_values(phi, i, float(Fraction(lo[i]) * scale), float(Fraction(hi[i]) * scale))
        least = min(Fraction(v[i]) * x - Fraction(lam[i]) * z for z, x in corners) / scale
        assert Fraction(float(np.minimum(*halves)[i])) <= least
    if isinstance(phi, Stairs):
        at = block.threshold(lo, hi)
        below, above = block.sides(at)
        (_, last), (first, _) = block.interval(lo, below), block.interval(above, hi)
        low, high = block.interval(at, at)
        jumps = inside & (low < high)
        np.testing.assert_array_equal(last[jumps], low[jumps])
        np.testing.assert_array_equal(first[jumps], high[jumps])


@pytest.mark.parametrize(
    ("phi", "z", "x"),
    [
        (rounding(-128.0, 127.0), [0.5, 1.5, -0.5, 2.5, 200.0, -1e9], [0, 2, 0, 2, 127, -128]),
        (floor(), [1.0, -1.0, 0.5, -0.5, -1e-20], [1, -1, 0, -1, -1]),
        (ceil(), [1.0, -1.0, 0.5, -0.5, 1e-20], [1, -1, 1, 0, 1]),
        (step(), [-1.0, 0.0, 1e-300], [0, 0, 1]),
        (step(share=1.0), [-1e-300, 0.0, 1.0], [0, 1, 1]),
        (step(jump=2.0, share=1.0), [-1.0, 0.0, 1.0], [0, 2, 2]),
    ],
)
def test_values_at_thresholds_are_those_of_the_rule(phi: Jumping, z: list[float], x: list[float]) -> None:
    np.testing.assert_array_equal(phi(np.array(z)), x)


def test_an_interval_around_a_threshold_has_both_values() -> None:
    phi = rounding(-128.0, 127.0)
    for ends in ((0.4, 0.6), (0.5, 0.6), (0.4, 0.5), (0.5, 0.5)):
        assert [float(end[0]) for end in phi.interval(*(np.array([end]) for end in ends))] == [0.0, 1.0]
    # z - 1/2 <= q is false across saturation: no line of slope 1 lies below 127 with that height at 200
    low = phi.lower_support(*(np.array([value]) for value in (1.0, 0.0, 1.0, 100.0, 200.0)))
    assert low[0] == pytest.approx(127 - 200, abs=1e-9)


@pytest.mark.parametrize("ends", [(-np.inf, np.inf), (-np.inf, 0.0), (2 * LARGEST, 3 * LARGEST), (np.nan, 1.0)])
def test_beyond_what_float64_tells_apart_nothing_is_claimed(ends: tuple[float, float]) -> None:
    lo, hi = (np.array([end]) for end in ends)
    with np.errstate(invalid="ignore"):
        found = rounding().lower_support(np.ones(1), np.zeros(1), np.ones(1), lo, hi)
    assert found[0] == -np.inf


@EVERY
def test_some_states_keep_their_own_parameters(name: str) -> None:
    phi, states = EXAMPLES[name], np.array([3, 0, 11])
    z = np.linspace(-30, 5, N)
    np.testing.assert_array_equal(restricted(phi, states)(z[states]), phi(z)[states])


@EVERY
def test_patterns_of_dependence_have_no_products_with_infinity(name: str) -> None:
    phi = EXAMPLES[name]
    assert (phi.spread(np.array([0.0, 1.0])) == [0.0, np.inf]).all()


@EVERY
def test_slopes_for_the_search_are_finite(name: str) -> None:
    z = np.concatenate([[0.0, 0.5, -1e300, 1e300], np.linspace(-5, 5, N - 4)])
    assert np.isfinite(EXAMPLES[name].derivative(z)).all()


def stored(folder: Path, phi: Jumping, **changes: Any) -> ImplicitModel:
    """Return a model of one block as it is read back, with some of its file's numbers changed."""
    model = layered([(np.eye(N), np.zeros(N))], (np.ones((1, N)), [0.0]), phi)
    save_model(folder / "m.npz", model, origin={}, force=True)
    if changes:
        with np.load(folder / "m.npz") as file:
            arrays = dict(file)
        meta = json.loads(str(arrays["meta"]))
        meta["blocks"][0]["parameters"] |= changes
        arrays["meta"] = np.asarray(json.dumps(meta))
        np.savez(folder / "m.npz", **arrays)
    return load_model(folder / "m.npz").model


@EVERY
def test_a_converted_model_keeps_its_jumps(name: str, tmp_path: Path) -> None:
    phi = EXAMPLES[name]
    found = stored(tmp_path, phi).blocks[0].activation
    z = np.linspace(-40, 40, N)
    np.testing.assert_array_equal(found(z), phi(z))
    assert type(found) is type(phi)


@pytest.mark.parametrize(
    ("phi", "changes"),
    [
        (rounding(-1.0, 1.0), {"lowest": 2.0}),
        (rounding(-1.0, 1.0), {"lowest": -0.5}),
        (rounding(-1.0, 1.0), {"highest": float("nan")}),
        (step(), {"share": 1.5}),
        (step(), {"share": -0.5}),
        (step(), {"share": 0.5}),
        (rounding(), {"reach": -1.0}),
    ],
)
def test_a_file_whose_jumps_make_no_sense_is_refused(phi: Jumping, changes: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        stored(tmp_path, phi, **changes)


def test_what_is_no_end_of_a_step_is_refused() -> None:
    for share in (0.5, float("nan"), np.array([0.0, 0.25])):
        with pytest.raises(ValueError, match="0 or 1"):
            step(share=share)


def test_parts_that_jump_are_refused(tmp_path: Path) -> None:
    """A block would not know of their jumps, and a loop could hold them."""
    with pytest.raises(ValueError, match="may jump"):
        side_by_side([(step(), 1), (ACTIVATIONS["relu"](), 1)])
    parts = Mixed((ACTIVATIONS["abs"](), ACTIVATIONS["relu"]()), (1, 1))
    model = layered([(np.eye(2), np.zeros(2))], (np.ones((1, 2)), [0.0]), parts)
    save_model(tmp_path / "m.npz", model, origin={})
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    arrays["meta"] = np.asarray(str(arrays["meta"]).replace('"abs"', '"step"'))
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ModelFileError, match=r"no part of .* jumps"):
        load_model(tmp_path / "m.npz")


def test_beyond_a_type_nothing_is_claimed() -> None:
    lo, hi = np.array([-5.0, 0.0, 2.0**31, -1e18]), np.array([5.0, 2.0**31, 2.0**32, 0.0])
    phi, one = rounding(reach=2.0**31), np.ones(4)
    assert phi.inside(lo, hi).tolist() == [True, False, False, False]
    low, high = phi.interval(lo, hi)
    assert (low[0], high[0]) == (-5.0, 5.0)
    assert np.isneginf(low[1:]).all()
    assert np.isposinf(high[1:]).all()
    found = phi.lower_support(one, 0 * one, 0 * one, lo, hi)
    assert found[0] == pytest.approx(-5.0)
    assert np.isneginf(found[1:]).all()


def test_a_loop_that_jumps_is_refused(tmp_path: Path) -> None:
    model = layered([(np.eye(2), np.zeros(2))], (np.ones((1, 2)), [0.0]), step())
    looped = replace(model, rows=(replace(model.rows[0], states={0: Dense(matrix=0.1 * np.eye(2))}),))
    save_model(tmp_path / "m.npz", looped, origin={})
    with pytest.raises(ModelFileError, match="no loop holds states that jump"):
        load_model(tmp_path / "m.npz")
    with pytest.raises(UnsupportedModelError, match="nothing can prove that a loop around the plant"):
        feedback(model, layered([(np.eye(1), np.zeros(1))], (np.ones((2, 1)), [0.0, 0.0])))
