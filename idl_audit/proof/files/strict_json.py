"""JSON objects of our own files, read strictly: every key known and there once, every value of its type.

The `meta` of proof files, and the lines of journals. Nothing in them is believed as a size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

SHA256: Final = re.compile(r"[0-9a-f]{64}")
NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
"""A number as a key of an object is written in one way."""


class Damaged(ValueError):
    """What no version of idl-audit wrote, whatever the model: a key, a type, a size that contradicts another."""


class Misfit(ValueError):
    """What speaks of blocks, states, inputs or outputs that the model does not have."""


def parsed(text: str) -> Mapping[str, Any]:
    """Return the JSON object in a text. Raises Damaged: also for keys that are there twice, NaN and infinities."""
    try:
        found = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"meta is no JSON text ({str(error).splitlines()[0][:100]})") from error
    if not isinstance(found, dict):
        raise Damaged("meta is no JSON object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Damaged("a key is there twice")
    return found


def _no_number(name: str) -> float:
    raise Damaged(f"{name} is no number")


class Entry:
    """One object: exactly the keys that are expected of it, each value asked for by its type."""

    def __init__(self, value: object, where: str, keys: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Take the object. Raises Damaged where it is none, lacks a key, or has one that is not known."""
        if not isinstance(value, dict):
            raise Damaged(f"{where} is no object")
        required = set(keys)
        if required - value.keys():
            raise Damaged(f"{where} has no {min(required - value.keys())!r}")
        if value.keys() - required - set(optional):
            raise Damaged(f"{where} has {min(value.keys() - required - set(optional))[:40]!r}, which is not known")
        self._value: Mapping[str, Any] = value
        self._where = where

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def get(self, key: str) -> Any:
        """Return a value as it is; None where there is none."""
        return self._value.get(key)

    def whole(self, key: str) -> int:
        """Return a whole number, 0 or more."""
        return whole(self._value[key], f"{key!r} of {self._where}")

    def number(self, key: str) -> float:
        """Return a finite number."""
        return number(self._value[key], f"{key!r} of {self._where}")

    def number_or_none(self, key: str) -> float | None:
        """Return a finite number, or None for null and for a key that is missing."""
        return None if self.get(key) is None else self.number(key)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return a list of finite numbers."""
        return tuple(number(value, f"{key!r} of {self._where}") for value in self.items(key))

    def pair(self, key: str) -> tuple[float, float] | None:
        """Return two finite numbers, or None for null and for a key that is missing."""
        if self.get(key) is None:
            return None
        values = self.numbers(key)
        if len(values) != 2:
            raise Damaged(f"{key!r} of {self._where} is no pair of numbers")
        return values[0], values[1]

    def text(self, key: str) -> str:
        """Return a text."""
        if not isinstance(self._value[key], str):
            raise Damaged(f"{key!r} of {self._where} is no text")
        return str(self._value[key])

    def sha256(self, key: str) -> str:
        """Return a hash."""
        if not SHA256.fullmatch(self.text(key)):
            raise Damaged(f"{key!r} of {self._where} is no sha256")
        return self.text(key)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        if not isinstance(self._value[key], bool):
            raise Damaged(f"{key!r} of {self._where} is neither true nor false")
        return bool(self._value[key])

    def items(self, key: str) -> list[Any]:
        """Return a list."""
        if not isinstance(self._value[key], list):
            raise Damaged(f"{key!r} of {self._where} is no list")
        return list(self._value[key])

    def numbered(self, key: str) -> dict[int, Any]:
        """Return an object whose keys are whole numbers."""
        value = self._value[key]
        if not isinstance(value, dict) or not all(map(NUMBER.fullmatch, value)):
            raise Damaged(f"{key!r} of {self._where} is no object with whole numbers as keys")
        return {int(name): part for name, part in value.items()}

    def members(self, key: str, limit: int, of: str, *, above: int = -1) -> list[int]:
        """Return a list of different whole numbers, each above `above` and below `limit`.

        Raises:
            Misfit: where one is beyond these; `of` says of what.
        """
        found = [whole(value, f"{key!r} of {self._where}") for value in self.items(key)] if key in self else []
        if len(set(found)) < len(found):
            raise Damaged(f"{key!r} of {self._where} has a number twice")
        for value in found:
            below(value, limit, f"{key!r} of {self._where}", of)
            if not value > above:
                raise Damaged(f"{key!r} of {self._where} has {value}, where only later ones may be used")
        return found


def whole(value: object, where: str) -> int:
    """Return a whole number, 0 or more. Raises Damaged for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise Damaged(f"{where} holds what is no whole number, 0 or more")
    return value


def below(value: int, limit: int, where: str, of: str) -> int:
    """Return a number below a limit. Raises Misfit for others."""
    if not value < limit:
        raise Misfit(f"{where} speaks of {of} {value}, and the model has {limit} of them")
    return value


def number(value: object, where: str) -> float:
    """Return a finite number. Raises Damaged for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(_float(value)):
        raise Damaged(f"{where} is no finite number")
    if float(value) != value:  # a whole number that a checker with exact ones would take for another
        raise Damaged(f"{where} is no number of float64")
    return float(value)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
