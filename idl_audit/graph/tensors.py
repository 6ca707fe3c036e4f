"""ONNX's tensors as numpy arrays: the sizes are checked before anything is allocated, the values before they count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import SparseTensorProto, TensorProto

from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.ir import shown
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import ModelFileError, UnsupportedModelError

_MAX_RANK: Final = 64  # numpy's own limit


LARGEST_TENSOR: Final = 2**30
"""Bytes that one tensor may have which the file does not hold itself: a folded constant, an intermediate result."""


@dataclass(frozen=True)
class ElementType:
    """How ONNX stores one element type: its name, its little-endian form in bytes, the typed field that may hold it."""

    name: str
    stored: str
    field: str
    native: npt.DTypeLike
    """The type that holds the same values in memory."""
    bits: int = 0
    """Bits of an element where several share a byte, the first in the lowest bits; 0 elsewhere."""

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return np.dtype(self.native).itemsize

    def stored_items(self, count: int) -> int:
        """Return how many items of `stored` hold so many elements."""
        return -(-count * self.bits // 8) if self.bits else count


def _eight_bits(name: str, native: npt.DTypeLike, bits: int = 0) -> ElementType:
    return ElementType(name, "|u1", "int32_data", native, bits)


ELEMENT_TYPES: Final[Mapping[int, ElementType]] = MappingProxyType(
    {
        TensorProto.FLOAT: ElementType("float32", "<f4", "float_data", np.float32),
        TensorProto.DOUBLE: ElementType("float64", "<f8", "double_data", np.float64),
        TensorProto.FLOAT16: ElementType("float16", "<u2", "int32_data", np.float16),
        TensorProto.BFLOAT16: ElementType("bfloat16", "<u2", "int32_data", ml_dtypes.bfloat16),
        TensorProto.BOOL: ElementType("bool", "|u1", "int32_data", np.bool_),
        TensorProto.INT8: ElementType("int8", "|i1", "int32_data", np.int8),
        TensorProto.INT16: ElementType("int16", "<i2", "int32_data", np.int16),
        TensorProto.INT32: ElementType("int32", "<i4", "int32_data", np.int32),
        TensorProto.INT64: ElementType("int64", "<i8", "int64_data", np.int64),
        TensorProto.UINT8: ElementType("uint8", "|u1", "int32_data", np.uint8),
        TensorProto.UINT16: ElementType("uint16", "<u2", "int32_data", np.uint16),
        TensorProto.UINT32: ElementType("uint32", "<u4", "uint64_data", np.uint32),
        TensorProto.UINT64: ElementType("uint64", "<u8", "uint64_data", np.uint64),
        TensorProto.FLOAT8E4M3FN: _eight_bits("float8e4m3fn", ml_dtypes.float8_e4m3fn),
        TensorProto.FLOAT8E4M3FNUZ: _eight_bits("float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
        TensorProto.FLOAT8E5M2: _eight_bits("float8e5m2", ml_dtypes.float8_e5m2),
        TensorProto.FLOAT8E5M2FNUZ: _eight_bits("float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
        TensorProto.FLOAT8E8M0: _eight_bits("float8e8m0", ml_dtypes.float8_e8m0fnu),
        TensorProto.FLOAT4E2M1: _eight_bits("float4e2m1", ml_dtypes.float4_e2m1fn, 4),
        TensorProto.INT4: _eight_bits("int4", ml_dtypes.int4, 4),
        TensorProto.UINT4: _eight_bits("uint4", ml_dtypes.uint4, 4),
        TensorProto.INT2: _eight_bits("int2", ml_dtypes.int2, 2),
        TensorProto.UINT2: _eight_bits("uint2", ml_dtypes.uint2, 2),
    }
)

_PLAIN: Final = frozenset(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)) | {
    np.dtype(np.bool_),
    np.dtype(np.float32),
    np.dtype(np.float64),
}
"""The types that networks compute with here."""

NARROW: Final = frozenset(kind.name for kind in ELEMENT_TYPES.values() if kind.bits or kind.name.startswith("float8"))
"""Element types of which other types hold every number, but which round and clip in a way of their own."""

_WHOLE: Final = frozenset(map(np.dtype, (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2)))


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether numbers of this type are computed with as they are, and not widened first."""
    return dtype in _PLAIN


def widened(array: AnyArray) -> AnyArray:
    """Return the same numbers, read-only, as a type that networks compute with here.

    float16, bfloat16 and narrower floats become float32; integers of 2 and 4 bits become int8 or uint8.
    """
    if is_plain(array.dtype):
        return array
    target: np.dtype[Any] = np.dtype(np.float32)
    if array.dtype in _WHOLE:
        target = np.dtype(np.uint8 if array.dtype.name.startswith("u") else np.int8)
    small = array.size > 1 and not any(array.strides)
    wide = np.broadcast_to(array[(0,) * array.ndim].astype(target), array.shape) if small else array.astype(target)
    wide.setflags(write=False)
    return wide


