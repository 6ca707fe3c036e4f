"""Proof files made by hand for two tiny networks, to be bent into claims that are false."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Arrays = dict[str, np.ndarray]
Meta = dict[str, Any]
UNITS = {"scale": 1.0, "mean": [], "std": [], "bounds": None}


def absolute(folder: Path) -> Path:
    """x1 = relu(u0, -u0), x2 = relu(x1_0 + x1_1) = |u0|, y = (0.75, x2): class 0 wins where |u0| < 0.75."""
    nodes = [("Gemm", ["u", "W1"], "z1"), ("Relu", ["z1"], "x1"), ("Gemm", ["x1", "W2"], "z2"), ("Relu", ["z2"], "x2")]
    constants = {"W1": [[1, 0], [-1, 0]], "W2": [[1, 1]], "W3": [[0], [1]], "b3": [0.75, 0]}
    return _saved(folder / "absolute.onnx", [*nodes, ("Gemm", ["x2", "W3", "b3"], "y")], constants)


def diagonal(folder: Path) -> Path:
    """y = W2 relu(W1 u), |dy0 / du0| = 21 and |dy1 / du1| = 10 at most."""
    nodes = [("Gemm", ["u", "W1"], "z1"), ("Relu", ["z1"], "x1"), ("Gemm", ["x1", "W2"], "y")]
    return _saved(folder / "diagonal.onnx", nodes, {"W1": [[3, 0], [0, 5]], "W2": [[7, 0], [0, 2]]})


def one_output(folder: Path) -> Path:
    """y = |u0|: class 0 below a threshold of 0.75 where |u0| < 0.75."""
    nodes = [("Gemm", ["u", "W1"], "z1"), ("Relu", ["z1"], "x1"), ("Gemm", ["x1", "W2"], "y")]
    return _saved(folder / "one.onnx", nodes, {"W1": [[1, 0], [-1, 0]], "W2": [[1, 1]]}, size=1)


def two_outputs(folder: Path) -> Path:
    """Outputs y = (0.75, |u0|) and z = (|u0|, 0.5): a class of the one says nothing of the other."""
    nodes = [("Gemm", ["u", "W1"], "z1"), ("Relu", ["z1"], "x1"), ("Gemm", ["x1", "W2"], "z2"), ("Relu", ["z2"], "x2")]
    nodes += [("Gemm", ["x2", "W3", "b3"], "y"), ("Gemm", ["x2", "W4", "b4"], "z")]
    constants = {"W1": [[1, 0], [-1, 0]], "W2": [[1, 1]], "W3": [[0], [1]], "b3": [0.75, 0]}
    return _saved(folder / "outputs.onnx", nodes, {**constants, "W4": [[1], [0]], "b4": [0, 0.5]}, ("y", "z"))


def _saved(
    path: Path,
    nodes: list[tuple[str, list[str], str]],
    constants: dict[str, Any],
    outputs: tuple[str, ...] = ("y",),
    size: int = 2,
) -> Path:
    attributes = {"Gemm": {"transB": 1}, "Relu": {}}
    made = [helper.make_node(op, inputs, [output], **attributes[op]) for op, inputs, output in nodes]
    values = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    ends = [
        [helper.make_tensor_value_info(name, 1, [1, n]) for name in names]
        for names, n in ((("u",), 2), (outputs, size))
    ]
    graph = helper.make_graph(made, "g", *ends, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def head(kind: str, model: Path) -> Meta:
    version = "1.0" if kind == "witness" else "1.1"
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    return {"schema_version": version, "kind": kind, "model_sha256": sha256, "output_name": None}


def batch(size: int = 1, **more: Any) -> Meta:
    return {"size": size, "phases": [], "slopes": [], "multipliers": [], "planes": [], **more}


def chain(*batches: Meta, **more: Any) -> Meta:
    trees = {"0": {"row": 0, "after": 0, "batches": list(batches or [batch()])}}
    return {"steps": [], "kept": [], "rounds": [], "trees": trees, **more}


def certificate(model: Path, eps: float, proof: Meta | None = None) -> tuple[Arrays, Meta]:
    """Class 0 within eps of 0: true of `absolute` below 0.75, false above."""
    meta = {**head("certificate", model), "preprocessing": UNITS, "index": 0, "eps": eps, "clip": None, "label": 0}
    return {"centre": np.zeros(2)}, {**meta, **(chain() if proof is None else proof)}


def property_certificate(model: Path, half: float, proof: Meta | None = None) -> tuple[Arrays, Meta]:
    """y_0 <= y_1 nowhere in [-half, half]^2, by a chain, or by a tree of boxes where `proof` is empty."""
    part = {"alternatives": 1, "chain": chain() if proof is None else proof or None}
    meta = {**head("property certificate", model), "property": "p.vnnlib", "property_sha256": "0" * 64, "parts": [part]}
    arrays = {"0.lo": np.full(2, -half), "0.hi": np.full(2, half)}
    arrays |= {"0.0.rows": np.array([[1.0, -1.0]]), "0.0.offsets": np.zeros(1)}
    if proof == {}:
        arrays |= splits([-1], [0.0], [0])
    return arrays, meta


def splits(inputs: list[int], cuts: list[float], children: list[int]) -> Arrays:
    kinds = {"inputs": np.int64, "cuts": np.float64, "children": np.int64}
    values = {"inputs": inputs, "cuts": cuts, "children": children}
    return {f"0.split.{name}": np.array(values[name], kind) for name, kind in kinds.items()}


def witness(model: Path, S: Any, rows: Any) -> tuple[Arrays, Meta]:
    """S of `diagonal` by adjoint rows of its only block."""
    meta = {**head("witness", model), "preprocessing": UNITS, "loops": {}, "adjoint": [0], "flat": [], "monotone": None}
    return {"S": np.array(S, np.float64), "adjoint.0": np.array(rows, np.float64)}, meta


def flat_witness(model: Path, S: Any, **arrays: Any) -> tuple[Arrays, Meta]:
    """S of `diagonal` by a contraction of all its states."""
    _, meta = witness(model, S, np.zeros((2, 2)))
    meta |= {"adjoint": None, "flat": [{"kind": "contraction", "middle": False, "arrays": ["Y", "alpha", "v"]}]}
    usual = {"Y": np.eye(2), "alpha": np.ones(2), "v": np.ones(2), "r": np.array([[7.1, 1e-9], [1e-9, 2.1]])}
    parts = {f"flat.0.{name}": np.asarray(value, np.float64) for name, value in {**usual, **arrays}.items()}
    return {"S": np.array(S, np.float64), **parts}, meta


# ---- today's format --------------------------------------------------------------------------------------------------


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def forest(key: str, variable: tuple[int, ...] = (-1,), cut: float = 0.0) -> Arrays:
    """One tree: a leaf, or one split of a variable; with a choice of every kind for leaf 0 and block 1."""
    inner = np.arange(len(variable)) == (0 if len(variable) > 1 else -1)
    nodes = {"roots": whole(0), "variable": whole(*variable), "cut": np.where(inner, cut, 0.0), "child": inner * 1}
    kinds = {"slopes": [[0, 0]], "multipliers": [[0, 0]], "duals": [[0, -0.5]]}
    arrays = {f"{key}.{name}": array for name, array in nodes.items()}
    for kind, values in kinds.items():
        arrays |= {f"{key}.{kind}.1.leaves": whole(0), f"{key}.{kind}.1.values": np.array(values, np.float32)}
    planes = {"leaves": whole(0), "states": whole(0, 1), "shares": np.full((1, 2, 1), 128, np.uint8)}
    return arrays | {f"{key}.planes.1.{name}": array for name, array in planes.items()}


def part() -> Arrays:
    """A proof for `absolute` that has an array of every name but those of loops."""
    lemma, goals = "part.0.stage.0.lemma.0", "part.0.goals.0"
    arrays = {"part.0.kept.0": whole(0), "part.0.kept.1": whole(0, 1), "part.0.stage.0.blocks": whole(0)}
    arrays |= {f"{lemma}.states": whole(0), f"{lemma}.signs": np.array([-1], np.int8), **forest(lemma)}
    arrays |= {f"{goals}.stage": whole(0), f"{goals}.alternatives": whole(0), f"{goals}.weights": np.ones((1, 1))}
    return arrays | forest(goals, (3, -1, -1))


def today(model: Path, claim: Meta) -> Meta:
    of = {"sha256": hashlib.sha256(model.read_bytes()).hexdigest(), "output_name": None, "threshold": None}
    units = {"scale": 1.0, "mean": [], "std": []}
    head = {"schema_version": "2.0", "kind": "proof", "tool": "by hand", "arithmetic": "real"}
    return {**head, "model": {**of, "preprocessing": units}, "claim": claim}


def sample_file(model: Path, eps: float) -> tuple[Arrays, Meta]:
    """Class 0 within eps of 0: true of `absolute` below 0.75, false above."""
    claim = {"kind": "sample", "index": 0, "label": 0, "eps": eps, "clip": None, "cardinality": None}
    return {"centre": np.zeros(2), "sigma": np.ones(2), **part()}, today(model, claim)


def computed_file(model: Path, eps: float) -> tuple[Arrays, Meta]:
    """The same in float32 arithmetic."""
    arrays, meta = sample_file(model, eps)
    return arrays | {"part.0.delta.0": np.full(1, 1e-5)}, meta | {"arithmetic": "float32"}


def property_file(model: Path, half: float) -> tuple[Arrays, Meta]:
    """y_0 <= y_1 nowhere in [-half, half]^2."""
    arrays = {"part.0.lo": np.full(2, -half), "part.0.hi": np.full(2, half), **part()}
    arrays |= {"part.0.alternative.0.rows": np.array([[1.0, -1.0]]), "part.0.alternative.0.offsets": np.zeros(1)}
    return arrays, today(model, {"kind": "property", "name": "p.vnnlib", "sha256": "0" * 64})


def written(path: Path, arrays: Arrays, meta: Meta | str) -> Path:
    text = meta if isinstance(meta, str) else json.dumps(meta)
    np.savez_compressed(path, allow_pickle=True, **arrays, meta=np.asarray(text))
    return path


def with_member(path: Path, name: str, array: np.ndarray, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Add a member to a file, whether or not it has one of this name."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr(name, buffer.getvalue())
    return path
