"""Rotated pictures: enclosures hold what the rule says, pixel by pixel, in many digits."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from idl_audit.data.perturbations import parse_perturbation
from idl_audit.values.errors import OptionError
from idl_audit.values.layouts import Layout
from idl_audit.values.perturbations import Around, Perturbed
from idl_audit.values.rotations import Rotated, Rotation, sine_and_cosine

DIGITS = 50


def exactly(planes: np.ndarray, degrees: float) -> list[list[list[mpmath.mpf]]]:
    """Return the rotated picture by the rule, in 50 digits, beyond the edges the nearest pixel."""
    channels, height, width = planes.shape
    with mpmath.workdps(DIGITS):
        angle = mpmath.mpf(degrees) * mpmath.pi / 180
        sine, cosine = mpmath.sin(angle), mpmath.cos(angle)
        cy, cx = mpmath.mpf(height - 1) / 2, mpmath.mpf(width - 1) / 2
        found = [[[mpmath.mpf(0)] * width for _ in range(height)] for _ in range(channels)]
        for r in range(height):
            for c in range(width):
                y = cy + cosine * (r - cy) + sine * (c - cx)
                x = cx - sine * (r - cy) + cosine * (c - cx)
                y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                i, j = int(mpmath.floor(y)), int(mpmath.floor(x))
                fy, fx = y - i, x - j
                below, right = min(i + 1, height - 1), min(j + 1, width - 1)
                for k in range(channels):
                    corners = [
                        mpmath.mpf(float(planes[k][p])) for p in ((i, j), (i, right), (below, j), (below, right))
                    ]
                    weights = [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]
                    found[k][r][c] = sum(w * v for w, v in zip(weights, corners, strict=True))
        return found


def flat(picture: list, layout: Layout) -> np.ndarray:
    return layout.flat(np.array(picture, dtype=object))


def picture(seed: int, shape: tuple[int, ...]) -> tuple[Rotated, Layout]:
    layout = Layout.of(shape)
    assert layout is not None
    sample = np.random.default_rng(seed).random(int(np.prod(shape)))
    return Rotated.of(sample, layout), layout


@pytest.mark.parametrize("degrees", [0.0, 1e-300, 1e-9, 0.5, -3.25, 17.0, -44.999, 45.0])
def test_sine_and_cosine_are_enclosed_within_two_spacings(degrees: float) -> None:
    with mpmath.workdps(DIGITS):
        angle = mpmath.mpf(degrees) * mpmath.pi / 180
        exact = mpmath.sin(angle), mpmath.cos(angle)
        for (low, high), value in zip(sine_and_cosine(degrees), exact, strict=True):
            assert mpmath.mpf(low) <= value <= mpmath.mpf(high)
            assert high - low <= max(2 * np.spacing(max(abs(low), abs(high))), 2.0**-150)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (2, 4, 5), (5, 4, 3)])
@pytest.mark.parametrize("ends", [(-0.5, 0.25), (-7.0, 0.0), (3.0, 3.0), (12.0, 12.5), (-45.0, 45.0)])
def test_rotated_pictures_are_enclosed(shape: tuple[int, ...], ends: tuple[float, float]) -> None:
    rotated, layout = picture(3, shape)
    lo, hi = ends
    least, most = rotated.enclosed(lo, hi)
    family = rotated.family(lo, hi)
    middle, half = lo / 2 + hi / 2, hi / 2 - lo / 2
    for share in (0.0, 1.0, 0.5, 0.123, 0.77):
        degrees = min(max(lo + share * (hi - lo), lo), hi)
        found = flat(exactly(rotated.planes, degrees), layout)
        assert all(a <= value <= b for a, value, b in zip(least.tolist(), found, most.tolist(), strict=True))
        t = 0.0 if half == 0 else (degrees - middle) / half
        assert family.spread is not None
        with mpmath.workdps(DIGITS):
            for u0, m, r, value in zip(family.offset, family.matrix[:, 0], family.spread, found, strict=True):
                line = mpmath.mpf(float(u0)) + mpmath.mpf(float(m)) * mpmath.mpf(t)
                assert abs(value - line) <= mpmath.mpf(float(r)) * (1 + mpmath.mpf(10) ** -9)


def test_an_angle_alone_is_known_to_about_its_rounding() -> None:
    rotated, _ = picture(1, (9, 9))
    for degrees in (0.0, 0.7, -13.0, 45.0):
        least, most = rotated.enclosed(degrees, degrees)
        assert (most - least).max() < 1e-12
    least, most = rotated.enclosed(0.0, 0.0)
    flat_sample = rotated.layout.flat(rotated.planes)
    assert ((least <= flat_sample) & (flat_sample <= most)).all()


def test_narrow_intervals_are_enclosed_to_second_order() -> None:
    """What a family leaves open of a pixel falls with the square of the width, where no pixel is crossed."""
    rotated, _ = picture(2, (8, 8))
    spreads = [np.sort(rotated.family(5.0, 5.0 + width).spread)[:40].mean() for width in (1.0, 0.1, 0.01)]
    assert spreads[1] < spreads[0] / 40
    assert spreads[2] < spreads[1] / 40


def test_a_quarter_turn_would_be_that_of_numpy_and_eighths_are_symmetric() -> None:
    """The rule turns counter-clockwise: a dark column right of the centre goes up."""
    planes = np.zeros((1, 5, 5))
    planes[0, 2, 4] = 1.0
    layout = Layout.of((5, 5))
    assert layout is not None
    rotated = Rotated(planes, layout)
    least, _ = rotated.enclosed(20.0, 20.0)
    shown = least.reshape(5, 5)
    assert shown[1, 4] > 0.1
    assert shown[3, 4] < 1e-12


def roughly(planes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return rotated pictures of one channel by the rule in float64, (angles, height, width)."""
    height, width = planes.shape[1:]
    down, right = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    sine, cosine = np.sin(np.radians(angles))[:, None, None], np.cos(np.radians(angles))[:, None, None]
    y = np.clip((height - 1) / 2 + cosine * down + sine * right, 0, height - 1)
    x = np.clip((width - 1) / 2 - sine * down + cosine * right, 0, width - 1)
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - i, x - j
    below, beside = np.minimum(i + 1, height - 1), np.minimum(j + 1, width - 1)
    above = (1 - fx) * planes[0][i, j] + fx * planes[0][i, beside]
    return (1 - fy) * above + fy * ((1 - fx) * planes[0][below, j] + fx * planes[0][below, beside])


