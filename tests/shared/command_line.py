"""Running the command line within the test process, and the files that users hand to it, good ones and bad ones."""

from __future__ import annotations

import gzip
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from idl_audit.cli import console
from idl_audit.cli.app import app
from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Report

console.FIRST_LINE = 3600.0  # what a command says while it works is no part of what tests compare

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
MODEL = SAMPLES / "digits_mlp.onnx"
DATA = SAMPLES / "digits_mlp.npz"

HOSTILE = "a[bold red]b[/]\x1b[31m\nc\u202e"
"""A name with rich markup, a terminal escape, a line break and a character that reverses the direction of text."""


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> Report:
        return from_json(self.out)


def run(*args: object, **env: str) -> Run:
    """Run one command line in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env=env, prog_name="idl-audit")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Run(result.exit_code, result.stdout, result.stderr)


def network(path: Path, nodes, constants, *, inputs=(("x", (1, 4)),), outputs=(("y", (1, 3)),), domains=()) -> Path:
    """Write a small ONNX file."""

    def infos(entries):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in entries]

    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), initializer=tensors)
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}


def gemm(source="x", target="y", name="gemm"):
    return helper.make_node("Gemm", [source, "w", "b"], [target], name=name)


def write_files(folder: Path) -> None:
    """Fill a folder with everything that the tests hand to the commands."""
    _write_models(folder)
    _write_samples(folder)
    _write_configuration(folder)
    assert run("sensitivity", MODEL, "--witness", folder / "witness.npz").code == 0


def _write_models(folder: Path) -> None:
    content = MODEL.read_bytes()
    (folder / "truncated.onnx").write_bytes(content[: len(content) // 2])
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("not a network\n")
    shutil.copy(MODEL, folder / "no_weights.onnx")
    torch.save(torch.nn.Linear(3, 3), folder / "module.pt")
    torch.save(torch.nn.Linear(3, 3).state_dict(), folder / "state_dict.pt")
    (folder / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    w = weights()
    relu = helper.make_node("Relu", ["h"], ["y"], name="relu")
    network(folder / "small.onnx", [gemm(target="h"), relu], w)
    (folder / "small.onnx.gz").write_bytes(gzip.compress((folder / "small.onnx").read_bytes()))
    (folder / "small.onnx.data").write_bytes(b"\xff\x00\xfe\xff" * 16)
    network(folder / "unknown_operator.onnx", [helper.make_node("Hardmax", ["x"], ["h"], name="odd"), gemm("h")], w)
    chain = [helper.make_node("Hardmax", ["x"], ["h"]), gemm("h", "g"), helper.make_node("Bernoulli", ["g"], ["y"])]
    network(folder / "two_unknown_operators.onnx", chain, w)
    foreign = [helper.make_node("Foo", ["x"], ["h"], name="foreign", domain="my.own"), gemm("h")]
    network(folder / "foreign_domain.onnx", foreign, w, domains=("my.own",))
    two = (("x", (1, 4)), ("z", (1, 4)))
    network(folder / "two_inputs.onnx", [helper.make_node("Add", ["x", "z"], ["h"]), gemm("h")], w, inputs=two)
    both = (("y", (1, 3)), ("z", (1, 3)))
    network(folder / "two_outputs.onnx", [gemm(), helper.make_node("Relu", ["y"], ["z"])], w, outputs=both)
    network(folder / "one_output.onnx", [gemm()], {"w": np.ones((4, 1)), "b": [0]}, outputs=(("y", (1, 1)),))
    network(folder / "nan_weights.onnx", [gemm()], w | {"b": [0, np.nan, 0]})
    network(folder / "hostile_operator.onnx", [helper.make_node("Hardmax", ["x"], ["h"], name=HOSTILE), gemm("h")], w)
    network(folder / "hostile_names.onnx", [gemm(target="h", name=HOSTILE), _named(relu, f"2{HOSTILE}")], w)
    names = [*(f"X_{i}" for i in range(4)), *(f"Y_{j}" for j in range(3))]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (>= X_{i} 0)) (assert (<= X_{i} 1))" for i in range(4)]
    (folder / "rule.vnnlib").write_text("\n".join([*lines, "(assert (<= Y_0 -1))"]))
    (folder / "rules.csv").write_text("onnx,vnnlib,timeout\nsmall.onnx,rule.vnnlib,20\n")


def _write_configuration(folder: Path) -> None:
    lines = ["[defaults]", f'model = "{MODEL}"', f'data = "{DATA}"', 'bounds = "0,1"', "eps = [0.02, 0.05]"]
    lines += ["limit = 4", "[run]", 'steps = ["sensitivity", "bounds", "certify"]']
    lines += ["[gate]", 'require = "certified_accuracy@0.02 >= 0.9"', 'warn = ["norm_inf_S <= 1"]']
    (folder / "audit.toml").write_text("\n".join(lines))


def _named(node, name):
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = name
    return copy


def _write_samples(folder: Path) -> None:
    with np.load(DATA) as archive:
        x, y = archive["inputs"][:10], archive["labels"][:10]
    bad = x.copy()
    files = {
        "good": {"inputs": x, "labels": y},
        "no_labels": {"inputs": x},
        "no_inputs": {"pixels": x, "labels": y},
        "wrong_shape": {"inputs": x[:, :63], "labels": y},
        "labels_above": {"inputs": x, "labels": y + 10},
        "labels_below": {"inputs": x, "labels": y - 20},
        "labels_from_1": {"inputs": x, "labels": np.arange(1, 11)},
        "one_hot": {"inputs": x, "labels": np.eye(10)[y]},
        "too_few_labels": {"inputs": x, "labels": y[:9]},
        "half_labels": {"inputs": x, "labels": y + 0.5},
        "text_labels": {"inputs": x, "labels": np.array(["seven"] * 10)},
        "objects": {"inputs": np.array([{}, []], dtype=object), "labels": y[:2]},
        "complex": {"inputs": x + 1j, "labels": y},
        "bytes": {"inputs": x * 255, "labels": y},
        "no_samples": {"inputs": x[:0], "labels": y[:0]},
        "pair": {"x": x[:6, :4], "z": x[:6, 4:8], "labels": np.arange(6) % 3},
        "half_pair": {"x": x[:6, :4], "labels": np.arange(6) % 3},
        "narrow_pair": {"x": x[:6, :4], "z": x[:6, :3], "labels": np.arange(6) % 3},
        "uneven_pair": {"x": x[:6, :4], "z": x[:5, :4], "labels": np.arange(6) % 3},
        "small": {"inputs": np.random.default_rng(0).random((6, 4)), "labels": np.arange(6) % 3},
    }
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    for name, value in (("nan", np.nan), ("infinity", np.inf)):
        bad[3, 5] = value
        np.savez(folder / f"{name}.npz", inputs=bad, labels=y)
    np.save(folder / "array.npy", x)
    (folder / "document.json").write_text('{\n "inputs": [1, 2]\n}\n')
    np.save(folder / "row.npy", x[0, :4])
    np.savetxt(folder / "data.csv", x, delimiter=",")
    content = (folder / "good.npz").read_bytes()
    (folder / "truncated.npz").write_bytes(content[: len(content) // 2])
    (folder / "empty.npz").write_bytes(b"")
