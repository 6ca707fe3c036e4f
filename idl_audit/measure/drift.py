"""How far the outputs of a compressed model can be from the original's (docs/mathematics.md, section 9.3).

For |A - A0| <= E, |B - B0| <= E_B, ... (0: the original) and the states x, x0 of the same input u,

    |x - x0| <= (I - Gamma |A|)^-1 Gamma (E |x0| + E_B |u|),
    |y - y0| <= |C| |x - x0| + E_C |x0| + E_D |u|.

On a set where |x0| and |u| are bounded that is a number; for all inputs it is affine in |u|, with |x0| <= |x0(0)| +
T |u|. The paper's theorem 5.1 has x0 and |A0 + E| in place of |x0| and |A|, and is false. Everything is rounded upward.

Elsewhere: pruning, quantisation error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from idl_audit.implicit.activations import Coupled
from idl_audit.implicit.compress import INPUT, OUTPUT, Compressed
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.upward import applied, multiplied, pulled, spread, weighted
from idl_audit.measure.sensitivity import roundings
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.intervals import affine_interval, interval_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import gamma, up

ROWS_AT_ONCE = 2048
"""Rows of one backward pass: sets times outputs."""
NUMBERS_AT_ONCE = 2**21
"""Weights on all states that some outputs have together."""


@dataclass(frozen=True)
class GlobalDrift:
    """|y - y0| <= offset + matrix |u| for every input u."""

    offset: FloatArray
    """(q,)."""
    matrix: FloatArray
    """(q, p)."""

    def at(self, size: FloatArray) -> FloatArray:
        """Return the bound where |u| <= size, (m, p) -> (m, q)."""
        return np.asarray((self.offset + multiplied(size, self.matrix.T)) * (1 + gamma(size.shape[1] + 8)))


def global_drift(pair: Compressed) -> GlobalDrift:
    """Return the bound for all inputs.

    Raises:
        UnsupportedModelError: where nothing bounds a loop of one of the models, or how steep an activation is.
    """
    pair.original.refuse_jumps("how far a smaller model drifts is bounded on a box of inputs alone")
    pair.original.refuse_unbounded()
    zero = np.zeros((1, pair.original.n_inputs))
    at_zero = _sizes(interval_bounds(pair.original, Interval(zero, zero)))
    parts = [_global_rows(pair, unit, at_zero) for unit in _units(pair.model)]
    return GlobalDrift(np.concatenate([offset for offset, _ in parts]), np.concatenate([rows for _, rows in parts]))


def _units(model: ImplicitModel, boxes: int = 1) -> Iterator[FloatArray]:
    """Yield runs of rows of the identity of the outputs, whose weights on all states take little memory."""
    q, at_once = model.n_outputs, max(1, NUMBERS_AT_ONCE // (boxes * (model.n_states + model.n_inputs)))
    yield from (np.eye(min(at_once, q - start), q, start) for start in range(0, q, at_once))


def _global_rows(
    pair: Compressed, unit: FloatArray, at_zero: Mapping[int, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return offset and matrix of some outputs, (r, q) rows of the identity."""
    small, original = pair.model, pair.original
    seeds, matrix = _through_changes(pair, _behind(small, {}, unit), unit)
    offset = np.zeros(len(unit))
    for k, seed in seeds.items():
        offset += multiplied(seed, at_zero[k][0][:, None])[:, 0]
    # s T: the weights s on |x0| go through the original's own recursion
    weights = _behind(original, seeds, None)
    for k, behind_k in weights.items():
        row = original.rows[k]
        if row.input is not None:
            matrix += pulled(row.input, behind_k)
    factor = 1 + 4 * gamma(roundings(small) + roundings(original) + 64)
    return offset * factor, matrix * factor


