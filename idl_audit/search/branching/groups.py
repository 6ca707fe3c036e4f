"""Planes around coupled blocks as the search sees them: torch, float32. Proves nothing.

Each kind of coupled activation gives, for the coefficients v of its states, those of its pre-activations and the
constant of its planes (docs/mathematics.md, sections 6.8 and 6.10): the planes of products and norms have shares that
may be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from idl_audit.implicit.activations.contraction import Contraction
from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.activations.product import Product, usual_shares
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.model import StateBlock
from idl_audit.search.device import tensor
from idl_audit.values.arrays import FloatArray

if TYPE_CHECKING:
    import torch


class Groups(Protocol):
    """The planes of one block over [lo, hi], (n,) or (N, n)."""

    @property
    def first(self) -> torch.Tensor | None:
        """Shares to begin with, (n,) or (N, n); None where there is nothing to choose."""

    def over_states(self, v: torch.Tensor, shares: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coefficients of z that planes give for those of x, (N, n), and their constants' sum, (N,)."""

    def losses(self, v: torch.Tensor) -> torch.Tensor:
        """Return about what the planes cost that a split of each pre-activation would save, (N, n)."""


def groups_of(block: StateBlock, lo: FloatArray, hi: FloatArray) -> Groups:
    """Return the planes of a coupled block over [lo, hi]."""
    phi = block.activation
    scale = np.ldexp(1.0, np.max(block.exponent))  # of all states of a block that is not positively homogeneous
    low, high = lo * scale, hi * scale
    if isinstance(phi, Product):
        return ProductPlanes.of(low, high, float(scale))
    if isinstance(phi, Contraction):
        return ContractionPlanes.of(phi, low, high, float(scale))
    if isinstance(phi, Normalised):
        return NormPlanes.of(phi, low, high, float(scale))
    assert isinstance(phi, Softmax)
    return SoftmaxSides.of(phi, low, high, float(scale))


def _tensor(values: FloatArray) -> torch.Tensor:
    return tensor(np.ascontiguousarray(values))