def element_type_name(number: int) -> str:
    """Return ONNX's name for an element type, or its number where onnx itself does not know it."""
    if number in ELEMENT_TYPES:
        return ELEMENT_TYPES[number].name
    return TensorProto.DataType.Name(number).lower() if number in TensorProto.DataType.values() else f"type {number}"


OUTLINED: Final = 4096
"""An outline replaces weights with more elements than this; smaller tensors may be scales, sizes, shapes."""


def tensor_array(
    tensor: TensorProto, name: str, external: ExternalData, path: object, *, outline: bool = False
) -> AnyArray:
    """Return the tensor's values, shape `tensor.dims`, read-only, in the file's own element type.

    With `outline`, large floating-point tensors are checked but not read: they come back as one repeated number.

    `name` is what messages call it, `path` the model file. Text comes back as Python's. Raises ModelFileError where
    sizes do not fit together, and UnsupportedModelError for element types without an array form here.
    """
    if tensor.data_type == TensorProto.STRING:
        return _text_array(tensor, name, path)
    kind = ELEMENT_TYPES.get(tensor.data_type)
    if kind is None:
        raise UnsupportedModelError(
            [
                f"tensor {shown(name)} holds {element_type_name(tensor.data_type)}, and only floats of 4 to 64 bits, "
                "integers and bool are read; export the model in float32"
            ]
        )
    shape = _shape(tensor, name, path)
    if tensor.HasField("segment"):
        raise ModelFileError(f"{path}: tensor {shown(name)} is one segment of several; save it as one tensor")
    if outline and math.prod(shape) > OUTLINED:
        placeholder = _placeholder(tensor, kind, shape, name, external, path)
        if placeholder is not None:
            return placeholder
    stored = _stored(tensor, kind, math.prod(shape), name, external, path)
    array = _native(stored, kind, math.prod(shape), name, path).reshape(shape)
    array.setflags(write=False)
    return array


def dense_array(sparse: SparseTensorProto, name: str, external: ExternalData, path: object) -> AnyArray:
    """Return a sparse tensor's values with all its zeros, shape `sparse.dims`, read-only.

    Raises ModelFileError where indices and values do not fit together, and UnsupportedModelError where the zeros would
    need more than LARGEST_TENSOR bytes.
    """
    shape = _shape(sparse, name, path)
    values = tensor_array(sparse.values, name, external, path)
    indices = tensor_array(sparse.indices, name, external, path)
    size = math.prod(shape)
    if size * max(1, values.dtype.itemsize) > LARGEST_TENSOR:
        raise UnsupportedModelError(
            [f"tensor {shown(name)} of shape {shown(str(list(shape)))} is too large with its zeros; export less"]
        )
    damaged = ModelFileError(
        f"{path}: the indices of the sparse tensor {shown(name)} do not fit its values and its shape; export it again"
    )
    if (
        values.ndim != 1
        or indices.dtype != np.int64
        or indices.shape not in ((values.size,), (values.size, len(shape)))
    ):
        raise damaged
    limits = np.array(shape if indices.ndim == 2 else (size,), np.int64)
    rows = indices.reshape(values.size, len(limits))
    if not ((rows >= 0) & (rows < limits)).all():
        raise damaged
    flat = np.ravel_multi_index(tuple(rows.T), tuple(limits)) if values.size else np.zeros(0, np.int64)
    if len(np.unique(flat)) != values.size:
        raise damaged
    array = np.zeros(size, values.dtype)
    array[flat] = values
    array = array.reshape(shape)
    array.setflags(write=False)
    return array


def _text_array(tensor: TensorProto, name: str, path: object) -> AnyArray:
    """Return text as an array of objects: no network computes with it, but a file may carry some."""
    shape = _shape(tensor, name, path)
    if len(tensor.string_data) != math.prod(shape) or tensor.data_location == TensorProto.EXTERNAL:
        raise ModelFileError(_wrong_size(path, name, tensor, f"{math.prod(shape)} texts", len(tensor.string_data)))
    array = np.array([text.decode("utf-8", errors="backslashreplace") for text in tensor.string_data], object)
    array = array.reshape(shape)
    array.setflags(write=False)
    return array


def _shape(tensor: TensorProto | SparseTensorProto, name: str, path: object) -> tuple[int, ...]:
    shape = tuple(int(size) for size in tensor.dims)
    if len(shape) > _MAX_RANK or any(size < 0 for size in shape):
        raise ModelFileError(
            f"{path}: tensor {shown(name)} has the impossible shape {shown(str(list(shape)))}; export the model again"
        )
    return shape


