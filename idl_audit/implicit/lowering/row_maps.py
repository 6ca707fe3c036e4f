"""Linear operators on the rows of a batch: they keep them apart and alike where their map is one map, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.rows import LARGEST_BATCH, MeetError, Result, Rows, Tensor, lying_along, meet, row_part
from idl_audit.implicit.walk import Walk
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.errors import UnsupportedModelError


def one_map(node: Node, arguments: Sequence[Tensor | None], opset: int) -> Result:
    """Run a linear operator on all rows, then on one: both must be the same map, row by row.

    Constants that reach along the rows are cut to one row's part, from the right as broadcasting does, or from the
    left; which of it the operator means, the comparison proves.
    """
    first = next(value for value in arguments if isinstance(value, Rows))
    n_entries = sum(math.prod(value.shape) for value in arguments if isinstance(value, Rows))
    if n_entries > LARGEST_BATCH:
        meet()
    whole = _forms(node, arguments, opset)
    results = [_rows_of(made, arguments, first.n) for made in whole]
    for reached in (None, lambda c: first.axis - len(first.shape) + c.ndim, lambda c: first.axis):
        try:
            adapted = {} if reached is None else _parts(arguments, reached, first.owner)
            single = [_one_row(value, adapted.get(k, value)) for k, value in enumerate(arguments)]
            alone = _forms(node, single, opset)
        except (MeetError, UnsupportedModelError, IndexError, ValueError):
            continue
        pairs = zip(whole, results, alone, strict=True)
        if all(_is_repeated(made, result, arguments, one) for made, result, one in pairs):
            return results, adapted
    meet()


def _parts(
    arguments: Sequence[Tensor | None], reached: Callable[[AnyArray], int], owner: IntArray
) -> dict[int, AnyArray]:
    return {
        k: row_part(value, reached(value), owner)
        for k, value in enumerate(arguments)
        if isinstance(value, np.ndarray) and value.ndim > reached(value)
    }


def _one_row(value: Tensor | None, adapted: Tensor | None) -> Tensor | None:
    """Return the argument for one row: the part of a batch as one row of a batch of one."""
    if isinstance(value, Rows):
        return Rows(value.row_shape, value.axis, np.zeros(len(value.owner) // value.n, np.int64))
    return adapted


def _forms(node: Node, arguments: Sequence[Tensor | None], opset: int) -> list[AffineForm]:
    """Return the operator's outputs as forms, argument k being source k; only linear ones are told."""
    walk = Walk(opset)
    given = [
        AffineForm.of_source(k, value.shape) if isinstance(value, Rows) else value for k, value in enumerate(arguments)
    ]
    made = [value for value in LOWERINGS[node.op](node, given, walk) if isinstance(value, AffineForm)]
    if walk.pending or not made:
        meet()
    return made


def _rows_of(made: AffineForm, arguments: Sequence[Tensor | None], n: int) -> Rows:
    """Return how the rows lie in an output: each entry reads one row only."""
    lowest, highest = np.full(made.size, n), np.full(made.size, -1)
    for k, term in made.terms.items():
        source = arguments[k]
        assert isinstance(source, Rows)
        row, _ = source.positions()
        entries = term.to_sparse().tocoo()
        np.minimum.at(lowest, entries.row, row[entries.col])
        np.maximum.at(highest, entries.row, row[entries.col])
    if (lowest < highest).any():
        meet()
    return lying_along(highest.reshape(made.shape), n)


def _is_repeated(made: AffineForm, result: Rows, arguments: Sequence[Tensor | None], one: AffineForm) -> bool:
    """Return whether the map of all rows is that of one row, once for each."""
    if one.shape != result.row_shape or set(one.terms) != set(made.terms):
        return False
    out_row, out_local = result.positions()
    for row in range(result.n):
        there = np.flatnonzero(out_row == row)
        there = there[np.argsort(out_local[there])]
        if not np.array_equal(made.constant[there], one.constant):
            return False
        for k, term in made.terms.items():
            source = arguments[k]
            assert isinstance(source, Rows)
            in_row, in_local = source.positions()
            here = np.flatnonzero(in_row == row)
            here = here[np.argsort(in_local[here])]
            if abs(term.to_sparse()[there][:, here] - one.terms[k].to_sparse()).sum():
                return False
    return True
