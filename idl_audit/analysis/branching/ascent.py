"""First-order ascent on slopes and split multipliers: every row of a batch has its own (verification: the bound)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idl_audit.analysis.branching.network import Lines, SearchNet, SearchRow

if TYPE_CHECKING:
    import torch

    from idl_audit.analysis.branching.search_planes import SearchPlanes

RATE = 0.25
"""Adam's step for the slopes; multipliers take half of it, in units of the row's first coefficients."""
DECAY = 0.95
"""Of the step, a pass; less where there are many passes, so that the last of them still move."""
USUAL_STEPS = 40


@dataclass(eq=False)
class Found:
    """The best bound of each row, (N,), with the slopes and multipliers that gave it: block -> (N, n)."""

    bound: torch.Tensor
    slopes: dict[int, torch.Tensor]
    multipliers: dict[int, torch.Tensor] = field(default_factory=dict)
    """sigma * beta."""
    seen: dict[int, torch.Tensor] = field(default_factory=dict)
    """The coefficients v of the states in the last pass; -1 stands for the input."""
    planes: dict[int, torch.Tensor] = field(default_factory=dict)
    """Block -> shares, (N, t, q)."""
    point: torch.Tensor | None = None
    """With planes: where in the box, in units of it, the minimum was on average in the last passes, (N, p)."""


def ascend(
    net: SearchNet,
    row: SearchRow,
    newest: int,
    seeds: torch.Tensor,
    lines: Mapping[int, Lines],
    *,
    steps: int,
    enough: float | torch.Tensor = 0.0,
    signs: Mapping[int, torch.Tensor] | None = None,
    cuts: Mapping[int, torch.Tensor] | None = None,
    start: Found | None = None,
    planes: Mapping[int, SearchPlanes] | None = None,
) -> Found:
    """Raise the bounds of all rows, a row of `seeds` each, by Adam on its slopes and its split multipliers.

    Args:
        net: the network.
        row, newest, seeds, lines: as for `SearchNet.bound`.
        steps: passes; the first is at the given slopes.
        enough: rows above this no longer pull; a number, or one a row.
        signs: block -> sigma, (N, n): +1 where a state is split to z >= cut, -1 to z <= cut, 0 elsewhere.
        cuts: block -> where its states are split, (n,); 0 elsewhere.
        start: slopes, multipliers and shares to begin with.
        planes: block -> planes of some of its states, whose shares are raised with the rest.
    """
    import torch

    n_rows = len(seeds)
    chosen: dict[int, torch.Tensor] = {}
    for k, own in lines.items():
        if k in net.convex and bool(own.free.any()):
            given = None if start is None else start.slopes.get(k)
            chosen[k] = (own.low.expand(n_rows, -1) if given is None else given).clone().requires_grad_(steps > 1)
    betas: dict[int, torch.Tensor] = {}
    for k, sigma in (signs or {}).items():
        if bool((sigma != 0).any()):
            given = None if start is None else start.multipliers.get(k)
            first = torch.zeros_like(sigma) if given is None else given.abs()
            betas[k] = first.clone().requires_grad_(steps > 1)
    shares: dict[int, torch.Tensor] = {}
    for k, hull in (planes or {}).items():
        given = None if start is None else start.planes.get(k)
        first = hull.first.expand(n_rows, -1, -1) if given is None else given
        shares[k] = first.clone().requires_grad_(steps > 1)
    best = Found(torch.full((n_rows,), -float("inf")), {k: v.detach().clone() for k, v in chosen.items()})
    best.planes = {k: v.detach().clone() for k, v in shares.items()}
    best.multipliers = {k: torch.zeros_like(b) for k, b in betas.items()}
    parameters = [
        {"params": list(chosen.values()), "lr": RATE},
        {"params": list(betas.values()), "lr": RATE / 2},
        {"params": list(shares.values()), "lr": RATE},
    ]
    parameters = [group for group in parameters if group["params"]]
    optimizer = torch.optim.Adam(parameters) if steps > 1 and parameters else None
    decay = DECAY ** min(1.0, USUAL_STEPS / steps)
    for step in range(steps):
        splits = {k: signs[k] * betas[k] for k in betas} if signs else {}
        seen: dict[int, torch.Tensor] = {}
        last = step == steps - 1 or optimizer is None
        with torch.set_grad_enabled(not last):
            used = {k: (planes[k], share) for k, share in shares.items()} if planes else None
            bound = net.bound(row, newest, seeds, lines, chosen, splits, seen, used)
            for k, split in splits.items():  # sigma beta (z - cut) >= 0
                if cuts is not None and k not in net.convex:
                    bound = bound + split @ cuts[k]
        better = bound.detach() > best.bound
        best.bound = torch.where(better, bound.detach(), best.bound)
        for k, value in chosen.items():
            best.slopes[k][better] = value.detach()[better]
        for k, value in splits.items():
            best.multipliers[k][better] = value.detach()[better]
        for k, value in shares.items():
            best.planes[k][better] = value.detach()[better]
        best.seen = {k: v.detach() for k, v in seen.items()}
        if shares and step >= steps // 2:
            corner = -best.seen[-1].sign()
            best.point = corner if best.point is None else best.point + (corner - best.point) / (step - steps // 2 + 1)
        if last or not bound.requires_grad or bool((best.bound > enough).all()):
            break
        assert optimizer is not None  # else this pass was the last
        optimizer.zero_grad()
        torch.autograd.backward(-torch.minimum(bound, torch.as_tensor(enough + 1e-3)).sum())
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= decay
        with torch.no_grad():
            for k, value in chosen.items():
                below, above = net.convex[k]
                value.copy_(torch.minimum(torch.maximum(value, below), above))
            for value in betas.values():
                value.clamp_(min=0)
            for value in shares.values():
                value.clamp_(0, 1)
    return best
