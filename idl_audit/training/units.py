"""The units that a model is trained in, and the model in the user's: an affine map before it and one behind.

Trained are z = (u - shift) / scale and targets likewise; the result is turned back exactly but for rounding:
B / scale, b - B shift / scale, and so on. A column that is zero stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.values.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class Units:
    """z = (v - shift) / scale for vectors v."""

    shift: FloatArray
    scale: FloatArray
    """Positive."""

    @classmethod
    def of(cls, rows: FloatArray, *, each: bool) -> Units:
        """Return the units in which rows (m, p) have mean 0 and deviation 1: `each` column, or all entries as one."""
        axis = 0 if each else None
        p = rows.shape[1]
        shift = np.broadcast_to(rows.mean(axis=axis, dtype=np.float64), (p,))
        deviation = np.broadcast_to(rows.std(axis=axis, dtype=np.float64), (p,))
        known = deviation > 1e-9 * np.maximum(1e-300, np.abs(shift))  # what never moves has no deviation
        return cls(shift.copy(), np.where(known, deviation, 1.0))

    @classmethod
    def unchanged(cls, size: int) -> Units:
        """Return the units of the vectors as they are."""
        return cls(np.zeros(size), np.ones(size))

    def inside(self, rows: FloatArray) -> FloatArray:
        """Return z for rows v."""
        return np.asarray((rows - self.shift) / self.scale)


def outside(weights: Mapping[str, FloatArray], inputs: Units, outputs: Units) -> dict[str, FloatArray]:
    """Return the weights of the same model between vectors in the units outside."""
    B, D = weights["B"] / inputs.scale, weights["D"] / inputs.scale
    D = outputs.scale[:, None] * D
    return {
        "A": weights["A"],
        "B": B,
        "C": outputs.scale[:, None] * weights["C"],
        "D": D,
        "b": weights["b"] - B @ inputs.shift,
        "d": outputs.scale * weights["d"] + outputs.shift - D @ inputs.shift,
    }
