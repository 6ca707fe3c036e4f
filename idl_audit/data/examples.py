"""What a model is made from: inputs of any shape, and class labels or numbers for each of them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.data.labels import check_labels
from idl_audit.data.sample_files import read_sample_file
from idl_audit.data.samples import INPUT_NAMES, LABEL_NAMES, Samples, read_samples
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import DataError

Kind: TypeAlias = Literal["classes", "numbers"]

TARGET_NAMES: Final = ("targets",)
_WANTED: Final[Sequence[Sequence[str]]] = (INPUT_NAMES, LABEL_NAMES, TARGET_NAMES)


@dataclass(frozen=True, eq=False)
class Examples:
    """Samples with what a model should say of them: `samples.labels`, or numbers."""

    samples: Samples
    targets: FloatArray | None
    """(n, q), finite; None where there are classes."""
    input_shape: tuple[int, ...]
    """Of one sample, with a leading axis of length 1."""

    @property
    def kind(self) -> Kind:
        """Return what there is to learn."""
        return "classes" if self.targets is None else "numbers"

    def rows(self, places: AnyArray) -> Examples:
        """Return some of them."""
        chosen = np.asarray(places, np.int64)
        targets = None if self.targets is None else self.targets[chosen]
        return replace(self, samples=self.samples.rows(chosen), targets=targets)


def read_examples(
    path: Path,
    *,
    labels: Path | None = None,
    limit: int | None = None,
    kind: Kind | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_outputs: int | None = None,
) -> Examples:
    """Read inputs, one row (or array) a sample, with class numbers from 0 or numbers to be learned.

    Args:
        path: a file of samples; `targets`, (n,) or (n, q), are numbers, `labels` classes unless some are not whole.
        labels: a file with either, in place of those in `path`.
        limit: only the first few.
        kind: what is asked for; None takes what is there.
        input_shape, n_outputs: of the model that the examples must suit; None takes what is there.

    Raises:
        DataError: where a file cannot be read, or does not have what is needed; the message says what would work.
    """
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; train reads arrays: give an .npz file with inputs and labels")
    read = read_sample_file(path, _WANTED)
    inputs = read.arrays[0]
    if inputs is None or inputs.ndim < 2:
        what = "no such array" if inputs is None else f"the shape {inputs.shape}"
        raise DataError(f"{path}: {what}; training needs an array 'inputs' with a row for each sample")
    shape = input_shape or (1, *inputs.shape[1:])
    samples = read_samples(path, input_shape=shape, n_classes=None, limit=limit, with_labels=False)
    found, are_targets, missing = read.arrays[1], False, read.missing
    if labels is not None:
        given = read_sample_file(labels, [(*LABEL_NAMES, *TARGET_NAMES)])
        found, missing = given.arrays[0], given.missing
    elif read.arrays[2] is not None and kind != "classes":
        found, are_targets = read.arrays[2], True
        _refuse_leak(inputs, found, path)
    source = labels or path
    if found is None:
        raise DataError(
            f"{source} has neither labels nor targets; training needs an array of class numbers 'labels' or of numbers "
            "'targets', or --labels FILE"
        )
    if kind == "numbers" or (kind is None and (are_targets or not _are_whole(found))):
        targets = _targets(found, len(inputs), n_outputs, source)[samples.indices]
        return Examples(replace(samples, has_targets=True), targets, shape)
    classes = check_labels(found, len(inputs), n_outputs, source, missing=missing)
    return Examples(replace(samples, labels=classes[samples.indices]), None, shape)


def _refuse_leak(inputs: AnyArray, targets: AnyArray, path: Path) -> None:
    """Refuse a table whose column of targets is one of the inputs, too."""
    if inputs.ndim == 2 and targets.size == len(inputs):
        same = (inputs == targets.reshape(-1, 1)).all(axis=0)
        if same.any():
            raise DataError(
                f"{path}: input {int(np.flatnonzero(same)[0])} is what is to be learned; leave it out of the inputs "
                "(in a table, call the column of targets y, label or target)"
            )


def _are_whole(values: AnyArray) -> bool:
    """Return whether all could be class numbers: one for each sample, whole and not negative."""
    flat = values.astype(np.float64)
    one_each = values.ndim == 1 or math.prod(values.shape[1:]) == 1
    return bool(one_each and np.isfinite(flat).all() and (flat == np.rint(flat)).all() and (flat >= 0).all())


def _targets(values: AnyArray, n: int, n_outputs: int | None, path: Path) -> FloatArray:
    if values.ndim == 0 or len(values) != n:
        raise DataError(f"{path}: targets have the shape {values.shape} for {n} samples; give one row for each")
    rows = values.reshape(n, -1).astype(np.float64)
    if not np.isfinite(rows).all():
        where = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise DataError(f"{path}: the target of sample {where} is no finite number; mend the file or leave it out")
    if n_outputs is not None and rows.shape[1] != n_outputs:
        raise DataError(f"{path}: targets have {rows.shape[1]} numbers for each sample, and the model has {n_outputs}")
    return rows
