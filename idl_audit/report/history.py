"""How figures of a model moved from commit to commit: what views show, whatever keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from idl_audit.report.wording import figure, percent


@dataclass(frozen=True)
class Point:
    """One figure: k of n, or a number."""

    name: str
    k: int | None = None
    n: int | None = None
    number: float | None = None

    @property
    def value(self) -> float | None:
        """The share or the number; None where there is none."""
        return self.k / self.n if self.k is not None and self.n else self.number

    @property
    def text(self) -> str:
        """How it is told."""
        return percent(self.k, self.n) if self.k is not None and self.n else figure(self.number)

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.k is not None


@dataclass(frozen=True)
class Entry:
    """The report of one commit."""

    commit: str
    added: str
    """When it was added, in ISO 8601."""
    model_sha256: str
    complete: bool
    points: tuple[Point, ...]

    def point(self, name: str) -> Point | None:
        """Return a figure by its name."""
        return next((one for one in self.points if one.name == name), None)


@dataclass(frozen=True)
class Series:
    """Reports of one model on one question, oldest first: the same samples and threat model, radii and time aside."""

    model: str
    question: str
    """A hash of what was asked."""
    entries: tuple[Entry, ...]

    @property
    def names(self) -> list[str]:
        """The figures of any entry, by kind in the order in which these came up, by radius within."""
        found = dict.fromkeys(point.name for entry in self.entries for point in entry.points)
        kinds = list(dict.fromkeys(name.split("@")[0] for name in found))
        return sorted(found, key=lambda name: (kinds.index(name.split("@")[0]), _radius(name)))

    def moved(self, name: str) -> list[float | None]:
        """Return a figure of every entry; None where an entry has not got it."""
        found = [entry.point(name) for entry in self.entries]
        return [None if one is None else one.value for one in found]


def _radius(name: str) -> Fraction:
    """Return the radius in a figure's name, as it was written: 2/255, 0.03; 0 where there is none."""
    _, _, text = name.partition("@")
    over, mark, under = text.partition("/")
    try:
        return Fraction(over or "0") / Fraction(under if mark else "1")
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def change(points: Sequence[Point | None]) -> str:
    """Return the last figure with what it gained since the one before: `71.0 % (-2.0)`."""
    known = [one for one in points if one is not None and one.value is not None]
    if not known:
        return "-"
    last = known[-1]
    if len(known) < 2 or last.value is None or known[-2].value is None:
        return last.text
    gained = last.value - known[-2].value
    told = f"{100 * gained:+.1f}" if last.is_share else f"{gained:+.4g}"
    return f"{last.text} ({told})" if gained else last.text
