"""Walk: what a lowering may do while the graph is walked - read shapes, map forms, make blocks of states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, NoReturn, TypeAlias

import numpy as np

from idl_audit.graph.ir import Attribute, Node
from idl_audit.implicit.activations import Activation
from idl_audit.implicit.activations.jumping import Jumping
from idl_audit.implicit.activations.kinked import identity
from idl_audit.implicit.activations.product import product
from idl_audit.implicit.affine import AffineForm, Whole
from idl_audit.implicit.composition import (
    LARGEST_COEFFICIENT,
    LEAST_COEFFICIENT,
    is_in_range,
    stays_in_range,
)
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import PoolWindows, StateBlock
from idl_audit.values.arrays import AnyArray, BoolArray, FloatArray, IntArray
from idl_audit.values.check import enough
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError

TensorValue: TypeAlias = AffineForm | AnyArray
"""A tensor of the network: constant, or an affine form over states and input."""

BYTES_PER_ENTRY = 12
"""A float64 and a 32-bit column index."""


@dataclass(frozen=True)
class PendingBlock:
    """A block as it is made: its description and the affine form that is its pre-activation."""

    block: StateBlock
    form: AffineForm


@dataclass
class Walk:
    """The state of one walk over a graph; blocks are numbered in the order they are made."""

    opset: int
    max_bytes: int | None = None
    pending: list[PendingBlock] = field(default_factory=list)
    demanded: set[int] = field(default_factory=set)
    """Blocks that a model of the network has although its output does not depend on them."""
    keeps_apart: ClassVar[bool] = False
    """Whether numbers that a runtime rounds within an operator are states of their own (`apart`)."""

    def states(
        self,
        node: Node,
        activation: Activation,
        form: AffineForm,
        *,
        suffix: str = "",
        maximum: PoolWindows | None = None,
    ) -> AffineForm:
        """Make the block x = phi(form) and return the form "x", of the same shape.

        Where an activation jumps, what it makes of numbers that do not depend on the input is a constant: over
        intervals both sides of a threshold would be possible there.
        """
        if isinstance(activation, Jumping) and maximum is None:
            known, moves = self._known_values(activation, form)
            if moves is not None:
                return self._with_known(node, activation, form, suffix, known, moves)
        block = StateBlock(node.label + suffix, node.op, activation, form.shape, maximum)
        self.pending.append(PendingBlock(block, form))
        made = AffineForm.of_source(len(self.pending) - 1, form.shape)
        return replace(made, constant_error=node.uncertainty)

    @staticmethod
    def _known_values(activation: Jumping, form: AffineForm) -> tuple[FloatArray, BoolArray | None]:
        """Return what an activation makes of the constant entries of a form, flat, and which entries are others.

        None stands for all of them.
        """
        is_known = form.is_constant
        if not is_known.any():
            return form.constant, None
        values, exact = activation.exactly(form.constant)
        is_known &= exact
        return np.where(is_known, values, 0.0), ~is_known if is_known.any() else None

    def _with_known(
        self, node: Node, activation: Jumping, form: AffineForm, suffix: str, known: FloatArray, moves: BoolArray
    ) -> AffineForm:
        """Return a tensor of known numbers, and of states where entries depend on the input."""
        if not moves.any():
            return AffineForm(form.shape, {}, known, node.uncertainty)
        some = np.flatnonzero(moves)
        made = self.states(node, activation.of_states(some), form.selected(some), suffix=suffix)
        places = np.full(form.size, -1, np.int64)
        places[some] = np.arange(some.size)
        return made.selected(places.reshape(form.shape)).shifted(known)

    def products(
        self,
        node: Node,
        first: AffineForm,
        at_first: IntArray,
        second: AffineForm,
        at_second: IntArray,
        *,
        suffix: str = "/product",
    ) -> AffineForm:
        """Return first[at_first] * second[at_second], entry by entry: a block of pairs of states.

        Args:
            node: the operator that multiplies.
            first, second: the tensors.
            at_first, at_second: flat positions in them, of one shape, that of the result.
        """
        self.allow(node, 4 * at_first.size)
        first, second = (
            self.cheap(node, form, name) for form, name in ((first, f"{suffix}/first"), (second, f"{suffix}/second"))
        )
        moves = ~(first.is_zero[at_first] | second.is_zero[at_second])
        n = int(moves.sum())
        if not n:
            return AffineForm(at_first.shape, {}, np.zeros(at_first.size))
        places = np.full((2, n, 2), -1, np.int64)
        places[0, :, 0], places[1, :, 1] = at_first[moves], at_second[moves]
        pairs = first.selected(places[0].reshape(1, -1)).plus(second.selected(places[1].reshape(1, -1)))
        made = self.states(node, product(), pairs, suffix=suffix)
        result = np.full(at_first.shape, -1, np.int64)
        result[moves] = np.arange(0, 2 * n, 2)
        return made.selected(result)

    def cheap(self, node: Node, form: AffineForm, suffix: str) -> AffineForm:
        """Return the form, or states that stand for it where it reads more than two numbers an entry."""
        return form if form.nnz <= 2 * form.size else self.cut(node, form, suffix=suffix)

    def cut(
        self, node: Node, form: AffineForm, *, suffix: str = "/cut", maximum: PoolWindows | None = None
    ) -> AffineForm:
        """Make an identity block of the form, so that what follows is not multiplied with what came before."""
        return self.states(node, identity(), form, suffix=suffix, maximum=maximum)

    def linear(
        self,
        node: Node,
        linear_map: LinearMap,
        form: AffineForm,
        shape: Sequence[int],
        *,
        offset: FloatArray | None = None,
        offset_error: float = 0.0,
    ) -> AffineForm:
        """Return linear_map (form) + offset: multiplied out where that holds no more entries than the factors."""
        if not is_in_range(linear_map):
            refuse_range(node, "has weights")
        costly = form.product_nnz(linear_map) > linear_map.nnz + form.nnz
        if costly or not all(stays_in_range(linear_map, term) for term in form.terms.values()):
            form = self.cut(node, form)
        self.allow(node, form.product_nnz(linear_map))
        return form.mapped(linear_map, tuple(shape), offset=offset, offset_error=offset_error)

    def finished(
        self, node: Node, arguments: Sequence[TensorValue | None], results: tuple[TensorValue, ...]
    ) -> tuple[TensorValue, ...]:
        """Return what stands for a node's outputs from now on; a walk that keeps operators apart cuts here."""
        return results

    def apart(self, node: Node, form: AffineForm, suffix: str) -> AffineForm:
        """Return what stands for a number that a runtime rounds within an operator: states, where such are kept."""
        return form

    def scaled(self, node: Node, form: AffineForm, factor: float, *, relative: float = 0.0) -> AffineForm:
        """Return factor * form; `relative` bounds the factor's own error."""
        if factor == 1.0 and not relative:
            return form
        weights = np.full(form.size, factor)
        return self.linear(node, Selection.diagonal(weights).uncertain(relative), form, form.shape)

    def select(self, node: Node, form: AffineForm, index: IntArray, fill: float = 0.0) -> AffineForm:
        """Return the entries of the form at `index` (-1 gives `fill`); entries that are costly and repeated are cut."""
        used = int((index >= 0).sum())
        if form.product_nnz(Selection(index=index.reshape(-1), size_in=form.size)) > used + form.nnz:
            form = self.cut(node, form)
        return form.selected(index, fill)

    def allow(self, node: Node, entries: int) -> None:
        """Raise MemoryLimitError where the node would need more entries of a matrix than the limit leaves room for."""
        if self.max_bytes is not None and entries * BYTES_PER_ENTRY > self.max_bytes:
            needed = entries * BYTES_PER_ENTRY
            raise MemoryLimitError(
                f"{node.op} node '{node.label}' has about {entries:,} nonzeros ({needed / 1e9:.2f} GB), above the "
                f"limit of {self.max_bytes / 1e9:.2f} GB; raise --max-memory to {enough(needed)} or audit a smaller "
                "model"
            )


