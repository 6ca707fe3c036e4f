"""ONNX's own description of every operator, and whether a node keeps to it: asked before any library sees the node.

Libraries in C++ trust what they are handed: a node with too few inputs, a stride of 0 or an axis beyond the rank may
end the process. What ONNX declares (inputs, outputs, attributes, types) is checked against its schemas; what it only
says in words (ranks, least values) against the tables below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
from onnx import TensorProto, defs

from idl_audit.graph.ir import Attribute, Body, Node, Reference, shown

_Option = defs.OpSchema.FormalParameterOption
_Type = defs.OpSchema.AttrType


@dataclass(frozen=True)
class Parameter:
    """One input or output as the schema declares it."""

    name: str
    required: bool
    variadic: bool
    same: bool
    """Whether all that a variadic one holds have one type."""
    group: str
    """Parameters of one group have one element type."""
    types: frozenset[str]
    """The types allowed, such as 'tensor(float)'."""


@dataclass(frozen=True)
class Operator:
    """An operator as one version of ONNX's operator set declares it."""

    since: int
    deprecated: bool
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    n_inputs: tuple[int, int]
    """Fewest and most inputs."""
    n_outputs: tuple[int, int]
    attributes: Mapping[str, tuple[str, bool]]
    """Name -> (kind, whether it is required)."""
    groups: frozenset[str]
    """Names of groups with a choice of types; every other group names its one type."""

    def input(self, k: int) -> Parameter:
        """Return the parameter that input k belongs to."""
        return self.inputs[min(k, len(self.inputs) - 1)]


@lru_cache(maxsize=1024)
def operator(name: str, opset: int) -> Operator | None:
    """Return the operator of this name in a version of the default operator set, None where it has none."""
    try:
        schema = defs.get_schema(name, opset)
    except defs.SchemaError:
        return None
    return Operator(
        schema.since_version,
        schema.deprecated,
        tuple(map(_parameter, schema.inputs)),
        tuple(map(_parameter, schema.outputs)),
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        MappingProxyType(
            {key: (str(entry.type).rpartition(".")[2], entry.required) for key, entry in schema.attributes.items()}
        ),
        frozenset(entry.type_param_str for entry in schema.type_constraints),
    )


def _parameter(declared: defs.OpSchema.FormalParameter) -> Parameter:
    return Parameter(
        declared.name,
        declared.option == _Option.Single,
        declared.option == _Option.Variadic,
        declared.is_homogeneous,
        declared.type_str,
        frozenset(declared.types),
    )


def newest_opset() -> int:
    """Return the newest version of the default operator set that is known."""
    return int(defs.onnx_opset_version())


def is_operator(name: str) -> bool:
    """Return whether some version of the default operator set has an operator of this name."""
    return bool(defs.has(name))


def means_the_same(name: str, opset: int, other: int) -> bool:
    """Return whether two versions of the default operator set have the same operator of this name."""
    mine, theirs = operator(name, opset), operator(name, other)
    return mine is not None and theirs is not None and mine.since == theirs.since


WITHDRAWN: Final = frozenset({"GroupNormalization"})
"""Operators whose first version was marked as deprecated afterwards: files of operator sets 18 to 20 have it."""


def node_faults(node: Node, opset: int) -> Iterator[str]:
    """Yield a sentence for everything in which the node itself is not what its schema asks for."""
    known = operator(node.op, opset)
    if known is None or (known.deprecated and node.op not in WITHDRAWN):
        yield f"{named(node)}: operator set {opset} has no {shown(node.op)}; export with its own operators"
        return
    yield from _arity_faults(node, "input", node.inputs, known.inputs, known.n_inputs)
    yield from _arity_faults(node, "output", node.outputs, known.outputs, known.n_outputs)
    if node.op == "BatchNormalization" and len(node.outputs) not in (1, known.n_outputs[1]):
        needed = f"1 or {known.n_outputs[1]}"
        yield f"{named(node)} has {len(node.outputs)} outputs where {needed} are needed; export the model again"
    for key, value in node.attributes.items():
        yield from _attribute_faults(node, key, value, known)
    for key, (_, required) in known.attributes.items():
        if required and key not in node.attributes:
            yield f"{named(node)} lacks its attribute {key}; export the model again"


