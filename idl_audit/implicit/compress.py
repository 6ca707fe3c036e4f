"""Smaller weights: pruned, quantised or of low rank, with what each coefficient changed by.

See docs/mathematics.md, sections 9.2 and 9.3.

Only matrices and kernels change; what merely moves or scales numbers (`Selection`) and the constants b, d stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import ACTIVATIONS, Mixed
from idl_audit.implicit.activations.parts import side_by_side
from idl_audit.implicit.composition import compose
from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.plain import DENSE_SHARE
from idl_audit.implicit.upward import pulled, pushed, weighted
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import OptionError, SolverError
from idl_audit.values.rounding import TINY, gamma

INPUT = -1
OUTPUT = -1
"""The rows (C, D, d), where blocks are counted; INPUT stands for u, where sources are."""
MATRICES = "ABCD"
"""A: from states to states, B: from the input to states, C and D: from both to the outputs."""


def matrix_of(row: int, source: int) -> str:
    """Return the matrix, "A" to "D", that a map belongs to."""
    return ("D" if row == OUTPUT else "B") if source == INPUT else ("C" if row == OUTPUT else "A")


@dataclass(frozen=True)
class Change:
    """E with |W - W0| <= E, entrywise, in exact arithmetic: a sum of nonnegative maps, each times a number."""

    parts: tuple[tuple[float, LinearMap], ...]

    def apply(self, x: FloatArray) -> FloatArray:
        """Return E x for x >= 0, each row of shape (n_in,), rounded upward."""
        return self._sum(lambda part: pushed(part, x), lambda part: part.row_terms)

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return E^T y for y >= 0, rounded upward."""
        return self._sum(lambda part: pulled(part, y), lambda part: part.column_terms)

    def _sum(self, product: Callable[[LinearMap], FloatArray], terms: Callable[[LinearMap], int]) -> FloatArray:
        found = [
            weighted(product(part), np.array([factor])) * (1 + 2 * gamma(terms(part) + 4))
            for factor, part in self.parts
        ]
        return np.asarray(sum(found) * (1 + gamma(len(found) + 4)))


@dataclass(frozen=True)
class Compressed:
    """A compressed model beside its original."""

    original: ImplicitModel
    model: ImplicitModel
    """Block by block the original's form: what bounds are made with."""
    stored: ImplicitModel
    """The same function as `model`; low rank has factors, with identity states between them."""
    whole_loops: tuple[str, ...] = ()
    """Loops that keep the product of their factors: nothing would prove them well-posed otherwise."""
    changes: Mapping[tuple[int, int], Change] = field(default_factory=dict)
    """(row, source) -> what its map changed by: row OUTPUT is (C, D), source INPUT is u; others did not."""


@dataclass(frozen=True)
class _Part:
    """One map made smaller."""

    effective: LinearMap | None
    """None where nothing is left of it."""
    difference: LinearMap
    """|W' - W|, about as computed."""
    factors: tuple[LinearMap, LinearMap] | None = None


Smaller = Callable[[FloatArray], FloatArray]
"""A matrix or kernel -> the smaller one, of the same shape."""


def pruned(model: ImplicitModel, threshold: float, *, only: int | None = None, of: str = MATRICES) -> Compressed:
    """Return the model without coefficients below `threshold` times the largest of their matrix or kernel.

    Args:
        model: the model.
        threshold: in (0, 1).
        only: prune this row of blocks alone; OUTPUT stands for (C, D).
        of: the matrices whose coefficients are pruned, some of "ABCD".
    """
    if not 0 < threshold < 1:
        raise OptionError(f"--prune takes a share of the largest weight, above 0 and below 1, not {threshold:g}")

    def smaller(values: FloatArray) -> FloatArray:
        return np.where(np.abs(values) < threshold * np.abs(values).max(initial=0.0), 0.0, values)

    return _compressed(model, lambda linear_map: _entrywise(linear_map, smaller), only, of)


