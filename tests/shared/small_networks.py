"""Small implicit models with known truth: exact rational evaluation, exact minima over a box, long-double sampling."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import highspy
import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Attribute, Graph, Node, Provenance, Value
from idl_audit.implicit.activations import ACTIVATIONS, COUPLED, Activation
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.linear_maps import Dense, LinearMap, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from tests.shared.exact_activations import STEEP

leaky_relu = ACTIVATIONS["leaky_relu"]
KINKED: Mapping[str, Callable[[np.random.Generator, int], Activation]] = {
    "relu": lambda rng, n: ACTIVATIONS["relu"](),
    "leaky": lambda rng, n: leaky_relu(0.1),
    "steep": lambda rng, n: leaky_relu(2.5),
    "negative": lambda rng, n: leaky_relu(-0.5),
    "prelu": lambda rng, n: leaky_relu(rng.normal(size=n)),
    "abs": lambda rng, n: ACTIVATIONS["abs"](),
    "identity": lambda rng, n: ACTIVATIONS["identity"](),
}
SMOOTH: Mapping[str, Callable[[np.random.Generator, int], Activation]] = {
    "tanh": lambda rng, n: ACTIVATIONS["tanh"](),
    "sigmoid": lambda rng, n: ACTIVATIONS["sigmoid"](),
    "softmax": lambda rng, n: ACTIVATIONS["softmax"](n),
    "product": lambda rng, n: ACTIVATIONS["tanh" if n % 2 else "product"](),
    "contraction": lambda rng, n: ACTIVATIONS["tanh"]() if n % 2 else ACTIVATIONS["contraction"](1, n // 2, 1),
}
STEADY = tuple(name for name in SMOOTH if name not in ("contraction", "product"))
"""Those whose slopes a number bounds."""
PLAIN: Mapping[str, Callable[[np.random.Generator, int], Activation]] = {
    name: lambda rng, n, make=make: make() for name, make in ACTIVATIONS.items() if name not in STEEP | COUPLED
}
"""Every activation of one variable that is defined everywhere and of bounded slope, with its usual parameters."""


def dense(matrix: Any) -> Dense:
    return Dense(matrix=np.asarray(matrix, np.float64))


def as_some_map(matrix: FloatArray, rng: np.random.Generator) -> LinearMap:
    """Return the matrix in one of the forms that can hold it."""
    if rng.random() < 0.5:
        return dense(matrix)
    return Sparse(matrix=sp.csr_array(matrix))


def layered(
    layers: Sequence[tuple[Any, Any]],
    output: tuple[Any, Any],
    activation: Activation | Sequence[Activation] | None = None,
    *,
    skip: Any = None,
) -> ImplicitModel:
    """Return y = W_out phi(... phi(W_1 u + b_1)) + skip u + d from (W, b) pairs, oldest first."""
    count = len(layers)
    phis = list(activation) if isinstance(activation, Sequence) else [activation or ACTIVATIONS["relu"]()] * count
    blocks, rows = [], []
    for k in range(count):
        made = count - 1 - k
        weight, bias = np.atleast_2d(np.asarray(layers[made][0], np.float64)), np.asarray(layers[made][1], np.float64)
        blocks.append(StateBlock(f"layer{made}", "Relu", phis[made], (bias.size,)))
        rows.append(Affine({k + 1: dense(weight)}, None, bias) if made else Affine({}, dense(weight), bias))
    weight, bias = np.atleast_2d(np.asarray(output[0], np.float64)), np.asarray(output[1], np.float64)
    n_inputs = np.atleast_2d(np.asarray(layers[0][0])).shape[1]
    last = Affine({0: dense(weight)}, None if skip is None else dense(skip), bias)
    return ImplicitModel(tuple(blocks), tuple(rows), last, (n_inputs,), (bias.size,))


def random_network(
    rng: np.random.Generator,
    *,
    p: int = 2,
    widths: Sequence[int] = (3, 3),
    q: int = 3,
    activations: Sequence[str] = ("relu",),
    skips: bool = True,
    cancelling: bool = False,
) -> ImplicitModel:
    """Return a random feed-forward model: skip connections, inputs read late, now and then a block of constants.

    `cancelling`: weights between 1e-8 and 1e8 and biases that cancel the pre-activation at the middle of [-1, 1]^p.
    """
    count = len(widths)
    phis = {**PLAIN, **KINKED, **SMOOTH}

    def weights(n_out: int, n_in: int) -> FloatArray:
        matrix = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        if cancelling:
            matrix = matrix * 10.0 ** rng.choice([-8, 0, 0, 8], size=matrix.shape)
        matrix[rng.random(matrix.shape) < 0.1] = 0.0
        return np.asarray(matrix)

    blocks: list[StateBlock] = []
    rows: list[Affine] = []
    for made in range(count):
        n = widths[made]
        sources = [j for j in range(made) if _reads(rng, made, j, skips)]
        reads = {count - 1 - j: as_some_map(weights(n, widths[j]), rng) for j in sources}
        reads_input = made == 0 or (skips and rng.random() < 0.3)
        if skips and made == 1 and count > 2 and rng.random() < 0.1:  # a block of constants
            reads, reads_input = {}, False
        own_input = as_some_map(weights(n, p), rng) if reads_input else None
        blocks.append(StateBlock(f"b{made}", "Relu", phis[str(rng.choice(list(activations)))](rng, n), (n,)))
        bias = rng.normal(size=n) * 0.3
        rows.append(Affine(reads, own_input, bias))
        if cancelling:
            at_zero = _by_number(blocks, rows, count, p, Affine({}, dense(np.zeros((1, p))), np.zeros(1)))
            z = at_zero.pre_activations(np.zeros((1, p)))[0][0]
            rows[-1] = Affine(reads, own_input, bias - z)
    sources = [j for j in range(count) if _reads(rng, count, j, skips)]
    maps = {count - 1 - j: as_some_map(weights(q, widths[j]), rng) for j in sources}
    own = as_some_map(weights(q, p), rng) if skips and rng.random() < 0.5 else None
    return _newest_first(blocks, rows, Affine(maps, own, rng.normal(size=q) * 0.3), p)


def _reads(rng: np.random.Generator, made: int, other: int, skips: bool) -> bool:
    return other == made - 1 or (skips and bool(rng.random() < 0.3))


def _newest_first(blocks: list[StateBlock], rows: list[Affine], output: Affine, p: int) -> ImplicitModel:
    return ImplicitModel(tuple(blocks[::-1]), tuple(rows[::-1]), output, (p,), (output.size,))


def _by_number(blocks: list[StateBlock], rows: list[Affine], count: int, p: int, output: Affine) -> ImplicitModel:
    """Return the model of the blocks made so far, whose rows count from the newest of all `count` blocks."""
    missing = count - len(blocks)
    shifted = [Affine({k - missing: w for k, w in row.states.items()}, row.input, row.constant) for row in rows]
    return _newest_first(blocks, shifted, output, p)


def random_box(rng: np.random.Generator, p: int, *, radius: float | None = None) -> Box:
    centre = rng.normal(size=p) * 0.3
    width = np.full(p, radius) if radius is not None else rng.choice([0.0, 1e-3, 0.3, 1.0], size=p)
    return Box.between(centre - width, centre + width)


def some_points(rng: np.random.Generator, box: Box, count: int) -> FloatArray:
    """Return corners, the centre, and random points (some of them on faces) of a box, shape (m, p)."""
    corners = rng.integers(0, 2, (count, box.size)).astype(bool)
    at_corners = np.where(corners, box.hi, box.lo)
    inside = np.clip(box.lo + rng.random((count, box.size)) * (box.hi - box.lo), box.lo, box.hi)
    faces = np.where(rng.random(inside.shape) < 0.5, at_corners, inside)
    return np.vstack([at_corners, inside, faces, box.centre[None]])


# ---------------------------------------------------------------------------------------------- graphs


def graph(
    nodes: Sequence[tuple[str, Sequence[str], str, Mapping[str, Attribute]]],
    constants: Mapping[str, Any],
    input_shape: tuple[int, ...],
    *,
    opset: int = 17,
) -> Graph:
    """Return a graph from (operator, inputs, output, attributes); the input is 'u', the last output is the result.

    It computes in float64 where its constants do.
    """
    dtype = "float64" if any(np.asarray(value).dtype == np.float64 for value in constants.values()) else "float32"
    made = tuple(Node(op, f"n{k}", tuple(i), (o,), dict(a)) for k, (op, i, o, a) in enumerate(nodes))
    return Graph(
        (Value("u", input_shape, dtype),),
        (Value(nodes[-1][2], None, dtype),),
        made,
        {name: np.asarray(value) for name, value in constants.items()},
        Provenance(None, "onnx", "", opset, "tests"),
    )


def pooled_network(
    rng: np.random.Generator, *, size: int = 4, window: int = 2, bias: float = 0.0, positive: bool = False, q: int = 3
) -> ImplicitModel:
    """Return conv -> max-pool -> dense on one channel of size x size."""
    kernel = rng.normal(size=(2, 1, 2, 2))
    kernel = np.abs(kernel) if positive else kernel
    side = (size - 1) // window if size > window else 1
    n = 2 * side * side
    nodes = [
        ("Conv", ("u", "k", "b"), "h", {"kernel_shape": (2, 2)}),
        ("MaxPool", ("h",), "m", {"kernel_shape": (window, window), "strides": (window, window)}),
        ("Flatten", ("m",), "f", {}),
        ("Gemm", ("f", "w", "c"), "y", {}),
    ]
    constants = {
        "k": kernel.astype(np.float32),
        "b": np.full(2, bias, np.float32),
        "w": rng.normal(size=(n, q)).astype(np.float32),
        "c": rng.normal(size=q).astype(np.float32),
    }
    return build_implicit(graph(nodes, constants, (1, 1, size, size)))


def pool_of_doubled(n: int) -> ImplicitModel:
    """Return y = max(2 u), n inputs: one window over states of an identity block."""
    nodes = [("Mul", ("u", "two"), "s", {}), ("MaxPool", ("s",), "y", {"kernel_shape": (n,)})]
    return build_implicit(graph(nodes, {"two": np.float32(2)}, (1, 1, n)))


def pool_of_inputs(n: int) -> ImplicitModel:
    """Return y = max(u), n inputs: one window over the inputs themselves."""
    return build_implicit(graph([("MaxPool", ("u",), "y", {"kernel_shape": (n,)})], {}, (1, 1, n)))


# ---------------------------------------------------------------------------------------------- exact truth


def exact(values: Any) -> np.ndarray[Any, Any]:
    """Return the floats as an object array of Fractions."""
    array = np.asarray(values)
    flat = [Fraction(float(v)) for v in array.reshape(-1)]
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(array.shape)


@dataclass(frozen=True)
class ExactAffine:
    states: Mapping[int, np.ndarray[Any, Any]]
    input: np.ndarray[Any, Any] | None
    constant: np.ndarray[Any, Any]

    def __call__(self, states: Mapping[int, Any], u: Any) -> Any:
        total = self.constant
        for k, matrix in self.states.items():
            total = total + matrix @ states[k]
        return total if self.input is None else total + self.input @ u

    def row(self, i: int) -> ExactAffine:
        one = slice(i, i + 1)
        own_input = None if self.input is None else self.input[one]
        return ExactAffine({k: w[one] for k, w in self.states.items()}, own_input, self.constant[one])

    def as_forms(self, states: Mapping[int, Any], p: int) -> Any:
        """Return the values as affine forms of u, given the states as such."""
        return replace(self, constant=_constants(self.constant, p))(states, _coordinates(p))


def two_slopes(block: StateBlock) -> tuple[FloatArray, FloatArray]:
    """Return phi(-1) and phi(1), which is all there is to know of a piecewise linear phi with its kink at 0."""
    assert block.activation.piecewise_linear
    one = np.ones((1, block.size))
    return -block.activation(-one)[0], block.activation(one)[0]


class ExactModel:
    """A model of Kinked activations in rational arithmetic."""

    def __init__(self, model: ImplicitModel) -> None:
        self.model = model
        self.rows = tuple(self._affine(row) for row in model.rows)
        self.output = self._affine(model.output)
        self.slopes = [self._slopes(block) for block in model.blocks]

    @staticmethod
    def _affine(row: Affine) -> ExactAffine:
        return ExactAffine(
            {k: exact(w.to_sparse().toarray()) for k, w in row.states.items()},
            None if row.input is None else exact(row.input.to_sparse().toarray()),
            exact(row.constant),
        )

    @staticmethod
    def _slopes(block: StateBlock) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        below, above = two_slopes(block)
        return exact(below), exact(above)

    def phi(self, k: int, z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        below, above = self.slopes[k]
        result = np.empty(z.size, object)
        result[:] = [a * v if v >= 0 else b * v for v, a, b in zip(z, above, below, strict=True)]
        return result

    def evaluate(self, u: Any) -> tuple[dict[int, Any], dict[int, Any], Any]:
        """Return (z, x, y) for one input."""
        point = exact(u)
        z: dict[int, Any] = {}
        x: dict[int, Any] = {}
        for k in self.model.evaluation_order:
            z[k] = self.rows[k](x, point)
            x[k] = self.phi(k, z[k])
        return z, x, self.output(x, point)

    def minimum(self, functional: Any, box: Box) -> Fraction:
        """Return the exact minimum of functional . y over a box of at most two inputs."""
        f = exact(functional)
        best: Fraction | None = None
        for vertices, x in self._cells(box):
            y = self.output.as_forms(x, box.size)
            form = sum((f[i] * y[i] for i in range(f.size)), start=0 * y[0])
            here = min(_at(form, v) for v in vertices)
            best = here if best is None else min(best, here)
        assert best is not None
        return best

    def _cells(self, box: Box) -> Iterator[tuple[list[tuple[Fraction, ...]], dict[int, Any]]]:
        """Yield (vertices, states as affine forms of u) of every linear piece: exact polygon clipping."""
        lo, hi = exact(box.lo), exact(box.hi)
        if box.size == 1:
            start = [(lo[0],), (hi[0],)]
        elif box.size == 2:
            start = [(lo[0], lo[1]), (hi[0], lo[1]), (hi[0], hi[1]), (lo[0], hi[1])]
        else:
            raise ValueError("exact cells are made for one or two inputs")
        order = [(k, i) for k in self.model.evaluation_order for i in range(self.model.blocks[k].size)]
        yield from self._split(start, order, 0, {})

    def _split(
        self, vertices: list[tuple[Fraction, ...]], order: list[tuple[int, int]], at: int, x: dict[int, Any]
    ) -> Iterator[tuple[list[tuple[Fraction, ...]], dict[int, Any]]]:
        if at == len(order):
            yield vertices, x
            return
        k, i = order[at]
        form = self.rows[k].row(i).as_forms(x, len(vertices[0]))[0]
        values = [_at(form, v) for v in vertices]
        below, above = self.slopes[k][0][i], self.slopes[k][1][i]
        for slope, keep in ((above, 1), (below, -1)):
            if below == above and keep < 0:
                continue
            signed = [keep * v for v in values]
            if below != above and not any(v > 0 for v in signed) and not (keep > 0 and all(v == 0 for v in signed)):
                continue
            part = vertices if below == above else _clip(vertices, signed)
            new = np.empty(i + 1, object)
            new[:i] = x[k][:i] if i else []
            new[i] = slope * form
            yield from self._split(part, order, at + 1, {**x, k: new})


class Form:
    """a . u + c with rational coefficients; enough arithmetic for numpy's object products."""

    __slots__ = ("c", "coefficients")

    def __init__(self, coefficients: tuple[Fraction, ...], c: Fraction) -> None:
        self.coefficients, self.c = coefficients, c

    def __add__(self, other: Form) -> Form:
        return Form(tuple(a + b for a, b in zip(self.coefficients, other.coefficients, strict=True)), self.c + other.c)

    def __mul__(self, factor: Fraction | int) -> Form:
        return Form(tuple(factor * a for a in self.coefficients), factor * self.c)

    __rmul__ = __mul__


