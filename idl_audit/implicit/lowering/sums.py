"""Sums of entries with fixed weights, as sparse maps: along one axis, or from a list of entries."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Sparse
from idl_audit.implicit.walk import Walk
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import gamma


def along_axis(
    node: Node, form: AffineForm, axis: int, matrix: sp.csr_array, walk: Walk, *, slack: sp.csr_array | None = None
) -> AffineForm:
    """Return the tensor whose lines along an axis are `matrix`, shape (m, n), times the form's; n becomes m.

    `slack` bounds how far each entry of the matrix may be from the operator's own.
    """
    before, behind = math.prod(form.shape[:axis]), math.prod(form.shape[axis + 1 :])
    walk.allow(node, before * behind * matrix.nnz)
    shape = (*form.shape[:axis], int(matrix.shape[0]), *form.shape[axis + 1 :])
    spread = None if slack is None else Sparse(matrix=_repeated(slack, before, behind))
    return walk.linear(node, Sparse(matrix=_repeated(matrix, before, behind), slack=spread), form, shape)


def _repeated(matrix: sp.csr_array, before: int, behind: int) -> sp.csr_array:
    inner = sp.kron(matrix, sp.eye_array(behind), format="csr")
    return sorted_csr(sp.kron(sp.eye_array(before), inner, format="csr"))


def sorted_csr(matrix: sp.csr_array | sp.coo_array) -> sp.csr_array:
    """Return a sparse matrix in CSR form with sorted columns, duplicates summed."""
    result = sp.csr_array(matrix)
    result.sum_duplicates()
    return result


def entries(rows: IntArray, columns: IntArray, values: FloatArray | float, shape: tuple[int, int]) -> sp.csr_array:
    """Return the matrix with these entries; arrays of one shape, entries whose column is negative left out."""
    used = columns >= 0
    data = np.broadcast_to(np.asarray(values, np.float64), columns.shape)[used]
    return sorted_csr(sp.coo_array((data, (rows[used], columns[used])), shape=shape))


def weighted_sum(
    node: Node,
    form: AffineForm,
    shape: tuple[int, ...],
    windows: IntArray,
    weights: FloatArray,
    walk: Walk,
    *,
    rounded: int = 2,
    exact: bool = True,
) -> AffineForm:
    """Return the tensor whose entry i is weights[i] times the sum of the entries at windows[i].

    Weights that are no powers of two have been rounded so many times; nor are those, which a product may have been
    rounded to, where they are not `exact`: 1 divided by a whole number is.
    """
    used = windows >= 0
    indptr = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    data = np.broadcast_to(weights[:, None], windows.shape)[used]
    matrix = sp.csr_array((data, windows[used], indptr), shape=(len(windows), form.size))
    matrix.sort_indices()
    mantissa, _ = np.frexp(weights)
    relative = 0.0 if exact and bool((np.abs(mantissa) == 0.5).all()) else gamma(rounded)
    return walk.linear(node, Sparse(matrix=matrix, relative=relative), form, shape)
