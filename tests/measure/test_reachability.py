"""Independence by reachability: every chain of nonzeros is found, and nothing but chains of nonzeros."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.architectures import load_resnet20
from idl_audit.graph.torch_reader import network_of
from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.linear_maps import Dense, LinearMap, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.measure.reachability import independent_pairs
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.map_examples import KINDS, allowance, matrix
from tests.shared.small_networks import KINKED, STEADY, dense, graph, layered, pooled_network, random_network

seeds = st.integers(0, 2**32 - 1)


def by_paths(model: ImplicitModel) -> np.ndarray:
    """Return independence from the flat matrices: repeated boolean products, states coupled within their blocks."""
    a, b, c, d = (m.toarray() != 0 for m in model.matrices[:4])
    gamma = np.zeros(a.shape, bool)
    for start, block in zip(model.offsets, model.blocks, strict=False):
        own = slice(start, start + block.size)
        gamma[own, own] = block.activation.read_by(np.eye(block.size, dtype=np.bool_))
    reach = c @ gamma
    for _ in range(len(a)):
        reach = reach | (reach @ a @ gamma)
    return ~(d | (reach @ b))


def sparse_network(rng: np.random.Generator, *, also: Sequence[str] = (), **options: object) -> ImplicitModel:
    """Return a random network with most of its coefficients removed."""

    def thinned(linear_map: LinearMap) -> Dense:
        values = linear_map.to_sparse().toarray()
        return dense(values * (rng.random(values.shape) < 0.3))

    def thin(row: Affine) -> Affine:
        own = None if row.input is None else thinned(row.input)
        return Affine({k: thinned(w) for k, w in row.states.items()}, own, row.constant)

    model = random_network(rng, p=4, widths=(5, 4, 4), activations=[*KINKED, *STEADY, *also], **options)  # type: ignore[arg-type]
    return replace(model, rows=tuple(thin(row) for row in model.rows), output=thin(model.output))


@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_every_path_is_found_and_nothing_else(seed: int) -> None:
    model = sparse_network(np.random.default_rng(seed), also=("contraction", "product"))
    np.testing.assert_array_equal(independent_pairs(model), by_paths(model))


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_inputs_that_are_proved_independent_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = sparse_network(rng)
    found = independent_pairs(model)
    u = rng.normal(size=(200, 4)) * 3
    for j in range(4):
        v = u.copy()
        v[:, j] += rng.normal(size=200) * 3
        moved = (model(u) != model(v)).any(axis=0)
        assert not (moved & found[:, j]).any()
    zero = sensitivity_matrix(model) == 0.0
    assert (found <= zero).all()  # what is independent has S = 0, and not the other way round


def test_products_that_underflow_are_still_paths() -> None:
    model = layered([([[1e-200, 0.0]], [0.0]), ([[1e-200]], [0.0])], ([[1.0]], [0.0]))
    (near, far) = sensitivity_matrix(model)[0]
    assert 0 < near < 1e-290
    assert far == 0
    assert independent_pairs(model).tolist() == [[False, True]]


def test_terms_that_cancel_are_still_paths() -> None:
    """relu(u) - relu(u) is 0, which reachability does not see: no proof is claimed."""
    model = layered([([[1.0], [1.0]], np.zeros(2))], ([[1.0, -1.0]], [0.0]))
    assert independent_pairs(model).tolist() == [[False]]


def one_map(linear_map: LinearMap) -> ImplicitModel:
    n = linear_map.n_out
    return ImplicitModel((), (), Affine({}, linear_map, np.zeros(n)), (linear_map.n_in,), (n,))


def with_zeros(linear_map: LinearMap, rng: np.random.Generator) -> LinearMap:
    """Return the map with some of its numbers 0 and some so small that products of them vanish."""
    changes = {}
    for name in ("weights", "matrix", "kernel"):
        values = getattr(linear_map, name, None)
        if isinstance(values, np.ndarray):
            changes[name] = values * rng.choice([0.0, 1e-200, 1.0], size=values.shape)
    return replace(linear_map, **changes) if changes else linear_map


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_every_kind_of_map_is_followed(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    linear_map = with_zeros(KINDS[kind](rng), rng)
    np.testing.assert_array_equal(independent_pairs(one_map(linear_map)), matrix(linear_map) == 0)


def test_zeros_that_a_sparse_matrix_stores_are_zeros() -> None:
    stored = sp.csr_array((np.array([0.0, 1e-300]), np.array([0, 1]), np.array([0, 2])), shape=(1, 3))
    assert independent_pairs(one_map(Sparse(matrix=stored))).tolist() == [[True, False, True]]


@settings(deadline=None, max_examples=20)
@given(seed=seeds, kind=st.sampled_from(["dense", "conv2d", "selection", "reindexed"]))
def test_coefficients_that_rounding_may_have_hidden_count(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    nominal = with_zeros(KINDS[kind](rng), rng)
    hidden = np.abs(rng.normal(size=(nominal.n_out, nominal.n_in))) * (rng.random((nominal.n_out, nominal.n_in)) < 0.2)
    linear_map = nominal.uncertain(1e-3, Dense(matrix=hidden))
    possible = (matrix(nominal) != 0) | (allowance(linear_map) > 0)
    np.testing.assert_array_equal(independent_pairs(one_map(linear_map)), ~possible.astype(bool))


def test_layers_whose_product_rounds_to_zero_are_not_proved_independent() -> None:
    first, second = np.array([[1.0, 1.0]]), np.array([[1.0], [-1.0]])
    nodes = [("Gemm", ("u", "a"), "h", {}), ("Gemm", ("h", "b"), "y", {})]
    model = build_implicit(graph(nodes, {"a": first, "b": second}, (1, 1)))
    assert model.output.input is not None
    assert model.output.input.to_sparse().toarray()[0, 0] == 0.0
    assert independent_pairs(model).tolist() == [[False]]


def test_groups_of_a_softmax_depend_on_all_their_inputs_and_on_no_others() -> None:
    model = layered([(np.eye(6), np.zeros(6))], (np.eye(6), np.zeros(6)), ACTIVATIONS["softmax"](3))
    expected = np.kron(np.eye(2), np.ones((3, 3))) == 0
    np.testing.assert_array_equal(independent_pairs(model), expected)


def test_convolutions_see_their_windows_only() -> None:
    nodes = [("Conv", ("u", "k"), "h", {"kernel_shape": (3,), "pads": (1, 1)}), ("Relu", ("h",), "r", {})]
    nodes.append(("Conv", ("r", "k"), "y", {"kernel_shape": (3,), "pads": (1, 1)}))
    model = build_implicit(graph(nodes, {"k": np.array([[[1.0, 0.0, 1e-30]]], np.float32)}, (1, 1, 9)))
    i, j = np.indices((9, 9))
    seen = np.isin(j - i, (-2, 0, 2))
    seen[0, 0] = seen[8, 8] = True  # through the other neighbour
    np.testing.assert_array_equal(independent_pairs(model), ~seen)


def test_pooled_networks_agree_with_their_flat_matrices() -> None:
    model = pooled_network(np.random.default_rng(0), size=6, window=3)
    np.testing.assert_array_equal(independent_pairs(model), by_paths(model))
    assert independent_pairs(model).any()  # the last row and column lie in no window


def cyclic(own: np.ndarray, given: np.ndarray, read: np.ndarray) -> ImplicitModel:
    n, p = given.shape
    block = StateBlock("b", "Loop", ACTIVATIONS["relu"](), (n,))
    row = Affine({0: dense(own)}, dense(given), np.zeros(n))
    return ImplicitModel((block,), (row,), Affine({0: dense(read)}, None, np.zeros(len(read))), (p,), (len(read),))


def test_loops_are_followed_to_their_end() -> None:
    n = 6
    chain = np.diag(np.full(n - 1, 1e-100), 1)  # state i reads state i + 1
    model = cyclic(chain, np.eye(n), np.eye(n))
    np.testing.assert_array_equal(independent_pairs(model), np.tri(n, k=-1, dtype=bool))


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_random_loops_agree_with_their_flat_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, given, read = (rng.normal(size=s) * (rng.random(s) < 0.2) for s in ((6, 6), (6, 4), (3, 6)))
    model = cyclic(own, given, read)
    np.testing.assert_array_equal(independent_pairs(model), by_paths(model))


def test_a_block_that_reads_a_newer_one_is_refused() -> None:
    model = layered([([[1.0]], [0.0]), ([[1.0]], [0.0])], ([[1.0]], [0.0]))
    older = replace(model.rows[1], states={0: dense([[1.0]])})
    with pytest.raises(UnsupportedModelError, match="older blocks"):
        independent_pairs(replace(model, rows=(model.rows[0], older)))


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="IDL_AUDIT_DATA is not set")
def test_a_published_residual_network_sees_every_pixel() -> None:
    module = load_resnet20(str(Path(os.environ["IDL_AUDIT_DATA"]) / "models/resnet20_cifar10.th"))
    model = build_implicit(network_of(module, torch.zeros(1, 3, 32, 32)).graph)
    found = independent_pairs(model)
    assert found.shape == (10, 3072)
    assert not found.any()


def test_some_outputs_at_a_time_are_as_independent_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_network(np.random.default_rng(3), p=6, widths=(5, 4))
    together = independent_pairs(model)
    monkeypatch.setattr("idl_audit.measure.sensitivity.ROWS_AT_ONCE", 1)
    np.testing.assert_array_equal(independent_pairs(model), together)