def _coordinates(p: int) -> np.ndarray[Any, Any]:
    result = np.empty(p, object)
    result[:] = [Form(tuple(Fraction(int(i == j)) for j in range(p)), Fraction(0)) for i in range(p)]
    return result


def _constants(values: np.ndarray[Any, Any], p: int) -> np.ndarray[Any, Any]:
    result = np.empty(values.size, object)
    result[:] = [Form((Fraction(0),) * p, v) for v in values]
    return result


def _at(form: Form, vertex: tuple[Fraction, ...]) -> Fraction:
    return sum((a * v for a, v in zip(form.coefficients, vertex, strict=True)), start=form.c)


def _clip(vertices: list[tuple[Fraction, ...]], values: list[Fraction]) -> list[tuple[Fraction, ...]]:
    """Return the part of the polygon where the values are not negative."""
    kept = []
    for i, j in zip(range(len(vertices)), [*range(1, len(vertices)), 0], strict=True):
        if values[i] >= 0:
            kept.append(vertices[i])
        if (values[i] > 0 > values[j]) or (values[i] < 0 < values[j]):
            t = values[i] / (values[i] - values[j])
            kept.append(tuple(a + t * (b - a) for a, b in zip(vertices[i], vertices[j], strict=True)))
    return kept


class _Region:
    """A part of a box, cut by half-spaces: one linear program that is solved again and again."""

    def __init__(self, box: Box) -> None:
        self._program = highspy.Highs()
        for option, value in (("output_flag", False), ("threads", 1), ("presolve", "off")):
            self._program.setOptionValue(option, value)
        self._program.addVars(box.size, box.lo, box.hi)
        self._columns = np.arange(box.size, dtype=np.int32)

    def cut(self, row: FloatArray, right: float) -> None:
        """Keep what satisfies row . u <= right."""
        self._program.addRow(-highspy.kHighsInf, right, row.size, self._columns, row)

    def undo(self) -> None:
        """Take the last cut back."""
        self._program.deleteRows(1, np.array([self._program.getNumRow() - 1], np.int32))

    def least(self, cost: FloatArray) -> float | None:
        """Return the least value of cost . u; None where nothing is left."""
        self._program.changeColsCost(cost.size, self._columns, cost)
        self._program.run()
        status = self._program.getModelStatus()
        assert status in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible)
        return self._program.getObjectiveValue() if status == highspy.HighsModelStatus.kOptimal else None


