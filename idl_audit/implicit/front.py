"""A family of inputs in front of a model: the model that reads its parameters (docs/mathematics.md, section 14.1).

Without a valid range u = u0 + M t is one more linear map, multiplied out. With one, u = clip(u0 + M t, lo, hi) is two
blocks of ReLU states more, the oldest:

    x1 = relu(u0 - lo + M t),   x0 = relu(hi - lo - x1),   u = hi - x0.

A product of two parameters is one block of two states more, behind all others (`Family.product`): (t_0 t_1, t_1).
Blocks of the model keep their numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations.kinked import identity, relu
from idl_audit.implicit.activations.product import product
from idl_audit.implicit.composition import compose
from idl_audit.implicit.input_units import reading
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.families import Family
from idl_audit.values.perturbations import Piece
from idl_audit.values.rounding import gamma

SATURATION = "saturation"
"""The name of the blocks that keep inputs within the valid range."""


def with_family(model: ImplicitModel, family: Family) -> ImplicitModel:
    """Return the model as a function of a family's parameters, (k,) -> (q,).

    Args:
        model: in data units, feed-forward.
        family: as many inputs.

    Raises:
        UnsupportedModelError: where the model has loops.
    """
    if not model.is_feed_forward:
        raise UnsupportedModelError(["families of inputs are decided for networks without loops, and this one has one"])
    linear_map = _map_of(family)
    if family.product is not None:
        return _with_product(model, linear_map, family)
    if family.clip is None:
        found = reading(model, linear_map, family.offset)
        return replace(found, input_shape=(linear_map.n_in,), input_parts=(), scaling=None)
    return _saturating(model, linear_map, family.offset, *family.clip)


def _with_product(model: ImplicitModel, linear_map: LinearMap, family: Family) -> ImplicitModel:
    """Return the model that reads u = u0 + M t + c x, x the first state of the oldest block, t_0 t_1."""
    assert family.product is not None
    if family.clip is not None or family.k != 2 or family.spread is not None:
        raise ValueError("products of parameters are for two of them, and inputs that saturate nowhere")
    n, plain = len(model.blocks), reading(model, linear_map, family.offset)
    moved = Dense(matrix=np.stack([family.product, np.zeros(family.size)], axis=1))

    def reading_product(row: Affine, before: Affine) -> Affine:
        if before.input is None:
            return row
        return replace(row, states={**row.states, n: compose(before.input, moved)})

    block = StateBlock("product of two shifts", "Mul", product(), (2,))
    own = Affine({}, Selection.identity(2), np.zeros(2))
    pairs = zip((*plain.rows, plain.output), (*model.rows, model.output), strict=True)
    rows = [reading_product(row, before) for row, before in pairs]
    return replace(
        plain,
        blocks=(*plain.blocks, block),
        rows=(*rows[:-1], own),
        output=rows[-1],
        input_shape=(2,),
        input_parts=(),
        scaling=None,
    )


def with_input_rows(model: ImplicitModel, rows: FloatArray, limits: FloatArray) -> ImplicitModel:
    """Return the model with more outputs: (y, G u - h), G of shape (r, p), exactly these numbers.

    They are the states of one block that is the identity, behind all others.
    """
    n, q, r = len(model.blocks), model.n_outputs, len(rows)
    first = Selection(index=np.concatenate([np.arange(q), np.full(r, -1)]), size_in=q)
    last = Selection(index=np.concatenate([np.full(q, -1), np.arange(r)]), size_in=r)
    own = model.output
    output = Affine(
        {**{k: compose(first, linear_map) for k, linear_map in own.states.items()}, n: last},
        None if own.input is None else compose(first, own.input),
        np.concatenate([own.constant, np.zeros(r)]),
        own.constant_error,
    )
    block = StateBlock("rules of the inputs", "Identity", identity(), (r,))
    rules = Affine({}, Dense(matrix=np.asarray(rows, np.float64)), -limits)
    found = replace(model, blocks=(*model.blocks, block), rows=(*model.rows, rules), output=output)
    return replace(found, output_shape=(q + r,), scaling=None)


def behind(model: ImplicitModel, piece: Piece) -> ImplicitModel:
    """Return the model of what moves in a piece of a set: of parameters, or of the inputs themselves."""
    return with_family(model, piece) if isinstance(piece, Family) else model


def moving_in(piece: Piece) -> Box:
    """Return the box of what moves in a piece."""
    return piece.parameters if isinstance(piece, Family) else piece


def _map_of(family: Family) -> LinearMap:
    """Return [M, diag(r)]."""
    if family.spread is None:
        return Dense(matrix=family.matrix)
    return Sparse(matrix=sp.csr_array(sp.hstack([sp.csr_array(family.matrix), sp.diags_array(family.spread)])))


def _saturating(model: ImplicitModel, linear_map: LinearMap, offset: FloatArray, lo: float, hi: float) -> ImplicitModel:
    n, p = len(model.blocks), offset.size
    inner = reading(model, Selection.diagonal(np.full(p, -1.0)), np.full(p, hi))
    rows = [_of_states(row, n) for row in (*inner.rows, inner.output)]
    blocks = [StateBlock(f"{SATURATION} {name}", "Clip", relu(), (p,)) for name in ("above", "below")]
    above = Affine({n + 1: Selection.diagonal(np.full(p, -1.0))}, None, np.full(p, hi - lo), gamma(2) * abs(hi - lo))
    start = offset - lo
    below = Affine({}, linear_map, start, gamma(2) * float(np.abs(start).max(initial=0.0)))
    return replace(
        inner,
        blocks=(*inner.blocks, *blocks),
        rows=(*rows[:-1], above, below),
        output=rows[-1],
        input_shape=(linear_map.n_in,),
        input_parts=(),
        scaling=None,
    )


def _of_states(row: Affine, k: int) -> Affine:
    """Return the row with its map of the input as one of block k."""
    return row if row.input is None else replace(row, states={**row.states, k: row.input}, input=None)
