"""ONNX's tensors as numpy arrays: the sizes are checked before anything is allocated, the values before they count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from idl_audit.arrays import AnyArray
from idl_audit.errors import ModelFileError, UnsupportedModelError
from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.ir import shown

_MAX_RANK: Final = 64  # numpy's own limit


@dataclass(frozen=True)
class ElementType:
    """How ONNX stores one element type: its name, its little-endian form in bytes, the typed field that may hold it."""

    name: str
    stored: str
    field: str


ELEMENT_TYPES: Final[Mapping[int, ElementType]] = MappingProxyType(
    {
        TensorProto.FLOAT: ElementType("float32", "<f4", "float_data"),
        TensorProto.DOUBLE: ElementType("float64", "<f8", "double_data"),
        TensorProto.FLOAT16: ElementType("float16", "<f2", "int32_data"),
        TensorProto.BFLOAT16: ElementType("bfloat16", "<u2", "int32_data"),
        TensorProto.BOOL: ElementType("bool", "|u1", "int32_data"),
        TensorProto.INT8: ElementType("int8", "|i1", "int32_data"),
        TensorProto.INT16: ElementType("int16", "<i2", "int32_data"),
        TensorProto.INT32: ElementType("int32", "<i4", "int32_data"),
        TensorProto.INT64: ElementType("int64", "<i8", "int64_data"),
        TensorProto.UINT8: ElementType("uint8", "|u1", "int32_data"),
        TensorProto.UINT16: ElementType("uint16", "<u2", "int32_data"),
        TensorProto.UINT32: ElementType("uint32", "<u4", "uint64_data"),
        TensorProto.UINT64: ElementType("uint64", "<u8", "uint64_data"),
    }
)


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
    """Return the tensor's values, shape `tensor.dims`, read-only; float16 and bfloat16 become float32.

    With `outline`, large floating-point tensors are checked but not read: they come back as one repeated number.

    `name` is what messages call it, `path` the model file. Raises ModelFileError where sizes do not fit together, and
    UnsupportedModelError for element types without an array form here, for NaN and for infinities.
    """
    kind = ELEMENT_TYPES.get(tensor.data_type)
    if kind is None:
        raise UnsupportedModelError(
            [
                f"tensor {shown(name)} holds {element_type_name(tensor.data_type)}, and only float16 to float64, "
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
    array = _native(stored, kind, name, path).reshape(shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnsupportedModelError([f"tensor {shown(name)} contains NaN or infinity; train or export the model again"])
    array.setflags(write=False)
    return array


def _shape(tensor: TensorProto, name: str, path: object) -> tuple[int, ...]:
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
    n_bytes = count * dtype.itemsize
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
    if found != count:
        raise ModelFileError(_wrong_size(path, name, tensor, f"{count} elements", found))
    return _from_field(tensor, kind, dtype, name, path)


def _placeholder(
    tensor: TensorProto, kind: ElementType, shape: tuple[int, ...], name: str, external: ExternalData, path: object
) -> AnyArray | None:
    """Return an array of the tensor's shape that takes no memory, where its bytes lie in one piece."""
    if kind.name not in ("float16", "bfloat16", "float32", "float64"):
        return None
    n_bytes = math.prod(shape) * np.dtype(kind.stored).itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        external.check(_external_entries(tensor, name, path), n_bytes, name)
    elif not tensor.HasField("raw_data"):
        return None
    elif len(tensor.raw_data) != n_bytes:
        raise ModelFileError(_wrong_size(path, name, tensor, f"{n_bytes} bytes", len(tensor.raw_data)))
    return np.broadcast_to(np.float32(0.5), shape)


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
    """Return a typed field as an array; 16-bit floats lie in int32_data as their bit patterns."""
    values = getattr(tensor, kind.field)
    if kind.field in ("float_data", "double_data"):
        return np.array(values, dtype=dtype)
    narrow = np.dtype("<u2") if kind.name in ("float16", "bfloat16") else np.dtype(dtype)
    wide = np.array(values, dtype=np.uint64 if kind.field == "uint64_data" else np.int64)
    array = wide.astype(narrow)
    if not np.array_equal(array.astype(wide.dtype), wide):
        raise ModelFileError(
            f"{path}: tensor {shown(name)} has values out of the range of {kind.name}; export it again"
        )
    return array.view(dtype)


def _native(stored: AnyArray, kind: ElementType, name: str, path: object) -> AnyArray:
    """Return the stored elements in the machine's byte order, as a type that numpy computes with."""
    if kind.name == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if kind.name == "float16":
        return stored.astype(np.float32)
    if kind.name == "bool":
        if stored.size and stored.max() > 1:
            raise ModelFileError(f"{path}: tensor {shown(name)} has bool values other than 0 and 1; export it again")
        return stored.astype(np.bool_)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)
