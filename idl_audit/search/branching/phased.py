"""Batches of leaves as the search sees them: their lines, their ascent, and the state that each should split next.

Elsewhere: branching heuristic, BaBSR, FSB, smears.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from idl_audit.proof.bounds import StateBounds
from idl_audit.proof.chain import cut_points
from idl_audit.proof.cover import Phases
from idl_audit.search.branching.ascent import Found, ascend
from idl_audit.search.branching.network import Lines, SearchNet, SearchRow, state_tensors
from idl_audit.values.check import Check, unchecked

if TYPE_CHECKING:
    import torch

    from idl_audit.search.branching.search_planes import SearchPlanes


LEAST_LOSS = 1e-6
"""Smooth states whose lines are no farther from the graph than this are not split."""


class PhasedSearch:
    """Functionals of one row of blocks in leaves that fix phases of the states behind it; `bounds` stay fixed."""

    def __init__(self, net: SearchNet, row: SearchRow, newest: int, bounds: StateBounds) -> None:
        """Take the blocks from `newest` on; those that bend each state by itself have phases."""
        import torch

        self.net, self._row, self._newest = net, row, newest
        self._tensors = {k: value for k, value in state_tensors(bounds).items() if k >= newest}
        self._order = [k for k in sorted(net.bent) if k in self._tensors]
        cuts = {k: cut_points(net.model.blocks[k], bounds.z[k]) for k in self._order}
        self._cuts = {k: torch.from_numpy(cut).float() for k, cut in cuts.items()}
        self._at_cuts = {k: torch.from_numpy(net.model.blocks[k](cut)).float() for k, cut in cuts.items()}
        self.planes: dict[int, SearchPlanes] = {}
        """Block -> planes in place of chords; set once it is known which of them can help."""
        sizes = [net.model.blocks[k].size for k in self._order]
        self._edges = dict(zip(self._order, itertools.pairwise([0, *np.cumsum(sizes).tolist()]), strict=True))

    @property
    def n_phases(self) -> int:
        """States that have phases."""
        return max((hi for _, hi in self._edges.values()), default=0)

    def by_block(self, phases: Phases) -> dict[int, Phases]:
        """Return block -> its phases, (m, n)."""
        return {k: phases[:, slice(*edges)] for k, edges in self._edges.items()}

    def __call__(
        self,
        seeds: torch.Tensor,
        phases: Phases,
        start: Found | None,
        *,
        steps: int,
        enough: float | torch.Tensor,
        check: Check = unchecked,
    ) -> tuple[Found, npt.NDArray[np.int64]]:
        """Return the best bounds that ascent finds for a batch of leaves, and the state that each should split next.

        Args:
            seeds: (N, rows).
            phases: +1 for z >= 0, -1 for z <= 0, 0 for open, (N, n_phases).
            start: slopes and multipliers to begin with, where there are any.
            steps, enough, check: as for `ascend`.
        """
        import torch

        lines: dict[int, Lines] = {}
        signs: dict[int, torch.Tensor] = {}
        for k, (lo, hi) in self._tensors.items():
            if k not in self._edges:
                lines[k] = self.net.lines(k, lo, hi)
                continue
            own = phases[:, slice(*self._edges[k])]
            if not own.any():
                lines[k] = self.net.lines(k, lo, hi)
                continue
            sigma = torch.from_numpy(own.astype(np.float32))
            cut = self._cuts[k]
            own_lo = torch.where(sigma > 0, torch.maximum(lo, cut), lo)
            own_hi = torch.where(sigma < 0, torch.minimum(hi, cut), hi)
            lines[k] = self.net.lines(k, own_lo, own_hi)
            signs[k] = sigma
        found = ascend(
            self.net,
            self._row,
            self._newest,
            seeds,
            lines,
            steps=steps,
            enough=enough,
            signs=signs,
            cuts=self._cuts,
            start=start,
            planes=self.planes,
            check=check,
        )
        return found, self._splits(found, lines, phases)

    def _planes_cost(self, k: int, score: torch.Tensor, v: torch.Tensor, found: Found) -> torch.Tensor:
        """Return scores with those of the states with planes in place: what the plane costs where the minimum is."""
        import torch

        hull = self.planes[k]
        assert found.point is not None
        cost = hull.looseness(found.planes[k], found.point) * torch.clamp(-v[:, hull.states], min=0)
        return score.index_copy(1, hull.states, torch.minimum(cost, score[:, hull.states]))

    def _splits(self, found: Found, lines: Mapping[int, Lines], phases: Phases) -> npt.NDArray[np.int64]:
        """Return the state whose line costs most at the cut, -1 where no state that bends is without a phase."""
        import torch

        count = len(phases)
        best = torch.full((count,), -1.0)
        where = torch.full((count,), -1, dtype=torch.long)
        for k, (first, last) in self._edges.items():
            own = lines[k]
            if k not in found.seen:
                continue
            v, cut, at_cut = found.seen[k], self._cuts[k], self._at_cuts[k]
            above = torch.clamp(own.up * cut + own.c_up - at_cut, min=0)
            if k in self.net.convex:
                open_, below = own.free.expand_as(v), 1e-3 * above
            else:
                below = torch.clamp(at_cut - own.low * cut - own.c_low, min=0)
                open_ = (torch.from_numpy(phases[:, first:last]) == 0) & (above + below > LEAST_LOSS)
            if not bool(open_.any()):
                continue
            score = torch.clamp(-v, min=0) * above + torch.clamp(v, min=0) * below
            if k in self.planes and found.point is not None:
                score = self._planes_cost(k, score, v, found)
            score = torch.where(open_, score, torch.full_like(score, -1.0))
            value, index = score.max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            where = torch.where(better, index + first, where)
        return where.numpy()
