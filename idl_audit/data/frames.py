"""Tables in memory: data frames of pandas, columns matched by name to the features of a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_audit.data.features import Feature, Features
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import DataError

MOST_NAMED = 8
"""Columns that a sentence lists."""


def is_frame(x: Any) -> bool:
    """Return whether something is a data frame: columns with names, and arrays of them."""
    return hasattr(x, "columns") and hasattr(x, "to_numpy") and hasattr(x, "iloc")


def columns_of(frame: Any) -> dict[str, Any]:
    """Return the columns of a data frame by name. Raises DataError where two have one name."""
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"the data frame has two columns '{twice[0]}'; give each a name of its own")
    return {name: frame.iloc[:, k] for k, name in enumerate(names)}


def rows_of(frame: Any, features: Features) -> FloatArray:
    """Return the rows of a data frame as inputs, (n, p): a category, by its name, as one input for each there is.

    Raises:
        DataError: where a feature has no column, a column is no feature, or a value is none of its feature.
    """
    columns = columns_of(frame)
    missing = [one.name for one in features.features if one.name not in columns]
    if missing:
        raise DataError(f"the data frame has no column {_listed(missing)}, which {features.path} names")
    named = {one.name for one in features.features}
    more = [name for name in columns if name not in named]
    if more:
        raise DataError(f"the data frame has {_listed(more)}, which is no feature of {features.path}; leave it out")
    parts = [_inputs(columns[one.name], one) for one in features.features]
    return np.hstack(parts)


def plain_rows(frame: Any) -> FloatArray:
    """Return the rows of a data frame of numbers, columns in its order, (n, p). Raises DataError."""
    columns = columns_of(frame)
    if not columns or not len(frame):
        raise DataError("the data frame has no column, or no row")
    return np.column_stack([_numbers(column, name) for name, column in columns.items()])


def _inputs(column: Any, feature: Feature) -> FloatArray:
    if feature.kind != "categorical":
        return _numbers(column, feature.name)[:, None]
    values = [str(value) for value in column.to_numpy(dtype=object)]
    unknown = [value for value in values if value not in feature.categories]
    if unknown:
        raise DataError(
            f"the column {feature.name} has '{unknown[0][:40]}', which is none of {', '.join(feature.categories)}"
        )
    return np.eye(feature.size)[[feature.categories.index(value) for value in values]]


def _numbers(column: Any, name: str) -> FloatArray:
    kind = getattr(column.dtype, "kind", "O")
    if kind not in "fiub":
        raise DataError(f"the column {name} holds no numbers ({column.dtype}); name its categories in a features.toml")
    found = np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), np.float64)
    if not np.isfinite(found).all():
        raise DataError(f"the column {name} has NaN, infinity or missing values; fill them, or leave these rows out")
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
