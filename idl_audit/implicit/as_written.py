"""The network as its file has it: one block for each operator that rounds, nothing multiplied out or added together.

`build` puts neighbouring linear operators into one map and sums of constants into one number. In exact arithmetic that
is the same function; in floating point |W2||W1| and the sizes of the single constants decide what is rounded away. Here
every operator that rounds ends in an identity block, with what is to be known of its roundings (docs/mathematics.md,
section 12). What an operator does to its numbers beyond that is a table; an operator that is not in it has no known
bound. The format of every block is the coarsest in which the network computes: bounds for it hold for finer ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.graph.ir import Graph, Node, live_inputs, shown
from idl_audit.graph.original import chosen_output
from idl_audit.implicit.activations import Activation
from idl_audit.implicit.activations.contraction import Contraction
from idl_audit.implicit.activations.jumping import Stairs
from idl_audit.implicit.affine import AffineForm, Whole
from idl_audit.implicit.build import assembled, walk_graph
from idl_audit.implicit.computed_constants import HALF, computed_differently
from idl_audit.implicit.inside import (
    LOSSES,
    Inside,
    divides_by_little,
    has_subnormal_attributes,
    inside_of,
    jumps_elsewhere,
    off_inverse_root,
    sums_in_format,
    variance_of,
)
from idl_audit.implicit.integer_kernels import WRAPS, in_other_integers, wraps_around
from idl_audit.implicit.kernels import (
    ARITHMETICS,
    EXACT,
    FLOAT32,
    SPARE,
    Arithmetic,
    Kernel,
    coarsest,
    in_a_chain,
    kernel_in_layer,
    kernel_of,
    kernel_of_norm,
    kernel_of_products,
    measured,
)
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.lowering.choice import PLAIN_CHOICE
from idl_audit.implicit.lowering.einsum import adds_constants_up
from idl_audit.implicit.lowering.jumps import COMPARISONS
from idl_audit.implicit.lowering.quantised import is_of_another_grid
from idl_audit.implicit.lowering.recurrent import KINDS as LAYERS
from idl_audit.implicit.lowering.reductions import competing_axes
from idl_audit.implicit.lowering.sequences import SEQUENCES
from idl_audit.implicit.model import ImplicitModel, PoolWindows
from idl_audit.implicit.types_within import rounded_by_exporters, types_within
from idl_audit.implicit.walk import TensorValue, Walk, float_attribute
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError


@dataclass(frozen=True, eq=False)
class Rounding:
    """How a block's numbers come about."""

    is_state: bool
    """Whether they are values of a nonlinear operator: their size is that of the values, whatever they are made of."""
    arithmetic: Arithmetic = FLOAT32
    """The format of its numbers, or a coarser one."""
    share: float = 0.0
    """Of a linear operator: gamma, what the sizes of its terms are multiplied by; 0 where it is exact."""
    parts: FloatArray | None = None
    """Sizes of the constants that are added one by one, (n,); the form's own constant where left out."""
    kernel: Kernel = EXACT
    never_negative: bool = False
    """Whether what the function is computed of is a sum of squares."""
    least: float = -math.inf
    """What the function is computed of, exactly, is no less: where the block's own row does not say so."""
    besides: float = 0.0
    """What is added to the error of what is read, whatever its size."""
    inside: Inside | None = None
    """Of a linear operator: the numbers that it makes before it divides or scales them."""


@dataclass(frozen=True, eq=False)
class AsWritten:
    """The network operator by operator, the coarsest arithmetic that it runs in, and how its blocks round."""

    model: ImplicitModel
    roundings: tuple[Rounding, ...]
    """One a block of the model."""
    arithmetic: Arithmetic
    """Its name is that of the coarsest type of its tensors, the rest of what operators compute in as well."""
    output: Rounding = Rounding(False)
    """Of the outputs, where they are more than moved numbers."""
    entry: Arithmetic = FLOAT32
    """The format of its inputs, or a finer one than what they are rounded to."""

    @property
    def measured(self) -> tuple[str, ...]:
        """Entries of the table of measured kernels that its bounds rest on."""
        return tuple(sorted({rounding.kernel.measured for rounding in self.roundings} - {""}))

    def places_in(self, model: ImplicitModel, *, without_last: bool = False) -> dict[int, int]:
        """Return, for the blocks that `model` has too, which of its blocks each is: their z is the same function.

        Both were made by one walk over one network, and differ in identity blocks alone.

        Args:
            model: the other one.
            without_last: whether the last nonlinear operator has no block in it.
        """
        if model is self.model:
            return {k: k for k in range(len(model.blocks))}
        own, theirs = _nonlinear(self.model)[int(without_last) :], _nonlinear(model)
        same = [(self.model.blocks[k].name, self.model.blocks[k].size) for k in own] == [
            (model.blocks[k].name, model.blocks[k].size) for k in theirs
        ]
        return dict(zip(own, theirs, strict=True)) if same else {}


