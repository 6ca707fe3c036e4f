"""The network as the search sees it: torch, float32, batches of rows pushed backwards. Nothing here proves anything.

Every row of a batch has its own slopes and multipliers. For a row of v (the functional's coefficients of the states) a
state between the lines low z + c_low and up z + c_up contributes max(v, 0) low + min(v, 0) up to the coefficients of z,
and max(v, 0) c_low + min(v, 0) c_up to the constant; behind the last block the box is minimised in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.proof.bounds import StateBounds
from idl_audit.search.branching.balls import SearchBall
from idl_audit.search.branching.groups import Groups, groups_of
from idl_audit.search.branching.tangents import Tangents
from idl_audit.search.device import current, doubles, tensor, zeros
from idl_audit.search.torch_maps import Function, load_torch, pulled
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.input_sets import InputSet, NormBall

if TYPE_CHECKING:
    import torch

    from idl_audit.search.branching.search_planes import SearchPlanes

LARGEST_DENSE = 2**25
"""Maps with at most so many entries become matrices, which small convolutions are faster as."""


@dataclass(frozen=True, eq=False)
class SearchRow:
    """One row of blocks: what its functionals hand on to each source, to the input and to the constant."""

    states: tuple[tuple[int, Function], ...]
    input: Function | None
    constant: torch.Tensor


@dataclass(eq=False)
class Lines:
    """The lines around the states of one block, (n,) or (N, n); `free` marks slopes that may be chosen."""

    low: torch.Tensor
    up: torch.Tensor
    c_low: torch.Tensor
    c_up: torch.Tensor
    free: torch.Tensor
    """Where the lower line has any slope in [below, above] through 0: unstable states of a convex kink."""
    tangents: Tangents | None = None
    """Of a curved block: lines of other slopes, which may be chosen for every state."""
    groups: Groups | None = None
    """Of a coupled block: the planes that stand in place of all these lines."""

    @classmethod
    def picked(cls, several: Sequence[Lines], index: torch.Tensor) -> Lines:
        """Return lines of curved blocks, state by state: those of several[index], (N, n); each of several is (n,)."""
        import torch

        def pick(name: str, owners: Sequence[object]) -> torch.Tensor:
            return torch.stack([getattr(own, name) for own in owners]).gather(0, index)

        tangents = [own.tangents for own in several if own.tangents is not None]
        lo, hi, least, span = (pick(name, tangents) for name in ("lo", "hi", "least", "span"))
        low, up, c_low, c_up, free = (pick(name, several) for name in ("low", "up", "c_low", "c_up", "free"))
        return cls(low, up, c_low, c_up, free, Tangents(tangents[0].block, lo, hi, least, span))


class SearchNet:
    """A feed-forward implicit model over one box or ball, in float32."""

    def __init__(self, model: ImplicitModel, inputs: InputSet, budget: Budget = UNLIMITED) -> None:
        """Put the maps of the model into torch. Raises BudgetError where the time is over before that is done."""
        load_torch()
        self.model = model
        *self.rows, self.output = _search_rows(model, budget)
        self.centre = tensor(inputs.hull.centre)
        self.radius = tensor(inputs.hull.radius)
        self.ball = SearchBall.of(inputs) if isinstance(inputs, NormBall) else None
        """Where the set is no box: what its support is; no plane stands in for a chord then."""
        self.convex: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Block -> (below, above) of the blocks whose states branch on the sign of z."""
        self.curved = {k for k, block in enumerate(model.blocks) if block.has_lines_of_any_slope}
        """Blocks whose states' lines may have any slope."""
        self.bent: set[int] = set()
        """Blocks whose states may be split: all but linear ones and softmax, whose planes gain little by a split."""
        for k, block in enumerate(model.blocks):
            phi = block.activation
            if not isinstance(phi, Softmax) and not (isinstance(phi, Kinked) and np.array_equal(phi.below, phi.above)):
                self.bent.add(k)
            if isinstance(phi, Kinked) and bool((np.asarray(phi.above) >= np.asarray(phi.below)).all()):
                below, above = (
                    np.broadcast_to(np.asarray(side, np.float64), block.size) for side in (phi.below, phi.above)
                )
                self.convex[k] = tensor(below), tensor(above)

    def lines(self, k: int, lo: torch.Tensor, hi: torch.Tensor) -> Lines:
        """Return the lines of block k over [lo, hi], shape (n,) or (N, n)."""
        import torch

        if self.model.blocks[k].activation.coupled:
            return self._planes(k, lo, hi)
        if k not in self.convex:
            return self._fixed_lines(k, lo, hi)
        below, above = self.convex[k]
        free = (lo < 0) & (hi > 0) & (below < above)
        width = torch.clamp(hi - lo, min=1e-30)
        slope = torch.where(lo >= 0, above, below).expand_as(free)
        chord = (above * hi - below * lo) / width
        zero = torch.zeros_like(chord)
        near = torch.where(hi > -lo, above, below).expand_as(free)
        return Lines(
            torch.where(free, near, slope),
            torch.where(free, chord, slope),
            zero,
            torch.where(free, (above - chord) * hi, zero),
            free,
        )

    def _planes(self, k: int, lo: torch.Tensor, hi: torch.Tensor) -> Lines:
        import torch

        none, never = torch.zeros_like(lo), torch.zeros_like(lo, dtype=torch.bool)
        groups = groups_of(self.model.blocks[k], doubles(lo), doubles(hi))
        return Lines(none, none, none, none, never, groups=groups)

    def _fixed_lines(self, k: int, lo: torch.Tensor, hi: torch.Tensor) -> Lines:
        import torch

        block = self.model.blocks[k]
        low, high = doubles(lo), doubles(hi)
        below, above = block.relaxation_slopes(low, high)
        one, none = np.ones_like(low), np.zeros_like(low)
        c_low = block.lower_support(one, none, below, low, high)
        c_up = -block.lower_support(-one, none, -above, low, high)
        parts = [tensor(np.ascontiguousarray(part)) for part in (below, above, c_low, c_up)]
        tangents = Tangents.of(block, low, high) if k in self.curved else None
        free = torch.zeros_like(parts[0], dtype=torch.bool)
        return Lines(parts[0], parts[1], parts[2], parts[3], free, tangents)

    def bound(
        self,
        row: SearchRow,
        newest: int,
        seeds: torch.Tensor,
        lines: Mapping[int, Lines],
        slopes: Mapping[int, torch.Tensor],
        splits: Mapping[int, torch.Tensor],
        seen: dict[int, torch.Tensor] | None = None,
        planes: Mapping[int, tuple[SearchPlanes, torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """Return a lower bound of each row's functional over the box, (N,), up to rounding.

        Args:
            row: what the functionals are rows of.
            newest: blocks with a number below this one do not occur.
            seeds: (N, rows).
            lines: block -> lines, for every block that occurs.
            slopes: block -> chosen slopes, (N, n): lower ones where the lines are free; of curved blocks, those of the
                lines that v asks for.
            splits: block -> sigma * beta, (N, n): what is taken from the coefficients of z in split states.
            seen: where given, filled with block -> v; -1 stands for the input.
            planes: block -> planes, with their shares, that take the chord's place where v < 0.
        """
        import torch

        sums: dict[int, torch.Tensor] = {}
        tilted: torch.Tensor | None = None
        total = seeds @ row.constant
        inputs = self._push(row, seeds, sums, None)
        for k in range(newest, len(self.rows)):
            v = sums.pop(k, None)
            if v is None:
                continue
            if seen is not None:
                seen[k] = v
            own = lines[k]
            if planes is not None and k in planes:
                hull, shares = planes[k]
                wanted = torch.where(own.free & (v < 0), v, torch.zeros_like(v))[:, hull.states]
                v = v - torch.zeros_like(v).index_copy(1, hull.states, wanted)
                tilted = zeros(len(v), self.radius.numel()) if tilted is None else tilted
                constants, tilted = hull(wanted, shares, tilted)
                total = total + constants
            lam, summands = self._over_states(own, v, slopes.get(k))
            total = total + summands
            if k in splits:
                lam = lam - splits[k]
            total = total + lam @ self.rows[k].constant
            inputs = self._push(self.rows[k], lam, sums, inputs)
        if tilted is not None:
            if inputs is not None:
                total, tilted = total + inputs @ self.centre, tilted + inputs * self.radius
            inputs = tilted
            total = total - inputs.abs().sum(-1)
        elif inputs is not None:
            total = total + self._least(inputs)
        if seen is not None and inputs is not None:
            seen[-1] = inputs
        return total

    def _least(self, w: torch.Tensor) -> torch.Tensor:
        """Return the least w . u over the set, (N, p) -> (N,)."""
        return w @ self.centre - w.abs() @ self.radius if self.ball is None else self.ball.least(w)

    def lowest(self, w: torch.Tensor) -> torch.Tensor:
        """Return about where w . u is least over the set, (N, p)."""
        return self.centre - self.radius * w.sign() if self.ball is None else self.ball.lowest(w)

    @staticmethod
    def _over_states(own: Lines, v: torch.Tensor, slopes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coefficients of z that lines give for those of x, (N, n), and the sum of their constants."""
        import torch

        if own.groups is not None:
            return own.groups.over_states(v, slopes)
        if own.tangents is not None and slopes is not None:
            return v * slopes, (v * own.tangents.heights(slopes, v)).sum(-1)
        low = own.low if slopes is None else torch.where(own.free, slopes, own.low)
        up, down = torch.clamp(v, min=0), torch.clamp(v, max=0)
        return up * low + down * own.up, (up * own.c_low + down * own.c_up).sum(-1)

    @staticmethod
    def _push(
        row: SearchRow, v: torch.Tensor, sums: dict[int, torch.Tensor], inputs: torch.Tensor | None
    ) -> torch.Tensor | None:
        for k, pull in row.states:
            term = pull(v)
            sums[k] = sums[k] + term if k in sums else term
        if row.input is None:
            return inputs
        term = row.input(v)
        return term if inputs is None else inputs + term


def state_tensors(bounds: StateBounds, i: int = 0) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return block -> (lo, hi) of box i."""
    return {k: (tensor(z.lo[i]), tensor(z.hi[i])) for k, z in bounds.z.items()}


def _search_rows(model: ImplicitModel, budget: Budget) -> list[SearchRow]:
    """Return every row of blocks, the output's last: made once, for all boxes of a model."""
    rows = (*model.rows, model.output)
    largest = budget.limit(4 * LARGEST_DENSE * len(rows)) // (4 * len(rows))
    made = _made_rows(model, largest, current())
    for row in rows[len(made) :]:
        budget.check()
        made.append(_search_row(row, largest))
    return made


@lru_cache(maxsize=2)
def _made_rows(model: ImplicitModel, largest: int, place: object) -> list[SearchRow]:
    """Return the rows that were made so far."""
    return []


def _search_row(row: Affine, largest: int) -> SearchRow:
    states = tuple((k, pulled(row.states[k], largest)) for k in sorted(row.states))
    return SearchRow(states, None if row.input is None else pulled(row.input, largest), tensor(row.constant))
