"""Subgraphs in the place of what calls them: the model's own functions, and the bodies of control flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

from idl_audit.graph.ir import Attribute, Body, Call, Function, Node, Reference, Refused, shown
from idl_audit.graph.names import fresh_names
from idl_audit.graph.onnx_contents import constant_value
from idl_audit.graph.schemas import means_the_same
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

MOST_NODES: Final = 200_000
"""A graph may have so many nodes once subgraphs stand in the place of their calls."""

_DEEPEST: Final = 30
"""Functions may call functions so deep."""

_ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "com.microsoft": "onnxruntime's own, written by its optimiser or quantiser; give the model as it was before, "
        "or quantised by quantize_static in QuantFormat.QDQ (without UseQDQContribOps; 16 bits from opset 21 on)",
        "ai.onnx.ml": "ONNX's own for trees, text and classical learning, of which linear models and scalers are read; "
        "give a network of ONNX's plain operators",
        "ai.onnx.preview.training": "ONNX's own for training; export the model for inference",
        "ai.onnx.training": "ONNX's own for training; export the model for inference",
        "pkg.torch": "PyTorch's own; export with torch.onnx.export(..., dynamo=True) and without custom operators",
        "org.pytorch.aten": "PyTorch's own; export with operator_export_type=ONNX",
        "aten": "PyTorch's own; export with operator_export_type=ONNX",
    }
)
"""What is known of operators of other domains, and what would work."""


CLASSICAL: Final = "ai.onnx.ml"
_TREES: Final = "is a sum of trees, which jumps: audit a network, or a linear model, trained in its place"
_WORDS: Final = "reads text or categories, which no small change moves: audit the model behind it"

OF_CLASSICAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("CategoryMapper", "DictVectorizer", "LabelEncoder"), _WORDS),
        **dict.fromkeys(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), _TREES),
    }
)
"""Operators of classical learning without a plain form (`classical` has the others), and what would work."""

Renamed: TypeAlias = Mapping[str, str]
"""Name inside -> name outside."""


@dataclass(frozen=True)
class Given:
    """Constants under new names."""

    values: Mapping[str, AnyArray]
    renamed: Renamed


@dataclass
class Names:
    """The names of a graph and of all that was put into it."""

    taken: set[str]
    n_nodes: int = 0

    @classmethod
    def of(cls, body: Body) -> Names:
        """Return the names of a graph, with those inside its subgraphs."""
        return cls(set(_all_names(body)), len(body.nodes))

    def fresh(self, prefix: str, names: Sequence[str]) -> list[str]:
        """Return a new name `prefix/name` for each name."""
        renamed = fresh_names(prefix, names, self.taken)
        return [renamed[name] for name in names]

    def constants(self, prefix: str, values: Mapping[str, AnyArray]) -> Given:
        """Return constants under new names."""
        renamed = fresh_names(prefix, values, self.taken)
        return Given({renamed[name]: value for name, value in values.items()}, renamed)

    def check_room(self, count: int, prefix: str) -> None:
        """Raise UnsupportedModelError where so many more nodes would be too many."""
        if self.n_nodes + count > MOST_NODES:
            raise UnsupportedModelError(
                [f"{shown(prefix)}: with its subgraphs the model has over {MOST_NODES:,} nodes; export a smaller one"]
            )

    def placed(
        self, body: Body, prefix: str, given: Mapping[str, str]
    ) -> tuple[list[Node], dict[str, AnyArray], Renamed]:
        """Return a subgraph's nodes and constants under new names, and what its own names became.

        `given` says which outer names its inputs stand for; an input that is not in it is left out ('').
        Raises UnsupportedModelError where all together would be too many nodes.
        """
        self.check_room(len(body.nodes), prefix)
        self.n_nodes += len(body.nodes)
        own = dict(fresh_names(prefix, sorted(body.own - set(body.inputs) - {""}), self.taken))
        own.update({name: given.get(name, "") for name in body.inputs})
        nodes = [_renamed(node, own, prefix, self.taken) for node in body.nodes]
        return nodes, {own[name]: value for name, value in body.constants.items()}, own


def _all_names(body: Body) -> list[str]:
    names = list(body.own)
    for node in body.nodes:
        for inner in node.bodies:
            names.extend(_all_names(inner))
    return names


def _renamed(node: Node, names: Renamed, prefix: str, taken: set[str]) -> Node:
    attributes: Mapping[str, Attribute] = node.attributes
    if node.bodies:
        attributes = MappingProxyType(
            {
                key: _captures_renamed(value, names, prefix, taken) if isinstance(value, Body) else value
                for key, value in node.attributes.items()
            }
        )
    return replace(
        node,
        name=f"{prefix}/{node.label}",
        inputs=tuple(names.get(name, name) for name in node.inputs),
        outputs=tuple(names.get(name, name) for name in node.outputs),
        attributes=attributes,
    )


def _captures_renamed(body: Body, names: Renamed, prefix: str, taken: set[str]) -> Body:
    """Return a subgraph that takes the new names from outside; names of its own hide the outer ones.

    One of its own that is also a new name outside would hide what was not hidden before, and is renamed as well.
    """
    outer = {name: new for name, new in names.items() if name and name not in body.own}
    clashing = (body.own & set(outer.values())) - {""}
    known = {**outer, **fresh_names(prefix, sorted(clashing), taken)}
    return Body(
        tuple(known.get(name, name) for name in body.inputs),
        tuple(known.get(name, name) for name in body.outputs),
        tuple(replace(_renamed(node, known, prefix, taken), name=node.name) for node in body.nodes),
        MappingProxyType({known.get(name, name): value for name, value in body.constants.items()}),
    )


@dataclass(frozen=True)
class Plain:
    """Nodes without calls, with the constants that came out of functions."""

    nodes: tuple[Node, ...]
    """Calls that are not read are `Refused` ones."""
    constants: Mapping[str, AnyArray]
    problems: tuple[str, ...]
    """Why they are not read."""
    classical: tuple[str, ...] = ()
    """Those of them that are about operators of classical learning, which are ONNX's own."""


