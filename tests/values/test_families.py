"""Families of inputs and the perturbations that make them: every member lies where it is said to lie, exactly."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.data.perturbations import parse_perturbation, read_directions
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.families import Family
from idl_audit.values.layouts import Layout
from idl_audit.values.patches import Patch
from idl_audit.values.perturbations import KINDS, Around, Directions, Perturbation, Perturbed, Term

PICTURE = Around(np.arange(15.0) / 20, (3, 1, 5), (0.0, 1.0))
FLAT = Around(np.array([0.25, 0.5, 1.0]), (1, 3), (0.0, 1.0))


def exact_member(family: Family, t: list[Fraction]) -> list[Fraction]:
    """Return clip(u0 + M t + r e) in exact arithmetic."""
    found = []
    for i in range(family.size):
        value = Fraction(family.offset[i])
        value += sum(Fraction(m) * x for m, x in zip(family.matrix[i].tolist(), t, strict=False))
        if family.spread is not None:
            value += Fraction(family.spread[i]) * t[family.k + i]
        if family.clip is not None:
            value = min(max(value, Fraction(family.clip[0])), Fraction(family.clip[1]))
        found.append(value)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.integers(-30, 30))
def test_members_lie_within_their_enclosure_exactly(seed: int, spread: bool, clip: bool, scale: int) -> None:
    rng = np.random.default_rng(seed)
    p, k = 4, 2
    lo = -rng.random(k + p * spread) * 2.0**scale
    box = Box.between(lo, lo + rng.random(lo.size) * 2.0**scale)
    family = Family(
        rng.normal(size=p),
        rng.normal(size=(p, k)),
        box,
        (-0.5, 0.5) if clip else None,
        rng.random(p) if spread else None,
    )
    least, most = family.enclosed(box.lo, box.hi)
    share = [Fraction(int(n), 7) for n in rng.integers(0, 8, box.size)]
    inside = [Fraction(a) + s * (Fraction(b) - Fraction(a)) for a, b, s in zip(box.lo, box.hi, share, strict=True)]
    for ends in product(*zip(box.lo.tolist(), box.hi.tolist(), strict=True)) if box.size <= 2 else [box.lo, box.hi]:
        for t in (inside, [Fraction(float(end)) for end in ends]):
            for value, a, b in zip(exact_member(family, t), least, most, strict=True):
                assert Fraction(a) <= value <= Fraction(b)
    width = np.abs(family.matrix) @ (box.hi - box.lo)[:k] + (family.spread * (box.hi - box.lo)[k:] if spread else 0)
    assert (most - least <= width * (1 + 2.0**-40) + 2.0**-40 * (1 + 2.0**scale)).all(), (
        "an enclosure is not much wider than needed"
    )


def test_a_point_is_enclosed_tightly() -> None:
    family = Perturbation((Term("brightness", -0.5, 0.5),)).family(FLAT)
    lo, hi = family.enclosed(np.array([0.125]), np.array([0.125]))
    assert (lo <= [0.375, 0.625, 1.0]).all()
    assert (hi >= [0.375, 0.625, 1.0]).all()
    assert (hi - lo < 1e-14).all()
    np.testing.assert_array_equal(family.members(np.array([[0.125]])), [[0.375, 0.625, 1.0]])


@pytest.mark.parametrize(
    ("text", "at", "wanted"),
    [
        ("brightness=0.5", [0.25], [0.5, 0.75, 1.0]),
        ("contrast=0.5", [-0.5], [0.25 + 1 / 6, 0.5 + 1 / 24, 0.5 + 7 / 24]),
        ("fog=0.5", [0.5], [0.625, 0.75, 1.0]),
    ],
)
def test_directions_are_those_of_their_formulas(text: str, at: list[float], wanted: list[float]) -> None:
    found = parse_perturbation(text, option="--perturb").family(FLAT).members(np.array([at]))
    np.testing.assert_allclose(found, [wanted], rtol=1e-15)


def test_channels_have_a_brightness_of_their_own_and_colours_mix() -> None:
    family = parse_perturbation("colour=0.25", option="--perturb").family(PICTURE)
    moved = family.members(np.array([[0.25, 0.0, -0.25]])).reshape(3, 5) - PICTURE.sample.reshape(3, 5)
    np.testing.assert_allclose(moved, np.repeat([[0.25], [0.0], [-0.25]], 5, axis=1), atol=1e-15)
    tinted = parse_perturbation("tint=ff0000:1", option="--perturb").family(PICTURE).members(np.array([[1.0]]))
    np.testing.assert_array_equal(tinted.reshape(3, 5), np.repeat([[1.0], [0.0], [0.0]], 5, axis=1))


def test_channels_may_be_the_last_axis() -> None:
    last = Layout.of((1, 5, 6, 3))
    assert last == Layout(3, 5, 6, last=True)
    assert Layout.of((1, 3, 5, 6)) == Layout(3, 5, 6, last=False)
    assert Layout.of((5, 5, 3)) == Layout(3, 5, 5, last=True)
    assert Layout.of((3, 1, 5)) == Layout(3, 1, 5, last=False)
    assert Layout.of((1, 1, 4, 4)) == Layout(1, 4, 4, last=False)
    assert Layout.of((16, 8, 8)) == Layout(16, 8, 8, last=False)
    flat = np.arange(90.0)
    np.testing.assert_array_equal(last.planes(flat)[2, 1, 4], flat.reshape(5, 6, 3)[1, 4, 2])
    np.testing.assert_array_equal(last.flat(last.planes(flat)), flat)


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 6, 3), (3, 3, 3), (8, 2, 3), (8, 1, 3), (3, 5, 1), (64,), (1, 64)])
def test_a_shape_that_can_be_read_in_two_ways_is_no_picture(shape: tuple[int, ...]) -> None:
    assert Layout.of(shape) is None


@pytest.mark.parametrize("shape", [(3, 5, 6), (5, 6, 3), (1, 5, 6)])
def test_planes_are_those_of_numpy_and_come_back(shape: tuple[int, ...]) -> None:
    layout = Layout.of(shape)
    assert layout is not None
    picture = np.random.default_rng(0).random(shape)
    planes = picture if shape[0] < 5 else picture.transpose(2, 0, 1)
    assert np.array_equal(layout.planes(picture.reshape(-1)), planes)
    assert np.array_equal(layout.flat(planes), picture.reshape(-1))


@pytest.mark.parametrize("name", ["gauss3", "gauss5", "box3"])
def test_blurs_keep_what_is_even_and_spread_a_point(name: str) -> None:
    even = Around(np.full(49, 0.5), (7, 7), None)
    family = parse_perturbation(f"blur={name}:1", option="--perturb").family(even)
    np.testing.assert_allclose(family.members(np.ones((1, 1))), 0.5, rtol=1e-15)
    point = np.zeros((7, 7))
    point[3, 3] = 1.0
    blurred = parse_perturbation(f"blur={name}:1", option="--perturb").family(Around(point.reshape(-1), (7, 7), None))
    found = blurred.members(np.ones((1, 1))).reshape(7, 7)
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-15)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found[3, 3], {"gauss3": 0.25, "gauss5": (6 / 16) ** 2, "box3": 1 / 9}[name], rtol=1e-15)


def test_ranges_are_rounded_outward_for_proofs_and_inward_for_points() -> None:
    term = Term("contrast", 0.1, 1.7)
    lo, inner_lo, inner_hi, hi = term.interval(0.3)
    least, most = Fraction(0.3) * (Fraction(0.1) - 1), Fraction(0.3) * (Fraction(1.7) - 1)
    assert Fraction(lo) <= least <= Fraction(inner_lo)
    assert Fraction(inner_hi) <= most <= Fraction(hi)
    assert inner_lo - lo < 1e-15
    assert hi - inner_hi < 1e-15


def test_a_smaller_factor_is_a_smaller_set() -> None:
    changes = parse_perturbation("brightness=-0.1:0.3,contrast=0.2", option="--perturb")
    inner, outer = (Perturbed(FLAT, changes, factor).pieces[0].parameters for factor in (0.3, 0.7))
    assert (outer.lo <= inner.lo).all()
    assert (inner.hi <= outer.hi).all()
    assert outer.contains(np.zeros(2))
    assert inner.contains(np.zeros(2))


@pytest.mark.parametrize(
    ("axis", "shape"), [("first", (4, 3)), ("last", (3, 4)), ("first", (1, 4, 3)), ("last", (12,))]
)
def test_sensors_are_off_by_a_constant_or_drift_away_in_a_line(axis: str, shape: tuple[int, ...]) -> None:
    around = Around(np.zeros(12), shape, None)
    steps, sensors = (12, 1) if len(shape) == 1 else (4, 3)

    def series(text: str, amounts: np.ndarray) -> np.ndarray:
        found = parse_perturbation(text, option="--perturb").family(around).members(amounts[None])[0]
        return found.reshape(steps, sensors) if axis == "first" or sensors == 1 else found.reshape(sensors, steps).T

    amounts = np.array([0.5, -1.0, 0.25])[:sensors]
    np.testing.assert_array_equal(series(f"offset={axis}:1", amounts), np.tile(amounts, (steps, 1)))
    line = np.arange(steps)[:, None] / (steps - 1)
    np.testing.assert_array_equal(series(f"drift={axis}:1", amounts), line * amounts)


def test_a_sensor_that_is_lost_is_a_patch_of_its_steps() -> None:
    assert parse_perturbation("dropout=first:3", option="--perturb").patch == Patch(3, 1)
    assert parse_perturbation("dropout=last:3", option="--perturb").patch == Patch(1, 3)


@pytest.mark.parametrize(("text", "words"), [("offset=first:1", "--image-shape"), ("drift=first:1", "--image-shape")])
def test_what_is_no_series_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_perturbation(text, option="--perturb").family(Around(np.zeros(12), (2, 3, 2), None))
    with pytest.raises(OptionError, match="has one step"):
        parse_perturbation("drift=first:1", option="--perturb").family(Around(np.zeros(3), (1, 3), None))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("offset=0.1", "write it like offset=first:0.1"),
        ("drift=middle:0.1", "is written drift=first:0.1"),
        ("dropout=3", "write it like dropout=first:3"),
        ("dropout=first:x", "write it like dropout=first:3"),
        ("gamma=2", "it has 'gamma=2'"),
        ("brightness", "must be a list of changes such as brightness=0.1"),
        ("brightness=0.1:0.2", "give a range that holds 0"),
        ("brightness=0", "and more"),
        ("brightness=nan", "where a number"),
        ("contrast=1.1:1.2", "that holds 1"),
        ("fog=2", "within 0 to 1"),
        ("blur=0.5", "write it like blur=gauss3:0.5"),
        ("blur=median:0.5", "is written blur=gauss3:0.5"),
        ("tint=red:0.5", "is written tint=ff8800:0.3"),
        ("brightness=0.1,brightness=0.2", "names a change twice"),
        ("brightness=1:2:3", "write it like"),
        ("", "must be a list of changes"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        parse_perturbation(text, option="--perturb")


def test_what_a_sample_cannot_have_is_refused() -> None:
    for text, around, words in (
        ("fog=0.1", Around(np.zeros(3), (3,), None), "--bounds"),
        ("blur=box3:1", FLAT, "--image-shape"),
        ("tint=000000:1", Around(np.zeros(4), (2, 2), (0.0, 1.0)), "three channels"),
    ):
        with pytest.raises(OptionError, match=words):
            parse_perturbation(text, option="--perturb").family(around)
    with pytest.raises(DataError, match="outside the valid data range"):
        parse_perturbation("brightness=0.1", option="--perturb").family(Around(np.array([1.5]), (1,), (0.0, 1.0)))


def test_directions_of_a_file(tmp_path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 1, 3))
    np.savez(tmp_path / "d.npz", directions=vectors, low=np.array([-0.5, 0.0]), high=np.array([0.0, 2.0]))
    found = read_directions(tmp_path / "d.npz", 3)
    family = Perturbation((), found).family(Around(np.zeros(3), (3,), None))
    np.testing.assert_array_equal(family.matrix, vectors.reshape(2, 3).T)
    np.testing.assert_array_equal(family.parameters.lo, [-0.5, 0.0])
    np.testing.assert_array_equal(family.parameters.hi, [0.0, 2.0])
    np.save(tmp_path / "d.npy", vectors)
    assert (read_directions(tmp_path / "d.npy", 3).low == -1).all()
    for arrays, words in (
        ({"directions": vectors, "low": np.zeros(3)}, "2 directions"),
        ({"directions": vectors, "low": np.ones(2)}, "leaves 0 out"),
        ({"directions": np.full((1, 3), np.nan)}, "finite"),
        ({"directions": np.zeros((2, 4))}, "3 inputs"),
        ({"other": np.zeros((2, 3))}, "no array named directions"),
    ):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(DataError, match=words):
            read_directions(tmp_path / "bad.npz", 3)
    with pytest.raises(DataError, match="numbers each"):
        Perturbation((), Directions(np.ones((1, 2)), -np.ones(1), np.ones(1))).family(FLAT)


def test_the_example_of_every_kind_is_read() -> None:
    for name, kind in KINDS.items():
        (term,) = parse_perturbation(kind.example, option="--perturb").terms
        assert term.kind == name
        assert parse_perturbation(term.text, option="--perturb").terms == (term,)
