"""Recurrent layers of fixed length, unrolled: each step is a block of states x_t = phi(W u_t + R x_{t-1} + b)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.activations import Activation, curve, kinked
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    optional_constant,
    refuse,
    text_attribute,
)
from idl_audit.values.arrays import FloatArray

STEP_ACTIVATIONS: Final[Mapping[str, Callable[[], Activation]]] = MappingProxyType(
    {"Tanh": curve.tanh, "Relu": kinked.relu, "Sigmoid": curve.sigmoid, "Softsign": curve.softsign}
)
"""What an RNN may apply at each step."""

_DIRECTIONS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"forward": (1,), "reverse": (-1,), "bidirectional": (1, -1)}
)


def lower_rnn(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """RNN: forward, backward or both, over a sequence whose length the input's shape fixes."""
    form = form_input(node, values, 0)
    weights = constant_input(node, values, 1, "weights").astype(np.float64)
    recurrence = constant_input(node, values, 2, "recurrence").astype(np.float64)
    direction = _DIRECTIONS.get(text_attribute(node, "direction", "forward"))
    if direction is None or len(form.shape) != 3 or weights.shape[0] != len(direction):
        refuse(node, f"has an input of shape {form.shape} and weights of shape {weights.shape}, which do not fit")
    if int_attribute(node, "layout", 0):
        refuse(node, "has its batch axis first (layout 1); export it with the sequence first")
    if node.attributes.get("clip") is not None:
        refuse(node, "clips its state, which is not handled")
    length, batch, size = form.shape
    hidden = int(recurrence.shape[-1])
    bias = optional_constant(node, values, 3, "bias")
    biases = np.zeros((len(direction), 2 * hidden)) if bias is None else bias.astype(np.float64)
    lengths = optional_constant(node, values, 4, "sequence lengths")
    if lengths is not None and not bool((lengths == length).all()):
        refuse(node, "has sequences of different lengths; only one fixed length can be unrolled")
    if batch != 1:
        refuse(node, f"works on {batch} sequences at a time (input {form.shape}); one sample must be one sequence")
    start = values[5] if len(values) > 5 else None
    names = _activations(node, len(direction))
    steps = [
        _unrolled(
            node,
            walk,
            form.reshaped((length, size)),
            weights[k],
            recurrence[k],
            (biases[k][:hidden], biases[k][hidden:]),
            _initial(start, k, hidden),
            (sign, names[k]),
        )
        for k, sign in enumerate(direction)
    ]
    if direction == (-1,):
        whole, _ = _outputs(steps, length, hidden)
        return whole, steps[0][0].reshaped((1, 1, hidden))
    return _outputs(steps, length, hidden)


def _activations(node: Node, n_directions: int) -> list[str]:
    given = node.attributes.get("activations", ("Tanh",) * n_directions)
    names = [str(name) for name in given] if isinstance(given, tuple) else [""]
    if len(names) != n_directions or not all(name in STEP_ACTIVATIONS for name in names):
        refuse(node, f"has the activations {', '.join(names)}; known are {', '.join(STEP_ACTIVATIONS)}")
    return names


def _initial(start: TensorValue | None, k: int, hidden: int) -> AffineForm:
    if isinstance(start, AffineForm):
        return start.selected(flat_indices(start.shape).reshape(-1, hidden)[k])
    constant = np.zeros(hidden) if start is None else np.asarray(start, np.float64).reshape(-1, hidden)[k]
    return AffineForm((hidden,), {}, constant)


def _unrolled(
    node: Node,
    walk: Walk,
    sequence: AffineForm,
    weights: FloatArray,
    recurrence: FloatArray,
    biases: tuple[FloatArray, FloatArray],
    state: AffineForm,
    step: tuple[int, str],
) -> list[AffineForm]:
    """Return the states of one direction, in the order of the sequence."""
    sign, activation = step
    length, size = sequence.shape
    hidden = len(recurrence)
    positions = flat_indices((length, size))
    results: dict[int, AffineForm] = {}
    for t in range(length)[::sign]:
        read = sequence.selected(positions[t])
        here = walk.linear(node, Dense(matrix=weights), read, (hidden,), offset=biases[0]).shifted(biases[1])
        before = walk.linear(node, Dense(matrix=recurrence), state, (hidden,))
        state = walk.states(node, STEP_ACTIVATIONS[activation](), here.plus(before), suffix=f"/{sign:+d}/{t}")
        results[t] = state
    return [results[t] for t in range(length)]


def _outputs(steps: list[list[AffineForm]], length: int, hidden: int) -> tuple[TensorValue, ...]:
    """Return Y, shape (length, directions, 1, hidden), and Y_h, shape (directions, 1, hidden)."""
    ordered = [steps[k][t] for t in range(length) for k in range(len(steps))]
    whole = stacked(ordered, hidden).reshaped((length, len(steps), 1, hidden))
    last = [states[-1] if k == 0 else states[0] for k, states in enumerate(steps)]
    return whole, stacked(last, hidden).reshaped((len(steps), 1, hidden))


def stacked(forms: Sequence[AffineForm], size: int) -> AffineForm:
    """Return vectors of one size one under the other."""
    total = len(forms) * size
    result = AffineForm((total,), {}, np.zeros(total))
    for k, form in enumerate(forms):
        place = np.full(total, -1, np.int64)
        place[k * size : (k + 1) * size] = np.arange(size)
        result = result.plus(form.selected(place))
    return result
