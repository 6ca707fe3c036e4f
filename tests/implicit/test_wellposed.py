"""Proofs of well-posedness: never for an ill-posed loop, never a figure below the exact one, and the known cases."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idl_audit.implicit.wellposed import (
    Coefficients,
    Contraction,
    Monotone,
    contraction,
    contractions,
    gain,
    monotone,
    perron_root,
    prove,
)
from idl_audit.implicit.wellposed.contraction import centre_of, slopes_in_t
from idl_audit.values.arrays import FloatArray
from tests.shared.cyclic_models import (
    Exact,
    columns_times,
    determinant,
    exact,
    identity,
    inverse,
    is_unique,
    magnitude,
    plain,
    plus,
    random_loop,
    relu_solutions,
    rows_times,
    times,
    vector,
)

seeds = st.integers(0, 2**32 - 1)
SOFTMAX_PAIR = np.array([[0.0, -12.0], [0.0, 0.0]])


def loop(*rows, error=None) -> Coefficients:
    return Coefficients(np.atleast_2d(np.asarray(rows, np.float64)), error)


def names(A: Coefficients, least: float = 0.0, most: float = 1.0) -> list[str]:
    """Return which proofs of the ladder hold, the search left out."""
    n = len(A.matrix)
    lo, hi = np.full(n, least), np.full(n, most)
    found = [proof.name for proof in contractions(A, lo, hi, search=False)]
    return [*found, *(["monotone"] if monotone(A, lo, hi) else [])]


def relu_proof(A: Coefficients):
    n = len(A.matrix)
    return prove(A, np.zeros(n), np.ones(n))


# ---------------------------------------------------------------------------------------------- known cases


def test_strong_negative_feedback_fails_pf_and_passes_with_the_diagonal_eliminated():
    A = loop([-2, 0], [0, -2])
    assert perron_root(A.magnitude) == pytest.approx(2)
    assert names(A) == ["loop(diag)", "loop(1)", "monotone"]
    assert relu_proof(A).name == "loop(diag)"
    assert relu_proof(A).kappa < 1e-12


def test_pf_without_monotone():
    A = loop([0.5, 0], [2, -0.5])
    assert perron_root(A.magnitude) == pytest.approx(0.5)
    assert names(A) == ["PF", "loop(diag)", "loop(1)"]


def test_the_loop_that_only_alpha_1_proves():
    A = loop([0.7, 0.4], [-2.2, 0.6])
    assert names(A) == ["loop(1)"]
    assert relu_proof(A).name == "loop(1)"


@pytest.mark.parametrize("value", [-3.0, -1e80, -1e-80, 0.25, 1 - 1e-9, 1 - 1e-12, -(1 - 1e-12), -1e100])
def test_a_single_relu_below_1_is_proved(value):
    assert relu_proof(loop([value])).name == "one state"
    assert 1 / (1 - value) <= gain(loop([value]), np.zeros(1), np.ones(1))[0, 0] <= 1.01 * max(1, 1 / (1 - value))


def test_a_single_relu_of_minus_3_has_a_gain_of_1_quarter_only_where_it_is_on():
    # x = relu(-3 x + i) = i / 4 for i > 0
    assert gain(loop([-3.0]), np.zeros(1), np.ones(1))[0, 0] == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("value", [1.0, 2.0, 1 + 2**-52, 1e80, 1 - 2.0**-53])
def test_nothing_is_proved_of_a_single_relu_at_1_and_above(value):
    assert relu_proof(loop([value])) is None
    assert gain(loop([value]), np.zeros(1), np.ones(1)) is None


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 1], [1, 0]],
        [[0, 2], [0.5, 0]],
        [[0, 2.0**265], [2.0**-265, 0]],
        [[2, 0], [0, -9]],
        [[0, -3], [-3, 0]],
        [[0, 0, 1e3], [1e3, 0, 0], [0, 1e3, 0]],
        [[1e80, -1e80], [-1e80, 1e80]],
    ],
)
def test_nothing_is_proved_of_an_ill_posed_loop(rows):
    n = len(rows)
    assert not is_unique(rows, np.zeros(n), np.ones(n))
    assert relu_proof(loop(*rows)) is None


def test_the_softmax_pair_with_three_states_has_no_proof():
    model = plain(SOFTMAX_PAIR, np.zeros((2, 1)), np.eye(2), "softmax", b=[6.0, 0.0])
    t = np.linspace(0, 1, 100_001)  # x_2 = t: it comes back as 1 / (1 + exp(6 - 12 t))
    back = 1 / (1 + np.exp(6 - 12 * t))
    assert (np.diff(np.sign(back - t)[np.abs(back - t) > 1e-9]) != 0).sum() == 3
    (only,) = model.loops.values()
    assert only.proof is None
    assert only.gain is None
    assert not model.is_well_posed


def test_a_weak_softmax_pair_is_proved():
    model = plain(SOFTMAX_PAIR / 4, np.zeros((2, 1)), np.eye(2), "softmax", b=[6.0, 0.0])  # lambda_PF = 3/4
    assert model.is_well_posed
    assert not plain(SOFTMAX_PAIR / 2.9, np.zeros((2, 1)), np.eye(2), "softmax").is_well_posed


def test_a_loop_without_states_is_well_posed():
    empty = Coefficients(np.zeros((0, 0)))
    assert prove(empty, np.zeros(0), np.zeros(0)).holds


@pytest.mark.parametrize("slope", [0.0, 1.0, 0.3, -1.0])
def test_equal_slopes_are_exact_for_any_regular_loop(slope):
    rng = np.random.default_rng(4)
    A = rng.normal(size=(3, 3)) * 5  # PF fails for all but slope 0
    found = contraction(Coefficients(A), np.full(3, slope), np.full(3, slope))
    assert found.kappa < 1e-9
    B, C, D = rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), rng.normal(size=(2, 2))
    S = found.response(Coefficients(B), Coefficients(C), Coefficients(D))
    truth = np.abs(slope * C @ np.linalg.inv(np.eye(3) - slope * A) @ B + D)
    np.testing.assert_allclose(S, truth, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------------------------------- no false proof


def kinked_slopes(rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
    """Return the slopes left and right of the kink: relu, leaky relu, abs, the identity, all alike or mixed."""
    kinds = np.array([0.0, 0.01, -1.0, 1.0, 0.5])
    below = rng.choice(kinds, n) if rng.random() < 0.5 else np.full(n, rng.choice(kinds))
    return below, np.ones(n)


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(1, 5))
def test_what_is_proved_has_one_state_for_every_input(seed, n):
    rng = np.random.default_rng(seed)
    A, (below, above) = random_loop(rng, n), kinked_slopes(rng, n)
    if prove(Coefficients(A), below, above) is not None:
        assert is_unique(A, below, above)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(1, 4))
def test_even_the_strongest_loop_that_is_proved_has_one_state(seed, n):
    rng = np.random.default_rng(seed)
    A, (below, above) = random_loop(rng, n), kinked_slopes(rng, n)
    low, high = 0.0, 50.0
    for _ in range(45):  # the factor at which the proofs end, to the last bits
        middle = (low + high) / 2
        if prove(Coefficients(A * middle), below, above) is None:
            high = middle
        else:
            low = middle
    assert is_unique(A * low, below, above)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 8))
def test_brute_force_finds_exactly_one_solution_where_a_proof_is_claimed(seed, n):
    rng = np.random.default_rng(seed)
    A = random_loop(rng, n)
    proof = relu_proof(Coefficients(A))
    if proof is None or np.abs(A).max() > 1e4:  # brute force is done in floating point
        return
    for _ in range(3):
        assert len(relu_solutions(A, rng.normal(size=n))) == 1


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 3), st.sampled_from([1e-9, 0.03, 0.3]))
def test_a_proof_with_uncertain_entries_holds_for_every_loop_within_them(seed, n, size):
    rng = np.random.default_rng(seed)
    A, (below, above) = random_loop(rng, n), kinked_slopes(rng, n)
    error = size * rng.random((n, n))
    if prove(Coefficients(A, error), below, above) is None:
        return
    for _ in range(6):
        moved = plus(exact(A), [[Fraction(v) * int(rng.choice([-1, 1])) for v in row] for row in error.tolist()])
        assert all(
            _determinant_sign(moved, below, above, choice) == _determinant_sign(moved, below, above, (0,) * n) != 0
            for choice in itertools.product((0, 1), repeat=n)
        )


def _determinant_sign(A: Exact, below, above, choice) -> int:
    slopes = [Fraction(float((below, above)[pick][j])) for j, pick in enumerate(choice)]
    value = determinant(plus(identity(len(A)), columns_times(A, slopes), -1))
    return (value > 0) - (value < 0)


def test_an_uncertain_entry_kills_a_proof_that_it_could_make_false():
    assert relu_proof(loop([0.5], error=np.array([[0.4]]))) is not None
    assert relu_proof(loop([0.5], error=np.array([[0.5]]))) is None
    assert monotone(loop([0.5], error=np.array([[0.4]])), np.zeros(1), np.ones(1)) is not None
    assert monotone(loop([0.5], error=np.array([[0.5]])), np.zeros(1), np.ones(1)) is None


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6))
def test_pf_implies_both_loops(seed, n):
    """docs/mathematics.md, section 3.3: PF implies loop(diag) and loop(1)."""
    A = Coefficients(random_loop(np.random.default_rng(seed), n))
    zero, one = np.zeros(n), np.ones(n)
    pf = contraction(A, zero, one, middle=False)
    if pf is None or pf.kappa > 1 - 1e-9:
        return
    assert contraction(A, zero, one, alpha=1 / (1 - np.diagonal(A.matrix))) is not None
    assert contraction(A, zero, one) is not None


# ---------------------------------------------------------------------------------------------- exact figures


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(-2, 2).filter(lambda v: v == 0 or abs(v) > 1e-100), min_size=2, max_size=2),
    st.one_of(st.floats(1e-3, 1e3), st.floats(-100, 100).map(lambda e: 10.0**e)),
)
@example([0.0, 1.0], 1e-100)
@example([0.0, 1.0], 1e5)
@example([-0.5, 1.5], 1 / 3)
@example([0.0, 1 + 2**-40], 3e5)
def test_slopes_in_t_enclose_the_exact_ones(slopes, alpha):
    least, most = min(slopes), max(slopes)
    found = slopes_in_t(np.array([least]), np.array([most]), np.array([alpha]))
    if found is None:
        return
    a = Fraction(alpha)
    for slope in (Fraction(least), Fraction(most), (Fraction(least) + Fraction(most)) / 2):
        below = slope * (1 - a) + a
        assert below > 0
        assert Fraction(float(found[0][0])) <= slope / below <= Fraction(float(found[1][0]))
    c, r = centre_of(*found)
    for end in (found[0][0], found[1][0]):
        assert abs(Fraction(float(end)) - Fraction(float(c[0]))) <= Fraction(float(r[0]))


def test_slopes_0_and_1_stay_exact_under_any_alpha():
    least, most = slopes_in_t(np.zeros(3), np.ones(3), np.array([1e-100, 0.1, 7.0]))
    assert least.tolist() == [0, 0, 0]
    assert most.tolist() == [1, 1, 1]


def exact_parts(proof: Contraction, A: Exact, B: Exact, C: Exact, D: Exact) -> tuple[Exact, Exact]:
    """Return Q and S = H (I - Q)^-1 |Y diag(alpha) B| + |D + C diag(c) Y diag(alpha) B| of a witness, exactly."""
    n = len(proof.v)
    alpha, centre, radius = vector(proof.alpha), vector(proof.centre), vector(proof.radius)
    shifted = plus(rows_times([1 - a for a in alpha], identity(n)), rows_times(alpha, A))
    Y = exact(proof.Y)
    F = plus(identity(n), times(Y, plus(identity(n), columns_times(shifted, centre), -1)), -1)
    forward = times(Y, shifted)
    Q = plus(magnitude(F), columns_times(magnitude(forward), radius))
    weighted = columns_times(C, centre)
    H = plus(
        times(magnitude(weighted), magnitude(F)),
        columns_times(magnitude(plus(C, times(weighted, forward))), radius),
    )
    driven = times(Y, rows_times(alpha, B))
    direct = magnitude(plus(D, times(weighted, driven)))
    return Q, plus(times(times(H, inverse(plus(identity(n), Q, -1))), magnitude(driven)), direct)


def at_a_corner(rng: np.random.Generator, part: Coefficients) -> Exact:
    """Return exact entries that differ from the stored ones by as much as they may."""
    if part.error is None:
        return exact(part.matrix)
    signs = rng.choice([-1, 1], part.error.shape).tolist()
    return plus(
        exact(part.matrix),
        [[s * e for s, e in zip(x, y, strict=True)] for x, y in zip(signs, exact(part.error), strict=True)],
    )


def uncertain(rng: np.random.Generator, matrix: FloatArray, size: float) -> Coefficients:
    return Coefficients(matrix, size * np.abs(matrix) * rng.random(matrix.shape) if size else None)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 3), st.sampled_from([0.0, 1e-12, 1e-3, 0.1]))
def test_Q_kappa_and_S_are_not_below_the_exact_ones(seed, n, size):
    rng = np.random.default_rng(seed)
    below, above = kinked_slopes(rng, n)
    if rng.random() < 0.3:
        below, above = np.full(n, -0.1), np.full(n, 1.2)
    matrix = random_loop(rng, n)
    if rng.random() < 0.2:
        scale = 10.0 ** rng.uniform(-40, 40, n)
        matrix = matrix * scale[:, None] / scale
    A, B, C, D = (
        uncertain(rng, m, size)
        for m in (matrix, rng.normal(size=(n, 2)), rng.normal(size=(2, n)), rng.normal(size=(2, 2)))
    )
    for proof in contractions(A, below, above):
        S = proof.response(B, C, D)
        for _ in range(1 if size == 0 else 3):
            Q, truth = exact_parts(proof, *(at_a_corner(rng, part) for part in (A, B, C, D)))
            v = vector(proof.v)
            for i in range(n):
                assert all(Fraction(float(proof.Q[i, j])) >= Q[i][j] for j in range(n))
                assert sum(q * w for q, w in zip(Q[i], v, strict=True)) <= Fraction(proof.kappa) * v[i]
            if S is None:
                continue
            assert all(Fraction(float(S[i, j])) >= truth[i][j] for i in range(2) for j in range(2))
            if size == 0 and proof.kappa < 0.9:
                np.testing.assert_allclose(S, np.array(truth, float), rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 4), st.sampled_from([0.0, 1e-12, 1e-3, 0.1]))
def test_the_monotone_figures_are_not_below_those_of_high_precision(seed, n, size):
    rng = np.random.default_rng(seed)
    m = float(rng.choice([1e-6, 0.1, 3.0]))
    half, skew = rng.normal(size=(n, n)), rng.normal(size=(n, n))
    steepest = rng.uniform(0.3, 2, n)
    matrix = np.diag(1 / steepest) - m * np.eye(n) - half.T @ half + skew - skew.T
    A, B, C, D = (
        uncertain(rng, x, size)
        for x in (matrix, rng.normal(size=(n, 2)), rng.normal(size=(2, n)), rng.normal(size=(2, 2)))
    )
    proof = monotone(A, np.zeros(n), steepest)
    if proof is None:
        assert m < 1 or size > 1e-3  # a clear m is found
        return
    S = proof.response(B, C, D)
    if S is None:  # the inverse may be too uncertain
        assert size > 1e-6
        return
    with mpmath.workdps(60):
        for _ in range(1 if size == 0 else 3):
            a, b, c, d = (_high(at_a_corner(rng, part)) for part in (A, B, C, D))
            Q = mpmath.diag([1 / mpmath.mpf(float(g)) for g in steepest]) - (a + a.T) / 2
            eigenvalues = mpmath.eigsy(Q, eigvals_only=True)
            assert min(eigenvalues) >= proof.least_eigenvalue > 0
            inv = Q**-1
            for i in range(2):
                f = c[i, :]
                for j in range(2):
                    column = b[:, j]
                    centre = abs((f * inv * column)[0] / 2 + d[i, j])
                    reach = mpmath.sqrt((f * inv * f.T)[0]) * mpmath.sqrt((column.T * inv * column)[0]) / 2
                    assert mpmath.mpf(float(S[i, j])) >= centre + reach
                    if size == 0 and m > 0.01:
                        assert float(S[i, j]) <= float(centre + reach) * (1 + 1e-6) + 1e-9


def _high(matrix: Exact) -> mpmath.matrix:
    return mpmath.matrix([[mpmath.mpf(v.numerator) / v.denominator for v in row] for row in matrix])


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 5))
def test_the_gain_is_exceeded_by_no_pair_of_inputs(seed, n):
    rng = np.random.default_rng(seed)
    A = random_loop(rng, n)
    N = gain(Coefficients(A), np.zeros(n), np.ones(n))
    if N is None or np.abs(A).max() > 1e3:
        return
    for _ in range(5):
        first = rng.normal(size=n)
        second = first + rng.normal(size=n) * 10.0 ** rng.uniform(-4, 0)
        (x,), (y,) = relu_solutions(A, first), relu_solutions(A, second)
        assert (np.abs(x - y) <= N @ np.abs(first - second) + 1e-9 * (1 + np.abs(x).max())).all()


# ---------------------------------------------------------------------------------------------- altered witnesses


def good() -> Contraction:
    """Return a proof that needs its weights and its inverse: v of ones would not do."""
    A = loop([0.1, 8.0, 0.0], [-0.05, 0.2, 0.1], [0.3, 6.0, -1.0])
    found = contraction(A, np.zeros(3), np.ones(3))
    assert found is not None
    assert found.holds
    return found


@pytest.mark.parametrize(
    "v",
    [
        [0.0, 1.0, 1.0],
        [-1.0, 1.0, 1.0],
        [np.nan, 1.0, 1.0],
        [np.inf, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        [1e-300, 1.0, 1.0],
        [1e308, 1e308, 1e308],
    ],
)
def test_a_proof_with_wrong_weights_does_not_hold(v):
    with np.errstate(over="ignore"):
        altered = replace(good(), v=np.array(v))
        assert not altered.holds
        assert altered.response(*(Coefficients(np.eye(3)),) * 3) is None


@pytest.mark.parametrize("change", [0.0, 2.0, -1.0, np.nan, np.inf, 1e200])
def test_a_proof_with_a_wrong_inverse_does_not_hold(change):
    with np.errstate(over="ignore", invalid="ignore"):
        assert not replace(good(), Y=good().Y * change).holds


def test_the_witness_of_one_loop_is_none_of_another():
    assert not replace(good(), A=loop([2.0, 0, 0], [0, 0, 0], [0, 0, 0])).holds
    assert replace(good(), A=Coefficients(np.zeros((3, 3))), Y=np.eye(3)).holds


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 4))
def test_no_witness_proves_an_ill_posed_loop(seed, n):
    """Any Y, any v: where an exact determinant says ill-posed, nothing holds."""
    rng = np.random.default_rng(seed)
    A = random_loop(rng, n) * rng.choice([1.0, 3.0])
    below, above = kinked_slopes(rng, n)
    if is_unique(A, below, above):
        return
    alpha = np.exp(rng.normal(size=n)) if rng.random() < 0.5 else np.ones(n)
    ends = slopes_in_t(below, above, alpha)
    if ends is None:
        return
    c, r = centre_of(*ends) if rng.random() < 0.7 else (np.zeros(n), np.maximum(np.abs(ends[0]), np.abs(ends[1])))
    shifted = alpha[:, None] * A + np.diag(1 - alpha)
    for _ in range(5):
        Y = np.linalg.pinv(np.eye(n) - shifted * c) + rng.normal(size=(n, n)) * rng.choice([0, 1e-8, 1])
        v = 10.0 ** rng.uniform(-6, 6, n)
        assert not Contraction(Coefficients(A), alpha, c, r, Y, v).holds
    if (below >= 0).all():
        for _ in range(5):
            claim = Monotone(Coefficients(A), above, float(rng.choice([1e-3, 1, 1e3])), rng.normal(size=(n, n)))
            assert not claim.holds


def test_weights_at_the_end_of_float64_prove_nothing():
    A = np.full((3, 3), 0.45)  # lambda_PF = 1.35, and (1, 1, 1) is a second state of x = relu(A x + i) without bounds
    assert not is_unique(A, np.zeros(3), np.ones(3))
    claim = Contraction(Coefficients(A), np.ones(3), np.zeros(3), np.ones(3), np.eye(3), np.full(3, 5e-324))
    assert not claim.holds


@pytest.mark.parametrize("m", [np.nan, np.inf, -1.0, 0.0, 1e300])
def test_a_monotone_proof_with_a_wrong_m_does_not_hold(m):
    found = monotone(loop([-2.0, 1.0], [-1.0, 0.5]), np.zeros(2), np.ones(2))
    assert found.holds
    with np.errstate(over="ignore", invalid="ignore"):
        assert not replace(found, m=m).holds
        assert not replace(found, factor=found.factor * np.nan).holds
        assert not replace(found, factor=found.factor * 3).holds


def test_the_rows_of_an_adjoint_witness_are_checked():
    proof = good()
    B, C, D = (Coefficients(np.eye(3)), Coefficients(np.eye(3)), Coefficients(np.zeros((3, 3))))
    H = proof.output_rows(C)
    rows = proof.adjoint_rows(H)
    assert proof.accepts(H, rows)
    best = proof.response(B, C, D)
    looser = proof.response(B, C, D, rows=rows + 0.1 * rows)
    assert looser is None or (looser >= best).all()
    for wrong in (rows * 0.99, rows * 0, -rows, rows * np.nan, rows[:2], np.full_like(rows, np.inf)):
        assert proof.response(B, C, D, rows=wrong) is None
    one_lower = rows.copy()
    one_lower[1, 2] *= 0.9
    assert proof.response(B, C, D, rows=one_lower) is None


def test_alpha_must_be_positive_and_finite():
    A = loop([2.0])
    for alpha in (-1.0, 0.0, np.nan, np.inf):
        assert contraction(A, np.zeros(1), np.ones(1), alpha=np.array([alpha])) is None


@pytest.mark.parametrize("alpha", [1e-300, 1e-100, 1e-12, 1e5, 1e12, 1e100, 1e300])
def test_an_extreme_alpha_proves_nothing_false(alpha):
    with np.errstate(over="ignore"):
        assert contraction(loop([2.0]), np.zeros(1), np.ones(1), alpha=np.array([alpha])) is None
        found = contraction(loop([-1e12]), np.zeros(1), np.ones(1), alpha=np.array([alpha]))
        assert (found is not None) == (alpha == 1e-12)


def test_perron_root_of_nilpotent_and_empty_matrices():
    assert perron_root(np.triu(np.ones((5, 5)), 1)) == pytest.approx(0)
    assert perron_root(np.zeros((0, 0))) == 0
