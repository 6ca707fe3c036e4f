"""Do leaves that fix phases of states cover everything? They do where they are the leaves of a tree of splits.

All leaves of a tree split one state first, and those of either side are the leaves of a tree again, until a leaf has no
phase left: it covers what is left by itself, and others beside it are not needed.

Elsewhere: subdomain, node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from idl_audit.values.arrays import IntArray

Phases = npt.NDArray[np.int8]

MOST_LEAVES, MOST_PHASES = 2**22, 2**24
"""Leaves and phases that are looked at together: some tens of bytes each."""


@dataclass(frozen=True, eq=False)
class LeafPhases:
    """The phases of some leaves: which states each of them splits, and to which side."""

    keys: IntArray
    """Of each phase: 2 * (leaf * width + its state among those that any leaf splits) + (1 above); ascending."""
    starts: IntArray
    """Where each leaf's phases start; one more entry at the end."""
    width: int
    """States that any leaf splits."""

    @classmethod
    def of(cls, parts: Sequence[tuple[int, int, Phases]], n_leaves: int) -> LeafPhases | None:
        """Return the phases of leaves from tables (first leaf, first state, (m, n)); None where there are too many."""
        if n_leaves > MOST_LEAVES or sum(int(np.count_nonzero(table)) for _, _, table in parts) > MOST_PHASES:
            return None
        split = [np.flatnonzero(table.any(axis=0)) + state for _, state, table in parts]
        used = np.unique(np.concatenate([np.zeros(0, np.int64), *split]))
        width, keys = max(1, used.size), [np.zeros(0, np.int64)]
        for leaf, state, table in parts:
            flat = np.flatnonzero(table)
            row, column = np.divmod(flat, max(1, table.shape[1]))
            places = (row + leaf) * width + np.searchsorted(used, column + state)
            keys.append(2 * places + (table.reshape(-1)[flat] > 0))
        ordered = np.sort(np.concatenate(keys))
        return cls(ordered, np.searchsorted(ordered, 2 * width * np.arange(n_leaves + 1)), width)

    def covering(self, leaves: IntArray) -> IntArray | None:
        """Return those of some leaves that cover everything, ascending; None where all together do not."""
        lengths = np.diff(self.starts)
        waiting, needed = [(leaves, 0, self._counts(leaves))], []
        while waiting:
            here, depth, counts = waiting.pop()
            if not here.size:
                return None
            last = here[lengths[here] == depth]
            if last.size:
                needed.append(int(last[0]))
                continue
            split = int(counts.argmax())
            if counts[split] < here.size:
                return None
            is_above = self.keys[np.searchsorted(self.keys, 2 * (here * self.width + split))] % 2 > 0
            above, below = here[is_above], here[~is_above]
            few, many = (above, below) if above.size < below.size else (below, above)
            own = self._counts(few)
            counts[split] = -1  # and stays below 0: it is used up on both sides
            own[counts < 0], counts = -1, np.where(counts < 0, -1, counts - own)
            waiting += [(few, depth + 1, own), (many, depth + 1, counts)]
        return np.sort(np.asarray(needed, np.int64))

    def _counts(self, leaves: IntArray) -> IntArray:
        """Return how many of the leaves split each state, (width,)."""
        first, count = self.starts[leaves], self.starts[leaves + 1] - self.starts[leaves]
        ends = np.cumsum(count)
        total = int(ends[-1]) if ends.size else 0
        which = np.repeat(first - (ends - count), count) + np.arange(total)
        return np.bincount(self.keys[which] // 2 % self.width, minlength=self.width)
