"""Drift of compressed models: the corrected Theorem 5.1 holds, the printed one does not, and bounds are bounds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from idl_audit.implicit.compress import low_rank, matrix_of, pruned, quantized, row_weights, weights
from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.measure.drift import box_drift, global_drift
from idl_audit.proof.bounds import Interval
from idl_audit.values.errors import OptionError, UnsupportedModelError

PHI = {"identity": lambda z: z, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}


def fixed_points(a, drive, phi):
    """Return x = phi(A x + i) of many models at once, (m, n); |A| has row sums of at most .6."""
    x = np.zeros_like(drive)
    for _ in range(120):
        x = phi(np.einsum("mij,mj->mi", a, x) + drive)
    return x


def printed_bound(a0, e, x0):
    """Return (I - |A0 + E|)^-1 E x0, the paper's (5.2), for many models at once."""
    return np.linalg.solve(np.eye(a0.shape[-1]) - np.abs(a0 + e), np.einsum("mij,mj->mi", e, x0)[..., None])[..., 0]


def trials(seed, phi, m, n=4, p=3, *, with_input=True):
    """Return, for m random pairs of models and inputs, |x - x0|, the corrected bound and the printed one."""
    rng = np.random.default_rng(seed)
    a0 = rng.normal(size=(m, n, n))
    a0 *= 0.5 / np.abs(a0).sum(axis=2).max(axis=1)[:, None, None]
    b0 = rng.normal(size=(m, n, p))
    e = 0.1 / n * rng.random((m, n, n))
    e_b = 0.1 * rng.random((m, n, p)) * (rng.random((m, 1, 1)) < 0.5) * with_input
    a, b = a0 + rng.uniform(-1, 1, e.shape) * e, b0 + rng.uniform(-1, 1, e_b.shape) * e_b
    u = 10.0 ** rng.uniform(-1, 1, (m, 1)) * rng.normal(size=(m, p))
    bias = rng.normal(size=(m, n)) * (rng.random((m, 1)) < 0.5)
    x0 = fixed_points(a0, np.einsum("mij,mj->mi", b0, u) + bias, phi)
    x = fixed_points(a, np.einsum("mij,mj->mi", b, u) + bias, phi)
    inverse = np.linalg.inv(np.eye(n) - np.abs(a))
    pushed = np.einsum("mij,mj->mi", e_b, np.abs(u))
    corrected = np.einsum("mij,mj->mi", inverse, np.einsum("mij,mj->mi", e, np.abs(x0)) + pushed)
    printed = printed_bound(a0, e, x0)
    return np.abs(x - x0), corrected, printed


@pytest.mark.parametrize("name", PHI)
def test_the_corrected_theorem_holds_on_ten_thousand_trials(name):
    moved, corrected, _ = trials(0, PHI[name], 10_000)
    assert (moved <= corrected * (1 + 1e-9) + 1e-12).all()
    assert (moved / np.maximum(corrected, 1e-300)).max() > 0.5  # and it is no idle bound


def test_the_printed_theorem_fails():
    moved, _, printed = trials(0, PHI["identity"], 10_000, with_input=False)
    share = (moved > printed * (1 + 1e-9)).any(axis=1).mean()
    assert share > 0.5


@pytest.mark.parametrize(
    ("a0", "e", "drive", "printed"),
    [
        ([[0.0]], [[0.1]], [-100.0], [-100 / 9]),  # x0 in place of |x0|
        ([[0.0, -0.2], [0.0, 0.0]], [[0.0, 0.2], [0.0, 0.5]], [0.0, 1.0], None),  # |A0 + E| in place of |A|
    ],
)
def test_small_numbers_show_what_is_missing_in_the_printed_theorem(a0, e, drive, printed):
    a0, e, drive = (np.array(part)[None] for part in (a0, e, drive))
    a = a0 + e * np.where(a0 < 0, -1, 1)  # within E of A0
    x0, x = (np.linalg.solve(np.eye(a.shape[-1]) - m, drive[..., None])[..., 0] for m in (a0, a))
    claimed = printed_bound(a0, e, x0 if printed else np.abs(x0))
    if printed:
        assert claimed[0] == pytest.approx(printed)
    assert (np.abs(x - x0) > claimed + 0.1).any()
    corrected = np.linalg.solve(np.eye(a.shape[-1]) - np.abs(a), np.einsum("mij,mj->mi", e, np.abs(x0))[..., None])
    assert (np.abs(x - x0) <= corrected[..., 0] * (1 + 1e-12)).all()


def random_model(rng, *, cyclic):
    n, p, q = 8, 4, 3
    a = rng.normal(size=(n, n))
    a = 0.6 * a / np.abs(a).sum(axis=1).max() if cyclic else np.triu(a, 1)
    blocks = [DeclaredBlock("relu", 4, {}), DeclaredBlock("tanh", 2, {}), DeclaredBlock("abs", 2, {})]
    return plain_model(
        a,
        rng.normal(size=(n, p)),
        rng.normal(size=(q, n)),
        rng.normal(size=(q, p)),
        rng.normal(size=n),
        rng.normal(size=q),
        blocks,
    )


