"""How sure a share k of n is."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from idl_audit.report.schema import ConfidenceInterval

LEVEL: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)


def wilson(k: int, n: int) -> ConfidenceInterval:
    """Return the Wilson score interval of k / n at 95 %.

    With p = k/n and z = 1.96: (p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n) (Wilson, 1927).
    """
    p, square = k / n, _Z * _Z
    middle = p + square / (2 * n)
    half = _Z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    low = 0.0 if k == 0 else max((middle - half) / (1 + square / n), 0.0)
    high = 1.0 if k == n else min((middle + half) / (1 + square / n), 1.0)
    return ConfidenceInterval(low=low, high=high, method="Wilson score, 95 %")
