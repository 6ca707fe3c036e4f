"""Operators that are not read, and the nearest thing that is; every operator of ONNX is here or has a lowering.

A refusal says what the operator does to a tensor that depends on the input, that this version cannot read it, and what
would work instead. It never says of the model what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn

from idl_audit.graph.ir import Node
from idl_audit.implicit.walk import refuse


@dataclass(frozen=True)
class Refusal:
    """Why there is no lowering, and what to do: both go on a sentence."""

    what: str
    """What the operator does: "jumps ..."."""
    instead: str
    """What can be read in its place."""


_JUMPS: Final = "jumps where two of its entries change places, for which there are no states"
_INTEGERS: Final = "computes with whole numbers or bits that depend on the input, which jump"
_RANDOM: Final = "draws random numbers, and a network must be a function"
_SUBGRAPH: Final = "runs a subgraph"
_TEXT: Final = "reads or makes text, which is no network's arithmetic"
_PLACES: Final = "reads an image at places that are not constant, or in a way that is not written down here"
_SIZES: Final = "makes as many entries as the numbers of the input say"
_CONSTANT: Final = "makes a constant from numbers that depend on the input"

_SCORES: Final = "make the scores before it the output (onnx.utils.extract_model): verdicts compare scores"
_CUT: Final = "audit the part of the network before it (onnx.utils.extract_model), or put Clip or Tanh in its place"
_STATIC: Final = (
    "quantise statically, with QuantizeLinear and DequantizeLinear (quantize_static, QuantFormat.QDQ), or with "
    "QLinearConv and QLinearMatMul"
)
_UNROLLED: Final = "export the model without branches and loops, unrolled for one fixed size"
_EVAL: Final = "export the model after model.eval(), without noise"
_BEFORE: Final = "audit the network behind it alone, on the numbers that it makes"

REFUSED: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
        # jumps
        **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax"), Refusal(_JUMPS, _SCORES)),
        # whole numbers
        "DynamicQuantizeLinear": Refusal(
            "takes its scale from the numbers of each input, so that all its thresholds move with them", _STATIC
        ),
        **dict.fromkeys(
            ("ConvInteger", "MatMulInteger"),
            Refusal("computes with whole numbers whose scales are, in most networks, taken from each input", _STATIC),
        ),
        **dict.fromkeys(
            ("BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"), Refusal(_INTEGERS, _CUT)
        ),
        # products
        "CausalConvWithState": Refusal(
            "is a convolution over a state and its input",
            "Concat (or Pad), Conv with groups, and Swish can be read, which it stands for",
        ),
        # images
        "DeformConv": Refusal(_PLACES, "Conv can be read, and GridSample with a constant grid"),
        **dict.fromkeys(
            ("MaxRoiPool", "RoiAlign"),
            Refusal(_PLACES, "Slice with AveragePool or MaxPool can be read, and GridSample with a constant grid"),
        ),
        "NonMaxSuppression": Refusal(_JUMPS, _SCORES),
        "ImageDecoder": Refusal("decodes pictures", _BEFORE),
        # sizes that depend on numbers
        **dict.fromkeys(("NonZero", "Unique"), Refusal(f"{_SIZES}, which jumps", _CUT)),
        **dict.fromkeys(
            (
                *("BlackmanWindow", "Constant", "ConstantOfShape", "HammingWindow", "HannWindow", "MelWeightMatrix"),
                "Range",
            ),
            Refusal(_CONSTANT, "with constant inputs, or sizes from Shape, it can be read: export with fixed sizes"),
        ),
        # chance
        **dict.fromkeys(
            ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
            Refusal(_RANDOM, _EVAL),
        ),
        # control flow
        **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), Refusal(_SUBGRAPH, _UNROLLED)),
        # text
        **dict.fromkeys(
            ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
            Refusal(_TEXT, _BEFORE),
        ),
    }
)
"""Operators without a lowering, and what to do; what else no table has is no operator of ONNX that is known here."""

_UNKNOWN: Final = Refusal("is no operator that is known here", "docs/operators.md lists what can be read")


def refuse_operator(node: Node) -> NoReturn:
    """Raise the refusal of a node that no lowering reads."""
    found = REFUSED.get(node.op, _UNKNOWN)
    refuse(node, f"{found.what}; this version of idl-audit has no lowering for it: {found.instead}")
