"""Implicit models on disk: an .npz with every block in its own form and a JSON `meta`, read without trusting it.

Arrays are named by their place: `A.2.0.kernel` is the kernel of the map from block 2 to block 0, `B.0.matrix`,
`C.1.data`, `b.0`, `d`. `--flat` adds A, B, C, D as one CSR matrix each (`A_data`, `A_indices`, `A_indptr`, `A_shape`)
and `b` as one vector, states newest block first. That a block holds the maxima of another is not stored: a file could
claim it falsely, and bounds would believe it. A user's own model has plain A, B, C, D, b, d instead (`plain`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import ACTIVATIONS, JUMPS, SIZES, Activation, Coupled, Mixed
from idl_audit.implicit.activations.parts import group_of
from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, InputPart, Scaling, StateBlock
from idl_audit.implicit.plain import PlainReader
from idl_audit.implicit.wellposed import MOST_STATES
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.errors import IdlAuditError, ModelFileError
from idl_audit.values.npz import read_npz, write_npz

SCHEMA_VERSION: Final = "1.0"

_MAY_BE_NEGATIVE: Final = frozenset({"leaky_relu", "power", *JUMPS})
"""Activations whose parameters (slopes, exponents, heights, places) may be negative."""

_BY_STATE: Final = frozenset({"leaky_relu", *JUMPS})
"""Activations whose parameters may differ from state to state."""


@dataclass(frozen=True)
class StoredModel:
    """A converted model with what was noted about the network it came from."""

    model: ImplicitModel
    origin: Mapping[str, Any]


def save_model(
    path: Path, model: ImplicitModel, *, origin: Mapping[str, Any], flat: bool = False, force: bool = False
) -> None:
    """Write the model; the file appears whole or not at all.

    Raises:
        OptionError: where the file exists and `force` is not set, or its folder does not exist.
    """
    arrays: dict[str, AnyArray] = {}
    meta = {
        "schema_version": SCHEMA_VERSION,
        "origin": dict(origin),
        "input_shape": model.input_shape,
        "input_parts": [[part.name, part.shape] for part in model.input_parts],
        "output_shape": model.output_shape,
        "stripped_output": model.stripped_output,
        "blocks": [_block_meta(k, block, arrays) for k, block in enumerate(model.blocks)],
        "rows": [_row_meta(f"{k}", row, arrays) for k, row in enumerate(model.rows)],
        "output": _row_meta("y", model.output, arrays),
        "scaling": _scaling_meta(model.scaling, arrays),
    }
    if flat:
        a, b, c, d, arrays["b"], _ = model.matrices
        for name, matrix in (("A", a), ("B", b), ("C", c), ("D", d)):
            arrays |= {f"{name}_data": matrix.data, f"{name}_indices": matrix.indices, f"{name}_indptr": matrix.indptr}
            arrays[f"{name}_shape"] = np.asarray(matrix.shape)
    arrays["meta"] = np.asarray(json.dumps(meta))
    write_npz(path, arrays, force=force)


def _block_meta(k: int, block: StateBlock, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    exponent: int | None = None
    if isinstance(block.exponent, np.ndarray):
        arrays[f"exponent.{k}"] = block.exponent
    else:
        exponent = int(block.exponent)
    return {
        "name": block.name,
        "op": block.op,
        **_activation_meta(f"phi.{k}", block.activation, arrays),
        "shape": block.shape,
        "exponent": exponent,
    }


def _activation_meta(key: str, activation: Activation, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    if isinstance(activation, Mixed):
        parts = [
            {**_activation_meta(f"{key}.{j}", part, arrays), "size": size}
            for j, (part, size) in enumerate(zip(activation.parts, activation.sizes, strict=True))
        ]
        return {"activation": activation.name, "parameters": {}, "parts": parts}
    parameters: dict[str, Any] = {}
    for name, value in activation.parameters.items():
        if isinstance(value, np.ndarray):
            arrays[f"{key}.{name}"] = value
            parameters[name] = None
        else:
            parameters[name] = float(value)
    return {"activation": activation.name, "parameters": parameters}


def _row_meta(name: str, row: Affine, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    letters = ("C", "D", "d") if name == "y" else (f"A.{name}", f"B.{name}", f"b.{name}")
    arrays[letters[2]] = row.constant
    return {
        "states": {str(k): _map_meta(f"{letters[0]}.{k}", linear_map, arrays) for k, linear_map in row.states.items()},
        "input": None if row.input is None else _map_meta(letters[1], row.input, arrays),
        "constant_error": row.constant_error,
    }


def _map_meta(key: str, linear_map: LinearMap, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Note a map's arrays under `key.` and return the rest of it."""
    meta: dict[str, Any] = {"relative": linear_map.relative, "slack": None}
    if linear_map.slack is not None:
        meta["slack"] = _map_meta(f"{key}.slack", linear_map.slack, arrays)
    match linear_map:
        case Selection():
            arrays[f"{key}.index"] = linear_map.index
            if linear_map.weights is not None:
                arrays[f"{key}.weights"] = linear_map.weights
            meta |= {"kind": "selection", "n_in": linear_map.n_in, "weighted": linear_map.weights is not None}
        case Dense():
            arrays[f"{key}.matrix"] = linear_map.matrix
            meta |= {"kind": "dense"}
        case Sparse():
            matrix = linear_map.matrix
            arrays |= {f"{key}.data": matrix.data, f"{key}.indices": matrix.indices, f"{key}.indptr": matrix.indptr}
            meta |= {"kind": "sparse", "shape": matrix.shape}
        case Convolution():
            arrays[f"{key}.kernel"] = linear_map.kernel
            names = ("spatial_in", "strides", "pads", "dilations", "groups")
            meta |= {"kind": "convolution", **{name: getattr(linear_map, name) for name in names}}
        case TransposedConvolution():
            meta |= {"kind": "transposed", "of": _map_meta(key, linear_map.forward, arrays)}
        case Reindexed():
            parts = {"left": linear_map.left, "core": linear_map.core, "right": linear_map.right}
            meta |= {"kind": "reindexed", **{name: _map_meta(f"{key}.{name}", p, arrays) for name, p in parts.items()}}
        case _:
            raise TypeError(f"no stored form for {type(linear_map).__name__}")
    return meta


