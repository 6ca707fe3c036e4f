"""The structure of [[A, B], [C, D]] as densities of nonzeros on a coarse grid: what a picture of it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Structure:
    """Share of nonzeros in each cell of a grid over [[A, B], [C, D]], and where its blocks begin."""

    density: FloatArray
    """(rows of cells, columns of cells), each between 0 and 1."""
    row_edges: IntArray
    """Cell row at which each block of rows begins, and the end: states newest first, then the outputs."""
    column_edges: IntArray
    """Likewise for columns: states newest first, then the inputs."""
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]


def structure(model: ImplicitModel, *, cells: int = 400) -> Structure:
    """Return the densities of [[A, B], [C, D]] on a grid of about `cells` cells a side.

    Every block gets cells in proportion to its size, and at least two. One block at a time is held as a matrix.
    """
    names = tuple(block.name for block in model.blocks)
    sizes = [block.size for block in model.blocks]
    row_sizes, column_sizes = [*sizes, model.n_outputs], [*sizes, model.n_inputs]
    row_edges, column_edges = _edges(row_sizes, cells), _edges(column_sizes, cells)
    density = np.zeros((int(row_edges[-1]), int(column_edges[-1])))
    for i, row in enumerate((*model.rows, model.output)):
        maps = dict(row.states) if row.input is None else {**row.states, len(sizes): row.input}
        for k, linear_map in maps.items():
            rows, columns = slice(row_edges[i], row_edges[i + 1]), slice(column_edges[k], column_edges[k + 1])
            density[rows, columns] = _shares(linear_map, density[rows, columns].shape)
    return Structure(density, row_edges, column_edges, (*names, "y"), (*names, "u"))


def _edges(sizes: list[int], cells: int) -> IntArray:
    total = max(sum(sizes), 1)
    counts = [min(size, max(2, round(cells * size / total))) if size else 0 for size in sizes]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _shares(linear_map: LinearMap, shape: tuple[int, ...]) -> FloatArray:
    """Return the share of nonzeros of a matrix in each cell of an even grid over it."""
    matrix = linear_map.to_sparse().tocoo()
    keep = matrix.data != 0
    row_cells = _cells(linear_map.n_out, shape[0])
    column_cells = _cells(linear_map.n_in, shape[1])
    rows, columns = row_cells[matrix.row[keep]], column_cells[matrix.col[keep]]
    counts = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)
    area = np.outer(np.bincount(row_cells, minlength=shape[0]), np.bincount(column_cells, minlength=shape[1]))
    return counts / np.maximum(area, 1)


def _cells(size: int, cells: int) -> IntArray:
    """Return the cell of each of `size` lines when `cells` cells share them evenly."""
    return np.arange(size, dtype=np.int64) * cells // max(size, 1)