@pytest.mark.parametrize("cyclic", [False, True])
def test_bounds_hold_everywhere_on_boxes_and_at_points(cyclic):
    rng = np.random.default_rng(int(cyclic))
    for _ in range(1 if cyclic else 6):
        model = random_model(rng, cyclic=cyclic)
        u = 3 * rng.normal(size=(8 if cyclic else 200, 4))
        for pair in (pruned(model, 0.2), quantized(model, 4), low_rank(model, 1)):
            moved = np.abs(pair.stored(u) - model(u))
            np.testing.assert_allclose(pair.model(u), pair.stored(u), rtol=1e-9, atol=1e-9)
            everywhere = global_drift(pair)
            assert (moved <= everywhere.at(np.abs(u)) * (1 + 1e-12)).all()
            box = Interval(u.min(axis=0)[None], u.max(axis=0)[None])
            on_box = box_drift(pair, box, everywhere)
            assert (moved <= on_box).all()
            at_points = box_drift(pair, Interval(u, u), everywhere)
            assert (moved <= at_points * (1 + 1e-12) + 1e-12).all()
            assert (at_points.max(axis=0) <= on_box[0] * (1 + 1e-9)).all()


def test_a_small_case_by_hand():
    # y = 2 relu(u), pruned to y = relu'(0): C = [2, .1] loses .1
    model = plain_model(
        np.zeros((2, 2)), np.array([[1.0], [1.0]]), np.array([[2.0, 0.1]]), np.zeros((1, 1)), np.array([0.0, 3.0]),
        np.zeros(1), [DeclaredBlock("relu", 2, {})],
    )  # fmt: skip
    pair = pruned(model, 0.5)
    assert (weights(model), weights(pair.stored)) == (4, 3)
    found = global_drift(pair)
    # .1 |x_2|, |x_2| <= 3 + |u|
    assert found.offset == pytest.approx([0.3])
    assert found.matrix == pytest.approx(np.array([[0.1]]))
    box = Interval(np.array([[-1.0]]), np.array([[1.0]]))
    assert box_drift(pair, box, found) == pytest.approx(np.array([[0.4]]))


def test_compressing_one_row_leaves_the_others():
    model = random_model(np.random.default_rng(2), cyclic=False)
    for k in range(len(model.blocks)):
        pair = quantized(model, 3, only=k)
        assert {row for row, _ in pair.changes} <= {k}
        for j, row in enumerate(model.rows):
            assert j == k or pair.model.rows[j] is row


def test_low_rank_is_stored_as_factors_and_quantisation_has_few_levels():
    rng = np.random.default_rng(4)
    blocks = [DeclaredBlock("relu", 60, {})]
    a = np.zeros((60, 60))
    a[:30, 30:] = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 30))
    model = plain_model(
        a,
        rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)),
        rng.normal(size=(2, 60)),
        np.zeros((2, 5)),
        np.zeros(60),
        np.zeros(2),
        blocks,
    )
    pair = low_rank(model, 2)
    assert pair.stored.n_states > model.n_states
    assert weights(pair.stored) < weights(model)
    u = rng.normal(size=(20, 5))
    assert np.abs(pair.stored(u) - pair.model(u)).max() < 1e-9
    exact = low_rank(model, 2, only=next(k for k, row in enumerate(model.rows) if row.states))
    assert np.abs(exact.stored(u) - model(u)).max() < 1e-9  # that block had rank 2 to begin with
    kept = quantized(model, 3).model
    for row in kept.rows:
        for linear_map in row.maps:
            assert len(np.unique(linear_map.to_sparse().toarray())) <= 7
    assert sum(map(row_weights, (*model.rows, model.output))) == weights(model)


@pytest.mark.parametrize(
    ("make", "value", "words"),
    [(pruned, 1.0, "--prune"), (pruned, 0.0, "--prune"), (quantized, 1, "bits"), (low_rank, 0, "--rank")],
)
def test_settings_that_make_no_sense_are_refused(make, value, words):
    with pytest.raises(OptionError, match=words):
        make(random_model(np.random.default_rng(0), cyclic=False), value)


def test_an_ill_posed_loop_has_no_bound():
    model = plain_model(
        np.array([[2.0]]), np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.zeros(1), np.zeros(1),
        [DeclaredBlock("relu", 1, {})],
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError):
        global_drift(quantized(model, 3))


