"""The checker of jumps and curves accepts what the tool writes, no larger claim, and no changed proof of a false one.

Whether a claim is true is tried at thousands of points of its box, by a network of numpy's.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import independent_checker, independent_curves
from tests.independent_calculus import CURVES, Curve
from tests.independent_curves import OPERATORS, ROUNDING, STEP, Jumps
from tests.independent_files import Refused
from tests.shared import mutated_proofs, small_proofs
from tests.shared.implicit_models import node
from tests.shared.proof_sources import Source, claim_of
from tests.shared.small_proofs import Kind

Function = Callable[[np.ndarray], np.ndarray]
SCALE = 0.1


def _quantised(z: np.ndarray) -> np.ndarray:
    return np.clip(np.round(z / np.float32(SCALE)) + 3, -128, 127) * np.float32(SCALE) - 3 * np.float32(SCALE)


FUNCTIONS: dict[str, Function] = {
    "Sign": np.sign,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Quantised": _quantised,
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": lambda z: 1 / z,
    "Sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "Softplus": lambda z: np.logaddexp(0, z),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
    "Square": np.square,
    "Mul": lambda z: z[:, :4] * z[:, 4:],
    "Gate": lambda z: np.tanh(z[:, :4]) / (1 + np.exp(-z[:, 4:])),
}
PAIRS = ("Mul", "Gate")
POSITIVE = ("Log", "Reciprocal", "Sqrt")
JUMPS = ("Sign", "Floor", "Ceil", "Round", "Quantised")


def network(folder: Path, op: str, seed: int) -> tuple[Path, Function]:
    """Write y = W2 phi(W1 psi(W0 u + b0) + b1) + b2, psi a ReLU, and give it as a function.

    Where phi has values for z > 0 alone, W1 and b1 are positive.
    """
    rng = np.random.default_rng([seed, list(FUNCTIONS).index(op)])
    sizes = (2, 5, 4, 3)
    w = [rng.normal(size=(n, m)).astype(np.float32) for n, m in itertools.pairwise(sizes)]
    b = [rng.normal(size=m).astype(np.float32) / 2 for m in sizes[1:]]
    constants: dict[str, Any] = {}
    if op in PAIRS:
        constants = {"v": rng.normal(size=(5, 4)).astype(np.float32), "c": rng.normal(size=4).astype(np.float32)}
    if op in POSITIVE:
        w[1], b[1] = np.abs(w[1]), np.abs(b[1]) + np.float32(0.2)
    made = [node(op, "z1", "x1")]
    if op == "Quantised":
        made = [node("QuantizeLinear", "z1 s z", "q"), node("DequantizeLinear", "q s z", "x1")]
    if op == "Square":
        made = [node("Mul", "z1 z1", "x1")]
    if op in PAIRS:
        made = [node("Gemm", "x0 v c", "z2"), node("Mul", "z1 z2", "x1")]
    if op == "Gate":
        made[1:] = [node("Tanh", "z1", "t"), node("Sigmoid", "z2", "g"), node("Mul", "t g", "x1")]
    nodes = [node("Gemm", "x w0 b0", "z0"), node("Relu", "z0", "x0"), node("Gemm", "x0 w1 b1", "z1")]
    second = [*constants.values()]
    constants |= {f"w{k}": one for k, one in enumerate(w)} | {f"b{k}": one for k, one in enumerate(b)}
    constants |= {"s": np.float32(SCALE), "z": np.int8(3)}
    graph = helper.make_graph(
        [*nodes, *made, node("Gemm", "x1 w2 b2", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = folder / f"{op}-{seed}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    if op in PAIRS:
        w[1], b[1] = np.hstack([w[1], second[0]]), np.hstack([b[1], second[1]])
    phi, (v, w1, w2), (c, b1, b2) = FUNCTIONS[op], (x.astype(float) for x in w), (x.astype(float) for x in b)
    return path, lambda u: phi(np.maximum(u @ v + c, 0) @ w1 + b1) @ w2 + b2


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Source, Function]]:
    """A proof about a network for each operator."""
    folder = tmp_path_factory.mktemp("curves")
    found = {}
    for op in FUNCTIONS:
        path, function = network(folder, op, 1)
        reach = 0.6 if op in POSITIVE else 0.9
        found[op] = small_proofs.source(path, Kind("", ("linear", "branch"), reach=reach), op, 1), function
    return found


def checked(source: Source, arrays: Any = None, meta: Any = None) -> str:
    text = json.dumps(source.meta if meta is None else meta)
    return independent_curves.check(source.model, {**(arrays or source.arrays), "meta": np.asarray(text)})


@pytest.mark.parametrize("op", FUNCTIONS)
def test_accepts_what_the_tool_writes(proofs: Any, op: str) -> None:
    source, function = proofs[op]
    assert checked(source)
    assert not is_false(source.arrays, source.meta, function)
    with pytest.raises(Refused):
        independent_checker.check(source.model, {**source.arrays, "meta": np.asarray(json.dumps(source.meta))})


def test_the_proofs_split_choose_and_bound(proofs: Any) -> None:
    names = {name for source, _ in proofs.values() for name in source.arrays}
    assert all(any(kind in name for name in names) for kind in (".slopes.", ".multipliers.", ".lemma.", ".kept."))
    for op in ("Ceil", "Quantised"):
        trees = [a for name, a in proofs[op][0].arrays.items() if name.endswith("variable")]
        assert any((tree >= 0).any() for tree in trees)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_no_changed_proof_of_a_false_claim_is_accepted(proofs: Any, op: str) -> None:
    tried(*proofs[op], 10)


@pytest.mark.slow
@pytest.mark.parametrize("op", FUNCTIONS)
def test_no_changed_proof_of_many_is_accepted_where_it_is_false(proofs: Any, op: str) -> None:
    tried(*proofs[op], 40)


def tried(source: Source, function: Function, count: int) -> None:
    """Show so many changed proofs to the checker."""
    rng, accepted, refused = np.random.default_rng(count), 0, 0
    while accepted + refused < count:
        found = mutated_proofs.changed(source, rng)
        if found is None:
            continue
        try:
            checked(source, found[2].arrays, found[2].meta)
        except Refused:
            refused += 1
            continue
        accepted += 1
        assert not is_false(found[2].arrays, found[2].meta, function), found[0]
    assert refused > count / 5


def is_false(arrays: Any, meta: Any, function: Function) -> bool:
    """Whether another class wins somewhere, as far as points of the box show."""
    told = claim_of(arrays, meta)
    assert told.centre is not None
    reach = told.words["eps"] * (np.ones(2) if told.sigma is None else told.sigma)
    lo, hi = told.centre - reach, told.centre + reach
    if told.words["clip"] is not None:
        lo, hi = np.maximum(lo, told.words["clip"][0]), np.minimum(hi, told.words["clip"][1])
    axes = np.meshgrid(*np.linspace(lo, hi, 81).T)
    u = np.stack([axis.reshape(-1) for axis in axes], axis=1)
    mean, std = (np.array(told.units[key] or [i], float) for i, key in enumerate(("mean", "std")))
    with np.errstate(all="ignore"):  # a claim of huge numbers is one that points cannot contradict
        y = function((u * told.units["scale"] - mean) / std)
    label = told.words["label"]
    return bool((y[:, [label]] - np.delete(y, label, axis=1) <= -1e-9).any())


@pytest.mark.parametrize("op", FUNCTIONS)
def test_a_far_larger_claim_is_refused(proofs: Any, op: str) -> None:
    source, function = proofs[op]
    claim = source.meta["claim"]
    for factor in (2, 4, 8, 16):
        meta = {**source.meta, "claim": {**claim, "eps": claim["eps"] * factor}}
        if is_false(source.arrays, meta, function):
            with pytest.raises(Refused):
                checked(source, None, meta)


PHIS: dict[str, Jumps | Curve] = {
    **{name: CURVES[name.lower()]() for name in (*OPERATORS, "Square")},
    **ROUNDING,
    "step": STEP,
    "stairs": Jumps(Fraction(0), -2, 3, Fraction(1, 8)),
}


def exact(name: str, z: np.ndarray) -> np.ndarray:
    """Values at points that are no thresholds."""
    if name == "step":
        return (z > 0).astype(float)
    if name == "stairs":
        return np.clip(np.round(z * 8), -2, 3)
    return FUNCTIONS[name](z)


@pytest.mark.parametrize("name", PHIS)
def test_the_least_value_is_below_all_points_and_near_them(name: str) -> None:
    """v phi(z) - lam z over intervals, against its values at thousands of points."""
    rng, phi = np.random.default_rng(3), PHIS[name]
    for _ in range(12):
        lo, hi = np.sort(rng.normal(size=2) * 2)
        if name in POSITIVE:
            lo, hi = abs(lo) + 0.01, abs(lo) + 0.02 + abs(hi)
        v, lam = rng.normal(size=2)
        z = np.linspace(lo, hi, 4001)
        values = v * exact(name, z) - lam * z
        found = phi.least(Fraction(v), Fraction(lam), Fraction(lo), Fraction(hi)) / (1 << independent_checker.GRID)
        assert found <= values.min() + 1e-12
        room = 0.02 if isinstance(phi, Curve) else 4 * (hi - lo) / 4000 * abs(lam)
        assert found >= values.min() - room * (1 + abs(values).max())


def test_both_values_count_at_a_threshold_within_and_one_where_a_split_has_put_an_end() -> None:
    one, minus = Fraction(1), Fraction(-1)
    grid = 1 << independent_checker.GRID
    assert STEP.least(minus, Fraction(0), minus, one) == -grid
    assert STEP.least(minus, Fraction(0), minus, Fraction(0)) == 0
    assert STEP.least(one, Fraction(0), Fraction(0), one) == grid
    assert STEP.least(minus, Fraction(0), Fraction(0), Fraction(0)) == -grid


def test_curves_prove_nothing_where_they_have_no_value() -> None:
    for name in POSITIVE:
        assert CURVES[name.lower()]().least(Fraction(1), Fraction(0), Fraction(-1), Fraction(1)) == -math.inf
