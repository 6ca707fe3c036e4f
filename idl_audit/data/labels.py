"""Labels: whole class numbers from 0, one per sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idl_audit.arrays import AnyArray, IntArray
from idl_audit.errors import DataError

_MOST_CLASSES = 2**31  # where the model does not say; far above any, and safe to turn into int64


def check_labels(labels: AnyArray, n: int, n_classes: int | None, path: Path) -> IntArray:
    """Return the labels of `path` as int64, shape (n,), after checking them against n samples and the model's classes.

    Whole numbers stored as floats are taken; a column (n, 1) counts as (n,).
    `n_classes` is None where the model does not say.

    Raises:
        DataError: for one-hot labels, a wrong count, numbers that are not whole, or classes the model does not have.
    """
    if labels.ndim == 2 and labels.shape[0] == n and labels.shape[1] > 1:
        raise DataError(
            f"{path}: labels have shape {labels.shape} and look one-hot; save class numbers, labels.argmax(axis=1)",
            code="IDL111",
        )
    if labels.size != n or labels.ndim > 2:
        raise DataError(f"{path}: labels have shape {labels.shape} for {n} samples; give one class number per sample")
    flat = labels.ravel()
    if flat.dtype.kind == "f":
        whole = np.isfinite(flat) & (flat == np.round(flat))
        if not whole.all():
            where = int(np.argmin(whole))
            raise DataError(
                f"{path}: the label of sample {where} is {flat[where]:g}; labels must be whole class numbers from 0"
            )
    _check_range(flat, n_classes, path)
    return flat.astype(np.int64)


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
