"""features.toml: what the inputs of a table are - names, kinds, ranges, steps, categories - and sets of valid rows.

    [[feature]]
    name = "age"
    kind = "integer"
    range = [17, 90]
    radius = 2          # moves by so much for eps = 1

    [[feature]]
    name = "sex"
    categories = ["female", "male"]   # one input each, 1 for the category and 0 for the others
    protected = true

    [[rule]]
    holds = "total = a + b"     # or "min <= max", "2 * a - b >= 0.5": valid rows satisfy it
    tolerance = 0.01            # 0, unless it is given

Features stand in the order of the inputs. A categorical one takes as many inputs as it has categories.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from idl_audit.data.feature_rules import read_rules
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError
from idl_audit.values.linear_rules import LinearRule
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.text import decoded

Kind = Literal["continuous", "integer", "categorical", "fixed"]
KEYS: Final = ("name", "kind", "range", "step", "radius", "categories", "moves", "protected", "unit", "monotone")
MOST_VALUES: Final = 4096
"""Values of a whole-number feature within a set."""
MOST_BYTES: Final = 2**22


@dataclass(frozen=True)
class Feature:
    """One column of a table, or one column of categories: what it may be, and how far it moves."""

    name: str
    kind: Kind
    place: int
    """Its first input."""
    size: int = 1
    """Inputs that it takes."""
    lo: float = -math.inf
    hi: float = math.inf
    start: float = 0.0
    """The lower end as it is written, where there is one: not the float32 number next to it."""
    step: float = 1.0
    """Of a whole-number feature: valid are the float32 numbers next to start + k step."""
    radius: float = 1.0
    """How far it moves for eps = 1."""
    categories: tuple[str, ...] = ()
    moves: bool = True
    """Whether it moves at all where it is not protected: categories do not unless this says so."""
    protected: bool = False
    unit: str = ""
    monotone: Literal["+", "-"] | None = None
    """The way that a score is to go while it rises: what --everywhere asks where nothing else is said."""

    @property
    def columns(self) -> tuple[int, ...]:
        """Its inputs."""
        return tuple(range(self.place, self.place + self.size))

    def number(self, value: float) -> int:
        """Return k of the whole step that is next to a value."""
        return round((Fraction(value) - _decimal(self.start)) / _decimal(self.step))

    def at(self, numbers: Sequence[int]) -> FloatArray:
        """Return the float32 numbers next to start + k step, whose ends are decimals: -0.3 + 3 * 0.1 is 0."""
        start, step = _decimal(self.start), _decimal(self.step)
        per = math.lcm(start.denominator, step.denominator)
        first, each = int(start * per), int(step * per)
        return np.array([(first + k * each) / per for k in numbers], np.float32).astype(np.float64)

    def told(self, row: FloatArray) -> str:
        """Return its value in a row, in its unit."""
        own = row[list(self.columns)]
        if self.kind == "categorical":
            return self.categories[int(own.argmax())]
        value = f"{own[0]:.6g}"
        return f"{value} {self.unit}" if self.unit else value


@dataclass(frozen=True)
class Features:
    """All features of a table, in the order of the inputs."""

    path: Path
    sha256: str
    features: tuple[Feature, ...]
    rules: tuple[LinearRule, ...] = ()
    """What valid rows satisfy beside."""

    @property
    def size(self) -> int:
        """Inputs in all."""
        return sum(feature.size for feature in self.features)

    def changes(self, before: FloatArray, after: FloatArray) -> tuple[tuple[str, str, str], ...]:
        """Return (name, before, after) of the features that differ between two rows of the network's numbers."""
        return tuple(
            (one.name, one.told(before), one.told(after))
            for one in self.features
            if (before[list(one.columns)] != after[list(one.columns)]).any()
        )

    def cell(self, row: FloatArray, eps: float, *, protected: bool) -> Cell:
        """Return the valid rows around one: each feature within eps times its radius, or the protected ones alone.

        Args:
            row: the sample, float32 numbers, shape (p,).
            eps: the radius.
            protected: whether nothing moves but the protected features, each to all its valid values.

        Raises:
            DataError: where the row is none, or a feature has too many values within the set.
        """
        sigma, choices = np.zeros(row.size), []
        lo, hi = np.full(row.size, -np.inf), np.full(row.size, np.inf)
        free: list[Feature] = []
        for one in self.features:
            self._check(one, row)
            where = list(one.columns)
            moves, everywhere = (one.protected, True) if protected else (one.moves and one.kind != "fixed", False)
            if one.kind == "categorical":
                choices.append(Choice(one.columns, np.eye(one.size) if moves else row[where][None]))
            elif one.kind == "integer":
                values = self._whole(one, float(row[where[0]]), eps if moves else 0.0, everywhere=everywhere and moves)
                choices.append(Choice(one.columns, values[:, None]))
            elif moves and everywhere:
                free.append(one)
            elif moves:
                sigma[where] = one.radius
            lo[where], hi[where] = one.lo, one.hi
        for rule in self.rules:
            over = rule.value(row)
            if over > 0:
                raise DataError(
                    f"{self.path}: the rule '{rule.text}' does not hold, by {float(over):g}; leave the row out, or "
                    "give the rule a tolerance"
                )
        return Cell(self._box(row, eps, sigma, (lo, hi), free), tuple(choices), self.rules)

    def whole(self, clip: tuple[float, float] | None = None) -> Cell:
        """Return all valid rows, fixed features included: each feature through its range.

        Args:
            clip: the range of features that the file gives none.

        Raises:
            DataError: where a feature has no range, or too many values in it.
        """
        choices, ends = [], np.zeros((2, self.size))
        for one in self.features:
            if one.kind == "categorical":
                choices.append(Choice(one.columns, np.eye(one.size)))
                continue
            ends[:, one.place], own = self._through(one, clip)
            choices += own
        return Cell(Box.between(*ends), tuple(choices), self.rules)

    def rising(self, row: FloatArray, eps: float, place: int, clip: tuple[float, float] | None = None) -> Cell:
        """Return the valid rows around one as `cell` does, but with the feature at one input through its range.

        Args:
            row: the sample, float32 numbers, shape (p,).
            eps: the radius of the others; 0 holds those fixed that have no values of their own to go through.
            place: the input, of a feature that is a number.
            clip: the range of the feature where the file gives it none.

        Raises:
            DataError: where the row is none, or a feature has no range or too many values within the set.
        """
        cell = self.cell(row, eps, protected=False)
        (one,) = (feature for feature in self.features if feature.place == place)
        ends, own = self._through(one, clip)
        box = [cell.box.lo.copy(), cell.box.hi.copy(), cell.box.inner_lo.copy(), cell.box.inner_hi.copy()]
        for k, side in enumerate(box):
            side[place] = ends[k % 2]
        lo, hi, inner_lo, inner_hi = box
        others = (choice for choice in cell.choices if place not in choice.columns)
        return Cell(Box(lo, hi, inner_lo, inner_hi), (*others, *own), self.rules)

    def _through(self, one: Feature, clip: tuple[float, float] | None) -> tuple[tuple[float, float], list[Choice]]:
        """Return the range of a feature that is a number and, of a whole one, its values. Raises DataError."""
        has_own = math.isfinite(one.lo) or one.kind == "integer" or clip is None
        lo, hi = (one.lo, one.hi) if has_own or clip is None else clip
        if not (math.isfinite(lo) and math.isfinite(hi)):
            raise DataError(f"{self.path}: {one.name} has no range; give it range = [LO, HI]")
        if one.kind != "integer":
            return (lo, hi), []
        return (lo, hi), [Choice(one.columns, self._whole(one, lo, 0.0, everywhere=True)[:, None])]

    def _box(
        self,
        row: FloatArray,
        eps: float,
        sigma: FloatArray,
        ranges: tuple[FloatArray, FloatArray],
        free: Sequence[Feature],
    ) -> Box:
        around = Box.around(row, eps if eps > 0 else 1.0, sigma=sigma if eps > 0 else np.zeros(row.size))
        lo, hi = ranges
        ends = [np.maximum(end, lo) for end in (around.lo, around.inner_lo)]
        ends += [np.minimum(end, hi) for end in (around.hi, around.inner_hi)]
        for one in free:
            ends[0][one.place] = ends[1][one.place] = one.lo
            ends[2][one.place] = ends[3][one.place] = one.hi
        return Box(ends[0], ends[2], ends[1], ends[3])

    def _whole(self, one: Feature, value: float, eps: float, *, everywhere: bool) -> FloatArray:
        """Return the valid values of a whole-number feature near its value, float32 numbers, ascending."""
        low, high = (one.lo, one.hi) if everywhere else (value - eps * one.radius, value + eps * one.radius)
        low, high = max(low, one.lo), min(high, one.hi)
        first, last = math.floor((low - one.start) / one.step) - 1, math.ceil((high - one.start) / one.step) + 1
        if last - first > MOST_VALUES:
            raise DataError(
                f"{self.path}: {one.name} has more than {MOST_VALUES} values within the set; call it continuous"
            )
        numbers = range(first, last + 1)
        found, place = one.at(numbers), one.number(value)
        reach = eps * one.radius * (1 + 2.0**-50)  # a whole step that its decimals reach is reached
        steps = np.array([abs(k - place) * one.step for k in numbers])  # in decimals, which float32 numbers are not
        near = (found >= low) & (found <= high) if everywhere else (steps <= reach) | (np.abs(found - value) <= reach)
        kept = found[(near & (found >= one.lo) & (found <= one.hi)) | (found == value)]
        return np.unique(kept)  # beyond 2^24 float32 does not have every whole number

    def _check(self, one: Feature, row: FloatArray) -> None:
        """Refuse a sample that is no valid row. Raises DataError."""
        own = row[list(one.columns)]
        where = f"{self.path}: {one.name} is"
        if one.kind == "categorical":
            if sorted(own.tolist()) != [0.0] * (one.size - 1) + [1.0]:
                raise DataError(f"{where} no category: one of its {one.size} inputs must be 1, and the others 0")
            return
        value = float(own[0])
        if not one.lo <= value <= one.hi:
            raise DataError(f"{where} {value:g}, outside its range {one.lo:g} to {one.hi:g}")
        if one.kind == "integer" and one.at([one.number(value)])[0] != value:
            raise DataError(f"{where} {value:g}, and its values are {one.start:g} plus whole steps of {one.step:g}")


