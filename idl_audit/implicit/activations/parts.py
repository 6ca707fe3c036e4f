"""Parts of an activation: what is left of it on some of its states, and several of them side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.implicit.activations.coupled import Coupled
from idl_audit.implicit.activations.jumping import Jumping
from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.activations.mixed import Mixed
from idl_audit.values.arrays import IntArray


def restricted(activation: Activation, states: IntArray) -> Activation:
    """Return the activation on the given states of a block, in that order; groups that are coupled stay whole.

    Raises:
        ValueError: where a group of coupled states would be torn apart.
    """
    if isinstance(activation, Mixed):
        edges = np.cumsum(activation.sizes)
        part = np.searchsorted(edges, states, side="right")
        pieces = np.split(states, np.flatnonzero(np.diff(part)) + 1) if states.size else []
        found = []
        for piece in pieces:
            j = int(np.searchsorted(edges, piece[0], side="right"))
            found.append((restricted(activation.parts[j], piece - (edges[j] - activation.sizes[j])), len(piece)))
        return side_by_side(found)
    if isinstance(activation, Coupled):
        groups = states.reshape(-1, activation.width) if states.size % activation.width == 0 else None
        if groups is None or bool((np.diff(groups, axis=1) != 1).any() or (groups[:, 0] % activation.width).any()):
            raise ValueError("a group of coupled states cannot be torn apart")
        return activation
    if isinstance(activation, Kinked):
        below, above = (
            slope[states] if isinstance(slope, np.ndarray) and slope.ndim else slope
            for slope in (activation.below, activation.above)
        )
        return Kinked(activation.name, below, above)
    return activation.of_states(states) if isinstance(activation, Jumping) else activation


def side_by_side(parts: Sequence[tuple[Activation, int]]) -> Activation:
    """Return the activation that is parts[j][0] on the next parts[j][1] states; equal neighbours become one."""
    joined: list[tuple[Activation, int]] = []
    for activation, size in parts:
        if not size:
            continue
        if joined and _is_same(joined[-1][0], activation):
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        else:
            joined.append((activation, size))
    if len(joined) == 1:
        return joined[0][0]
    return Mixed(tuple(a for a, _ in joined), tuple(n for _, n in joined))


def _is_same(first: Activation, second: Activation) -> bool:
    """Whether both are one function of any number of states: same name, and the same scalar parameters."""
    if type(first) is not type(second) or first.name != second.name or isinstance(first, Mixed):
        return False
    mine, other = dict(first.parameters), dict(second.parameters)
    scalars = all(np.ndim(value) == 0 for value in (*mine.values(), *other.values()))
    return scalars and mine == other


def group_of(activation: Activation, size: int) -> IntArray:
    """Return the number of the group that each state belongs to: one a state, or one for all that are coupled."""
    if isinstance(activation, Mixed):
        found, start = [], 0
        for part, n in zip(activation.parts, activation.sizes, strict=True):
            own = group_of(part, n)
            found.append(own + start)
            start += int(own.max(initial=-1)) + 1
        return np.concatenate(found) if found else np.zeros(0, np.int64)
    return np.arange(size) // (activation.width if isinstance(activation, Coupled) else 1)
