"""Recurrent layers of fixed length, unrolled: every step is a few blocks of states, and gates are products of states.

    RNN    h' = f(W u + R h + b)
    GRU    z, r = f(W u + R h + b),  n = g(W u + R (r h) + b) or g(W u + b + r (R h + b')),  h' = n + z (h - n)
    LSTM   i, e = f(W u + R h + P c + b),  g = g(W u + R h + b),  c' = e c + i g,
           o = f(W u + R h + P c' + b),  h' = o h(c')

with the gates in the order i o e g, their peepholes P in the order i o e, in the GRU z r n. `clip` acts on what the
activations read. Where the gates i and e are coupled, c' = c + i (g - c).

Elsewhere: unfolding in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.lowering import jumps, nonlinear
from idl_audit.implicit.lowering.arithmetic import constant_form, multiplied, zeros
from idl_audit.implicit.lowering.linear import times_constant
from idl_audit.implicit.lowering.maxima import OUTSIDE, stack
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    float_attribute,
    form_input,
    int_attribute,
    optional_constant,
    refuse,
    text_attribute,
)
from idl_audit.values.arrays import FloatArray, IntArray

# --- activations of a step --------------------------------------------------------------------------------------------

_Applied: TypeAlias = Callable[[Node, AffineForm, Walk], AffineForm]


@dataclass(frozen=True)
class StepFunction:
    """An activation that a recurrent layer may apply, with the parameters that it has; other functions take none."""

    apply: _Applied
    parameters: Mapping[str, float | None] = field(default_factory=lambda: MappingProxyType({}))
    """Name -> default; None where ONNX has none."""


def _plain(operator: str) -> StepFunction:
    return StepFunction(lambda node, form, walk: walk.states(node, nonlinear.PLAIN[operator](), form))


def _lowered(operator: str, **parameters: float) -> StepFunction:
    """Return the activation that an operator with attributes is."""

    def apply(node: Node, form: AffineForm, walk: Walk) -> AffineForm:
        (made,) = _WITH_PARAMETERS[operator](node, (form,), walk)
        assert isinstance(made, AffineForm)
        return made

    return StepFunction(apply, MappingProxyType(parameters))


_WITH_PARAMETERS: Final = MappingProxyType(
    {
        "Elu": nonlinear.lower_elu,
        "HardSigmoid": nonlinear.lower_hard_sigmoid,
        "LeakyRelu": nonlinear.lower_leaky_relu,
        "ThresholdedRelu": jumps.lower_thresholded_relu,
    }
)


def _affine(node: Node, form: AffineForm, walk: Walk) -> AffineForm:
    alpha, beta = (float_attribute(node, name, 0.0) for name in ("alpha", "beta"))
    return walk.scaled(node, form, alpha).scaled(1.0, beta)


def _scaled_tanh(node: Node, form: AffineForm, walk: Walk) -> AffineForm:
    alpha, beta = (float_attribute(node, name, 0.0) for name in ("alpha", "beta"))
    inner = walk.scaled(node, form, beta)
    return walk.scaled(node, walk.states(node, nonlinear.PLAIN["Tanh"](), inner), alpha)


STEP_FUNCTIONS: Final[Mapping[str, StepFunction]] = MappingProxyType(
    {
        "Affine": StepFunction(_affine, MappingProxyType({"alpha": None, "beta": None})),
        "Elu": _lowered("Elu", alpha=1.0),
        "HardSigmoid": _lowered("HardSigmoid", alpha=0.2, beta=0.5),
        "LeakyRelu": _lowered("LeakyRelu", alpha=0.01),
        "Relu": _plain("Relu"),
        "ScaledTanh": StepFunction(_scaled_tanh, MappingProxyType({"alpha": None, "beta": None})),
        "Sigmoid": _plain("Sigmoid"),
        "Softplus": _plain("Softplus"),
        "Softsign": _plain("Softsign"),
        "Tanh": _plain("Tanh"),
        "ThresholdedRelu": _lowered("ThresholdedRelu", alpha=1.0),
    }
)
"""What ONNX knows as an activation of a step."""


def _functions(node: Node, kind: Kind, n_directions: int) -> list[tuple[_Applied, ...]]:
    """Return the activations of each direction; parameters go, in order, to those that have some."""
    given = node.attributes.get("activations", kind.functions * n_directions)
    names = [str(name) for name in given] if isinstance(given, tuple) else [""]
    known = {name.lower(): function for name, function in STEP_FUNCTIONS.items()}
    if len(names) != len(kind.functions) * n_directions or not all(name.lower() in known for name in names):
        refuse(node, f"has the activations {', '.join(names)}; known are {', '.join(STEP_FUNCTIONS)}")
    left = {name: list(_numbers(node, f"activation_{name}")) for name in ("alpha", "beta")}
    found: list[_Applied] = []
    for name in names:
        function = known[name.lower()]
        own = {key: left[key].pop(0) if left[key] else default for key, default in function.parameters.items()}
        if None in own.values():
            refuse(node, f"has the activation {name} without its alpha and beta, for which ONNX has no defaults")
        found.append(_with(function.apply, {key: number for key, number in own.items() if number is not None}))
    return [tuple(found[k : k + len(kind.functions)]) for k in range(0, len(found), len(kind.functions))]


def _with(apply: _Applied, parameters: Mapping[str, float]) -> _Applied:
    return lambda node, form, walk: apply(replace(node, attributes=MappingProxyType(dict(parameters))), form, walk)


def _numbers(node: Node, name: str) -> tuple[float, ...]:
    value = node.attributes.get(name, ())
    if not isinstance(value, tuple) or not all(isinstance(v, (int, float)) and np.isfinite(v) for v in value):
        refuse(node, f"has an attribute {name} that is no list of finite numbers")
    return tuple(float(v) for v in value if isinstance(v, (int, float)))


# --- one step ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step of one direction, for n sequences at once."""

    node: Node
    """Named after the step."""
    walk: Walk
    weights: FloatArray
    """W, (gates * hidden, size)."""
    recurrence: FloatArray
    """R, (gates * hidden, hidden)."""
    biases: FloatArray
    """(2, gates * hidden): b of W and b' of R."""
    peepholes: FloatArray
    """P, (3, hidden)."""
    functions: tuple[_Applied, ...]
    clip: float | None
    input_forget: bool
    linear_before_reset: bool

    @property
    def hidden(self) -> int:
        """Number of states of one sequence."""
        return int(self.recurrence.shape[1])

    def rows(self, *gates: int) -> IntArray:
        """Return the rows of W and R that make these gates."""
        return np.concatenate([np.arange(gate * self.hidden, (gate + 1) * self.hidden) for gate in gates])

    def read(self, u: AffineForm, rows: IntArray, name: str) -> AffineForm:
        """Return W u + b for some rows, (n, rows)."""
        return self.apart(self._mapped(u, self.weights[rows], self.biases[0, rows]), f"{name}/W")

    def recalled(self, h: AffineForm, rows: IntArray, name: str) -> AffineForm:
        """Return R h + b' for some rows, (n, rows)."""
        if h.constant.any():  # R h of a constant h cancels within the product, where runtimes compute it
            h = self.apart(h, f"{name}/h")
        return self.apart(self._mapped(h, self.recurrence[rows], self.biases[1, rows]), f"{name}/R")

    def _mapped(self, form: AffineForm, matrix: FloatArray, bias: FloatArray) -> AffineForm:
        shift = np.tile(bias, form.shape[0])
        if not form.terms and not form.constant.any() and not form.constant_error:
            return AffineForm((form.shape[0], len(matrix)), {}, shift)
        return times_constant(self.node, form, matrix.T, self.walk, form_on_left=True).shifted(shift)

    def gates(self, u: AffineForm, h: AffineForm, name: str, *gates: int) -> AffineForm:
        """Return W u + R h + b + b' of some gates, (n, gates * hidden)."""
        rows = self.rows(*gates)
        return self.apart(self.read(u, rows, name).plus(self.recalled(h, rows, name)), f"{name}/sum")

    def apart(self, form: AffineForm, name: str) -> AffineForm:
        """Return what stands for a number of this step that a runtime rounds."""
        return self.walk.apart(self.node, form, f"/{name}")

    def gated(self, number: int, form: AffineForm, name: str) -> AffineForm:
        """Return an activation, by its number, of the form, clipped before."""
        if self.clip is not None:
            form = nonlinear.clipped(self.named(f"{name}/clip"), form, -self.clip, self.clip, self.walk)
        return self.applied(number, form, name)

    def applied(self, number: int, form: AffineForm, name: str) -> AffineForm:
        """Return an activation, by its number, of the form."""
        return self.functions[number](self.named(name), form, self.walk)

    def times(self, first: AffineForm, second: AffineForm, name: str) -> AffineForm:
        """Return first * second, entry by entry."""
        return multiplied(self.named(name), first, second, self.walk)

    def named(self, name: str) -> Node:
        """Return the node under the name of a part of this step."""
        return replace(self.node, name=f"{self.node.name}/{name}" if name else self.node.name)

    def seen(self, c: AffineForm, which: int) -> AffineForm:
        """Return P c for one gate."""
        weights = self.peepholes[which]
        return self.apart(c.scaled(weights), f"P{which}") if weights.any() else zeros(c.shape)

    def kept(self, form: AffineForm, name: str) -> AffineForm:
        """Return states that stand for a form that several others read."""
        return self.walk.cut(self.node, form, suffix=f"/{name}")


