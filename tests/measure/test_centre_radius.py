"""The sharper sensitivity matrices: valid, never above the paper's, and exact where they must be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.architectures import mnist_mlp
from idl_audit import from_torch
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.centre_radius import (
    METHODS,
    applicable_methods,
    centre_radius_matrix,
    global_slopes,
    half_step_applies,
)
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.errors import OptionError, UnsupportedModelError
from tests.shared.exact_activations import EXAMPLES

COMPONENTWISE = sorted(EXAMPLES)
NEVER_FALLING = ("relu", "leaky_relu", "identity", "sigmoid", "tanh", "elu", "selu", "softplus", "softsign", "celu")


def network(rng: np.random.Generator, names: list[str], widths: list[int], *, nonnegative: bool = False):
    """Return u -> ... -> y with skips from every block to every later one."""

    def weights(rows: int, columns: int) -> np.ndarray:
        w = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        return np.abs(w) if nonnegative else w

    p, q = 3, 2
    made = list(range(len(names)))
    blocks = [StateBlock(f"b{k}", "Test", ACTIVATIONS[n](), (widths[k],)) for k, n in enumerate(names)]
    last = len(names) - 1
    rows = [
        Affine(
            {last - j: Dense(matrix=weights(widths[k], widths[j])) for j in made[:k]},
            Dense(matrix=weights(widths[k], p)),
            rng.normal(size=widths[k]),
        )
        for k in made
    ]
    output = Affine(
        {last - j: Dense(matrix=weights(q, widths[j])) for j in made}, Dense(matrix=weights(q, p)), np.zeros(q)
    )
    return ImplicitModel(tuple(blocks[::-1]), tuple(rows[::-1]), output, (1, p), (1, q))


def drawn(seed: int, names: tuple[str, ...] | list[str] = COMPONENTWISE, **options):
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 4))
    chosen = [str(n) for n in rng.choice(list(names), depth)]
    return network(rng, chosen, [int(n) for n in rng.integers(1, 6, depth)], **options), rng


def pairs(rng: np.random.Generator, n: int, p: int):
    u = rng.normal(size=(n, p)) * 10 ** rng.uniform(-2, 1, (n, 1))
    return u, u + rng.normal(size=(n, p)) * 10 ** rng.uniform(-3, 1, (n, 1))


def is_monotone(model) -> bool:
    a = model.matrices.A.toarray()
    steepest = np.concatenate([block.everywhere[1] for block in model.blocks])
    least = np.concatenate([block.everywhere[0] for block in model.blocks])
    coupled = any(block.activation.coupled for block in model.blocks)
    return not coupled and least.min() >= 0 and np.linalg.eigvalsh(np.diag(1 / steepest) - (a + a.T) / 2)[0] > 1e-3


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_no_pair_of_inputs_violates_any_matrix(seed):
    model, rng = drawn(seed)
    u, v = pairs(rng, 1000, 3)
    change = np.abs(model(u) - model(v))
    for name in METHODS:
        if name == "half-step" and not half_step_applies(model):
            continue
        if name == "monotone" and not is_monotone(model):
            continue
        assert (change <= np.abs(u - v) @ sensitivity_matrix(model, name).T + 1e-12).all(), name


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_centre_and_radius_never_exceed_the_paper(seed):
    model, _ = drawn(seed)
    paper, sharp = sensitivity_matrix(model), sensitivity_matrix(model, "centre-radius")
    assert (sharp <= paper * (1 + 1e-10) + 1e-300).all()
    np.testing.assert_array_equal(sensitivity_matrix(model, "best"), np.minimum(paper, sharp))


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_the_half_step_lies_between(seed):
    model, _ = drawn(seed, NEVER_FALLING)
    assert half_step_applies(model)
    paper, half = sensitivity_matrix(model), sensitivity_matrix(model, "half-step")
    assert (half <= paper * (1 + 1e-10)).all()
    assert (half >= paper / 2).all()


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_nonnegative_relu_networks_are_exact_either_way(seed):
    model, _ = drawn(seed, ["relu"], nonnegative=True)
    np.testing.assert_allclose(sensitivity_matrix(model, "centre-radius"), sensitivity_matrix(model), rtol=1e-10)


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_identity_networks_are_exact(seed):
    """c = 1, r = 0: S = |C (I - A)^-1 B + D|, the true gain, where the paper's |C| (I - |A|)^-1 |B| + |D| is larger."""
    model, _ = drawn(seed, ["identity"])
    a, b, c, d, *_ = (np.asarray(m.toarray()) for m in model.matrices[:4])
    exact = np.abs(c @ np.linalg.solve(np.eye(len(a)) - a, b) + d)
    np.testing.assert_allclose(sensitivity_matrix(model, "centre-radius"), exact, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_inner_slopes_give_no_larger_matrix(seed):
    """The theorem of docs/mathematics.md, section 5.3: slopes that lie within others'."""
    model, rng = drawn(seed)
    outer = global_slopes(model)
    inner = {}
    for k, (least, most) in outer.items():
        ends = np.sort(least + (most - least) * rng.random((2, least.size)), axis=0)
        inner[k] = ends[0], ends[1]
    assert (centre_radius_matrix(model, inner) <= centre_radius_matrix(model, outer) * (1 + 1e-9) + 1e-13).all()


def test_scaling_changes_no_matrix():
    model, _ = drawn(5, ["relu", "abs"])
    scaled = rescale(model)
    for name in ("paper", "centre-radius"):
        np.testing.assert_allclose(sensitivity_matrix(scaled, name), sensitivity_matrix(model, name), rtol=1e-12)


def test_functionals_bound_differences_of_outputs():
    model, rng = drawn(3, ["relu", "tanh"])
    rows = np.array([[1.0, -1.0]])
    u, v = pairs(rng, 2000, 3)
    change = np.abs((model(u) - model(v)) @ rows.T)
    for name in ("paper", "centre-radius", "half-step"):
        found = sensitivity_matrix(model, name, functionals=rows)
        assert (change <= np.abs(u - v) @ found.T + 1e-12).all()
        assert (found <= sensitivity_matrix(model, name).sum(axis=0) * (1 + 1e-9)).all()


def test_what_does_not_apply_is_refused():
    falling, _ = drawn(1, ["gelu"])
    assert applicable_methods(falling) == ("paper", "centre-radius")
    with pytest.raises(UnsupportedModelError, match="never negative"):
        sensitivity_matrix(falling, "half-step")
    with pytest.raises(OptionError, match="there is no method 'sharpest'"):
        sensitivity_matrix(falling, "sharpest")


@pytest.mark.slow
def test_softmax_has_the_papers_matrix_only():
    model = from_torch(nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1), nn.Linear(4, 2)), torch.zeros(1, 3))
    assert applicable_methods(model) == ("paper",)
    with pytest.raises(UnsupportedModelError, match="componentwise"):
        sensitivity_matrix(model, "centre-radius")


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="IDL_AUDIT_DATA is not set")
@pytest.mark.parametrize(
    ("name", "hidden", "expected"),
    [
        ("mnist_mlp_d3", 2, {"paper": 2760, "half-step": 1467, "centre-radius": 1090}),
        ("mnist_mlp_d10", 9, {"paper": 2.870e8, "half-step": 1.435e8, "centre-radius": 7.146e6}),
    ],
)
def test_known_values_of_the_published_networks(name, hidden, expected):
    module = mnist_mlp(hidden)
    path = Path(os.environ["IDL_AUDIT_DATA"]) / f"models/{name}.pt"
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model = build_implicit(network_of(module, torch.zeros(1, 1, 28, 28)).graph)
    for method, value in expected.items():
        assert sensitivity_matrix(model, method).sum(axis=1).max() == pytest.approx(value, rel=5e-4)
