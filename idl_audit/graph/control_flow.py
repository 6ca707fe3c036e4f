"""If, Loop and Scan whose course is known beforehand, as the plain nodes that they come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn

import numpy as np

from idl_audit.graph.functions import Names
from idl_audit.graph.ir import Attribute, Body, Node, shown
from idl_audit.graph.schemas import named
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

MOST_ROUNDS: Final = 1000
"""A loop may run so often."""

_FIXED: Final = "export the model with its course fixed (torch.onnx.export traces one)"


@dataclass(frozen=True)
class Course:
    """What control flow asks of the walk around it."""

    opset: int
    names: Names
    follow: Callable[[Sequence[Node], Mapping[str, AnyArray]], None]
    """Take over nodes and constants, in this order, as if they stood in the graph."""
    value: Callable[[str], AnyArray | None]
    """The value of a tensor, where it is known."""
    depends: Callable[[str], bool]
    """Whether a tensor depends on the network's input."""
    shape: Callable[[str], tuple[int, ...] | None]


def run_body(node: Node, course: Course) -> None:
    """Hand what the node comes to over to `course.follow`; the node's outputs are made by it.

    Raises UnsupportedModelError where its course depends on the network's input, or cannot be told.
    """
    run = _RUNS.get(node.op)
    if run is None:
        raise UnsupportedModelError(
            [f"{shown(node.label)}: operator {shown(node.op)} has a subgraph, and is not read; export without it"]
        )
    run(node, course)


def _take(node: Node, course: Course) -> None:
    """Take the branch of an If that its condition chooses."""
    condition = course.value(node.inputs[0])
    if condition is None or condition.size != 1:
        _refuse(node, course, node.inputs[0], "chooses between subgraphs")
    branch = _body(node, "then_branch" if condition.reshape(-1)[0] else "else_branch")
    if branch.inputs or len(branch.outputs) < len(node.outputs):
        _refuse_shape(node)
    made = _place(node, branch, course, node.label, {})
    course.follow(_identities(node, made, node.outputs), {})


def _loop(node: Node, course: Course) -> None:
    """Run the body of a Loop as often as its trip count and its condition say."""
    body = _body(node, "body")
    count, condition, *state = (*node.inputs, "", "")[: max(2, len(node.inputs))]
    if len(body.inputs) != len(state) + 2 or len(body.outputs) < len(state) + 1:
        _refuse_shape(node)
    rounds = _known(node, course, count) if count else None
    going = bool(_known(node, course, condition)) if condition else True
    scanned: list[list[str]] = [[] for _ in body.outputs[len(state) + 1 :]]
    step = 0
    while going and (rounds is None or step < rounds):
        if step >= MOST_ROUNDS:
            raise UnsupportedModelError(
                [f"{named(node)} runs its subgraph more than {MOST_ROUNDS} times, which is not read; export without it"]
            )
        prefix = f"{node.label}/{step}"
        given = course.names.constants(
            prefix, {body.inputs[0]: np.array(step, np.int64), body.inputs[1]: np.array(True)}
        )
        course.follow((), given.values)
        outer = {**given.renamed, **dict(zip(body.inputs[2:], state, strict=True))}
        again, *made = _place(node, body, course, prefix, outer)
        state = made[: len(state)]
        for parts, part in zip(scanned, made[len(state) :], strict=True):
            parts.append(part)
        going = bool(_known(node, course, again))
        step += 1
    _finish(node, course, state, [(parts, 0) for parts in scanned])


def _scan(node: Node, course: Course) -> None:
    """Run the body of a Scan once for every slice of its inputs."""
    body, n_scanned = _body(node, "body"), node.attributes.get("num_scan_inputs")
    if course.opset < 9:
        raise UnsupportedModelError([f"{named(node)} is read from operator set 9 on; export in a newer one"])
    n_state = len(node.inputs) - n_scanned if isinstance(n_scanned, int) else -1
    n_out = len(body.outputs) - n_state
    if not isinstance(n_scanned, int) or len(body.inputs) != len(node.inputs) or min(n_state, n_out) < 0:
        _refuse_shape(node)
    state, sources = list(node.inputs[:n_state]), node.inputs[n_state:]
    axes, backward = _ints(node, "scan_input_axes", n_scanned), _ints(node, "scan_input_directions", n_scanned)
    out_axes, prepends = _ints(node, "scan_output_axes", n_out), _ints(node, "scan_output_directions", n_out)
    lengths = {_length(node, course.shape(name), axis) for name, axis in zip(sources, axes, strict=True)}
    if len(lengths) != 1:
        _refuse_shape(node)
    (length,) = lengths
    scanned: list[list[str]] = [[] for _ in range(n_out)]
    for step in range(length):
        prefix = f"{node.label}/{step}"
        outer = dict(zip(body.inputs[:n_state], state, strict=True))
        for k, source in enumerate(sources):
            place = length - 1 - step if backward[k] else step
            given = course.names.constants(f"{prefix}/at{k}", {"index": np.array(place, np.int64)})
            (slot,) = course.names.fresh(prefix, [f"slice{k}"])
            gather = Node("Gather", slot, (source, given.renamed["index"]), (slot,), _attributes(axis=axes[k]))
            course.follow((gather,), given.values)
            outer[body.inputs[n_state + k]] = slot
        made = _place(node, body, course, prefix, outer)
        state = made[:n_state]
        for k, part in enumerate(made[n_state:]):
            scanned[k].insert(0 if prepends[k] else step, part)
    _finish(node, course, state, list(zip(scanned, out_axes, strict=True)))


