"""Networks with several inputs: some held fixed, in what order, and all that move as one vector.

Analyses know one input u. A network f(a, b) is read as g(u) = f(a, b), u the numbers of a and then those of b, each in
the order in which the file has them. In the graph, Gathers take u apart and Reshapes give the parts their shapes; the
file itself is run with the parts. An input that the user fixes is a constant of the graph from the start.

Elsewhere: multi-input network, side input, conditioning.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.files import combined_sha256
from idl_audit.graph.fingerprint import array_sha256
from idl_audit.graph.ir import Dimension, Graph, Node, Value, live_inputs, shown
from idl_audit.graph.names import fresh_names
from idl_audit.graph.tensors import widened
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import OptionError, UnsupportedModelError

FLOATS: Final = ("float16", "float32", "float64")
"""The types of inputs that move by real numbers."""
WHOLE: Final = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
"""The types of inputs that move from whole number to whole number."""

_WIDE: Final = frozenset({"float32", "float64"})


@dataclass(frozen=True)
class InputChoice:
    """What the user says of a network's inputs."""

    names: tuple[str, ...] = ()
    """Those that move, in the order of the input vector; empty: all that are not fixed, as the file has them."""
    fixed: Mapping[str, AnyArray] = field(default_factory=lambda: MappingProxyType({}))
    """Those that are held fixed, with their values."""


AS_IT_IS: Final = InputChoice()
"""Nothing is said: all inputs move, in the file's order."""


def names_of(values: Iterable[Value]) -> str:
    """Return the names of inputs or outputs as messages list them."""
    return ", ".join(shown(value.name) for value in values)


def shape_text(shape: Sequence[Dimension]) -> str:
    """Return a declared shape as messages write it."""
    return "(" + ", ".join("?" if dim is None else str(dim) for dim in shape) + ")"


def sample_shape(value: Value) -> tuple[int, ...]:
    """Return the shape of one sample: the declared one with every symbolic dimension (the batch) set to 1.

    A fixed batch [N, ...] is not told by its shape: `lowering.fixed_batch` looks at the whole graph.

    Raises:
        UnsupportedModelError: where the file declares no shape, or a symbolic dimension behind the first.
    """
    if value.shape is None:
        raise UnsupportedModelError(
            (f"the input '{value.name}' declares no shape; export the model with a fixed shape",)
        )
    if any(not isinstance(dim, int) for dim in value.shape[1:]):
        raise UnsupportedModelError(
            (
                f"the input '{value.name}' has the shape {shape_text(value.shape)}; only the first axis (the batch) "
                "may be symbolic: export the model with fixed sizes",
            )
        )
    return tuple(dim if isinstance(dim, int) else 1 for dim in value.shape)


def has_batch_axis(value: Value) -> bool:
    """Return whether the first axis counts samples: only where its size is left open."""
    return bool(value.shape) and not isinstance((value.shape or (1,))[0], int)


# --- what is fixed ----------------------------------------------------------------------------------------------------


def fixed_values(inputs: Sequence[Value], given: Mapping[str, AnyArray], path: Path) -> dict[str, AnyArray]:
    """Return the values of the inputs that are held fixed, in the types that the file declares, 16-bit floats widened.

    Raises:
        OptionError: where there is no such input, or what is given does not fit it.
    """
    declared = {value.name: value for value in inputs}
    for name in given:
        if name not in declared:
            raise OptionError(f"--fix {shown(name)}: {path} has no such input; it has {names_of(inputs)}")
    return {name: widened(_fitted(declared[name], array)) for name, array in given.items()}


