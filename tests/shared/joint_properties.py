"""Properties whose output rows are infeasible together, though none of them alone: SAT formulas and random networks.

Whether a formula can be satisfied is known by trying every assignment; of a random network, the least value of its
greatest row by a linear program for each activation pattern, or by a mixed-integer program where there are many.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from tests.shared.implicit_models import node, proto

NEAR = 0.05
"""How far from 0 or 1 a variable of a formula may be."""
VIOLATED = 0.5
"""A clause is satisfied where relu(1 - its literals) is no more than this: 0.85 and more where all are false."""


@dataclass(frozen=True, eq=False)
class JointProperty:
    """A network of ReLU layers over a box, and rows y <= limits that a counterexample satisfies all of."""

    name: str
    weights: tuple[FloatArray, ...]
    """Of each layer, (n_in, n_out); a ReLU follows all but the last."""
    biases: tuple[FloatArray, ...]
    lo: float
    hi: float
    limits: FloatArray
    """(q,)."""
    truth: str
    """sat or unsat."""

    @property
    def n_inputs(self) -> int:
        """How many inputs there are."""
        return len(self.weights[0])

    def __call__(self, u: FloatArray) -> FloatArray:
        """Return y for each row of inputs, (m, q)."""
        x = u
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = (np.maximum(x, 0) if k else x) @ w + b
        return np.asarray(x)

    @property
    def model(self) -> onnx.ModelProto:
        """The network as ONNX, its weights in float32."""
        nodes, constants, last = [], {}, "x"
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            constants |= {f"w{k}": w.astype(np.float32), f"b{k}": b.astype(np.float32)}
            made = "y" if k == len(self.weights) - 1 else f"s{k}"
            nodes.append(node("Gemm", f"{last} w{k} b{k}", made))
            if made != "y":
                nodes.append(node("Relu", made, f"x{k}"))
                last = f"x{k}"
        return proto(nodes, (1, self.n_inputs), constants)

    @property
    def text(self) -> str:
        """The property as VNN-LIB."""
        lines = [f"(declare-const X_{i} Real)" for i in range(self.n_inputs)]
        lines += [f"(declare-const Y_{j} Real)" for j in range(self.limits.size)]
        lines += [f"(assert (>= X_{i} {self.lo}))\n(assert (<= X_{i} {self.hi}))" for i in range(self.n_inputs)]
        lines += [f"(assert (<= Y_{j} {limit:.9f}))" for j, limit in enumerate(self.limits.tolist())]
        return "\n".join(lines)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write network and property; return both paths."""
        network, question = folder / f"{self.name}.onnx", folder / f"{self.name}.vnnlib"
        onnx.save(self.model, network)
        question.write_text(self.text)
        return network, question


# --- formulas --------------------------------------------------------------------------------------------------------


def formula(rng: np.random.Generator, variables: int, truth: str) -> IntArray:
    """Return random clauses of three literals, (m, 3), +-(i + 1), added until the formula cannot be satisfied.

    With the truth "sat" the last clause, which makes it unsatisfiable, is left out.
    """
    values = assignments(variables)
    left, clauses = np.ones(len(values), np.bool_), list[IntArray]()
    while left.any():
        clause = (rng.permutation(variables)[:3] + 1) * rng.choice([-1, 1], 3)
        clauses.append(clause)
        before, left = left, left & satisfied(clause, values)
    if truth == "sat":
        assert before.any()
        clauses.pop()
    return np.stack(clauses)


def assignments(variables: int) -> BoolArray:
    """Return all of them, (2^variables, variables)."""
    return (np.arange(2**variables)[:, None] >> np.arange(variables)) % 2 == 1


def satisfied(clause: IntArray, values: BoolArray) -> BoolArray:
    """Return which assignments satisfy a clause, (m,)."""
    return np.asarray((values[:, np.abs(clause) - 1] == (clause > 0)).any(axis=1))


def of_formula(clauses: IntArray, truth: str, *, name: str, steep: bool = False) -> JointProperty:
    """Return the property that asks for a point near an assignment that satisfies every clause.

    The outputs are relu(1 - literals) of each clause, and of each variable u its distance min(u, 1 - u) from 0 and 1.
    A steep network reads the clauses off clip(4 u - 3/2, 0, 1), which a layer of two ReLUs a variable makes.
    """
    n, m = int(np.abs(clauses).max()), len(clauses)
    signs = np.zeros((n, m))
    for j, clause in enumerate(clauses):
        signs[np.abs(clause) - 1, j] = np.sign(clause)
    false = (clauses < 0).sum(axis=1).astype(float)  # a literal is u, or 1 - u
    identity, none = np.eye(n), np.zeros((n, n))
    if steep:
        first = np.hstack([4 * identity, 4 * identity, identity, 2 * identity]), np.repeat([-1.5, -2.5, 0, -1], n)
        clip = np.vstack([identity, -identity, none, none])
    else:
        first = np.hstack([identity, 2 * identity]), np.repeat([0.0, -1.0], n)
        clip = np.vstack([identity, none])
    near = np.vstack([*([none] * (2 * steep)), identity, -identity])  # u - relu(2 u - 1)
    second = np.hstack([-clip @ signs, near]), np.concatenate([1 - false, np.zeros(n)])
    last = np.eye(m + n), np.zeros(m + n)
    limits = np.concatenate([np.full(m, VIOLATED), np.full(n, NEAR)])
    weights, biases = zip(first, second, last, strict=True)
    return JointProperty(name, weights, biases, 0.0, 1.0, limits, truth)


