"""Networks of any operators of the table, one behind the other, with layers between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from tests.shared.implicit_models import NEWEST, built, floats, ints, node, proto
from tests.shared.jump_cases import JUMP_CASES
from tests.shared.map_cases import MAP_CASES
from tests.shared.operator_cases import OPERATOR_CASES, Case

CASES: tuple[Case, ...] = (*OPERATOR_CASES, *MAP_CASES, *JUMP_CASES)
BY_NAME = {f"{case.op}: {case.what}": case for case in CASES}
N_OUTPUTS = 3


def fitting(cases: Sequence[Case]) -> list[Case]:
    """Return the first case and those behind it that some operator set allows together with all before."""
    chosen, opsets = [cases[0]], set(cases[0].opsets)
    for case in cases[1:]:
        if opsets & set(case.opsets):
            chosen.append(case)
            opsets &= set(case.opsets)
    return chosen


def network_of(cases: Sequence[Case], rng: np.random.Generator, n_inputs: int) -> onnx.ModelProto:
    """Return y = W (case ... (W1 (case (W0 u + b0)) + b1) ...) + b, u a row."""
    opset = max(set.intersection(*(set(case.opsets) for case in cases)) & set(range(NEWEST + 1)) or {NEWEST + 2})
    nodes: list[NodeProto] = []
    constants: dict[str, Any] = {"row": ints(1, -1)}
    last, width = "u", n_inputs
    for number, case in enumerate(cases):
        own, size = f"s{number}.", int(np.prod(case.shape))
        constants |= {
            f"{own}in.w": floats(rng, width, size) / np.float32(np.sqrt(width)),
            f"{own}in.b": floats(rng, size, scale=0.5),
            f"{own}in.shape": ints(*case.shape),
            **{own + name: np.asarray(value) for name, value in case.constants.items()},
        }
        nodes += [
            node("Gemm", f"{last} {own}in.w {own}in.b", f"{own}in"),
            node("Reshape", f"{own}in {own}in.shape", f"{own}x"),
            *(_renamed(one, own) for one in case.nodes),
            *_as_row(f"{own}y", f"{own}out"),
        ]
        alone = {**case.constants, "row": ints(1, -1)}
        width = built([*case.nodes, *_as_row("y", "out")], case.shape, alone, opset=opset, outputs=["out"]).n_outputs
        last = f"{own}out"
    constants |= {"V": floats(rng, width, N_OUTPUTS) / np.float32(np.sqrt(width)), "d": floats(rng, N_OUTPUTS)}
    nodes.append(node("Gemm", f"{last} V d", "y"))
    return proto(nodes, (1, n_inputs), constants, opset=opset, source="u")


def _as_row(name: str, out: str) -> list[NodeProto]:
    """Return nodes that make a row of floats of whatever it is."""
    return [node("Cast", name, f"{out}.float", to=TensorProto.FLOAT), node("Reshape", f"{out}.float row", out)]


def _renamed(one: NodeProto, own: str) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(one)
    for names in (made.input, made.output):
        new = [own + name if name else "" for name in names]
        del names[:]
        names.extend(new)
    return made
