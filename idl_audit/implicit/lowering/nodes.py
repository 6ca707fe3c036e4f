"""One node of a network after the other: constants are folded, the rest is lowered by its table, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from idl_audit.graph.folding import fold_node
from idl_audit.graph.inference import (
    TensorType,
    element_of,
    float_type,
    known_shape,
    output_types,
    rank_of,
    schema_type,
    type_of,
)
from idl_audit.graph.ir import Node, Refused, shown
from idl_audit.graph.schemas import rank_faults, type_faults
from idl_audit.implicit.affine import AffineForm, OnGrid, PartlyAbsent, Whole, alike
from idl_audit.implicit.composition import LARGEST_COEFFICIENT
from idl_audit.implicit.lowering import CONSTANT, LOWERINGS
from idl_audit.implicit.lowering.choice import Choices, Condition, Known
from idl_audit.implicit.lowering.jumps import within_reach
from idl_audit.implicit.lowering.norm_chains import NormChains
from idl_audit.implicit.lowering.refusals import refuse_operator
from idl_audit.implicit.lowering.sequences import SEQUENCES, TensorList, lower_sequence
from idl_audit.implicit.walk import TensorValue, Walk, refuse, refuse_infinity, refuse_range
from idl_audit.values.arrays import AnyArray, BoolArray
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError

BOUNDED: Final = frozenset(
    {
        *(
            "Add",
            "Attention",
            "Clip",
            "Concat",
            "Max",
            "Min",
            "OneHot",
            "Pad",
            "Scatter",
            "ScatterElements",
            "ScatterND",
        ),
        *("TensorScatter", "Where"),
    }
)
"""Operators whose lowerings see to infinite constants themselves: a bound that never binds, an entry that is masked."""

PASSES_OVER: Final = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax", "Softmax"})
"""Operators that read tensors with entries of minus infinity: these are never the largest, and have no share."""


_FLOATS: Final = frozenset({"float16", "bfloat16", "float32", "float64"})
_MOST_STANDING_IN: Final = 2**24
"""Entries of all forms that stand in for what is not read: beyond it, names alone are followed."""


def _rank_faults(node: Node, types: Sequence[TensorType | None]) -> list[str]:
    return list(rank_faults(node, [rank_of(kind) for kind in types]))


@dataclass
class Progress:
    """The network as far as it has been walked: what every name stands for, and what could not be read."""

    walk: Walk
    values: dict[str, Known]
    makers: Mapping[str, Node]
    problems: list[str] = field(default_factory=list)
    too_large: list[MemoryLimitError] = field(default_factory=list)
    lost: dict[str, TensorType | None] = field(default_factory=dict)
    """Tensors that depend on the input and have no form, with what is known of their type."""
    standing_in: int = 0
    """Entries of the forms that stand in for others."""
    steps: dict[tuple[str, str, bool, tuple[int, ...]], AffineForm] = field(default_factory=dict)
    """What conditions are as tensors, as far as they were asked for."""

    def lower(self, node: Node) -> None:
        """Lower one node, or note why it cannot be; a form of its result's shape stands in, so that all is found."""
        if isinstance(node, Refused):
            shapes = zip(node.outputs, node.shapes, strict=True)
            self._stand_in(node, {name: None if shape is None else float_type(shape) for name, shape in shapes})
            return
        depends = any(
            name in self.lost or isinstance(self.values.get(name), (AffineForm, Condition, TensorList))
            for name in node.inputs
        )
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
                results = self._results(node, depends=depends)
        except UnsupportedModelError as error:
            self.problems.extend(error.problems)
            results = ()
        except MemoryLimitError as error:
            self.too_large.append(error)
            results = ()
        except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # a node whose attributes and inputs contradict each other in a way that no check foresaw
            why = " ".join(f"{type(error).__name__}: {error}".split())
            label = shown(node.label)
            self.problems.append(f"{node.op} node '{label}' has inputs or attributes that do not fit ({why})")
            results = ()
        self.values.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name)
        if depends and not results:
            self._stand_in(node, dict(zip(node.outputs, self._types(node), strict=True)))

    def check(self, others: Sequence[str]) -> None:
        """Raise what could not be read, together with `others`.

        Raises:
            UnsupportedModelError: with all of it, what would be too large included.
            MemoryLimitError: where that is all there is.
        """
        problems = [*others, *self.problems]
        if problems:
            raise UnsupportedModelError([*problems, *map(str, self.too_large)])
        if self.too_large:
            raise self.too_large[0]

    def _stand_in(self, node: Node, types: Mapping[str, TensorType | None]) -> None:
        """Put forms of their shapes in the place of the floats that a node would make; others are lost."""
        for name, kind in types.items():
            shape = known_shape(kind) if element_of(kind) in _FLOATS else None
            if name and shape is not None and 0 < math.prod(shape) <= _MOST_STANDING_IN - self.standing_in:
                self.standing_in += math.prod(shape)
                nothing = AffineForm(shape, {}, np.zeros(math.prod(shape)))
                self.values[name] = self.walk.cut(node, nothing, suffix="/unread")
            elif name:
                self.lost[name] = kind

    def _types(self, node: Node) -> list[TensorType | None]:
        """Return the types of a node's outputs, as far as its inputs tell."""
        given = [self._type(name) if name else None for name in node.inputs]
        unknown: list[TensorType | None] = [None] * len(node.outputs)
        if any(kind is None for name, kind in zip(node.inputs, given, strict=True) if name):
            return unknown
        found = [self.values.get(name) for name in node.inputs]
        opset = self.walk.opset
        faults = [*type_faults(node, [schema_type(kind) for kind in given], opset), *_rank_faults(node, given)]
        if faults:
            return unknown
        try:
            return output_types(node, given, [v if isinstance(v, np.ndarray) else None for v in found], opset)
        except Exception:  # whatever onnx says of a node that contradicts itself
            return unknown

    def _type(self, name: str) -> TensorType | None:
        value = self.values.get(name)
        if isinstance(value, AffineForm):
            return float_type(value.shape)
        if isinstance(value, np.ndarray):
            return float_type(value.shape) if value.dtype.kind == "f" else type_of(value)
        return self.lost.get(name)

    def _results(self, node: Node, *, depends: bool) -> tuple[Known, ...]:
        if any(name and name not in self.values for name in node.inputs):  # something before failed
            if depends and node.op not in {*LOWERINGS, *SEQUENCES}:
                refuse_operator(node)
            return ()
        choices = Choices(self.makers, self.values, self.steps)
        if choices.concern(node):
            made = choices.lower(node, self.walk)
            if made is not None:
                return (_checked(node, made),)
        norm = NormChains(self.makers, self.values).lower(node, self.walk)
        if norm is not None:
            return (_checked(node, norm),)
        found = [self.values[name] if name else None for name in node.inputs]
        items = [choices.as_tensor(value, self.walk) if isinstance(value, Condition) else value for value in found]
        if node.op in SEQUENCES or any(isinstance(value, TensorList) for value in items):
            if any(isinstance(value, Whole) for value in items):
                refuse(node, "puts whole numbers that depend on the input into a list; Cast them to floats before it")
            return (_checked(node, lower_sequence(node, items, self.walk)),)
        return _lowered(node, [value for value in items if not isinstance(value, TensorList)], self.walk)


