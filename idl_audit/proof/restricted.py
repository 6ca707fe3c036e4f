"""Models whose activations have only the slopes of a set of inputs: of one box, or of all inputs.

A product of two states has no bounded slope, one of a sigmoid and a hyperbolic tangent has: |dx| <= |dz1| + |dz2|.
What bounds the factors for all inputs are intervals with ends at infinity. Infinity itself is a mask that goes along
patterns of nonzeros: no infinite number enters a product, as 0 times it is no number.

Elsewhere: local Lipschitz constants, slope restriction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from idl_audit.implicit.activations import Activation, Coupled, Line, Mixed
from idl_audit.implicit.activations.base import FAR
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.upward import patterns
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.domains import why_unbounded
from idl_audit.proof.intervals import affine_interval
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.errors import UnsupportedModelError


def restricted_model(model: ImplicitModel, bounds: StateBounds) -> ImplicitModel:
    """Return the model whose activations have only the slopes of one box; it is equal to it there.

    Args:
        model: any model.
        bounds: of its pre-activations over one box, arrays of shape (1, n_k).

    Raises:
        UnsupportedModelError: where an activation has no bounded slope over the box.
    """
    blocks = [_restricted(block, bounds.z[k]) for k, block in enumerate(model.blocks)]
    if None in blocks:
        steep = blocks.index(None)
        raise UnsupportedModelError((why_unbounded(model.blocks[steep], bounds.z[steep]),))
    return replace(model, blocks=tuple(block for block in blocks if block is not None))


def _restricted(block: StateBlock, z: Interval) -> StateBlock | None:
    """Return a block with the slopes of one box; None where no number bounds them."""
    if isinstance(block.activation, Coupled):
        within = block.activation.within(*(end[0] for end in block.unscaled(z.lo, z.hi)))
        return replace(block, activation=within) if np.isfinite(within.lipschitz).all() else None
    if isinstance(block.activation, Mixed) and block.activation.coupled:
        return _restricted_parts(block, block.activation, z)
    if np.isfinite(block.activation.lipschitz).all():
        least, most = block.everywhere
        low, high = block.slopes(*(np.clip(end[0], -FAR, FAR) for end in (z.lo, z.hi)))
        low, high = np.maximum(low, least), np.minimum(high, most)
    else:  # as steep as one likes far out
        low, high = block.slopes(z.lo[0], z.hi[0])
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return replace(block, activation=Restricted(block.activation, low, np.maximum(low, high)))


def everywhere(model: ImplicitModel) -> ImplicitModel:
    """Return the model with bounded slopes where no number bounds its own but one does that holds for all inputs.

    Blocks for which there is none stay as they are (`ImplicitModel.unbounded` names them), and so do models with loops.
    """
    steep = [k for k, block in enumerate(model.blocks) if not np.isfinite(block.activation.lipschitz).all()]
    if not steep or model.loops:
        return model
    bounds, blocks = bounds_everywhere(model), list(model.blocks)
    for k in steep:
        blocks[k] = _restricted(blocks[k], bounds.z[k]) or blocks[k]
    return replace(model, blocks=tuple(blocks))


def bounds_everywhere(model: ImplicitModel) -> StateBounds:
    """Return bounds of every state of a feed-forward model for all inputs, (1, n_k); infinite where there are none."""
    bounds = StateBounds()
    inputs = Interval(*(np.full((1, model.n_inputs), end) for end in (-np.inf, np.inf)))
    for k in model.evaluation_order:
        bounds = bounds.with_block(k, model.blocks[k], _affine(model.rows[k], bounds.x, inputs))
    return bounds


def _affine(row: Affine, states: Mapping[int, Interval], inputs: Interval) -> Interval:
    """Return bounds of an affine map of what may be unbounded."""
    free = np.zeros(row.size, np.bool_)
    for k, linear_map in row.states.items():
        free |= _reached(linear_map, ~_is_bounded(states[k]))
    if row.input is not None:
        free |= _reached(row.input, ~_is_bounded(inputs))
    z = affine_interval(row, {k: _bounded(states[k]) for k in row.states}, _bounded(inputs))
    return Interval(np.where(free, -np.inf, z.lo), np.where(free, np.inf, z.hi))


def _is_bounded(values: Interval) -> BoolArray:
    return np.asarray(np.isfinite(values.lo) & np.isfinite(values.hi))


def _bounded(values: Interval) -> Interval:
    """Return the interval with 0 in place of what is unbounded."""
    known = _is_bounded(values)
    return Interval(np.where(known, values.lo, 0.0), np.where(known, values.hi, 0.0))


def _reached(linear_map: LinearMap, free: BoolArray) -> BoolArray:
    """Return which entries read one that is unbounded, (1, n_in) -> (n_out,); sums of ones, told apart by 1/2."""
    ones = free.astype(np.float64)
    return np.asarray(np.logical_or.reduce([part.apply(ones)[0] > 0.5 for part in patterns(linear_map)]))


def _restricted_parts(block: StateBlock, mixed: Mixed, z: Interval) -> StateBlock | None:
    """Return a block of which some states are coupled, part by part: those keep their coupling."""
    exponent, parts, start = np.broadcast_to(block.exponent, block.size), [], 0
    for part, size in zip(mixed.parts, mixed.sizes, strict=True):
        own = slice(start, start + size)
        alone = replace(block, activation=part, shape=(1, size), exponent=exponent[own])
        found = _restricted(alone, Interval(z.lo[:, own], z.hi[:, own]))
        if found is None:
            return None
        parts.append(found.activation)
        start += size
    return replace(block, activation=Mixed(tuple(parts), mixed.sizes))


class Restricted(Activation):
    """A componentwise activation on a box: all its slopes there are between `least` and `most`, state by state."""

    def __init__(self, whole: Activation, least: FloatArray, most: FloatArray) -> None:
        self.whole, self.least, self.most = whole, least, most
        self.name = whole.name
        self.positively_homogeneous = whole.positively_homogeneous
        self.piecewise_linear = whole.piecewise_linear

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """Those of the whole function."""
        return self.whole.parameters

    @property
    def lipschitz(self) -> FloatArray:
        """The largest size of a slope."""
        return np.maximum(np.abs(self.least), np.abs(self.most))

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the slopes of the box, whatever lo and hi are."""
        zero = np.zeros(np.broadcast_shapes(lo.shape, hi.shape))
        return self.least + zero, self.most + zero

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        return self.whole(z)

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return that of the whole function."""
        return self.whole.derivative(z)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return that of the whole function."""
        return self.whole.interval(lo, hi)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return those of the whole function."""
        return self.whole.relaxation_slopes(lo, hi)

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return those of the whole function."""
        return self.whole.lines(lo, hi)

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return that of the whole function."""
        return self.whole.lower_support(v, v_error, lam, lo, hi)
