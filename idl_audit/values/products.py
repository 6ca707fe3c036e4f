"""Products of matrices in float64, which is where proofs spend their time: by numpy, or by who is put in its place.

Whoever makes C = A B must keep |C - A B| <= gamma_k |A| |B| entrywise, k the numbers that are summed, in whatever order
and with or without fused multiply-add, and lose no more to underflow than numbers that are not normal cost: that is all
that `values.rounding` asks (docs/mathematics.md, section 1.4). Everything else that a proof does to numbers, the
directed rounding first, stays with numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from idl_audit.values.arrays import FloatArray

Maker: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray | None]
"""(A, B) -> A B by the rule above, as `numpy.matmul` has it; None where numpy is to make it."""

_maker: list[Maker] = []
"""Whoever was put in numpy's place, the last first; a list so that it can be changed."""


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return A B, of the shapes that `numpy.matmul` takes."""
    if _maker:
        made = _maker[-1](a, b)
        if made is not None:
            return made
    return np.asarray(a @ b)


_places: list[str] = []
"""What searches, where that is an accelerator."""


def place() -> str:
    """Return what searches, for a report: cpu, or an accelerator's name."""
    return _places[0] if _places else "cpu"


def made_by(maker: Maker | None, *, place: str | None = None) -> None:
    """Let products be made by someone else from now on, or by numpy: None; `place` is the accelerator that searches."""
    _maker[:] = [] if maker is None else [maker]
    _places[:] = [] if place is None else [place]


@contextmanager
def by_numpy() -> Iterator[None]:
    """Let numpy alone make products inside: those of a check."""
    before = list(_maker)
    _maker.clear()
    try:
        yield
    finally:
        _maker[:] = before
