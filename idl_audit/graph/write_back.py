"""Trained weights back into their own file: the same graph, names, operators and types; only initializers differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from onnx import ModelProto, TensorProto

from idl_audit.graph.external_data import ExternalData
from idl_audit.graph.ir import shown
from idl_audit.graph.onnx_reader import read_model
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import ModelFileError, OptionError
from idl_audit.values.files import write_whole

WRITTEN: Final[Mapping[int, str]] = MappingProxyType(
    {int(TensorProto.FLOAT): "<f4", int(TensorProto.DOUBLE): "<f8", int(TensorProto.FLOAT16): "<f2"}
)
"""Element type of an initializer that can be written -> its bytes."""
ALIGNED: Final = 64
"""Bytes at whose multiples weights begin in the file beside the model."""
_FIELDS: Final = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def initializers(path: Path) -> frozenset[str]:
    """Return the names of the initializers of an ONNX file that can be written back: float32, float64 and float16.

    Raises:
        ModelFileError: where the file cannot be read.
    """
    return frozenset(one.name for one in read_model(path)[0].graph.initializer if one.data_type in WRITTEN)


@dataclass(frozen=True)
class Written:
    """What was written."""

    model: Path
    data: Path | None
    """The file beside it, where the original has its weights in one."""


def write_back(path: Path, out: Path, arrays: Mapping[str, AnyArray]) -> Written:
    """Write a copy of an ONNX file with other numbers in some of its initializers.

    Weights that lie beside the original lie beside the copy, in OUT.data; numbers are rounded to the initializer's own
    type.

    Args:
        path: the original.
        out: the copy; an existing file is replaced.
        arrays: name of the initializer -> its numbers, of the same shape.

    Raises:
        ModelFileError: where the original cannot be read, or its weights have other shapes than they had.
        OptionError: where a file cannot be written, or a number does not fit its type.
    """
    model, _ = read_model(path)
    beside = Path(f"{out}.data")
    external, blob = ExternalData(path), bytearray()
    for tensor in model.graph.initializer:
        new = arrays.get(tensor.name)
        if tensor.data_location == TensorProto.EXTERNAL:
            content = _external(tensor, external) if new is None else _bytes(tensor, new, path)
            blob.extend(b"\0" * (-len(blob) % ALIGNED))
            _point_at(tensor, beside.name, len(blob), len(content))
            blob.extend(content)
        elif new is not None:
            _fill(tensor, _bytes(tensor, new, path))
    written = _written_names(model)
    missing = sorted(set(arrays) - written)
    if missing:
        raise ModelFileError(f"{path}: it has no initializer {shown(missing[0])!r} any more; start again")
    if blob:
        write_whole(beside, lambda file: file.write(bytes(blob)))
    write_whole(out, lambda file: file.write(model.SerializeToString()))
    return Written(out, beside if blob else None)


def _written_names(model: ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def _bytes(tensor: TensorProto, array: AnyArray, path: Path) -> bytes:
    if tuple(tensor.dims) != array.shape or tensor.data_type not in WRITTEN:
        raise ModelFileError(f"{path}: the initializer {shown(tensor.name)!r} was changed meanwhile; start again")
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array, WRITTEN[tensor.data_type])
    if not np.isfinite(cast).all():
        raise OptionError(f"a trained number of {shown(tensor.name)!r} does not fit its type {cast.dtype.name}")
    return cast.tobytes()


def _fill(tensor: TensorProto, content: bytes) -> None:
    for field in _FIELDS:
        tensor.ClearField(field)
    tensor.raw_data = content


def _external(tensor: TensorProto, external: ExternalData) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    width = np.dtype(WRITTEN[tensor.data_type]).itemsize if tensor.data_type in WRITTEN else None
    if width is None:
        length = entries.get("length", "")
        if not length.isdigit():
            raise ModelFileError(f"the tensor {shown(tensor.name)!r} beside the model does not say how long it is")
        size = int(length)
    else:
        size = int(np.prod(tensor.dims, dtype=np.int64)) * width
    return external.read(entries, size, tensor.name).tobytes()


def _point_at(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    _fill(tensor, b"")
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    tensor.data_location = TensorProto.EXTERNAL
