"""Any model file in, a Graph out: what a file is, its contents say, not its name."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from idl_audit.graph.files import open_model
from idl_audit.graph.ir import Graph
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import ModelFileError

READERS: Final[Mapping[str, Callable[..., Graph]]] = MappingProxyType({"onnx": read_onnx})
"""Kind of file -> its reader, with the keyword arguments of `read_onnx`."""

_EXPORT: Final = 'export it with torch.onnx.export(model, example_input, "model.onnx")'
_WEIGHTS: Final = f"which holds weights without the network; load them into the model and {_EXPORT}"
_TENSORFLOW: Final = "convert it with tf2onnx (python -m tf2onnx.convert)"

ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "empty": "an empty file; fetch or export the model again",
        "folder": "a folder; name the model file inside it",
        "npz": "a NumPy archive, which holds arrays and no graph; give it as a converted model or export an ONNX file",
        "npy": f"a NumPy array, {_WEIGHTS}",
        "torch-zip": f"a PyTorch archive (torch.save), {_WEIGHTS}",
        "torchscript": f"a TorchScript archive, which is code; load the model and {_EXPORT}",
        "torch-export": f"a torch.export archive (.pt2), which is code; load the program and {_EXPORT}",
        "pickle": f"a Python pickle (an old torch.save, perhaps), which is code; load the model and {_EXPORT}",
        "safetensors": f"a safetensors file, {_WEIGHTS}",
        "gguf": "a GGUF file, which holds quantised weights of a language model; export the network as ONNX",
        "hdf5": f"an HDF5 file (Keras, perhaps); {_TENSORFLOW}",
        "keras": f"a Keras archive; {_TENSORFLOW}",
        "tensorflow": f"a TensorFlow model; {_TENSORFLOW}",
        "tflite": f"a TensorFlow Lite model; {_TENSORFLOW}",
        "zip": "a zip archive; unpack it and give the ONNX file inside",
        "gzip": "a gzip file; unpack it (gunzip) and give the ONNX file inside",
        "text": "a text file (a download page or a Git LFS pointer, perhaps); fetch the model itself as ONNX",
        "unknown": f"of a kind that is not known here; give an ONNX file: if it is a PyTorch model, {_EXPORT}",
    }
)

_MAGIC: Final[Mapping[bytes, str]] = MappingProxyType(
    {
        b"\x89HDF\r\n\x1a\n": "hdf5",
        b"\x93NUMPY": "npy",
        b"GGUF": "gguf",
        b"\x1f\x8b": "gzip",
    }
)


def read_graph(path: Path, **how: Any) -> Graph:
    """Return the graph in a model file of any kind that READERS names; `how` is as in `read_onnx`.

    Raises ModelFileError with what the file seems to be and what would work, and whatever the reader raises.
    """
    path = Path(path)
    kind = sniff(path)
    if kind not in READERS:
        owner = path.with_suffix("")
        if kind == "unknown" and path.suffix == ".data" and owner.is_file():
            raise ModelFileError(f"{path} has weights of {owner}; give that file")
        raise ModelFileError(f"{path}: this is {ADVICE[kind]}")
    return READERS[kind](path, **how)


def sniff(path: Path) -> str:
    """Return the kind of a file by its contents: a key of READERS or of ADVICE; nothing in the file is run.

    Raises ModelFileError where the file is missing or may not be read.
    """
    path = Path(path)
    if os.path.isdir(path):  # a name that no file can have is none either
        return "tensorflow" if (path / "saved_model.pb").is_file() else "folder"
    with open_model(path) as file:
        head = file.read(512)
        size = file.seek(0, 2)
        file.seek(0)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _kind_of_zip(file)
        kind = _kind_by_head(head, size) or ("text" if _is_text(head) else None)
        return kind or _kind_of_protobuf(file, size) or "unknown"


def _kind_by_head(head: bytes, size: int) -> str | None:
    if not head:
        return "empty"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[4:8] == b"TFL3":
        return "tflite"
    # Pickles of protocol 2 and newer start with the PROTO opcode and end with STOP; older ones look like text.
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8:
        return "safetensors"
    return None


def _kind_of_zip(file: BufferedReader) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError, OSError):
        return "zip"
    last = {name.rsplit("/", 1)[-1] for name in names}
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if "constants.pkl" in last:
        return "torchscript"
    if "data.pkl" in last:
        return "torch-zip"
    if "archive_format" in last or "serialized_exported_program.json" in last:
        return "torch-export"
    return "keras" if "model.weights.h5" in last else "zip"


# The top level of onnx.ModelProto: field number -> wire type (0: a number, 2: a length and as many bytes).
_MODEL_PROTO: Final[Mapping[int, int]] = MappingProxyType(
    {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
)
_GRAPH: Final = (7, 2)
_MAX_FIELDS: Final = 10_000  # a file of somebody else's may have millions


def _kind_of_protobuf(file: BufferedReader, size: int) -> str | None:
    """Tell ONNX and TensorFlow by the top level of the message; a truncated ONNX file is 'onnx', its reader says so."""
    fields = list(islice(_fields(file, size), _MAX_FIELDS))
    kinds = [(number, wire) for number, wire, _ in fields]
    known = bool(fields) and all(_MODEL_PROTO.get(number) == wire for number, wire in kinds)
    if known and _GRAPH in kinds:
        return "onnx"
    # A SavedModel starts like an ONNX file, but a producer's name is no graph of many kilobytes.
    if kinds[:2] == [(1, 0), (2, 2)] and fields[1][2] > 1000:
        return "tensorflow"
    if known and kinds[0] == (1, 0):
        return "onnx"
    frozen_graph = bool(fields) and set(kinds) <= {(1, 2), (2, 2), (4, 2)} and file.tell() == size
    return "tensorflow" if frozen_graph else None


def _fields(file: BufferedReader, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, wire type, number or length) of a protobuf message's top level, until it makes no sense."""
    while file.tell() < size:
        tag, value = _varint(file), _varint(file)
        if tag is None or value is None or tag & 7 not in (0, 2):
            return
        yield tag >> 3, tag & 7, value
        if tag & 7 == 2:
            file.seek(min(file.tell() + value, size + 1))


def _varint(file: BufferedReader) -> int | None:
    """Return protobuf's variable-length number at the file's position, None where there is none."""
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _is_text(head: bytes) -> bool:
    # Latin-1 never fails; what no text of any encoding has are the control characters of binary files.
    return not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)
