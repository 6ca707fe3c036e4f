"""A user's own implicit model: plain arrays A, B, C, D, b, d and the activations, cut into blocks around its loops.

    np.savez("model.npz", A=A, B=B, C=C, D=D, b=b, d=d, meta='{"schema_version": "1.0", "activation": "relu"}')

`b`, `d` and `D` may be left out where they are zero. Instead of one activation, `meta` may have "blocks", a list of
{"activation": name, "size": states, "parameters": {...}} in the order of the states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import ACTIVATIONS, SIZES, Activation, Coupled, Mixed
from idl_audit.implicit.components import block_order, gathered, ranges_text
from idl_audit.implicit.linear_maps import Dense, LinearMap, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.wellposed import MOST_STATES
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import ModelFileError

DENSE_SHARE = 0.25
"""A submatrix with a smaller share of nonzeros is kept in CSR form."""


@dataclass(frozen=True)
class DeclaredBlock:
    """States, next to each other in the user's order, that share an activation."""

    activation: str
    size: int
    parameters: Mapping[str, float]

    def made(self) -> Activation:
        """Return the activation."""
        return ACTIVATIONS[self.activation](**self.parameters)


def plain_model(
    A: FloatArray,
    B: FloatArray,
    C: FloatArray,
    D: FloatArray,
    b: FloatArray,
    d: FloatArray,
    blocks: Sequence[DeclaredBlock],
    *,
    input_shape: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
) -> ImplicitModel:
    """Return x = phi(A x + B u + b), y = C x + D u + d as blocks, every loop a block of its own.

    See docs/mathematics.md, section 3.1.

    Args:
        A: (n, n); B: (n, p); C: (q, n); D: (q, p); b: (n,); d: (q,), all finite.
        blocks: the activations, in the order of the states.
        input_shape, output_shape: how samples and outputs are arranged; flat where left out.
    """
    kinds = np.repeat(np.arange(len(blocks)), [block.size for block in blocks])
    order = block_order(sp.csr_array(A), _distinct(blocks)[kinds], _nodes(blocks))
    for states in order:
        if len(states) > MOST_STATES and A[np.ix_(states, states)].any():
            raise ModelFileError(
                f"a loop of {len(states):,} states is too large: at most {MOST_STATES:,} can be proved"
            )
    newest_first = order[::-1]
    rows = []
    for k, states in enumerate(newest_first):
        sources = {j: _map(gathered(A, states, newest_first[j])) for j in range(k, len(newest_first))}
        rows.append(
            Affine(
                {j: found for j, found in sources.items() if found is not None},
                _map(np.ascontiguousarray(B[states])),
                np.ascontiguousarray(b[states]),
            )
        )
    every = np.arange(len(C))
    outputs = {j: _map(gathered(C, every, states)) for j, states in enumerate(newest_first)}
    return ImplicitModel(
        tuple(_block(states, kinds, blocks) for states in newest_first),
        tuple(rows),
        Affine({j: found for j, found in outputs.items() if found is not None}, _map(D), d),
        input_shape or (1, B.shape[1]),
        output_shape or (1, len(C)),
    )


def _distinct(blocks: Sequence[DeclaredBlock]) -> IntArray:
    """Return a number for each declared block, the same for blocks with the same activation."""
    seen: dict[tuple[str, tuple[tuple[str, float], ...]], int] = {}
    keys = [(block.activation, tuple(sorted(block.parameters.items()))) for block in blocks]
    return np.asarray([seen.setdefault(key, len(seen)) for key in keys], np.int64)


def _nodes(blocks: Sequence[DeclaredBlock]) -> IntArray:
    """Return the node of each state: one a group of coupled states, one a state otherwise."""
    nodes: list[IntArray] = []
    start = 0
    for block in blocks:
        activation = block.made()
        width = activation.width if isinstance(activation, Coupled) else 1
        count = block.size // width
        nodes.append(np.repeat(np.arange(start, start + count), width))
        start += count
    return np.concatenate(nodes) if nodes else np.zeros(0, np.int64)


def _map(matrix: FloatArray) -> LinearMap | None:
    """Return the matrix in its cheaper form; None where it is zero."""
    share = np.count_nonzero(matrix)
    if not share:
        return None
    if share >= DENSE_SHARE * matrix.size:
        return Dense(matrix=np.ascontiguousarray(matrix))
    return Sparse(matrix=sp.csr_array(matrix))


def _block(states: IntArray, kinds: IntArray, blocks: Sequence[DeclaredBlock]) -> StateBlock:
    edges = np.flatnonzero(np.diff(kinds[states])) + 1
    pieces = np.split(states, edges)
    parts = [blocks[int(kinds[piece[0]])].made() for piece in pieces]
    same = len(set(_distinct(blocks)[kinds[states]])) == 1
    activation = parts[0] if same else Mixed(tuple(parts), tuple(len(piece) for piece in pieces))
    name = f"states {ranges_text(states)}" if len(states) > 1 else f"state {states[0]}"
    return StateBlock(name, "given", activation, (1, len(states)))


