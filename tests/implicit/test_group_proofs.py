"""Theorem 2.2 with one norm a group, and the monotone proof of coupled loops: exact cases, sampling, forgeries."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, Activation
from idl_audit.implicit.activations.parts import group_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.wellposed import (
    NORMS,
    Coefficients,
    Contraction,
    Coupling,
    GroupContraction,
    Monotone,
    group_contractions,
    monotone_loop,
    prove,
)
from idl_audit.implicit.wellposed.groups import block_norms, drafted
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.sensitivity_witness import (
    ProofWitness,
    check_witness,
    loop_witnesses,
    make_witness,
    why_not_well_posed,
)
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.cyclic_models import PHI, Kind, phi_of, plain

seeds = st.integers(0, 2**32 - 1)


def coupling(kinds: list[Kind]) -> Coupling:
    """Return how states of these kinds move together."""
    n = sum(size for _, size in kinds)
    (loop,) = plain(np.full((n, n), 1e-3), np.zeros((n, 1)), np.eye(n), kinds).loops.values()
    assert loop.coupling is not None
    return loop.coupling


def softmax_pair(t: float) -> ImplicitModel:
    """Return x = softmax(A x + u), z1 - z2 = t (x1 - x2): d = t tanh(d / 2), with one solution where t <= 2."""
    return plain(t / 2 * np.array([[1.0, -1.0], [-1.0, 1.0]]), np.eye(2), np.eye(2), "softmax")


def coupled_loop(rng: np.random.Generator) -> tuple[FloatArray, list[Kind]]:
    """Return a loop with a softmax in it that one of the new proofs holds for, and that of its entries may not."""
    while True:
        kinds = [("softmax", int(rng.integers(2, 9)))]
        kinds += [(str(rng.choice(["relu", "tanh", "sigmoid", "softmax"])), int(rng.integers(1, 4)))] * int(
            rng.integers(0, 3)
        )
        n = sum(size for _, size in kinds)
        a = rng.normal(size=(n, n))
        if rng.random() < 0.4:  # strong feedback that only the monotone proof takes
            a = a - a.T - 3 * np.eye(n) * rng.random()
            a = a * rng.choice([1.0, 5.0])
        else:
            given = coupling(kinds)
            norm = float(rng.choice(NORMS))
            norms = given.constants[norm][:, None] * block_norms(Coefficients(a), given.starts, norm)
            a = a * rng.choice([0.5, 0.9, 0.99]) / np.abs(np.linalg.eigvals(norms)).max()
        model = plain(a, np.eye(n), np.eye(n), kinds)
        if model.is_well_posed and len(model.loops) == 1:
            return a, kinds


# ---------------------------------------------------------------------------------------------- exact cases


@pytest.mark.parametrize("t", [0.5, 1.9, 1.999999])
def test_the_softmax_pair_is_proved_up_to_its_exact_limit(t):
    (loop,) = softmax_pair(t).loops.values()
    assert isinstance(loop.proof, Contraction | GroupContraction)
    (by_rows, by_columns, by_length) = group_contractions(loop.A, loop.coupling)
    for proof in (by_rows, by_columns, by_length):  # gamma ||A|| = t / 2, all three norms
        assert proof.kappa == pytest.approx(t / 2, rel=1e-4)
    assert monotone_loop(loop.A, *loop.block.everywhere, loop.coupling).least_eigenvalue == pytest.approx(
        2 - t, rel=1e-3
    )


@pytest.mark.parametrize("t", [2.0, 2.0 + 1e-12, 2.5, 10.0])
def test_beyond_the_limit_nothing_is_proved(t):
    model = softmax_pair(t)
    assert not model.is_well_posed
    assert not loop_witnesses(model)
    if t > 2.1:  # d = t tanh(d / 2) has three solutions
        d = np.linspace(-t, t, 10_001)
        assert (np.diff(np.sign(t * np.tanh(d / 2) - d)[np.abs(d) > 1e-6]) != 0).sum() >= 2


def test_a_wide_softmax_that_entries_cannot_prove_has_one_norm():
    """docs/mathematics.md, section 3.3: 10 states, A = P / 2: Gamma |A| has rows of 10/8, gamma ||A||_inf is 1/4."""
    permutation = np.eye(10)[np.random.default_rng(0).permutation(10)] / 2
    (loop,) = plain(permutation, np.eye(10), np.eye(10), "softmax").loops.values()
    assert loop.proof.name == "norms"
    assert loop.proof.kappa == pytest.approx(0.25, rel=1e-4)
    gain = loop.reach(np.ones((1, 10)))
    assert gain.max() <= 0.5 / (1 - 0.25) * 1.001  # |dx|_inf <= (1/2) / (1 - 1/4) |di|_inf
    assert (loop.reach(np.zeros((1, 10))) < 1e-200).all()


def test_strong_negative_feedback_through_a_softmax_is_monotone():
    (loop,) = plain(-50 * np.eye(4), np.eye(4), np.eye(4), "softmax").loops.values()
    assert loop.proof.name == "monotone"
    assert loop.proof.weights is None
    assert loop.proof.least_eigenvalue == pytest.approx(52, rel=1e-3)  # 1/g + 50
    rng = np.random.default_rng(2)
    drive = 20 * rng.normal(size=(30, 4))
    found = loop.solve(drive)
    assert found.residual <= 1e-12
    for row, x in zip(drive, found.x, strict=True):  # apart from the package
        again = scipy.optimize.root(lambda x, row=row: x - PHI["softmax"](-50 * x + row), x, tol=1e-14)
        np.testing.assert_allclose(x, again.x, atol=1e-9)


def test_weights_one_a_group_prove_what_none_do():
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a = np.zeros((6, 6))
    a[:3, 3:], a[3:, :3] = 60 * turn, -0.6 * turn.T  # D A + A^T D = 0 for D = (1, 100)
    (loop,) = plain(a, np.eye(6), np.eye(6), [("softmax", 3), ("softmax", 3)]).loops.values()
    weights = loop.proof.weights
    assert loop.proof.name == "monotone"
    assert len(set(weights[:3])) == len(set(weights[3:])) == 1
    assert 50 < weights[3] / weights[0] < 200
    model = plain(a, np.eye(6), np.eye(6), [("softmax", 3), ("softmax", 3)])
    assert check_witness(model, make_witness(model)).accepted


@given(seeds, st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_norms_of_blocks_are_not_below_the_exact_ones(seed, first, second):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(first + second,) * 2) * 10.0 ** rng.integers(-8, 8, (first + second,) * 2)
    error = np.abs(a) * rng.choice([0.0, 1e-3])
    starts = np.array([0, first])
    edges = [0, first, first + second]
    for norm in NORMS:
        found = block_norms(Coefficients(a, error if error.any() else None), starts, norm)
        for k in range(2):
            for j in range(2):
                part, off = (m[edges[k] : edges[k + 1], edges[j] : edges[j + 1]] for m in (a, error))
                worst = [part + off, part - off, part]
                for matrix in worst:
                    true = exact_norm(matrix, norm)
                    assert found[k, j] >= true * (1 - (1e-15 if norm == 2 else 0))
                loose = 1e-2 if norm == 2 and error.any() else 1e-9
                assert found[k, j] <= exact_norm(np.abs(part) + off, norm) * (1 + loose) + 1e-200


def exact_norm(matrix: FloatArray, norm: float) -> float | Fraction:
    """Return ||M||_p by fractions, or by 50 digits."""
    if norm == 2:
        with mpmath.workdps(50):
            return float(max(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False)))
    sizes = [[abs(Fraction(float(v))) for v in row] for row in (matrix if norm == np.inf else matrix.T)]
    return max(sum(row, Fraction(0)) for row in sizes)


# ---------------------------------------------------------------------------------------------- constants


def coupled_functions() -> list[tuple[Activation, int]]:
    """Return activations with finite constants, and the states of one group or more."""
    made = ACTIVATIONS["softmax"](width=5)
    return [(made, 10), (ACTIVATIONS["softmax"](width=1), 2), (ACTIVATIONS["softmax"](width=2), 4)]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("norm", NORMS)
def test_constants_are_exceeded_by_no_pair(index, norm):
    phi, n = coupled_functions()[index]
    rng = np.random.default_rng(index)
    z = rng.normal(size=(4000, n)) * 10.0 ** rng.uniform(-2, 1, (4000, 1))
    dz = rng.normal(size=(4000, n)) * 10.0 ** rng.uniform(-6, 1, (4000, 1))
    dx = phi(z + dz) - phi(z)
    constants = phi.norm_constants(n, norm)
    groups = group_of(phi, n)
    for k in range(int(groups.max()) + 1):
        own = groups == k
        moved, pushed = (np.linalg.norm(v[:, own], norm, axis=1) for v in (dx, dz))
        assert (moved <= constants[k] * pushed * (1 + 1e-9) + 1e-14).all()
        steep = phi.gradient_steepness(n)
        assert ((dx * (dz - dx / steep))[:, own].sum(axis=1) >= -1e-13 * (1 + pushed**2)).all()


def test_the_constants_1_half_are_reached():
    phi = ACTIVATIONS["softmax"](width=2)
    z, step = np.zeros((1, 2)), np.array([[1e-6, -1e-6]])
    assert np.abs(phi(z + step) - phi(z)).max() == pytest.approx(0.5e-6, rel=1e-6)


def test_constants_without_a_word_are_those_of_entries():
    """A norm over 3 states moves by at most Gamma: rows for l_inf, columns for l_1."""
    from idl_audit.implicit.activations.coupled import Coupled

    phi = ACTIVATIONS["softmax"](width=4)
    assert Coupled.norm_constants(phi, 8, np.inf) == pytest.approx([1.0, 1.0])  # 4 entries of 1/4
    assert Coupled.norm_constants(phi, 8, 1.0) == pytest.approx([1.0, 1.0])
    assert Coupled.norm_constants(phi, 8, 2.0) == pytest.approx([1.0, 1.0])
    assert Coupled.gradient_steepness(phi, 8) is None


# ---------------------------------------------------------------------------------------------- sampling


@given(seeds)
@settings(max_examples=12, deadline=None)
def test_what_is_proved_has_one_state(seed):
    """Newton's method from far-off starts finds no second one."""
    rng = np.random.default_rng(seed)
    a, kinds = coupled_loop(rng)
    n = len(a)
    drive = rng.normal(size=n) * 3
    (x,) = plain(a, np.eye(n), np.eye(n), kinds)(drive[None])
    assert np.abs(x - phi_of(kinds, a @ x + drive)).max() <= 1e-8 * (1 + np.abs(x).max())
    for _ in range(6):
        start = rng.normal(size=n) * 5
        found = scipy.optimize.root(lambda v: v - phi_of(kinds, a @ v + drive), start, tol=1e-12)
        if found.success and np.abs(found.fun).max() < 1e-10:
            np.testing.assert_allclose(found.x, x, atol=1e-5 * (1 + np.abs(x).max()))


