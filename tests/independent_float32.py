"""An independent checker of float32 claims about ReLU networks, dense and convolutional, by part 9 of the proof format.

    python -m tests.independent_float32 MODEL.onnx PROOF.npz

It shares no code with idl_audit. What roundings may change is bounded here in fractions, by intervals and |W| alone:
for y = W t + c of K terms, mag >= |t'| the size of what is computed, err >= |t' - t|,

    err' = |W| err + gamma (|W| mag + |c|) + 2^-126 (K + 2 + sum |W| + sum mag),    gamma = (K + 3) u / (1 - (K + 3) u),
    mag' = |W| mag + |c| + err',

u = 2^-24; behind a ReLU mag is that of the values again, and err is 0 where neither number can be positive; a maximum
moves no more than its window does. Convolutions and pools are the matrices that onnx's reference implementation makes
of unit vectors, with K the numbers of one window. The rest, offsets less the file's bounds, is for
`tests.independent_checker`.
"""

import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference

from tests.independent_checker import Network, Part, load
from tests.independent_files import Array, Arrays, Proof, demand, fraction, read, take

UNIT, SMALLEST, LARGEST = Fraction(1, 2**24), Fraction(1, 2**126), Fraction(2) ** 127


@dataclass
class Computed:
    """A tensor laid flat: ends of the exact values, the size of what is computed, and how far that may be off."""

    lo: Array
    hi: Array
    mag: Array
    err: Array
    shape: tuple[int, ...] = ()

    def through(self, weights: Array, bias: Array, shape: tuple[int, ...] = (), terms: int = 0) -> "Computed":
        """W t + c, with c in the format; W of shape (outputs, inputs), with at most so many terms a row, or all."""
        demand(all(abs(v) < LARGEST for v in self.mag), "a computed number may leave the format")
        k = terms or weights.shape[1]
        sizes, gamma = abs(weights), (k + 3) * UNIT / (1 - (k + 3) * UNIT)
        middle, radius = (self.lo + self.hi) / 2, (self.hi - self.lo) / 2
        centre, reach = weights @ middle + bias, sizes @ radius
        whole = sizes @ self.mag + abs(bias)
        flushed = SMALLEST * (k + 2 + sizes.sum(axis=1) + self.mag.sum())
        err = sizes @ self.err + gamma * whole + flushed
        return Computed(centre - reach, centre + reach, whole + err, err, shape or (1, len(bias)))

    def largest(self, windows: Array, shape: tuple[int, ...]) -> "Computed":
        """The largest number of each window, (windows, numbers) of truth values."""
        parts = [[max(part[row]) for row in windows] for part in (self.lo, self.hi, self.mag, self.err)]
        return Computed(*map(np.array, parts), shape)

    def relu(self) -> "Computed":
        """The larger of 0 and each number."""
        zero = Fraction(0)
        dead = self.hi + self.err <= 0
        lo, hi = np.maximum(self.lo, zero), np.maximum(self.hi, zero)
        err = np.where(dead, zero, self.err)
        return Computed(lo, hi, hi + err, err, self.shape)


def roundings(model: Path, lo: Array, hi: Array) -> Array:
    """Bounds of |y' - y| for every output over a box of inputs that are numbers of the format."""
    proto = onnx.load_model(model)
    values: dict[str, Any] = {}
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        demand(array.dtype in (np.float32, np.int64), f"numbers of the type {array.dtype}")
        values[tensor.name] = array
    (entry,) = (i for i in proto.graph.input if i.name not in values)
    demand(entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT, "inputs that are no float32 numbers")
    zero = np.array([Fraction(0)] * len(lo))
    sizes = tuple(max(1, d.dim_value) for d in entry.type.tensor_type.shape.dim)
    values[entry.name] = Computed(lo, hi, np.maximum(abs(lo), abs(hi)), zero, sizes)
    opsets = {each.domain: each.version for each in proto.opset_import}
    for node in proto.graph.node:
        values[node.output[0]] = _made(node, [values[name] for name in node.input], opsets)
    (output,) = proto.graph.output
    found = values[output.name]
    demand(all(abs(v) < LARGEST for v in found.mag), "a computed number may leave the format")
    return np.asarray(found.err)


def _of_unit_vectors(node: onnx.NodeProto, opsets: dict[str, int], x: Computed, *weights: Array) -> tuple[Array, Any]:
    """The matrix of a node, (outputs, inputs), as onnx's reference implementation has it, and the result's shape."""
    units = np.eye(len(x.lo), dtype=np.float32).reshape(-1, *x.shape[1:])
    alone = onnx.helper.make_node(node.op_type, ["x", "w"][: 1 + len(weights)], ["y"])
    alone.attribute.extend(node.attribute)
    feeds = dict(zip(alone.input, (units, *weights), strict=True))
    made = onnx.reference.ReferenceEvaluator(alone, opsets).run(None, feeds)[0]
    demand(len(made) == len(units), f"{node.op_type} over several samples")
    return made.reshape(len(units), -1).T, (1, *made.shape[1:])


