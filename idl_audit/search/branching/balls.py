"""Balls as the search sees them: torch, float32, the support of `values.input_sets.NormBall` with a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idl_audit.search.device import tensor, zeros
from idl_audit.values.input_sets import STEPS, NormBall
from idl_audit.values.norms import Norm

if TYPE_CHECKING:
    import torch

LEAST = 1e-30


@dataclass(frozen=True, eq=False)
class SearchBall:
    """A ball cut with a box."""

    centre: torch.Tensor
    below: torch.Tensor
    """How far each input falls at most, >= 0."""
    above: torch.Tensor
    eps: float
    norm: Norm

    @classmethod
    def of(cls, ball: NormBall) -> SearchBall:
        """Return the ball in float32."""
        below, above = ball.moves
        return cls(tensor(ball.centre), tensor(below), tensor(above), ball.eps, ball.norm)

    def least(self, w: torch.Tensor) -> torch.Tensor:
        """Return the least w . u over the set, (N, p) -> (N,), up to rounding; its gradient is where it is."""
        return w @ self.centre + (w * self._step(w.detach())).sum(-1)

    def lowest(self, w: torch.Tensor) -> torch.Tensor:
        """Return about where w . u is least, (N, p)."""
        return self.centre + self._step(w)

    def _step(self, w: torch.Tensor) -> torch.Tensor:
        """Return u - centre there."""
        return self._step_l2(-w) if self.norm == "l2" else self._step_l1(-w)

    def _step_l2(self, m: torch.Tensor) -> torch.Tensor:
        """Return clip(m / lam, -below, above), lam as `values.input_sets.in_ball` finds it."""
        import torch

        far = torch.where(m > 0, self.above, self.below)
        squares, ends = m * m, far * far
        lam = squares.sum(-1).sqrt() / self.eps
        for _ in range(STEPS):
            at_end = m.abs() > lam[:, None] * far
            left = self.eps**2 - (ends * at_end).sum(-1)
            inside = (squares * ~at_end).sum(-1)
            lam = torch.where(left > 0, torch.minimum((inside / left.clamp(min=LEAST)).sqrt(), lam), zeros())
        step = m / lam.clamp(min=LEAST)[:, None]
        return torch.minimum(torch.maximum(step, -self.below), self.above)

    def _step_l1(self, m: torch.Tensor) -> torch.Tensor:
        """Return the largest entries at their ends, as many as the radius allows, the last one as far as is left."""
        import torch

        far = torch.where(m > 0, self.above, self.below)
        order = m.abs().argsort(-1, descending=True)
        ordered = far.gather(-1, order)
        before = ordered.cumsum(-1) - ordered
        used = torch.minimum(ordered, (self.eps - before).clamp(min=0.0))
        return torch.zeros_like(m).scatter(-1, order, used) * m.sign()
