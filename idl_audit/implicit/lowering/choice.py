"""Choices by comparisons that depend on the input: kinked activations, and steps where the two sides do not agree.

Where(x > t, a x + b, c x + d) is c x + d + (a - c) relu(x - t), and where a t + b and c t + d are not equal, a step of
their difference at t more. Where(v > w, v, w) is Max(v, w), whatever v and w are. A comparison that is no part of such
a choice is a step of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations import kinked
from idl_audit.implicit.affine import AffineForm, typed
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering.arithmetic import broadcast
from idl_audit.implicit.lowering.identities import type_cast_to
from idl_audit.implicit.lowering.jumps import COMPARISONS, is_above
from idl_audit.implicit.lowering.maxima import lower_max, lower_min
from idl_audit.implicit.lowering.movement import between
from idl_audit.implicit.lowering.sequences import TensorList
from idl_audit.implicit.walk import TensorValue, Walk, refuse, type_of
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import gamma

_PASSED_ON: Final = frozenset({"Cast", "CastLike", "Identity"})
"""Operators that leave a condition what it is: as a number it is 1 or 0."""

PLAIN_CHOICE: Final = "Where by a plain comparison"
"""What a walk is told of a choice in which nothing is rounded but one product."""

DEEPEST: Final = 16
"""Operators that are followed from a tensor back to what it is a multiple of."""


@dataclass(frozen=True)
class Condition:
    """Where tensor `left` is above tensor `right`: a truth value, or a 1, for each entry."""

    node: Node
    left: str
    right: str
    shape: tuple[int, ...]
    strictly: bool = True
    """Whether where both are equal it does not hold."""
    kind: str = "bool"
    """The type of the truth values; empty for floats."""

    @property
    def key(self) -> tuple[str, str, bool, tuple[int, ...]]:
        """What tells it from others, as a number."""
        return self.left, self.right, self.strictly, self.shape


Known = TensorValue | Condition | TensorList
"""What a name stands for while the graph is walked."""


@dataclass(frozen=True)
class Piece:
    """factor * (the tensor `root`) + offset; a constant has no root and the factor 0."""

    root: str | None
    factor: FloatArray
    offset: FloatArray
    exact: bool = True
    """Whether nothing was rounded on the way."""


@dataclass(frozen=True)
class Choices:
    """The graph read backwards, for nodes that read or make conditions."""

    makers: Mapping[str, Node]
    values: Mapping[str, Known]
    steps: dict[tuple[str, str, bool, tuple[int, ...]], AffineForm] = field(default_factory=dict)
    """The steps that stand for conditions so far: a condition that is read twice is one tensor."""

    def concern(self, node: Node) -> bool:
        """Whether the node compares what depends on the input, or reads what such a comparison gives."""
        given = [self.values.get(name) for name in node.inputs if name]
        compares = node.op in COMPARISONS and any(isinstance(value, AffineForm) for value in given)
        return compares or any(isinstance(value, Condition) for value in given)

    def lower(self, node: Node, walk: Walk) -> Known | None:
        """Return what the node makes; None where it is to read its conditions as tensors of their own."""
        if node.op in COMPARISONS:
            return self._compared(node)
        first = self.values.get(node.inputs[0])
        if isinstance(first, Condition) and node.op in _PASSED_ON:
            return self._passed_on(node, first)
        if isinstance(first, Condition) and node.op == "Not":
            return replace(first, left=first.right, right=first.left, strictly=not first.strictly)
        if node.op in ("And", "Or") and len(node.inputs) == 2:
            return self._joined(node)
        try:
            if isinstance(first, Condition) and node.op == "Where" and len(node.inputs) == 3:
                return self._chosen_typed(node, first, node.inputs[1], node.inputs[2], walk)
            if node.op == "Mul" and len(node.inputs) == 2:
                for condition, other in (node.inputs, node.inputs[::-1]):
                    found = self.values.get(condition)
                    if isinstance(found, Condition) and not isinstance(self.values.get(other), Condition):
                        return self._chosen_typed(node, found, other, "", walk)
        except UnsupportedModelError:  # no function of one variable: a product of the condition
            return None
        return None

    def _passed_on(self, node: Node, condition: Condition) -> Condition:
        """Return the condition in the type that a Cast gives it."""
        if node.op == "Identity":
            return condition
        if node.op == "Cast":
            return replace(condition, kind=type_cast_to(node))
        like = self.values.get(node.inputs[1])
        return replace(
            condition, kind=like.kind if isinstance(like, Condition) else type_of(self._tensor(node, node.inputs[1]))
        )

    def _chosen_typed(self, node: Node, condition: Condition, upper: str, lower: str, walk: Walk) -> Known:
        """Return what stands for a choice, in the type of what is chosen; it rounds otherwise than Where or Mul."""
        made = self._chosen(node, condition, upper, lower, walk)
        op = PLAIN_CHOICE if self._is_plain(condition, upper, lower) else f"{node.op} by a comparison"
        (result,) = walk.finished(replace(node, op=op), (), (made,))
        found = [self.values.get(name) for name in node.inputs]
        kinds = [type_of(value) for value in found if not isinstance(value, (Condition, TensorList))]
        kind = next(filter(None, kinds), "")
        return typed(result, kind) if kind and isinstance(result, AffineForm) else result

    def _is_plain(self, condition: Condition, upper: str, lower: str) -> bool:
        """Whether nothing is rounded on the way from what is compared to what is chosen, or one product below 0.

        Then the runtime's choice is the function that stands for it, of the numbers that the runtime has: a maximum, a
        constant, the one tensor itself; or LeakyRelu written out.
        """
        names = (condition.left, condition.right, upper, lower)
        if any(name and not self._is_renamed(name) for name in names):
            return False
        of_input = [self._origin(name) for name in names if name and isinstance(self.values.get(name), AffineForm)]
        roots = set(of_input)
        if len(roots) == 1 or (len(of_input) == 4 and set(of_input[:2]) == set(of_input[2:])):
            return True
        if all(not name or isinstance(self.values.get(name), np.ndarray) for name in (upper, lower)):
            return True
        compared = [name for name in names[:2] if isinstance(self.values.get(name), AffineForm)]
        constants = [self.values.get(name) for name in names[:2] if name not in compared]
        if len(compared) != 1 or not all(isinstance(one, np.ndarray) and not one.any() for one in constants):
            return False
        root, is_left = self._origin(compared[0]), compared[0] == condition.left
        over, under = (upper, lower) if is_left else (lower, upper)
        return bool(over) and self._origin(over) == root and self._is_one_product(under, root)

    def _is_renamed(self, name: str) -> bool:
        """Whether a tensor is its origin, and no float of another type."""
        for _ in range(DEEPEST):
            node = self.makers.get(name)
            if node is None or node.op not in _PASSED_ON:
                return True
            if node.op != "Identity":
                return False
            name = node.inputs[0]
        return False

    def _is_one_product(self, name: str, root: str) -> bool:
        """Whether a tensor is the root times, or divided by, a constant whose factor is a float32 number."""
        node = self.makers.get(self._origin(name)) if name else None
        if node is None or node.op not in ("Div", "Mul") or len(node.inputs) != 2:
            return False
        read = [one for one in node.inputs if not isinstance(self.values.get(one), np.ndarray)]
        if len(read) != 1 or self._origin(read[0]) != root:
            return False
        piece = self._piece(name, known=frozenset({root}))
        return not piece.offset.any() and _is_written(piece.factor)

    def as_tensor(self, condition: Condition, walk: Walk) -> AffineForm:
        """Return the condition as a tensor: a step of the difference of what it compares."""
        found = self.steps.get(condition.key)
        if found is None:
            node = condition.node
            left, right = (self._tensor(node, name) for name in (condition.left, condition.right))
            found = is_above(node, left, right, walk, strictly=condition.strictly)
            (finished,) = walk.finished(node, (), (found,))
            assert isinstance(finished, AffineForm)
            found = self.steps[condition.key] = finished
        if condition.kind:
            return typed(found, condition.kind)
        return AffineForm(found.shape, found.terms, found.constant, found.constant_error)

    def _joined(self, node: Node) -> Known | None:
        """Return a condition and (or) a constant that is the same everywhere: that constant, or the condition."""
        for name, other in (node.inputs, node.inputs[::-1]):
            condition, constant = self.values.get(name), self.values.get(other)
            if isinstance(condition, Condition) and isinstance(constant, np.ndarray):
                truth = constant.astype(np.bool_)
                if truth.all() or not truth.any():
                    shape = tuple(np.broadcast_shapes(condition.shape, truth.shape))
                    passes = bool(truth.all()) == (node.op == "And")
                    return replace(condition, shape=shape) if passes else np.full(shape, node.op == "Or")
        return None

    def _compared(self, node: Node) -> Condition:
        if len(node.inputs) != 2:
            refuse(node, f"needs two inputs but has {len(node.inputs)}")
        shape = tuple(np.broadcast_shapes(*(self._tensor(node, name).shape for name in node.inputs)))
        above, below, strictly = COMPARISONS[node.op]
        return Condition(node, node.inputs[above], node.inputs[below], shape, strictly)

    def _chosen(self, node: Node, condition: Condition, upper: str, lower: str, walk: Walk) -> AffineForm:
        """Return the tensor that is `upper` where the condition holds, else `lower`; no name stands for 0."""
        sides = (self._origin(condition.left), self._origin(condition.right))
        picked = (self._origin(upper), self._origin(lower))
        if sides[0] != sides[1] and set(picked) == set(sides):
            both: list[TensorValue | None] = [self._tensor(node, name) for name in sides]
            (made,) = lower_max(node, both, walk) if picked == sides else lower_min(node, both, walk)
            assert isinstance(made, AffineForm)
            return broadcast(made, tuple(np.broadcast_shapes(made.shape, condition.shape)))
        return self._of_one_variable(node, condition, upper, lower, walk)

    def _of_one_variable(self, node: Node, condition: Condition, upper: str, lower: str, walk: Walk) -> AffineForm:
        constants = [self.values.get(name) if name else np.zeros(()) for name in (upper, lower)]
        if isinstance(constants[0], np.ndarray) and isinstance(constants[1], np.ndarray):
            return between(node, self.as_tensor(condition, walk), constants[0], constants[1], walk)
        left, right, above, below = self._pieces(condition, upper, lower)
        roots = {piece.root for piece in (left, right, above, below)} - {None}
        if len(roots) != 1:
            refuse(node, f"chooses between tensors by comparing others, and may jump; {READABLE}")
        if not (_adds_exactly(left, right, -1.0) and _is_no_underflow(left, right, above, below)):
            refuse(node, f"chooses by numbers that are lost in rounding; {READABLE}")
        x = self._tensor(node, roots.pop())
        if not isinstance(x, AffineForm):
            refuse(node, f"chooses by a condition that depends on the input; {READABLE}")
        parts = [left.factor - right.factor, left.offset - right.offset]
        parts += [above.factor, above.offset, below.factor, below.offset]
        shape = tuple(np.broadcast_shapes(x.shape, condition.shape, *(part.shape for part in parts)))
        slope, shift, a, b, c, d = (np.broadcast_to(part, shape).reshape(-1) for part in parts)
        if not slope.all():
            refuse(node, f"chooses by a condition that does not depend on its tensor; {READABLE}")
        form = broadcast(x, shape).reshaped((a.size,))
        rises = slope > 0
        border = np.where(shift == 0, 0.0, -shift / slope)
        over, under = np.where(rises, a, c), np.where(rises, c, a)  # slopes above and below the border
        rest = np.where(rises, d, b)
        made = _kinked(node, form, border, over, under, rest, walk).reshaped(shape)
        if np.array_equal((b - d) * slope, (a - c) * shift):
            return made
        if not (self._is_direct(condition, (left.root, right.root)) and all(map(_is_written, (a, b, c, d)))):
            refuse(node, f"jumps at a border, or by heights, that are computed; {READABLE}")
        # `made` goes on as the side below the border does; where the condition holds below it, it holds the jump there
        height = (a - c) * border + (b - d)
        rounding = gamma(8) * float(((np.abs(a) + np.abs(c)) * np.abs(border) + np.abs(b) + np.abs(d)).max(initial=0.0))
        holds = broadcast(self.as_tensor(condition, walk), shape).reshaped((a.size,))
        jump = walk.linear(
            node, Selection.diagonal(height), holds, holds.shape, offset=np.where(rises, 0.0, -height)
        ).reshaped(shape)
        return made.plus(replace(jump, constant_error=jump.constant_error + 2 * rounding))

    def _is_direct(self, condition: Condition, roots: tuple[str | None, str | None]) -> bool:
        """Whether a tensor itself is compared with a constant, neither of them computed here."""
        names = (condition.left, condition.right)
        constant = [isinstance(self.values.get(name), np.ndarray) for name in names]
        kept = [root == self._origin(name) for name, root in zip(names, roots, strict=True)]
        return sum(constant) == 1 and (kept[0] or constant[0]) and (kept[1] or constant[1])

    def _tensor(self, node: Node, name: str | None) -> TensorValue:
        found = None if name is None else self.values.get(name)
        if found is None or isinstance(found, (Condition, TensorList)):
            refuse(node, f"chooses between conditions, or lists of tensors; {READABLE}")
        return found

    def _origin(self, name: str) -> str:
        """Return the name behind operators that change nothing; a Cast to another type may cut numbers off."""
        for _ in range(DEEPEST):
            node = self.makers.get(name)
            if node is None or node.op not in _PASSED_ON:
                break
            made, read = self.values.get(name), self.values.get(node.inputs[0])
            if not (isinstance(made, AffineForm) and isinstance(read, AffineForm) and type_of(made) == type_of(read)):
                break
            name = node.inputs[0]
        return name

    def _pieces(self, condition: Condition, upper: str, lower: str) -> list[Piece]:
        """Return both sides of a comparison and of a choice: of the tensor that is compared, where that is enough.

        What made that tensor is not looked at then: multiplied out, its constants are rounded.
        """
        names = (condition.left, condition.right, upper, lower)
        compared = frozenset(self._origin(name) for name in names[:2] if name)
        pieces = [self._piece(name, known=compared) for name in names]
        return pieces if len({one.root for one in pieces} - {None}) == 1 else [self._piece(name) for name in names]

    def _piece(self, name: str, depth: int = 0, known: frozenset[str] = frozenset()) -> Piece:
        """Return what a tensor is, as far as operators with constants go, or up to one that is known."""
        value = self.values.get(name) if name else np.zeros(())
        if isinstance(value, np.ndarray):
            return Piece(None, np.zeros(()), value.astype(np.float64))
        name = self._origin(name)
        itself = Piece(name, np.ones(()), np.zeros(()))
        node = self.makers.get(name)
        if node is None or depth > DEEPEST or name in known or type_of(self._tensor(node, name)):
            return itself  # whole numbers that are added up may leave their type
        if node.op == "Neg":
            piece = self._piece(node.inputs[0], depth + 1, known)
            return replace(piece, factor=-piece.factor, offset=-piece.offset)
        if node.op not in ("Add", "Div", "Mul", "Sub") or len(node.inputs) != 2:
            return itself
        one, two = (self._piece(other, depth + 1, known) for other in node.inputs)
        if one.root is not None and two.root is not None:
            return itself
        return _combined(node.op, one, two) or itself


READABLE: Final = (
    "read are Where(x > t, p, q) and (x > t) * p where p and q are multiples of x plus constants, choices between "
    "constants, and Where(v > w, v, w)"
)


def _combined(op: str, one: Piece, two: Piece) -> Piece | None:
    """Return the sum, difference, product or quotient of pieces of which one is a constant."""
    root = one.root if one.root is not None else two.root
    if op in ("Add", "Sub"):
        sign = 1.0 if op == "Add" else -1.0
        if not _adds_exactly(one, two, sign):
            return None
        exact = one.exact and two.exact
        return Piece(root, one.factor + sign * two.factor, one.offset + sign * two.offset, exact)
    if op == "Div":
        if two.root is not None or not two.offset.all() or not _is_no_underflow(one, two):
            return None
        return Piece(root, one.factor / two.offset, one.offset / two.offset, exact=False)
    one, two = (one, two) if two.root is None else (two, one)
    if not _is_no_underflow(one, two):
        return None
    exact = one.exact and two.exact and all(map(_is_written, (one.factor, one.offset, two.offset)))
    return Piece(root, one.factor * two.offset, one.offset * two.offset, exact)


SMALLEST: Final = 2.0**-400
"""Numbers below it, other than 0, are not multiplied here: their products may be lost."""


def _is_no_underflow(*pieces: Piece) -> bool:
    """Whether no product of two of their numbers leaves the range of float64."""
    sizes = [np.abs(part) for piece in pieces for part in (piece.factor, piece.offset)]
    return all(bool(((size == 0) | ((size >= SMALLEST) & (size <= 1 / SMALLEST))).all()) for size in sizes)


def _adds_exactly(one: Piece, two: Piece, sign: float) -> bool:
    """Whether nothing is lost in their sum: of numbers that nearly cancel, all that counts may be.

    The error of a sum is a number (Knuth's), and there is none where one of the numbers is 0.
    """
    for first, second in ((one.factor, sign * two.factor), (one.offset, sign * two.offset)):
        total = first + second
        other = total - first
        lost = (first - (total - other)) + (second - other)
        both = (first != 0) & (second != 0)
        if not (lost[both] == 0).all() or (bool(both.any()) and not (one.exact and two.exact)):
            return False
    return True


def _kinked(
    node: Node,
    form: AffineForm,
    border: FloatArray,
    over: FloatArray,
    under: FloatArray,
    rest: FloatArray,
    walk: Walk,
) -> AffineForm:
    """Return under x + rest below the border and the line through the same point with slope `over` above it."""
    if not border.any() and not rest.any() and bool((over == 1).all()) and _is_written(under):
        return walk.states(node, kinked.leaky_relu(under.copy()), form)
    above = form.shifted(-border)
    above = replace(above, constant_error=above.constant_error + gamma(4) * float(np.abs(border).max(initial=0.0)))
    reached = walk.states(node, kinked.relu(), above)
    exact = _is_written(over) and _is_written(under)
    slack = None if exact else Selection.diagonal(gamma(64) * (np.abs(over) + np.abs(under)))
    bent = walk.linear(node, Selection.diagonal(over - under).uncertain(gamma(2), slack), reached, form.shape)
    line = Selection.diagonal(under).uncertain(0.0 if _is_written(under) else gamma(64))
    made = walk.linear(node, line, form, form.shape, offset=rest).plus(bent)
    rounding = gamma(64) * float((np.abs(rest) + np.abs(border) * (np.abs(over) + np.abs(under))).max(initial=0.0))
    return replace(made, constant_error=made.constant_error + rounding)


def _is_written(slopes: FloatArray) -> bool:
    """Whether the slopes stand in the file as they are, and are no rounded products of its constants."""
    return bool((slopes == slopes.astype(np.float32)).all())