def quantized(model: ImplicitModel, bits: int, *, only: int | None = None, of: str = MATRICES) -> Compressed:
    """Return the model whose matrices and kernels have 2^bits - 1 levels each, evenly spaced around 0."""
    if not 2 <= bits <= 24:
        raise OptionError(f"--quantize takes 2 to 24 bits, not {bits}")

    def smaller(values: FloatArray) -> FloatArray:
        step = float(np.abs(values).max(initial=0.0)) / (2 ** (bits - 1) - 1)
        return np.round(values / step) * step if step > 0 else values

    return _compressed(model, lambda linear_map: _entrywise(linear_map, smaller), only, of)


def low_rank(model: ImplicitModel, rank: int, *, only: int | None = None, of: str = MATRICES) -> Compressed:
    """Return the model whose matrices, and kernels as (channels out) x (the rest), have at most this rank.

    A loop x = phi(A x + i), A = L R, becomes x = phi(L z + i), z = R x (paper 5.3), where that is proved well-posed.
    What has no more coefficients than its factors would have is left as it is.
    """
    if rank < 1:
        raise OptionError(f"--rank must be at least 1, not {rank}")
    return _compressed(model, lambda linear_map: _of_rank(linear_map, rank), only, of)


def weights(model: ImplicitModel) -> int:
    """Return how many coefficients of A, B, C, D are stored and not zero; a kernel counts once."""
    return sum(map(row_weights, (*model.rows, model.output)))


def row_weights(row: Affine) -> int:
    """Return how many coefficients of one row of blocks are stored and not zero."""
    return sum(map(_count, row.maps))


def _count(linear_map: LinearMap) -> int:
    match linear_map:
        case Selection():
            return 0 if linear_map.weights is None else int(np.count_nonzero(linear_map.weights))
        case Dense():
            return int(np.count_nonzero(linear_map.matrix))
        case Convolution():
            return int(np.count_nonzero(linear_map.kernel))
        case TransposedConvolution():
            return _count(linear_map.forward)
        case Reindexed():
            return sum(map(_count, (linear_map.left, linear_map.core, linear_map.right)))
        case _:
            return int(np.count_nonzero(linear_map.to_sparse().data))


# --- one map ----------------------------------------------------------------------------------------------------------