def _lowered(node: Node, arguments: list[TensorValue | None], walk: Walk) -> tuple[Known, ...]:
    constants = [value for value in arguments if not isinstance(value, AffineForm)]
    if len(constants) == len(arguments) and node.op not in CONSTANT:
        return _folded(node, constants, walk.opset)
    if node.op not in LOWERINGS:
        refuse_operator(node)
    if any(isinstance(value, PartlyAbsent) for value in arguments) and node.op not in PASSES_OVER:
        refuse(node, f"reads entries that are minus infinity, which only {', '.join(sorted(PASSES_OVER))} pass over")
    if node.op not in BOUNDED:
        for value in constants:
            refuse_infinity(node, value)
    source = _kept(node, arguments)
    if any(isinstance(value, Whole) for value in arguments) and node.op in _WITH_NUMBERS:
        _refuse_inexact(node, constants)
    results = LOWERINGS[node.op](node, _with_constants(arguments), walk)
    absent = [result.absent if isinstance(result, PartlyAbsent) else None for result in results]
    ended = walk.finished(node, arguments, results)
    results = tuple(_alike(after, made) for after, made in zip(ended, results, strict=True))
    if source is not None:
        if isinstance(source, Whole) and node.op in _ADD_UP:
            results = tuple(_within(node, result, source.kind, walk) for result in results)
        results = tuple(_alike(result, source) for result in results)
    return tuple(_checked(node, _absent(result, mask)) for result, mask in zip(results, absent, strict=True))


def _within(node: Node, result: TensorValue, kind: str, walk: Walk) -> TensorValue:
    """Return sums and products of whole numbers where their type has them."""
    return within_reach(node, result, kind, walk) if isinstance(result, AffineForm) else result


def _absent(result: TensorValue, mask: BoolArray | None) -> TensorValue:
    """Return the result with the entries that stand for minus infinity, which no rounding changes."""
    if mask is None or not isinstance(result, AffineForm):
        return result
    return PartlyAbsent(result.shape, result.terms, result.constant, result.constant_error, absent=mask)


def _alike(value: TensorValue, other: TensorValue) -> TensorValue:
    return alike(value, other) if isinstance(value, AffineForm) and isinstance(other, AffineForm) else value


