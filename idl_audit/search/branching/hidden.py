"""Branching on hidden states: tighter bounds of a block's own z, by a small tree for each of its unstable states.

Blocks are visited oldest first, each with the bounds of the ones before it as they now are. All states of a block and
both sides of each are searched in one batch of (objective, leaf) rows; a round splits the worst third of every
objective's leaves. The bound of an objective is that of its worst leaf, and the proof pass's word alone counts. All of
this is rows of a few arrays and one proof at the end, so that the loop is not that of `search.frontier`.
Intermediate bounds by branch and bound (docs/mathematics.md, section 8.3).

Elsewhere: refined intermediate bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import StateTrees, proved_by_trees, retightened
from idl_audit.proof.cover import Phases
from idl_audit.proof.planes import Planes
from idl_audit.proof.zonotopes import zonotopes_over
from idl_audit.search import device
from idl_audit.search.branching.ascent import Found
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.phased import PhasedSearch
from idl_audit.search.branching.search_planes import SearchPlanes, in_parts, of_parts, planes_for
from idl_audit.search.branching.tree import BYTES_A_PHASE
from idl_audit.values.arrays import ByteArray, Float32Array, FloatArray, IntArray
from idl_audit.values.budget import Budget, Pace
from idl_audit.values.check import Check

if TYPE_CHECKING:
    import torch

FIRST_STEPS = 20
ONLY_STEPS = 40
"""Where there is one leaf."""
LATER_STEPS = 8
SEARCH_ROWS = 1024
"""Leaves of one pass: few enough to stay in cache."""
SEARCH_SHARES = 2**18
"""Of planes, in one pass: few enough to stay in cache."""
MOST_SHARES = 2**26
"""Of planes, in all leaves of a block's trees; where there would be more, chords have to do."""
MOST_BYTES = 2**31
"""Of a block's leaves, unless less is allowed."""
PROBE = 8
LEAST_GAIN = 0.1
"""Blocks with many unstable states are searched where so large a share of the width goes for a few of them."""
HOPELESS = -30.0
"""Blocks all of whose states stay unstable beyond this on both sides are left alone."""


def tree_bounds(
    net: SearchNet,
    inputs: Interval,
    bounds: StateBounds,
    leaves: int,
    *,
    budget: Budget,
    share: float = 1.0,
    record: list[StateTrees] | None = None,
) -> tuple[StateBounds, bool]:
    """Return proved bounds of all states over one box, `bounds` tightened block by block, and whether any tree grew.

    Args:
        net: the network.
        inputs: the box.
        bounds: proved bounds of all states.
        leaves: how many leaves an objective may have.
        budget: what all of it may cost.
        share: of the budget, for trees; past it the remaining blocks get backward lines alone.
        record: takes the leaves behind the bounds.

    Raises:
        BudgetError: where the time is over before all blocks have bounds.
    """
    model = net.model
    fresh, zonotopes = StateBounds(), zonotopes_over(model, inputs)
    grew = False
    grower = _Grower(budget, budget.part(share))
    for k in model.evaluation_order:
        fresh = retightened(model, k, fresh, bounds, inputs, zonotopes=zonotopes, check=budget.check)
        block = model.blocks[k]
        unstable = np.flatnonzero(fresh.unstable(k, block)[0])
        older = any(fresh.unstable(j, model.blocks[j]).any() for j in net.bent if j > k and j in fresh.z)
        if not unstable.size or not older or grower.share.is_spent:
            continue
        z = fresh.z[k]
        if (z.hi[0, unstable] > -HOPELESS).all() and (z.lo[0, unstable] < HOPELESS).all():
            continue
        search = PhasedSearch(net, net.rows[k], k + 1, fresh)
        search.planes = _planes(net, inputs, k, fresh, 2 * unstable.size * leaves)
        if not grower.holds(search, 2 * unstable.size):
            continue
        if leaves == 1 and not search.planes:  # slopes alone have been raised at the root
            continue
        if unstable.size > 4 * PROBE and not _pays(grower, search, k, unstable, fresh, leaves):
            continue
        found = grower.grow(search, k, unstable, leaves)[0]
        grew = True
        if record is not None:
            record.append(found)
        with grower.proofs.unit(found.owner.size, budget):
            proved = proved_by_trees(model, inputs, fresh, found, check=budget.check)
        fresh = fresh.with_block(k, block, proved, fresh.x[k])
    return fresh, grew


