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
from idl_audit.search.branching.ascent import Found, Mixture, ascend
from idl_audit.search.branching.network import Lines, SearchNet, SearchRow, state_tensors
from idl_audit.search.device import array, as_it_is, full, indices, tensor
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

        self.net, self._row, self._newest = net, row, newest
        self._tensors = {k: value for k, value in state_tensors(bounds).items() if k >= newest}
        self._order = [k for k in sorted(net.bent) if k in self._tensors]
        cuts = {k: cut_points(net.model.blocks[k], bounds.z[k]) for k in self._order}
        self._cuts = {k: tensor(cut) for k, cut in cuts.items()}
        self._at_cuts = {k: tensor(net.model.blocks[k](cut)) for k, cut in cuts.items()}
        self._without: dict[int, Lines] = {}
        self._halves: dict[int, tuple[Lines, Lines]] = {}
        self._gains: dict[int, torch.Tensor] = {}
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
        mixture: Mixture | None = None,
        check: Check = unchecked,
    ) -> tuple[Found, npt.NDArray[np.int64]]:
        """Return the best bounds that ascent finds for a batch of leaves, and the state that each should split next.

        Args:
            seeds: (N, rows).
            phases: +1 for z >= 0, -1 for z <= 0, 0 for open, (N, n_phases).
            start: slopes and multipliers to begin with, where there are any.
            steps, enough, mixture, check: as for `ascend`.
        """

        lines = self.lines(phases)
        signs = {k: tensor(own) for k, own in self.by_block(phases).items() if own.any()}
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
            mixture=mixture,
            check=check,
        )
        return found, self._splits(found, lines, phases)

    def lines(self, phases: Phases) -> dict[int, Lines]:
        """Return the lines of all blocks in some leaves; those of curved blocks are picked from three made once."""
        import torch

        by_block, lines = self.by_block(phases), dict[int, Lines]()
        for k, (lo, hi) in self._tensors.items():
            own = by_block.get(k)
            if own is None or not own.any():
                lines[k] = self._whole(k)
            elif k in self.net.curved:
                lines[k] = Lines.picked(self._sides(k), indices(own.astype(np.int64) % 3))
            else:
                sigma, cut = as_it_is(own), self._cuts[k]
                own_lo = torch.where(sigma > 0, torch.maximum(lo, cut), lo)
                own_hi = torch.where(sigma < 0, torch.minimum(hi, cut), hi)
                lines[k] = self.net.lines(k, own_lo, own_hi)
        return lines

    def _whole(self, k: int) -> Lines:
        """Return the lines of block k where no phase is fixed."""
        if k not in self._without:
            self._without[k] = self.net.lines(k, *self._tensors[k])
        return self._without[k]

    def _sides(self, k: int) -> tuple[Lines, Lines, Lines]:
        """Return the lines of a curved block without phases, above the cuts and below them."""
        import torch

        if k not in self._halves:
            (lo, hi), (last, first) = self._tensors[k], self._ends(k)
            above, below = (
                self.net.lines(k, torch.maximum(lo, first), hi),
                self.net.lines(k, lo, torch.minimum(hi, last)),
            )
            self._halves[k] = above, below
        return self._whole(k), *self._halves[k]

    def _ends(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the greatest z below the cuts of block k and the least above them, as float32 numbers."""
        import torch

        cut = self._cuts[k]
        if not self.net.model.blocks[k].jumps:
            return cut, cut
        far = torch.full_like(cut, torch.inf)
        return torch.nextafter(cut, -far), torch.nextafter(cut, far)

    def _gain(self, k: int) -> torch.Tensor:
        """Return by how much the lines of states that jump are closer in the middle of a half than in that of all."""
        import torch

        if k not in self._gains:
            (lo, hi), (last, first) = self._tensors[k], self._ends(k)
            whole, above, below = self._sides(k)

            def gap(own: Lines, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
                return (own.up - own.low) * (start + end) / 2 + own.c_up - own.c_low

            halves = gap(above, torch.maximum(lo, first), hi), gap(below, lo, torch.minimum(hi, last))
            self._gains[k] = torch.clamp(gap(whole, lo, hi) - torch.maximum(*halves), min=0)
        return self._gains[k]

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
        best = full((count,), -1.0)
        where = indices(np.full(count, -1))
        for k, (first, last) in self._edges.items():
            own = lines[k]
            if k not in found.seen:
                continue
            v, cut, at_cut = found.seen[k], self._cuts[k], self._at_cuts[k]
            if own.groups is not None:
                score = own.groups.losses(v)
                open_ = (as_it_is(phases[:, first:last]) == 0) & (score > LEAST_LOSS)
                best, where = _better(best, where, score, open_, first)
                continue
            above = torch.clamp(own.up * cut + own.c_up - at_cut, min=0)
            if k in self.net.convex:
                open_, below = own.free.expand_as(v), 1e-3 * above
            elif self.net.model.blocks[k].jumps:
                above = below = self._gain(k)
                open_ = (as_it_is(phases[:, first:last]) == 0) & (above > LEAST_LOSS)
            else:
                below = torch.clamp(at_cut - own.low * cut - own.c_low, min=0)
                open_ = (as_it_is(phases[:, first:last]) == 0) & (above + below > LEAST_LOSS)
            if not bool(open_.any()):
                continue
            score = torch.clamp(-v, min=0) * above + torch.clamp(v, min=0) * below
            if k in self.planes and found.point is not None:
                score = self._planes_cost(k, score, v, found)
            best, where = _better(best, where, score, open_, first)
        return np.asarray(array(where))


def _better(
    best: torch.Tensor, where: torch.Tensor, score: torch.Tensor, is_open: torch.Tensor, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best scores and their states, (N,), with those of the open states of one more block put in."""
    import torch

    value, index = torch.where(is_open, score, torch.full_like(score, -1.0)).max(dim=1)
    better = value > best
    return torch.where(better, value, best), torch.where(better, index + first, where)