def box_drift(pair: Compressed, inputs: Interval, everywhere: GlobalDrift | None = None) -> FloatArray:
    """Return bounds of |y - y0| over m boxes, (m, q): the least of three that hold.

    The formula above, with the slopes that both models' intervals allow; the distance between the ends of both models'
    intervals of y; and `everywhere` at the largest |u|.

    Raises:
        UnsupportedModelError: where nothing bounds a loop.
    """
    found = []
    at_once = max(1, ROWS_AT_ONCE // pair.model.n_outputs)
    for start in range(0, len(inputs.lo), at_once):
        rows = slice(start, start + at_once)
        found.append(_box_drift(pair, Interval(inputs.lo[rows], inputs.hi[rows]), everywhere))
    return np.vstack(found)


def _box_drift(pair: Compressed, inputs: Interval, everywhere: GlobalDrift | None) -> FloatArray:
    small, original = pair.model, pair.original
    theirs, ours = interval_bounds(original, inputs), interval_bounds(small, inputs)
    before = affine_interval(original.output, theirs.x, inputs)
    after = affine_interval(small.output, ours.x, inputs)
    bound = up(np.maximum(after.hi - before.lo, before.hi - after.lo))
    if original.has_jumps:  # their slopes bound nothing
        return bound
    steepest, within = {}, list(small.blocks)
    for k, block in enumerate(small.blocks):
        if k in small.loops:
            continue
        low, high = (np.minimum(theirs.z[k].lo, ours.z[k].lo), np.maximum(theirs.z[k].hi, ours.z[k].hi))
        if isinstance(block.activation, Coupled):  # one function for all boxes
            ends = block.unscaled(low.min(axis=0), high.max(axis=0))
            within[k] = replace(block, activation=block.activation.within(*ends))
            continue
        least, most = block.slopes(low, high)
        steepest[k] = np.maximum(np.abs(least), np.abs(most)) + np.zeros((len(low), block.size))
    sizes = {**_sizes(theirs), INPUT: np.abs(np.stack([inputs.lo, inputs.hi])).max(axis=0)}
    units = _units(small, len(inputs.lo))
    there = replace(pair, model=replace(small, blocks=tuple(within)))
    total = np.concatenate([_box_rows(there, unit, steepest, sizes) for unit in units], axis=1)
    total *= 1 + 4 * gamma(roundings(small) + roundings(original) + 64)
    bound = np.minimum(bound, np.where(np.isnan(total), np.inf, total))
    return bound if everywhere is None else np.minimum(bound, everywhere.at(sizes[INPUT]))


def _box_rows(
    pair: Compressed, unit: FloatArray, steepest: Mapping[int, FloatArray], sizes: Mapping[int, FloatArray]
) -> FloatArray:
    """Return |C| |x - x0| + E_C |x0| + E_D |u| of some outputs over m boxes, (r, q) rows of the identity -> (m, r)."""
    m, r = len(sizes[INPUT]), len(unit)
    repeated = {k: np.repeat(slopes, r, axis=0) for k, slopes in steepest.items()}
    behind = _behind(pair.model, {}, np.tile(unit, (m, 1)), repeated)
    total = np.zeros((m, r))
    for (k, source), change in pair.changes.items():
        moved = change.apply(sizes[source])
        if k == OUTPUT:
            total += moved[:, unit.argmax(axis=1)]
        elif k in behind:
            total += applied(behind[k].reshape(m, r, -1), moved)
    return total


def _sizes(bounds: StateBounds) -> dict[int, FloatArray]:
    """Return bounds of |x|, block by block."""
    return {k: x.largest for k, x in bounds.x.items()}


def _through_changes(
    pair: Compressed, behind: Mapping[int, FloatArray], unit: FloatArray
) -> tuple[dict[int, FloatArray], FloatArray]:
    """Return the weights s on |x0| and those on |u| with |y - y0| <= sum_j s_j |x0_j| + M |u|."""
    seeds: dict[int, FloatArray] = {}
    matrix = np.zeros((len(unit), pair.model.n_inputs))
    for (k, source), change in pair.changes.items():
        weights = unit if k == OUTPUT else behind.get(k)
        if weights is None:
            continue
        term = change.adjoint(weights)
        if source == INPUT:
            matrix += term
        else:
            seeds[source] = seeds[source] + term if source in seeds else term
    return seeds, matrix


def _behind(
    model: ImplicitModel,
    seeds: Mapping[int, FloatArray],
    outputs: FloatArray | None,
    steepest: Mapping[int, FloatArray] | None = None,
) -> dict[int, FloatArray]:
    """Return the weights w_k on changes of z_k: rows F |C| (or seeds on x) through (I - Gamma |A|)^-1 Gamma.

    Raises:
        UnsupportedModelError: where nothing bounds a loop.
    """
    sums = dict(seeds)
    found: dict[int, FloatArray] = {}

    def add(k: int, term: FloatArray) -> None:
        sums[k] = sums[k] + term if k in sums else term

    if outputs is not None:
        for k, linear_map in model.output.states.items():
            add(k, pulled(linear_map, outputs))
    for k, block in enumerate(model.blocks):
        r = sums.pop(k, None)
        if r is None:
            continue
        row = model.rows[k]
        if k in model.loops:
            gain = model.loops[k].gain
            if gain is None:
                raise UnsupportedModelError((f"nothing bounds the loop '{block.name}' entry by entry",))
            found[k] = multiplied(r, gain) * (1 + gamma(len(gain) + 2))
        elif steepest is not None and k in steepest:
            found[k] = weighted(r, steepest[k])
        else:
            found[k] = spread(block.activation, r)
        for j, linear_map in row.states.items():
            if j != k:
                add(j, pulled(linear_map, found[k]))
    return found
