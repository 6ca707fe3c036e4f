"""Lines that touch the graphs of curved states, of any slope: what the search raises in place of fixed lines.

Over [l, h] the line of slope s below phi has the height min of phi(z) - s z, that above it the max. Both are concave or
convex in s, and their derivative is -z (docs/mathematics.md, section 6.4). Proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from idl_audit.implicit.model import StateBlock
from idl_audit.search.torch_maps import tensor
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    import torch


class Tangents:
    """Slopes of the states of one block over [lo, hi], (n,) or (N, n), as shares of what their slopes may be."""

    def __init__(self, block: StateBlock, lo: FloatArray, hi: FloatArray) -> None:
        """Take the bounds of the pre-activations."""
        self._block, self._lo, self._hi = block, lo.astype(np.float32), hi.astype(np.float32)
        self.least, most = (tensor(side) for side in block.slopes(lo, hi))
        self.span = most - self.least

    def slopes(self, shares: torch.Tensor) -> torch.Tensor:
        """Return slopes: share 0 is the least that occurs, 1 the greatest."""
        return self.least + self.span * shares

    def shares(self, slopes: torch.Tensor) -> torch.Tensor:
        """Return shares of given slopes, in [0, 1]."""
        import torch

        return ((slopes - self.least) / torch.clamp(self.span, min=1e-30)).clamp_(0, 1)

    def heights(self, slopes: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the heights at 0 of the lines, (N, n): below the graph where v >= 0, above it elsewhere."""
        side = np.copysign(np.float32(1.0), v.detach().numpy())
        z = self._block.farthest(side, slopes.detach().numpy(), self._lo, self._hi)
        return tensor(self._block(z)) - slopes * tensor(z)