def named(node: Node) -> str:
    """Return how messages call a node and its operator."""
    return f"{shown(node.op)} node '{shown(node.label)}'"


def _arity_faults(
    node: Node, what: str, names: Sequence[str], declared: Sequence[Parameter], counts: tuple[int, int]
) -> Iterator[str]:
    fewest, most = counts
    if not fewest <= len(names) <= most:
        allowed = f"{fewest} or more" if most >= 2**31 - 1 else str(fewest) if fewest == most else f"{fewest} to {most}"
        yield f"{named(node)} has {len(names)} {what}s where {allowed} are needed; export the model again"
        return
    for k, name in enumerate(names):
        parameter = declared[min(k, len(declared) - 1)]
        # A variadic output may be left out: a Split of which one part is used.
        if not name and (parameter.required or (parameter.variadic and what == "input")):
            yield f"{named(node)} lacks its {what} {k} ({parameter.name}); export the model again"


_KINDS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "INT": int,
        "FLOAT": float,
        "STRING": str,
        "TENSOR": np.ndarray,
        "SPARSE_TENSOR": np.ndarray,
        "GRAPH": Body,
        "TYPE_PROTO": str,
    }
)
_LISTS: Final[Mapping[str, type]] = MappingProxyType({"INTS": int, "FLOATS": float, "STRINGS": str})

_LEAST: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(
        (
            *("blocksize", "dilations", "group", "hidden_size", "kernel_shape", "num_groups", "num_outputs"),
            *("num_scan_inputs", "offset_group", "pooled_shape", "size", "strides"),
        ),
        1,
    )
)
"""The least value of an attribute, or of every entry of one, in whatever operator it stands."""


ELEMENT_TYPE_ATTRIBUTES: Final = frozenset(
    {"dtype", "output_datatype", "output_dtype", "softmax_precision", "stash_type", "to"}
)
"""Attributes that name an element type."""


def _attribute_faults(node: Node, key: str, value: Attribute, known: Operator) -> Iterator[str]:
    if key.startswith("__"):
        return  # ONNX reserves these for tools, which leave notes there
    if key not in known.attributes:
        yield f"{named(node)} has the attribute {shown(key)}, which it has no place for; export the model again"
        return
    kind, _ = known.attributes[key]
    if isinstance(value, Reference):
        return  # in a function that is not called; in every call a value takes its place
    if not _is_of_kind(value, kind):
        yield f"{named(node)} has the attribute {key} as something other than {kind}; export the model again"
    elif key in ELEMENT_TYPE_ATTRIBUTES and not (isinstance(value, str) or value in TensorProto.DataType.values()):
        yield f"{named(node)} names an element type {shown(str(value))} that there is not; export the model again"
    elif key in _LEAST and not all(entry >= _LEAST[key] for entry in _numbers(value)):
        yield f"{named(node)} has {key} below {_LEAST[key]} ({shown(str(value))}); export the model again"


def _is_of_kind(value: Attribute, kind: str) -> bool:
    if kind in _LISTS:
        return isinstance(value, tuple) and all(isinstance(entry, _LISTS[kind]) for entry in value)
    return kind in _KINDS and isinstance(value, _KINDS[kind])


def _numbers(value: Attribute) -> tuple[float, ...]:
    entries = value if isinstance(value, tuple) else (value,)
    return tuple(entry for entry in entries if isinstance(entry, (int, float)))