@dataclass(frozen=True, eq=False)
class ProductPlanes:
    """The planes of McCormick around pairs."""

    la: torch.Tensor
    ha: torch.Tensor
    lb: torch.Tensor
    hb: torch.Tensor
    first: torch.Tensor
    scale: float

    @classmethod
    def of(cls, lo: FloatArray, hi: FloatArray, scale: float) -> ProductPlanes:
        """Take the bounds of the pre-activations."""
        la, ha, lb, hb = lo[..., 0::2], hi[..., 0::2], lo[..., 1::2], hi[..., 1::2]
        first = np.repeat((usual_shares(la, ha, lb, hb) + usual_shares(la, ha, hb, lb)) / 2, 2, axis=-1)
        return cls(_tensor(la), _tensor(ha), _tensor(lb), _tensor(hb), _tensor(first), scale)

    def over_states(self, v: torch.Tensor, shares: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return v1 (share of the low plane's slopes), v1 (...) + v2, and the constants."""
        import torch

        v1, v2 = v[..., 0::2], v[..., 1::2]
        eta = (self.first if shares is None else shares)[..., 0::2]
        rising = v1 >= 0
        low, high = torch.where(rising, self.lb, self.hb), torch.where(rising, self.hb, self.lb)
        by_first, by_second = eta * low + (1 - eta) * high, eta * self.la + (1 - eta) * self.ha
        lam = torch.stack([v1 * by_first, v1 * by_second + v2], dim=-1).flatten(-2)
        heights = eta * self.la * low + (1 - eta) * self.ha * high
        return lam, -(v1 * heights).sum(-1) / self.scale

    def losses(self, v: torch.Tensor) -> torch.Tensor:
        """Return |v1| (ha - la) (hb - lb) / 4 for both factors, a little more for the wider one."""
        import torch

        first, second = self.ha - self.la, self.hb - self.lb
        area = v[..., 0::2].abs() * first * second / (4 * self.scale)
        longer = 1e-3 * torch.stack([first >= second, first < second], dim=-1).to(area.dtype)
        return (area[..., None] * (1 + longer)).flatten(-2)


@dataclass(frozen=True, eq=False)
class ContractionPlanes:
    """The planes of matrix products around the centres."""

    phi: Contraction
    x: torch.Tensor
    y: torch.Tensor
    rx: torch.Tensor
    ry: torch.Tensor
    scale: float

    @classmethod
    def of(cls, phi: Contraction, lo: FloatArray, hi: FloatArray, scale: float) -> ContractionPlanes:
        """Take the bounds of the pre-activations."""
        (x, y), (rx, ry) = phi.factors(lo / 2 + hi / 2), phi.factors(hi / 2 - lo / 2)
        return cls(phi, _tensor(x), _tensor(y), _tensor(rx), _tensor(ry), scale)

    @property
    def first(self) -> None:
        """Nothing to choose."""

    def over_states(self, v: torch.Tensor, shares: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (V Yc^T, Xc^T V) and -V . Xc Yc - |V| . rX rY."""
        own = self._results(v)
        lam = self._joined(own @ self.y.transpose(-1, -2), self.x.transpose(-1, -2) @ own)
        constant = (own * (self.x @ self.y) + own.abs() * (self.rx @ self.ry)).flatten(1).sum(-1)
        return lam, -constant / self.scale

    def losses(self, v: torch.Tensor) -> torch.Tensor:
        """Return rX (|V| rY^T) and rY (rX^T |V|)."""
        size = self._results(v).abs() / self.scale
        by_first, by_second = size @ self.ry.transpose(-1, -2), self.rx.transpose(-1, -2) @ size
        return self._joined(self.rx * by_first, self.ry * by_second)

    def _results(self, v: torch.Tensor) -> torch.Tensor:
        phi = self.phi
        groups = v.reshape(*v.shape[:-1], -1, phi.width)
        return groups[..., : phi.rows * phi.columns].reshape(*groups.shape[:-1], phi.rows, phi.columns)

    def _joined(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        import torch

        joined = torch.cat([first.flatten(-2), second.flatten(-2)], dim=-1)
        return torch.nn.functional.pad(joined, (0, self.phi.width - joined.shape[-1])).flatten(-2)


@dataclass(frozen=True, eq=False)
class NormPlanes:
    """The planes of McCormick around the products of a norm's entries with their factor, or the ranges of its states.

    Entries are (..., groups, n), what is of a group (..., groups, 1).
    """

    phi: Normalised
    low: torch.Tensor
    high: torch.Tensor
    smallest: torch.Tensor
    largest: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor
    middle: torch.Tensor
    """What the entries' ends are measured from."""
    first: torch.Tensor
    scale: float

    @classmethod
    def of(cls, phi: Normalised, lo: FloatArray, hi: FloatArray, scale: float) -> NormPlanes:
        """Take the bounds of the pre-activations."""
        seen = phi.seen(lo, hi)
        smallest, largest = seen.smallest[..., None], seen.largest[..., None]
        first = usual_shares(seen.low, seen.high, smallest, largest) / 2
        first += usual_shares(seen.low, seen.high, largest, smallest) / 2
        shares = np.concatenate([first, np.full_like(first[..., :1], 0.5)], axis=-1)
        return cls(
            phi,
            _tensor(seen.low),
            _tensor(seen.high),
            _tensor(smallest),
            _tensor(largest),
            _tensor(seen.below),
            _tensor(seen.above),
            _tensor(seen.middle),
            _tensor(shares.reshape(*first.shape[:-2], -1)),
            scale,
        )

    def over_states(self, v: torch.Tensor, shares: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return w (share of the low plane's slopes) and the factor's, and the constants; of ranges only constants."""
        import torch

        w, own = self._weights(v)
        eta = self._parts(self.first if shares is None else shares)[0]
        rising = w >= 0
        low, high = torch.where(rising, self.smallest, self.largest), torch.where(rising, self.largest, self.smallest)
        by_entry = w * (eta * low + (1 - eta) * high)
        by_factor = (w * (eta * self.low + (1 - eta) * self.high)).sum(-1, keepdim=True)
        heights = -(w * (eta * self.low * low + (1 - eta) * self.high * high)).sum(-1, keepdim=True)
        least = torch.minimum(by_factor * self.smallest, by_factor * self.largest)
        heights = heights - self.middle * by_entry.sum(-1, keepdim=True)
        heights, moved = (heights, by_factor) if self.phi.aided else (heights + least, torch.zeros_like(by_factor))
        centre = (self.low + self.high) / 2 + self.middle
        there = heights + (by_entry * centre).sum(-1, keepdim=True) + moved * (self.smallest + self.largest) / 2
        ranges = self._ranges(v, w)
        usable = there > ranges  # NaN is not
        lam = torch.cat([torch.where(usable, by_entry, 0.0), own + torch.where(usable, moved, 0.0)], dim=-1)
        return lam.flatten(-2), torch.where(usable, heights, ranges).sum((-1, -2)) / self.scale

    def losses(self, v: torch.Tensor) -> torch.Tensor:
        """Return |w| (h - l) (largest - smallest) / 4 for the entries, and the sum of these for the factor."""
        import torch

        w, _ = self._weights(v)
        area = w.abs() * (self.high - self.low) * (self.largest - self.smallest) / (4 * self.scale)
        whole = area.sum(-1, keepdim=True) if self.phi.aided else torch.zeros_like(area[..., :1])
        return torch.cat([area, whole], dim=-1).flatten(-2)

    def _parts(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        groups = values.reshape(*values.shape[:-1], -1, self.phi.width)
        return groups[..., :-1], groups[..., -1:]

    def _weights(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return w with sum_i v_i d_i = sum_i w_i z_i, and v of the factor."""
        entries, own = self._parts(v)
        is_known = self.phi.aided or not self.phi.centred
        return entries if is_known else entries - entries.mean(-1, keepdim=True), own

    def _ranges(self, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return the least v . x by the ranges of the entries, or by the length of all."""
        import torch

        entries, _ = self._parts(v)
        by_entry = torch.minimum(entries * self.below, entries * self.above).sum(-1, keepdim=True)
        return torch.maximum(by_entry, -w.norm(dim=-1, keepdim=True) * self.phi.count**0.5)


@dataclass(frozen=True, eq=False)
class SoftmaxSides:
    """The planes below and above the states of softmax groups."""

    phi: Softmax
    below: torch.Tensor
    at_below: torch.Tensor
    above: torch.Tensor
    at_above: torch.Tensor
    middle: torch.Tensor
    """The states in the middle of the box, (..., groups, width)."""
    scale: float

    @classmethod
    def of(cls, phi: Softmax, lo: FloatArray, hi: FloatArray, scale: float) -> SoftmaxSides:
        """Take the bounds of the pre-activations."""
        planes = phi.softmax_planes(lo, hi)
        middle = phi.grouped(phi(lo / 2 + hi / 2))
        below, above = _tensor(planes.below), _tensor(planes.above)
        return cls(phi, below, _tensor(planes.at_below), above, _tensor(planes.at_above), _tensor(middle), scale)

    @property
    def first(self) -> None:
        """Nothing to choose."""

    def over_states(self, v: torch.Tensor, shares: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the planes that v - c asks for, c the mean of v in the middle, and c + their constants."""
        import torch

        groups = v.reshape(*v.shape[:-1], -1, self.phi.width)
        c = (groups * self.middle).sum(-1, keepdim=True)
        rising, falling = torch.clamp(groups - c, min=0), torch.clamp(groups - c, max=0)
        lam = (rising[..., None, :] @ self.below + falling[..., None, :] @ self.above)[..., 0, :]
        heights = c.sum((-1, -2)) + (rising * self.at_below + falling * self.at_above).sum((-1, -2))
        return lam.flatten(-2), heights / self.scale

    def losses(self, v: torch.Tensor) -> torch.Tensor:
        """Return zeros: no pre-activation of a softmax is split."""
        import torch

        return torch.zeros_like(v)