def _scaling_meta(scaling: Scaling | None, arrays: dict[str, AnyArray]) -> dict[str, Any] | None:
    if scaling is None:
        return None
    for k, exponents in scaling.exponents.items():
        arrays[f"exponents.{k}"] = exponents
    for k, weights in scaling.weights.items():
        arrays[f"weights.{k}"] = weights
    return {
        "kappa": scaling.kappa,
        "norm_before": scaling.norm_before,
        "norm_after": scaling.norm_after,
        "reason": scaling.reason,
        "scaled": bool(scaling.exponents),
        "weighted": sorted(scaling.weights),
    }


def load_model(path: Path) -> StoredModel:
    """Read a converted model back; every array's size, type and place is checked against `meta`.

    Raises:
        ModelFileError: where the file is no converted model, or contradicts itself.
    """
    try:
        reader = _Reader(path, read_npz(path))
        return reader.model()
    except IdlAuditError:
        raise
    except Exception as error:  # a damaged archive makes zipfile, zlib, json and numpy raise what they like
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(
            f"{path} is no converted model that this version can read ({why}); make it anew with idl-audit convert"
        ) from error


class _Reader:
    """One converted model, as its arrays and its `meta`."""

    def __init__(self, path: Path, arrays: dict[str, AnyArray]) -> None:
        self._path, self._arrays = path, arrays
        if "meta" not in arrays:
            hint = ""
            if "A" in arrays:
                hint = """; add meta='{"schema_version": "1.0", "activation": "relu"}' for a model of your own"""
            elif {"inputs", "images", "x", "X"}.intersection(arrays):
                hint = "; if these are samples, the model stands first and they behind it: MODEL -d DATA"
            raise ModelFileError(f"{path} is no implicit model: it has no array 'meta'{hint}")
        self._meta = json.loads(str(arrays["meta"][()]))
        version = self._meta.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ModelFileError(
                f"{path} has schema_version {version!r}, this version reads {SCHEMA_VERSION!r}; convert the model anew"
            )

    def model(self) -> StoredModel:
        meta = self._meta
        if "rows" not in meta:
            return self._plain()
        input_shape = tuple(int(n) for n in meta["input_shape"])
        blocks = tuple(self._block(k, entry) for k, entry in enumerate(meta["blocks"]))
        sizes = [block.size for block in blocks]
        p = math.prod(input_shape)
        rows = tuple(self._row(str(k), entry, sizes, p, sizes[k]) for k, entry in enumerate(meta["rows"]))
        output_shape = tuple(int(n) for n in meta["output_shape"])
        output = self._row("y", meta["output"], sizes, p, math.prod(output_shape))
        self._check(len(rows) == len(blocks), "it has as many rows as blocks")
        model = ImplicitModel(
            blocks,
            rows,
            output,
            input_shape,
            output_shape,
            self._scaling(sizes),
            str(meta["stripped_output"]),
            input_parts=self._parts(p),
        )
        forward = all(k >= i for i, row in enumerate(rows) for k in row.states)
        self._check(forward, "A is upper block triangular")
        loops = [sizes[k] for k, row in enumerate(rows) if k in row.states]
        steady = not any(model.blocks[k].jumps for k, row in enumerate(rows) if k in row.states)
        self._check(steady, "no loop holds states that jump")
        self._check(max(loops, default=0) <= MOST_STATES, f"loops have at most {MOST_STATES:,} states")
        return StoredModel(model, dict(meta["origin"]))

    def _parts(self, p: int) -> tuple[InputPart, ...]:
        """Return the parts of the input; files of before there were any have none."""
        parts = tuple(
            InputPart(str(name), tuple(int(size) for size in shape))
            for name, shape in self._meta.get("input_parts", ())
        )
        fits = all(min(part.shape, default=1) >= 1 for part in parts) and sum(part.size for part in parts) == p
        self._check(not parts or fits, f"the parts of its input have {p} numbers")
        self._check(len({part.name for part in parts}) == len(parts), "the parts of its input have different names")
        return parts

    def _plain(self) -> StoredModel:
        """Read a user's own A, B, C, D, b, d."""
        model = PlainReader(str(self._path), self._arrays, self._meta).model()
        parameters = sum(int(np.asarray(self._arrays[name]).size) for name in "ABCDbd" if name in self._arrays)
        origin = {"input_shape": model.input_shape, "n_outputs": model.n_outputs, "n_parameters": parameters}
        return StoredModel(model, origin)

    def _check(self, holds: bool, claim: str) -> None:
        if not holds:
            raise ModelFileError(f"{self._path} contradicts itself: not true that {claim}; make it anew with convert")

    def _floats(self, key: str, shape: tuple[int, ...] | None = None) -> FloatArray:
        self._check(self._arrays[key].dtype.kind in "fiu", f"'{key}' holds numbers")
        array = np.asarray(self._arrays[key], np.float64)
        self._check(bool(np.isfinite(array).all()), f"'{key}' holds finite numbers")
        self._check(shape is None or array.shape == shape, f"'{key}' has the shape {shape}")
        return array

    def _integers(self, key: str, below: int) -> IntArray:
        array = self._arrays[key]
        self._check(array.dtype.kind in "iu", f"'{key}' holds integers")
        values = array.astype(np.int64)
        self._check(bool(((values >= -1) & (values < below)).all()), f"'{key}' lies between -1 and {below - 1}")
        return values

    def _block(self, k: int, entry: Mapping[str, Any]) -> StateBlock:
        shape = tuple(int(n) for n in entry["shape"])
        size = math.prod(shape)
        self._check(min(shape, default=1) >= 0, f"block {k} has a shape")
        activation = self._activation(f"phi.{k}", entry, size)
        exponent: int | IntArray
        if entry["exponent"] is None:
            exponent = self._exponents(f"exponent.{k}", size)
        else:
            exponent = int(entry["exponent"])
            self._check(abs(exponent) <= 2**11, f"the exponent of block {k} is within range")
        if np.ndim(exponent) and activation.coupled:
            groups = group_of(activation, size)
            first = np.unique(groups, return_index=True)[1]
            same = bool((np.asarray(exponent)[first][groups] == exponent).all())
            self._check(same, f"coupled states of block {k} have one exponent")
        return StateBlock(str(entry["name"]), str(entry["op"]), activation, shape, exponent=exponent)

    def _exponents(self, key: str, size: int) -> IntArray:
        exponents = self._integers(key, 2**11)
        self._check(exponents.shape == (size,), f"'{key}' has one exponent a state")
        return exponents

    def _activation(self, key: str, entry: Mapping[str, Any], size: int) -> Activation:
        if "parts" in entry:
            sizes = tuple(int(part["size"]) for part in entry["parts"])
            self._check(min(sizes, default=0) >= 1 and sum(sizes) == size, f"the parts of '{key}' have {size} states")
            self._check(all("parts" not in part for part in entry["parts"]), f"the parts of '{key}' have no parts")
            steady = all(part["activation"] not in JUMPS for part in entry["parts"])
            self._check(steady, f"no part of '{key}' jumps")
            pairs = enumerate(zip(entry["parts"], sizes, strict=True))
            return Mixed(tuple(self._activation(f"{key}.{j}", part, n) for j, (part, n) in pairs), sizes)
        known = {**ACTIVATIONS, **JUMPS}
        self._check(entry["activation"] in known, f"'{entry['activation']}' is a known activation")
        parameters = {
            name: self._floats(f"{key}.{name}", (size,)) if value is None else float(value)
            for name, value in entry["parameters"].items()
        }
        for name, value in parameters.items():
            self._check(bool(np.isfinite(value).all()), f"the {name} of '{key}' is a number")
            single = isinstance(value, float) or entry["activation"] in _BY_STATE
            self._check(single, f"the {name} of '{key}' is one number for all states")
        if entry["activation"] not in _MAY_BE_NEGATIVE:
            self._check(all(np.all(value >= 0) for value in parameters.values()), f"'{key}' has no negative parameter")
            dividing = entry["activation"] in ("celu", "softmax")
            self._check(not dividing or all(value != 0 for value in parameters.values()), f"'{key}' divides by 0")
        numbers = [value for name, value in parameters.items() if name in SIZES]
        whole = all(isinstance(n, float) and n.is_integer() and 1 <= n <= 2**31 for n in numbers)
        self._check(whole, f"the sizes of '{key}' are whole numbers")
        if entry["activation"] == "step":
            share = np.asarray(parameters.get("share", 0.0))
            self._check(bool(((share == 0) | (share == 1)).all()), f"the share of '{key}' is 0 or 1")
        elif entry["activation"] in JUMPS:
            reach = np.asarray(parameters.get("reach", np.inf))
            self._check(bool((reach > 0).all()), f"the reach of '{key}' is positive")
            ends = [np.asarray(parameters.get(name, end)) for name, end in (("lowest", -np.inf), ("highest", np.inf))]
            self._check(bool((ends[0] <= ends[1]).all()), f"the ends of '{key}' are in order")
            whole = all(bool((np.rint(end) == end).all()) for end in ends)
            self._check(whole, f"the ends of '{key}' are whole numbers")
        activation: Activation = known[entry["activation"]](**parameters)
        if isinstance(activation, Coupled):
            self._check(activation.fits(size), f"the sizes of '{key}' suit its {size} states")
        return activation

    def _row(self, name: str, entry: Mapping[str, Any], sizes: list[int], p: int, size: int) -> Affine:
        letters = ("C", "D", "d") if name == "y" else (f"A.{name}", f"B.{name}", f"b.{name}")
        states = {}
        for text, meta in entry["states"].items():
            k = int(text)
            self._check(0 <= k < len(sizes), f"there is a block {k}")
            states[k] = self._map(f"{letters[0]}.{k}", meta, size, sizes[k])
        inputs = None if entry["input"] is None else self._map(letters[1], entry["input"], size, p)
        return Affine(states, inputs, self._floats(letters[2], (size,)), self._error(entry["constant_error"]))

    def _error(self, value: Any) -> float:
        error = float(value)
        self._check(math.isfinite(error) and error >= 0, "error bounds are finite and not negative")
        return error

    def _map(self, key: str, meta: Mapping[str, Any], n_out: int | None, n_in: int | None) -> LinearMap:
        kinds: dict[str, Callable[[str, Mapping[str, Any]], LinearMap]] = {
            "selection": self._selection,
            "dense": lambda key, _: Dense(matrix=self._floats(f"{key}.matrix")),
            "sparse": self._sparse,
            "convolution": self._convolution,
            "transposed": self._transposed,
            "reindexed": self._reindexed,
        }
        result = kinds[meta["kind"]](key, meta)
        slack = None if meta["slack"] is None else self._map(f"{key}.slack", meta["slack"], result.n_out, result.n_in)
        result = result.uncertain(self._error(meta["relative"]), slack)
        self._check(n_out is None or result.n_out == n_out, f"'{key}' has {n_out} rows")
        self._check(n_in is None or result.n_in == n_in, f"'{key}' has {n_in} columns")
        return result

    def _selection(self, key: str, meta: Mapping[str, Any]) -> Selection:
        n_in = int(meta["n_in"])
        index = self._integers(f"{key}.index", n_in)
        self._check(index.ndim == 1, f"'{key}.index' is a vector")
        weights = self._floats(f"{key}.weights", index.shape) if meta["weighted"] else None
        return Selection(index=index, size_in=n_in, weights=weights)

    def _sparse(self, key: str, meta: Mapping[str, Any]) -> Sparse:
        rows, columns = (int(n) for n in meta["shape"])
        data = self._floats(f"{key}.data")
        indices, indptr = self._integers(f"{key}.indices", columns), self._integers(f"{key}.indptr", data.size + 1)
        matrix = sp.csr_array((data, indices, indptr), shape=(rows, columns))
        matrix.check_format(full_check=True)
        matrix.sort_indices()
        return Sparse(matrix=matrix)

    def _convolution(self, key: str, meta: Mapping[str, Any]) -> Convolution:
        kernel = self._floats(f"{key}.kernel")
        spatial, strides, pads, dilations = (
            tuple(int(n) for n in meta[name]) for name in ("spatial_in", "strides", "pads", "dilations")
        )
        rank, groups = kernel.ndim - 2, int(meta["groups"])
        lengths = (len(spatial), len(strides), len(dilations), len(pads) // 2)
        self._check(1 <= rank <= 3 and lengths == (rank,) * 4, f"'{key}' is a convolution in 1, 2 or 3 dimensions")
        self._check(min(*spatial, *strides, *dilations, groups) >= 1 and min(pads) >= 0, f"'{key}' has sizes above 0")
        self._check(kernel.shape[0] % groups == 0, f"the groups of '{key}' divide its channels")
        return Convolution(
            kernel=kernel, spatial_in=spatial, strides=strides, pads=pads, dilations=dilations, groups=groups
        )

    def _transposed(self, key: str, meta: Mapping[str, Any]) -> TransposedConvolution:
        forward = self._map(key, meta["of"], None, None)
        if not isinstance(forward, Convolution):
            raise ValueError(f"'{key}' transposes a {type(forward).__name__}")
        return TransposedConvolution(forward=forward)

    def _reindexed(self, key: str, meta: Mapping[str, Any]) -> Reindexed:
        left, core, right = (self._map(f"{key}.{name}", meta[name], None, None) for name in ("left", "core", "right"))
        if not (isinstance(left, Selection) and isinstance(right, Selection)):
            raise ValueError(f"'{key}' is no selection of a selection")
        self._check(left.n_in == core.n_out and core.n_in == right.n_out, f"the parts of '{key}' fit")
        return Reindexed(left=left, core=core, right=right)

    def _scaling(self, sizes: list[int]) -> Scaling | None:
        meta = self._meta["scaling"]
        if meta is None:
            return None
        exponents: dict[int, IntArray] = {}
        for k in range(len(sizes)) if meta["scaled"] else ():
            exponents[k] = self._exponents(f"exponents.{k}", sizes[k])
        after = None if meta["norm_after"] is None else float(meta["norm_after"])
        weights = {int(k): self._floats(f"weights.{int(k)}", (sizes[int(k)],)) for k in meta.get("weighted", ())}
        return Scaling(float(meta["kappa"]), float(meta["norm_before"]), after, exponents, str(meta["reason"]), weights)
