"""Bounds of all states at the root: intervals, backward lines, then optimised slopes for what is still unstable."""

from __future__ import annotations

import time

import numpy as np

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.branching.ascent import ascend
from idl_audit.analysis.branching.chain import StateStep, retightened
from idl_audit.analysis.branching.network import SearchNet, state_tensors
from idl_audit.analysis.branching.proof import prove_states
from idl_audit.arrays import IntArray

ROOT_STEPS = 20
SEARCH_NUMBERS = 2**23
"""Numbers that one tensor of a search pass may hold."""


def root_bounds(
    net: SearchNet, inputs: Interval, *, deadline: float, steps: int = ROOT_STEPS, record: list[StateStep] | None = None
) -> StateBounds:
    """Return proved bounds of all states over one box; the slopes behind them were found by first-order ascent.

    Past the deadline the remaining blocks keep their plain backward bounds. `record` takes the slopes that were chosen.
    """
    model = net.model
    bounds = StateBounds()
    for k in model.evaluation_order:
        block = model.blocks[k]
        bounds = retightened(model, k, bounds, None, inputs)
        if not model.rows[k].states or time.monotonic() > deadline or steps <= 1:
            continue
        bending = np.flatnonzero(bounds.unstable(k, block).any(axis=0))
        if bending.size:
            found = _by_ascent(net, k, bending, bounds, inputs, steps, deadline, record)
            bounds = bounds.with_block(k, block, found, bounds.x[k])
    return bounds


def _by_ascent(
    net: SearchNet,
    k: int,
    states: IntArray,
    bounds: StateBounds,
    inputs: Interval,
    steps: int,
    deadline: float,
    record: list[StateStep] | None,
) -> Interval:
    model = net.model
    tensors = state_tensors(bounds)
    newest = k + 1
    lines = {j: net.lines(j, *tensors[j]) for j in range(newest, len(model.blocks))}
    widest = max([model.n_inputs, *(block.size for block in model.blocks)])
    at_once = max(1, SEARCH_NUMBERS // widest)
    z = bounds.z[k]
    import torch

    for start in range(0, states.size, at_once):
        some = states[start : start + at_once]
        for sign in (1.0, -1.0):
            if time.monotonic() > deadline:
                return z
            seeds = torch.zeros((some.size, model.blocks[k].size))
            seeds[torch.arange(some.size), torch.from_numpy(some)] = sign
            found = ascend(net, net.rows[k], newest, seeds, lines, steps=steps)
            slopes = {j: value.numpy() for j, value in found.slopes.items()}
            proved = prove_states(model, inputs, bounds, k, some, sign, slopes)
            if record is not None:
                record.append(StateStep(k, some, sign, slopes))
            z = z.tightened(some, sign, proved)
    return z
