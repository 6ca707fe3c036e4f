"""Perturbations that people mean, as families of inputs: of pictures, of series of sensors, along directions.

The families of one perturbation add up: u = u0 + t_1 m_1 + ... + t_k m_k, each t_j in its own interval, inputs beyond
the valid range saturating at its ends. A direction m_j is a vector of float64 numbers made of the sample u0 by the rule
of its kind below; these numbers define the set (docs/mathematics.md, section 14.1).

Elsewhere: semantic perturbation, parametrised specification.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.families import Family
from idl_audit.values.layouts import Layout
from idl_audit.values.patches import Patch
from idl_audit.values.rotations import Rotated, Rotation
from idl_audit.values.rounding import float_above, float_below
from idl_audit.values.shifts import QUADRANTS, Shift

MOST_DIRECTIONS: Final = 64
"""Parameters of one perturbation."""

Clip: TypeAlias = tuple[float, float] | None


@dataclass(frozen=True)
class Term:
    """One kind of change and how far it goes."""

    kind: str
    lo: float
    hi: float
    detail: str = ""
    """Which blur, which colour."""

    def __post_init__(self) -> None:
        rule = KINDS.get(self.kind)
        if rule is None:
            raise OptionError(f"there is no perturbation '{self.kind}'; known are {', '.join(KINDS)}")
        if not re.fullmatch(rule.detail or "", self.detail):
            raise OptionError(f"the perturbation {self.kind} is written {rule.example}, not with {self.detail!r}")
        within = math.isfinite(self.lo) and math.isfinite(self.hi) and rule.least <= self.lo and self.hi <= rule.most
        if not (within and self.lo <= rule.rest <= self.hi and self.lo < self.hi):
            limits = f" within {rule.least:g} to {rule.most:g}" if rule.least > -math.inf else ""
            raise OptionError(
                f"the perturbation {self.kind} goes from {self.lo:g} to {self.hi:g}; give a range{limits} that holds "
                f"{rule.rest:g}, which leaves the sample as it is, and more"
            )

    @property
    def text(self) -> str:
        """How it is written in full: brightness=-0.1:0.1."""
        return f"{self.kind}={self.detail}{':' if self.detail else ''}{self.lo!r}:{self.hi!r}"

    def interval(self, factor: float) -> tuple[float, float, float, float]:
        """Return the interval of the parameter t, (lo, inner lo, inner hi, hi): t = 0 is the sample, times a factor."""
        rest, ends = Fraction(KINDS[self.kind].rest), (Fraction(self.lo), Fraction(self.hi))
        least, most = (Fraction(factor) * (end - rest) for end in ends)
        return float_below(least), float_above(least), float_below(most), float_above(most)


# --- the directions of each kind -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Around:
    """The sample that a family is around."""

    sample: FloatArray
    """(p,)."""
    shape: tuple[int, ...]
    """Of one input."""
    clip: Clip

    def layout(self, kind: str) -> Layout:
        """Return where the pixels are. Raises OptionError where the inputs are no pictures."""
        found = Layout.of(self.shape)
        if found is None:
            raise OptionError(
                f"{kind} needs pictures whose channels are the first or the last of three axes, and an input has shape "
                f"{'x'.join(map(str, self.shape))}, which is none or can be read in two ways; say how it is one with "
                "--image-shape, such as 28,28 or 3,32,32"
            )
        return found

    def range(self, kind: str) -> tuple[float, float]:
        """Return the valid range. Raises OptionError where there is none."""
        if self.clip is None:
            raise OptionError(f"{kind} needs the valid range of the data; give it with --bounds LO,HI")
        return self.clip


def refuse_outside(around: Around) -> None:
    """Raise DataError where a sample lies outside the valid range, which its members stay in."""
    u0, clip = np.asarray(around.sample, np.float64), around.clip
    if clip is not None and not ((u0 >= clip[0]) & (u0 <= clip[1])).all():
        where = int(np.argmax(~((u0 >= clip[0]) & (u0 <= clip[1]))))
        raise DataError(
            f"input {where} is {u0[where]}, outside the valid data range {clip[0]} to {clip[1]}; give the range of the "
            "data with --bounds LO,HI, or scale the data with --scale"
        )


def _brightness(around: Around, detail: str) -> FloatArray:
    """All inputs rise by t."""
    return np.ones((around.sample.size, 1))


def _contrast(around: Around, detail: str) -> FloatArray:
    """u = m + c (u0 - m), c = 1 + t, m the mean of the sample's inputs."""
    mean = math.fsum(around.sample.tolist()) / around.sample.size
    return (around.sample - mean)[:, None]


