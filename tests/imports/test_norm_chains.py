"""Norms written as chains: read as one norm where they are one, and as they are written where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto

from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.model import ImplicitModel
from tests.shared.implicit_models import Network, ints, node, proto

SHAPE = (1, 3, 4)
Nodes = Sequence[NodeProto]
E, HALF, ONE, TWO = (np.float32(value) for value in (1e-3, 0.5, 1.0, 2.0))
NUMBERS = {"e": E, "half": HALF, "minus": -HALF, "one": ONE, "two": TWO}

DEVIATION = [node("ReduceMean", "x", "m", axes=[-1]), node("Sub", "x m", "d")]
SQUARES = [node("Mul", "d d", "q")]
POWERS = [node("Pow", "d two", "q")]
MEAN = [node("ReduceMean", "q", "v", axes=[2])]
ROOT = [node("Add", "v e", "w"), node("Sqrt", "w", "s")]
QUOTIENT = [node("Div", "d s")]

CHAINS: dict[str, tuple[Nodes, dict[str, Any], dict[str, Any]]] = {
    "layer, pow": ([*DEVIATION, *POWERS, *MEAN, *ROOT, *QUOTIENT], {}, {"count": 4, "under": E, "centred": True}),
    "layer, mul": ([*DEVIATION, *SQUARES, *MEAN, *ROOT, *QUOTIENT], {}, {"count": 4, "under": E}),
    "the mean taken twice": (
        [
            *DEVIATION,
            node("ReduceMean", "x", "m2", axes=[-1]),
            node("Sub", "x m2", "d2"),
            node("Mul", "d2 d2", "q"),
            *MEAN,
            *ROOT,
            *QUOTIENT,
        ],
        {},
        {"count": 4, "centred": True},
    ),
    "two axes": (
        [
            node("ReduceMean", "x", "m", axes=[1, 2]),
            node("Sub", "x m", "d"),
            *SQUARES,
            node("ReduceMean", "q", "v", axes=[2, 1]),
            *ROOT,
            *QUOTIENT,
        ],
        {},
        {"count": 12, "width": 13},
    ),
    "a reciprocal": (
        [*DEVIATION, *SQUARES, *MEAN, *ROOT, node("Reciprocal", "s", "r"), node("Mul", "r d")],
        {},
        {"count": 4, "centred": True},
    ),
    "one over": ([*DEVIATION, *SQUARES, *MEAN, *ROOT, node("Div", "one s", "r"), node("Mul", "d r")], {}, {"count": 4}),
    "powers of a half": (
        [*DEVIATION, *SQUARES, *MEAN, node("Add", "e v", "w"), node("Pow", "w half", "s"), *QUOTIENT],
        {},
        {"count": 4, "under": E},
    ),
    "powers of minus a half": (
        [*DEVIATION, *SQUARES, *MEAN, node("Add", "e v", "w"), node("Pow", "w minus", "r"), node("Mul", "d r")],
        {},
        {"count": 4, "under": E},
    ),
    "root mean square": (
        [node("Pow", "x two", "q"), *MEAN, *ROOT, node("Div", "x s")],
        {},
        {"count": 4, "centred": False},
    ),
    "standard deviation of a sample": (
        [
            *DEVIATION,
            *SQUARES,
            *MEAN,
            node("Mul", "v n", "t"),
            node("Div", "t n1", "u"),
            node("Sqrt", "u", "r"),
            node("Add", "r e", "s"),
            *QUOTIENT,
        ],
        {"n": np.float32(4), "n1": np.float32(3)},
        {"count": 3, "beside": E, "under": 0.0},
    ),
    "sums": (
        [*DEVIATION, *SQUARES, node("ReduceSum", "q last", "t"), node("Mul", "t half", "v"), *ROOT, *QUOTIENT],
        {"last": ints(-1)},
        {"count": 2, "under": E},
    ),
    "squares summed": (
        [node("ReduceSumSquare", "x", "v", axes=[1]), *ROOT, node("Div", "x s")],
        {},
        {"count": 1, "width": 4},
    ),
    "axes dropped and put back": (
        [
            *DEVIATION,
            *SQUARES,
            node("ReduceMean", "q", "v", axes=[2], keepdims=0),
            *ROOT,
            node("Unsqueeze", "s last", "k"),
            node("Div", "d k"),
        ],
        {"last": ints(2)},
        {"count": 4, "centred": True},
    ),
    "unit vectors": (
        [node("ReduceL2", "x", "l", axes=[-1]), node("Add", "l e", "s"), node("Div", "x s")],
        {},
        {"count": 1, "beside": E, "centred": False},
    ),
    "F.normalize": (
        [
            node("ReduceL2", "x", "l", axes=[1]),
            node("Clip", "l e", "c"),
            node("Shape", "x", "z"),
            node("Expand", "c z", "s"),
            node("Div", "x s"),
        ],
        {},
        {"count": 1, "least": E},
    ),
    "a greatest": (
        [node("ReduceL2", "x", "l", axes=[1]), node("Max", "e l", "s"), node("Div", "x s")],
        {},
        {"count": 1, "least": E},
    ),
    "a difference of means": (
        [
            *DEVIATION,
            node("Mul", "x x", "q"),
            node("ReduceMean", "q", "a", axes=[-1]),
            node("Pow", "m two", "b"),
            node("Sub", "a b", "v"),
            *ROOT,
            *QUOTIENT,
        ],
        {},
        {"count": 4, "centred": True, "under": E},
    ),
}

OTHERS: dict[str, tuple[Nodes, dict[str, Any]]] = {
    "another tensor is divided": ([*DEVIATION, *SQUARES, *MEAN, *ROOT, node("Div", "x s")], {}),
    "another mean is taken": (
        [node("ReduceMean", "x", "m", axes=[1]), node("Sub", "x m", "d"), *SQUARES, *MEAN, *ROOT, node("Div", "x s")],
        {},
    ),
    "sizes of other axes": (
        [
            *DEVIATION,
            *SQUARES,
            node("ReduceMean", "q", "v", axes=[1]),
            *ROOT,
            node("Transpose", "x", "y", perm=[0, 1, 2]),
        ],
        {},
    ),
    "the square of something else": ([*DEVIATION, node("Mul", "d x", "q"), node("Add", "q two", "y")], {}),
    "a cube": (
        [node("Pow", "x three", "p"), node("Abs", "p", "q"), *MEAN, *ROOT, node("Div", "x s")],
        {"three": np.float32(3)},
    ),
    "a vector of epsilons": (
        [*DEVIATION, *SQUARES, *MEAN, node("Add", "v es", "w"), node("Sqrt", "w", "s"), *QUOTIENT],
        {"es": np.float32([[[0.1], [0.2], [0.3]]])},
    ),
    "a mean of means": (
        [
            *DEVIATION,
            *SQUARES,
            *MEAN,
            node("ReduceMean", "v", "u", axes=[1]),
            node("Add", "u e", "w"),
            node("Sqrt", "w", "s"),
            *QUOTIENT,
        ],
        {},
    ),
    "a divisor turned round": (
        [
            *DEVIATION,
            *SQUARES,
            node("ReduceMean", "q", "v", axes=[2], keepdims=0),
            *ROOT,
            node("Slice", "s from to on by", "k"),
            node("Unsqueeze", "k last", "j"),
            node("Div", "d j"),
        ],
        {"from": ints(-1), "to": ints(-(2**40)), "on": ints(1), "by": ints(-1), "last": ints(2)},
    ),
}


def network(nodes: Nodes, constants: dict[str, Any]) -> Network:
    names = {name for one in nodes for name in one.input}
    used = {name: value for name, value in {**NUMBERS, **constants}.items() if name in names}
    opset = 17 if any(one.op_type == "Clip" for one in nodes) or not used.keys() & {"last"} else 13
    inner = [node("Add", "input shift", "x"), *nodes]
    shift = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return Network(proto(inner, SHAPE, {**used, "shift": shift}, opset=opset, source="input"))


def norms(model: ImplicitModel) -> list[Normalised]:
    return [block.activation for block in model.blocks if isinstance(block.activation, Normalised)]


@pytest.mark.parametrize("what", sorted(CHAINS))
def test_a_chain_is_one_norm(what: str) -> None:
    nodes, constants, expected = CHAINS[what]
    found = network(nodes, constants)
    found.check(tolerance=3e-5)
    (phi,) = norms(found.implicit)
    assert phi.aided
    for name, value in expected.items():
        assert getattr(phi, name) == pytest.approx(float(value), rel=1e-12), name
    assert not any(block.activation.name == "product" for block in found.implicit.blocks)


@pytest.mark.parametrize("what", sorted(OTHERS))
def test_what_is_no_norm_stays_as_it_is(what: str) -> None:
    found = network(*OTHERS[what])
    found.check(tolerance=3e-5)
    assert not norms(found.implicit)