def test_ten_thousand_angles_lie_in_their_enclosures() -> None:
    rotated, _ = picture(5, (7, 6))
    rng = np.random.default_rng(0)
    for _ in range(40):
        lo = rng.uniform(-45, 44)
        hi = min(45.0, lo + 10.0 ** rng.uniform(-4, 1))
        least, most = rotated.enclosed(lo, hi)
        family = rotated.family(lo, hi)
        angles = rng.uniform(lo, hi, 250)
        angles[:2] = lo, hi
        found = roughly(rotated.planes, angles).reshape(250, -1)
        assert (found >= least - 1e-12).all()
        assert (found <= most + 1e-12).all()
        t = (angles - (lo / 2 + hi / 2)) / (hi / 2 - lo / 2)
        far = np.abs(found - family.offset - t[:, None] * family.matrix[:, 0])
        assert (far <= family.spread + 1e-12).all()


REFUSED = [
    "rotate=0",
    "rotate=46",
    "rotate=-1",
    "rotate=nan",
    "rotate=5,rotate=6",
    "rotate=5,brightness=0.1",
    "rotate=",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_perturbation(text, option="--perturb")


def test_the_largest_angle_is_rounded_both_ways_and_scaled() -> None:
    assert parse_perturbation("rotate=5", option="--perturb").text == "rotate=5.0"
    inner, outer = Rotation(5.0).reach(0.1)
    assert Fraction(inner) <= Fraction(0.1) * 5 <= Fraction(outer)
    with pytest.raises(OptionError, match="more than 45"):
        Rotation(30.0).reach(2.0)
    around = Around(np.full(9, 0.5), (3, 3), (0.0, 1.0))
    hull = Perturbed(around, parse_perturbation("rotate=5", option="--perturb")).hull
    assert ((hull.lo <= 0.5) & (hull.hi >= 0.5)).all()