def _part(form: AffineForm, k: int, width: int) -> AffineForm:
    """Return gate k of several that lie side by side."""
    return form.selected(np.ascontiguousarray(flat_indices(form.shape)[:, k * width : (k + 1) * width]))


_States: TypeAlias = tuple[AffineForm, ...]


def _rnn_step(step: Step, u: AffineForm, states: _States) -> _States:
    return (step.gated(0, step.gates(u, states[0], "f", 0), ""),)


def _gru_step(step: Step, u: AffineForm, states: _States) -> _States:
    (h,) = states
    width = step.hidden
    gates = step.gated(0, step.gates(u, h, "zr", 0, 1), "zr")
    update, reset = _part(gates, 0, width), _part(gates, 1, width)
    rows = step.rows(2)
    if step.linear_before_reset:
        recalled = step.times(reset, step.recalled(h, rows, "n"), "reset")
    else:
        recalled = step.recalled(step.times(reset, h, "reset"), rows, "n")
    new = step.gated(1, step.apart(step.read(u, rows, "n").plus(recalled), "n/sum"), "n")
    return (step.kept(new.plus(step.times(update, h.plus(new.scaled(-1.0)), "update")), "h"),)


def _lstm_step(step: Step, u: AffineForm, states: _States) -> _States:
    h, c = states
    g = step.gated(1, step.gates(u, h, "g", _G), "g")
    if step.input_forget:
        i = step.gated(0, step.apart(step.gates(u, h, "i", _I).plus(step.seen(c, _I)), "i/all"), "i")
        new = step.apart(c.plus(step.times(i, g.plus(c.scaled(-1.0)), "c")), "c")
    else:
        new = step.apart(_new_cell(step, u, h, c, g), "c")
    o = step.gated(0, step.apart(step.gates(u, h, "o", _O).plus(step.seen(new, _O)), "o/all"), "o")
    return step.kept(step.times(o, step.applied(2, new, "tanh"), "h"), "h"), new


