"""What an ONNX graph must be before its contents are looked at: known parts only, every name with one origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from idl_audit.errors import ModelFileError
from idl_audit.graph.ir import shown

DEFAULT_DOMAINS: Final = frozenset({"", "ai.onnx"})
_ATTRIBUTES: Final = frozenset(
    {
        AttributeProto.INT,
        AttributeProto.FLOAT,
        AttributeProto.STRING,
        AttributeProto.TENSOR,
        AttributeProto.INTS,
        AttributeProto.FLOATS,
        AttributeProto.STRINGS,
    }
)


def model_problems(model: ModelProto) -> Iterator[str]:
    """Yield a sentence for every part of the model, nodes aside, that is not read."""
    for function in model.functions:
        yield (
            f"function {shown(function.name)}: functions of the model's own are not read; inline them "
            "(onnx.inliner.inline_local_functions)"
        )
    for sparse in model.graph.sparse_initializer:
        yield f"tensor {shown(sparse.values.name)}: sparse initializers are not read; save it as a dense tensor"


def node_problems(graph: GraphProto) -> Iterator[str]:
    """Yield a sentence for every node of another domain and every attribute (a subgraph, ...) that is not read."""
    for node in graph.node:
        label = label_of(node)
        if node.domain not in DEFAULT_DOMAINS:
            yield (
                f"{label}: operator {shown(node.op_type)} of domain {shown(node.domain)} is not read; "
                "export with ONNX's own operators only"
            )
        for attribute in node.attribute:
            if attribute.ref_attr_name or attribute.type not in _ATTRIBUTES:
                yield f"{label}: operator {shown(node.op_type)} {_attribute_problem(attribute)}"


def _attribute_problem(attribute: AttributeProto) -> str:
    name = shown(attribute.name)
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        return f"has a subgraph ({name}), and control flow is not read; export the model without branches and loops"
    return f"has the attribute {name} of a kind that is not read; export with plain attributes"


def label_of(node: NodeProto) -> str:
    """Return how messages call a node: its name, or its first output's where it has none."""
    return shown(node.name or next((name for name in node.output if name), "unnamed"))


def check_names(graph: GraphProto, path: Path) -> None:
    """Raise ModelFileError unless every name has one origin that comes before all its uses."""
    weights = [tensor.name for tensor in graph.initializer]
    known: set[str] = set()

    def add(name: str) -> None:
        if name in known:
            raise ModelFileError(f"{path}: two values are called {shown(name)!r}; export the model again")
        known.add(name)

    for name in [*weights, *(value.name for value in true_inputs(graph))]:
        add(name)
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                fault = "only made later" if name in made else "made nowhere"
                raise ModelFileError(
                    f"{path}: {label_of(node)} reads {shown(name)!r}, which is {fault}; export the model again"
                )
        for name in filter(None, node.output):
            add(name)
    for output in graph.output:
        if output.name not in known:
            raise ModelFileError(f"{path}: the output {shown(output.name)!r} is made nowhere; export the model again")
    for role, values in (("input", true_inputs(graph)), ("output", graph.output)):
        if not values:
            raise ModelFileError(f"{path}: the graph has no {role}; export the model again")


def true_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Return the declared inputs without the weights, which files of before 2019 declare as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]
