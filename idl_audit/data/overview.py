"""What is to be known of all samples before the work begins, found in one pass over their file: memory for one part.

Of every sample stays a hash of 16 bytes: it tells which ones repeat earlier ones, and whether the file still holds the
same numbers when a sample is read for the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from idl_audit.data.samples import Samples, SampleStream
from idl_audit.values.arrays import AnyArray, BoolArray, FloatArray, IntArray
from idl_audit.values.errors import DataError

TRIED: Final = 100
"""Samples that readings are tried on, spread evenly over those that were chosen."""
HASH: Final = 16
"""Bytes of the hash of a sample."""


@dataclass(frozen=True, eq=False)
class Overview:
    """n samples at a glance.

    least, greatest: over all numbers. whole: whether all are whole numbers. constant: (n,) whether a sample is one
    number throughout. repeats: (n,) whether it repeats an earlier one; contradicted counts those with another label.
    numbers_sha256: of the inputs in the model's order, by ascending position in the file.
    """

    least: float
    greatest: float
    whole: bool
    constant: BoolArray
    repeats: BoolArray
    contradicted: int
    numbers_sha256: str
    tried: Samples
    """A few of them, spread evenly."""
    zeros_and_ones: bool
    """Whether the first of them are nothing but 0 and 1."""
    hashes: AnyArray
    """(n, HASH) bytes."""


def look_at(
    given: SampleStream, check: Callable[[IntArray, FloatArray], None] = lambda indices, inputs: None
) -> Overview:
    """Read all samples once, by ascending position in the file.

    Args:
        given: the samples.
        check: given (positions, inputs) of each part; what it raises ends the pass.

    Raises:
        DataError: where a sample cannot be read, or a number is not finite.
    """
    n = given.n
    least, greatest, whole, first = np.inf, -np.inf, True, True
    constant = np.zeros(n, bool)
    hashes = np.empty((n, HASH), np.uint8)
    numbers = hashlib.sha256()
    wanted = np.unique(np.linspace(0, n - 1, min(n, TRIED)).round().astype(np.int64))
    tried = np.empty((wanted.size, given.p))
    for places, part in given.parts(np.argsort(given.indices, kind="stable")):
        inputs = part.inputs
        check(part.indices, inputs)
        low, high = inputs.min(axis=1), inputs.max(axis=1)
        least, greatest = min(least, float(low.min())), max(greatest, float(high.max()))
        whole = whole and bool((inputs == np.round(inputs)).all())
        constant[places] = low == high
        hashes[places] = hashed(inputs)
        for row in inputs:
            add_numbers(numbers, row)
        early = inputs[places < TRIED]
        first = first and bool(((early == 0) | (early == 1)).all())
        among = np.flatnonzero(np.isin(places, wanted))
        tried[np.searchsorted(wanted, places[among])] = inputs[among]
    repeats, contradicted = _repeated(hashes, given.labels)
    return Overview(
        least,
        greatest,
        whole,
        constant,
        repeats,
        contradicted,
        numbers.hexdigest(),
        replace(_described(given.rows(wanted)), inputs=tried),
        first,
        hashes,
    )


def unchanged(given: SampleStream, known: Overview) -> SampleStream:
    """Return the samples of a stream, which refuses those whose numbers are no longer what the overview saw."""
    order = np.argsort(given.indices, kind="stable")

    def inputs(indices: IntArray) -> FloatArray:
        found = given.inputs_at(indices)
        places = order[np.searchsorted(given.indices, indices, sorter=order)]
        if not np.array_equal(hashed(found), known.hashes[places]):
            raise DataError(f"{given.source} was changed while it was being audited; start again")
        return found

    return replace(given, inputs_at=inputs)


def hashed(inputs: FloatArray) -> AnyArray:
    """Return the hash of each row, (m, HASH) bytes."""
    found = [hashlib.blake2b(row.tobytes(), digest_size=HASH).digest() for row in inputs]
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(inputs), HASH)


def add_numbers(found: hashlib._Hash, array: AnyArray) -> None:
    """Add an array to a hash of numbers: as float64, little-endian, behind its shape; 0.0 and -0.0 are the same."""
    found.update(f"{array.shape}\n".encode())
    found.update((np.asarray(array, np.float64) + 0.0).astype("<f8", copy=False).data)


def _described(given: SampleStream) -> Samples:
    told = (given.source, given.sha256, given.dtype, given.has_targets)
    return Samples(np.empty((0, given.p)), given.labels, given.indices, *told)


def _repeated(hashes: AnyArray, labels: IntArray | None) -> tuple[BoolArray, int]:
    """Return which samples repeat earlier ones, and how many of these have another label."""
    if np.unique(hashes[:, :8].copy().view(np.uint64)).size == len(hashes):  # the usual case, for little memory
        return np.zeros(len(hashes), bool), 0
    _, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    earlier = first[which.reshape(-1)]
    repeats = earlier != np.arange(len(hashes))
    contradicted = 0 if labels is None else int((labels[earlier] != labels).sum())
    return repeats, contradicted
