"""A loop whose activation is split into a fixed slope and a rest: z = A (k z + e) + (what drives it).

With any Y (about (I - A diag(k))^-1) and F = I - Y (I - A diag(k)),

    z = F z + Y A e + Y (what drives it),

an identity, whatever Y is: |F| is rounding, and bounds of |z| that are known already pay for F z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.wellposed import Coefficients
from idl_audit.proof.loops.enclosed import product
from idl_audit.proof.loops.system import LoopSystem
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma


@dataclass(frozen=True, eq=False)
class Linearised:
    """Y, |F|, Y A and Y P of a loop with slopes k."""

    Y: Coefficients
    defect: FloatArray
    """|F| at least, (n, n)."""
    YA: Coefficients
    YP: Coefficients


def linearised(system: LoopSystem, slopes: FloatArray) -> Linearised | None:
    """Return the loop solved for z with slopes k = `slopes`, exact numbers; None where I - A diag(k) is singular."""
    A, n = system.A, system.n
    if not slopes.any():
        return Linearised(Coefficients(np.eye(n)), np.zeros((n, n)), A, system.P)
    matrix = np.eye(n) - A.matrix * slopes
    try:
        Y = Coefficients(np.asarray(np.linalg.inv(matrix), np.float64))
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(Y.matrix).all():
        return None
    YA = product(Y, A)
    off = np.abs(np.eye(n) - Y.matrix + YA.matrix * slopes)
    error = np.zeros((n, n)) if YA.error is None else YA.error
    size = np.eye(n) + Y.magnitude + YA.magnitude * np.abs(slopes)
    defect = (off + error * np.abs(slopes) + gamma(8) * size) * (1 + gamma(8)) + TINY
    return Linearised(Y, defect, YA, product(Y, system.P))
