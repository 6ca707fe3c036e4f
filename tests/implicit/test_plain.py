"""A user's own A, B, C, D, b, d: the blocks that are found in it, its outputs, its files, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import Mixed
from idl_audit.implicit.components import block_order, ranges_text
from idl_audit.implicit.linear_maps import Dense, Sparse
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.plain import PlainReader
from idl_audit.implicit.scaling import rescale
from idl_audit.implicit.storage import load_model, save_model
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.errors import ModelFileError
from tests.shared.cyclic_models import PHI, around_a_loop, contracting, fixed_point, plain, random_loop

seeds = st.integers(0, 2**32 - 1)


def block_triangular(rng: np.random.Generator) -> tuple[np.ndarray, list[list[int]]]:
    """Return a permuted block triangular matrix, and its loops: the sets of states that reach themselves."""
    sizes = rng.integers(1, 5, int(rng.integers(1, 6)))
    n = int(sizes.sum())
    a = np.where(rng.random((n, n)) < 0.4, rng.normal(size=(n, n)), 0.0)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = []
    for first, last in itertools.pairwise(starts):
        a[first:last, last:] = 0.0
        own = np.arange(first, last)
        if len(own) > 1 or rng.random() < 0.3:
            a[own, np.roll(own, 1)] = 1.0  # a ring through all of them
            parts.append(own)
        else:
            a[first, first] = 0.0
    order = rng.permutation(n)
    place = np.argsort(order)
    return a[np.ix_(order, order)], [sorted(place[part].tolist()) for part in parts]


# ---------------------------------------------------------------------------------------------- components


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_permuted_loops_are_found_again(seed):
    rng = np.random.default_rng(seed)
    A, loops = block_triangular(rng)
    n = len(A)
    blocks = [block.tolist() for block in block_order(sp.csr_array(A), np.zeros(n, np.int64), np.arange(n))]
    assert sorted(i for block in blocks for i in block) == list(range(n))
    assert sorted(b for b in blocks if A[np.ix_(b, b)].any()) == sorted(loops)
    for k, block in enumerate(blocks):  # nothing is read from a later block
        for later in blocks[k + 1 :]:
            assert not A[np.ix_(block, later)].any()


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_coupled_states_stay_together(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(1, 4, 4)
    nodes = np.repeat(np.arange(4), groups)
    n = len(nodes)
    A = np.where(rng.random((n, n)) < 0.15, 1.0, 0.0)
    kinds = nodes % 2
    blocks = block_order(sp.csr_array(A), kinds, nodes)
    for block in blocks:
        for node in np.unique(nodes[block]):
            states = np.flatnonzero(nodes == node)
            at = np.searchsorted(block, states[0])
            assert block[at : at + len(states)].tolist() == states.tolist()
    for k, block in enumerate(blocks):
        for later in blocks[k + 1 :]:
            assert not A[np.ix_(block, later)].any()
        if not A[np.ix_(block, block)].any():
            assert len(set(kinds[block])) == 1


def test_stored_zeros_and_double_entries_make_no_loop():
    entries = ([1.0, 0.0, 0.0, 2.0, -2.0], ([1, 0, 0, 0, 0], [0, 1, 0, 1, 1]))
    blocks = block_order(sp.csr_array(sp.coo_array(entries, shape=(2, 2))), np.zeros(2, np.int64), np.arange(2))
    assert [block.tolist() for block in blocks] == [[0], [1]]


def test_no_states_and_no_edges():
    assert block_order(sp.csr_array((0, 0)), np.zeros(0, np.int64), np.zeros(0, np.int64)) == []
    (only,) = block_order(sp.csr_array((3, 3)), np.zeros(3, np.int64), np.arange(3))
    assert only.tolist() == [0, 1, 2]


def test_a_long_chain_and_a_long_ring():
    n = 3000
    chain = sp.csr_array(sp.diags_array(np.ones(n - 1), offsets=-1))
    assert len(block_order(chain, np.zeros(n, np.int64), np.arange(n))) == n
    ring = sp.csr_array(sp.coo_array((np.ones(n), (np.arange(n), np.roll(np.arange(n), 1))), shape=(n, n)))
    assert len(block_order(ring, np.zeros(n, np.int64), np.arange(n))) == 1


@pytest.mark.parametrize(
    ("states", "text"),
    [([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 9], "0, 2-3, 9"), (range(0, 40, 2), "0, 2, 4, 6, 8, 10, ...")],
)
def test_ranges_text(states, text):
    assert ranges_text(list(states)) == text


# ---------------------------------------------------------------------------------------------- the model


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_permuted_model_gives_the_same_outputs(seed):
    """x = phi(A x + B u + b) does not care for the order of its states."""
    rng = np.random.default_rng(seed)
    A, _ = block_triangular(rng)
    n = len(A)
    A *= 0.8 / max(np.abs(A).sum(axis=1).max(), 1e-9)
    names = [str(rng.choice(["relu", "tanh", "gelu", "abs", "hard_swish"])) for _ in range(n)]
    A[[name == "hard_swish" for name in names]] *= 0.6
    B, b, C = rng.normal(size=(n, 2)), rng.normal(size=n), rng.normal(size=(2, n))
    model = plain(A, B, C, [(name, 1) for name in names], b=b)
    u = rng.normal(size=(3, 2))
    found = model(u)
    truth = [C @ fixed_point(A, B @ row + b, [(name, 1) for name in names]) for row in u]
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-8 * (1 + np.abs(found).max()))
    order = rng.permutation(n)
    other = plain(A[np.ix_(order, order)], B[order], C[:, order], [(names[i], 1) for i in order], b=b[order])
    np.testing.assert_allclose(other(u), found, rtol=0, atol=1e-8 * (1 + np.abs(found).max()))
    assert sorted(loop.block.size for loop in model.loops.values()) == sorted(
        loop.block.size for loop in other.loops.values()
    )
    assert model.is_well_posed
    S = sensitivity_matrix(model, "centre-radius")
    np.testing.assert_allclose(sensitivity_matrix(other, "centre-radius"), S, rtol=1e-9)


def test_a_triangular_model_has_no_loops_and_shares_blocks_by_activation():
    A = np.zeros((6, 6))
    A[3:, :3] = 1.0
    model = plain(A, np.ones((6, 1)), np.ones((1, 6)), [("relu", 2), ("tanh", 1), ("relu", 3)])
    assert model.is_feed_forward
    assert sorted((b.activation.name, b.size) for b in model.blocks) == [("relu", 2), ("relu", 3), ("tanh", 1)]
    assert model.is_well_posed
    np.testing.assert_allclose(model(np.ones((1, 1))), [[2 + np.tanh(1) + 3 * (3 + np.tanh(1))]])


def test_same_activations_in_one_loop_are_not_mixed():
    A = np.full((4, 4), 0.1)
    (same,) = plain(A, np.ones((4, 1)), np.ones((1, 4)), [("relu", 1), ("relu", 3)]).blocks
    assert same.activation.name == "relu"
    (mixed,) = plain(A, np.ones((4, 1)), np.ones((1, 4)), [("relu", 1), ("tanh", 2), ("relu", 1)]).blocks
    assert isinstance(mixed.activation, Mixed)
    assert mixed.activation.sizes == (1, 2, 1)


def test_sparse_matrices_are_kept_sparse():
    rng = np.random.default_rng(0)
    A = np.zeros((40, 40))
    A[np.arange(40), np.roll(np.arange(40), 1)] = 0.5
    model = plain(A, rng.normal(size=(40, 3)), np.ones((1, 40)))
    assert isinstance(model.rows[0].states[0], Sparse)
    assert isinstance(model.rows[0].input, Dense)


# ---------------------------------------------------------------------------------------------- files


def stored(path: Path, meta: Any = None, **arrays: Any) -> Path:
    """Write a user's file: two relu states in a loop, one input, one output, but for what is given."""
    usual = {"A": np.array([[0, 0.5], [0.5, 0]]), "B": np.ones((2, 1)), "C": np.ones((1, 2))}
    merged = {name: value for name, value in {**usual, **arrays}.items() if value is not None}
    text = (
        meta if isinstance(meta, str) else json.dumps({"schema_version": "1.0", "activation": "relu", **(meta or {})})
    )
    np.savez(path, **merged, meta=np.asarray(text))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "own.npz"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int8])
