"""Samples that must not be in two of the sets that training, choice and judgement have."""

from __future__ import annotations

from typing import Final

import numpy as np

from idl_audit.data.samples import Samples
from idl_audit.values.arrays import IntArray
from idl_audit.values.errors import DataError

FEWEST: Final = 10
"""Samples that training and judgement each need."""


def refuse_shared(found: Samples, seen: Samples, what: str, where: str) -> None:
    """Raise DataError where samples of `what` are among those of `where`."""
    known = {row.tobytes() for row in np.asarray(seen.inputs, np.float64) + 0.0}
    shared = [int(i) for i, row in zip(found.indices, found.inputs + 0.0, strict=True) if row.tobytes() in known]
    if shared:
        raise DataError(
            f"{what}: {len(shared)} of its {found.n} samples (the first is {shared[0]}) are among those of {where}, "
            "and say nothing about others; leave them out of one of the two files",
            code="IDL603",
        )


def refuse_few(samples: Samples, what: str) -> None:
    """Raise DataError where there are too few samples for what is to be done with them."""
    if samples.n < FEWEST:
        what_is = "1 sample is" if samples.n == 1 else f"{samples.n} samples are"
        raise DataError(f"{what_is} to be {what}, and {FEWEST} are the fewest; give more samples")


def split(n: int, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Return the places of a share of n samples, by chance, and those of the others, each ascending."""
    order = np.random.default_rng(seed).permutation(n)
    count = round(share * n)
    return np.sort(order[:count]), np.sort(order[count:])