def refuse_range(node: Node, what: str) -> NoReturn:
    """Refuse numbers whose products leave the range of float64."""
    refuse(
        node,
        f"{what} other than 0 below {LEAST_COEFFICIENT:g} or above {LARGEST_COEFFICIENT:g}, whose products leave the "
        "range of float64: scale them, or export the model in float32",
    )


def refuse(node: Node, why: str) -> NoReturn:
    """Raise the refusal of one node in one sentence."""
    raise UnsupportedModelError((f"{node.op} node '{node.label}' {why}",))


LARGEST_BOUND = 1e12
"""Beside constants beyond this, sums lose the digits of what a network computes.

They cannot be left out either: no bound that holds for every input says that the network stays on one side of them.
"""

NO_BOUND = float(np.finfo(np.float32).max)
"""No float32 lies beyond this, so that a bound as large is none."""


def refuse_swallowing(node: Node, *constants: float) -> None:
    """Refuse constants so large (-1e30, meant as "none") that sums with them swallow the network's numbers."""
    for constant in constants:
        if abs(constant) > LARGEST_BOUND:
            refuse(
                node,
                f"has the bound {constant:g}, beyond {LARGEST_BOUND:g}: sums with it lose the digits of the network's "
                "own numbers; if it means no bound, export the model without it",
            )


