"""What S says of all inputs and all outputs together: ||y(u) - y(v)||_q <= ||S||_(p->q) ||u - v||_p.

From |y(u) - y(v)| <= S |u - v|, entry by entry, S >= 0 (docs/mathematics.md, section 5.9); a bound by S, not the gain.
"""

from __future__ import annotations

import math

import numpy as np

from idl_audit.proof.spectral_norms import largest_norm
from idl_audit.values.arrays import FloatArray
from idl_audit.values.norms import Norm
from idl_audit.values.rounding import UNDERFLOW, gamma, up


def induced_norm(matrix: FloatArray, norm: Norm) -> float | None:
    """Return a bound of ||S||_(p->p), p = 2 or 1, of a matrix >= 0, rounded upward; None beyond float64's range.

    l1: the largest column sum. l2: the largest singular value, by a bound that is proved.
    """
    if not matrix.size:
        return 0.0
    if norm == "l1":
        with np.errstate(over="ignore"):
            sums = matrix.sum(axis=0) * (1 + gamma(len(matrix) + 4)) + len(matrix) * UNDERFLOW
        found = float(up(np.asarray(sums.max())))
    else:
        found = largest_norm(matrix)
    return found if math.isfinite(found) else None