def _fitted(value: Value, array: AnyArray) -> AnyArray:
    what = f"--fix {shown(value.name)}"
    shape = _shape_in(value, array.shape)
    if shape is None:
        needed = "no declared shape" if value.shape is None else f"the shape {shape_text(value.shape)}"
        raise OptionError(
            f"{what}: the array has the shape {array.shape} and the input {needed}; give one sample of it"
        )
    if value.dtype not in (*FLOATS, *WHOLE, "bool"):
        raise OptionError(
            f"{what}: the input holds {value.dtype}, and numbers can be given; export the model without it"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.reshape(shape).astype(value.dtype)
    same = np.isfinite(made) if made.dtype.kind == "f" else made == array.reshape(shape)
    if not np.all(same):
        raise OptionError(f"{what}: the array holds numbers that no {value.dtype} is; the input takes {value.dtype}")
    made.setflags(write=False)
    return made


def _shape_in(value: Value, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of an array as the input takes it, for one sample; None where it does not fit."""
    declared = value.shape
    if declared is None:
        return shape
    for tried in (shape, (1, *shape)):
        if len(tried) == len(declared) and all(
            size == dim if isinstance(dim, int) else axis > 0 or size == 1
            for axis, (size, dim) in enumerate(zip(tried, declared, strict=True))
        ):
            return tried
    sizes = tuple(dim if isinstance(dim, int) else 1 for dim in declared)
    symbolic = any(not isinstance(dim, int) for dim in declared[1:])
    return None if symbolic or math.prod(sizes) != math.prod(shape) else sizes


# --- in what order ----------------------------------------------------------------------------------------------------


def with_choice(graph: Graph, names: Sequence[str], path: Path) -> Graph:
    """Return the graph whose inputs that move are these, in this order, and before all others.

    Its SHA-256 says of which function the graph is: of what is fixed, and the order.

    Raises:
        OptionError: where there is no such input, or one is named twice, or fixed.
    """
    known = {value.name: value for value in graph.inputs}
    for name in names:
        if name in {value.name for value in graph.fixed}:
            raise OptionError(f"--input-name {shown(name)}: it is held fixed by --fix; leave one of the two out")
        if name not in known:
            raise OptionError(f"--input-name {shown(name)}: {path} has no such input; it has {names_of(graph.inputs)}")
    if len(set(names)) != len(names):
        raise OptionError("--input-name names an input twice; name each once, in the order of the input vector")
    if not graph.inputs:
        raise OptionError(f"--fix holds every input of {path} fixed; leave one to move")
    chosen = [known[name] for name in names]
    made = combined_sha256(graph.provenance.sha256, _choice_sha256(graph, names))
    return replace(
        graph,
        inputs=(*chosen, *(value for value in graph.inputs if value.name not in names)),
        provenance=replace(graph.provenance, sha256=made),
    )


def _choice_sha256(graph: Graph, names: Sequence[str]) -> tuple[str, ...]:
    """Return what makes another function of the file's: the hash of each fixed input, and of another order.

    Args:
        graph: with the inputs in the file's order.
        names: the order of those that move, where the user says it.
    """
    digests = [array_sha256(graph.constants[value.name], value.name) for value in graph.fixed]
    own = [value.name for value in graph.inputs if value.name in names]
    if own != list(names):
        digests.append(hashlib.sha256(repr(tuple(names)).encode()).hexdigest())
    return tuple(sorted(digests))


def check_chosen(graph: Graph, names: Sequence[str], output: str, path: Path) -> None:
    """Refuse inputs that the output depends on and that nobody speaks of, and names of others.

    Raises:
        OptionError: with their names.
    """
    if not names:
        return
    read = {value.name: value for value in live_inputs(graph, output)}
    left = [value for name, value in read.items() if name not in names]
    if left:
        raise OptionError(
            f"{path} depends on {names_of(left)} as well, which --input-name leaves out; name it there, or hold it "
            f"fixed with --fix {shown(left[0].name)}=FILE"
        )
    for name in names:
        if name not in read:
            raise OptionError(
                f"--input-name {shown(name)}: the output {shown(output)!r} does not depend on it; leave it out"
            )


# --- as one vector ----------------------------------------------------------------------------------------------------


def with_one_input(graph: Graph, output: str) -> Graph:
    """Return the graph with one input for all that `output` depends on: itself where that is one already.

    The vector has the shape (samples, p) where the first axis of every part is left open, else (1, p).

    Raises:
        UnsupportedModelError: where an input has no fixed size, or holds no floats.
    """
    read = live_inputs(graph, output)
    if len(read) <= 1:
        return replace(graph, inputs=read)
    _check_moving(read)
    shapes = [sample_shape(value) for value in read]
    sizes = [math.prod(shape) for shape in shapes]
    batched = all(map(has_batch_axis, read))
    kinds = {value.dtype for value in read}
    names = _fresh(graph, len(read))
    entry = Value(names["all"], (None if batched else 1, sum(sizes)), kinds.pop() if len(kinds) == 1 else "float32")
    constants: dict[str, AnyArray] = {}
    nodes: list[Node] = []
    for k, (value, shape) in enumerate(zip(read, shapes, strict=True)):
        constants[names[f"places {k}"]] = np.arange(sum(sizes[:k]), sum(sizes[: k + 1]))
        constants[names[f"shape {k}"]] = np.array((0, *shape[1:]) if batched else shape, np.int64)
        nodes += _taken_out(names, k, value, entry)
    return replace(
        graph,
        inputs=(entry,),
        parts=read,
        nodes=(*nodes, *graph.nodes),
        constants=MappingProxyType({**graph.constants, **constants}),
    )


def _fresh(graph: Graph, n: int) -> Mapping[str, str]:
    taken = {value.name for value in graph.inputs} | set(graph.constants)
    taken |= {name for node in graph.nodes for name in node.outputs}
    return fresh_names("inputs", ["all", *(f"{what} {k}" for k in range(n) for what in _OF_A_PART)], taken)


_OF_A_PART: Final = ("places", "part", "shape", "uncast")
_ELEMENT_TYPES: Final[Mapping[str, int]] = MappingProxyType({"float32": 1, "float64": 11})  # TensorProto's numbers


def _taken_out(names: Mapping[str, str], k: int, value: Value, entry: Value) -> list[Node]:
    """Return the nodes that make part k of the vector what the file reads."""
    places, part, shape, uncast = (names[f"{what} {k}"] for what in _OF_A_PART)
    made = value.name if value.dtype == entry.dtype else uncast
    nodes = [
        Node("Gather", part, (entry.name, places), (part,), {"axis": 1}),
        Node("Reshape", shape, (part, shape), (made,)),
    ]
    if made == uncast:
        nodes.append(Node("Cast", uncast, (uncast,), (value.name,), {"to": _ELEMENT_TYPES[value.dtype]}))
    return nodes


def _check_moving(values: Sequence[Value]) -> None:
    """Refuse inputs that cannot be part of one vector of floats."""
    for value in values:
        if value.dtype not in FLOATS:
            raise UnsupportedModelError(
                [
                    f"the input '{shown(value.name)}' holds {value.dtype}, which no small change moves; hold it fixed "
                    f"with --fix {shown(value.name)}=FILE"
                ]
            )
    kinds = {value.dtype for value in values}
    if len(kinds) > 1 and not kinds <= _WIDE:
        raise UnsupportedModelError(
            [
                f"the inputs {names_of(values)} hold {' and '.join(sorted(kinds))}, and one vector holds numbers of "
                "one type; export the model with inputs of one type"
            ]
        )


def taken_apart(rows: AnyArray, parts: Sequence[Value]) -> dict[str, AnyArray]:
    """Return each input's own array out of rows of the whole vector, shape (n, p), by name."""
    found, start = {}, 0
    for value in parts:
        shape = sample_shape(value)
        part = rows[:, start : start + math.prod(shape)]
        start += math.prod(shape)
        found[value.name] = part.reshape((len(rows), *shape[1:]) if has_batch_axis(value) else shape).astype(
            value.dtype
        )
    return found