def _nonlinear(model: ImplicitModel) -> list[int]:
    blocks = enumerate(model.blocks)
    return [k for k, block in blocks if block.activation.name != "identity" or block.maximum is not None]


def as_written(graph: Graph, *, output: str | None = None, max_bytes: int | None = None) -> AsWritten:
    """Return the network with one block for each operator that rounds.

    Raises:
        UnsupportedModelError: with every operator whose rounding nothing is known of, and what else has no model.
        MemoryLimitError: where a matrix would exceed `max_bytes`.
    """
    target = chosen_output(graph.provenance.path or Path("the model"), graph, output)
    kinds = {value.dtype for value in live_inputs(graph, target)} & set(ARITHMETICS)
    used = kinds | {graph.arithmetic} | types_within(graph)
    arithmetic = coarsest(used)
    walk = _AsWrittenWalk(graph.opset, max_bytes, arithmetic)
    walked = walk_graph(graph, walk, output)
    problems = list(dict.fromkeys(walk.unknown))
    if walked.left_out is not None and walked.left_out.rounds_otherwise:
        problems.append(f"{walked.left_out.op} node '{shown(walked.left_out.label)}', written with exponentials")
    for node in computed_differently(walked, arithmetic):
        problems.append(f"{node.op} node '{shown(node.label)}' computes a constant, as each runtime does it")
    problems.extend(in_other_integers(walked))
    problems.extend(rounded_by_exporters(graph))
    if used >= HALF:
        problems.append("arithmetic in both float16 and bfloat16")
    if problems:
        raise UnsupportedModelError(problems)
    model, made = assembled(walked)
    roundings = tuple(walk.roundings[number] for number in made)
    named = replace(arithmetic, name=coarsest(kinds | {graph.arithmetic}).name)
    return AsWritten(model, roundings, named, Rounding(False, arithmetic), coarsest(kinds))


def of_implicit_model(model: ImplicitModel) -> AsWritten:
    """Return an implicit model that is its own file: each of its rows is one operator, its activations are the table's.

    Raises:
        UnsupportedModelError: where it has loops, or activations whose rounding nothing is known of.
    """
    if model.loops:
        why = "which an iteration only comes near to: how near, is not said by the model"
        raise UnsupportedModelError([f"the state of loop '{loop.block.name}', {why}" for loop in model.loops.values()])
    unknown: dict[str, None] = {}
    roundings = []
    for block, row in zip(model.blocks, model.rows, strict=True):
        kernel = kernel_of(block.activation)
        if kernel is None:
            unknown[f"the activation {block.activation.name}"] = None
        share = FLOAT32.gamma(sum(linear_map.row_terms for linear_map in row.maps), SPARE)
        roundings.append(Rounding(True, share=share, kernel=kernel or EXACT))
    if unknown:
        raise UnsupportedModelError(list(unknown))
    share = FLOAT32.gamma(sum(linear_map.row_terms for linear_map in model.output.maps), SPARE)
    return AsWritten(model, tuple(roundings), FLOAT32, Rounding(False, share=share))


# --- what operators do ------------------------------------------------------------------------------------------------

PartsOf: TypeAlias = Callable[[Node, Sequence[TensorValue | None], AffineForm], FloatArray]


_IN_ONE_STEP: Final = frozenset({("Div", "reciprocal"), ("Pow", "exp")})
"""Operator and activation: the operator computes what follows with it in one step, and its rule has the error."""