def minimum_by_patterns(model: ImplicitModel, functional: FloatArray, box: Box) -> float:
    """Return the minimum of functional . y over a box by one LP for each activation pattern that occurs."""
    matrices = model.matrices
    a, b, c, d = (m.toarray() for m in (matrices.A, matrices.B, matrices.C, matrices.D))
    slopes = [two_slopes(block) for block in model.blocks]
    below, above = (np.concatenate([pair[side] for pair in slopes]) for side in (0, 1))
    n, p = len(a), box.size
    order = list(range(n - 1, -1, -1))  # newest first, within a block no state reads another
    region, best = _Region(box), np.inf

    def visit(at: int, forms: FloatArray, shifts: FloatArray) -> None:
        nonlocal best
        if at == n:
            least = region.least(functional @ (c @ forms + d))
            if least is not None:
                best = min(best, least + float(functional @ (c @ shifts + matrices.d)))
            return
        i = order[at]
        row, shift = a[i] @ forms + b[i], float(a[i] @ shifts + matrices.b[i])
        reach = np.abs(row) @ ((box.hi - box.lo) / 2)
        middle = float(row @ (box.lo + box.hi) / 2 + shift)
        for slope, sign in ((above[i], 1.0), (below[i], -1.0)):
            if sign * middle + reach < 0:
                continue
            new_forms, new_shifts = forms.copy(), shifts.copy()
            new_forms[i], new_shifts[i] = slope * row, slope * shift
            if abs(middle) > reach:
                visit(at + 1, new_forms, new_shifts)
                continue
            region.cut(-sign * row, sign * shift)
            if region.least(np.zeros(p)) is not None:
                visit(at + 1, new_forms, new_shifts)
            region.undo()

    visit(0, np.zeros((n, p)), np.zeros(n))
    return float(best)