def _planes(net: SearchNet, inputs: Interval, k: int, bounds: StateBounds, leaves: int) -> dict[int, SearchPlanes]:
    """Return planes for the states that block k reads, where so many leaves may have them."""
    wanted = {j: np.full(net.model.blocks[j].size, -1.0) for j in bounds.z if j > k}
    planes = planes_for(net.model, inputs, bounds.z, wanted)
    return planes if leaves * sum(own.numbers for own in planes.values()) <= MOST_SHARES else {}


def _pays(grower: _Grower, search: PhasedSearch, k: int, states: IntArray, bounds: StateBounds, most: int) -> bool:
    """Return whether trees for a few of the states narrow them enough."""
    few = states[np.linspace(0, states.size - 1, PROBE).astype(np.int64)]
    worst = grower.grow(search, k, few, min(most, 16))[1]
    z = bounds.z[k]
    before = z.hi[0, few] - z.lo[0, few]
    after = np.minimum(z.hi[0, few], -worst[PROBE:]) - np.maximum(z.lo[0, few], worst[:PROBE])
    return bool((after / before).mean() < 1 - LEAST_GAIN)


@dataclass
class _Grower:
    """Grows the trees of one block after the other, as far as its share of the budget reaches."""

    budget: Budget
    share: Budget
    leaves: Pace = field(default_factory=Pace)
    """Of the search of one leaf."""
    proofs: Pace = field(default_factory=Pace)
    """Of the proof of one leaf."""

    def grow(self, search: PhasedSearch, k: int, states: IntArray, most: int) -> tuple[StateTrees, FloatArray]:
        """Return leaves for both sides of some states of block k, found in float32, and the worst leaf of each."""
        n = states.size
        signs = np.zeros((2 * n, search.net.model.blocks[k].size), np.float32)
        signs[np.arange(n), states], signs[np.arange(n) + n, states] = 1.0, -1.0
        targets = device.as_it_is(signs)
        steps = FIRST_STEPS if most > 1 else ONLY_STEPS
        roots = np.zeros((2 * n, search.n_phases), np.int8)
        batch = self._searched(search, targets, np.arange(2 * n), roots, None, steps)
        while True:
            chosen = _worst_third(batch, 2 * n, most)
            if not chosen.size or not self._fits(search, batch, chosen):
                break
            parents = batch.rows(np.repeat(chosen, 2))
            phases = parents.phases.copy()
            phases[np.arange(len(phases)), parents.split] = np.tile([1, -1], chosen.size)
            children = self._searched(search, targets, parents.owner, phases, parents, LATER_STEPS)
            children.bound = np.fmax(children.bound, parents.bound)
            batch = batch.without(chosen).joined(children)
        return _as_trees(search, k, states, batch)

    def _searched(
        self,
        search: PhasedSearch,
        targets: torch.Tensor,
        owner: IntArray,
        phases: Phases,
        parents: _Batch | None,
        steps: int,
    ) -> _Batch:
        self.share.spend(len(owner))
        with self.leaves.unit(len(owner), self.budget):
            return _Batch.of(search, targets, owner, phases, parents, steps, self.budget.check)

    def _fits(self, search: PhasedSearch, batch: _Batch, chosen: IntArray) -> bool:
        """Return whether a round of splits fits into the share, and the proof of all leaves after it."""
        more, leaves = 2 * chosen.size, batch.owner.size + chosen.size
        rest = self.share.before(self.proofs.seconds * leaves)
        fits = self.holds(search, leaves) and self.share.affordable(more) == more
        return fits and self.leaves.fitting(more, rest) == more

    def holds(self, search: PhasedSearch, leaves: int) -> bool:
        """Return whether so many leaves fit into memory; a round of splits copies them."""
        shares = sum(planes.numbers for planes in search.planes.values())
        return 2 * leaves * (BYTES_A_PHASE * search.n_phases + shares) <= self.budget.limit(MOST_BYTES)


def _as_trees(search: PhasedSearch, k: int, states: IntArray, batch: _Batch) -> tuple[StateTrees, FloatArray]:
    """Return the leaves as they are recorded, and the worst bound of each objective."""
    n = states.size
    worst = np.full(2 * n, np.inf)
    np.minimum.at(worst, batch.owner, batch.bound)
    found = StateTrees(
        k,
        np.tile(states, 2),
        np.repeat(np.array([1.0, -1.0]), n),
        batch.owner,
        {j: own for j, own in search.by_block(batch.phases).items() if own.any()},
        batch.slopes,
        {j: own for j, own in batch.multipliers.items() if own.any()},
        {j: Planes(search.planes[j].numbers_of_states, own) for j, own in batch.shares.items()},
    )
    return found, worst