# --- random networks -------------------------------------------------------------------------------------------------


def of_network(
    rng: np.random.Generator, sizes: Sequence[int], truth: str, *, name: str, margin: float = 0.03, exact: bool = False
) -> JointProperty:
    """Return a random network whose rows can just not all be <= their limits, or just can, by a share of their range.

    Args:
        rng: of the weights.
        sizes: of the layers, the inputs first and the rows last.
        truth: sat or unsat.
        name: of the files.
        margin: of the range of the rows, by which it is so.
        exact: by one linear program for each activation pattern; by a mixed-integer program otherwise.
    """
    pairs = list(itertools.pairwise(sizes))
    weights = tuple(rng.normal(size=pair).astype(np.float32) * np.float32((2 / pair[0]) ** 0.5) for pair in pairs)
    biases = tuple(rng.normal(size=n).astype(np.float32) * np.float32(0.3) for n in sizes[1:])
    wide = tuple(w.astype(float) for w in weights), tuple(b.astype(float) for b in biases)
    bare = JointProperty(name, *wide, -1.0, 1.0, np.zeros(sizes[-1]), truth)
    y = bare(rng.uniform(-1, 1, (4000, sizes[0])))
    centred = JointProperty(name, *wide, -1.0, 1.0, np.median(y, axis=0), truth)
    least = (least_by_patterns if exact else least_by_program)(centred)
    shift = max(margin * float(np.ptp(y, axis=0).mean()), 0.01) * (-1 if truth == "unsat" else 1)
    return JointProperty(name, *wide, -1.0, 1.0, centred.limits + least + shift, truth)


def least_by_patterns(asked: JointProperty) -> float:
    """Return min over the box of max over rows of (y - limits), by a linear program for each activation pattern."""
    n, hidden = asked.n_inputs, [len(b) for b in asked.biases[:-1]]
    least = np.inf
    for bits in itertools.product((False, True), repeat=sum(hidden)):
        matrix, vector, rows, right = np.eye(n), np.zeros(n), list[FloatArray](), list[FloatArray]()
        start = 0
        for k, (w, b) in enumerate(zip(asked.weights, asked.biases, strict=True)):
            matrix, vector = matrix @ w, vector @ w + b
            if k < len(hidden):
                on = np.asarray(bits[start : start + hidden[k]])
                sign = np.where(on, -1.0, 1.0)  # -z <= 0 where it is on, z <= 0 elsewhere
                rows.append(np.hstack([(matrix * sign).T, np.zeros((hidden[k], 1))]))
                right.append(-vector * sign)
                matrix, vector, start = matrix * on, vector * on, start + hidden[k]
        rows.append(np.hstack([matrix.T, -np.ones((matrix.shape[1], 1))]))
        right.append(asked.limits - vector)
        box = [(asked.lo, asked.hi)] * n + [(None, None)]
        found = linprog(np.eye(n + 1)[-1], np.vstack(rows), np.concatenate(right), bounds=box)
        if found.status == 0:
            least = min(least, float(found.fun))
    return least


def least_by_program(asked: JointProperty) -> float:
    """Return the same by a mixed-integer program (big-M of intervals), to 1e-6."""
    n, hidden = asked.n_inputs, [len(b) for b in asked.biases[:-1]]
    total = sum(hidden)
    width = n + 2 * total + 1  # u, x, phases, greatest row
    rows, low, high = list[FloatArray](), list[float](), list[float]()
    lo, hi = np.full(n, asked.lo), np.full(n, asked.hi)
    upper, start, before = np.full(width, np.inf), n, 0

    def add(row: FloatArray, least: float, most: float) -> None:
        rows.append(row)
        low.append(least)
        high.append(most)

    for k, (w, b) in enumerate(zip(asked.weights, asked.biases, strict=True)):
        z_lo = np.maximum(w, 0).T @ lo + np.minimum(w, 0).T @ hi + b
        z_hi = np.maximum(w, 0).T @ hi + np.minimum(w, 0).T @ lo + b
        for j in range(len(b)):
            of_z = np.zeros(width)
            of_z[before : before + len(w)] = w[:, j]
            if k == len(hidden):
                of_z[-1] = -1
                add(of_z, -np.inf, asked.limits[j] - b[j])
                continue
            x, phase = start + j, total + start + j
            off, on = min(z_lo[j], 0.0), max(z_hi[j], 0.0)
            unit = np.eye(width)
            add(unit[x] - of_z, b[j], np.inf)  # x >= z
            add(unit[x] - of_z - off * unit[phase], -np.inf, b[j] - off)  # x <= z - l (1 - a)
            add(unit[x] - on * unit[phase], -np.inf, 0.0)  # x <= h a
            upper[phase] = 1
        before = start
        if k < len(hidden):
            lo, hi, start = np.maximum(z_lo, 0), np.maximum(z_hi, 0), start + hidden[k]
    lower = np.concatenate([np.full(n, asked.lo), np.zeros(2 * total), [-np.inf]])
    upper[:n] = asked.hi
    kinds = np.concatenate([np.zeros(n + total), np.ones(total), [0]])
    constraints = LinearConstraint(np.stack(rows), np.asarray(low), np.asarray(high))
    found = milp(np.eye(width)[-1], constraints=constraints, bounds=Bounds(lower, upper), integrality=kinds)
    assert found.status == 0, found.message
    return float(found.fun)