def _stored(
    tensor: TensorProto, kind: ElementType, count: int, name: str, external: ExternalData, path: object
) -> AnyArray:
    """Return the elements as they are stored, shape (count,), from the one place among three where they are."""
    dtype = np.dtype(kind.stored)
    items = kind.stored_items(count)
    n_bytes = items * dtype.itemsize
    filled = [field for field in {entry.field for entry in ELEMENT_TYPES.values()} if len(getattr(tensor, field))]
    outside = tensor.data_location == TensorProto.EXTERNAL
    if outside + tensor.HasField("raw_data") + len(filled) > 1:
        raise ModelFileError(f"{path}: tensor {shown(name)} has its values in two places; export the model again")
    if outside:
        return external.read(_external_entries(tensor, name, path), n_bytes, name).view(dtype)
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data  # once: every access makes a copy
        found = len(raw)
        if found != n_bytes:
            raise ModelFileError(_wrong_size(path, name, tensor, f"{n_bytes} bytes", found))
        return np.frombuffer(raw, dtype=dtype)
    found = len(getattr(tensor, kind.field))
    if found != items:
        raise ModelFileError(_wrong_size(path, name, tensor, f"{items} elements", found))
    return _from_field(tensor, kind, dtype, name, path)


def _placeholder(
    tensor: TensorProto, kind: ElementType, shape: tuple[int, ...], name: str, external: ExternalData, path: object
) -> AnyArray | None:
    """Return an array of the tensor's shape that takes no memory, where its bytes lie in one piece."""
    if kind.name not in ("float16", "bfloat16", "float32", "float64"):
        return None
    n_bytes = math.prod(shape) * kind.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        external.check(_external_entries(tensor, name, path), n_bytes, name)
    elif not tensor.HasField("raw_data"):
        return None
    elif len(tensor.raw_data) != n_bytes:
        raise ModelFileError(_wrong_size(path, name, tensor, f"{n_bytes} bytes", len(tensor.raw_data)))
    return np.broadcast_to(np.array(0.5, kind.native), shape)


def _wrong_size(path: object, name: str, tensor: TensorProto, needed: str, found: int) -> str:
    return (
        f"{path}: tensor {shown(name)} of shape {shown(str(list(tensor.dims)))} needs {needed} and has {found}; "
        "the file is damaged, export or fetch it again"
    )


def _external_entries(tensor: TensorProto, name: str, path: object) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data):
        # Two readers could each believe another one.
        raise ModelFileError(f"{path}: tensor {shown(name)} states where its data lies twice; save the model again")
    return entries


def _from_field(tensor: TensorProto, kind: ElementType, dtype: npt.DTypeLike, name: str, path: object) -> AnyArray:
    """Return a typed field as stored items; narrow floats lie in int32_data as their bit patterns."""
    values = getattr(tensor, kind.field)
    if kind.field in ("float_data", "double_data"):
        return np.array(values, dtype=dtype)
    wide = np.array(values, dtype=np.uint64 if kind.field == "uint64_data" else np.int64)
    array = wide.astype(np.dtype(dtype))
    if not np.array_equal(array.astype(wide.dtype), wide):
        raise ModelFileError(
            f"{path}: tensor {shown(name)} has values out of the range of {kind.name}; export it again"
        )
    return array


def _native(stored: AnyArray, kind: ElementType, count: int, name: str, path: object) -> AnyArray:
    """Return the stored items as `count` elements in the machine's byte order."""
    native = np.dtype(kind.native)
    if kind.bits:
        shifts = np.arange(0, 8, kind.bits, dtype=np.uint8)
        codes = ((stored[:, None] >> shifts) & (2**kind.bits - 1)).reshape(-1)[:count]
        return _from_codes(codes, kind)
    if kind.name == "bool":
        if stored.size and stored.max() > 1:
            raise ModelFileError(f"{path}: tensor {shown(name)} has bool values other than 0 and 1; export it again")
        return stored.astype(np.bool_)
    own = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return own if own.dtype == native else own.view(native)


def _from_codes(codes: AnyArray, kind: ElementType) -> AnyArray:
    """Return elements of less than a byte from their bit patterns, which ml_dtypes keeps in the low bits of a byte."""
    if kind.name.startswith("int"):
        signed = codes.astype(np.int16)
        return np.where(signed >= 2 ** (kind.bits - 1), signed - 2**kind.bits, signed).astype(kind.native)
    return codes.astype(kind.native) if kind.name.startswith("uint") else codes.view(kind.native)
