"""What is read off a sensitivity matrix: the inputs, pairs of classes and groups that count, bounds for few changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from idl_audit.measure.sensitivity import Sensitivity
from idl_audit.report.input_maps import as_image, in_blocks, is_image
from idl_audit.report.schema import ClassMargin, InputMap, SmallestScalar, TopGroup, TopInput
from idl_audit.values.arrays import FloatArray
from idl_audit.values.margins import rivals

LARGEST_MAP = 64
"""Longest side of the map that the report holds, in squares of pixels."""


def top_inputs(matrix: FloatArray, top: int) -> tuple[TopInput, ...]:
    """Return the largest entries of each row, largest first; equal ones in the order of the inputs."""
    return tuple(TopInput(output=i, input=j, value=value) for i, j, value in _largest(matrix, top))


def top_groups(sums: FloatArray, names: Sequence[str], top: int) -> tuple[TopGroup, ...]:
    """Return the largest groups of each row, largest first."""
    return tuple(TopGroup(output=i, group=names[j], value=value) for i, j, value in _largest(sums, top))


def _largest(matrix: FloatArray, top: int) -> list[tuple[int, int, float]]:
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :top]
    return [(i, int(j), float(matrix[i, j])) for i, row in enumerate(order) for j in row]


def class_margins(margins: FloatArray, matrix: FloatArray, label: int, top: int) -> tuple[ClassMargin, ...]:
    """Return the differences y_label - y_rival, shape (q - 1, p), beside the sums of two rows; largest first."""
    sums, single = Sensitivity(margins, None).row_sums, Sensitivity(matrix, None).row_sums
    if len(single) == 1:  # one output y is a classifier with the outputs (0, y - T)
        single = np.append(0.0, single)
    found = [
        ClassMargin(
            label=label,
            rival=int(rival),
            row_sum=float(sums[i]),
            sum_of_rows=float(single[label] + single[rival]),
            top_inputs=tuple(
                TopInput(output=int(rival), input=j, value=value) for _, j, value in _largest(margins[i : i + 1], top)
            ),
        )
        for i, rival in enumerate(rivals(len(single), label))
    ]
    return tuple(sorted(found, key=lambda margin: -margin.row_sum))


def smallest_scalar(
    *, norm_inf: float | None, rho_norm_bound: float | None, spectral_inf: float | None
) -> SmallestScalar | None:
    """Return the least bound of the outputs' change by the inputs' largest one; the first of equals."""
    known = {"norm_inf": norm_inf, "rho_norm_bound": rho_norm_bound, "spectral_inf": spectral_inf}
    values = {name: value for name, value in known.items() if value is not None}
    if not values:
        return None
    name = min(values, key=lambda name: values[name])
    return SmallestScalar.model_validate({"name": name, "value": values[name]})


def input_map(matrix: FloatArray, shape: tuple[int, ...]) -> InputMap | None:
    """Return S summed over outputs and channels as a map of at most 64 x 64 squares; None without an image."""
    if not is_image(shape):
        return None
    image = as_image(matrix.sum(axis=0), shape)
    side = math.ceil(max(image.shape) / LARGEST_MAP)
    squares = in_blocks(image, side)
    height, width = squares.shape
    return InputMap(height=height, width=width, block=side, values=tuple(squares.reshape(-1).tolist()))