_POWER_OF_A_CONSTANT: Final = "Pow of a constant"
_POWER_OF_A_TENSOR: Final = "Pow of a tensor by another one"
"""Of which no bound is known."""


@dataclass(frozen=True)
class _Rule:
    """What an operator does."""

    kind: str
    """"moves": its results are its inputs' numbers; "linear": sums of products; "states": values of a function;
    "composed": several of them, one behind the other, which the lowering keeps apart (`Walk.apart`)."""
    spare: int = SPARE
    inner: bool = False
    """Whether sums within the operator are rounded before its last function is computed."""
    parts: PartsOf | None = None
    final: Callable[[Node, Arithmetic], Kernel] = field(default=lambda node, arithmetic: EXACT)
    """Of "states" that are made of several activations: the error of the whole."""
    besides: Callable[[int, Arithmetic], float] | None = None
    """Of "linear" ones that a runtime computes by functions of n entries each: their error. What the lowering has in
    their place is exact."""


def _batch_norm_parts(node: Node, values: Sequence[TensorValue | None], form: AffineForm) -> FloatArray:
    """|bias| + |mean scale / sqrt(var + eps)|, entry by entry."""
    scale, bias, mean = (np.asarray(value, np.float64) for value in values[1:4])
    sizes = np.abs(bias) + np.abs(mean * scale / np.sqrt(variance_of(node, values)))
    behind = sizes.shape if sizes.ndim > 1 else (-1, *(1,) * (len(form.shape) - 2))
    return np.broadcast_to(sizes.reshape(behind), form.shape).reshape(-1) * (1 + 1e-9)


def _hard_sigmoid(node: Node, arithmetic: Arithmetic) -> Kernel:
    """alpha z + beta, which counts where it is within [0, 1]."""
    return Kernel(8 * arithmetic.unit * (1 + 2 * abs(float_attribute(node, "beta", 0.5))))


def _one_difference(node: Node, arithmetic: Arithmetic) -> Kernel:
    """z - bias, beyond the threshold alone."""
    return Kernel(of_value=2 * arithmetic.unit)


def _logarithm_of_a_sum(n: int, arithmetic: Arithmetic) -> float:
    """|L' - L| at most, L = log(sum of exp(z_j - m)) over n entries, m the largest, and of roundings 4 u L.

    The shares p_j = exp(z_j - m - L) have sum p_j (m - z_j) = (their entropy) - L <= ln n, so that rounding z_j - m
    changes the sum by the share u ln n, besides those of exp and of adding up; and 0 <= L <= ln n.
    """
    exp, log, width = measured("exp", arithmetic), measured("log", arithmetic), math.log(n)
    adding = arithmetic.unit * (width + 1) + arithmetic.accumulator * n
    share = 1.05 * adding + exp.of_value + n * exp.absolute
    return math.inf if share > 0.25 else 1.4 * share + (4 * arithmetic.unit + log.of_value) * (width + 1)


_SCATTERS: Final = ("Scatter", "ScatterElements", "ScatterND")
"""Operators that move, unless updates are added to what is there, or compete with it."""

_OF_LRN_ITSELF: Final = frozenset({"product", "square"})
"""Activations of LRN that do not read bias + (a sum of squares)."""

_FAR: Final = 2.0**62
"""Products of two factors below this are finite."""

WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("AffineGrid", "GridSample"), "whose places and weights runtimes compute and round themselves"),
        **dict.fromkeys(("CumProd", "ReduceProd"), "whose factors, in another order, may leave the range in between"),
        **dict.fromkeys(("DFT", "STFT"), "which runtimes compute by fast transforms"),
        "Det": "which runtimes compute by elimination, with pivots of their own",
        "Mod": "whose quotient may be rounded across a whole number",
        "LinearAttention": "whose steps runtimes may take in chunks",
    }
)
"""Why operators that are read have no bound."""

QUANTISED: Final = frozenset({"QLinearConv", "QLinearMatMul", "QuantizeLinear"})
"""Operators whose results are whole numbers of a grid."""

COUNTED: Final = 2.0**31
"""Steps of a grid, below which kernels that round to int32 first do not overflow."""

_FACTORS: Final = 2
"""Of an Einsum whose sums of products are known: beyond, runtimes choose what they multiply first."""

