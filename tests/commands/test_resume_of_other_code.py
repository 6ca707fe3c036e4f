"""Weights alone are not the network: the hash of what code makes of them is that of the graph, and --resume asks it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.robustness.keys import model_key
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.graph.fingerprint import graph_sha256
from idl_audit.graph.ir import Graph, Node
from tests.commands.test_jobs import DATA, MODEL


@pytest.fixture(scope="module")
def graph() -> Graph:
    found = open_subject(MODEL, ModelOptions()).graph
    assert found is not None
    return found


def renamed(node: Node) -> Node:
    inputs, outputs = (tuple(name and f"{name}_2" for name in names) for names in (node.inputs, node.outputs))
    return replace(node, name=f"{node.name}_2", inputs=inputs, outputs=outputs)


def test_names_have_no_part_in_the_hash_of_a_graph(graph: Graph) -> None:
    other = replace(
        graph,
        nodes=tuple(map(renamed, graph.nodes)),
        constants={f"{name}_2": array for name, array in graph.constants.items()},
        inputs=tuple(replace(value, name=f"{value.name}_2") for value in graph.inputs),
        outputs=tuple(replace(value, name=f"{value.name}_2") for value in graph.outputs),
    )
    assert graph_sha256(other) == graph_sha256(graph)


def test_operators_constants_attributes_and_wiring_have(graph: Graph) -> None:
    at = next(i for i, node in enumerate(graph.nodes) if node.op == "Relu")
    relu = graph.nodes[at]
    gemm = next(node for node in graph.nodes if node.op == "Gemm")
    name = min(graph.constants)
    after = graph.nodes[at + 1]
    bent = replace(gemm, attributes=MappingProxyType({**gemm.attributes, "alpha": 1.0000001}))

    def exchanged(old: Node, new: Node) -> Graph:
        return replace(graph, nodes=tuple(new if node is old else node for node in graph.nodes))

    others = [
        exchanged(relu, replace(relu, op="Tanh")),
        exchanged(gemm, bent),
        exchanged(after, replace(after, inputs=(relu.inputs[0], *after.inputs[1:]))),
        replace(graph, constants={**graph.constants, name: graph.constants[name] + 1}),
        replace(graph, outputs=(replace(graph.outputs[0], name=relu.outputs[0]),)),
        replace(graph, inputs=(replace(graph.inputs[0], shape=(1, 64)),)),
    ]
    hashes = {graph_sha256(graph), *map(graph_sha256, others)}
    assert len(hashes) == 1 + len(others)


def test_the_key_of_a_journal_asks_for_the_hash_of_the_whole_model(graph: Graph) -> None:
    subject = open_subject(MODEL, ModelOptions())
    options = RobustnessOptions(eps=parse_eps("0.01"), data=DataOptions(DATA))

    def key(sha256: str) -> str:
        other = replace(subject, info=subject.info.model_copy(update={"sha256": sha256}))
        return model_key(other, options.model)

    assert key(subject.info.sha256) != key("0" * 64)
