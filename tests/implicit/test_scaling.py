"""rescale: ||A||_inf <= kappa by powers of two, and not one bit of the outputs or of S changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.implicit.scaling import norm_inf_a, rescale, why_above
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.values.errors import OptionError
from tests.shared.implicit_models import Network, built, floats, node, proto, read
from tests.shared.random_networks import FAMILIES, KINKED

SEEDS = st.integers(0, 2**32 - 1)
RNG = np.random.default_rng(4)
KAPPAS = (0.5, 0.9, 0.01, 1 / 3)


def f(*shape: int, scale: float = 1.0) -> Any:
    return floats(RNG, *shape, scale=scale)


def norm_of(model: ImplicitModel) -> float:
    """Return ||A||_inf by CSR alone; row by row where hundreds of blocks would make the flat matrix slow to build."""
    if len(model.blocks) > 150:
        sums = [sum(abs(w.to_sparse()).sum(axis=1) for w in row.states.values()) for row in model.rows if row.states]
        return float(max(np.max(row) for row in sums))
    a = abs(model.matrices.A)
    return float(a.sum(axis=1).max()) if a.shape[0] else 0.0


def check(model: ImplicitModel, kappa: float) -> ImplicitModel:
    """Every law of an exact scaling."""
    scaled = rescale(model, kappa=kappa)
    assert scaled.scaling is not None
    assert scaled.scaling.kappa == kappa
    assert scaled.scaling.norm_before == pytest.approx(norm_of(model), rel=1e-12)
    assert scaled.scaling.norm_after is not None
    assert scaled.scaling.reason == ""
    assert norm_of(scaled) <= kappa
    assert norm_of(scaled) <= scaled.scaling.norm_after <= kappa
    assert norm_inf_a(scaled) == scaled.scaling.norm_after
    u = np.random.default_rng(0).normal(size=(3, model.n_inputs))
    np.testing.assert_array_equal(scaled(u), model(u))
    if kept_forms(model, scaled):
        np.testing.assert_array_equal(sensitivity_matrix(scaled), sensitivity_matrix(model))
    else:  # the bound on rounding that is added counts the factors of a map, and they became more
        np.testing.assert_allclose(sensitivity_matrix(scaled), sensitivity_matrix(model), rtol=1e-12)
    for k, (block, x, scaled_x) in enumerate(zip(model.blocks, model.state(u), scaled.state(u), strict=True)):
        exponents = scaled.scaling.exponents[k]
        assert exponents.shape == (block.size,)
        assert exponents.dtype.kind == "i"
        assert (exponents >= 0).all()
        np.testing.assert_array_equal(np.ldexp(scaled_x, exponents), x)
        if len(block.shape) == 4:
            channels = exponents.reshape(block.shape[1], -1)
            assert (channels == channels[:, :1]).all()
    if len(model.blocks) <= 150:
        powers(model, scaled)
    return scaled


def kept_forms(model: ImplicitModel, scaled: ImplicitModel) -> bool:
    """Return whether every map is of the same class as before: a scale per state turns a convolution into Reindexed."""
    rows = zip((*model.rows, model.output), (*scaled.rows, scaled.output), strict=True)
    return all(type(old.states[k]) is type(new.states[k]) for old, new in rows for k in old.states)


def powers(model: ImplicitModel, scaled: ImplicitModel) -> None:
    """Each entry of A, B, C is the old one times a power of two; D and d stay."""
    for old, new in zip(model.matrices[:4], scaled.matrices[:4], strict=True):
        assert old.nnz == new.nnz
        some = old.data != 0
        mantissa, _ = np.frexp(np.abs(new.data[some] / old.data[some]))
        assert (mantissa == 0.5).all()
    np.testing.assert_array_equal(model.matrices.D.toarray(), scaled.matrices.D.toarray())
    np.testing.assert_array_equal(model.matrices.d, scaled.matrices.d)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@given(seed=SEEDS, kappa=st.sampled_from(KAPPAS))
@settings(deadline=None, max_examples=6)
def test_random_networks_are_the_same_bit_for_bit(family: str, seed: int, kappa: float) -> None:
    check(build_implicit(read(FAMILIES[family](seed, KINKED).proto())), kappa)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
@given(seed=SEEDS, kappa=st.sampled_from(KAPPAS))
@settings(deadline=None, max_examples=12)
def test_many_networks_are_the_same_bit_for_bit(family: str, seed: int, kappa: float) -> None:
    check(build_implicit(read(FAMILIES[family](seed, KINKED).proto())), kappa)


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 2.0, 0.5 + 2**-20])
def test_a_chain_of_powers_of_two_gets_the_least_scales(weight: float) -> None:
    """A row sum of exactly 2^k kappa needs 2^k; the outward rounding may cost one factor of 2, not more."""
    w = np.float32([[weight]])
    nodes = [
        node("Relu", "x", "a"),
        node("MatMul", "a w", "h"),
        node("Relu", "h", "b"),
        node("MatMul", "b w", "g"),
        node("Relu", "g"),
    ]
    scaled = check(built(nodes, (1, 1), {"w": w}), 0.5)
    assert scaled.scaling is not None
    assert scaled.scaling.norm_after is not None
    assert scaled.scaling.norm_after >= min(weight, 0.125)


def conv_net() -> ImplicitModel:
    nodes = [
        node("Conv", "x a", "h", pads=[1] * 4),
        node("Relu", "h", "r"),
        node("Conv", "r b", "g", group=2, strides=[2, 2]),
        node("LeakyRelu", "g", "s"),
        node("Conv", "s c", "t"),
        node("Relu", "t", "q"),
        node("GlobalAveragePool", "q"),
    ]
    return built(nodes, (1, 2, 9, 9), {"a": f(4, 2, 3, 3), "b": f(4, 2, 3, 3), "c": f(3, 4, 1, 1)})


def test_kernels_stay_kernels() -> None:
    scaled = check(conv_net(), 0.5)
    assert all(isinstance(linear_map, Convolution) for row in scaled.rows for linear_map in row.states.values())
    assert isinstance(scaled.rows[-1].input, Convolution)


def test_a_dead_row_keeps_its_scale() -> None:
    w = np.diag([4.0, 0.0, 1.0]).astype("f4")
    nodes = [node("Relu", "x", "a"), node("MatMul", "a w", "h"), node("Relu", "h", "b"), node("MatMul", "b w")]
    scaled = check(built(nodes, (1, 3), {"w": w}), 0.5)
    assert scaled.scaling is not None
    assert scaled.scaling.exponents[0][1] == 0
    all_dead = built(nodes, (1, 3), {"w": np.zeros((3, 3), "f4")})
    assert check(all_dead, 0.5).scaling.exponents[0].tolist() == [0, 0, 0]  # type: ignore[union-attr]


def test_a_model_without_states_has_nothing_to_scale() -> None:
    scaled = rescale(built([node("Neg", "x")], (1, 3)))
    assert scaled.scaling is not None
    assert (scaled.scaling.norm_before, scaled.scaling.norm_after) == (0.0, 0.0)


@pytest.mark.parametrize("kappa", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_kappa_lies_between_0_and_1(kappa: float) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        rescale(conv_net(), kappa=kappa)


def chain(depth: int, width: int, scale: float, *, bias: float = 1.0) -> ImplicitModel:
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for k in range(depth):
        constants |= {f"w{k}": floats(rng, width, width, scale=scale), f"b{k}": floats(rng, width, scale=bias)}
        nodes += [node("Gemm", f"{last} w{k} b{k}", f"h{k}"), node("Relu", f"h{k}", f"r{k}")]
        last = f"r{k}"
    return built([*nodes, node("Neg", last)], (1, width), constants)


def test_a_hundred_layers() -> None:
    scaled = check(chain(100, 4, 1.0), 0.5)
    assert scaled.scaling is not None
    assert max(int(e.max()) for e in scaled.scaling.exponents.values()) > 100


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 1.0), (1e3, 1.0), (1e-3, 1.0), (0.2, 1e-30)])
def test_four_hundred_layers_are_exact_or_say_why_not(scale: float, bias: float) -> None:
    model = chain(400, 3, scale, bias=bias)
    scaled = rescale(model)
    assert scaled.scaling is not None
    if scaled.scaling.norm_after is not None:
        check(model, 0.5)
        return
    assert scaled.scaling.reason
    assert not scaled.scaling.exponents
    assert scaled.rows is model.rows
    assert scaled.blocks is model.blocks


def test_tiny_products_of_weights_are_exact_or_say_why_not() -> None:
    """Three layers of 1e-35 multiplied out: 1e-105; scaled by 2^-780 they would be 1e-340."""
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for k in range(25):
        constants[f"w{k}"] = np.float32([[2.0**30]])
        nodes += [node("MatMul", f"{last} w{k}", f"h{k}"), node("Relu", f"h{k}", f"r{k}")]
        last = f"r{k}"
    tiny = ["x"]
    for k in range(3):
        constants[f"t{k}"] = floats(rng, 1, 1, scale=1e-35)
        nodes.append(node("MatMul", f"{tiny[-1]} t{k}", f"s{k}"))
        tiny.append(f"s{k}")
    model = built([*nodes, node("Add", f"{last} s2", "sum"), node("Relu", "sum")], (1, 1), constants)
    scaled = rescale(model)
    assert scaled.scaling is not None
    if scaled.scaling.norm_after is not None:
        powers(model, scaled)


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid", "Softplus", "Mish", "Elu"])
def test_what_is_not_homogeneous_keeps_its_scale_in_the_block(op: str) -> None:
    rng = np.random.default_rng(1)
    constants = {"a": floats(rng, 5, 6), "b": floats(rng, 6, 4), "c": floats(rng, 4, 3), "d": floats(rng, 4)}
    nodes = [
        node("MatMul", "x a", "h"),
        node("Relu", "h", "r"),
        node("Gemm", "r b d", "g"),
        node(op, "g", "t"),
        node("MatMul", "t c", "k"),
        node(op, "k"),
    ]
    model = Network(proto(nodes, (1, 5), constants, opset=18)).check()
    for kappa in KAPPAS:
        scaled = rescale(model, kappa=kappa)
        assert scaled.scaling is not None
        assert scaled.scaling.norm_after is not None
        assert norm_of(scaled) <= kappa
        u = rng.normal(size=(20, 5))
        np.testing.assert_allclose(scaled(u), model(u), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(sensitivity_matrix(scaled), sensitivity_matrix(model))
        for k, block in enumerate(scaled.blocks):
            if not block.activation.positively_homogeneous:
                assert (scaled.scaling.exponents[k] == block.exponent).all()
            else:
                assert block.exponent == 0


@pytest.mark.parametrize("family", ["convolutional", "dense", "branching"])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=5)
def test_states_lie_within_the_intervals_of_the_scaled_model(family: str, seed: int) -> None:
    """Without max-pooling: see the next test."""
    model = build_implicit(read(FAMILIES[family](seed).proto()))
    if any(block.maximum is not None for block in model.blocks):
        return
    check_intervals(rescale(model))


def check_intervals(model: ImplicitModel) -> None:
    u = np.random.default_rng(0).normal(size=(1, model.n_inputs))
    bounds = interval_bounds(model, Interval(u - 0.1, u + 0.1))
    for k, x in enumerate(model.state(u)):
        slack = 1e-12 * (1 + np.abs(x))
        assert (bounds.x[k].lo <= bounds.x[k].hi).all()
        assert (bounds.x[k].lo - slack <= x).all()
        assert (x <= bounds.x[k].hi + slack).all()


def test_intervals_know_that_a_maximum_was_scaled() -> None:
    nodes = [
        node("Conv", "x w", "h"),
        node("Relu", "h", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "q"),
        node("MatMul", "q v", "g"),
        node("Relu", "g"),
    ]
    rng = np.random.default_rng(0)
    model = built(nodes, (1, 1, 6, 6), {"w": floats(rng, 2, 1, 3, 3), "v": floats(rng, 8, 3)})
    check_intervals(model)
    check_intervals(rescale(model))


@pytest.mark.parametrize("seed", range(3))
def test_max_pooling_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = [
        node("Conv", "x w", "h"),
        node("MaxPool", "h", "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Relu", "p", "r"),
        node("MaxPool", "r", "q", kernel_shape=[2, 2]),
        node("Conv", "q v"),
    ]
    check(built(nodes, (1, 2, 8, 8), {"w": floats(rng, 3, 2, 3, 3), "v": floats(rng, 2, 3, 1, 1)}), 0.5)


def test_scaling_twice_is_still_the_same_function() -> None:
    model = conv_net()
    twice = rescale(rescale(model), kappa=0.25)
    u = np.random.default_rng(0).normal(size=(3, model.n_inputs))
    np.testing.assert_array_equal(twice(u), model(u))
    assert norm_of(twice) <= 0.25


# ---------------------------------------------------------------------------------------------- what loops cannot reach


def ring(root: float, n: int = 4) -> ImplicitModel:
    """Return a loop with lambda_PF(|A|) = root: a ring of states with unequal weights."""
    weights = np.array([8.0, 1 / 8, 2.0, 1 / 2]) * root
    a = np.roll(np.eye(n), 1, axis=0) * weights
    return plain_model(
        a, np.ones((n, 2)), np.ones((1, n)), np.zeros((1, 2)), np.zeros(n), np.zeros(1), [DeclaredBlock("relu", n, {})]
    )


@pytest.mark.parametrize(("root", "kappa"), [(0.9, 0.5), (0.9, 0.89), (0.75, 0.7)])
def test_a_kappa_below_the_root_is_said(root: float, kappa: float) -> None:
    scaled = rescale(ring(root), kappa=kappa)
    reached = scaled.scaling.norm_after
    assert root <= reached <= (1 + root) / 2 + 1e-9
    assert f"{kappa:g} is below lambda_PF(|A|) = {root:g}" in why_above(scaled)
    assert f"{reached:.4g} was reached" in why_above(scaled)


@pytest.mark.parametrize(("root", "kappa"), [(0.9, 0.91), (0.9, 0.97), (0.25, 0.5), (0.5, 0.6)])
def test_a_kappa_above_the_root_is_reached(root: float, kappa: float) -> None:
    scaled = rescale(ring(root), kappa=kappa)
    assert scaled.scaling.norm_after <= kappa * (1 + 1e-9)
    assert why_above(scaled) == ""
    u = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_allclose(scaled(u), ring(root)(u), rtol=1e-9, atol=1e-12)


def test_a_model_that_is_not_scaled_says_nothing_of_kappa() -> None:
    assert why_above(ring(0.9)) == ""
    assert why_above(rescale(ring(2.0))) == ""