def _fog(around: Around, detail: str) -> FloatArray:
    """u = u0 + t (white - u0), white the greatest valid value."""
    return (around.range("fog")[1] - around.sample)[:, None]


def _tint(around: Around, detail: str) -> FloatArray:
    """u = u0 + t (colour - u0), the colour RRGGBB on the valid range."""
    layout, (lo, hi) = around.layout("tint"), around.range("tint")
    if layout.channels != 3:
        raise OptionError(f"tint needs three channels, and the pictures have {layout.channels}; fog needs none")
    shades = np.array([int(detail[at : at + 2], 16) for at in (0, 2, 4)]) / 255.0
    colour = lo + shades * (hi - lo)
    planes = np.broadcast_to(colour[:, None, None], (3, layout.height, layout.width))
    return (layout.flat(planes) - around.sample)[:, None]


def _colour(around: Around, detail: str) -> FloatArray:
    """The inputs of each channel rise by a t of their own."""
    layout = around.layout("colour")
    planes = np.zeros((layout.channels, layout.channels, layout.height, layout.width))
    planes[np.arange(layout.channels), np.arange(layout.channels)] = 1.0
    return layout.flat(planes).T


KERNELS: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {"gauss3": (1.0, 2.0, 1.0), "gauss5": (1.0, 4.0, 6.0, 4.0, 1.0), "box3": (1.0, 1.0, 1.0)}
)
"""Name of a blur -> its weights along one axis, of which their sum is taken off; edges are repeated."""


def _blur(around: Around, detail: str) -> FloatArray:
    """u = u0 + t (blurred u0 - u0), the blur row by row and column by column, edges repeated."""
    layout, weights = around.layout("blur"), KERNELS[detail]
    planes = layout.planes(around.sample)
    for axis in (1, 2):
        half, extent = len(weights) // 2, planes.shape[axis]
        total = np.zeros_like(planes)
        for k, weight in enumerate(weights):
            rows = np.clip(np.arange(extent) + k - half, 0, extent - 1)
            total = total + weight * np.take(planes, rows, axis=axis)
        planes = total / sum(weights)
    return (layout.flat(planes) - around.sample)[:, None]


TIME: Final = "first|last"
"""The axis of an input that is time."""


def _steps(around: Around, kind: str, detail: str) -> IntArray:
    """Return which input is what sensor says at which step, (steps, sensors). Raises OptionError where none is."""
    shape = around.shape if len(around.shape) <= 2 else tuple(n for n in around.shape if n > 1)
    if len(shape) > 2:
        raise OptionError(
            f"{kind} needs series of steps and sensors, and an input has shape {'x'.join(map(str, around.shape))}; say "
            "how it is one with --image-shape, such as 50,3"
        )
    places = np.arange(around.sample.size).reshape(shape if len(shape) == 2 else (-1, 1))
    return places.T if detail == "last" and len(shape) == 2 else places


def _each_sensor(places: IntArray, course: FloatArray) -> FloatArray:
    """Return one direction a sensor, in which its inputs rise by what the course has at each step."""
    directions = np.zeros((places.size, places.shape[1]))
    directions[places, np.arange(places.shape[1])] = course[:, None]
    return directions


def _offset(around: Around, detail: str) -> FloatArray:
    """The inputs of each sensor rise by a t of its own."""
    places = _steps(around, "offset", detail)
    return _each_sensor(places, np.ones(len(places)))


def _drift(around: Around, detail: str) -> FloatArray:
    """Each sensor's inputs rise from 0 at the first step, in a line, to a t of its own at the last."""
    places = _steps(around, "drift", detail)
    if len(places) < 2:
        raise OptionError("drift grows from step to step, and an input has one step; offset needs no more")
    return _each_sensor(places, np.arange(len(places)) / (len(places) - 1))


@dataclass(frozen=True)
class Kind:
    """A kind of change."""

    directions: Callable[[Around, str], FloatArray]
    """(sample, detail) -> M, (p, k)."""
    example: str
    rest: float = 0.0
    """The number that leaves the sample as it is."""
    least: float = -math.inf
    most: float = math.inf
    detail: str | None = None
    """Pattern of what is written before the range."""
    one_number: Callable[[float], tuple[float, float]] = lambda number: (-number, number)
    """The range that one number stands for."""
    needs_picture: bool = False


