"""Balls as the search sees them: torch, float32, the support of `values.input_sets.NormBall` with a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idl_audit.search.device import indices, tensor, zeros
from idl_audit.values.input_sets import STEPS, NormBall
from idl_audit.values.norms import Norm

if TYPE_CHECKING:
    import torch

LEAST = 1e-30
"""Below which the square of a multiplier is none."""
CLOSE = 1 - 2.0**-20
"""A square that falls by less is found: float32 has little more digits."""


@dataclass(frozen=True, eq=False)
class SearchBall:
    """A ball cut with a box."""

    centre: torch.Tensor
    below: torch.Tensor
    """How far each input falls at most in units of its radius, >= 0, (p,)."""
    above: torch.Tensor
    eps: float
    norm: Norm
    sigma: torch.Tensor | None
    """These units, (p,); None stands for ones."""
    least_of: torch.Tensor
    """What of a row counts, as `values.input_sets.Room` has it."""
    most_of: torch.Tensor
    few: torch.Tensor
    """Inputs that the box may stop before the ball does."""
    others: torch.Tensor
    """1 for all others, 0 for these, (p,)."""
    ends: tuple[torch.Tensor, torch.Tensor]
    """The squares of how far these few fall and rise."""

    @classmethod
    def of(cls, ball: NormBall) -> SearchBall:
        """Return the ball in float32."""
        room = ball.room
        below, above = tensor(room.below), tensor(room.above)
        few = indices(room.few)
        return cls(
            tensor(ball.centre),
            below,
            above,
            ball.eps,
            ball.norm,
            None if ball.sigma is None else tensor(ball.sigma),
            tensor(room.least),
            tensor(room.most),
            few,
            tensor(room.others),
            (below[few] ** 2, above[few] ** 2),
        )

    def least(self, w: torch.Tensor) -> torch.Tensor:
        """Return the least w . u over the set, (N, p) -> (N,), up to rounding; its gradient is where it is."""
        return (w * self.lowest(w.detach())).sum(-1)

    def lowest(self, w: torch.Tensor) -> torch.Tensor:
        """Return about where w . u is least over the set, (N, p)."""
        m = -w if self.sigma is None else w * -self.sigma
        step = self._step_l2(m) if self.norm == "l2" else self._step_l1(m)
        return self.centre + (step if self.sigma is None else step * self.sigma)

    def _step_l2(self, m: torch.Tensor) -> torch.Tensor:
        """Return clip(m / lam, -below, above), lam as `values.input_sets.Room.multiplier` finds it."""
        import torch

        moved = m.clamp(self.least_of, self.most_of)
        squares, some = moved * moved, moved[:, self.few]
        ends = torch.where(some > 0, self.ends[1], self.ends[0])
        some = some * some
        outside, whole, nothing = squares @ self.others, self.eps**2, zeros()
        squared = (outside + some.sum(-1)) / whole
        for _ in range(STEPS):
            at_end = some > squared[:, None] * ends
            left = whole - torch.where(at_end, ends, nothing).sum(-1)
            new = (outside + torch.where(at_end, nothing, some).sum(-1)) / left.clamp(min=LEAST)
            new = torch.where(left > 0, torch.minimum(new, squared), nothing)
            if bool((new >= squared * CLOSE).all()):
                break
            squared = new
        return (moved * squared.clamp(min=LEAST).rsqrt()[:, None]).clamp(-self.below, self.above)

    def _step_l1(self, m: torch.Tensor) -> torch.Tensor:
        """Return the largest entries at their ends, as many as the radius allows, the last one as far as is left."""
        import torch

        far = torch.where(m > 0, self.above, self.below)
        order = m.abs().argsort(-1, descending=True)
        ordered = far.gather(-1, order)
        before = ordered.cumsum(-1) - ordered
        used = torch.minimum(ordered, (self.eps - before).clamp(min=0.0))
        return torch.zeros_like(m).scatter(-1, order, used) * m.sign()