_NORMS: Final = ("GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization")
"""Operators that are one norm, a scale and a shift."""

_IN_ACCUMULATORS: Final = frozenset(
    {
        *("Attention", "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm"),
        *("GlobalAveragePool", "GlobalLpPool", "LogSoftmax", "LpPool", "MatMul", "ReduceL1", "ReduceL2"),
        *("ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "ReduceSumSquare", *LAYERS, *_NORMS),
    }
)
"""Operators whose sums of many terms are made in float32 or finer floats, whatever they add up."""

_MOVES, _LINEAR, _STATES = _Rule("moves"), _Rule("linear"), _Rule("states")

_RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Neg", "Pad"),
            _MOVES,
        ),
        **dict.fromkeys(
            ("Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
            _MOVES,
        ),
        **dict.fromkeys(
            (
                *("CenterCropPad", "Compress", "EyeLike", "GatherElements", "IsInf", "IsNaN", "MaxUnpool", "OneHot"),
                *("Optional", "OptionalGetElement", "OptionalHasElement", "Pow", "ReverseSequence", "TensorScatter"),
                *("Trilu", "Where"),
                *_SCATTERS,
                *SEQUENCES,
            ),
            _MOVES,
        ),
        **dict.fromkeys(("Add", "Cast", "Conv", "ConvTranspose", "Div", "Gemm", "MatMul", "Mul", "Sub"), _LINEAR),
        **dict.fromkeys(("AveragePool", "GlobalAveragePool", "Mean", "ReduceMean", "ReduceSum", "Sum"), _LINEAR),
        **dict.fromkeys(("CastLike", "Col2Im", "CumSum", "Einsum", "ReduceL1", "RotaryEmbedding"), _LINEAR),
        "BatchNormalization": _Rule("linear", spare=10, parts=_batch_norm_parts),
        "Resize": _LINEAR,
        "Upsample": _LINEAR,
        **dict.fromkeys(
            ("Abs", "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSwish", "LeakyRelu", "Mish", "PRelu"), _STATES
        ),
        **dict.fromkeys(("Relu", "Selu", "Sigmoid", "Silu", "Softmax", "Softplus", "Softsign", "Tanh"), _STATES),
        **dict.fromkeys(
            ("GlobalMaxPool", "Max", "MaxPool", "Min", "ReduceMax", "ReduceMin", "ThresholdedRelu"), _STATES
        ),
        **dict.fromkeys(
            ("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Exp", "Log", "Reciprocal", "Sin"),
            _STATES,
        ),
        **dict.fromkeys(("Ceil", "Floor", "Round", "Sign", "Sinh", "Sqrt", "Tan", "TopK"), _STATES),
        **dict.fromkeys((*COMPARISONS, "And", "Equal", "Not", "Or", "Xor", PLAIN_CHOICE), _STATES),
        **dict.fromkeys(("GlobalLpPool", "LpPool", "ReduceL2", "ReduceLogSum"), _Rule("linear", inner=True)),
        **dict.fromkeys((*_NORMS, "ReduceSumSquare"), _LINEAR),
        **dict.fromkeys(LAYERS, _Rule("composed", inner=True)),
        "Attention": _Rule("composed", spare=12, inner=True),
        "LRN": _Rule("composed", spare=12, inner=True),
        **dict.fromkeys(("LogSoftmax", "ReduceLogSumExp"), _Rule("linear", spare=12, besides=_logarithm_of_a_sum)),
        "NegativeLogLikelihoodLoss": _Rule("linear", spare=8),
        "SoftmaxCrossEntropyLoss": _Rule("linear", spare=16, besides=_logarithm_of_a_sum),
        "MeanVarianceNormalization": _LINEAR,
        "LpNormalization": _Rule("linear", spare=8, inner=True),
        "SwiGLU": _Rule("composed", inner=True),
        "DequantizeLinear": _LINEAR,
        **dict.fromkeys(QUANTISED, _Rule("composed", spare=8, inner=True)),
        "Shrink": _Rule("states", final=_one_difference),
        "HardSigmoid": _Rule("states", final=_hard_sigmoid),
        "Swish": _LINEAR,  # its states have the kernel of SiLU; what is left is a product
    }
)
"""Operator -> what it does; for others no bound is known."""


