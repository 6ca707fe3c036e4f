"""Exact reduction (docs/mathematics.md, section 9.1): fewer states, the same outputs for every input.

    constant     what the input cannot reach has one value: it goes into b and d
    dead         where the activation is constant on every pre-activation that can occur, likewise
    unobserved   what no output depends on is dropped

again and again until nothing changes. Coefficients count as zero only where both the stored one and the bound of what
rounding did to it are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations.parts import group_of, restricted
from idl_audit.implicit.affine import INPUT, AffineForm
from idl_audit.implicit.components import gathered
from idl_audit.implicit.composition import compose
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, Loop, StateBlock
from idl_audit.implicit.wellposed import Coefficients
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma, up

Values = Mapping[int, tuple[BoolArray, FloatArray, FloatArray]]
"""Block -> which of its states are constant, their values, and bounds of the values' errors; each (n_k,)."""

MOST_ROUNDS = 1000
"""Each round removes a state, and a model has only so many layers to uncover."""


@dataclass(frozen=True)
class Reduction:
    """A smaller model, and what was removed from the larger one: block's name -> number of states."""

    model: ImplicitModel
    constant: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, int] = field(default_factory=dict)
    unobserved: Mapping[str, int] = field(default_factory=dict)
    unused_inputs: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Inputs that no output depends on."""

    @property
    def removed(self) -> int:
        """States that are gone."""
        return sum(sum(part.values()) for part in (self.constant, self.dead, self.unobserved))


def reduce_model(model: ImplicitModel, dead_in: Callable[[ImplicitModel], Values] | None = None) -> Reduction:
    """Return the model without its constant, dead and unobserved states.

    Args:
        model: the model; for every input it has the same outputs as the result, but for rounding.
        dead_in: where only some inputs count, what is constant on them (anew for each smaller model); None stands for
            all inputs, where signs alone tell.
    """
    counts: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
    for _ in range(MOST_ROUNDS):
        before = model.n_states
        steps = (_constants, _dead_by_sign if dead_in is None else dead_in, _unobserved)
        for count, step in zip(counts, steps, strict=True):
            model = _without(model, step(model), count)
        if model.n_states == before:
            break
    constant, dead, unobserved = counts
    return Reduction(model, constant, dead, unobserved, _unused_inputs(model))


# --- what can go ------------------------------------------------------------------------------------------------------


def _constants(model: ImplicitModel) -> Values:
    """Return the states that the input does not reach, with their values."""
    reached: dict[int, BoolArray] = {}
    for k in model.evaluation_order:
        row, block = model.rows[k], model.blocks[k]
        found = np.zeros(block.size, np.bool_)
        for j, linear_map in row.states.items():
            if j != k:
                found |= _reads(linear_map, reached[j])
        if row.input is not None:
            found |= _reads(row.input, np.ones(model.n_inputs, np.bool_))
        found = _whole_groups(block, found)
        while k in row.states:
            more = _whole_groups(block, found | _reads(row.states[k], found))
            if bool((more == found).all()):
                break
            found = more
        reached[k] = found
    if all(bool(found.all()) for found in reached.values()):
        return {}
    return _values(model, {k: ~found for k, found in reached.items()})


def _values(model: ImplicitModel, constant: Mapping[int, BoolArray]) -> Values:
    """Return the constant states' values, with bounds of their errors.

    From the errors of what they read to those of z, and by the activation's own bounds to those of x. Around a computed
    x of a loop, delta = z - A x - i, and |x - x*| <= N |delta| with the loop's gain N; a loop without one stays.
    """
    solved = model.solve(np.zeros((1, model.n_inputs)))
    found: dict[int, tuple[BoolArray, FloatArray, FloatArray]] = {}
    unknown: dict[int, BoolArray] = {}
    for k in model.evaluation_order:
        row, block = model.rows[k], model.blocks[k]
        mask = constant[k].copy()
        for j, linear_map in row.states.items():
            if j != k and unknown[j].any():
                mask &= ~_reads(linear_map, unknown[j])
        mask = ~_whole_groups(block, ~mask)
        values, errors = np.zeros(block.size), np.zeros(block.size)
        if mask.any():
            drive = _known_z(row, k, found)
            if k in model.loops:
                own = np.flatnonzero(_closed_part(block, row.states[k], mask))
                part = _loop_part(model.loops[k], own)
                bounded = _loop_values(part, solved.pre_activations[k][0][own], (drive[0][own], drive[1][own]))
                mask = np.zeros_like(mask)
                if bounded is not None:
                    mask[own] = True
                    values[own], errors[own] = bounded
            else:
                low, high = block.interval(*(np.nextafter(drive[0] + s * drive[1], s * np.inf)[None] for s in (-1, 1)))
                values = (low / 2 + high / 2)[0]
                errors = up(np.maximum(high[0] - values, values - low[0])) * (high[0] != low[0])
        unknown[k] = constant[k] & ~mask
        found[k] = mask, np.where(mask, values, 0.0), np.where(mask, errors, 0.0)
    return found


def _closed_part(block: StateBlock, own: LinearMap, mask: BoolArray) -> BoolArray:
    """Return the states of the mask that read only states of it in their own block."""
    while True:
        smaller = ~_whole_groups(block, ~mask | _reads(own, ~mask))
        if bool((smaller == mask).all()):
            return mask
        mask = smaller


def _loop_part(loop: Loop, states: IntArray) -> Loop:
    """Return the loop of some of its states, which read no others."""
    if states.size == loop.block.size:
        return loop
    matrix = gathered(loop.A.matrix, states, states)
    error = None if loop.A.error is None else gathered(loop.A.error, states, states)
    return Loop(_part(loop.block, states), Coefficients(matrix, error), loop.drive)


def _loop_values(
    loop: Loop, z: FloatArray, drive: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray] | None:
    """Return the state that a constant drive gives, and a bound of its error; None where nothing bounds the loop."""
    gain = loop.gain
    if gain is None:
        return None
    x = loop.block(z[None])[0]
    low, high = loop.block.interval(z[None], z[None])
    width = (high - low)[0] * (1 + gamma(4)) + TINY
    rounding = gamma(x.size + 16)
    lost = rounding * (loop.A.magnitude @ np.abs(x) + np.abs(z) + np.abs(drive[0])) + drive[1] + TINY
    lost = lost + (loop.A.magnitude if loop.A.error is None else loop.A.magnitude + loop.A.error) @ width
    if loop.A.error is not None:
        lost = lost + loop.A.error @ np.abs(x)
    delta = (np.abs(z - loop.A.matrix @ x - drive[0]) + lost) * (1 + rounding)
    return x, (gain @ delta + width) * (1 + rounding) + TINY


def _known_z(row: Affine, own: int, found: Values) -> tuple[FloatArray, FloatArray]:
    """Return the part of z that constants make, and a bound of its error; entries of other states are nonsense."""
    z, error = row.constant.copy(), np.full(row.size, row.constant_error)
    size = np.abs(z)
    terms = 2
    for j, linear_map in row.states.items():
        if j == own:
            continue
        _, values, errors = found[j]
        z = z + linear_map.apply(values[None])[0]
        reach = linear_map.magnitude.apply(np.abs(values)[None])[0]
        size = size + reach
        error = error + linear_map.magnitude.apply(errors[None])[0] * (1 + linear_map.relative)
        error = error + linear_map.relative * reach
        if linear_map.slack is not None:
            error = error + linear_map.slack.apply((np.abs(values) + errors)[None])[0]
        terms += linear_map.row_terms + 2
    exact = not error.any() and bool((size == 0).all() or not row.states)
    return z, error if exact else (error + gamma(terms) * size) * (1 + 2 * gamma(terms + 4)) + TINY * (size > 0)


def _dead_by_sign(model: ImplicitModel) -> Values:
    """Return the states that are 0 for every input because z <= 0 always and phi(z) = 0 there.

    z <= 0 where nothing is read of the input, b <= 0, and every state that is read has a range of the other sign than
    its coefficient.
    """
    at_least, at_most = {}, {}
    for k, block in enumerate(model.blocks):
        far = np.full(block.size, 1e300)
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = block.interval(-far, far)
        at_least[k], at_most[k] = low >= 0, high <= 0
    found: dict[int, tuple[BoolArray, FloatArray, FloatArray]] = {}
    for k, (block, row) in enumerate(zip(model.blocks, model.rows, strict=True)):
        zeros = np.zeros(block.size)
        with np.errstate(over="ignore", invalid="ignore"):
            ends = block.slopes(zeros - 1e300, zeros)
            is_zero = (ends[0] == 0) & (ends[1] == 0) & (block(zeros[None])[0] == 0)
        dead = is_zero & (row.constant <= -row.constant_error)
        if block.activation.coupled or not dead.any():
            found[k] = np.zeros(block.size, np.bool_), zeros, zeros
            continue
        if row.input is not None:
            dead &= ~_reads(row.input, np.ones(model.n_inputs, np.bool_))
        for j, linear_map in row.states.items():
            rows = np.flatnonzero(dead)
            if not rows.size:
                break
            matrix = _cut(linear_map, rows, None).to_sparse().tocoo()
            column = matrix.coords[1]
            fits = np.where(matrix.data > 0, at_most[j][column], np.where(matrix.data < 0, at_least[j][column], True))
            if linear_map.slack is not None:  # what rounding did could turn a sign round
                extra = sp.csr_array(_cut(linear_map.slack, rows, None).to_sparse())
                held = sp.csr_array(abs(matrix.tocsr()))
                unsure = sp.csr_array(extra > held).tocoo()
                dead[rows[unsure.coords[0]]] = False
            if linear_map.relative >= 1:
                dead[rows] = False
            dead[rows[matrix.coords[0][~fits]]] = False
        found[k] = dead, zeros, zeros
    return found


def _unobserved(model: ImplicitModel) -> Values:
    """Return the states that no output depends on; their value, 0 here, is never read."""
    seen = {k: np.zeros(block.size, np.bool_) for k, block in enumerate(model.blocks)}
    for k, linear_map in model.output.states.items():
        seen[k] |= _is_read(linear_map, np.ones(model.n_outputs, np.bool_))
    for k, (block, row) in enumerate(zip(model.blocks, model.rows, strict=True)):
        found = _whole_groups(block, seen[k])
        while k in row.states:
            more = _whole_groups(block, found | _is_read(row.states[k], found))
            if bool((more == found).all()):
                break
            found = more
        seen[k] = found
        for j, linear_map in row.states.items():
            if j != k:
                seen[j] |= _is_read(linear_map, found)
    return {k: (~found, np.zeros(found.size), np.zeros(found.size)) for k, found in seen.items()}


def _unused_inputs(model: ImplicitModel) -> IntArray:
    used = np.zeros(model.n_inputs, np.bool_)
    for row in (*model.rows, model.output):
        if row.input is not None:
            used |= _is_read(row.input, np.ones(row.size, np.bool_))
    return np.flatnonzero(~used)


# --- patterns ---------------------------------------------------------------------------------------------------------


def _size(linear_map: LinearMap, vector: BoolArray, *, adjoint: bool) -> BoolArray:
    """Return where |W| v, or |W|^T v, is not 0: products of coefficients with ones do not underflow to 0."""
    ones = vector.astype(np.float64)[None]
    part = linear_map.magnitude
    result = (part.adjoint(ones) if adjoint else part.apply(ones))[0] > 0
    if linear_map.slack is not None:
        slack = linear_map.slack
        result |= (slack.adjoint(ones) if adjoint else slack.apply(ones))[0] > 0
    return np.asarray(result)


def _reads(linear_map: LinearMap, sources: BoolArray) -> BoolArray:
    """Return which rows read one of the sources."""
    return _size(linear_map, sources, adjoint=False)


def _is_read(linear_map: LinearMap, rows: BoolArray) -> BoolArray:
    """Return which columns one of the rows reads."""
    return _size(linear_map, rows, adjoint=True)


def _whole_groups(block: StateBlock, found: BoolArray) -> BoolArray:
    """Return the states found, with those that are coupled to them."""
    if not block.activation.coupled:
        return found
    groups = group_of(block.activation, block.size)
    any_found = np.zeros(int(groups.max(initial=-1)) + 1, np.bool_)
    any_found[groups[found]] = True
    return np.asarray(any_found[groups])


# --- the smaller model ------------------------------------------------------------------------------------------------


def _without(model: ImplicitModel, values: Values, count: dict[str, int]) -> ImplicitModel:
    """Return the model with these states replaced by their values."""
    gone = {}
    for k, (mask, _, _) in values.items():
        block = model.blocks[k]
        kept = _whole_groups(block, ~mask)
        gone[k] = ~kept
    if not any(mask.any() for mask in gone.values()):
        return model
    kept_of = {k: np.flatnonzero(~gone.get(k, np.zeros(b.size, np.bool_))) for k, b in enumerate(model.blocks)}
    alive = [k for k in range(len(model.blocks)) if kept_of[k].size]
    number = {k: place for place, k in enumerate(alive)}
    for k, mask in gone.items():
        name = model.blocks[k].name
        if mask.any():
            count[name] = count.get(name, 0) + int(mask.sum())
    rows = tuple(_smaller(model, model.rows[k], kept_of[k], kept_of, values, number) for k in alive)
    every = np.arange(model.n_outputs)
    return replace(
        model,
        blocks=tuple(_part(model.blocks[k], kept_of[k]) for k in alive),
        rows=rows,
        output=_smaller(model, model.output, every, kept_of, values, number),
        scaling=None,
    )


def _smaller(
    model: ImplicitModel,
    row: Affine,
    rows: IntArray,
    kept_of: Mapping[int, IntArray],
    values: Values,
    number: Mapping[int, int],
) -> Affine:
    """Return the given rows, over the states that are kept."""
    constant = row.constant[rows]
    form = AffineForm((1, rows.size), {}, constant, row.constant_error)
    if row.input is not None:
        own = _cut(row.input, rows, None)
        if own.nnz and _reads(own, np.ones(own.n_in, np.bool_)).any():
            form = form.plus(AffineForm(form.shape, {INPUT: own}, np.zeros(rows.size)))
    for k, linear_map in row.states.items():
        kept = kept_of[k]
        own = _cut(linear_map, rows, None)
        if kept.size == linear_map.n_in:
            term = AffineForm(form.shape, {number[k]: own}, np.zeros(rows.size))
        else:
            mask, value, error = values[k]
            gone = np.ones(linear_map.n_in, np.bool_)
            gone[kept] = False
            fixed = np.where(gone & mask, value, 0.0)
            source = AffineForm(
                (1, linear_map.n_in),
                {number[k]: _spread(kept, linear_map.n_in)} if kept.size else {},
                fixed,
                float(np.where(gone & mask, error, 0.0).max(initial=0.0)),
            )
            term = source.mapped(own, form.shape)
        read = {
            j: found
            for j, found in term.terms.items()
            if found.nnz and _reads(found, np.ones(found.n_in, np.bool_)).any()
        }
        form = form.plus(AffineForm(form.shape, read, term.constant, term.constant_error))
    states = {k: linear_map for k, linear_map in form.terms.items() if k != INPUT}
    return Affine(states, form.terms.get(INPUT), form.constant, form.constant_error)


def _cut(linear_map: LinearMap, rows: IntArray, columns: IntArray | None) -> LinearMap:
    """Return some rows of a map, and some columns where these are given."""
    if rows.size != linear_map.n_out:
        linear_map = compose(Selection(index=rows, size_in=linear_map.n_out), linear_map)
    return linear_map if columns is None else compose(linear_map, _spread(columns, linear_map.n_in))


def _spread(kept: IntArray, size: int) -> Selection:
    """Return the map that puts the states that are kept back into their places, with 0 for the others."""
    index = np.full(size, -1, np.int64)
    index[kept] = np.arange(kept.size)
    return Selection(index=index, size_in=kept.size)


def _part(block: StateBlock, kept: IntArray) -> StateBlock:
    if kept.size == block.size:
        return replace(block, maximum=None)
    exponent = block.exponent[kept] if isinstance(block.exponent, np.ndarray) else block.exponent
    return replace(
        block,
        activation=restricted(block.activation, kept),
        shape=(1, int(kept.size)),
        maximum=None,
        exponent=exponent,
    )