_ONLY_MOVE: Final = frozenset(
    {*("Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")}
)
"""Operators each of whose results is one of the numbers that they read."""

_MOVE: Final = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape"),
        *("Pad", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        *("Max", "MaxPool", "Min", "ReduceMax", "ReduceMin", "Relu"),
    }
)
"""Operators that make the same of whole numbers as of others, and never a larger one."""

_ADD_UP: Final = frozenset({"Abs", "Add", "Clip", "MatMul", "Mul", "Neg", "ReduceSum", "Sub", "Sum"})
"""Operators that do so of int32 and int64, as long as the results are numbers of that type (`within_reach`)."""

_OF_ANY_TYPE: Final = frozenset(
    {
        *("And", "Cast", "CastLike", "DequantizeLinear", "Not", "Or", "QLinearConv", "QLinearMatMul", "Where", "Xor"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Shape", "Size"),
    }
)
"""Operators whose lowerings see to the types of what they read."""


def _kept(node: Node, arguments: Sequence[TensorValue | None]) -> AffineForm | None:
    """Return the argument whose type, or grid, the results have as well; None where they need not have one.

    Raises UnsupportedModelError where it might do otherwise with whole numbers than with others.
    """
    whole = [value for value in arguments if isinstance(value, Whole)]
    if not whole:
        first = arguments[0] if arguments else None
        alone = all(value is None or isinstance(value, np.ndarray) for value in arguments[1:])
        return first if isinstance(first, OnGrid) and alone and node.op in _ONLY_MOVE else None
    if node.op in _OF_ANY_TYPE:
        return None
    if node.op in _MOVE or (node.op in _ADD_UP and whole[0].kind in ("int32", "int64")):
        return whole[0]
    refuse(
        node,
        f"computes with {whole[0].kind} that depend on the input, and may round or overflow there; Cast them to "
        "floats, or DequantizeLinear them, before it",
    )


_WITH_NUMBERS: Final = frozenset(
    {*_ADD_UP, *("Concat", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Pad", "Where")}
)
"""Operators that compute with whole numbers and constants of their type, or choose among these."""


def _refuse_inexact(node: Node, constants: Sequence[AnyArray | None]) -> None:
    """Refuse constants that float64, in which forms are kept, does not hold; the ends of a type bind nothing."""
    for value in constants:
        if value is None or value.dtype.kind not in "iu" or value.dtype.itemsize < 8:
            continue
        beyond = (value > _MOST_EXACT) | (value < -_MOST_EXACT)
        if node.op in ("Clip", "Max", "Min"):
            beyond &= (value != np.iinfo(value.dtype).min) & (value != np.iinfo(value.dtype).max)
        if beyond.any():
            refuse(node, f"computes with {value.dtype.name} beyond 2^53; Cast to floats before it")


_MOST_EXACT: Final = 2**53


def _with_constants(arguments: list[TensorValue | None]) -> list[TensorValue | None]:
    """Return the arguments, forms that are constants (a power 0, say) as such, where another one is not."""
    if not any(isinstance(value, AffineForm) and value.terms for value in arguments):
        return arguments
    return [
        value.constant.reshape(value.shape)
        if isinstance(value, AffineForm) and not value.terms and not value.constant_error
        else value
        for value in arguments
    ]


def _checked(node: Node, result: Known) -> Known:
    """Return what a node makes, whose constants must be within the range."""
    if isinstance(result, AffineForm) and not _is_finite(result):
        refuse_range(node, "makes constants")
    return result


def _is_finite(form: AffineForm) -> bool:
    return bool((np.abs(form.constant) <= LARGEST_COEFFICIENT).all()) and form.constant_error <= LARGEST_COEFFICIENT


_COMPUTED: Final = frozenset(
    {"Add", "Div", "Exp", "Gemm", "MatMul", "Mul", "Pow", "ReduceProd", "ReduceSum", "Sub", "Sum"}
)
"""Operators whose results may be infinite where no input is."""


def _folded(node: Node, arguments: list[AnyArray | None], opset: int) -> tuple[AnyArray, ...]:
    """Return the results of a node that reads constants alone; what leaves the range of its type is refused."""
    results = fold_node(node, arguments, opset)
    real = [array for array in arguments if array is not None and array.dtype.kind == "f"]
    made = [result for result in results if result.dtype.kind == "f"]
    before, after = (all(np.isfinite(array).all() for array in arrays) for arrays in (real, made))
    if node.op in _COMPUTED and before and not after:
        refuse(node, "computes constants beyond the range of their type; scale the constants that it reads")
    if node.op == "Mul" and len(real) == 2 and not bool((results[0] != 0)[(real[0] != 0) & (real[1] != 0)].all()):
        refuse(node, "multiplies constants to numbers below the range of their type; scale them")
    return results