def refuse_infinity(node: Node, constant: TensorValue | None) -> None:
    """Refuse constants that are infinite or no numbers, where they would become weights."""
    if isinstance(constant, np.ndarray) and constant.dtype.kind == "f" and not np.isfinite(constant).all():
        what = "NaN" if np.isnan(constant).any() else "infinity"
        refuse(
            node,
            f"reads a constant that holds {what}, which no weight can be; write a finite number in its place "
            "(infinity is understood as a bound of Clip, Max and Min)",
        )


def form_input(node: Node, values: Sequence[TensorValue | None], k: int) -> AffineForm:
    """Return input k, which must depend on the network's input."""
    value = values[k] if k < len(values) else None
    if isinstance(value, AffineForm):
        return value
    refuse(
        node,
        f"has a constant, or nothing, as its input {k}, and can be read only where that one depends on the network's "
        "input: let what is constant be computed beforehand",
    )


ONLY_CONSTANTS: Final = (
    "only constants can be handled there: audit the network behind it (onnx.utils.extract_model), or hold fixed with "
    "--fix what it is made of"
)


def constant_input(node: Node, values: Sequence[TensorValue | None], k: int, what: str) -> AnyArray:
    """Return input k, which must be a constant."""
    value = optional_constant(node, values, k, what)
    if value is None:
        refuse(node, f"has no {what} (input {k})")
    return value


def optional_constant(node: Node, values: Sequence[TensorValue | None], k: int, what: str) -> AnyArray | None:
    """Return input k, a constant, or None where it is left out."""
    value = values[k] if k < len(values) else None
    if isinstance(value, AffineForm):
        refuse(node, f"has a {what} (input {k}) that depends on the network's input; {ONLY_CONSTANTS}")
    return value


def type_of(value: TensorValue | None) -> str:
    """Return the type of a tensor of whole numbers or truth values; empty for floats."""
    if isinstance(value, Whole):
        return value.kind
    return value.dtype.name if isinstance(value, np.ndarray) and value.dtype.kind in "iub" else ""


def int_attribute(node: Node, name: str, default: int) -> int:
    """Return an integer attribute."""
    value = node.attributes.get(name, default)
    if not isinstance(value, int):
        refuse(node, f"has an attribute {name} that is no integer")
    return value


def float_attribute(node: Node, name: str, default: float, *, bound: bool = False) -> float:
    """Return a float attribute: a finite number, or where it is a `bound`, infinity as well."""
    value = node.attributes.get(name, default)
    if not isinstance(value, (int, float)):
        refuse(node, f"has an attribute {name} that is no number")
    if math.isnan(value) or (math.isinf(value) and not bound):
        refuse(node, f"has an attribute {name} that is {value}; a finite number is needed")
    return float(value)


def text_attribute(node: Node, name: str, default: str) -> str:
    """Return a string attribute."""
    value = node.attributes.get(name, default)
    if not isinstance(value, str):
        refuse(node, f"has an attribute {name} that is no text")
    return value


def ints_attribute(node: Node, name: str, default: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return a list-of-integers attribute, or the default where it is absent."""
    value: Attribute | None = node.attributes.get(name, default)
    if value is None:
        return None
    if not isinstance(value, tuple) or not all(isinstance(item, int) for item in value):
        refuse(node, f"has an attribute {name} that is no list of integers")
    return tuple(int(item) for item in value)


def flat_indices(shape: Sequence[int]) -> IntArray:
    """Return 0, 1, 2, ... in the given shape."""
    return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(tuple(shape))
