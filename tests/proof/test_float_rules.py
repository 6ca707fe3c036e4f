"""Rounding of curves, jumps, choices, quotients and products of states: no runtime is further off than its bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from idl_audit.implicit.activations.jumping import ceil, floor, rounding, step
from idl_audit.implicit.as_written import as_written
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import UnsupportedModelError
from tests.proof.test_float_errors import Nodes, Single, Written, grid, single

RNG = np.random.default_rng(11)


def points_of(lo: FloatArray, hi: FloatArray, n: int) -> Single:
    """Return float32 points of a box, drawn and at its corners."""
    drawn = lo + (hi - lo) * RNG.random((n, len(lo)))
    corners = np.where(RNG.random((n // 4, len(lo))) < 0.5, lo, hi)
    return np.vstack([drawn, corners]).astype(np.float32).clip(lo.astype(np.float32), hi.astype(np.float32))


def compared(
    nodes: Nodes, constants: Mapping[str, Any], lo: FloatArray, hi: FloatArray, n: int = 400
) -> tuple[FloatArray, float]:
    """Return the bounds of the outputs over a box, having compared them with onnxruntime; and the worst error seen."""
    network = Written(nodes, constants, len(lo))
    lo, hi = lo.astype(np.float32).astype(float), hi.astype(np.float32).astype(float)
    points = points_of(lo, hi, n)
    exact = network.written.model(points.astype(float))
    worst, bounds = 0.0, []
    for sharp in (False, True):
        bound = network.bound(lo, hi, sharp=sharp)
        for found in network.runs(points):
            off = np.abs(found.reshape(exact.shape) - exact)
            assert (off <= bound + 1e-13 * np.abs(exact)).all()
            worst = max(worst, float(off.max()))
        bounds.append(bound)
    return np.minimum(*bounds), worst


def layer(p: int, n: int, seed: int) -> tuple[Nodes, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    w, b = single(*rng.normal(size=p * n)).reshape(p, n), single(*rng.normal(size=n))
    return [("Gemm", "u w b", "h", {})], {"w": w, "b": b}


@pytest.mark.parametrize(
    ("op", "before", "lo", "hi"),
    [
        ("Exp", "h", -3.0, 3.0),
        ("Log", "Exp", -3.0, 3.0),
        ("Sqrt", "Exp", -3.0, 3.0),
        ("Reciprocal", "Exp", -3.0, 3.0),
        *((op, "h", -3.0, 3.0) for op in ("Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Sigmoid", "Tanh", "Erf")),
        ("Tan", "Sigmoid", -3.0, 3.0),
        *((op, "Softsign", -3.0, 3.0) for op in ("Asin", "Acos", "Atanh")),
    ],
)
def test_curves_within_networks(op: str, before: str, lo: float, hi: float) -> None:
    nodes, constants = layer(3, 5, 1)
    if before != "h":
        nodes = [*nodes, (before, "h", "k", {})]
    nodes = [*nodes, (op, "k" if before != "h" else "h", "y", {})]
    for radius in (0.3, 3e-5):
        centre = single(*RNG.uniform(lo, hi, 3)).astype(float) / 3
        bound, worst = compared(nodes, constants, centre - radius, centre + radius)
        if radius < 1e-3:
            assert np.isfinite(bound).all()
            assert bound.max() <= 400 * worst + 1e-6


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, -0.5, -1.0, 1.5, -2.0])
def test_powers_within_networks(exponent: float) -> None:
    nodes, constants = layer(3, 5, 2)
    nodes = [*nodes, ("Softplus", "h", "k", {}), ("Pow", "k e", "y", {})]
    centre = RNG.normal(size=3)
    bound, _ = compared(nodes, {**constants, "e": single(exponent)}, centre - 0.1, centre + 0.1)
    assert np.isfinite(bound).all()


def test_powers_of_other_exponents_have_no_bound() -> None:
    with pytest.raises(UnsupportedModelError, match="Pow node"):
        Written([("Softplus", "u", "k", {}), ("Pow", "k e", "y", {})], {"e": single(2.7)}, 2)


def test_where_rounding_may_leave_a_domain_there_is_no_bound() -> None:
    """The exact argument of the logarithm is above 0, the computed one need not be."""
    nodes: Nodes = [("Add", "u a", "h", {}), ("Sub", "h a", "k", {}), ("Log", "k", "y", {})]
    network = Written(nodes, {"a": single(1e6)}, 1)
    assert np.isinf(network.bound(np.array([1e-3]), np.array([2e-3]))).all()
    assert any(np.isinf(found).any() for found in network.runs(grid(1e-3, 2e-3, 20)))
    assert np.isfinite(network.bound(np.array([2.0]), np.array([3.0]))).all()


def test_a_root_of_a_sum_of_squares_is_no_root_of_what_may_be_negative() -> None:
    for op in ("ReduceL2", "ReduceSumSquare"):
        nodes: Nodes = [("Add", "u a", "h", {}), (op, "h", "y", {"axes": (1,), "keepdims": 1})]
        bound, _ = compared(nodes, {"a": single(0.5, -1.0, 2.0)}, np.full(3, -2.5), np.full(3, 2.5))
        assert np.isfinite(bound).all()


@pytest.mark.parametrize("seed", range(3))
def test_quotients_and_products_of_states(seed: int) -> None:
    rng = np.random.default_rng(seed)
    constants = {name: single(*rng.normal(size=12)).reshape(3, 4) for name in ("a", "b", "c")}
    nodes: Nodes = [
        *((("Gemm"), f"u {name}", f"{name}1", {}) for name in ("a", "b", "c")),
        ("Softplus", "b1", "b2", {}),
        ("Div", "a1 b2", "q", {}),
        ("Mul", "q c1", "p", {}),
        ("Mul", "p p", "s", {}),
        ("Sub", "s q", "y", {}),
    ]
    centre = rng.normal(size=3)
    for radius in (0.2, 1e-4):
        bound, _ = compared(nodes, constants, centre - radius, centre + radius)
        assert np.isfinite(bound).all()


def test_a_divisor_that_may_be_0_has_no_bound() -> None:
    network = Written([("Div", "a u", "y", {})], {"a": single(1.0)}, 1)
    assert np.isinf(network.bound(np.array([-1.0]), np.array([1.0]))).all()


@pytest.mark.parametrize("seed", range(3))
def test_products_of_matrices_of_states(seed: int) -> None:
    """Attention: scores that are products of two tensors, softmax, and a product again."""
    rng = np.random.default_rng(seed)
    constants: dict[str, Any] = {name: single(*rng.normal(size=6 * 12)).reshape(6, 12) for name in ("q", "k", "v")}
    constants |= {"shape": np.array([3, 4], np.int64), "turned": np.array([3, 4], np.int64), "scale": single(0.5)}
    nodes: Nodes = [
        *(("Gemm", f"u {name}", f"{name}1", {}) for name in ("q", "k", "v")),
        *(("Reshape", f"{name}1 shape", f"{name}2", {}) for name in ("q", "k", "v")),
        ("Transpose", "k2", "k3", {"perm": (1, 0)}),
        ("MatMul", "q2 k3", "s", {}),
        ("Mul", "s scale", "t", {}),
        ("Softmax", "t", "p", {"axis": -1}),
        ("MatMul", "p v2", "y", {}),
    ]
    centre = rng.normal(size=6)
    for radius in (0.05, 1e-5):
        bound, _ = compared(nodes, constants, centre - radius, centre + radius)
        assert np.isfinite(bound).all()
    assert bound.max() < 1e-3


def test_terms_that_cancel_in_a_product_of_states_are_paid_for() -> None:
    """(1000 + u) (1) - (1000) (1 + v): the sum is small and its terms are not."""
    constants = {
        "a": np.float32([[1.0, 0.0], [0.0, 1.0]]),
        "b": single(1000.0, -1000.0),
        "c": np.float32([[0.0, 0.0], [0.0, 1.0]]),
        "d": single(1.0, 1.0),
        "row": np.array([1, 2], np.int64),
        "column": np.array([2, 1], np.int64),
    }
    nodes: Nodes = [
        ("Gemm", "u a b", "x", {}),
        ("Gemm", "u c d", "z", {}),
        ("Reshape", "x row", "x1", {}),
        ("Reshape", "z column", "z1", {}),
        ("MatMul", "x1 z1", "y", {}),
    ]
    bound, worst = compared(nodes, constants, np.full(2, -0.7), np.full(2, 0.7))
    assert 1e-5 < worst <= bound[0] < 5e-3


def test_many_shares_move_by_no_more_than_one_of_them_would() -> None:
    """Errors of a softmax are shares of its values, which add up to 1: a weighted mean of 64 numbers is off little."""
    constants: dict[str, Any] = {"w": single(*RNG.normal(size=256)).reshape(4, 64), "v": single(*RNG.normal(size=64))}
    nodes: Nodes = [
        ("Gemm", "u w", "h", {}),
        ("Add", "h a", "k", {}),
        ("Sub", "k a", "l", {}),
        ("Softmax", "l", "p", {"axis": -1}),
        ("MatMul", "p v1", "y", {}),
    ]
    constants |= {"a": single(1000.0), "v1": constants.pop("v")[:, None]}
    centre = RNG.normal(size=4)
    bound, worst = compared(nodes, constants, centre - 1e-6, centre + 1e-6)
    assert worst < bound[0] < 4e-3  # with 1/4 of all errors for each share it would be .7
    bound, _ = compared(nodes, constants, centre - 3, centre + 3)
    assert np.isfinite(bound).all()


@pytest.mark.parametrize(
    ("middle", "spread", "radius"), [(0, 1, 1e-3), (1000, 1, 1e-4), (30, 0.5, 1e-4), (0, 1e-4, 1e-7)]
)
@pytest.mark.parametrize("op", ["LayerNormalization", "InstanceNormalization"])
def test_norms_however_their_mean_square_is_made(op: str, middle: float, spread: float, radius: float) -> None:
    """Around 1000 the mean of squares less the squared mean loses seven digits."""
    rng = np.random.default_rng(7)
    constants: dict[str, Any] = {"s": single(*rng.normal(size=16)), "b": single(*rng.normal(size=16))}
    shape = {"t": np.array([1, 2, 8], np.int64), "f": np.array([1, 16], np.int64)}
    nodes: Nodes = [("LayerNormalization", "u s b", "y", {"axis": -1})]
    if op == "InstanceNormalization":
        constants = {"s": constants["s"][:2], "b": constants["b"][:2], **shape}
        nodes = [("Reshape", "u t", "v", {}), (op, "v s b", "w", {}), ("Reshape", "w f", "y", {})]
    centre = middle + spread * rng.normal(size=16)
    bound, _ = compared(nodes, constants, centre - radius, centre + radius)
    assert np.isfinite(bound).all() == (middle < 1000)


# --- chains that are read as one operator, with constants on the way -----------------------------------------------


def scaled(function: list[Any], up: float, down: float) -> tuple[Nodes, dict[str, Any]]:
    """Return (u up) (function(u) down): in exact arithmetic up and down cancel, one of u up, the other overflows."""
    nodes: Nodes = [("Mul", "u up", "p", {}), *function, ("Mul", "s down", "q", {}), ("Mul", "p q", "y", {})]
    return nodes, {"up": single(up), "down": single(down), "root": single(2**0.5), "one": single(1.0)}


SIGMOID: list[Any] = [("Sigmoid", "u", "s", {})]
ERF: list[Any] = [("Div", "u root", "a", {}), ("Erf", "a", "e", {}), ("Add", "e one", "s", {})]
SIGN: list[Any] = [("Sign", "u", "s", {})]


@pytest.mark.parametrize("function", [SIGMOID, ERF, SIGN])
@pytest.mark.parametrize(("up", "down", "u"), [(1e30, 1e-30, 1e9), (1e-30, 1e-30, 1.0), (3.0, 0.7, 2.0)])
def test_constants_within_a_chain_are_multiplied_on_the_way(
    function: list[Any], up: float, down: float, u: float
) -> None:
    """x 1e30 overflows, and x 1e-30 times 1e-30 is 0, whatever stands before the activation that the chain is."""
    nodes, constants = scaled(function, up, down)
    if down == up:
        constants["back"] = single(1e30)
        nodes = [*nodes[:-1], ("Mul", "p q", "r", {}), ("Mul", "r back", "t", {}), ("Mul", "t back", "y", {})]
    bound, worst = compared_over(nodes, constants, u)
    assert np.isinf(bound) == (up != 3.0)
    assert worst <= bound


def compared_over(nodes: Nodes, constants: Mapping[str, Any], u: float) -> tuple[float, float]:
    """Return the bound of one output at inputs from u to 2 u, and the worst of onnxruntime: infinity for no number."""
    network, points = Written(nodes, constants, 1), grid(u, 2 * u, 50)
    exact = network.written.model(points.astype(float))
    off = [np.nan_to_num(np.abs(found - exact), nan=np.inf).max() for found in network.runs(points)]
    return float(network.bound(points.min(), points.max())[0]), float(max(off))


def test_a_chain_of_many_constants_has_the_roundings_of_each() -> None:
    constants = {f"c{i}": single(1.1 if i % 2 else 1 / 1.1) for i in range(14)}
    products: Nodes = [("Mul", f"{'u' if i == 0 else f'p{i - 1}'} c{i}", f"p{i}", {}) for i in range(14)]
    few: Nodes = [("Sigmoid", "u", "s", {}), ("Mul", "u s", "y", {})]
    many: Nodes = [*products, ("Sigmoid", "u", "s", {}), ("Mul", "p13 s", "y", {})]
    plain, _ = compared_over(few, {}, 20.0)
    bound, worst = compared_over(many, constants, 20.0)
    assert worst <= bound
    assert bound >= plain + 14 * 2.0**-24 * 40


def test_a_mean_of_squares_times_constants_may_overflow() -> None:
    """mean(u u) 1e30 1e-30 is infinity at 1e5: u over its root is 0 there, and is no norm."""
    nodes: Nodes = [
        ("Mul", "u u", "q", {}),
        ("ReduceMean", "q", "m", {"axes": (1,), "keepdims": 1}),
        ("Mul", "m up", "a", {}),
        ("Mul", "a down", "b", {}),
        ("Sqrt", "b", "s", {}),
        ("Div", "u s", "y", {}),
    ]
    bound, worst = compared_over(nodes, {"up": single(1e30), "down": single(1e-30)}, 1e5)
    assert bound >= worst > 0.9


MASKED: Nodes = [
    ("Concat", "e u", "c", {"axis": 1}),
    ("Add", "c mask", "m", {}),
    ("Softmax", "m", "p", {"axis": 1}),
    ("Mul", "p two", "y", {}),
]
IS_INFINITE: Nodes = [("IsInf", "e", "i", {}), ("Cast", "i", "c", {"to": 1}), ("Add", "c u", "y", {})]


@pytest.mark.parametrize("rest", [MASKED, IS_INFINITE])
def test_what_leaves_no_trace_in_the_outputs_may_be_infinite_all_the_same(rest: Nodes) -> None:
    """Infinity less infinity is no number, whatever a mask leaves out; and exp(200) is infinity in float32."""
    nodes: Nodes = [("Mul", "u k", "v", {}), ("Exp", "v", "e", {}), *rest]
    constants = {"k": single(100.0), "mask": single(-np.inf, 0.0), "two": single(2.0)}
    bound, worst = compared_over(nodes, constants, 1.0)
    assert bound >= worst >= 1
    assert np.isfinite(Written(nodes, constants, 1).bound(0.1, 0.2)[0])


# --- numbers below the range --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "lo", "hi"), [("Sign", 1e-40, 1.0), ("Floor", -1.0, -1e-40), ("Log", 1e-40, 1.0)])
def test_an_input_that_is_flushed_may_leave_the_box(op: str, lo: float, hi: float) -> None:
    """sign(1e-40) is 0 where 1e-40 is read as 0, which the box has not; where it has, that is known of it."""
    network = Written([(op, "u", "y", {})], {}, 1)
    assert network.bound(lo, hi)[0] >= 1
    if op != "Log":
        assert network.bound(min(lo, 0.0), max(hi, 0.0))[0] < 1e-30


def test_constants_that_are_flushed_are_0() -> None:
    """0 > -1e-40, and not where that is read as 0; of 1e-20 1e-20 something is left, or nothing."""
    nodes: Nodes = [("Greater", "u c", "g", {}), ("Cast", "g", "y", {"to": 1})]
    assert Written(nodes, {"c": single(-1e-40)}, 1).bound(0.0, 1.0)[0] >= 1
    assert Written(nodes, {"c": single(-1e-30)}, 1).bound(0.0, 1.0)[0] < 1e-30
    product: Nodes = [("Mul", "a a", "b", {}), ("Mul", "b c", "d", {}), ("Mul", "u d", "y", {})]
    with pytest.raises(UnsupportedModelError, match="computes a constant, as each runtime does it"):
        Written(product, {"a": single(1e-20), "c": single(1e38)}, 1)
    Written(product, {"a": single(1e-15), "c": single(1e30)}, 1)


def test_a_variance_that_is_flushed_has_no_root() -> None:
    nodes: Nodes = [("BatchNormalization", "u s b m v", "y", {"epsilon": 0.0})]
    constants = {"s": single(1e-15), "b": single(0.0), "m": single(0.0), "v": single(1e-40)}
    with pytest.raises(UnsupportedModelError, match="a variance that has no inverse root"):
        Written(nodes, constants, 1)


# --- jumps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Sign"])
def test_a_jump_is_paid_for_where_rounding_may_reach_it_and_nowhere_else(op: str) -> None:
    """(1e4 + u) - 1e4 is off by up to 5e-4: it may lie on the other side of a threshold, or not come near one."""
    nodes: Nodes = [("Add", "u a", "h", {}), ("Sub", "h a", "k", {}), (op, "k", "y", {})]
    constants, threshold = {"a": single(1e4)}, {"Round": 0.5, "Sign": 0.0}.get(op, 1.0)
    near, worst = compared(nodes, constants, np.array([threshold - 0.002]), np.array([threshold + 0.002]))
    assert worst == 1.0
    assert 1.0 <= near[0] <= 2.001
    clear, worst = compared(nodes, constants, np.array([threshold + 0.2]), np.array([threshold + 0.25]))
    assert worst == 0.0
    assert clear[0] < 1e-6


def test_what_is_computed_exactly_jumps_where_it_should() -> None:
    bound, worst = compared([("Floor", "u", "y", {})], {}, np.array([-3.0]), np.array([3.0]))
    assert (worst, bound[0] < 1e-30) == (0.0, True)


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons_of_computed_numbers(op: str) -> None:
    nodes: Nodes = [
        ("Add", "u a", "h", {}),
        ("Sub", "h a", "k", {}),
        (op, "k t", "c", {}),
        ("Where", "c one two", "y", {}),
    ]
    constants = {"a": single(1e4), "t": single(0.3), "one": single(5.0), "two": single(2.0)}
    near, worst = compared(nodes, constants, np.array([0.298]), np.array([0.302]))
    assert worst == 3.0 <= near[0] < 3.01
    clear, worst = compared(nodes, constants, np.array([0.45]), np.array([0.55]))
    assert (worst, clear[0] < 1e-5) == (0.0, True)


@pytest.mark.parametrize(
    ("chain", "bounded"),
    [
        ([("Greater", "h zero", "c"), ("Mul", "h slope", "l"), ("Where", "c h l", "y")], True),
        ([("Less", "h zero", "c"), ("Mul", "slope h", "l"), ("Where", "c l h", "y")], True),
        ([("Greater", "h slope", "c"), ("Where", "c h zero", "y")], True),
        ([("Greater", "h slope", "c"), ("Where", "c h slope", "y")], True),
        (
            [("Greater", "h zero", "c"), ("Mul", "h slope", "l"), ("Mul", "l slope", "m"), ("Where", "c h m", "y")],
            False,
        ),
        ([("Greater", "h zero", "c"), ("Mul", "h slope", "l"), ("Where", "c l h", "y")], False),
        ([("Greater", "h zero", "c"), ("Add", "h slope", "l"), ("Where", "c h l", "y")], False),
        ([("Greater", "h slope", "c"), ("Mul", "h slope", "l"), ("Where", "c h l", "y")], False),
    ],
)
def test_choices_have_a_bound_where_one_product_at_most_is_rounded(chain: list[Any], bounded: bool) -> None:
    nodes, constants = layer(2, 3, 5)
    constants |= {"zero": single(0.0), "slope": single(0.0625)}
    nodes = [*nodes, *((*one, {}) for one in chain)]
    if not bounded:
        with pytest.raises(UnsupportedModelError, match="Where by a comparison"):
            Written(nodes, constants, 2)
        return
    bound, _ = compared(nodes, constants, np.full(2, -1.0), np.full(2, 1.0))
    assert np.isfinite(bound).all()


def test_choices_between_tensors_by_another_one() -> None:
    """Where(c > 0, p, q) of three tensors: what is chosen may be the other one as soon as c may."""
    nodes: Nodes = [
        *(("Gemm", f"u {name}", f"{name}1", {}) for name in ("a", "b", "c")),
        ("Greater", "c1 zero", "t", {}),
        ("Where", "t a1 b1", "y", {}),
    ]
    rng = np.random.default_rng(4)
    constants = {name: single(*rng.normal(size=6)).reshape(2, 3) for name in ("a", "b", "c")} | {"zero": single(0.0)}
    bound, _ = compared(nodes, constants, np.full(2, -1.0), np.full(2, 1.0), 4000)
    assert np.isfinite(bound).all()


@pytest.mark.parametrize("activation", [floor(), ceil(), rounding(), rounding(-3, 4), step(0.5, 2.0, -3.0)])
def test_stairs_move_by_no_more_than_what_lies_within_an_error(activation: Any) -> None:
    z = RNG.uniform(-6, 6, 200_000)
    z[:1000] = np.round(z[:1000])
    e = 10.0 ** RNG.uniform(-6, 0.7, len(z))
    other = z + e * RNG.uniform(-1, 1, len(z))
    other[:500] = z[:500] + np.round(e[:500])
    reach = np.maximum(e, np.abs(other - z))
    assert (np.abs(activation(other) - activation(z)) <= activation.jumped(reach)).all()


def test_nothing_is_claimed_of_numbers_that_overflow_within_a_kernel() -> None:
    """x Clip(x + 3, 0, 6) / 6 is infinity at 2^126, where HardSwish is x."""
    network = Written([("HardSwish", "u", "y", {})], {}, 1)
    assert np.isfinite(network.bound(np.array([1e30]), np.array([1e37]))).all()
    assert math.isinf(network.bound(np.array([1e30]), np.array([8e37]))[0])


def test_functions_that_were_measured_are_named() -> None:
    nodes: Nodes = [("Tanh", "u", "a", {}), ("Exp", "a", "b", {}), ("Elu", "b", "y", {})]
    assert Written(nodes, {}, 2).written.measured == ("elu", "exp", "tanh")
    assert as_written(Written([("Relu", "u", "y", {})], {}, 2).graph).measured == ()


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([("Sum", "u a b", "y", {})], {"a": [1e10], "b": [-1e10]}),
        ([("Gemm", "p q u", "y", {})], {"p": [[0.1, 0.2, 0.3]], "q": [[1.0], [1.0], [-1.0]]}),
    ],
)
def test_constants_that_cancel_within_one_operator_have_no_bound(nodes: Nodes, constants: dict[str, Any]) -> None:
    """u + 1e10 - 1e10 is 0, and u + (.1 + .2 - .3) is off by what these sums are."""
    with pytest.raises(UnsupportedModelError, match="node"):
        Written(nodes, constants, 1)


def test_a_mean_adds_its_constant_before_it_divides() -> None:
    nodes: Nodes = [("Mul", "u k", "z", {}), ("Mean", "u z a", "y", {})]
    network = Written(nodes, {"k": [0.99], "a": [3.3e38]}, 1)
    assert np.isinf(network.bound(8e37, 8.2e37)).all()
    assert all(np.isinf(found).all() for found in network.runs(single(8.1e37)[:, None]))