_I, _O, _E, _G = range(4)
"""The order of an LSTM's gates."""


def _new_cell(step: Step, u: AffineForm, h: AffineForm, c: AffineForm, g: AffineForm) -> AffineForm:
    """Return e c + i g, both products in one block where both factors of both move."""
    n, width = c.shape
    seen = stack([step.seen(c, _I), step.seen(c, _E)], 2 * c.size)
    order = np.concatenate([flat_indices(c.shape), c.size + flat_indices(c.shape)], axis=1)
    gates = step.gated(0, step.apart(step.gates(u, h, "ie", _I, _E).plus(seen.selected(order)), "ie/all"), "ie")
    i, e = _part(gates, 0, width), _part(gates, 1, width)
    if not c.terms:
        return step.times(i, g, "c").plus(step.times(e, c, "kept"))
    read = stack([g, c], 2 * c.size).selected(order)
    both = step.times(gates, read, "c")
    return _part(both, 0, width).plus(_part(both, 1, width)).reshaped((n, width))


# --- the layer --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A recurrent operator."""

    gates: int
    functions: tuple[str, ...]
    """Activations of one direction, unless others are named."""
    states: int
    """What a step hands on: h, or h and c."""
    step: Callable[[Step, AffineForm, _States], _States]


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "GRU": Kind(3, ("Sigmoid", "Tanh"), 1, _gru_step),
        "LSTM": Kind(4, ("Sigmoid", "Tanh", "Tanh"), 2, _lstm_step),
        "RNN": Kind(1, ("Tanh",), 1, _rnn_step),
    }
)

