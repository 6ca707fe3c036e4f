"""Spectral norms of linear maps: never below the truth (in rational numbers), close to it where that is promised."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.proof import spectral_norms
from idl_audit.proof.spectral_norms import hypotenuse, largest_norm, powered_norm, spectral_norm, times, total
from tests.shared import map_examples
from tests.shared.map_examples import KINDS, matrix, perturbed, product, rational

seeds = st.integers(0, 2**32 - 1)
CLOSE = sorted(kind for kind in KINDS if not kind.startswith("conv"))


def at_most(true: np.ndarray, bound: float) -> bool:
    """Return whether ||W||_2 <= bound, exactly: bound^2 I - W W^T is positive semidefinite."""
    if true.shape[0] > true.shape[1]:
        true = true.T
    rest = -product(true, true.T)
    for i in range(len(rest)):
        rest[i, i] += Fraction(bound) ** 2
    for i in range(len(rest)):
        pivot = rest[i, i]
        if pivot < 0 or (pivot == 0 and any(rest[i, j] for j in range(i + 1, len(rest)))):
            return False
        if pivot:
            for j in range(i + 1, len(rest)):
                factor = rest[j, i] / pivot
                if factor:
                    rest[j, i + 1 :] -= factor * rest[i, i + 1 :]
    return True


def singular(linear_map: LinearMap) -> float:
    return float(np.linalg.norm(matrix(linear_map), 2))


def interpolated(linear_map: LinearMap) -> float:
    magnitude = np.abs(matrix(linear_map))
    return math.sqrt(magnitude.sum(axis=0).max(initial=0.0) * magnitude.sum(axis=1).max(initial=0.0))


def test_the_exact_check_can_fail() -> None:
    w = rational(np.array([[3.0, 0.0], [4.0, 0.0]]))
    assert at_most(w, 5.0)
    assert not at_most(w, math.nextafter(5.0, 0.0))
    assert not at_most(rational(np.ones((1, 1))), 0.0)


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_the_bound_holds_in_exact_arithmetic(kind: str, seed: int) -> None:
    linear_map = KINDS[kind](np.random.default_rng(seed))
    found = spectral_norm(linear_map)
    assert at_most(rational(matrix(linear_map)), found)
    assert found <= interpolated(linear_map) * (1 + 1e-12) + 1e-300  # what underflow may cost is granted to zeros, too
    assert at_most(rational(matrix(linear_map)), spectral_norm(linear_map, quickly=True))


@pytest.mark.parametrize("kind", CLOSE)
@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_small_maps_have_their_singular_value(kind: str, seed: int) -> None:
    linear_map = KINDS[kind](np.random.default_rng(seed))
    assert spectral_norm(linear_map) <= singular(linear_map) * (1 + 1e-10) + 1e-150


@settings(deadline=None, max_examples=25)
@given(
    seed=seeds, m=st.integers(1, 9), n=st.integers(1, 9), complex_=st.booleans(), scale=st.sampled_from([-150, 0, 90])
)
def test_three_products_bound_the_norm_of_every_matrix(seed: int, m: int, n: int, complex_: bool, scale: int) -> None:
    """At most m^(1/16) too much, m the shorter side: the eighth root of a Frobenius norm."""
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(3, m, n)) * 10.0 ** rng.choice([-9, 0], size=(3, m, n)) * 10.0**scale
    if complex_:
        matrices = matrices + 1j * rng.normal(size=(3, m, n)) * 10.0**scale
    true = float(np.linalg.norm(matrices, 2, axis=(1, 2)).max())
    found = powered_norm(matrices)
    assert true * (1 - 1e-12) <= found <= true * min(m, n) ** (1 / 16) * (1 + 1e-4)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_three_products_of_what_is_no_number_prove_nothing(number: float) -> None:
    assert powered_norm(np.full((1, 2, 2), number)) == math.inf
    assert powered_norm(np.zeros((1, 2, 2))) == 0.0


@settings(deadline=None, max_examples=25)
@given(seed=seeds, rank=st.integers(1, 3), work=st.sampled_from([10**11, 20_000, 5_000, 1_000, 1]))
def test_symbols_bound_convolutions_on_every_grid(seed: int, rank: int, work: int) -> None:
    conv = map_examples.convolution(np.random.default_rng(seed), rank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectral_norms, "LARGEST_WORK", work)
        patch.setattr(spectral_norms, "CHUNK", 64)
        found = spectral_norms._symbol_norm(conv)
        quick = spectral_norms._symbol_norm(conv, powered_norm)
    assert math.isinf(found) or at_most(rational(matrix(conv)), found)
    assert math.isinf(quick) or at_most(rational(matrix(conv)), quick)


def image_convolution(seed: int = 0, *, size: int = 12, taps: int = 3, **options: object) -> Convolution:
    rng = np.random.default_rng(seed)
    geometry = {"strides": (1, 1), "pads": (taps // 2,) * 4, "dilations": (1, 1)} | options
    return Convolution(kernel=rng.normal(size=(4, 3, taps, taps)), spatial_in=(size, size), **geometry)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 2)},
        {"strides": (3, 1), "dilations": (1, 2)},
        {"strides": (2, 2), "dilations": (2, 2)},
        {"taps": 4, "pads": (1, 2, 2, 1)},
        {"taps": 5, "strides": (2, 3)},
    ],
)
def test_symbols_are_close_to_the_norm_of_image_convolutions(options: dict[str, object]) -> None:
    conv = image_convolution(**options)  # type: ignore[arg-type]
    true = singular(conv)
    assert true <= spectral_norms._symbol_norm(conv) <= 1.12 * true
    assert spectral_norms._symbol_norm(conv) < 0.8 * interpolated(conv)


@pytest.mark.parametrize(("taps", "stride"), [(1, 1), (2, 2), (3, 3), (2, 3), (1, 2)])
def test_convolutions_whose_windows_do_not_meet_are_matrices(taps: int, stride: int) -> None:
    conv = image_convolution(taps=taps, strides=(stride, stride), pads=(0, 0, 0, 0))
    kernel = conv.kernel.reshape(4, -1)
    assert spectral_norms._symbol_norm(conv) == pytest.approx(np.linalg.norm(kernel, 2), rel=1e-10)


@pytest.mark.parametrize(
    ("stride", "dilation", "taps", "period"), [(1, 1, 3, 12 + 2), (1, 2, 3, 5 + 2), (2, 1, 3, 6 + 1), (2, 2, 3, 5 + 2)]
)
def test_periods_hold_every_output_and_every_tap(stride: int, dilation: int, taps: int, period: int) -> None:
    conv = image_convolution(taps=taps, strides=(stride,) * 2, dilations=(dilation,) * 2)
    assert spectral_norms._as_symbol(conv).periods == (period, period)


def test_circular_convolutions_are_what_the_symbol_bounds() -> None:
    """One filter of ones: K(0) = 9 is the norm of the circular convolution, and the padded one comes close to it."""
    conv = Convolution(
        kernel=np.ones((1, 1, 3, 3)), spatial_in=(30, 30), strides=(1, 1), pads=(1,) * 4, dilations=(1, 1)
    )
    assert spectral_norms._symbol_norm(conv) == pytest.approx(9, rel=1e-10)


def test_a_coarse_grid_costs_its_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = image_convolution(size=40)
    fine = spectral_norms._symbol_norm(conv)
    work = spectral_norms._as_symbol(conv).work
    monkeypatch.setattr(spectral_norms, "LARGEST_WORK", 120 * work)
    periods, factor = spectral_norms._grid(spectral_norms._as_symbol(conv))
    assert max(periods) < 20
    assert factor == pytest.approx(math.prod(1 / math.cos(math.pi / n) for n in periods), rel=1e-9)
    assert 0.95 * fine <= spectral_norms._symbol_norm(conv) <= factor * fine * (1 + 1e-9)


def test_groups_of_a_convolution_do_not_add_up() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 1, 3, 3))
    geometry = {"spatial_in": (9, 9), "strides": (1, 1), "pads": (1,) * 4, "dilations": (1, 1)}
    whole = spectral_norm(Convolution(kernel=kernel, groups=3, **geometry))  # type: ignore[arg-type]
    alone = [spectral_norm(Convolution(kernel=kernel[i : i + 1], **geometry)) for i in range(3)]  # type: ignore[arg-type]
    assert whole == pytest.approx(max(alone), rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, kind=st.sampled_from(["dense", "sparse", "selection", "conv2d", "transposed1d", "reindexed"]))
def test_what_rounding_did_to_the_coefficients_is_paid_for(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    nominal = KINDS[kind](rng)
    slack = Dense(matrix=np.abs(rng.normal(size=(nominal.n_out, nominal.n_in))) * 1e-3)
    linear_map = nominal.uncertain(1e-3, slack)
    assert at_most(perturbed(linear_map, rng), spectral_norm(linear_map))
    assert at_most(perturbed(nominal.uncertain(0.0, slack), rng), spectral_norm(nominal.uncertain(0.0, slack)))


def test_uncertainty_costs_no_more_than_its_own_norm() -> None:
    w, slack = np.eye(3), Dense(matrix=np.full((3, 3), 0.1))
    assert spectral_norm(Dense(matrix=w, slack=slack)) == pytest.approx(1.3, rel=1e-9)
    assert spectral_norm(Dense(matrix=w, relative=0.5)) == pytest.approx(1.5, rel=1e-9)


def test_selections_are_exact() -> None:
    assert spectral_norm(Selection.identity(5)) == 1.0
    assert spectral_norm(Selection(index=np.array([-1, -1]), size_in=3)) == 0.0
    repeated = Selection(index=np.array([0, 0, 0, 0, 1]), size_in=2)
    assert spectral_norm(repeated) == pytest.approx(2.0, rel=1e-14)
    weighted = Selection(index=np.array([0, 0, 1]), size_in=2, weights=np.array([3.0, 4.0, 1.0]))
    assert spectral_norm(weighted) == pytest.approx(5.0, rel=1e-14)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_maps_have_norm_zero(shape: tuple[int, int]) -> None:
    assert spectral_norm(Dense(matrix=np.zeros(shape))) == 0.0
    assert spectral_norm(Selection(index=np.full(shape[0], -1), size_in=shape[1])) == 0.0


@pytest.mark.parametrize("exponent", [-1070, -900, -300, 0, 300, 900, 1020])
def test_huge_and_tiny_weights_neither_overflow_nor_vanish(exponent: int) -> None:
    w = np.ldexp(np.array([[3.0, 0.0], [0.0, 1.0], [4.0, 0.0]]), exponent)
    found = spectral_norm(Dense(matrix=w))
    assert at_most(rational(w), found)
    assert found <= np.ldexp(5.0, exponent) * (1 + 1e-9) + 1e-322
    column = Selection(index=np.array([0, 0]), size_in=1, weights=w[[0, 2], 0])
    assert np.ldexp(5.0, exponent) <= spectral_norm(column) <= np.ldexp(5.0, exponent) * (1 + 1e-9) + 1e-322


def test_a_norm_beyond_float64_is_infinite() -> None:
    assert spectral_norm(Dense(matrix=np.full((2, 2), 1e308))) == math.inf
    assert largest_norm(np.array([[np.inf]])) == math.inf


@pytest.mark.parametrize("shape", [(250, 300), (300, 210)])
def test_matrices_beyond_eigenvalue_solvers_are_close(shape: tuple[int, int]) -> None:
    w = np.random.default_rng(0).normal(size=shape)
    true = np.linalg.norm(w, 2)
    assert true <= largest_norm(w) <= 1.05 * true


def test_a_batch_has_its_largest_norm() -> None:
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(7, 3, 4)) + 1j * rng.normal(size=(7, 3, 4))
    true = np.linalg.norm(batch, 2, axis=(1, 2)).max()
    assert true <= largest_norm(batch) <= true * (1 + 1e-9)


def near_one(n: int) -> np.ndarray:
    """Return a matrix whose largest entry is 0.9: no scaling stands between it and what is patched."""
    w = np.random.default_rng(0).normal(size=(n, n))
    return 0.9 * w / np.abs(w).max()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999, 1.0, 1.5])
def test_a_wrong_guess_loosens_the_bound_and_nothing_else(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    w = near_one(6)
    true = np.linalg.norm(w, 2)
    monkeypatch.setattr(spectral_norms, "_guess", lambda grams: share * true**2)
    assert true <= largest_norm(w) <= 2.1 * true


@pytest.mark.parametrize("noise", [1e-12, 1e-3, 1.0])
def test_a_wrong_factor_loosens_the_bound_and_nothing_else(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """A library that lets an indefinite matrix pass: what its factor is worth is found by multiplication."""
    w = near_one(6)
    true = np.linalg.norm(w, 2)
    rough = np.random.default_rng(1).normal(size=(6, 6)) * noise
    monkeypatch.setattr(np.linalg, "cholesky", lambda a: np.tril(np.sqrt(np.abs(np.diag(np.diag(a)))) + rough))
    for share in (0.1, 0.9):
        monkeypatch.setattr(spectral_norms, "_guess", lambda grams, share=share: share * true**2)
        assert true <= largest_norm(w) < 100 * (1 + noise) * true


def test_without_any_factor_row_sums_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(matrices: np.ndarray) -> np.ndarray:
        raise np.linalg.LinAlgError

    monkeypatch.setattr(np.linalg, "cholesky", fails)
    w = np.random.default_rng(0).normal(size=(5, 4))
    expected = math.sqrt(np.abs(w.T @ w).sum(axis=1).max())
    assert largest_norm(w) == pytest.approx(expected, rel=1e-12)


def test_maps_beyond_the_granted_work_have_the_interpolated_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_norms, "LARGEST_WORK", 0)
    monkeypatch.setattr(spectral_norms, "SHORT_SIDE", 0)
    rng = np.random.default_rng(0)
    maps: list[LinearMap] = [
        Dense(matrix=rng.normal(size=(5, 4))),
        image_convolution(),
        TransposedConvolution(forward=image_convolution(1)),
        Sparse(matrix=Dense(matrix=rng.normal(size=(5, 4))).to_sparse()),
    ]
    for linear_map in maps:
        assert spectral_norm(linear_map) == pytest.approx(interpolated(linear_map), rel=1e-12)


def test_scalars_are_rounded_upward() -> None:
    assert Fraction(times(0.1, 0.3)) >= Fraction(0.1) * Fraction(0.3)
    assert times(1e-200, 1e-200) > 0
    assert times(0.0, 1e300) == total([]) == total([0.0, 0.0]) == 0.0
    assert Fraction(total([0.1, 0.2, 0.3])) >= Fraction(0.1) + Fraction(0.2) + Fraction(0.3)
    assert Fraction(hypotenuse([0.1, 0.3])) ** 2 >= Fraction(0.1) ** 2 + Fraction(0.3) ** 2
    assert hypotenuse([3.0, 4.0]) == pytest.approx(5.0, rel=1e-14)
    assert hypotenuse([2.5]) == 2.5