# ---------------------------------------------------------------------------------------------- long doubles


def long_double(model: ImplicitModel, points: FloatArray) -> tuple[dict[int, Any], dict[int, Any], Any]:
    """Return (z, x, y) for a batch of points in extended precision."""
    u = points.astype(np.longdouble)
    z: dict[int, Any] = {}
    x: dict[int, Any] = {}

    def affine(row: Affine) -> Any:
        total = np.broadcast_to(row.constant.astype(np.longdouble), (len(u), row.size))
        for k, w in row.states.items():
            total = total + x[k] @ w.to_sparse().toarray().astype(np.longdouble).T
        return total if row.input is None else total + u @ row.input.to_sparse().toarray().astype(np.longdouble).T

    for k in model.evaluation_order:
        z[k] = affine(model.rows[k])
        block = model.blocks[k]
        scale = np.ldexp(np.longdouble(1), block.exponent)
        x[k] = _phi(block, z[k] * scale) / scale
    return z, x, affine(model.output)


def _phi(block: StateBlock, z: Any) -> Any:
    if block.activation.piecewise_linear:
        below, above = (slope.astype(np.longdouble) for slope in two_slopes(block))
        return np.where(z >= 0, above * z, below * z)
    if block.activation.name == "tanh":
        return np.tanh(z)
    if block.activation.name == "product":
        x = z.copy()
        x[:, ::2] = z[:, ::2] * z[:, 1::2]
        return x
    if block.activation.name == "contraction":  # of a row and a column
        n = z.shape[1] // 2
        return np.concatenate([(z[:, :n] * z[:, n:]).sum(axis=1)[:, None], 0 * z[:, 1:]], axis=1)
    if block.activation.name == "softmax":
        assert block.activation.parameters["width"] == z.shape[1]
        weights = np.exp(z - z.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)
    assert block.activation.name == "sigmoid"
    return 1 / (1 + np.exp(-np.clip(z, -11000, 11000)))


def all_corners(box: Box) -> FloatArray:
    return np.array(list(itertools.product(*zip(box.lo, box.hi, strict=True))))
