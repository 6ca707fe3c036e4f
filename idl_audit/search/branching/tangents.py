"""Lines that touch the graphs of curved states, of any slope: what the search raises in place of fixed lines.

Over [l, h] the line of slope s below phi has the height min of phi(z) - s z, that above it the max. Both are concave or
convex in s, and their derivative is -z (docs/mathematics.md, section 6.4). Proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idl_audit.implicit.model import StateBlock
from idl_audit.search.device import array, tensor
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Tangents:
    """Slopes of the states of one block over [lo, hi], (n,) or (N, n), as shares of what their slopes may be."""

    block: StateBlock
    lo: torch.Tensor
    hi: torch.Tensor
    least: torch.Tensor
    """The least slope that occurs."""
    span: torch.Tensor
    """How much more the greatest is."""

    @classmethod
    def of(cls, block: StateBlock, lo: FloatArray, hi: FloatArray) -> Tangents:
        """Take the bounds of the pre-activations."""
        least, most = block.line_slopes(lo, hi)
        return cls(block, tensor(lo), tensor(hi), tensor(least), tensor(most - least))

    def slopes(self, shares: torch.Tensor) -> torch.Tensor:
        """Return slopes: share 0 is the least that occurs, 1 the greatest."""
        return self.least + self.span * shares

    def shares(self, slopes: torch.Tensor) -> torch.Tensor:
        """Return shares of given slopes, in [0, 1]."""
        import torch

        return ((slopes - self.least) / torch.clamp(self.span, min=1e-30)).clamp_(0, 1)

    def heights(self, slopes: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the heights at 0 of the lines, (N, n): below the graph where v >= 0, above it elsewhere."""
        side = np.copysign(np.float32(1.0), array(v))
        z, x = self.block.touched(side, array(slopes), array(self.lo), array(self.hi))
        return tensor(x) - slopes * tensor(z)
