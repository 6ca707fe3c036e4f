"""Agreement of networks that jump: either side of a threshold that is near, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.agreement import Compared, check
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.near_jumps import outputs_near_jumps
from idl_audit.values.errors import AgreementError, UnsupportedModelError
from tests.shared.implicit_models import Network, node, proto

RNG = np.random.default_rng(4)
WEIGHTS = {
    "s": np.float32(0.1),
    "z": np.int8(0),
    "w": RNG.normal(size=(6, 5)).astype(np.float32),
    "t": np.float32(0.23),
    "v": RNG.normal(size=(5, 3)).astype(np.float32),
}
LAYERS = [
    node("QuantizeLinear", "x s z", "q"),
    node("DequantizeLinear", "q s z", "a"),
    node("MatMul", "a w", "h"),
    node("QuantizeLinear", "h t z", "p"),
    node("DequantizeLinear", "p t z", "b"),
    node("MatMul", "b v"),
]


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(proto(LAYERS, (1, 6), WEIGHTS))


def compared(network: Network, model: ImplicitModel) -> Compared:
    return Compared(Path("q.onnx"), model, network.original, network.graph)


def at_thresholds(n: int) -> np.ndarray:
    """Return inputs (k + 1/2) s of which float32 decides where they go."""
    return ((RNG.integers(-20, 20, size=(n, 6)) + 0.5) * 0.1).astype(np.float32).astype(float)


def test_either_side_of_a_threshold_is_right(network: Network) -> None:
    inputs = at_thresholds(100)
    theirs = network.original(inputs.astype(np.float32))
    found, near = outputs_near_jumps(network.implicit, inputs, 2.0**-24)
    assert near.all()
    assert ((theirs >= found.lo - 1e-5) & (theirs <= found.hi + 1e-5)).all()
    assert np.abs(network.implicit(inputs) - theirs).max() > 0.01  # some do land on the other stair
    clear = RNG.normal(size=(50, 6)).astype(np.float32).astype(float)
    found, near = outputs_near_jumps(network.implicit, clear, 2.0**-24)
    assert near.sum() < 5
    assert (found.hi - found.lo)[~near].max() < 1e-9
    said = check(compared(network, network.implicit), np.concatenate([inputs, clear]))
    assert said.near_jumps == 100 + near.sum()
    assert said.max_rel_error < 1e-6


@pytest.mark.parametrize(("factor", "clear"), [(1.02, True), (2.0, False)])
def test_another_network_does_not_agree(network: Network, factor: float, clear: bool) -> None:
    """A clear input tells 2 %; where all are near a threshold, only what is off by a tenth is told."""
    model = network.implicit
    (k,) = model.output.states
    matrix = model.output.states[k].to_sparse().toarray() * factor
    wrong = replace(model, output=replace(model.output, states={k: Dense(matrix=matrix)}))
    inputs = RNG.normal(size=(50, 6)) if clear else at_thresholds(20)
    with pytest.raises(AgreementError, match="please report this model"):
        check(compared(network, wrong), inputs.astype(np.float32).astype(float))


def test_what_compares_a_tensor_with_its_own_largest_entries_is_told_so() -> None:
    """In exact arithmetic the second of them is as large as itself; rounding decides whether it is so in floats."""
    nodes = [
        node("TopK", "x k", "top places"),
        node("Slice", "top one k one", "second"),
        node("GreaterOrEqual", "x second", "c"),
        node("Cast", "c", "m", to=1),
        node("MatMul", "m w"),
    ]
    w = np.eye(6, 3, dtype=np.float32)
    network = Network(proto(nodes, (1, 6), {"k": np.array([2]), "one": np.array([1]), "w": w}))

    class OtherSide:
        name = "another runtime"

        def __call__(self, rows: np.ndarray) -> np.ndarray:
            return (rows >= rows.max(axis=1, keepdims=True)) @ w

    other = replace(compared(network, network.implicit), original=OtherSide())
    with pytest.raises(UnsupportedModelError, match="every input that was tried lies at a threshold"):
        check(other, RNG.normal(size=(20, 6)).astype(np.float32).astype(float))


def test_inputs_without_a_value_are_told_so() -> None:
    network = Network(proto([node("LpNormalization", "x", axis=1, p=2)], (1, 3), {}))
    with pytest.raises(UnsupportedModelError, match=r"or lie where '[^']*' \(LpNormalization\) has no value"):
        check(compared(network, network.implicit), np.zeros((2, 3)))


def test_kernels_that_saturate_are_named() -> None:
    """Sums of two products beyond 16 bits: a processor without VNNI saturates them, one with it agrees."""
    constants = {
        **{name: np.float32(value) for name, value in (("s", 0.01), ("ws", 0.01), ("ys", 0.05))},
        "z": np.uint8(0),
        "w": np.full((64, 2), 127, np.int8),
        "wz": np.int8(0),
        "yz": np.uint8(0),
    }
    chain = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearMatMul", "q s z w ws wz ys yz", "p"),
        node("DequantizeLinear", "p ys yz"),
    ]
    network = Network(proto(chain, (1, 64), constants))
    inputs = np.full((4, 64), 0.5) + np.arange(4)[:, None] * 0.5
    pair = compared(network, network.implicit)
    if np.allclose(network.original(inputs.astype(np.float32)), network.implicit(inputs), atol=0.06):
        check(pair, inputs)
        return
    with pytest.raises(UnsupportedModelError, match="QLinearMatMul saturate sums in 16 bits"):
        check(pair, inputs)
