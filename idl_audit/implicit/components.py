"""Strongly connected components: a flat model x = phi(A x + B u + b) in blocks, loops apart from what only feeds on.

States that a coupled activation ties together count as one node. The nodes of one component that is a loop become one
block; all others are put into blocks by the length of the longest path to them, so that A is block triangular
but for the loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from idl_audit.values.arrays import FloatArray, IntArray


def block_order(A: sp.csr_array, kinds: IntArray, nodes: IntArray) -> list[IntArray]:
    """Return the states of each block, oldest block first; only a block that is a loop reads itself.

    Args:
        A: state to state, (n, n).
        kinds: which activation each state has; acyclic states share a block only with their kind.
        nodes: the node that each state belongs to; states of one node are coupled.
    """
    from scipy.sparse.csgraph import connected_components  # loads linear algebra that layered networks do without

    n = A.shape[0]
    if not n:
        return []
    pattern = sp.coo_array(A)
    pattern.sum_duplicates()
    present = pattern.data != 0
    target, source = nodes[pattern.coords[0][present]], nodes[pattern.coords[1][present]]
    n_nodes = int(nodes.max()) + 1
    reads = sp.csr_array((np.ones(target.size), (target, source)), shape=(n_nodes, n_nodes))
    count, component = connected_components(reads, directed=True, connection="strong")
    size = np.bincount(component, minlength=count)
    loops = size > 1
    loops[component[target[target == source]]] = True
    level = _levels(component[target], component[source], count)
    of_state = component[nodes]
    keys = [
        (int(level[c]), 1 if loops[c] else 0, int(c) if loops[c] else int(kinds[i])) for i, c in enumerate(of_state)
    ]
    blocks: dict[tuple[int, int, int], list[int]] = {}
    for i, key in enumerate(keys):
        blocks.setdefault(key, []).append(i)
    return [np.asarray(blocks[key], np.int64) for key in sorted(blocks)]


def _levels(target: IntArray, source: IntArray, count: int) -> IntArray:
    """Return the longest path to each component, over the edges between different ones."""
    between = target != source
    edges = np.unique(np.stack([source[between], target[between]]), axis=1)
    level = np.zeros(count, np.int64)
    waiting = np.bincount(edges[1], minlength=count)
    order = np.argsort(edges[0], kind="stable")
    starts = np.searchsorted(edges[0][order], np.arange(count + 1))
    ready = [int(c) for c in np.flatnonzero(waiting == 0)]
    while ready:
        here = ready.pop()
        for edge in order[starts[here] : starts[here + 1]]:
            there = int(edges[1][edge])
            level[there] = max(level[there], level[here] + 1)
            waiting[there] -= 1
            if not waiting[there]:
                ready.append(there)
    return level


def ranges_text(states: Sequence[int] | IntArray, *, longest: int = 6) -> str:
    """Return state numbers as a short text: "0-39", "3, 5, 8-12, ..."."""
    numbers = np.asarray(states)
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    starts, ends = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [numbers.size - 1]])
    parts = [
        f"{numbers[s]}" if s == e else f"{numbers[s]}-{numbers[e]}"
        for s, e in zip(starts[:longest], ends[:longest], strict=True)
    ]
    return ", ".join([*parts, *(["..."] if len(starts) > longest else [])])


def gathered(matrix: FloatArray, rows: IntArray, columns: IntArray) -> FloatArray:
    """Return the submatrix of the given rows and columns."""
    return np.ascontiguousarray(matrix[np.ix_(rows, columns)])
