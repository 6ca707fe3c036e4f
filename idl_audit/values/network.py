"""The original network as everything that asks it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from idl_audit.values.arrays import Float32Array, FloatArray

Network: TypeAlias = Callable[[Float32Array], FloatArray]
"""The original network in data units: (m, p) float32 -> (m, q)."""
Pulled: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
"""Points (m, p), weights (m, q) -> d(w . y)/du, (m, p)."""