_OF_USES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        _POWER_OF_A_CONSTANT: _Rule("states", final=lambda node, arithmetic: Kernel(of_value=4 * arithmetic.unit)),
    }
)
"""Uses of operators that round otherwise than the operators do."""


def bounded_operators() -> frozenset[str]:
    """Return the operators whose roundings are bounded, at least in some uses."""
    return frozenset(_RULES)


LONGEST_FRACTION: Final = 2.0**12
"""Weights of an interpolation that are whole numbers of 1 / this are exact in every runtime; others are not."""


class _AsWrittenWalk(Walk):
    """A walk that keeps every operator apart, and notes how it rounds."""

    keeps_apart = True

    def __init__(self, opset: int, max_bytes: int | None, arithmetic: Arithmetic) -> None:
        super().__init__(opset, max_bytes)
        self.roundings: list[Rounding] = []
        self._arithmetic = arithmetic
        self.unknown: list[str] = []
        self._unmeasured: list[str] = []
        """Activations of the steps of the layer that is being lowered."""

    def states(
        self,
        node: Node,
        activation: Activation,
        form: AffineForm,
        *,
        suffix: str = "",
        maximum: PoolWindows | None = None,
    ) -> AffineForm:
        """Make a block, as in every walk, with the error of its function."""
        is_state = activation.name != "identity" or maximum is not None
        in_one_step = (node.op, activation.name) in _IN_ONE_STEP
        arithmetic = self._arithmetic
        kernel = EXACT if in_one_step else kernel_of_norm(activation, arithmetic) or kernel_of(activation, arithmetic)
        rule = _RULES.get(node.op, _MOVES)
        if node.op in LAYERS:
            kernel = kernel_in_layer(activation, arithmetic)
        elif rule.besides is not None:
            kernel = EXACT  # of the whole
        elif isinstance(activation, Contraction):
            kernel = kernel_of_products(activation, arithmetic, rule.spare)
        if kernel is None and node.op in LAYERS:
            self._unmeasured.append(activation.name)
        elif kernel is None:
            self.unknown.append(f"{node.op} node '{shown(node.label)}'")
        share = _share(node, rule, (), form, arithmetic) if rule.inner and _adds(form) else 0.0
        of_squares = rule.inner and activation.name == "sqrt"
        rounding = Rounding(is_state, arithmetic, share, kernel=kernel or EXACT, never_negative=of_squares)
        if node.scalars.count and is_state:
            rounding = replace(rounding, kernel=in_a_chain(rounding.kernel, activation, node.scalars, arithmetic))
        if node.op == "SwiGLU" and is_state:  # two of its three factors may be multiplied first
            rounding = replace(rounding, kernel=replace(rounding.kernel, within=min(rounding.kernel.within, _FAR)))
        if isinstance(activation, Stairs) and node.op in QUANTISED:
            besides = _of_zero_points(activation, arithmetic)
            rounding = replace(rounding, kernel=Kernel(within=COUNTED), besides=besides)
        if node.op == "LRN" and is_state and float_attribute(node, "alpha", 1e-4) >= 0:
            floor = float_attribute(node, "bias", 1.0)
            rounding = replace(rounding, least=-math.inf if activation.name in _OF_LRN_ITSELF else floor)
        self.roundings.append(rounding)
        return super().states(node, activation, form, suffix=suffix, maximum=maximum)

    def apart(self, node: Node, form: AffineForm, suffix: str) -> AffineForm:
        """Return an identity block in the form's place, whose roundings are its own, unless it only moves numbers."""
        return self.cut(node, form, suffix=suffix) if _adds(form) else form

    def finished(
        self, node: Node, arguments: Sequence[TensorValue | None], results: tuple[TensorValue, ...]
    ) -> tuple[TensorValue, ...]:
        """Return the results with an identity block behind each that is more than moved numbers."""
        for name in dict.fromkeys(self._unmeasured):
            self.unknown.append(f"{node.op} node '{shown(node.label)}', whose activation {name} was not measured")
        self._unmeasured.clear()
        if any(not isinstance(value, AffineForm) or not value.terms for value in results):
            # a constant, as long as what it is made of is finite: not 0 times infinity, nor -infinity + infinity
            self.demanded.update(source for one in arguments if isinstance(one, AffineForm) for source in one.terms)
        op = node.op
        if op == "Pow" and isinstance(arguments[1], AffineForm):
            op = _POWER_OF_A_TENSOR if isinstance(arguments[0], AffineForm) else _POWER_OF_A_CONSTANT
        rule = None if node.rounds_otherwise else (_RULES.get(op) or _OF_USES.get(op))
        if node.op in ("Mean", "Sum") and (_reads_twice(arguments) or _are_constants(arguments)):
            rule = None
        if node.op in ("Attention", "Gemm") and _are_constants(arguments[:2]):
            rule = None
        if node.op in _SCATTERS and node.attributes.get("reduction", "none") != "none":
            rule = None
        if node.op == "Einsum" and (len(arguments) > _FACTORS or adds_constants_up(node, arguments)):
            rule = None
        if rule is None:
            why = f", {WHY[node.op]}" if node.op in WHY else ""
            self.unknown.append(f"{node.op} node '{shown(node.label)}'{why}")
            return results
        if node.op == "Div" and divides_by_little(arguments[1], self._arithmetic):
            self.unknown.append(
                f"{node.op} node '{shown(node.label)}', by a number whose inverse has none in the format"
            )
        if node.op == "BatchNormalization" and not off_inverse_root(node, arguments, self._arithmetic) < math.inf:
            self.unknown.append(f"{node.op} node '{shown(node.label)}', with a variance that has no inverse root")
        if has_subnormal_attributes(node, self._arithmetic):
            self.unknown.append(f"{node.op} node '{shown(node.label)}', with an attribute that runtimes may take for 0")
        if node.op == "MatMul" and wraps_around(arguments):
            self.unknown.append(f"{node.op} node '{shown(node.label)}', {WRAPS}")
        if node.op == "Identity" and node.scalars.count:
            self.unknown.append(f"{node.op} node '{shown(node.label)}', written as a chain of products")
        if node.op == "Shrink" and jumps_elsewhere(node, self._arithmetic):
            self.unknown.append(f"{node.op} node '{shown(node.label)}', whose threshold some runtimes round to 16 bits")
        if is_of_another_grid(node, arguments):
            self.unknown.append(
                f"{node.op} node '{shown(node.label)}', a second grid that runtimes merge with the first"
            )
        return tuple(
            self._ended(node, rule, arguments, value) if isinstance(value, AffineForm) else value for value in results
        )

    def _ended(self, node: Node, rule: _Rule, arguments: Sequence[TensorValue | None], form: AffineForm) -> AffineForm:
        if rule.kind == "moves" and not form.terms and not form.constant_error:
            return form  # a constant, as it is
        interpolates, arithmetic = node.op in ("Resize", "Upsample"), self._arithmetic
        only_moves = not _adds(form) if rule.kind == "composed" else _only_moves(form)
        if (rule.kind != "linear" or interpolates) and rule.final(node, arithmetic) == EXACT and only_moves:
            return form
        if interpolates and not all(_is_dyadic(linear_map) for linear_map in form.terms.values()):
            self.unknown.append(f"{node.op} node '{shown(node.label)}', whose weights are no short binary fractions")
        made_of = self.cut(node, form, suffix="/rounded")
        ended = replace(form, terms=made_of.terms, constant=made_of.constant, constant_error=made_of.constant_error)
        if rule.kind in ("linear", "composed") and isinstance(form, Whole):
            rule = _MOVES  # whole numbers of their type are computed exactly
        share = _share(node, rule, arguments, form, arithmetic)
        parts = None if rule.parts is None else rule.parts(node, arguments, form)
        together = 0 if rule.besides is None else _n_together(node, arguments, form, self.opset)
        besides = 0.0 if rule.besides is None else rule.besides(together, arithmetic) * _weight(node, form)
        made = {
            "moves": Rounding(False, arithmetic),
            "linear": Rounding(False, arithmetic, share, parts, besides=besides),
            "states": Rounding(True, arithmetic, kernel=rule.final(node, arithmetic)),
            "composed": Rounding(False, arithmetic, share),
        }
        is_wide = node.op in _IN_ACCUMULATORS | LOSSES and arithmetic.name in HALF
        inside = inside_of(node, arguments, form, FLOAT32 if is_wide else arithmetic) if rule.kind == "linear" else None
        self.roundings[-1] = replace(made[rule.kind], inside=inside)
        return ended