def test_any_numbers_are_read(file, dtype):
    A = np.array([[-1, 0], [2, -3]]).astype(dtype)
    model = load_model(stored(file, A=A, b=np.ones((2, 1)), d=np.float32(3), D=np.array([[4]]))).model
    # x_0 = (1 + 1) / 2, x_1 = (2 x_0 + 2) / 4
    np.testing.assert_allclose(model(np.array([[1.0]])), [[1.0 + 1.0 + 4.0 + 3.0]])


def test_left_out_arrays_are_zero(file):
    model = load_model(stored(file)).model
    np.testing.assert_allclose(model(np.array([[1.0], [0.0]])), [[4.0], [0.0]])


def test_a_model_without_states_is_affine(file):
    path = stored(file, A=np.zeros((0, 0)), B=np.zeros((0, 2)), C=np.zeros((1, 0)), D=np.array([[2.0, 3.0]]), d=[5.0])
    model = load_model(path).model
    assert (model.n_states, model.is_feed_forward, model.is_well_posed) == (0, True, True)
    np.testing.assert_allclose(model(np.array([[1.0, 1.0]])), [[10.0]])
    np.testing.assert_allclose(sensitivity_matrix(model, "best"), [[2.0, 3.0]], rtol=1e-12)


BAD_ARRAYS: dict[str, dict[str, Any]] = {
    "no A": {"A": None},
    "no C": {"C": None},
    "vector": {"A": np.ones(2)},
    "cube": {"A": np.ones((2, 2, 1))},
    "number": {"A": np.float64(1)},
    "not square": {"A": np.ones((2, 3))},
    "text": {"A": np.array([["a", "b"], ["c", "d"]])},
    "complex": {"A": np.ones((2, 2), complex)},
    "truth": {"A": np.ones((2, 2), bool)},
    "records": {"A": np.ones((2, 2), [("x", float)])},
    "dates": {"A": np.zeros((2, 2), "datetime64[s]")},
    "NaN": {"A": np.array([[np.nan, 0], [0, 0]])},
    "infinite": {"b": np.array([np.inf, 0])},
    "huge": {"A": np.full((2, 2), 1e101)},
    "tiny": {"C": np.full((1, 2), 1e-101)},
    "subnormal": {"B": np.full((2, 1), 5e-324)},
    "B rows": {"B": np.ones((3, 1))},
    "C columns": {"C": np.ones((1, 3))},
    "D": {"D": np.ones((2, 2))},
    "b": {"b": np.ones(3)},
    "b cube": {"b": np.ones((2, 1, 1))},
    "d": {"d": np.ones(0)},
    "no inputs": {"B": np.ones((2, 0))},
    "no outputs": {"C": np.ones((0, 2))},
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused_in_a_sentence(file, name):
    refused(stored(file, **BAD_ARRAYS[name]))


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 500
    return text


def one(activation: Any, **parameters: Any) -> dict[str, Any]:
    return {"blocks": [{"activation": activation, "size": 2, "parameters": parameters}]}


BAD_META: dict[str, Any] = {
    "no json": "{",
    "empty": "",
    "list": "[]",
    "null": "null",
    "number": "3",
    "deep": "[" * 100_000,
    "version": {"schema_version": "7.0"},
    "no version": {"schema_version": None},
    "unknown": {"activation": "Relu"},
    "number as activation": {"activation": 3},
    "object as activation": {"activation": {"a": 1}},
    "names": {"blocks": ["relu", "relu"]},
    "no blocks": {"blocks": []},
    "empty block": {"blocks": [{}]},
    "no size": {"blocks": [{"activation": "relu"}]},
    "half a state": {"blocks": [{"activation": "relu", "size": 1.5}]},
    "negative size": {"blocks": [{"activation": "relu", "size": -1}, {"activation": "relu", "size": 3}]},
    "too many": {"blocks": [{"activation": "relu", "size": 3}]},
    "far too many": {"blocks": [{"activation": "relu", "size": 10**30}]},
    "too few": {"blocks": [{"activation": "relu", "size": 1}]},
    "list as activation": one(["relu"]),
    "relu takes nothing": one("relu", alpha=1.0),
    "text as parameter": one("leaky_relu", alpha="x"),
    "NaN as parameter": one("leaky_relu", alpha=float("nan")),
    "long integer": one("leaky_relu", alpha=10**400),
    "list of parameters": {"blocks": [{"activation": "elu", "size": 2, "parameters": [1]}]},
    "width 0": one("softmax", width=0),
    "width 3": one("softmax", width=3),
    "width 1.5": one("softmax", width=1.5),
    "width and more": one("softmax", width=2, x=1),
    "celu of 0": one("celu", alpha=0),
    "negative elu": one("elu", alpha=-1),
    "mixed is no name": {"activation": "mixed"},
    "shape": {"input_shape": [2]},
    "shape of nothing": {"input_shape": [0]},
    "negative shape": {"input_shape": [-1, -1]},
    "shape as text": {"input_shape": "1"},
    "output shape": {"output_shape": [1, 2]},
    "neither kind of model": {"rows": []},
}


@pytest.mark.parametrize("name", BAD_META)
def test_bad_meta_is_refused_in_a_sentence(file, name):
    refused(stored(file, BAD_META[name]))


@pytest.mark.parametrize(
    ("name", "parameters"), [("selu", {"alpha": 1e200, "gamma": 1e200}), ("celu", {"alpha": 1e-300})]
)
def test_parameters_beyond_reason_are_refused(file, name, parameters):
    refused(stored(file, one(name, **parameters)))


def test_what_is_missing_is_named(file):
    assert "no array A" in refused(stored(file, A=None))
    assert "A has the shape (2, 3)" in refused(stored(file, A=np.ones((2, 3))))
    assert "known are identity, relu" in refused(stored(file, {"activation": "Relu"}))
    with pytest.raises(ModelFileError, match="A has the shape"):
        PlainReader("x", {"A": np.ones(2), "B": np.ones((2, 1)), "C": np.ones((1, 2))}, {}).model()


# ---------------------------------------------------------------------------------------------- round trip


def same(first: ImplicitModel, second: ImplicitModel, u: np.ndarray) -> None:
    np.testing.assert_array_equal(first(u), second(u))
    for name in ("best", "monotone", "paper"):
        try:
            S = sensitivity_matrix(first, name)
        except Exception as error:
            with pytest.raises(type(error)):
                sensitivity_matrix(second, name)
        else:
            np.testing.assert_array_equal(S, sensitivity_matrix(second, name))
    assert [type(loop.proof) for loop in first.loops.values()] == [type(loop.proof) for loop in second.loops.values()]
    assert [block.activation.name for block in first.blocks] == [block.activation.name for block in second.blocks]


@settings(max_examples=20, deadline=None)
@given(seeds, st.booleans())
def test_models_with_loops_come_back_the_same(tmp_path_factory, seed, scaled):
    rng = np.random.default_rng(seed)
    names = sorted(set(PHI) - {"softmax"})
    kinds = [(str(rng.choice(names)), int(rng.integers(1, 3))) for _ in range(2)]
    if rng.random() < 0.2:
        kinds = [("softmax", 3), ("tanh", 1)]
    n = sum(size for _, size in kinds)
    loop = contracting(rng, kinds, 0.8)
    if rng.random() < 0.4 and ("softmax", 3) not in kinds:
        loop = random_loop(rng, n)
    arrays, every = around_a_loop(rng, [(loop, kinds)])
    model = plain(arrays["A"], arrays["B"], rng.normal(size=(2, n + 4)), every, b=arrays["b"], d=[1.0, 2.0])
    if not model.is_well_posed or np.abs(loop).max() > 100:
        return
    if scaled:
        model = rescale(model)
    path = tmp_path_factory.mktemp("round") / "model.npz"
    save_model(path, model, origin={"from": "a test"})
    back = load_model(path)
    assert dict(back.origin) == {"from": "a test"}
    same(model, back.model, rng.normal(size=(4, 3)))
    if scaled:
        assert back.model.scaling.norm_after == model.scaling.norm_after
        assert back.model.scaling.reason == model.scaling.reason
        assert back.model.scaling.weights.keys() == model.scaling.weights.keys()
        for k, weights in model.scaling.weights.items():
            np.testing.assert_array_equal(back.model.scaling.weights[k], weights)
