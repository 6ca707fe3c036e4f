"""Small networks and VNN-LIB 2 queries about them, drawn at random on a coarse grid, so that borders are hit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SENSES = ("<=", ">=", "<", ">", "==", "!=")
STEP = 0.5


@dataclass(frozen=True)
class DrawnQuery:
    """A query as text, and the networks that it is about."""

    text: str
    models: dict[str, onnx.ModelProto]

    def written(self, folder: Path) -> tuple[Path, dict[str, Path]]:
        """Write everything and return where it is."""
        query = folder / "query.vnnlib"
        query.write_text(self.text, encoding="utf-8")
        files = {name: folder / f"{name}.onnx" for name in self.models}
        for name, model in self.models.items():
            onnx.save(model, files[name])
        return query, files


def on_grid(rng: np.random.Generator, *shape: int, most: int = 4) -> Any:
    """Return multiples of STEP."""
    return (rng.integers(-most, most + 1, shape) * STEP).astype(np.float32)


def network(rng: np.random.Generator, *, width: int = 2) -> onnx.ModelProto:
    """Return x (1, 2) -> h = W x + b -> r = some activation -> y (1, 2), with a jump or a product now and then."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="h")]
    kind = rng.choice(["Relu", "Relu", "Relu", "Abs", "Sign", "Tanh", "Mul", "Max"])
    inputs = {"Mul": ["h", "x"], "Max": ["h", "x"]}.get(kind, ["h"])
    nodes.append(helper.make_node(kind, inputs, ["r"], name="r"))
    nodes.append(helper.make_node("Gemm", ["r", "v", "c"], ["y"], name="y"))
    weights = {"w": on_grid(rng, 2, width), "b": on_grid(rng, width), "v": on_grid(rng, width, 2), "c": on_grid(rng, 2)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def drawn_query(rng: np.random.Generator, element: str = "float32") -> DrawnQuery:
    """Return a query about one or two networks, equal, isomorphic or neither, with a hidden tensor now and then."""
    relation = rng.choice(["one", "one", "equal-to", "isomorphic-to", "two"])
    models = {"A": network(rng)}
    kinds = {"A": models["A"].graph.node[1].op_type}
    names = ["A"] if relation == "one" else ["A", "B"]
    lines = ["(vnnlib-version <2.0>)"]
    entries: list[str] = []
    inputs: list[str] = []
    for name in names:
        lines.append(f"(declare-network {name}")
        if name == "B" and relation in ("equal-to", "isomorphic-to"):
            lines.append(f"  ({relation} A)")
        if name == "B" and relation != "equal-to":
            models["B"] = network(rng)
            while relation == "isomorphic-to" and models["B"].graph.node[1].op_type != kinds["A"]:
                models["B"] = network(rng)
        hidden = rng.choice(["h", "r"])
        lines.append(f"  (declare-input X{name} {element} [1,2])")
        if rng.random() < 0.5:
            lines.append(f'  (declare-hidden H{name} {element} [1,2] "{hidden}")')
            entries += [f"H{name}[0,{k}]" for k in range(2)]
        lines.append(f"  (declare-output Y{name} {element} [1,2])")
        lines.append(")")
        inputs += [f"X{name}[0,{k}]" for k in range(2)]
        entries += [f"Y{name}[0,{k}]" for k in range(2)] * 2
    for entry in inputs:
        lo, hi = sorted(int(end) for end in rng.integers(-3, 4, 2))
        lines.append(f"(assert (and (>= {entry} {number(lo * STEP)}) (<= {entry} {number(hi * STEP)})))")
    if len(names) == 2 and rng.random() < 0.5:
        k = int(rng.integers(2))
        lines.append(f"(assert (== XA[0,{k}] XB[0,{k}]))")
    for _ in range(int(rng.integers(1, 3))):
        lines.append(f"(assert {formula(rng, entries, inputs, 2)})")
    return DrawnQuery("\n".join(lines) + "\n", models)


def number(value: float) -> str:
    """Return a number as VNN-LIB writes it."""
    return f"{value:.4f}"


def formula(rng: np.random.Generator, entries: list[str], inputs: list[str], depth: int) -> str:
    """Return a formula over some entries."""
    if depth and rng.random() < 0.5:
        parts = [formula(rng, entries, inputs, depth - 1) for _ in range(int(rng.integers(2, 4)))]
        return f"({rng.choice(['and', 'or'])} {' '.join(parts)})"
    left, right = term(rng, entries + inputs, 2), term(rng, entries + inputs, 1)
    if rng.random() < 0.6:
        right = number(float(on_grid(rng, 1)[0]))
    return f"({rng.choice(SENSES)} {left} {right})"


def term(rng: np.random.Generator, entries: list[str], depth: int) -> str:
    """Return a term that reads an entry at least."""
    one = str(rng.choice(entries))
    if not depth or rng.random() < 0.5:
        return one
    other = term(rng, entries, depth - 1) if rng.random() < 0.6 else number(float(on_grid(rng, 1)[0]))
    kind = rng.choice(["+", "-", "*", "minus"])
    if kind == "minus":
        return f"(- {one})"
    return f"({kind} {one} {other})"