def type_faults(node: Node, types: Sequence[str], opset: int) -> Iterator[str]:
    """Yield a sentence for every input whose type the operator does not take, or that should be another's.

    Args:
        node: a node without `node_faults`.
        types: of each input, such as 'tensor(float)'; empty where it is not known, or left out.
        opset: version of the default operator set.
    """
    known = operator(node.op, opset)
    if known is None or not known.inputs:
        return
    groups: dict[str, str] = {}
    for k, found in enumerate(types):
        parameter = known.input(k)
        if not found:
            continue
        if found not in parameter.types:
            yield f"{named(node)} has {_plain(found)} as its input {k}, which it does not take; export the model again"
        elif parameter.group in known.groups and (parameter.same or not parameter.variadic):
            other = groups.setdefault(parameter.group, found)
            if other != found:
                yield f"{named(node)} mixes {_plain(other)} with {_plain(found)} inputs; export the model again"
                return


def _plain(kind: str) -> str:
    """Return 'float32' for 'tensor(float)', and 'a list of tensors' for a sequence."""
    if kind.startswith("seq("):
        return "a list of tensors"
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)


_ANY: Final = (0, 64)
_VECTOR: Final = (1, 1)
_UP_TO_VECTOR: Final = (0, 1)
_Ranks = tuple[tuple[int, int], ...]


def _at_least(rank: int) -> tuple[int, int]:
    return (rank, 64)


_POOLED: Final[_Ranks] = (_at_least(3),)
_RECURRENT: Final[_Ranks] = ((3, 3), (3, 3), (3, 3), (2, 2), _VECTOR, (3, 3), (3, 3), (2, 2))

RANKS: Final[Mapping[str, _Ranks]] = MappingProxyType(
    {
        "AveragePool": _POOLED,
        "BatchNormalization": (_at_least(1), _VECTOR, _VECTOR, _VECTOR, _VECTOR),
        "Compress": (_ANY, _VECTOR),
        "Concat": (_at_least(1),),
        "ConstantOfShape": (_VECTOR,),
        "Conv": (_at_least(3), _at_least(3), _VECTOR),
        "ConvInteger": (_at_least(3), _at_least(3)),
        "ConvTranspose": (_at_least(3), _at_least(3), _VECTOR),
        "CumSum": (_ANY, _UP_TO_VECTOR),
        "DepthToSpace": ((4, 4),),
        "Det": (_at_least(2),),
        "Expand": (_ANY, _VECTOR),
        "EyeLike": ((2, 2),),
        "Gather": (_at_least(1),),
        "GatherElements": (_at_least(1), _at_least(1)),
        "GatherND": (_at_least(1), _at_least(1)),
        "Gemm": ((2, 2), (2, 2), (0, 2)),
        "GlobalAveragePool": (_at_least(2),),
        "GlobalLpPool": (_at_least(2),),
        "GlobalMaxPool": (_at_least(2),),
        "GroupNormalization": (_at_least(2), _VECTOR, _VECTOR),
        "GRU": _RECURRENT,
        "If": (_UP_TO_VECTOR,),
        "InstanceNormalization": (_at_least(2), _VECTOR, _VECTOR),
        "LayerNormalization": (_at_least(1),),
        "LpPool": _POOLED,
        "LRN": (_at_least(2),),
        "LSTM": _RECURRENT,
        "MatMul": (_at_least(1), _at_least(1)),
        "MatMulInteger": (_at_least(1), _at_least(1)),
        "MaxPool": _POOLED,
        "MaxUnpool": (_at_least(3), _at_least(3), _VECTOR),
        "OneHot": (_ANY, _UP_TO_VECTOR, _VECTOR),
        "Pad": (_ANY, (1, 2), _UP_TO_VECTOR, _VECTOR),
        "QLinearConv": (
            *(_at_least(3), _UP_TO_VECTOR, _UP_TO_VECTOR, _at_least(3), _UP_TO_VECTOR, _UP_TO_VECTOR),
            *(_UP_TO_VECTOR, _UP_TO_VECTOR, _VECTOR),
        ),
        "Range": (_UP_TO_VECTOR, _UP_TO_VECTOR, _UP_TO_VECTOR),
        "Reshape": (_ANY, _VECTOR),
        "Resize": (_at_least(1), _VECTOR, _VECTOR, _VECTOR),
        "RNN": _RECURRENT,
        "ScatterElements": (_at_least(1), _at_least(1), _at_least(1)),
        "ScatterND": (_at_least(1), _at_least(1)),
        "Slice": (_at_least(1), _VECTOR, _VECTOR, _VECTOR, _VECTOR),
        "SpaceToDepth": ((4, 4),),
        "Split": (_at_least(1), _VECTOR),
        "Squeeze": (_ANY, _UP_TO_VECTOR),
        "Tile": (_ANY, _VECTOR),
        "TopK": (_at_least(1), _VECTOR),
        "Trilu": (_at_least(2), _UP_TO_VECTOR),
        "Unsqueeze": (_ANY, _UP_TO_VECTOR),
        "Upsample": (_at_least(1), _VECTOR),
    }
)
"""Fewest and most axes of each input, in order; of a variadic one, for all that it holds."""