@pytest.mark.parametrize("cyclic", [False, True])
def test_some_outputs_at_a_time_move_as_far_as_all(cyclic, monkeypatch):
    rng = np.random.default_rng(5)
    model = random_model(rng, cyclic=cyclic)
    pair = pruned(model, 0.2)
    u = rng.uniform(-1, 1, (3, model.n_inputs))
    box = Interval(u - 0.1, u + 0.1)
    whole, on_box = global_drift(pair), box_drift(pair, box)
    monkeypatch.setattr("idl_audit.measure.drift.NUMBERS_AT_ONCE", 1)
    parts = global_drift(pair)
    np.testing.assert_allclose(parts.offset, whole.offset, rtol=1e-12)
    np.testing.assert_allclose(parts.matrix, whole.matrix, rtol=1e-12)
    np.testing.assert_allclose(box_drift(pair, box), on_box, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- loops of low rank


def low_rank_loop(kinds, *, rank=2, seed=0, size=0.5, n=12):
    """Return a model whose loop has exactly this rank, with whole numbers times a power of two for factors."""
    rng = np.random.default_rng(seed)
    left, right = rng.choice([-3, -1, 1, 2], (n, rank)), rng.choice([-2, -1, 1, 3], (rank, n))
    a = (left @ right).astype(float)
    a *= 2.0 ** np.floor(np.log2(size / np.abs(a).sum(axis=1).max()))
    blocks = [DeclaredBlock(kind, count, {}) for kind, count in kinds]
    return plain_model(
        a,
        rng.normal(size=(n, 3)),
        rng.normal(size=(2, n)),
        rng.normal(size=(2, 3)),
        rng.normal(size=n),
        np.ones(2),
        blocks,
    )


@pytest.mark.parametrize("kinds", [[("relu", 12)], [("tanh", 12)], [("relu", 5), ("sigmoid", 7)], [("abs", 12)]])
def test_a_loop_of_rank_2_moves_no_output(kinds):
    """paper 5.3: x = phi(L z + B u), z = R x."""
    model = low_rank_loop(kinds)
    pair = low_rank(model, 2, of="A")
    assert pair.whole_loops == ()
    assert pair.stored.n_states == model.n_states + 2
    assert weights(pair.stored) == 12 * 3 + 2 * 12 + 2 * 3 + 2 * 2 * 12  # B, C, D, L and R
    assert pair.stored.is_well_posed
    assert set(pair.changes) == {(0, 0)}
    u = np.random.default_rng(1).normal(size=(50, 3)) * 3
    assert np.abs(pair.stored(u) - model(u)).max() <= 1e-12
    drift = box_drift(pair, Interval(np.full((1, 3), -1.0), np.full((1, 3), 1.0)))
    assert drift.max() <= 1e-10


def test_loops_before_and_behind_others_are_split_with_the_rest():
    rng = np.random.default_rng(5)
    n = 20
    a = np.zeros((n, n))
    a[:8, :8] = 0.02 * rng.normal(size=(8, 1)) @ rng.normal(size=(1, 8))
    a[8:16, 8:16] = 0.02 * rng.normal(size=(8, 1)) @ rng.normal(size=(1, 8))
    a[8:16, :8] = rng.normal(size=(8, 1)) @ rng.normal(size=(1, 8))
    a[16:, 8:16], a[16:, :8] = rng.normal(size=(4, 8)), rng.normal(size=(4, 8))
    model = plain_model(
        a,
        rng.normal(size=(n, 3)),
        rng.normal(size=(9, 1)) @ rng.normal(size=(1, n)),
        np.zeros((9, 3)),
        rng.normal(size=n),
        np.zeros(9),
        [DeclaredBlock("relu", n, {})],
    )
    assert len(model.loops) == 2
    u = rng.normal(size=(30, 3))
    for of, states in (("A", 5), ("AC", None), ("C", None)):
        pair = low_rank(model, 1, of=of)
        assert np.abs(pair.stored(u) - pair.model(u)).max() <= 1e-10 * np.abs(model(u)).max()
        assert states is None or pair.stored.n_states == n + states
    for (k, source), change in low_rank(model, 1, of="A").changes.items():
        assert k != source or change.apply(np.ones((1, change.parts[0][1].n_in))).max() < 1e-13


@pytest.mark.parametrize("of", ["A", "B", "C", "D", "BD"])
@pytest.mark.parametrize(
    "make", [partial(pruned, threshold=0.5), partial(quantized, bits=3), partial(low_rank, rank=1)]
)
def test_only_the_matrices_that_are_named_change(make, of):
    model = random_model(np.random.default_rng(3), cyclic=True)
    pair = make(model, of=of)
    assert {matrix_of(*place) for place in pair.changes} <= set(of)


def test_a_loop_that_no_proof_holds_for_in_factors_keeps_its_product():
    rng = np.random.default_rng(2)
    turn = rng.normal(size=(12, 2))
    a = 4 * (turn @ np.array([[0.0, 1.0], [-1.0, 0.0]]) @ turn.T) - 0.2 * turn @ turn.T  # monotone, of rank 2
    model = plain_model(
        a,
        rng.normal(size=(12, 3)),
        np.eye(12),
        np.zeros((12, 3)),
        np.zeros(12),
        np.zeros(12),
        [DeclaredBlock("relu", 12, {})],
    )
    assert model.loops[0].proof.name == "monotone"
    pair = low_rank(model, 2, of="A")
    assert pair.whole_loops == (model.blocks[0].name,)
    assert pair.stored.is_well_posed
    u = rng.normal(size=(10, 3))
    assert np.abs(pair.stored(u) - model(u)).max() < 1e-10