def applies(model: ImplicitModel, method: str) -> bool:
    """Return whether a method bounds S for this model."""
    try:
        sensitivity_matrix(model, method)
    except UnsupportedModelError:
        return False
    return True


@given(seeds)
@settings(max_examples=12, deadline=None)
def test_no_pair_of_inputs_moves_further_than_is_proved(seed):
    rng = np.random.default_rng(seed)
    a, kinds = coupled_loop(rng)
    n = len(a)
    model = plain(a, np.eye(n), np.eye(n), kinds)
    (loop,) = model.loops.values()
    u = rng.normal(size=(40, n)) * 2
    du = rng.normal(size=(40, n)) * 10.0 ** rng.uniform(-4, 0.5, (40, 1))
    moved = np.abs(model(u + du) - model(u))
    slack = 1e-9
    assert (moved <= np.abs(du) @ loop.gain.T + slack).all()
    assert (moved <= loop.reach(np.abs(du)) + slack).all()
    for method in ("best", "paper", "monotone"):
        if method != "best" and not applies(model, method):
            continue
        S = sensitivity_matrix(model, method)
        assert (moved <= np.abs(du) @ S.T + slack).all(), method


@given(seeds)
@settings(max_examples=8, deadline=None)
def test_states_stay_within_their_bounds(seed):
    rng = np.random.default_rng(seed)
    a, kinds = coupled_loop(rng)
    n = len(a)
    c = rng.normal(size=(3, n))
    model = plain(a, rng.normal(size=(n, 2)), c, kinds, b=rng.normal(size=n))
    centre, eps = rng.normal(size=2), float(rng.choice([0.01, 0.3, 2.0]))
    box = Interval(centre[None] - eps, centre[None] + eps)
    points = centre + eps * rng.uniform(-1, 1, (200, 2))
    points[:4] = centre + eps * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    states = model.state(points)[0]
    for bounds in (interval_bounds(model, box), backward_state_bounds(model, box)):
        assert (states >= bounds.x[0].lo[0] - 1e-9).all()
        assert (states <= bounds.x[0].hi[0] + 1e-9).all()
    narrow = Interval(centre[None] - 1e-9, centre[None] + 1e-9)
    assert interval_bounds(model, narrow).x[0].width.max() < 1e-4