_SPATIAL: Final = frozenset(
    {"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "MaxUnpool", "QLinearConv"}
)
"""Operators with an entry of these attributes for every axis behind the first two."""
_PER_AXIS: Final[Mapping[str, int]] = MappingProxyType(
    {"dilations": 1, "kernel_shape": 1, "output_padding": 1, "pads": 2, "strides": 1}
)

_ALONG: Final[Mapping[str, int]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *(
                    "ArgMax",
                    "ArgMin",
                    "Compress",
                    "Concat",
                    "Gather",
                    "GatherElements",
                    "Hardmax",
                    "LayerNormalization",
                ),
                *("LogSoftmax", "LpNormalization", "ScatterElements", "Softmax", "Split", "TopK", "Unique"),
            ),
            0,
        ),
        "Flatten": 1,
        "OneHot": 1,
    }
)
"""Operators whose `axis` counts the axes of their first input, and how many more there may be."""


def rank_faults(node: Node, ranks: Sequence[int | None]) -> Iterator[str]:
    """Yield a sentence for every input with too few or too many axes, and attribute that does not fit them.

    Args:
        node: a node without `node_faults`.
        ranks: of each input; None where it is not known, or left out.
    """
    limits = RANKS.get(node.op, ())
    if node.op == "BatchNormalization" and node.attributes.get("spatial") == 0:
        limits = limits[:1]  # before operator set 9: numbers for each entry, not for each channel
    for k, rank in enumerate(ranks):
        if rank is None or not limits or (k >= len(limits) and node.op != "Concat"):
            continue
        fewest, most = limits[min(k, len(limits) - 1)]
        if not fewest <= rank <= most:
            needed = (
                f"{fewest} or more" if most == _ANY[1] else str(fewest) if fewest == most else f"{fewest} to {most}"
            )
            yield f"{named(node)} has an input {k} of rank {rank} where {needed} is needed; export the model again"
    rank = ranks[0] if ranks else None
    if rank is not None:
        yield from _axis_faults(node, rank)
    if node.op in ("Conv", "ConvTranspose") and None not in ranks[:2] and ranks[0] != ranks[1]:
        yield f"{named(node)} has an input of rank {ranks[0]} and weights of rank {ranks[1]}; export the model again"


def _axis_faults(node: Node, rank: int) -> Iterator[str]:
    if node.op in _SPATIAL:
        for key, count in _PER_AXIS.items():
            value = node.attributes.get(key)
            if isinstance(value, tuple) and len(value) != count * (rank - 2):
                yield (
                    f"{named(node)} has {len(value)} numbers as {key} where its input of rank {rank} needs "
                    f"{count * (rank - 2)}; export the model again"
                )
    axis = node.attributes.get("axis")
    if node.op in _ALONG and isinstance(axis, int):
        more = _ALONG[node.op]
        if not -rank - more <= axis < rank + more:
            yield f"{named(node)} works along axis {axis} of an input of rank {rank}; export the model again"
    perm = node.attributes.get("perm")
    if node.op == "Transpose" and isinstance(perm, tuple) and sorted(map(int, perm)) != list(range(rank)):
        yield f"{named(node)} has a perm that is no order of the {rank} axes of its input; export the model again"
