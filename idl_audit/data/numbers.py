"""Numbers as users type them in options: `0.03`, `8/255`, `0.485,0.456,0.406`, `0:8/255:9`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from idl_audit.values.errors import OptionError

_DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_NUMBER = re.compile(rf"({_DECIMAL})(?:\s*/\s*({_DECIMAL}))?")
_LONGEST = 64  # exact fractions of longer texts cost time, and no one types them
_MOST_POINTS = 1000


@dataclass(frozen=True)
class Eps:
    """One perturbation radius: its value in data units, and the text that tables call it by."""

    value: float
    text: str


def parse_fraction(text: str, *, option: str) -> Fraction:
    """Return the exact value of `0.03`, `3e-2` or `8/255`.

    Raises:
        OptionError: where the text is no finite number within float64's range; `option` is named in the message.
    """
    stripped = text.strip()
    match = _NUMBER.fullmatch(stripped) if len(stripped) <= _LONGEST else None
    if match is None:
        raise OptionError(f"{option} has {_shown(text)} where a number such as 0.03 or 8/255 is expected")
    over = Fraction(match[2] or 1)
    if over == 0:
        raise OptionError(f"{option} divides by zero in {_shown(text)}; write a number such as 0.03 or 8/255")
    value = Fraction(match[1]) / over
    try:
        rounded = float(value)
    except OverflowError:
        raise OptionError(f"{option} is out of range with {_shown(text)}; give a number below 1e308") from None
    if rounded == 0 and value != 0:
        raise OptionError(f"{option} is out of range with {_shown(text)}; give 0 or a number above 1e-300 in size")
    return value


def parse_number(text: str, *, option: str) -> float:
    """Return the float64 nearest to `0.03`, `3e-2` or `8/255`.

    Raises:
        OptionError: where the text is no finite number.
    """
    return float(parse_fraction(text, option=option))


def parse_number_list(text: str, *, option: str = "the list") -> tuple[float, ...]:
    """Return the numbers of a comma list such as `0.485,0.456,0.406`; fractions such as `1/255` are allowed.

    Raises:
        OptionError: where an entry is missing or is no finite number.
    """
    return tuple(parse_number(entry, option=option) for entry in text.split(","))


def parse_bounds(text: str) -> tuple[float, float]:
    """Return (lo, hi), the valid data range of `--bounds 0,1`, in data units.

    Raises:
        OptionError: where there are not two numbers, or lo >= hi.
    """
    try:
        numbers = parse_number_list(text, option="--bounds")
    except OptionError as error:
        raise OptionError(f"{error}, and another behind a comma: LO,HI, for example --bounds 0,1") from None
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise OptionError(f"--bounds needs LO,HI with LO < HI, not {_shown(text)}; write for example --bounds 0,1")
    return numbers[0], numbers[1]


def parse_eps(text: str, *, zero: bool = False) -> tuple[Eps, ...]:
    """Return the radii of `8/255`, `0.03`, a list `1/255,2/255` or a range `start:stop:count`, in the order given.

    A range has `count` evenly spaced points, both ends included; they are computed exactly and rounded once, so
    that a point 2/255 of a range equals `2/255` alone. A start of zero says where to count from and is left out:
    `0:8/255:9` has the eight points 1/255, ..., 8/255. Lists may hold ranges. `zero` lets a radius be 0.

    Raises:
        OptionError: where a radius is not positive, is given twice, or a range is empty.
    """
    radii = tuple(eps for entry in text.split(",") for eps in _entry(entry, zero=zero))
    seen: set[float] = set()
    for eps in radii:
        if eps.value in seen:
            raise OptionError(f"--eps has {eps.text} twice in {_shown(text)}; give every radius once")
        seen.add(eps.value)
    return radii


def check_eps_units(
    eps: tuple[Eps, ...],
    data_lo: float,
    data_hi: float,
    valid: tuple[float, float] | None = None,
    *,
    whole: bool = False,
) -> None:
    """Refuse a bare radius of 1 or more, such as `8`, on data whose range [data_lo, data_hi] lies within [0, 1].

    Of inputs that are `whole` numbers nothing is refused, as 0 and 1 are next to each other.

    Who means it can write a fraction, `255/255`, or give the valid range whose width it is: `-e 1 --bounds 0,1`.

    Raises:
        OptionError: with the hint `8/255`.
    """
    if whole or data_lo < 0 or data_hi > 1:
        return
    for radius in eps:
        is_meant = "/" in radius.text or (valid is not None and radius.value == valid[1] - valid[0])
        if radius.value >= 1 and not is_meant:
            raise OptionError(
                f"--eps {radius.text} covers the whole range of data within [0, 1]; eps is in data units, "
                f"so write {radius.text}/255 for {radius.text} of 255 grey levels",
                code="IDL114",
            )


def _entry(text: str, *, zero: bool) -> tuple[Eps, ...]:
    if ":" in text:
        return _range(text)
    exact = parse_fraction(text, option="--eps")
    value = 0.0 if zero and exact == 0 else _radius(exact, text)
    return (Eps(value, text.strip()),)


def _radius(value: Fraction, text: str) -> float:
    if value <= 0:
        raise OptionError(f"--eps must be above zero, not {_shown(text)}; write for example 8/255 or 0.03")
    return float(value)


def _range(text: str) -> tuple[Eps, ...]:
    parts = text.split(":")
    if len(parts) != 3:
        raise OptionError(f"--eps has the range {_shown(text)}; write start:stop:count, for example 0:8/255:9")
    start, stop = (parse_fraction(part, option="--eps") for part in parts[:2])
    count = int(parts[2]) if re.fullmatch(r"\s*[0-9]{1,6}\s*", parts[2]) else 0
    if not 2 <= count <= _MOST_POINTS:
        raise OptionError(
            f"--eps has {_shown(parts[2])} points in the range {_shown(text)}; give a count from 2 to {_MOST_POINTS}"
        )
    if start < 0 or stop <= start:
        raise OptionError(f"--eps has the range {_shown(text)}; its start must be 0 or more, and its stop above that")
    points = [start + (stop - start) * step / (count - 1) for step in range(count)]
    points = [point for point in points if point > 0]
    texts = _point_texts(points, parts[1])
    return tuple(Eps(_radius(point, text), name) for point, name in zip(points, texts, strict=True))


def _point_texts(points: list[Fraction], stop: str) -> list[str]:
    """Name the points of a range: as k/255 where the user wrote the stop so, else by the fewest digits that differ."""
    below = re.fullmatch(r"[^/]*/\s*([0-9]+)\s*", stop)
    if below is not None and all((point * int(below[1])).denominator == 1 for point in points):
        return [f"{int(point * int(below[1]))}/{below[1]}" for point in points]
    texts: list[str] = []
    for digits in range(3, 18):
        texts = [f"{float(point):.{digits}g}" for point in points]
        if len(set(texts)) == len(points):
            break
    return texts


def _shown(text: str) -> str:
    """Quote what the user typed, cut where it is long."""
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")
