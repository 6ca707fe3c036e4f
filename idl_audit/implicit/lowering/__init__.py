"""LOWERINGS: every operator that has an implicit form, and the function that makes it; one file per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from idl_audit.graph.ir import Node
from idl_audit.implicit.lowering import arithmetic, linear, movement, nonlinear, pooling, recurrent, resize
from idl_audit.implicit.walk import TensorValue, Walk

Lowering: TypeAlias = Callable[[Node, Sequence[TensorValue | None], Walk], tuple[TensorValue, ...]]

LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        # linear layers
        "BatchNormalization": linear.lower_batch_normalization,
        "Conv": linear.lower_conv,
        "ConvTranspose": linear.lower_conv_transpose,
        "Gemm": linear.lower_gemm,
        "MatMul": linear.lower_matmul,
        # arithmetic
        "Add": arithmetic.lower_add,
        "Div": arithmetic.lower_div,
        "Mean": arithmetic.lower_mean,
        "Mul": arithmetic.lower_mul,
        "Neg": arithmetic.lower_neg,
        "Sub": arithmetic.lower_sub,
        "Sum": arithmetic.lower_sum,
        # nonlinear, a block of states each
        **dict.fromkeys(nonlinear.PLAIN, nonlinear.lower_componentwise),
        "Celu": nonlinear.lower_elu,
        "Clip": nonlinear.lower_clip,
        "Elu": nonlinear.lower_elu,
        "Gelu": nonlinear.lower_gelu,
        "HardSigmoid": nonlinear.lower_hard_sigmoid,
        "LeakyRelu": nonlinear.lower_leaky_relu,
        "PRelu": nonlinear.lower_prelu,
        "Selu": nonlinear.lower_elu,
        "Softmax": nonlinear.lower_softmax,
        "Swish": nonlinear.lower_swish,
        "ThresholdedRelu": nonlinear.lower_thresholded_relu,
        # pooling and reductions
        "AveragePool": pooling.lower_average_pool,
        "GlobalAveragePool": pooling.lower_global_average_pool,
        "GlobalMaxPool": pooling.lower_global_max_pool,
        "Max": pooling.lower_max,
        "MaxPool": pooling.lower_max_pool,
        "Min": pooling.lower_min,
        "ReduceMax": pooling.lower_reduce,
        "ReduceMean": pooling.lower_reduce,
        "ReduceMin": pooling.lower_reduce,
        "ReduceSum": pooling.lower_reduce,
        # data movement
        "Concat": movement.lower_concat,
        "DepthToSpace": movement.lower_movement,
        "Expand": movement.lower_movement,
        "Flatten": movement.lower_movement,
        "Gather": movement.lower_movement,
        "GatherND": movement.lower_movement,
        "Pad": movement.lower_pad,
        "Reshape": movement.lower_movement,
        "Slice": movement.lower_movement,
        "SpaceToDepth": movement.lower_movement,
        "Split": movement.lower_movement,
        "Squeeze": movement.lower_movement,
        "Tile": movement.lower_movement,
        "Transpose": movement.lower_movement,
        "Unsqueeze": movement.lower_movement,
        "Resize": resize.lower_resize,
        "Upsample": resize.lower_upsample,
        # recurrent layers of fixed length
        "RNN": recurrent.lower_rnn,
        # the same number
        "Cast": movement.lower_cast,
        "Dropout": movement.lower_dropout,
        "Identity": movement.lower_identity,
        # shapes
        "Shape": movement.lower_shape,
        "Size": movement.lower_size,
    }
)

_JUMPS: Final = "jumps, so that no bound on its slope exists and nothing can be certified behind it"
_GATES: Final = "multiplies tensors that depend on the input with each other, which no implicit form here has"

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("ArgMax", "ArgMin", "Ceil", "Floor", "Greater", "Less", "Round", "Sign", "TopK"), _JUMPS),
        **dict.fromkeys(("Attention", "Einsum", "GRU", "LSTM", "Pow", "Reciprocal"), _GATES),
        "If": "chooses between subgraphs",
        "Loop": "runs a subgraph",
        "QuantizeLinear": _JUMPS,
        "LogSoftmax": "stands inside the network; only a last LogSoftmax, which changes no ranking, can be left out",
    }
)
"""Operators without an implicit form here, and why; everything else that LOWERINGS lacks is simply not known."""
