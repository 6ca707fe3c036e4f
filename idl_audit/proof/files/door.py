"""The door for arrays of files: one table says what each array must be, and nothing else comes in.

Names are words and numbers with dots between them; a `*` of a pattern stands for a number. A shape is told in terms of
the model, or by letters that stand for one size wherever they occur below the same prefix: "leaves/5" is one size for
all arrays that share their first five parts. No number in a file is ever believed to be a size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from idl_audit.proof.files.strict_json import Damaged, Misfit
from idl_audit.values.arrays import AnyArray

NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,6}")
"""A number in a name: no sign, no zeros before it, at most seven digits."""


@dataclass(frozen=True)
class Name:
    """A name's pattern and the numbers that its stars stand for."""

    text: str
    pattern: str
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Name:
        """Return a name taken apart."""
        parts = text.split(".")
        is_number = [NUMBER.fullmatch(part) is not None for part in parts]
        pattern = ".".join("*" if number else part for part, number in zip(parts, is_number, strict=True))
        return cls(text, pattern, tuple(int(p) for p, number in zip(parts, is_number, strict=True) if number))

    def prefix(self, depth: int) -> str:
        """Return the first parts of the name."""
        return ".".join(self.text.split(".")[:depth])


@dataclass(frozen=True)
class Spec:
    """What arrays of one pattern must be."""

    dtype: str
    """Exactly, as numpy writes it: "<f8"."""
    shape: tuple[str, ...]
    """Sizes: a name that the model settles, or "letter/depth"."""
    least: float = -np.inf
    """Of every entry; floating-point entries must be finite as well."""
    greatest: float = np.inf
    ascending: bool = False
    """Strictly, for vectors."""


Sizes = Callable[[Name, str], int | None]
"""(name, size) -> what the model says of a size; None where the model has no such thing."""


class Header(Protocol):
    """What a file says of one of its arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""


def fit(headers: Mapping[str, Header], table: Mapping[str, Spec], sizes: Sizes) -> None:
    """Compare what a file says of its arrays with the table. What does not fit is never read.

    Raises:
        Damaged: where an array has no place in the table, is of another type, or contradicts another one.
        Misfit: where it speaks of what the model does not have.
    """
    free: dict[tuple[str, str], int] = {}
    for text, header in headers.items():
        name = Name.of(text)
        spec = table.get(name.pattern)
        if spec is None:
            raise Damaged(f"'{text[:80]}' is no array of such a file")
        if header.dtype.str != spec.dtype:
            raise Damaged(f"'{text}' has the type {header.dtype.str}, not {spec.dtype}")
        if len(header.shape) != len(spec.shape):
            raise Damaged(f"'{text}' has {len(header.shape)} axes, not {len(spec.shape)}")
        for found, size in zip(header.shape, spec.shape, strict=True):
            letter, _, depth = size.partition("/")
            wanted = free.setdefault((letter, name.prefix(int(depth))), found) if depth else sizes(name, size)
            if wanted is None:
                raise Misfit(f"'{text}' is about what the model does not have")
            if found != wanted:
                kind = Damaged if depth else Misfit
                raise kind(f"'{text}' has the shape {header.shape}, and its {letter} are {wanted}")


def check_values(text: str, array: AnyArray, table: Mapping[str, Spec]) -> AnyArray:
    """Return an array. Raise Damaged where it holds what the table does not allow."""
    spec = table[Name.of(text).pattern]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Damaged(f"'{text}' holds what is no finite number")
    if not ((array >= spec.least) & (array <= spec.greatest)).all():
        raise Damaged(f"'{text}' holds a number outside [{spec.least:g}, {spec.greatest:g}]")
    if spec.ascending and not (np.diff(array) > 0).all():
        raise Damaged(f"'{text}' does not ascend")
    return array


def counted(names: Iterator[int], what: str) -> int:
    """Return how many things are numbered 0, 1, ... Raises Damaged where a number is left out."""
    numbers = sorted(set(names))
    if numbers != list(range(len(numbers))):
        raise Damaged(f"{what} are not numbered 0, 1, ...")
    return len(numbers)
