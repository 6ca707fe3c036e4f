"""LOWERINGS: every operator that has an implicit form, and the function that makes it; one file per family.

Elsewhere: operator support, translation, frontend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from idl_audit.graph.ir import Node
from idl_audit.implicit.lowering import (
    arithmetic,
    attention,
    convolutions,
    einsum,
    identities,
    jumps,
    linear,
    losses,
    maxima,
    movement,
    nonlinear,
    norms,
    pooling,
    quantised,
    recurrent,
    reductions,
    resize,
    sampling,
    scatter,
    transforms,
)
from idl_audit.implicit.walk import TensorValue, Walk

Lowering: TypeAlias = Callable[[Node, Sequence[TensorValue | None], Walk], tuple[TensorValue, ...]]

LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        # linear layers
        "BatchNormalization": linear.lower_batch_normalization,
        "Conv": convolutions.lower_conv,
        "ConvTranspose": convolutions.lower_conv_transpose,
        "Det": reductions.lower_determinant,
        "Einsum": einsum.lower_einsum,
        "Gemm": linear.lower_gemm,
        "MatMul": linear.lower_matmul,
        # other linear maps
        "AffineGrid": sampling.lower_affine_grid,
        "Col2Im": transforms.lower_col2im,
        "CumProd": reductions.lower_cumulative_product,
        "CumSum": transforms.lower_cumulative_sum,
        "DFT": transforms.lower_dft,
        "GridSample": sampling.lower_grid_sample,
        "RotaryEmbedding": transforms.lower_rotary_embedding,
        "STFT": transforms.lower_stft,
        # arithmetic
        "Add": arithmetic.lower_add,
        "Div": arithmetic.lower_div,
        "Mean": arithmetic.lower_mean,
        "Mod": arithmetic.lower_mod,
        "Mul": arithmetic.lower_mul,
        "Neg": arithmetic.lower_neg,
        "Pow": arithmetic.lower_pow,
        "Reciprocal": arithmetic.lower_reciprocal,
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
        "LogSoftmax": reductions.lower_log_softmax,
        "PRelu": nonlinear.lower_prelu,
        "Selu": nonlinear.lower_elu,
        "Softmax": nonlinear.lower_softmax,
        "Swish": nonlinear.lower_swish,
        # jumps
        **dict.fromkeys(("And", "Or", "Xor"), jumps.lower_logic),
        **dict.fromkeys(("Ceil", "Floor", "Round"), jumps.lower_rounding),
        **dict.fromkeys(jumps.COMPARISONS, jumps.lower_comparison),
        "Equal": jumps.lower_equal,
        "Not": jumps.lower_not,
        "Shrink": jumps.lower_shrink,
        "Sign": jumps.lower_sign,
        "ThresholdedRelu": jumps.lower_thresholded_relu,
        # quantised numbers
        "DequantizeLinear": quantised.lower_dequantize_linear,
        "QLinearConv": quantised.lower_qlinear_conv,
        "QLinearMatMul": quantised.lower_qlinear_matmul,
        "QuantizeLinear": quantised.lower_quantize_linear,
        # pooling and reductions
        "AveragePool": pooling.lower_average_pool,
        "GlobalAveragePool": reductions.lower_global_average_pool,
        "GlobalLpPool": reductions.lower_global_lp_pool,
        "GlobalMaxPool": reductions.lower_global_max_pool,
        "LpPool": pooling.lower_lp_pool,
        "Max": maxima.lower_max,
        "MaxPool": pooling.lower_max_pool,
        "Min": maxima.lower_min,
        "ReduceL1": reductions.lower_reduce,
        "ReduceL2": reductions.lower_reduce,
        "ReduceLogSum": reductions.lower_reduce,
        "ReduceLogSumExp": reductions.lower_reduce,
        "ReduceMax": reductions.lower_reduce,
        "ReduceMean": reductions.lower_reduce,
        "ReduceMin": reductions.lower_reduce,
        "ReduceProd": reductions.lower_reduce,
        "ReduceSum": reductions.lower_reduce,
        "ReduceSumSquare": reductions.lower_reduce,
        "TopK": maxima.lower_top_k,
        # norms
        "GroupNormalization": norms.lower_group_normalization,
        "InstanceNormalization": norms.lower_instance_normalization,
        "LRN": norms.lower_lrn,
        "LayerNormalization": norms.lower_layer_normalization,
        "LpNormalization": norms.lower_lp_normalization,
        "MeanVarianceNormalization": norms.lower_mean_variance,
        "RMSNormalization": norms.lower_layer_normalization,
        # losses
        "NegativeLogLikelihoodLoss": losses.lower_negative_log_likelihood,
        "SoftmaxCrossEntropyLoss": losses.lower_softmax_cross_entropy,
        # data movement
        "CenterCropPad": movement.lower_filled_movement,
        "Compress": movement.lower_movement,
        "Concat": movement.lower_concat,
        "DepthToSpace": movement.lower_movement,
        "Expand": movement.lower_movement,
        "Flatten": movement.lower_movement,
        "Gather": movement.lower_movement,
        "GatherElements": movement.lower_gather_elements,
        "GatherND": movement.lower_movement,
        "MaxUnpool": movement.lower_max_unpool,
        "OneHot": movement.lower_movement,
        "Pad": movement.lower_pad,
        "Reshape": movement.lower_movement,
        "Resize": resize.lower_resize,
        "ReverseSequence": movement.lower_movement,
        "Scatter": scatter.lower_scatter,
        "ScatterElements": scatter.lower_scatter,
        "ScatterND": scatter.lower_scatter,
        "Slice": movement.lower_movement,
        "SpaceToDepth": movement.lower_movement,
        "Split": movement.lower_movement,
        "Squeeze": movement.lower_movement,
        "TensorScatter": movement.lower_movement,
        "Tile": movement.lower_movement,
        "Transpose": movement.lower_movement,
        "Trilu": movement.lower_filled_movement,
        "Unsqueeze": movement.lower_movement,
        "Upsample": resize.lower_upsample,
        "Where": movement.lower_where,
        # recurrent layers of fixed length
        **dict.fromkeys(recurrent.KINDS, recurrent.lower_recurrent),
        # attention and gates
        "Attention": attention.lower_attention,
        "LinearAttention": attention.lower_linear_attention,
        "SwiGLU": attention.lower_swiglu,
        # the same number
        "Cast": identities.lower_cast,
        "CastLike": identities.lower_cast_like,
        "Dropout": identities.lower_dropout,
        "Identity": identities.lower_identity,
        "Optional": identities.lower_identity,
        "OptionalGetElement": identities.lower_identity,
        # what no number changes
        "EyeLike": identities.lower_eye_like,
        "IsInf": identities.lower_finite,
        "IsNaN": identities.lower_finite,
        "OptionalHasElement": identities.lower_has_element,
        "Shape": identities.lower_shape,
        "Size": identities.lower_size,
    }
)

CONSTANT: Final = frozenset({"EyeLike", "IsInf", "IsNaN", "OptionalHasElement", "Shape", "Size"})
"""Operators of LOWERINGS whose result is the same for all numbers: a constant."""
