"""Mixed activations: the states of one loop that do not all have the same activation, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.implicit.activations.jumping import Jumping
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray


@dataclass(frozen=True, eq=False)
class Mixed(Activation):
    """parts[j] acts on the next sizes[j] states; none of them jumps, since no loop may hold what does."""

    parts: tuple[Activation, ...]
    sizes: tuple[int, ...]
    name: str = "mixed"

    def __post_init__(self) -> None:
        """Refuse parts whose jumps a block would not know of."""
        if any(isinstance(part, Jumping) for part in self.parts):
            raise ValueError("no part of a mixed activation may jump")

    @property
    def positively_homogeneous(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.positively_homogeneous for part in self.parts)

    @property
    def piecewise_linear(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.piecewise_linear for part in self.parts)

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """Whether one part is."""
        return any(part.coupled for part in self.parts)

    @property
    def lipschitz(self) -> FloatArray:
        """gamma of each state."""
        return np.concatenate([np.zeros(n) + part.lipschitz for part, n in self._pairs])

    @property
    def _pairs(self) -> list[tuple[Activation, int]]:
        return list(zip(self.parts, self.sizes, strict=True))

    def _each(self, call: Callable[..., FloatArray], *arrays: FloatArray) -> FloatArray:
        """Return call(part, *(the part's states of each array)), put together along the last axis."""
        edges = np.cumsum(self.sizes)[:-1]
        pieces = zip(self.parts, *(np.split(array, edges, axis=-1) for array in arrays), strict=True)
        return np.concatenate([call(*piece) for piece in pieces], axis=-1)

    def _both(
        self, call: Callable[..., tuple[FloatArray, FloatArray]], lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        found = self._each(lambda part, low, high: np.stack(call(part, low, high)), lo, hi)
        return found[0], found[1]

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        return self._each(lambda part, own: part(own), z)

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return a slope of phi at z."""
        return self._each(lambda part, own: part.derivative(own), z)

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return Phi^T v."""
        return self._each(lambda part, own, mine: part.pull_back(own, mine), z, v)

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r."""
        return self._each(lambda part, own: part.spread(own), r)

    def moved(self, e: FloatArray) -> FloatArray:
        """Return Gamma e."""
        return self._each(lambda part, own: part.moved(own), e)

    def read_by(self, found: BoolArray) -> BoolArray:
        """Return the pre-activations that some states depend on."""
        edges = np.cumsum(self.sizes)[:-1]
        pieces = zip(self.parts, np.split(found, edges, axis=-1), strict=True)
        return np.concatenate([part.read_by(own) for part, own in pieces], axis=-1)

    def norm_constants(self, size: int, norm: float) -> FloatArray:
        """Return those of all parts."""
        return np.concatenate([part.norm_constants(n, norm) for part, n in self._pairs])

    def gradient_steepness(self, size: int) -> FloatArray | None:
        """Return that of all parts; None where one has none."""
        found = [part.gradient_steepness(n) for part, n in self._pairs]
        known = [g for g in found if g is not None]
        return np.concatenate(known) if len(known) == len(found) else None

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest slopes."""
        return self._both(lambda part, low, high: part.slopes(low, high), lo, hi)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of phi over [lo, hi], rounded outward."""
        return self._both(lambda part, low, high: part.interval(low, high), lo, hi)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return slopes for a line below and a line above."""
        return self._both(lambda part, low, high: part.relaxation_slopes(low, high), lo, hi)

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return multipliers that suit v."""
        given = np.full_like(v, np.nan) if chosen is None else np.asarray(chosen, np.float64)
        arrays = [np.broadcast_to(array, v.shape) for array in (v, lo, hi, given)]
        return self._each(lambda part, *own: part.multipliers(*own), *arrays)

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return lines below and above; a part with fewer lines than another repeats its last one."""
        edges = np.cumsum(self.sizes)[:-1]
        pieces = zip(self.parts, np.split(lo, edges, axis=-1), np.split(hi, edges, axis=-1), strict=True)
        found = [part.lines(low, high) for part, low, high in pieces]

        def joined(sides: list[list[Line]]) -> list[Line]:
            padded = [[side[min(k, len(side) - 1)] for side in sides] for k in range(max(len(side) for side in sides))]
            return [
                (np.concatenate([s for s, _ in line], axis=-1), np.concatenate([c for _, c in line], axis=-1))
                for line in padded
            ]

        return joined([below for below, _ in found]), joined([above for _, above in found])

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return a proved lower bound of min (v' phi(z) - lam z) over [lo, hi]."""
        shape = np.broadcast_shapes(v.shape, v_error.shape, lam.shape, lo.shape, hi.shape)
        arrays = [np.broadcast_to(array, shape) for array in (v, v_error, lam, lo, hi)]
        return self._each(lambda part, *own: part.lower_support(*own), *arrays)