@dataclass
class _Expansion:
    functions: Mapping[tuple[str, str, str], Function]
    opset: int
    names: Names
    constants: dict[str, AnyArray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    classical: list[str] = field(default_factory=list)
    sizes: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def size(self, call: Call, within: tuple[tuple[str, str, str], ...]) -> int:
        """Return how many nodes stand in the place of a call; calls that are not read count for none.

        Functions that call others twice each are counted before any node of theirs is made: there may be 2^30.
        """
        target, function = call.target, self.functions.get(call.target)
        if function is None or target in within or len(within) >= _DEEPEST:
            return 0
        if target not in self.sizes:
            nodes = function.body.nodes
            inner = sum(self.size(other, (*within, target)) for other in _calls(nodes))
            self.sizes[target] = len(nodes) + inner
        return self.sizes[target]


def _calls(nodes: Sequence[Node]) -> Iterator[Call]:
    """Yield the calls among nodes, and inside their bodies."""
    for node in nodes:
        if isinstance(node, Call):
            yield node
        for body in node.bodies:
            yield from _calls(body.nodes)


def without_calls(body: Body, functions: Mapping[tuple[str, str, str], Function], opset: int, names: Names) -> Plain:
    """Return the graph's nodes with every call replaced by the nodes of the function that it names.

    Not read are operators of other domains, functions that call themselves, and functions that are written in an
    operator set where their operators mean something else.
    """
    work = _Expansion(functions, opset, names)
    nodes = _expanded(body.nodes, work, ())
    problems, classical = (tuple(dict.fromkeys(found)) for found in (work.problems, work.classical))
    return Plain(tuple(nodes), MappingProxyType(work.constants), problems, classical)


def _expanded(nodes: Sequence[Node], work: _Expansion, within: tuple[tuple[str, str, str], ...]) -> list[Node]:
    found: list[Node] = []
    for node in nodes:
        if isinstance(node, Call):
            try:
                found.extend(_called(node, work, within))
            except UnsupportedModelError as error:
                work.problems.extend(error.problems)
                if node.target[0] == CLASSICAL and node.op in OF_CLASSICAL and node.target not in work.functions:
                    work.classical.extend(error.problems)
                found.append(Refused.instead_of(node))
        else:
            found.append(_with_plain_bodies(node, work, within))
    return found


def _with_plain_bodies(node: Node, work: _Expansion, within: tuple[tuple[str, str, str], ...]) -> Node:
    if not node.bodies:
        return node
    attributes = dict(node.attributes)
    for key, value in node.attributes.items():
        if isinstance(value, Body):
            outer, work.constants = work.constants, {}
            nodes = tuple(_expanded(value.nodes, work, within))
            inner, work.constants = work.constants, outer
            attributes[key] = replace(value, nodes=nodes, constants=MappingProxyType({**value.constants, **inner}))
    return replace(node, attributes=MappingProxyType(attributes))


def _called(call: Call, work: _Expansion, within: tuple[tuple[str, str, str], ...]) -> list[Node]:
    function = work.functions.get(call.target)
    if function is None:
        _refuse_domain(call)
    if call.target in within or len(within) >= _DEEPEST:
        raise UnsupportedModelError(
            [f"{shown(call.label)}: the function {shown(call.op)} calls itself, or too many others; export it without"]
        )
    _check_call(call, function, work.opset)
    work.names.check_room(work.size(call, within), call.label)
    body = function.body
    given = dict(zip(body.inputs, call.inputs, strict=False))
    nodes, constants, own = work.names.placed(body, call.label, given)
    values = {key: call.attributes.get(key, default) for key, default in function.attributes.items()}
    work.constants.update(constants)
    nodes = [node for node in (_filled(node, values, work) for node in nodes) if node is not None]
    found = _expanded(nodes, work, (*within, call.target))
    for inner, outer in zip(body.outputs, call.outputs, strict=False):
        if outer:
            found.append(Node("Identity", f"{call.label}/{inner}", (own.get(inner, ""),), (outer,)))
    return found


def _check_call(call: Call, function: Function, opset: int) -> None:
    body = function.body
    problems = []
    if len(call.inputs) > len(body.inputs) or len(call.outputs) > len(body.outputs):
        problems.append(
            f"hands the function {shown(call.op)} more inputs or outputs than it has; export the model again"
        )
    strange = sorted(set(call.attributes) - set(function.attributes))
    if strange:
        problems.append(f"hands the function {shown(call.op)} the attribute {shown(strange[0])}, which it lacks")
    if function.opset not in (0, opset):
        ops = {node.op for node in body.nodes if not isinstance(node, Call)} - {"Constant"}
        changed = sorted(op for op in ops if not means_the_same(op, function.opset, opset))
        if changed:
            problems.append(
                f"calls a function of operator set {function.opset}, whose {shown(changed[0])} is not that of the "
                f"model's {opset}; export all in one version"
            )
    if problems:
        raise UnsupportedModelError([f"{shown(call.label)} {problem}" for problem in problems])


def _filled(node: Node, values: Mapping[str, Attribute | None], work: _Expansion) -> Node | None:
    """Return the node with the call's attributes in it; None for a Constant, whose value becomes one."""
    filled = replace(node, attributes=MappingProxyType(_values(node.attributes, values)))
    if node.op != "Constant" or isinstance(node, Call):
        return filled
    work.constants[node.outputs[0]] = constant_value(filled)
    return None


def _values(given: Mapping[str, Attribute], values: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    """Return attributes with references replaced; one that refers to nothing is left out, as ONNX has it."""
    found: dict[str, Attribute] = {}
    for key, value in given.items():
        actual = values.get(value.name) if isinstance(value, Reference) else value
        if isinstance(actual, Body):
            actual = _filled_body(actual, values)
        if actual is not None:
            found[key] = actual
    return found


def _filled_body(body: Body, values: Mapping[str, Attribute | None]) -> Body:
    constants = dict(body.constants)
    nodes = []
    for node in body.nodes:
        filled = replace(node, attributes=MappingProxyType(_values(node.attributes, values)))
        if node.op == "Constant" and not isinstance(node, Call):
            constants[node.outputs[0]] = constant_value(filled)
        else:
            nodes.append(filled)
    return replace(body, nodes=tuple(nodes), constants=MappingProxyType(constants))


def _refuse_domain(call: Call) -> NoReturn:
    domain = call.domain or "the model's own"
    if call.domain == CLASSICAL and call.op in OF_CLASSICAL:
        raise UnsupportedModelError([f"{call.op} node '{shown(call.label)}' {OF_CLASSICAL[call.op]}"])
    advice = next((text for name, text in _ADVICE.items() if f"{domain}.".startswith(f"{name}.")), "")
    what = f"; it is {advice}" if advice else "; export with ONNX's own operators only"
    raise UnsupportedModelError(
        [f"{shown(call.label)}: operator {shown(call.op)} of domain {shown(domain)} is not read{what}"]
    )
