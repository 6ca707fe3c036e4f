"""First-order ascent on slopes (alpha) and split multipliers (beta): every row of a batch has its own.

The bound is that of alpha-CROWN and beta-CROWN (docs/mathematics.md, sections 6.4 and 8.2).

Elsewhere: optimised lower slopes, split constraints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from idl_audit.search import device
from idl_audit.search.branching.network import Lines, SearchNet, SearchRow
from idl_audit.search.branching.search_planes import rounded
from idl_audit.values.check import Check, unchecked

if TYPE_CHECKING:
    import torch

    from idl_audit.search.branching.search_planes import SearchPlanes

Tensors: TypeAlias = "Mapping[int, torch.Tensor]"

RATE = 0.25
"""Adam's step for the slopes; multipliers take half of it, in units of the row's first coefficients."""
CURVED_RATE = 0.045
"""For slopes of curved states, in shares of what they may be."""
MIXING_RATE = 0.1
"""For weights of rows."""
LEAST_WEIGHT = 1e-6
"""Of a row in a mixture, so that it may come back."""
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
    weights: torch.Tensor | None = None
    """Of the rows of a mixture, (N, r) >= 0, of sum 1."""
    point: torch.Tensor | None = None
    """With planes: where in the box, in units of it, the minimum was on average in the last passes, (N, p)."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Rows that leaves weigh: the functional is sum_r mu_r (rows_r . y + offsets_r), mu >= 0 of sum 1."""

    rows: torch.Tensor
    """(r, q)."""
    offsets: torch.Tensor
    """(r,)."""

    def of(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the functionals for some weights, (N, r) -> (N, q)."""
        return weights @ self.rows


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
    mixture: Mixture | None = None,
    check: Check = unchecked,
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
        mixture: the rows that `seeds` are mixed from by the weights of `start`, which are raised with the rest; their
            offsets are part of the bounds then.
        check: called before each pass.
    """
    import torch

    n_rows = len(seeds)
    chosen: dict[int, torch.Tensor] = {}
    for k, first in _first_slopes(net, row, newest, seeds, lines, {} if start is None else start.slopes).items():
        tangents = lines[k].tangents
        chosen[k] = (first.clone() if tangents is None else tangents.shares(first)).requires_grad_(steps > 1)
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
    mixed: dict[int, torch.Tensor] = {}
    if mixture is not None:
        assert start is not None
        assert start.weights is not None
        mixed[0] = start.weights.clone().requires_grad_(steps > 1)
    at_first = {k: value.detach().clone() for k, value in _slopes(lines, chosen).items()}
    best = Found(device.full((n_rows,), -float("inf")), at_first)
    best.planes = {k: v.detach().clone() for k, v in shares.items()}
    best.multipliers = {k: torch.zeros_like(b) for k, b in betas.items()}
    best.weights = mixed[0].detach().clone() if mixed else None

    def bound_of(
        slopes: Tensors,
        splits: Tensors,
        of_planes: Tensors,
        seen: dict[int, torch.Tensor],
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        used = {k: (planes[k], share) for k, share in of_planes.items()} if planes else None
        if mixture is None or weights is None:
            bound = net.bound(row, newest, seeds, lines, slopes, splits, seen, used)
        else:
            bound = net.bound(row, newest, mixture.of(weights), lines, slopes, splits, seen, used)
            bound = bound + weights @ mixture.offsets
        for k, split in splits.items():  # sigma beta (z - cut) >= 0
            if cuts is not None and k not in net.convex:
                bound = bound + split @ cuts[k]
        return bound

    curved = {k: v for k, v in chosen.items() if lines[k].tangents is not None}
    others = {k: v for k, v in chosen.items() if k not in curved}
    groups = (others, RATE), (curved, CURVED_RATE), (betas, RATE / 2), (shares, RATE), (mixed, MIXING_RATE)
    values = [value for own, _ in groups for value in own.values()]
    adam = device.adam([([*own.values()], rate) for own, rate in groups])
    decay = DECAY ** min(1.0, USUAL_STEPS / steps)
    for step in range(steps):
        check()
        splits = {k: signs[k] * betas[k] for k in betas} if signs else {}
        seen: dict[int, torch.Tensor] = {}
        last = step == steps - 1 or not values
        with torch.set_grad_enabled(not last):
            slopes = _slopes(lines, chosen)
            bound = bound_of(slopes, splits, shares, seen, mixed.get(0))
        best.seen = {k: v.detach() for k, v in seen.items()}
        better = bound.detach() > best.bound
        late = last or step == 0 or 2 * step >= steps
        if not late:  # most passes would be kept only to be replaced
            better &= bound.detach() > enough
        if late or bool(better.any()):
            best.bound = torch.where(better, bound.detach(), best.bound)
            for k, value in slopes.items():
                best.slopes[k][better] = value.detach()[better]
            for k, value in splits.items():
                best.multipliers[k][better] = value.detach()[better]
            for k, value in shares.items():
                best.planes[k][better] = value.detach()[better]
            if best.weights is not None:
                best.weights[better] = mixed[0].detach()[better]
        if shares and late:
            corner = -best.seen[-1].sign()
            passes = max(step - (steps + 1) // 2, 0) + 1
            best.point = corner if best.point is None else best.point + (corner - best.point) / passes
        if last or not bound.requires_grad or bool((best.bound > enough).all()):
            break
        pull = -torch.clamp(bound, max=enough + 1e-3).sum()
        gradients = torch.autograd.grad(pull, values, allow_unused=True)
        adam.step([None if own is None else device.gradient(own) for own in gradients], decay**step)
        with torch.no_grad():
            for k, value in chosen.items():
                if k in net.convex:
                    below, above = net.convex[k]
                    value.copy_(torch.minimum(torch.maximum(value, below), above))
                else:
                    value.clamp_(0, 1)
            for value in betas.values():
                value.clamp_(min=0)
            for value in shares.values():
                value.clamp_(0, 1)
            for value in mixed.values():
                value.clamp_(min=LEAST_WEIGHT)
                value.div_(value.sum(dim=1, keepdim=True))
    if shares:  # what will be stored and proved
        best.planes = {k: rounded(value) for k, value in best.planes.items()}
        with torch.no_grad():
            best.bound = bound_of(best.slopes, best.multipliers, best.planes, {}, best.weights)
    return best


def _first_slopes(
    net: SearchNet, row: SearchRow, newest: int, seeds: torch.Tensor, lines: Mapping[int, Lines], given: Tensors
) -> dict[int, torch.Tensor]:
    """Return the slopes to begin with, (N, n): those that are given, else those of the lines that v asks for."""
    import torch

    n_rows = len(seeds)
    first: dict[int, torch.Tensor] = {}
    for k, own in lines.items():
        if own.groups is not None and own.groups.first is not None:
            first[k] = given.get(k, own.groups.first.expand(n_rows, -1))
        elif own.tangents is not None or (k in net.convex and bool(own.free.any())):
            first[k] = given.get(k, own.low.expand(n_rows, -1))
    bare = [k for k in first if lines[k].tangents is not None and k not in given]
    if bare:
        seen: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            net.bound(row, newest, seeds, lines, {k: given[k] for k in first if k in given}, {}, seen)
        for k in bare:
            if k in seen:
                first[k] = torch.where(seen[k] >= 0, lines[k].low, lines[k].up)
    return first


def _slopes(lines: Mapping[int, Lines], chosen: Tensors) -> dict[int, torch.Tensor]:
    """Return what is raised as slopes: shares of curved states become them; slopes and shares of planes stay."""
    slopes = {}
    for k, value in chosen.items():
        tangents = lines[k].tangents
        slopes[k] = value if tangents is None else tangents.slopes(value)
    return slopes