class PlainReader:
    """Reads a user's arrays, with a clear word on what is missing or does not fit."""

    def __init__(self, path: str, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        self._path, self._arrays, self._meta = path, arrays, meta

    def model(self) -> ImplicitModel:
        """Return the model. Raises ModelFileError."""
        missing = [name for name in "ABC" if name not in self._arrays]
        if missing:
            raise ModelFileError(
                f"{self._path} has no array {' and no array '.join(missing)}; an implicit model has A, B, C and, where "
                "they are not zero, D, b, d"
            )
        A, B, C = (self._matrix(name) for name in "ABC")
        n, p, q = len(A), B.shape[1], len(C)
        D = self._matrix("D") if "D" in self._arrays else np.zeros((q, p))
        b, d = self._vector("b", n), self._vector("d", q)
        for name, found, wanted in (("A", A, (n, n)), ("B", B, (n, p)), ("C", C, (q, n)), ("D", D, (q, p))):
            if found.shape != wanted:
                raise ModelFileError(
                    f"{self._path}: {name} has the shape {found.shape} and needs {wanted}, for {n} states, {p} inputs "
                    f"and {q} outputs"
                )
        if not p or not q:
            raise ModelFileError(f"{self._path}: the model needs at least one input and one output")
        return plain_model(
            A,
            B,
            C,
            D,
            b,
            d,
            self._blocks(n),
            input_shape=self._shape("input_shape", p),
            output_shape=self._shape("output_shape", q),
        )

    def _matrix(self, name: str) -> FloatArray:
        array = self._numbers(name)
        if array.ndim != 2:
            raise ModelFileError(f"{self._path}: {name} has the shape {array.shape} and should be a matrix")
        return np.ascontiguousarray(array)

    def _vector(self, name: str, size: int) -> FloatArray:
        if name not in self._arrays:
            return np.zeros(size)
        array = self._numbers(name)
        if array.size != size or array.ndim > 2:
            raise ModelFileError(f"{self._path}: {name} has the shape {array.shape} and needs {size} numbers")
        return array.reshape(-1).copy()

    def _numbers(self, name: str) -> FloatArray:
        array = np.asarray(self._arrays[name])
        if array.dtype.kind not in "fiu":
            raise ModelFileError(f"{self._path}: {name} holds {array.dtype}, not numbers")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise ModelFileError(f"{self._path}: {name} holds NaN or infinity")
        sizes = np.abs(array[array != 0])
        if sizes.size and not 1e-100 <= sizes.min() <= sizes.max() <= 1e100:
            raise ModelFileError(f"{self._path}: {name} holds numbers beyond 1e100 or nonzero ones below 1e-100")
        return array

    def _shape(self, name: str, size: int) -> tuple[int, ...] | None:
        if name not in self._meta:
            return None
        value = self._meta[name]
        valid = isinstance(value, list) and all(isinstance(k, int) and k > 0 for k in value)
        if not valid or int(np.prod(value, dtype=object)) != size:
            raise ModelFileError(f"{self._path}: {name} is {value!r} and should be a list of sizes for {size} numbers")
        return tuple(value)

    def _blocks(self, n: int) -> list[DeclaredBlock]:
        declared = self._meta.get("blocks", self._meta.get("activation"))
        if declared is None:
            raise ModelFileError(
                f'{self._path}: meta names no activation; add "activation": "relu" (known are '
                f'{", ".join(ACTIVATIONS)}) or a list of "blocks"'
            )
        entries = declared if isinstance(declared, list) else [{"activation": declared, "size": n}]
        blocks = [self._declared(entry, n) for entry in entries]
        total = sum(block.size for block in blocks)
        if total != n:
            raise ModelFileError(f"{self._path}: the blocks have {total} states and A has {n}")
        return [block for block in blocks if block.size]

    def _declared(self, entry: Any, n: int) -> DeclaredBlock:
        if not isinstance(entry, dict) or type(entry.get("size")) is not int or not 0 <= entry["size"] <= n:
            raise ModelFileError(
                f'{self._path}: a block is {entry!r} and should be like {{"activation": "relu", "size": {n}}}'
            )
        name, parameters = entry.get("activation"), entry.get("parameters", {})
        if name not in ACTIVATIONS:
            raise ModelFileError(
                f"{self._path}: the activation {name!r} is unknown; known are {', '.join(ACTIVATIONS)}"
            )
        numbers = isinstance(parameters, dict) and all(
            isinstance(value, int | float) and np.isfinite(value) for value in parameters.values()
        )
        if not numbers:
            raise ModelFileError(f"{self._path}: the parameters of '{name}' are {parameters!r} and should be numbers")
        if name == "softmax":
            parameters = {"width": entry["size"], **parameters}
        if not all(value >= 1 and int(value) == value for key, value in parameters.items() if key in SIZES):
            raise ModelFileError(f"{self._path}: the sizes of '{name}' are {parameters}; they must be whole numbers")
        block = DeclaredBlock(str(name), entry["size"], {key: float(value) for key, value in parameters.items()})
        self._check_parameters(block)
        return block

    def _check_parameters(self, block: DeclaredBlock) -> None:
        try:
            made = block.made()
        except ValueError as error:
            raise ModelFileError(f"{self._path}: {error}") from error
        except TypeError as error:
            given = ", ".join(block.parameters) or "none"
            raise ModelFileError(
                f"{self._path}: '{block.activation}' does not take these parameters: {given}"
            ) from error
        if isinstance(made, Coupled) and not made.fits(block.size):
            what = f"a {block.activation} of width {made.width}"
            raise ModelFileError(f"{self._path}: {what} does not fit {block.size} states")
        for name, value in block.parameters.items():
            if value and not 1e-50 <= abs(value) <= 1e50:
                raise ModelFileError(
                    f"{self._path}: the {name} of '{block.activation}' is {value:g}, beyond 1e50 or below 1e-50"
                )
        if block.activation in ("leaky_relu", "power"):
            return
        for name, value in block.parameters.items():
            if value < 0 or (value == 0 and block.activation in ("celu", "softmax")):
                raise ModelFileError(
                    f"{self._path}: the {name} of '{block.activation}' is {value:g}; it must be positive"
                )