def _length(node: Node, shape: tuple[int, ...] | None, axis: int) -> int:
    if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] > MOST_ROUNDS:
        raise UnsupportedModelError(
            [f"{named(node)} scans an axis of unknown length, or more than {MOST_ROUNDS} slices; {_FIXED}"]
        )
    return shape[axis]


def _finish(node: Node, course: Course, state: Sequence[str], scanned: Sequence[tuple[list[str], int]]) -> None:
    """Make the outputs: the last states, and what the rounds gave, stacked along an axis of its own."""
    made = list(state)
    for k, (parts, axis) in enumerate(scanned):
        if not parts:
            raise UnsupportedModelError([f"{named(node)} runs its subgraph not once and stacks its results; {_FIXED}"])
        (stacked,) = course.names.fresh(node.label, [f"stacked{k}"])
        lifted = course.names.fresh(f"{node.label}/stacked{k}", [f"part{step}" for step in range(len(parts))])
        nodes: list[Node] = []
        constants: dict[str, AnyArray] = {}
        for part, name in zip(parts, lifted, strict=True):
            inputs: tuple[str, ...] = (part,)
            attributes = _attributes(axes=(axis,))
            if course.opset >= 13:
                given = course.names.constants(name, {"axes": np.array([axis], np.int64)})
                constants.update(given.values)
                inputs, attributes = (part, given.renamed["axes"]), _attributes()
            nodes.append(Node("Unsqueeze", name, inputs, (name,), attributes))
        nodes.append(Node("Concat", stacked, tuple(lifted), (stacked,), _attributes(axis=axis)))
        course.follow(nodes, constants)
        made.append(stacked)
    if len(made) < len(node.outputs):
        _refuse_shape(node)
    course.follow(_identities(node, made, node.outputs), {})


def _place(node: Node, body: Body, course: Course, prefix: str, given: Mapping[str, str]) -> list[str]:
    """Put one run of a body into the graph, and return what its outputs are called there."""
    nodes, constants, own = course.names.placed(body, prefix, given)
    course.follow(nodes, constants)
    made = [own.get(name, name) for name in body.outputs]
    if not all(made):
        _refuse_shape(node)
    return made


def _identities(node: Node, made: Sequence[str], outputs: Sequence[str]) -> list[Node]:
    pairs = zip(made, outputs, strict=False)
    return [Node("Identity", f"{node.label}/{name}", (inner,), (name,)) for inner, name in pairs if name]


def _attributes(**values: Attribute) -> Mapping[str, Attribute]:
    return MappingProxyType(values)


def _ints(node: Node, name: str, count: int) -> tuple[int, ...]:
    value = node.attributes.get(name, (0,) * max(count, 0))
    if not isinstance(value, tuple) or len(value) != count:
        _refuse_shape(node)
    return tuple(int(entry) for entry in value)


def _known(node: Node, course: Course, name: str) -> int:
    value = course.value(name)
    if value is None or value.size != 1:
        _refuse(node, course, name, "runs its subgraph as often")
    return int(value.reshape(-1)[0])


def _body(node: Node, name: str) -> Body:
    body = node.attributes.get(name)
    if not isinstance(body, Body):
        _refuse_shape(node)
    return body


def _refuse(node: Node, course: Course, name: str, what: str) -> NoReturn:
    why = "as the network's input says, which no implicit form can"
    if not course.depends(name):
        why = f"as {shown(name)!r} says, whose value cannot be told beforehand"
    raise UnsupportedModelError([f"{named(node)} {what} {why}; {_FIXED}"])


def _refuse_shape(node: Node) -> NoReturn:
    raise UnsupportedModelError([f"{named(node)} and its subgraph do not fit together; export the model again"])


_RUNS: Final[Mapping[str, Callable[[Node, Course], None]]] = MappingProxyType(
    {"If": _take, "Loop": _loop, "Scan": _scan}
)