def _from_rest(number: float) -> tuple[float, float]:
    return (0.0, number)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "brightness": Kind(_brightness, "brightness=0.1"),
        "contrast": Kind(_contrast, "contrast=0.8:1.2", 1.0, 0.0, one_number=lambda by: (1.0 - by, 1.0 + by)),
        "fog": Kind(_fog, "fog=0.3", 0.0, 0.0, 1.0, one_number=_from_rest),
        "tint": Kind(_tint, "tint=ff8800:0.3", 0.0, 0.0, 1.0, "[0-9a-f]{6}", _from_rest, needs_picture=True),
        "colour": Kind(_colour, "colour=0.05", needs_picture=True),
        "blur": Kind(_blur, "blur=gauss3:0.5", 0.0, 0.0, 1.0, "|".join(KERNELS), _from_rest, needs_picture=True),
        "offset": Kind(_offset, "offset=first:0.1", detail=TIME),
        "drift": Kind(_drift, "drift=first:0.1", detail=TIME),
    }
)
"""What --perturb knows of changes along directions."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of a file: u = u0 + sum_j t_j d_j, low_j <= t_j <= high_j."""

    vectors: FloatArray
    """(k, p)."""
    low: FloatArray
    """(k,), at most 0."""
    high: FloatArray
    """(k,), at least 0."""

    def __post_init__(self) -> None:
        k = len(self.vectors)
        if self.vectors.ndim != 2 or not 0 < k <= MOST_DIRECTIONS or self.low.shape != (k,) or self.high.shape != (k,):
            raise DataError(f"directions are 1 to {MOST_DIRECTIONS} vectors, each with one low and one high")
        if not all(np.isfinite(part).all() for part in (self.vectors, self.low, self.high)):
            raise DataError("directions must be finite numbers; found NaN or infinity")
        if not ((self.low <= 0) & (self.high >= 0) & (self.low < self.high)).all():
            raise DataError("each direction goes from a low of at most 0 to a high of at least 0, which leaves 0 out")

    @property
    def arrays(self) -> list[FloatArray]:
        """All that defines them."""
        return [self.vectors, self.low, self.high]


@dataclass(frozen=True)
class Perturbation:
    """Changes along directions, all at once, or a patch."""

    terms: tuple[Term, ...] = ()
    directions: Directions | None = None
    patch: Patch | None = None
    """It stands alone."""
    shift: Shift | None = None
    """It stands alone, too."""
    rotation: Rotation | None = None
    """So does it."""

    def __post_init__(self) -> None:
        alone = self._alone
        if not self.terms and self.directions is None and not alone:
            raise OptionError("a perturbation must name at least one change")
        if len(alone) > 1 or (alone and (self.terms or self.directions is not None)):
            raise OptionError(f"{alone[0]} stands alone: leave the other changes out")
        names = [(term.kind, term.detail) for term in self.terms]
        if len(set(names)) < len(names):
            raise OptionError(f"the perturbation {self.text} names a change twice; give each once")

    @property
    def text(self) -> str:
        """How its terms are written in full."""
        return ",".join([*(term.text for term in self.terms), *self._alone])

    @property
    def _alone(self) -> list[str]:
        """What stands alone, as it is written."""
        return [one.text for one in (self.patch, self.shift, self.rotation) if one is not None]

    @property
    def needs_picture(self) -> bool:
        """Whether the set depends on where the pixels of an input stand."""
        return (
            self.patch is not None
            or self.shift is not None
            or self.rotation is not None
            or any(KINDS[term.kind].needs_picture for term in self.terms)
        )

    @property
    def has_ranges(self) -> bool:
        """Whether there is something for a factor to multiply."""
        return self.patch is None

    def family(self, around: Around, factor: float = 1.0) -> Family:
        """Return the family around a sample, all ranges times a factor.

        Raises:
            OptionError: where a change needs a picture or a valid range, and there is none.
            DataError: where the sample lies outside the valid range, or directions have another size.
        """
        u0, clip = np.asarray(around.sample, np.float64), around.clip
        refuse_outside(around)
        columns, ends = [], []
        for term in self.terms:
            columns.append(KINDS[term.kind].directions(around, term.detail))
            ends += [term.interval(factor)] * columns[-1].shape[1]
        if self.directions is not None:
            own = self.directions
            if own.vectors.shape[1] != u0.size:
                raise DataError(f"directions have {own.vectors.shape[1]} numbers each, and an input {u0.size}")
            columns.append(own.vectors.T)
            for low, high in zip(own.low.tolist(), own.high.tolist(), strict=True):
                least, most = Fraction(factor) * Fraction(low), Fraction(factor) * Fraction(high)
                ends.append((float_below(least), float_above(least), float_below(most), float_above(most)))
        lo, inner_lo, inner_hi, hi = np.array(ends).T
        return Family(u0, np.hstack(columns), Box(lo, hi, inner_lo, inner_hi), clip)

    def names(self, around: Around) -> tuple[str, ...]:
        """Return what each parameter is called."""
        found: list[str] = []
        for term in self.terms:
            count = KINDS[term.kind].directions(around, term.detail).shape[1]
            found += [term.kind] if count == 1 else [f"{term.kind} {k}" for k in range(count)]
        if self.directions is not None:
            found += [f"direction {k}" for k in range(len(self.directions.vectors))]
        return tuple(found)

    def values(self, around: Around, t: FloatArray) -> tuple[float, ...]:
        """Return the parameters as they are written, contrast from 1 on."""
        rests: list[float] = []
        for term in self.terms:
            rests += [KINDS[term.kind].rest] * KINDS[term.kind].directions(around, term.detail).shape[1]
        rests += [0.0] * (t.size - len(rests))
        return tuple(float(rest + value) for rest, value in zip(rests, t, strict=True))