def _entrywise(linear_map: LinearMap, smaller: Smaller) -> _Part | None:
    """Return the map with smaller coefficients; None where it has none to change."""
    match linear_map:
        case Dense():
            values = smaller(linear_map.matrix)
            difference: LinearMap = Dense(matrix=np.abs(values - linear_map.matrix))
            return _Part(_matrix(values), difference)
        case Sparse():
            matrix = linear_map.matrix
            data = smaller(matrix.data)
            changed, kept = (
                sp.csr_array((part, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
                for part in (np.abs(data - matrix.data), data)
            )
            for part in (changed, kept):
                part.eliminate_zeros()
            return _Part(Sparse(matrix=kept) if kept.nnz else None, Sparse(matrix=changed))
        case Convolution():
            kernel = smaller(linear_map.kernel)
            small = replace(linear_map, kernel=kernel, relative=0.0, slack=None)
            return _Part(small if kernel.any() else None, replace(small, kernel=np.abs(kernel - linear_map.kernel)))
        case TransposedConvolution():
            inner = _entrywise(linear_map.forward, smaller)
            return None if inner is None else _wrapped(inner, _transposed)
        case Reindexed():
            inner = _entrywise(linear_map.core, smaller)
            return None if inner is None else _wrapped(inner, lambda core: _reindexed(linear_map, core), linear_map)
        case _:
            return None


def _transposed(forward: LinearMap) -> LinearMap:
    assert isinstance(forward, Convolution)
    return TransposedConvolution(forward=forward)


def _reindexed(around: Reindexed, core: LinearMap) -> LinearMap:
    return Reindexed(left=around.left, core=core, right=around.right)


def _wrapped(inner: _Part, wrap: Callable[[LinearMap], LinearMap], around: Reindexed | None = None) -> _Part:
    effective = None if inner.effective is None else wrap(inner.effective)
    difference = wrap(inner.difference)
    return _Part(effective, difference if around is None else difference.magnitude)


def _is_zero(difference: LinearMap) -> bool:
    ones = np.ones((1, difference.n_in))
    return not bool(difference.apply(ones).any())


def _matrix(values: FloatArray) -> LinearMap | None:
    share = np.count_nonzero(values)
    if not share:
        return None
    return Dense(matrix=values) if share >= DENSE_SHARE * values.size else Sparse(matrix=sp.csr_array(values))


def _of_rank(linear_map: LinearMap, rank: int) -> _Part | None:
    match linear_map:
        case Dense():
            found = _factors(linear_map.matrix, rank)
            if found is None:
                return None
            left, right = Dense(matrix=found[0]), Dense(matrix=found[1])
            product = compose(left, right)
            assert isinstance(product, Dense)
            return _Part(product, Dense(matrix=np.abs(product.matrix - linear_map.matrix)), (left, right))
        case Convolution() if linear_map.groups == 1:
            kernel = linear_map.kernel
            found = _factors(kernel.reshape(len(kernel), -1), rank)
            if found is None:
                return None
            mixing, narrow = found
            shape = (rank, *kernel.shape[1:])
            ones = (1,) * linear_map.rank
            first = replace(linear_map, kernel=narrow.reshape(shape), relative=0.0, slack=None)
            second = Convolution(
                kernel=mixing.reshape(len(kernel), rank, *ones),
                spatial_in=first.spatial_out,
                strides=ones,
                pads=(0,) * (2 * linear_map.rank),
                dilations=ones,
                groups=1,
            )
            whole = (mixing @ narrow).reshape(kernel.shape)
            lost = (gamma(rank + 2) * (np.abs(mixing) @ np.abs(narrow)) * (1 + gamma(rank + 4)) + TINY).reshape(
                kernel.shape
            )
            product_ = replace(first, kernel=whole, slack=replace(first, kernel=lost))
            return _Part(product_, replace(first, kernel=np.abs(whole - kernel)), (second, first))
        case _:
            return None


def _factors(matrix: FloatArray, rank: int) -> tuple[FloatArray, FloatArray] | None:
    """Return L, R with L R the best approximation of that rank; None where they hold no fewer numbers."""
    rows, columns = matrix.shape
    if rank * (rows + columns) >= np.count_nonzero(matrix):
        return None
    try:
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise SolverError(f"the singular values of a {rows} x {columns} matrix were not found ({error})") from error
    return np.asarray(left[:, :rank] * sizes[:rank], np.float64), np.asarray(right[:rank], np.float64)


# --- the model --------------------------------------------------------------------------------------------------------


def _compressed(
    model: ImplicitModel, make: Callable[[LinearMap], _Part | None], only: int | None, of: str
) -> Compressed:
    changes: dict[tuple[int, int], Change] = {}
    factored: dict[tuple[int, int], tuple[LinearMap, LinearMap]] = {}

    def smaller(row: Affine, k: int) -> Affine:
        if only is not None and k != only:
            return row
        states: dict[int, LinearMap] = {}
        for source, linear_map in row.states.items():
            made = one(linear_map, (k, source))
            if made is not None:
                states[source] = made
        return replace(row, states=states, input=None if row.input is None else one(row.input, (k, INPUT)))

    def one(linear_map: LinearMap, place: tuple[int, int]) -> LinearMap | None:
        part = make(linear_map) if matrix_of(*place) in of else None
        if part is None or (part.factors is None and _is_zero(part.difference)):
            return linear_map
        found = [(1 + gamma(4), part.difference)]
        for version in (linear_map, part.effective):
            if version is None:
                continue
            if version.relative:
                found.append((version.relative, version.magnitude))
            if version.slack is not None:
                found.append((1.0, version.slack))
        changes[place] = Change(tuple(found))
        if part.factors is not None:
            factored[place] = part.factors
        return part.effective

    rows = tuple(smaller(row, k) for k, row in enumerate(model.rows))
    blocks = tuple(block.alone() for block in model.blocks)
    effective = replace(model, blocks=blocks, rows=rows, output=smaller(model.output, OUTPUT), scaling=None)
    loops = {place[0]: factored.pop(place) for place in [*factored] if place[0] == place[1] != OUTPUT}
    stored, whole = _with_factors(effective, factored), []
    for k, (left, right) in loops.items():
        own = next(j for j, block in enumerate(stored.blocks) if block is effective.blocks[k])
        split = _split_loop(stored, own, left, right)
        if split.loops[own].proof is None and stored.loops[own].proof is not None:
            whole.append(effective.blocks[k].name)
        else:
            stored = split
    return Compressed(model, effective, stored, tuple(whole), changes)


def _split_loop(model: ImplicitModel, k: int, left: LinearMap, right: LinearMap) -> ImplicitModel:
    """Return the model with x = phi(L z + i), z = R x in place of x = phi(L R x + i): the loop's block is (x, z)."""
    block, row, rank = model.blocks[k], model.rows[k], right.n_out
    n = block.size
    padded = Selection(index=np.concatenate([np.arange(n), np.full(rank, -1)]), size_in=n)
    first = Selection(index=np.arange(n), size_in=n + rank)
    parts = block.activation.parts if isinstance(block.activation, Mixed) else (block.activation,)
    sizes = block.activation.sizes if isinstance(block.activation, Mixed) else (n,)
    phi = side_by_side([*zip(parts, sizes, strict=True), (ACTIVATIONS["identity"](), rank)])
    exponent = np.concatenate([np.broadcast_to(block.exponent, n), np.zeros(rank, np.int64)])
    across = sp.block_array([[None, left.to_sparse()], [right.to_sparse(), None]], format="csr")
    states: dict[int, LinearMap] = {j: compose(padded, found) for j, found in row.states.items() if j != k}
    states[k] = Sparse(matrix=sp.csr_array(across))
    own = replace(
        row,
        states=states,
        input=None if row.input is None else compose(padded, row.input),
        constant=np.concatenate([row.constant, np.zeros(rank)]),
    )

    def reading(other: Affine) -> Affine:
        found = other.states.get(k)
        return other if found is None else replace(other, states={**other.states, k: compose(found, first)})

    return replace(
        model,
        blocks=_replaced(model.blocks, k, replace(block, activation=phi, shape=(1, n + rank), exponent=exponent)),
        rows=tuple(own if j == k else reading(other) for j, other in enumerate(model.rows)),
        output=reading(model.output),
        loop_weights={j: weights for j, weights in model.loop_weights.items() if j != k},
    )


def _replaced(blocks: tuple[StateBlock, ...], k: int, block: StateBlock) -> tuple[StateBlock, ...]:
    return (*blocks[:k], block, *blocks[k + 1 :])


def _with_factors(
    model: ImplicitModel, factored: Mapping[tuple[int, int], tuple[LinearMap, LinearMap]]
) -> ImplicitModel:
    """Return the model with W x = L (R x), R x an identity block next to the block that it reads."""
    if not factored:
        return model
    blocks: list[StateBlock] = []
    pending: list[Affine] = []
    place: dict[int, int] = {}
    between: dict[tuple[int, int], int] = {}

    def put(block: StateBlock, row: Affine) -> int:
        blocks.append(block)
        pending.append(row)
        return len(blocks) - 1

    def factors_of(k: int, row: Affine) -> None:
        for source in (*row.states, INPUT):
            if (k, source) not in factored:
                continue
            right = factored[k, source][1]
            reads = Affine({}, right, np.zeros(right.n_out)) if source == INPUT else None
            reads = reads or Affine({source: right}, None, np.zeros(right.n_out))
            name = "outputs" if k == OUTPUT else model.blocks[k].name
            block = StateBlock(f"factor of {name}", "compress", ACTIVATIONS["identity"](), (1, right.n_out))
            between[k, source] = put(block, reads)

    factors_of(OUTPUT, model.output)
    for k, (block, row) in enumerate(zip(model.blocks, model.rows, strict=True)):
        place[k] = put(block, row)
        factors_of(k, row)
    owner = {number: key for key, number in between.items()}
    known = {number: k for k, number in place.items()}

    def renumbered(row: Affine, k: int | None) -> Affine:
        states: dict[int, LinearMap] = {}
        for source, linear_map in row.states.items():
            if k is not None and (k, source) in factored:
                states[between[k, source]] = factored[k, source][0]
            else:
                states[place[source]] = linear_map
        inputs = row.input
        if k is not None and (k, INPUT) in factored:
            states[between[k, INPUT]], inputs = factored[k, INPUT][0], None
        return replace(row, states=states, input=inputs)

    rows = tuple(renumbered(row, None if number in owner else known[number]) for number, row in enumerate(pending))
    return replace(model, blocks=tuple(blocks), rows=rows, output=renumbered(model.output, OUTPUT))
