"""Losses with constant targets: a weighted mean of the scores that the targets name, with their sign turned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Selection
from idl_audit.implicit.lowering.reductions import log_softmax
from idl_audit.implicit.lowering.sums import weighted_sum
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    optional_constant,
    refuse,
    refuse_infinity,
    text_attribute,
)
from idl_audit.values.rounding import gamma


def lower_negative_log_likelihood(
    node: Node, values: Sequence[TensorValue | None], walk: Walk
) -> tuple[TensorValue, ...]:
    """NegativeLogLikelihoodLoss: minus the log-probabilities of the targets, each, summed, or their weighted mean."""
    return (_loss(node, form_input(node, values, 0), values, walk),)


def lower_softmax_cross_entropy(
    node: Node, values: Sequence[TensorValue | None], walk: Walk
) -> tuple[TensorValue, ...]:
    """SoftmaxCrossEntropyLoss: the same of scores, whose logarithms of a softmax over axis 1 are the second output."""
    form = form_input(node, values, 0)
    if len(form.shape) < 2:
        refuse(node, f"has scores of shape {form.shape} without an axis of classes")
    logs = log_softmax(node, form, (1,), walk)
    return (_loss(node, logs, values, walk), logs)


def _loss(node: Node, logs: AffineForm, values: Sequence[TensorValue | None], walk: Walk) -> AffineForm:
    target = constant_input(node, values, 1, "list of targets").astype(np.int64)
    given = optional_constant(node, values, 2, "list of weights")
    if len(logs.shape) < 2 or target.shape != (*logs.shape[:1], *logs.shape[2:]):
        refuse(node, f"has targets of shape {target.shape} for scores of shape {logs.shape}")
    counted = np.ones(target.shape, np.bool_)
    if "ignore_index" in node.attributes:
        counted = target != int_attribute(node, "ignore_index", -1)
    target = np.where(counted, target, 0)
    if given is not None:
        refuse_infinity(node, given)
    weights = np.ones(target.shape) if given is None else given.astype(np.float64)[target]
    weights = np.where(counted, weights, 0.0)
    places = np.take_along_axis(flat_indices(logs.shape), target[:, None], axis=1)[:, 0]
    reduction = text_attribute(node, "reduction", "mean")
    if reduction not in ("mean", "none", "sum"):
        refuse(node, f"has the reduction '{reduction}'; known are mean, none and sum")
    picked = logs.selected(np.ascontiguousarray(places))
    weighed = walk.linear(node, Selection.diagonal(-weights.reshape(-1)), picked, target.shape)
    if reduction == "none":
        return weighed
    total = weighted_sum(node, weighed, (), flat_indices((1, target.size)), np.ones(1), walk)
    if reduction == "sum":
        return total
    if not weights.sum():
        refuse(node, "averages over targets whose weights are 0 together")
    mean = Selection.diagonal(np.full(1, 1.0 / weights.sum())).uncertain(gamma(weights.size + 4))
    return walk.linear(node, mean, total, ())
