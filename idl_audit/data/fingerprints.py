"""SHA-256 of numbers and labels: what a report is about, whatever file they were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from idl_audit.data.groups import Groups
from idl_audit.data.overview import add_numbers
from idl_audit.data.samples import Samples
from idl_audit.values.arrays import AnyArray


def numbers_sha256(arrays: Iterable[AnyArray | None]) -> str:
    """Return the SHA-256 of arrays of numbers as float64, little-endian, each behind its shape.

    0.0 and -0.0 are the same number. An array that is not there is another thing than an empty one.
    """
    found = hashlib.sha256()
    for array in arrays:
        if array is None:
            found.update(b"none\n")
            continue
        add_numbers(found, array)
    return found.hexdigest()


def samples_sha256(samples: Samples) -> str:
    """Return the SHA-256 of the samples' inputs in the model's order, by ascending position in their file."""
    return numbers_sha256(samples.inputs[row] for row in np.argsort(samples.indices, kind="stable"))


def groups_sha256(groups: Groups) -> str:
    """Return the SHA-256 of a partition of the inputs: the name of the group of each."""
    return hashlib.sha256("\n".join(repr(groups.names[label]) for label in groups.labels).encode()).hexdigest()
