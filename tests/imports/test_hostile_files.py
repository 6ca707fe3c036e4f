"""A corpus of tiny hostile files: each ends with exit code 2 and one sentence, quickly, and runs nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from idl_audit.cli.app import app

FLOAT = TensorProto.FLOAT
MARKER = "marker-that-must-not-appear"


def model(nodes, tensors, *, functions=(), imports=()) -> bytes:
    """Return x (1, 4) -> y (1, 3) as bytes."""
    ends = [helper.make_tensor_value_info("x", FLOAT, [1, 4]), helper.make_tensor_value_info("y", FLOAT, [1, 3])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in imports)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9).SerializeToString()


def gemm(weights: TensorProto, name: str = "layer") -> bytes:
    return model([helper.make_node("MatMul", ["x", "w"], ["y"], name=name)], [weights])


def plain() -> TensorProto:
    return numpy_helper.from_array(np.ones((4, 3), np.float32), "w")


def claiming(dims, raw: bytes = b"") -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, raw_data=raw)
    tensor.dims.extend(dims)
    return tensor


def outside(location: str, **entries: int) -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend([4, 3])
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def subgraph(op: str) -> bytes:
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [])
    attributes = {"If": {"then_branch": body, "else_branch": body}, "Loop": {"body": body}}[op]
    return model([helper.make_node(op, ["x"], ["y"], name="branch", **attributes)], [])


def recursive() -> bytes:
    nodes = [helper.make_node("F", ["a"], ["b"], domain="f")]
    function = helper.make_function("f", "F", ["a"], ["b"], nodes, [helper.make_opsetid("f", 1)])
    return model(
        [helper.make_node("F", ["x"], ["y"], name="call", domain="f")], [], functions=[function], imports=["f"]
    )


def four_tebibytes() -> bytes:
    shape = numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "s")
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"], name="big"),
        helper.make_node("ReduceSum", ["c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    return model(nodes, [shape])


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.npy", b"\0" * (2**28 + 1))
    return buffer.getvalue()


def pickled_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return open, (MARKER, "w")


def pickled_module() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": Runs()}, buffer)
    return buffer.getvalue()


def linked(kind: Callable[[str, str], None]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        (folder / "secret").write_bytes(np.ones(12, np.float32).tobytes())
        kind(str(folder / "secret"), str(folder / "data"))
        return gemm(outside("data"))

    return make


def beside(raw: bytes, tensor: TensorProto) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        (folder / "data").write_bytes(raw)
        return gemm(tensor)

    return make


def odd_name(name: str) -> bytes:
    return model(
        [helper.make_node("Hardmax", ["x"], ["h"], name=name), helper.make_node("MatMul", ["h", "w"], ["y"])], [plain()]
    )


CORPUS: dict[str, tuple[bytes | Callable[[Path], bytes], str]] = {
    "path traversal": (gemm(outside("../secret")), "plain relative name"),
    "absolute path": (gemm(outside("/etc/passwd")), "plain relative name"),
    "symlinked data": (linked(os.symlink), "link"),
    "hard-linked data": (linked(os.link), "link"),
    "truncated data": (beside(b"\0" * 20, outside("data")), "truncated"),
    "an offset beyond the data": (beside(b"\0" * 48, outside("data", offset=2**40)), "truncated"),
    "huge dimensions": (gemm(claiming([2**40, 2**20])), "bytes"),
    "negative dimensions": (gemm(claiming([-4, 3])), "impossible shape"),
    "an overflowing product": (gemm(claiming([2**32, 2**32])), "bytes"),
    "NaN weights": (gemm(numpy_helper.from_array(np.full((4, 3), np.nan, np.float32), "w")), "NaN"),
    "infinite weights": (gemm(numpy_helper.from_array(np.full((4, 3), np.inf, np.float32), "w")), "infinity"),
    "a recursive function": (recursive(), "function"),
    "an If": (subgraph("If"), "If"),
    "a Loop": (subgraph("Loop"), "Loop"),
    "a name with a quote and code": (odd_name(f'" if open("{MARKER}","w") else "'), "Hardmax"),
    "a name with markup": (odd_name("[bold red]x[/]"), "[bold red]x[/]"),
    "a name with a terminal escape": (odd_name("a\x1b[31mb\x1b]0;title\x07"), "Hardmax"),
    "a name with a command for CI": (odd_name("a\n::error::pwned\nb"), "Hardmax"),
    "4 TiB of constants": (four_tebibytes(), "GiB"),
    "a zip bomb": (bomb(), "claims"),
    "pickled objects in an npz": (pickled_array(), "is not what its header says"),
    "a pickled checkpoint": (pickled_module(), "would run code"),
    "a truncated protobuf": (gemm(plain())[:-20], "truncated"),
    "random bytes": (np.random.default_rng(0).bytes(500), "not known"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, name: str) -> Path:
    content, _ = CORPUS[name]
    path = folder / "model.bin"
    path.write_bytes(content(folder) if callable(content) else content)
    return path


@pytest.mark.parametrize("name", CORPUS)
def test_the_file_is_refused_in_one_sentence(folder, name):
    path = written(folder, name)
    before = set(folder.iterdir())
    for command in (["convert", str(path), "-o", "out.npz"], ["sensitivity", str(path)]):
        found = CliRunner().invoke(app, command)
        assert (found.exit_code, found.stdout) == (2, ""), found.output
        (line,) = found.stderr.splitlines()
        assert line.startswith("error: ")
        assert line.isprintable()
        assert CORPUS[name][1] in line
        assert "internal" not in line
    assert set(folder.iterdir()) == before
    assert not (folder / MARKER).exists()


def test_the_refusals_need_little_memory(folder):
    """All of them in one process that may use 2 GB of memory beyond what the imports map."""
    for k, name in enumerate(n for n in CORPUS if not callable(CORPUS[n][0])):
        (folder / f"{k}.bin").write_bytes(CORPUS[name][0])
    code = (
        "import resource, sys, pathlib\n"
        "from typer.testing import CliRunner\n"
        "from idl_audit.cli.app import app\n"
        "import torch\n"
        "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 10**9,) * 2)\n"
        "files = map(str, pathlib.Path('.').glob('*.bin'))\n"
        "codes = [CliRunner().invoke(app, ['sensitivity', file]).exit_code for file in files]\n"
        "sys.exit(0 if set(codes) == {2} else 1)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr


def test_a_name_that_is_code_does_not_run_in_the_second_opinion(folder):
    """A sound network with crafted names is audited; onnx2torch, which turns names into code, sees none of them."""
    crafted = f'" if open("{MARKER}","w") else "'
    nodes = [
        helper.make_node("MatMul", ["x", "w"], [crafted], name=crafted),
        helper.make_node("Relu", [crafted], ["y"]),
    ]
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), "w")
    (folder / "m.onnx").write_bytes(model(nodes, [weights]))
    inputs = np.random.default_rng(1).random((20, 4)).astype(np.float32)
    labels = np.maximum(inputs @ numpy_helper.to_array(weights), 0).argmax(1)
    np.savez(folder / "d.npz", inputs=inputs, labels=labels)
    found = CliRunner().invoke(app, ["certify", "m.onnx", "-d", "d.npz", "-e", "0.9", "-f", "json"])
    assert found.exit_code == 0, found.output
    assert "onnx2torch" in found.stdout
    assert not (folder / MARKER).exists()
