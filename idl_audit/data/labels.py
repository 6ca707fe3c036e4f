"""Labels: whole class numbers from 0, one per sample."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.errors import DataError


class OneOutput(enum.Enum):
    """What the one output of a network is taken for."""

    CLASS = "class"
    """A score that is above a threshold for class 1: labels must be those of two classes."""
    VALUE = "value"
    """A score or the value of a regression: what are no labels of two classes are its targets."""


@dataclass(frozen=True)
class LabelRows:
    """Several labels of each sample: how many, of how many classes, and what has one."""

    size: int
    classes: int
    noun: str


_MOST_CLASSES = 2**31  # where the model does not say; far above any, and safe to turn into int64


def check_labels(
    labels: AnyArray,
    n: int,
    n_classes: int | None,
    path: Path,
    *,
    missing: Mapping[int, str] = MappingProxyType({}),
) -> IntArray:
    """Return the labels of `path` as int64, shape (n,), after checking them against n samples and the model's classes.

    Whole numbers stored as floats are taken, and truth values as 0 and 1; a column (n, 1) counts as (n,).

    Args:
        labels: as they were read.
        n: how many samples there are.
        n_classes: None where the model does not say.
        path: for messages.
        missing: sample -> where its row of a table has no number.

    Raises:
        DataError: for one-hot labels, a wrong count, numbers that are not whole, or classes the model does not have.
    """
    flat = whole_numbers(labels, n, path, missing)
    _check_range(flat, n_classes, path)
    return flat.astype(np.int64)


def check_binary_labels(
    labels: AnyArray, n: int, path: Path, *, missing: Mapping[int, str] = MappingProxyType({})
) -> IntArray:
    """Return the labels of a network with one output as 0 and 1, shape (n,): 0 and 1, or -1 and +1, or truth values.

    Raises:
        DataError: where they are others; the message says what a regression can be asked.
    """
    _check_shape(labels, n, path)
    flat = labels.ravel()
    numbers = flat.astype(np.float64)
    classes = (numbers == 0) | (numbers == 1)
    if not classes.all() and ((numbers == -1) | (numbers == 1)).all():
        return np.asarray(numbers == 1, np.int64)
    if not classes.all():
        where = int(np.argmin(classes))
        if set(np.unique(numbers)) == {1.0, 2.0}:
            _check_range(flat, 2, path)
        raise DataError(
            f"{path}: the label of sample {where} is {numbers[where]:g}{_place(where, missing)}, and a network with "
            "one output has the classes 0 and 1 (1 where the output is above --threshold), or -1 and +1; a regression "
            "has no classes: ask `bounds` for its outputs, or `certify` for a VNN-LIB property",
            code="IDL113",
        )
    return numbers.astype(np.int64)


def check_label_rows(
    labels: AnyArray, n: int, rows: LabelRows, path: Path, *, missing: Mapping[int, str] = MappingProxyType({})
) -> IntArray:
    """Return labels of which each sample has several, as int64, shape (n, size), after checking them.

    Raises:
        DataError: for a wrong count, numbers that are not whole, or classes that there are not.
    """
    if labels.size != n * rows.size or labels.ndim < 2 or len(labels) != n:
        raise DataError(
            f"{path}: labels have shape {labels.shape} for {n} samples; give {rows.size} for each, one a {rows.noun}"
        )
    flat = whole_numbers(labels.reshape(-1), labels.size, path, {})
    wrong = (flat < 0) | (flat >= rows.classes)
    if wrong.any():
        where = int(np.argmax(wrong))
        sample, place = divmod(where, rows.size)
        raise DataError(
            f"{path}: the label of sample {sample}, {rows.noun} {place}, is {int(flat[where])}"
            f"{_place(sample, missing)}; labels of a {rows.noun} are 0 to {rows.classes - 1}",
            code="IDL113",
        )
    return flat.astype(np.int64).reshape(n, rows.size)


def checked_labels(labels: AnyArray, n: int, n_classes: int, path: Path, *, one_output: bool) -> IntArray:
    """Return labels of a model with that many classes, or of one output. Raises DataError."""
    return check_binary_labels(labels, n, path) if one_output else check_labels(labels, n, n_classes, path)


def are_binary(labels: AnyArray) -> bool:
    """Return whether these can be the labels of a network with one output, and not the targets of a regression."""
    numbers = labels.ravel().astype(np.float64)
    return any(bool(np.isin(numbers, pair).all()) for pair in ((0, 1), (-1, 1)))


def whole_numbers(labels: AnyArray, n: int, path: Path, missing: Mapping[int, str]) -> AnyArray:
    """Return the labels of n samples, shape (n,), which are whole numbers of any type. Raises DataError."""
    _check_shape(labels, n, path)
    flat: AnyArray = labels.ravel()
    if flat.dtype.kind == "f":
        whole = np.isfinite(flat) & (flat == np.round(flat))
        if not whole.all():
            where = int(np.argmin(whole))
            raise DataError(
                f"{path}: the label of sample {where} is {flat[where]:g}{_place(where, missing)}; labels must be whole "
                "class numbers from 0"
            )
    return flat


def _place(sample: int, missing: Mapping[int, str]) -> str:
    return f" ({missing[sample]})" if sample in missing else ""


def _check_shape(labels: AnyArray, n: int, path: Path) -> None:
    if labels.ndim == 2 and labels.shape[0] == n and labels.shape[1] > 1:
        raise DataError(
            f"{path}: labels have shape {labels.shape} and look one-hot; save class numbers, labels.argmax(axis=1)",
            code="IDL111",
        )
    if labels.size != n or labels.ndim > 2:
        raise DataError(f"{path}: labels have shape {labels.shape} for {n} samples; give one class number per sample")


def _check_range(labels: AnyArray, n_classes: int | None, path: Path) -> None:
    outside = (labels < 0) | (labels >= (_MOST_CLASSES if n_classes is None else n_classes))
    if not outside.any():
        return
    if n_classes is not None and labels.min() == 1 and labels.max() == n_classes:
        raise DataError(
            f"{path}: labels run from 1 to {n_classes} (1-based), but the model's classes are 0 to {n_classes - 1}; "
            "subtract 1 from every label",
            code="IDL112",
        )
    where = int(np.argmax(outside))
    classes = f"0 to {(_MOST_CLASSES if n_classes is None else n_classes) - 1}"
    raise DataError(
        f"{path}: the label of sample {where} is {int(labels[where])}, but the model's classes are {classes}; "
        "check that labels and model belong together",
        code="IDL113",
    )
