"""Whole numbers in data files: analyses compute in float64, which does not hold all of them."""

from __future__ import annotations

from typing import Final

import numpy as np

from idl_audit.values.arrays import AnyArray

NOT_HELD: Final = "a whole number that float64 does not hold; give numbers of at most 2^53 (9007199254740992)"
"""What is said of such a number."""


def first_inexact(numbers: AnyArray) -> int | None:
    """Return the place, in C order, of the first whole number that float64 does not hold; None where all are held."""
    if numbers.dtype.kind not in "iu" or numbers.dtype.itemsize < 8:
        return None
    flat = numbers.reshape(-1)
    for place in np.flatnonzero(np.abs(flat.astype(np.float64)) >= 2.0**53).tolist():
        if int(float(flat[place])) != int(flat[place]):
            return int(place)
    return None
