"""StateBounds: what is known of every state's pre-activation z and value x over a batch of input boxes.

Other verifiers call them intermediate or pre-activation bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import Box, SparseBall
from idl_audit.values.input_sets import InputSet, NormBall


@dataclass(frozen=True)
class Interval:
    """lo <= value <= hi for each of m boxes: two arrays of shape (m, n)."""

    lo: FloatArray
    hi: FloatArray

    @classmethod
    def of_boxes(cls, boxes: Box | list[Box]) -> Interval:
        """Return the inputs' interval for one box or a batch of boxes."""
        several = [boxes] if isinstance(boxes, Box) else boxes
        return cls(np.stack([box.lo for box in several]), np.stack([box.hi for box in several]))

    @classmethod
    def of_set(cls, inputs: InputSet) -> Interval:
        """Return the inputs' interval for one set; that of one that is no box knows its support."""
        if isinstance(inputs, Box):
            return cls.of_boxes(inputs)
        return SetInputs(inputs.box.lo[None], inputs.box.hi[None], inputs)

    def repeated(self, m: int) -> Interval:
        """Return one interval m times."""
        return Interval(np.repeat(self.lo, m, axis=0), np.repeat(self.hi, m, axis=0))

    def rows(self, rows: slice | IntArray) -> Interval:
        """Return the intervals of some of the boxes."""
        return Interval(self.lo[rows], self.hi[rows])

    @property
    def largest(self) -> FloatArray:
        """Largest absolute value inside, shape (m, n)."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    @property
    def width(self) -> FloatArray:
        """hi - lo."""
        return self.hi - self.lo

    def intersected(self, other: Interval) -> Interval:
        """Return the intersection; both are bounds of the same values, so it is not empty."""
        return Interval(np.fmax(self.lo, other.lo), np.fmin(self.hi, other.hi))

    def tightened(self, states: IntArray, signs: float | FloatArray, lower: FloatArray) -> Interval:
        """Return these bounds with what was proved of some values put in: sign * value >= lower.

        Args:
            states: which values, shape (r,); one may occur several times.
            signs: +1 or -1, one for all or shape (r,).
            lower: shape (m, r) or (r,); NaN and -inf say nothing.
        """
        lo, hi = self.lo.copy(), self.hi.copy()
        lower = np.broadcast_to(lower, (len(lo), states.size))
        up = np.broadcast_to(np.asarray(signs) > 0, states.shape)
        np.fmax.at(lo.T, states[up], lower[:, up].T)
        np.fmin.at(hi.T, states[~up], -lower[:, ~up].T)
        return Interval(lo, hi)

    @property
    def known(self) -> Interval:
        """The same with infinities in place of NaN: after an overflow nothing is known, and no comparison may hold."""
        return Interval(np.where(np.isnan(self.lo), -np.inf, self.lo), np.where(np.isnan(self.hi), np.inf, self.hi))


@dataclass(frozen=True)
class SetInputs(Interval):
    """Inputs of a set that is no box, once or m times: the box around it, and the set, which knows its support."""

    ball: SparseBall | NormBall

    def repeated(self, m: int) -> SetInputs:
        """Return the same set m times."""
        return SetInputs(np.repeat(self.lo, m, axis=0), np.repeat(self.hi, m, axis=0), self.ball)

    def rows(self, rows: slice | IntArray) -> SetInputs:
        """Return the set as often as there are such rows."""
        return SetInputs(self.lo[rows], self.hi[rows], self.ball)


@dataclass(frozen=True)
class StateBounds:
    """Bounds of pre-activations z and of states x = phi(z), block number -> Interval, for the same batch of boxes."""

    z: Mapping[int, Interval] = field(default_factory=dict)
    x: Mapping[int, Interval] = field(default_factory=dict)

    @classmethod
    def of_pre_activations(cls, blocks: Sequence[StateBlock], z: Mapping[int, Interval]) -> StateBounds:
        """Return these bounds of z and those of x that follow."""
        bounds = cls()
        for k, known in z.items():
            bounds = bounds.with_block(k, blocks[k], known)
        return bounds

    def of_boxes(self, boxes: IntArray) -> StateBounds:
        """Return the bounds over some of the boxes."""
        return StateBounds(
            {k: one.rows(boxes) for k, one in self.z.items()}, {k: one.rows(boxes) for k, one in self.x.items()}
        )

    def with_block(self, k: int, block: StateBlock, z: Interval, within: Interval | None = None) -> StateBounds:
        """Return these bounds with those of block k put in: x follows from z, and lies `within` what is known of it."""
        z = z.known
        if within is not None:
            within = within.known
            z = Interval(*block.preimage(within.lo, within.hi, z.lo, z.hi)).known
        with np.errstate(invalid="ignore", over="ignore"):
            x = Interval(*block.interval(z.lo, z.hi)).known
        if within is not None:
            x = x.intersected(within)
        return replace(self, z={**self.z, k: z}, x={**self.x, k: x})

    def unstable(self, k: int, block: StateBlock) -> BoolArray:
        """Return which states of block k bend within their bounds, shape (m, n_k): their slope is not one number."""
        return block.bends(self.z[k].lo, self.z[k].hi)


def flattened(model: ImplicitModel, bounds: StateBounds, m: int = 1) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of all pre-activations over m boxes in the flat order, (m, n) each; infinite where unknown."""
    z_lo, z_hi = np.full((m, model.n_states), -np.inf), np.full((m, model.n_states), np.inf)
    for k, z in bounds.z.items():
        own = slice(model.offsets[k], model.offsets[k + 1])
        z_lo[:, own], z_hi[:, own] = z.lo, z.hi
    return z_lo, z_hi


def of_flat(model: ImplicitModel, z_lo: FloatArray, z_hi: FloatArray) -> StateBounds:
    """Return the bounds of all states from those of their pre-activations in the flat order."""
    ends = model.offsets
    parts = {k: slice(ends[k], ends[k + 1]) for k in range(len(model.blocks))}
    return StateBounds.of_pre_activations(
        model.blocks, {k: Interval(z_lo[:, own], z_hi[:, own]) for k, own in parts.items()}
    )
