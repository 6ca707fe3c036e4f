"""Bounds of all states at the root: intervals, backward lines, then optimised slopes for what is still unstable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import StateStep, retightened
from idl_audit.proof.leaves import prove_states
from idl_audit.proof.wanted import to_tighten
from idl_audit.proof.zonotopes import zonotopes_over
from idl_audit.search.branching.ascent import ascend
from idl_audit.search.branching.network import Lines, SearchNet, state_tensors
from idl_audit.search.device import arrays, as_it_is
from idl_audit.values.arrays import IntArray
from idl_audit.values.budget import Budget, Pace

ROOT_STEPS = 8
CURVED_STEPS = 24
"""Where there are curved blocks: both lines of every state move, by smaller steps."""
SEARCH_NUMBERS = 2**21
"""Numbers that one tensor of a search pass may hold."""


def root_bounds(
    net: SearchNet,
    inputs: Interval,
    *,
    budget: Budget,
    share: float = 1.0,
    steps: int | None = None,
    record: list[StateStep] | None = None,
) -> StateBounds:
    """Return proved bounds of all states over one box; the slopes behind them were found by first-order ascent.

    Past its share of the time the remaining blocks keep their plain backward bounds. `steps` are passes of ascent, the
    usual number where it is None; `record` takes the slopes that were chosen. Raises BudgetError where the time is over
    before all blocks have bounds.
    """
    model = net.model
    if steps is None:
        steps = CURVED_STEPS if net.curved else ROOT_STEPS
    bounds, zonotopes = StateBounds(), zonotopes_over(model, inputs)
    ascent = _Ascent(net, inputs, steps, budget, budget.part(share), record)
    for k in model.evaluation_order:
        block = model.blocks[k]
        bounds = retightened(model, k, bounds, None, inputs, zonotopes=zonotopes, check=budget.check)
        if not model.rows[k].states or ascent.share.out_of_time or steps <= 1:
            continue
        bending = np.flatnonzero(to_tighten(model, k, bounds).any(axis=0))
        if bending.size:
            bounds = bounds.with_block(k, block, ascent.tightened(k, bending, bounds), bounds.x[k])
    return bounds


@dataclass
class _Ascent:
    """Optimised slopes for one block after the other, as far as the share of the time reaches."""

    net: SearchNet
    inputs: Interval
    steps: int
    budget: Budget
    share: Budget
    record: list[StateStep] | None
    pace: Pace = field(default_factory=Pace)
    """Of one state from one side: its ascent and its proof."""

    def tightened(self, k: int, states: IntArray, bounds: StateBounds) -> Interval:
        """Return the bounds of z of block k with those of some states tightened."""
        model = self.net.model
        tensors = state_tensors(bounds)
        lines = {j: self.net.lines(j, *tensors[j]) for j in range(k + 1, len(model.blocks))}
        widest = max([model.n_inputs, *(block.size for block in model.blocks)])
        z, start = bounds.z[k], 0
        while start < states.size:
            count = self.pace.fitting(min(max(1, SEARCH_NUMBERS // widest), states.size - start), self.share)
            some = states[start : start + count]
            for sign in (1.0, -1.0):
                if not self.pace.fitting(count, self.share):
                    return z
                with self.pace.unit(count, self.budget):
                    z = self._one_side(k, some, sign, bounds, lines, z)
            start += count
        return z

    def _one_side(
        self, k: int, some: IntArray, sign: float, bounds: StateBounds, lines: Mapping[int, Lines], z: Interval
    ) -> Interval:
        net, check = self.net, self.budget.check
        seeds = np.zeros((some.size, net.model.blocks[k].size), np.float32)
        seeds[np.arange(some.size), some] = sign
        found = ascend(net, net.rows[k], k + 1, as_it_is(seeds), lines, steps=self.steps, check=check)
        slopes = arrays(found.slopes)
        proved = prove_states(net.model, self.inputs, bounds, k, some, sign, slopes, check=check)
        if self.record is not None:
            self.record.append(StateStep(k, some, sign, slopes))
        return z.tightened(some, sign, proved)
