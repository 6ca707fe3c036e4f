"""Local sensitivity: the matrices of `sensitivity` and `centre_radius` with the slopes of one box.

Local Lipschitz bounds, one for each output and input (docs/mathematics.md, section 6.3).

Bounds l <= z <= h of the states over a box confine the slopes of their activations: a ReLU that stays on one side of
its kink is linear there (c = 1, r = 0, or c = r = 0). The model whose activations have these slopes only is the model
itself on the box, and what bounds that one for all inputs bounds this one for any two inputs of the box.

Elsewhere: local Lipschitz constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.centre_radius import LARGEST, METHODS, applicable_methods, global_slopes
from idl_audit.measure.sensitivity import global_or_infinite
from idl_audit.measure.sign_paths import sign_path_matrix
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.restricted import restricted_model
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError

STATE_BOUNDS: Final[Mapping[str, Callable[[ImplicitModel, Interval], StateBounds]]] = MappingProxyType(
    {"interval": interval_bounds, "linear": backward_state_bounds}
)
"""Name -> how the states are bounded over the box, the cheap way first."""


def local_sensitivity(
    model: ImplicitModel,
    box: Box,
    method: str = "best",
    *,
    state_bounds: str = "interval",
    functionals: FloatArray | None = None,
    within: FloatArray | None = None,
    max_bytes: int | None = None,
) -> FloatArray:
    """Return S with |y(u) - y(v)| <= S |u - v| for all u, v in the box, shape (q, p), rounded upward.

    S(c, r) with the slopes of the states over the box; never above the global matrix, and |Jacobian| in the limit of
    small boxes where the method is "best", "centre-radius" or "half-step" and the network is differentiable there.

    Args:
        model: the model; one with loops needs proofs that bound them.
        box: inputs in data units.
        method: as for `sensitivity_matrix`; "best" takes `sign_path_matrix` where centre-radius needs too much memory.
        state_bounds: "interval", or "linear" for the tighter and slower backward linear bounds.
        functionals: rows F, shape (r, q); bounds |F (y - y0)| instead.
        within: a global matrix for the same functionals, where it is known already.
        max_bytes: as for `sensitivity_matrix`.

    Raises:
        UnsupportedModelError: where the method does not apply to the model, nothing bounds a loop, or an activation has
            no bounded slope over the box.
        OptionError: for an unknown method or kind of bounds.
    """
    for what, name, known in (("method", method, METHODS), ("kind of state bounds", state_bounds, STATE_BOUNDS)):
        if name not in known:
            raise OptionError(f"there is no {what} '{name}' for local S; known are {', '.join(known)}")
    limit = LARGEST if max_bytes is None else max_bytes
    outer = within
    if outer is None:
        outer = global_or_infinite(model, method, functionals=functionals, max_bytes=max_bytes)
    there = restricted_model(model, STATE_BOUNDS[state_bounds](model, Interval.of_boxes(box)))
    names = taken_methods(model, method, limit) if model.is_feed_forward else (method,)
    matrices = [_matrix(there, name, functionals, limit) for name in names]
    return np.asarray(np.minimum.reduce([outer, *matrices]))


def taken_methods(model: ImplicitModel, method: str, limit: int = LARGEST) -> tuple[str, ...]:
    """Return what local S takes the least of."""
    if method != "best":
        return (method,)
    if not model.is_feed_forward:
        return applicable_methods(model, limit)
    return ("paper", "centre-radius" if "centre-radius" in applicable_methods(model, limit) else "half-step")


def _matrix(model: ImplicitModel, name: str, functionals: FloatArray | None, limit: int) -> FloatArray:
    if name == "half-step" and model.is_feed_forward:  # reads both ends of the slopes; that of METHODS the greatest
        return sign_path_matrix(model, global_slopes(model), functionals)
    return METHODS[name](model, functionals, limit)
