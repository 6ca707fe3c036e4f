"""An independent checker of float32 claims about feed-forward ReLU networks, by part 9 of docs/proof-format.md.

    python -m tests.independent_float32 MODEL.onnx PROOF.npz

It shares no code with idl_audit. What roundings may change is bounded here in fractions, by intervals and |W| alone:
for y = W t + c of K terms, mag >= |t'| the size of what is computed, err >= |t' - t|,

    err' = |W| err + gamma (|W| mag + |c|) + 2^-126 (K + 2 + sum |W| + sum mag),    gamma = (K + 3) u / (1 - (K + 3) u),
    mag' = |W| mag + |c| + err',

u = 2^-24; behind a ReLU mag is that of the values again, and err is 0 where neither number can be positive. The rest,
offsets less the file's bounds, is for `tests.independent_checker`.
"""

import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.independent_checker import Network, Part, load
from tests.independent_files import Array, Arrays, Proof, demand, fraction, read, take

UNIT, SMALLEST, LARGEST = Fraction(1, 2**24), Fraction(1, 2**126), Fraction(2) ** 127


@dataclass
class Computed:
    """A tensor of one axis: ends of the exact values, the size of what is computed, and how far that may be off."""

    lo: Array
    hi: Array
    mag: Array
    err: Array

    def through(self, weights: Array, bias: Array) -> "Computed":
        """W t + c, with c in the format; W of shape (outputs, inputs)."""
        demand(all(abs(v) < LARGEST for v in self.mag), "a computed number may leave the format")
        k = weights.shape[1]
        sizes, gamma = abs(weights), (k + 3) * UNIT / (1 - (k + 3) * UNIT)
        middle, radius = (self.lo + self.hi) / 2, (self.hi - self.lo) / 2
        centre, reach = weights @ middle + bias, sizes @ radius
        whole = sizes @ self.mag + abs(bias)
        flushed = SMALLEST * (k + 2 + sizes.sum(axis=1) + self.mag.sum())
        err = sizes @ self.err + gamma * whole + flushed
        return Computed(centre - reach, centre + reach, whole + err, err)

    def relu(self) -> "Computed":
        """The larger of 0 and each number."""
        zero = Fraction(0)
        dead = self.hi + self.err <= 0
        lo, hi = np.maximum(self.lo, zero), np.maximum(self.hi, zero)
        err = np.where(dead, zero, self.err)
        return Computed(lo, hi, hi + err, err)


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
    values[entry.name] = Computed(lo, hi, np.maximum(abs(lo), abs(hi)), zero)
    for node in proto.graph.node:
        values[node.output[0]] = _made(node, [values[name] for name in node.input])
    (output,) = proto.graph.output
    found = values[output.name]
    demand(all(abs(v) < LARGEST for v in found.mag), "a computed number may leave the format")
    return np.asarray(found.err)


def _made(node: onnx.NodeProto, inputs: list[Any]) -> Computed:
    """What a node makes of a tensor and of constants."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    x, more = inputs[0], inputs[1:]
    demand(isinstance(x, Computed) and not any(isinstance(one, Computed) for one in more), f"operator {node.op_type}")
    if node.op_type in ("Flatten", "Reshape"):
        return x
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
    if node.op_type == "MatMul":
        return x.through(fraction(more[0].T), fraction(np.zeros(more[0].shape[1])))
    demand(node.op_type in ("Add", "Sub"), f"operator {node.op_type}")
    constant = fraction(np.broadcast_to(more[0].reshape(-1), n).astype(float))
    constant = -constant if node.op_type == "Sub" else constant
    gamma = 2 * UNIT / (1 - 2 * UNIT)  # no matrix of ones: of so many terms there is one alone
    whole = x.mag + abs(constant)
    err = x.err + gamma * whole + SMALLEST * (4 + x.mag + none)
    return Computed(x.lo + constant, x.hi + constant, whole + err, err)


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
