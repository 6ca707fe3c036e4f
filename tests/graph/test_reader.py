"""What a file is, its contents say; what is no network gets advice."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from idl_audit.graph.reader import ADVICE, READERS, read_graph, sniff
from idl_audit.values.errors import ModelFileError
from tests.shared import graph_models as make


def zipped(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


def safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def protobuf_field(number: int, data: bytes) -> bytes:
    size, length = len(data), b""
    while size >= 0x80:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


NODE = protobuf_field(1, protobuf_field(1, b"x") + protobuf_field(2, b"Placeholder"))

FILES = {
    "onnx": lambda path: path.write_bytes(make.model().SerializeToString()),
    "empty": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "npz": lambda path: path.write_bytes(b"") or np.savez(path.open("wb"), a=np.ones(2), b=np.ones(3)),
    "npy": lambda path: np.save(path.open("wb"), np.ones(2)),
    "torch-zip": lambda path: zipped(path, "archive/data.pkl", "archive/data/0", "archive/version"),
    "torchscript": lambda path: zipped(path, "net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"),
    "torch-export": lambda path: zipped(path, "net/archive_format", "net/models/model.json"),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"w": 1})),
    "safetensors": safetensors,
    "gguf": lambda path: path.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(16)),
    "hdf5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "keras": lambda path: zipped(path, "metadata.json", "config.json", "model.weights.h5"),
    "tensorflow": lambda path: path.write_bytes(NODE * 3),
    "tflite": lambda path: path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100)),
    "zip": lambda path: zipped(path, "model.onnx"),
    "gzip": lambda path: path.write_bytes(gzip.compress(make.model().SerializeToString())),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"),
    "unknown": lambda path: path.write_bytes(b"\x00\xff\x07" * 40),
}


def test_every_kind_has_an_example() -> None:
    assert set(FILES) == set(READERS) | set(ADVICE)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["model.onnx", "model.npz"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_contents_decide_not_the_name(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    FILES[kind](path)
    assert sniff(path) == kind


@pytest.mark.parametrize("kind", ADVICE)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_network_gets_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    FILES[kind](path)
    with pytest.raises(ModelFileError) as caught:
        read_graph(path)
    assert str(caught.value) == f"{path}: this is {ADVICE[kind]}"
    assert str(caught.value).isprintable()


def test_a_saved_model_is_told_from_onnx(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01" + protobuf_field(2, bytes(5000)))
    assert sniff(tmp_path / "saved_model.pb") == "tensorflow"
    assert sniff(tmp_path) == "tensorflow"


@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
def test_a_truncated_onnx_file_goes_to_the_reader(tmp_path: Path, part: float) -> None:
    data = make.model().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * part)])
    assert sniff(path) == "onnx"
    with pytest.raises(ModelFileError, match="again"):
        read_graph(path)


def test_a_damaged_zip_is_a_zip(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"PK\x03\x04" + bytes(100))
    assert sniff(tmp_path / "cut") == "zip"


def test_a_missing_file(tmp_path: Path) -> None:
    for ask in (sniff, read_graph):
        with pytest.raises(ModelFileError, match="no such file"):
            ask(tmp_path / "none")


def test_any_bytes_have_a_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "any"
    for _ in range(300):
        path.write_bytes(b"\x08" * rng.integers(2) + rng.bytes(int(rng.integers(0, 60))))
        assert sniff(path) in set(READERS) | set(ADVICE)


@pytest.mark.parametrize("head", [b"\x3a" + b"\xff" * 9 + b"\x01", b"\x0a" + b"\xff" * 8 + b"\x7f"])
def test_endless_lengths_do_no_harm(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "any").write_bytes(head)
    assert sniff(tmp_path / "any") in set(READERS) | set(ADVICE)


@pytest.mark.slow
def test_what_torch_saves_is_told(tmp_path: Path) -> None:
    import torch

    net = torch.nn.Linear(2, 2)
    torch.save(net.state_dict(), tmp_path / "new.pt")
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.export.save(torch.export.export(net, (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    assert [sniff(tmp_path / name) for name in ("new.pt", "old.pt", "program.pt2")] == [
        "torch-zip",
        "pickle",
        "torch-export",
    ]


DATA = os.environ.get("IDL_AUDIT_DATA")


@pytest.mark.skipif(DATA is None, reason="IDL_AUDIT_DATA is not set")
def test_public_files_are_told() -> None:
    root = Path(DATA or "")
    assert {sniff(path) for path in root.rglob("*.onnx")} == {"onnx"}
    assert {sniff(path) for path in root.glob("*.npz")} == {"npz"}
    assert {sniff(path) for path in (root / "models").iterdir()} <= {"torch-zip", "pickle"}