def _share(
    node: Node, rule: _Rule, arguments: Sequence[TensorValue | None], form: AffineForm, arithmetic: Arithmetic
) -> float:
    """Return gamma of an operator that adds up."""
    terms = sum(linear_map.row_terms for linear_map in form.terms.values())
    if node.op in LOSSES:
        terms *= 2
    spare = rule.spare + 2 * node.scalars.count + sums_in_format(node, arguments, terms)
    if node.op == "BatchNormalization":
        off = off_inverse_root(node, arguments, arithmetic)
        return arithmetic.gamma(terms, spare) * (1 + off) + off
    if node.op in _IN_ACCUMULATORS:
        return arithmetic.gamma(terms, spare)
    return arithmetic.gamma(0, terms + spare)


def _weight(node: Node, form: AffineForm) -> float:
    """Return by how much a result of an operator moves, at most, where all logarithms in it are off by 1."""
    if node.op not in LOSSES:
        return 1.0
    weights = np.sum([linear_map.row_sums for linear_map in form.terms.values()], axis=0)
    return float(np.max(weights, initial=0.0))


def _n_together(node: Node, arguments: Sequence[TensorValue | None], form: AffineForm, opset: int) -> int:
    """Return how many exponentials are added up, at most."""
    if node.op == "LogSoftmax":
        return math.prod(form.shape[axis] for axis in competing_axes(node, form.shape, opset))
    read = arguments[0]
    if node.op == "SoftmaxCrossEntropyLoss":
        return read.shape[1] if isinstance(read, AffineForm) else 1
    return read.size // max(1, form.size) if isinstance(read, AffineForm) else 1