_DIRECTIONS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"forward": (1,), "reverse": (-1,), "bidirectional": (1, -1)}
)


def lower_recurrent(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """RNN, GRU and LSTM: forward, backward or both, over sequences whose lengths the file fixes."""
    kind, form = KINDS[node.op], form_input(node, values, 0)
    signs = _DIRECTIONS.get(text_attribute(node, "direction", "forward"), ())
    weights = constant_input(node, values, 1, "weights").astype(np.float64)
    recurrence = constant_input(node, values, 2, "recurrence").astype(np.float64)
    hidden = int(recurrence.shape[-1])
    size = form.shape[-1] if form.shape else 0
    rows = kind.gates * hidden
    wanted = ((len(signs), rows, size), (len(signs), rows, hidden))
    if len(form.shape) != 3 or not signs or (weights.shape, recurrence.shape) != wanted:
        refuse(node, f"has an input of shape {form.shape} and weights of shape {weights.shape}, which do not fit")
    batch_first = bool(int_attribute(node, "layout", 0))
    if batch_first:
        form = form.selected(np.ascontiguousarray(flat_indices(form.shape).swapaxes(0, 1)))
    length, batch, _ = form.shape
    steps = _steps(node, values, walk, kind, weights, recurrence)
    starts = [_initial(node, values, 5 + k, (len(signs), batch, hidden), batch_first) for k in range(kind.states)]
    shape = (length, len(signs), batch, hidden)
    runs = _Runs(shape, kind.states)
    lengths = _lengths(node, values, length, batch)
    for n_steps in np.unique(lengths).tolist():
        members = np.flatnonzero(lengths == n_steps)
        for k, sign in enumerate(signs):
            state = tuple(start.selected(flat_indices(start.shape)[k, members]) for start in starts)
            for t in range(n_steps)[::sign]:
                read = form.selected(flat_indices(form.shape)[t, members])
                state = kind.step(_at(steps[k], f"/{sign:+d}/{t}", runs), read, state)
                runs.add(state[0], t, k, members)
            runs.end(state, k, members)
    return runs.outputs(batch_first=batch_first)


def _at(step: Step, where: str, runs: _Runs) -> Step:
    """Return the step with a name of its own: place and direction, and a number where sequences differ in length."""
    name = f"{step.node.label}{where}"
    return replace(step, node=replace(step.node, name=name if runs.is_new(name) else f"{name}/{len(runs.names)}"))


def _steps(
    node: Node,
    values: Sequence[TensorValue | None],
    walk: Walk,
    kind: Kind,
    weights: FloatArray,
    recurrence: FloatArray,
) -> list[Step]:
    """Return what each direction does at every step."""
    n, hidden = len(weights), recurrence.shape[-1]
    biases = _optional(node, values, 3, "bias", (n, 2 * kind.gates * hidden)).reshape(n, 2, kind.gates * hidden)
    peepholes = _optional(node, values, 7, "peepholes", (n, 3 * hidden)).reshape(n, 3, hidden)
    clip = float_attribute(node, "clip", np.inf, bound=True)
    if clip < 0:
        refuse(node, f"clips to [{-clip:g}, {clip:g}]; the bound is a number that is not negative")
    return [
        Step(
            node=node,
            walk=walk,
            weights=weights[k],
            recurrence=recurrence[k],
            biases=biases[k],
            peepholes=peepholes[k],
            functions=functions,
            clip=clip if "clip" in node.attributes else None,
            input_forget=bool(int_attribute(node, "input_forget", 0)),
            linear_before_reset=bool(int_attribute(node, "linear_before_reset", 0)),
        )
        for k, functions in enumerate(_functions(node, kind, n))
    ]


def _optional(
    node: Node, values: Sequence[TensorValue | None], k: int, what: str, shape: tuple[int, ...]
) -> FloatArray:
    given = optional_constant(node, values, k, what)
    if given is None:
        return np.zeros(shape)
    if given.shape != shape:
        refuse(node, f"has a {what} (input {k}) of shape {given.shape} where {shape} is needed")
    return given.astype(np.float64)


def _lengths(node: Node, values: Sequence[TensorValue | None], length: int, batch: int) -> IntArray:
    """Return how many steps each sequence has."""
    given = optional_constant(node, values, 4, "list of sequence lengths")
    if given is None or not given.size:
        return np.full(batch, length)
    if given.shape != (batch,) or not bool(((given >= 1) & (given <= length)).all()):
        refuse(node, f"has sequences of lengths {given.tolist()}; each of {batch} must have 1 to {length} steps")
    return given.astype(np.int64)


def _initial(
    node: Node, values: Sequence[TensorValue | None], k: int, shape: tuple[int, ...], batch_first: bool
) -> AffineForm:
    """Return a first state, (directions, batch, hidden); it may depend on the input."""
    given = values[k] if k < len(values) else None
    if given is None or not given.shape:
        return zeros(shape)
    start = given if isinstance(given, AffineForm) else constant_form(given)
    if batch_first:
        start = start.selected(np.ascontiguousarray(flat_indices(start.shape).swapaxes(0, 1)))
    if start.shape != shape:
        refuse(node, f"has a first state (input {k}) of shape {start.shape} where {shape} is needed")
    return start


class _Pieces:
    """A tensor that is made piece by piece; what no piece fills is 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._forms: list[AffineForm] = []
        self._places = np.full(shape, OUTSIDE)
        self._size = 0

    def put(self, where: tuple[int | IntArray, ...], form: AffineForm) -> None:
        """Put a piece where an index of the tensor says."""
        self._places[where] = self._size + flat_indices(form.shape)
        self._forms.append(form)
        self._size += form.size

    def whole(self, axes: tuple[int, ...]) -> AffineForm:
        """Return the tensor, its axes in this order."""
        return stack(self._forms, self._size).selected(np.ascontiguousarray(self._places.transpose(axes)))


class _Runs:
    """The states of all directions, as they are made, and where they belong in the outputs."""

    def __init__(self, shape: tuple[int, int, int, int], n_states: int) -> None:
        self.names: set[str] = set()
        self._whole = _Pieces(shape)
        self._last = [_Pieces(shape[1:]) for _ in range(n_states)]

    def is_new(self, name: str) -> bool:
        """Whether no step was called so before."""
        before = len(self.names)
        self.names.add(name)
        return len(self.names) > before

    def add(self, h: AffineForm, t: int, k: int, members: IntArray) -> None:
        """Put in the states of one step."""
        self._whole.put((t, k, members), h)

    def end(self, states: _States, k: int, members: IntArray) -> None:
        """Put in the last states of one direction."""
        for last, state in zip(self._last, states, strict=True):
            last.put((k, members), state)

    def outputs(self, *, batch_first: bool) -> tuple[TensorValue, ...]:
        """Return Y, shape (length, directions, batch, hidden), and Y_h, Y_c, shape (directions, batch, hidden)."""
        whole, last = ((2, 0, 1, 3), (1, 0, 2)) if batch_first else ((0, 1, 2, 3), (0, 1, 2))
        return (self._whole.whole(whole), *(pieces.whole(last) for pieces in self._last))