Piece: TypeAlias = Family | Box
"""A family of inputs, or a box of them."""


@dataclass(frozen=True, eq=False)
class Perturbed:
    """The set of what a perturbation makes of one sample: a union of pieces."""

    around: Around
    perturbation: Perturbation
    factor: float = 1.0
    """Of all ranges."""

    def __post_init__(self) -> None:
        if not self.perturbation.has_ranges and self.factor != 1:
            raise OptionError(f"{self.perturbation.text} has no range for eps to multiply; leave eps out")

    def check(self) -> None:
        """Raise as `pieces` does where the set makes no sense, without making all of them."""
        patch, around = self.perturbation.patch, self.around
        if patch is None:
            _ = self.pieces
        else:
            next(patch.boxes(around.sample, around.layout("patch"), around.range("patch")))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What the set is the union of: families, or boxes of inputs. Raises as `Perturbation.family` does."""
        patch, shift, around = self.perturbation.patch, self.perturbation.shift, self.around
        if self.perturbation.rotation is not None:
            reach = self.perturbation.rotation.reach(self.factor)[1]
            return tuple(self.rotated.family(*ends) for ends in ((-reach, 0.0), (0.0, reach)))
        if shift is not None:
            refuse_outside(around)
            return tuple(shift.families(around.sample, around.layout("translate"), self.factor))
        if patch is None:
            return (self.perturbation.family(around, self.factor),)
        return tuple(patch.boxes(around.sample, around.layout("patch"), around.range("patch")))

    def turned(self, angles: Sequence[float]) -> Iterator[Family]:
        """Yield for each interval between neighbouring angles a family that holds what is rotated by one of it."""
        rotated = self.rotated
        for lo, hi in pairwise(angles):
            yield rotated.family(lo, hi)

    @property
    def rotated(self) -> Rotated:
        """The picture and what its rotations are between. Raises as `Perturbation.family` does."""
        refuse_outside(self.around)
        return Rotated.of(self.around.sample, self.around.layout("rotate"))

    def values(self, number: int, point: FloatArray) -> tuple[float, ...]:
        """Return the parameters of a point of one of the pieces: of a patch its row and column."""
        patch = self.perturbation.patch
        if self.perturbation.shift is not None:
            down, right = QUADRANTS[number]
            return (float(down * point[0]), float(right * point[1])) if point.size == 2 else (float(down), float(right))
        if patch is None:
            return self.perturbation.values(self.around, point)
        row, column = patch.positions(self.around.layout("patch"))[number]
        return (float(row), float(column))

    @property
    def hull(self) -> Box:
        """A box around the set, rounded outward."""
        boxes = [piece.hull for piece in self.pieces]
        return Box.between(np.min([box.lo for box in boxes], axis=0), np.max([box.hi for box in boxes], axis=0))