def read_features(path: Path) -> Features:
    """Return what a file says of the inputs. Raises DataError with the file, the feature and what would work."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a features.toml") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{path} is too large for a list of features")
    try:
        found = tomllib.loads(decoded(content, path, "give the TOML file that says what the features are"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no TOML ({error}); write [[feature]] tables") from error
    entries = found.get("feature")
    if not set(found) <= {"feature", "rule"} or not isinstance(entries, list) or not entries:
        raise DataError(f"{path} must have [[feature]] tables, perhaps [[rule]] tables, and nothing beside them")
    features: list[Feature] = []
    for number, entry in enumerate(entries):
        place = sum(one.size for one in features)
        features.append(_feature(entry, place, f"{path}: feature {number}"))
    names = [one.name for one in features]
    if len(set(names)) < len(names):
        raise DataError(f"{path} names a feature twice; give each a name of its own")
    rules = read_rules(found.get("rule", []), features, path)
    return Features(path, hashlib.sha256(content).hexdigest(), tuple(features), rules)


def _feature(entry: object, place: int, where: str) -> Feature:
    if not isinstance(entry, dict):
        raise DataError(f"{where} is no table; write [[feature]]")
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where} has no name")
    where = f"{where} ({name[:40]})"
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        raise DataError(f"{where} has '{unknown[0][:40]}', which is not known; known are {', '.join(KEYS)}")
    kind = entry.get("kind", "categorical" if "categories" in entry else "continuous")
    if kind not in get_args(Kind):
        raise DataError(f"{where} has a kind that is none of {', '.join(get_args(Kind))}")
    categories = _categories(entry, where)
    if (kind == "categorical") != bool(categories):
        raise DataError(f"{where}: a categorical feature, and no other, has a list of categories, two or more")
    lo, hi = _range(entry, where)
    step, radius = _number(entry, "step", where), _number(entry, "radius", where)
    if "step" in entry and kind != "integer":
        raise DataError(f"{where} has a step, which integer features alone have")
    protected, moves = (_flag(entry, key, where) for key in ("protected", "moves"))
    if protected and kind == "fixed":
        raise DataError(f"{where} is fixed, and protected features move; leave one of them out")
    if protected and kind in ("continuous", "integer") and not (math.isfinite(lo) and math.isfinite(hi)):
        raise DataError(f"{where} is protected and moves through its range; give it range = [LO, HI]")
    unit = entry.get("unit", "")
    if not isinstance(unit, str):
        raise DataError(f"{where} has a unit that is no text")
    return Feature(
        name=name,
        kind=kind,
        place=place,
        size=len(categories) or 1,
        lo=lo,
        hi=hi,
        start=float(entry["range"][0]) if "range" in entry else 0.0,
        step=1.0 if step is None else step,
        radius=1.0 if radius is None else radius,
        categories=categories,
        moves=(kind != "categorical") if moves is None else moves,
        protected=bool(protected),
        unit=unit,
        monotone=_way(entry, kind, where),
    )


def _way(entry: Mapping[str, Any], kind: str, where: str) -> Literal["+", "-"] | None:
    found = entry.get("monotone")
    if found is None:
        return None
    if found not in ("+", "-") or kind == "categorical":
        raise DataError(f'{where}: monotone is "+" or "-", of a feature that is a number')
    return "+" if found == "+" else "-"


def _categories(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = entry.get("categories", [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found) or len(found) == 1:
        raise DataError(f"{where}: categories must be a list of two texts or more")
    if len(set(found)) < len(found):
        raise DataError(f"{where} names a category twice")
    return tuple(found)


def _range(entry: Mapping[str, Any], where: str) -> tuple[float, float]:
    found = entry.get("range")
    if found is None:
        return -math.inf, math.inf
    numbers = isinstance(found, list) and len(found) == 2 and all(_is_number(one) for one in found)
    if not numbers or not found[0] < found[1]:
        raise DataError(f"{where} needs range = [LO, HI] with LO < HI")
    lo, hi = ((float(one), float(np.float32(one))) for one in found)
    return min(lo), max(hi)  # the numbers as they are written, and those that a table of float32 has for them


def _number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    found = entry.get(key)
    if found is None:
        return None
    if not _is_number(found) or not found > 0:
        raise DataError(f"{where} has a {key} that is no number above 0")
    return float(found)


def _flag(entry: Mapping[str, Any], key: str, where: str) -> bool | None:
    found = entry.get(key)
    if found is not None and not isinstance(found, bool):
        raise DataError(f"{where}: {key} is true or false")
    return found


def _decimal(value: float) -> Fraction:
    return Fraction(repr(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