@given(seeds)
@settings(max_examples=8, deadline=None)
def test_a_local_S_of_a_loop_that_mixes_coupled_states_with_others_holds(seed):
    """Slopes over a box are those of each state alone, except where states are coupled."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(3, 8))
    n = width + 2
    a, b = rng.normal(size=(n, n)) * 0.06, rng.normal(size=(n, 2)) * 8
    c = np.zeros((1, n))
    c[0, :width] = rng.normal(size=width)
    model = plain(a, b, c, [("softmax", width), ("relu", 2)])
    S = local_sensitivity(model, Box.between(np.full(2, -0.05), np.full(2, 0.05)), "best")
    u = rng.uniform(-0.05, 0.05, (100, 2))
    y = model(u)
    assert (np.abs(y[:, None] - y[None]) <= np.abs(u[:, None] - u[None]) @ S.T + 1e-9).all()


# ---------------------------------------------------------------------------------------------- forgeries


def test_a_witness_of_norms_is_checked_against_the_model():
    a = 0.4 * np.roll(np.eye(6), 1, axis=1) + 0.25
    model = plain(a, np.eye(6), np.eye(6), "softmax")
    strong = plain(12 * a, np.eye(6), np.eye(6), "softmax")
    (good,) = {k: w for k, w in loop_witnesses(model).items() if w.kind == "norms"}.values()
    assert not why_not_well_posed(model, 0, good)
    assert why_not_well_posed(strong, 0, good)
    relu = plain(a, np.eye(6), np.eye(6))
    assert why_not_well_posed(relu, 0, good)  # no groups
    for name, values in (
        ("v", np.zeros(6)),
        ("v", -good.arrays["v"]),
        ("v", np.full(6, np.nan)),
        ("v", np.full(6, 2.0**-600)),
        ("v", np.ones(5)),
        ("norm", np.array([3.0])),
        ("norm", np.array([np.nan])),
        ("norm", np.array([np.inf])),
    ):
        assert why_not_well_posed(model, 0, ProofWitness("norms", {**good.arrays, name: values})), (name, values)
    assert why_not_well_posed(model, 0, ProofWitness("norms", {"v": good.arrays["v"]}))


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_no_weights_prove_the_loop_with_three_states(seed):
    rng = np.random.default_rng(seed)
    (loop,) = plain([[0, -12], [0, 0]], np.eye(2), np.eye(2), "softmax").loops.values()
    v = 10.0 ** rng.uniform(-100, 100, 1)
    for norm in NORMS:
        assert not drafted(loop.A, loop.coupling, norm, v).holds
    factor = rng.normal(size=(2, 2)) * 10.0 ** rng.uniform(-3, 3)
    weights = np.full(2, 10.0 ** rng.uniform(-30, 30))
    m = float(10.0 ** rng.uniform(-30, 30))
    assert not Monotone(loop.A, loop.coupling.steepest, m, factor, weights=weights).holds


def test_weights_of_a_monotone_witness_are_one_a_group():
    """D phi is no gradient for weights that differ within a group: such a witness proves nothing."""
    a = np.diag([-3.0, -3.0])
    model = plain(a, np.eye(2), np.eye(2), "softmax")
    proof = monotone_loop(Coefficients(a), *model.loops[0].block.everywhere, model.loops[0].coupling)
    packed = {"m": np.array([proof.m]), "factor": proof.factor}
    assert not why_not_well_posed(model, 0, ProofWitness("monotone", packed))
    for weights in (np.array([1.0, 1.001]), np.array([1.0, -1.0]), np.array([np.nan, np.nan]), np.zeros(2)):
        forged = ProofWitness("monotone", {**packed, "weights": weights})
        assert why_not_well_posed(model, 0, forged)
    twice = {"m": packed["m"] * 2, "factor": packed["factor"] * np.sqrt(2.0), "weights": np.full(2, 2.0)}
    assert not why_not_well_posed(model, 0, ProofWitness("monotone", twice))


def test_the_ladder_tries_entries_norms_and_the_monotone_proof_in_turn():
    weak, names = np.full((3, 3), 0.1), []
    for a in (weak, np.eye(3) * 1.5, -9 * np.eye(3)):
        found = prove(Coefficients(a), np.zeros(3), np.full(3, 0.25), coupling([("softmax", 3)]))
        names.append(found.name)
    assert names == ["PF", "norms", "monotone"]