def _made(node: onnx.NodeProto, inputs: list[Any], opsets: dict[str, int]) -> Computed:
    """What a node makes of a tensor and of constants."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    x, more = inputs[0], inputs[1:]
    demand(isinstance(x, Computed) and not any(isinstance(one, Computed) for one in more), f"operator {node.op_type}")
    if node.op_type in ("Flatten", "Reshape"):
        alone = onnx.reference.ReferenceEvaluator(node, opsets)
        feeds = dict(zip(node.input, (np.zeros(x.shape, np.float32), *more), strict=True))
        return replace(x, shape=alone.run(None, feeds)[0].shape)
    if node.op_type == "Relu":
        return x.relu()
    n = len(x.lo)
    none = np.array([Fraction(0)] * n)
    if node.op_type == "Gemm":
        plain = attributes.get("alpha", 1) == attributes.get("beta", 1) == 1 and not attributes.get("transA")
        demand(plain, "factors of a Gemm")
        weights = fraction(more[0] if attributes.get("transB") else more[0].T)
        bias = np.broadcast_to(more[1].reshape(-1), len(weights)) if len(more) > 1 else np.zeros(len(weights))
        return x.through(weights, fraction(bias))
    if node.op_type == "MaxPool":
        windows, shape = _of_unit_vectors(node, opsets, x)
        return x.largest(windows > 0, shape)
    if node.op_type in ("AveragePool", "Conv"):
        matrix, shape = _of_unit_vectors(node, opsets, x, *more[:1])
        means = node.op_type == "AveragePool"
        demand(not means or (np.frexp(matrix[matrix != 0])[0] == 0.5).all(), "means of numbers other than 2**n")
        terms = int((matrix != 0).sum(axis=1).max()) if means else int(np.prod(more[0].shape[1:]))
        per_channel = more[1] if len(more) > 1 else np.zeros(shape[1])
        bias = np.repeat(per_channel.astype(float), int(np.prod(shape[2:])))
        return x.through(fraction(matrix), fraction(bias), shape, terms)
    if node.op_type == "MatMul":
        return x.through(fraction(more[0].T), fraction(np.zeros(more[0].shape[1])))
    demand(node.op_type in ("Add", "Sub"), f"operator {node.op_type}")
    constant = fraction(np.broadcast_to(more[0], x.shape).reshape(-1).astype(float))
    constant = -constant if node.op_type == "Sub" else constant
    gamma = 2 * UNIT / (1 - 2 * UNIT)  # no matrix of ones: of so many terms there is one alone
    whole = x.mag + abs(constant)
    err = x.err + gamma * whole + SMALLEST * (4 + x.mag + none)
    return Computed(x.lo + constant, x.hi + constant, whole + err, err, x.shape)


def prove(network: Network, arrays: Arrays, name: str, lo: Array, hi: Array, *alternatives: Array) -> None:
    """Refuse unless a part is proved with the roundings that the file allows for, which must be large enough."""
    rows, offsets, whose = alternatives
    demand((network.scale == 1).all() and (network.shift == 0).all(), "preprocessing is not supported")
    slack = _believed(arrays, name, rows, whose, roundings(network.path, lo, hi))
    Part(arrays, name, network, lo, hi).check(rows, np.nextafter(offsets - slack, -np.inf), whose)


def check(model: Path, proof: Proof) -> str:
    """The claim of a float32 file that is right about a model; Refused otherwise, whatever the file holds."""
    return read(model, proof, "float32", load, prove)


def _believed(arrays: Any, name: str, rows: Array, whose: Array, errors: Array) -> Array:
    """The file's bounds of the rows' roundings, which must not be below those of this checker."""
    count = int(whose.max()) + 1
    given = [take(arrays, f"{name}delta.{a}", "<f8", int((whose == a).sum())) for a in range(count)]
    slack = np.concatenate(given)
    demand(np.isfinite(slack).all() and (slack >= 0).all(), "delta that is no bound")
    needed = [sum(abs(Fraction(float(g))) * e for g, e in zip(row, errors, strict=True)) for row in rows]
    demand(all(have >= need for have, need in zip(fraction(slack), needed, strict=True)), "roundings may be larger")
    return slack


if __name__ == "__main__":
    print("accepted:", check(*map(Path, sys.argv[1:])))