def _of_zero_points(activation: Stairs, arithmetic: Arithmetic) -> float:
    """Return what adding the zero point before the number is rounded may change; it is one of the type's numbers."""
    return 4 * arithmetic.unit * float(np.max(np.asarray(activation.highest) - np.asarray(activation.lowest)) + 1)


def _reads_twice(arguments: Sequence[TensorValue | None]) -> bool:
    """Whether more than two tensors are added, and two of them are made of one: x - x + y has the roundings of x."""
    sources = [source for value in arguments if isinstance(value, AffineForm) for source in value.terms]
    return len(arguments) > 2 and len(set(sources)) < len(sources)


def _are_constants(arguments: Sequence[TensorValue | None]) -> bool:
    """Whether several are constants, which may cancel beside a tensor and whose roundings do not: x + 1e10 - 1e10."""
    return sum(isinstance(value, np.ndarray) for value in arguments) > 1


def _only_moves(form: AffineForm) -> bool:
    """Whether every entry is one that was read, or minus it, or 0, and none is read twice.

    What is read twice could cancel in a product with what comes next, and its roundings do not.
    """
    return not form.constant.any() and not form.constant_error and all(map(_moves_once, form.terms.values()))


def _adds(form: AffineForm) -> bool:
    """Whether some entry is more than one number that was read, or minus it, or 0: what is summed is rounded.

    Where the parts of a sum are a function's (the maximum is a + relu(b - a)) `_only_moves` is enough.
    """
    if not _only_moves(form):
        return True
    read = [term.index >= 0 for term in form.terms.values() if isinstance(term, Selection)]
    return bool((np.sum(read, axis=0, dtype=np.int64) > 1).any()) if read else False


def _moves_once(linear_map: LinearMap) -> bool:
    if not isinstance(linear_map, Selection) or linear_map.relative or linear_map.slack is not None:
        return False
    weights = linear_map.row_weights[linear_map.index >= 0]
    return linear_map.is_column_monomial and bool((np.abs(weights) == 1).all())


def _is_dyadic(linear_map: LinearMap) -> bool:
    scaled = linear_map.to_sparse().data * LONGEST_FRACTION
    return bool((scaled == np.round(scaled)).all())