def _worst_third(batch: _Batch, n_objectives: int, most: int) -> IntArray:
    """Return the leaves to split: of every objective that is still open and has room, the worst third."""
    order = np.lexsort((batch.bound, batch.owner))
    owner = batch.owner[order]
    count = np.bincount(owner, minlength=n_objectives)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    place = np.arange(owner.size) - first[owner]
    room = np.minimum(-(-count // 3), most - count)
    worst = batch.bound[order]
    chosen = order[(place < room[owner]) & (worst <= 0)]
    return np.asarray(chosen[batch.split[chosen] >= 0])


@dataclass(eq=False)
class _Batch:
    """Leaves of many objectives, one row each."""

    owner: IntArray
    phases: Phases
    bound: Float32Array
    split: npt.NDArray[np.int64]
    slopes: dict[int, Float32Array]
    multipliers: dict[int, Float32Array]
    shares: dict[int, ByteArray]

    @classmethod
    def of(
        cls,
        search: PhasedSearch,
        targets: torch.Tensor,
        owner: IntArray,
        phases: Phases,
        parents: _Batch | None,
        steps: int,
        check: Check,
    ) -> _Batch:
        """Search leaves, a cache's worth at a time, from what their parents chose."""
        whole: _Batch | None = None
        at_once = min(SEARCH_ROWS, max(1, SEARCH_SHARES // max(1, sum(own.numbers for own in search.planes.values()))))
        for first in range(0, len(owner), at_once):
            rows = slice(first, first + at_once)
            start = None if parents is None else parents.rows(rows).chosen()
            seeds = targets[owner[rows].tolist()]
            found, split = search(seeds, phases[rows], start, steps=steps, enough=1e-4, check=check)
            part = cls(
                owner[rows],
                phases[rows],
                device.array(found.bound),
                split,
                device.arrays(found.slopes),
                {j: np.broadcast_to(v, (len(split), v.shape[-1])) for j, v in device.arrays(found.multipliers).items()},
                {j: in_parts(v) for j, v in found.planes.items()},
            )
            whole = part if whole is None else whole.joined(part)
        assert whole is not None
        return whole

    def chosen(self) -> Found:
        """Return the leaves' slopes, multipliers and planes, to begin with."""
        slopes, multipliers = (
            {j: device.as_it_is(v) for j, v in own.items()} for own in (self.slopes, self.multipliers)
        )
        return Found(device.zeros(0), slopes, multipliers, planes={j: of_parts(v) for j, v in self.shares.items()})

    def rows(self, rows: IntArray | slice) -> _Batch:
        """Return some leaves."""
        slopes, multipliers = ({j: v[rows] for j, v in own.items()} for own in (self.slopes, self.multipliers))
        shares = {j: v[rows] for j, v in self.shares.items()}
        return _Batch(
            self.owner[rows], self.phases[rows], self.bound[rows], self.split[rows], slopes, multipliers, shares
        )

    def without(self, rows: IntArray) -> _Batch:
        """Return the other leaves."""
        return self.rows(np.setdiff1d(np.arange(self.owner.size), rows))

    def joined(self, other: _Batch) -> _Batch:
        """Return the leaves of both; multipliers that one does not know are 0."""

        def union(mine: dict[int, Float32Array], theirs: dict[int, Float32Array]) -> dict[int, Float32Array]:
            result = {}
            for j in sorted({*mine, *theirs}):
                width = (mine[j] if j in mine else theirs[j]).shape[1]
                a = mine.get(j, np.zeros((self.owner.size, width), np.float32))
                b = theirs.get(j, np.zeros((other.owner.size, width), np.float32))
                result[j] = np.concatenate([a, b])
            return result

        return _Batch(
            np.concatenate([self.owner, other.owner]),
            np.concatenate([self.phases, other.phases]),
            np.concatenate([self.bound, other.bound]),
            np.concatenate([self.split, other.split]),
            union(self.slopes, other.slopes),
            union(self.multipliers, other.multipliers),
            {j: np.concatenate([v, other.shares[j]]) for j, v in self.shares.items()},
        )
