"""Linear maps: apply, adjoint, |.|, CSR form and all the figures speak of one and the same matrix."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from tests.shared.map_examples import KINDS, allowance, convolution, exact, matrix, reindexed

EVERY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))
SEEDS = st.integers(0, 2**32 - 1)
QUICK = settings(deadline=None, max_examples=8)


def drawn(kind: str, seed: int) -> LinearMap:
    return KINDS[kind](np.random.default_rng(seed))


def test_every_class_of_maps_has_an_example() -> None:
    subclasses: set[type] = set(LinearMap.__subclasses__())
    assert {type(KINDS[kind](np.random.default_rng(0))) for kind in KINDS} == subclasses


@EVERY_KIND
@given(seed=SEEDS)
@QUICK
def test_apply_and_adjoint_are_those_of_the_matrix(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = drawn(kind, seed)
    w = matrix(found)
    assert w.shape == (found.n_out, found.n_in)
    x, y = rng.normal(size=(3, found.n_in)), rng.normal(size=(3, found.n_out))
    np.testing.assert_allclose(found.apply(x), x @ w.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.adjoint(y), y @ w, rtol=0, atol=1e-12)
    np.testing.assert_allclose((found.apply(x) * y).sum(), (x * found.adjoint(y)).sum(), rtol=0, atol=1e-10)


@EVERY_KIND
@given(seed=SEEDS)
@QUICK
def test_the_csr_form_is_the_matrix(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    sparse = found.to_sparse()
    assert isinstance(sparse, sp.csr_array)
    assert sparse.dtype == np.float64
    sparse.check_format(full_check=True)
    assert sparse.has_sorted_indices
    np.testing.assert_allclose(sparse.toarray(), matrix(found), rtol=1e-15, atol=0)


@EVERY_KIND
@given(seed=SEEDS)
@QUICK
def test_absolute_is_exact(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    np.testing.assert_array_equal(found.absolute().to_sparse().toarray(), np.abs(found.to_sparse().toarray()))
    np.testing.assert_array_equal(found.magnitude.to_sparse().toarray(), np.abs(found.to_sparse().toarray()))
    assert (found.absolute().n_out, found.absolute().n_in) == (found.n_out, found.n_in)
    x = np.random.default_rng(seed).normal(size=(2, found.n_in))
    np.testing.assert_allclose(found.absolute().apply(x), x @ np.abs(matrix(found)).T, rtol=0, atol=1e-12)


@EVERY_KIND
@given(seed=SEEDS)
@QUICK
def test_counts_are_upper_bounds(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    nonzero = matrix(found) != 0
    assert found.nnz >= found.nonzeros >= nonzero.sum()
    assert found.nnz >= found.to_sparse().nnz
    assert found.row_terms >= nonzero.sum(axis=1).max(initial=0)
    assert found.column_terms >= nonzero.sum(axis=0).max(initial=0)


@given(seed=SEEDS)
@QUICK
def test_zeros_that_are_stored_are_no_nonzeros(seed: int) -> None:
    """As where rows of zeros stand below a matrix."""
    rng = np.random.default_rng(seed)
    found = np.vstack([rng.normal(size=(3, 4)) * (rng.random((3, 4)) < 0.7), np.zeros((2, 4))])
    stored = sp.csr_array(np.ones((5, 4)))
    stored.data = found.ravel()
    for held in (Dense(matrix=found), Sparse(matrix=stored)):
        assert held.nnz == 20
        assert held.nonzeros == (found != 0).sum()


@pytest.mark.parametrize("kind", ["selection", "monomial", "dense", "sparse", "conv1d", "conv2d", "conv3d"])
@given(seed=SEEDS)
@QUICK
def test_counts_are_exact_where_nothing_is_left_as_factors(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    assert found.nnz == found.nonzeros == (matrix(found) != 0).sum()
    if isinstance(found, Convolution):
        assert TransposedConvolution(forward=found).nnz == found.nnz


@EVERY_KIND
@given(seed=SEEDS, exponent=st.sampled_from([-300, -40, 0, 40, 300]))
@QUICK
def test_row_and_column_sums_are_never_too_small(kind: str, seed: int, exponent: int) -> None:
    found = drawn(kind, seed)
    if isinstance(found, Dense):
        found = Dense(matrix=np.ldexp(found.matrix, exponent))
    magnitudes = np.vectorize(abs, otypes=[object])(exact(found))
    rows, columns = magnitudes.sum(axis=1), magnitudes.sum(axis=0)
    assert all(Fraction(float(bound)) >= true for bound, true in zip(found.row_sums, rows, strict=True))
    assert all(Fraction(float(bound)) >= true for bound, true in zip(found.column_sums, columns, strict=True))
    assert Fraction(found.norm_inf) >= max(rows)
    np.testing.assert_allclose(found.row_sums, rows.astype(float), rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(found.column_sums, columns.astype(float), rtol=1e-13, atol=1e-300)


@EVERY_KIND
@given(seed=SEEDS)
@QUICK
def test_uncertainties_are_entrywise_and_change_nothing_else(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    assert (found.relative, found.slack, found.uncertain_norm) == (0.0, None, 0.0)
    slack = Sparse(matrix=found.magnitude.to_sparse() * 0.5)
    noted = found.uncertain(0.25, slack)
    assert (noted.relative, noted.slack, type(noted)) == (0.25, slack, type(found))
    np.testing.assert_array_equal(noted.to_sparse().toarray(), found.to_sparse().toarray())
    assert (noted.absolute().relative, noted.absolute().slack) == (0.0, None)
    allowed = np.vectorize(float)(allowance(noted)) * (1 - 1e-12)
    assert noted.uncertain_norm >= allowed.sum(axis=1).max()
    assert (noted.uncertain_column_sums >= allowed.sum(axis=0)).all()
    y = np.random.default_rng(seed).random((2, found.n_out))
    assert (noted.pull_uncertainty(y) >= y @ allowed).all()


@EVERY_KIND
def test_an_empty_batch_gives_an_empty_batch(kind: str) -> None:
    found = drawn(kind, 1)
    assert found.apply(np.zeros((0, found.n_in))).shape == (0, found.n_out)
    assert found.adjoint(np.zeros((0, found.n_out))).shape == (0, found.n_in)


@EVERY_KIND
def test_apply_takes_any_memory_layout_and_leaves_its_argument_alone(kind: str) -> None:
    found = drawn(kind, 5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, found.n_in))
    expected = found.apply(x)
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[::-1][::-1]):
        np.testing.assert_allclose(found.apply(other), expected, rtol=0, atol=1e-13)
    read_only = x.copy()
    read_only.setflags(write=False)
    np.testing.assert_allclose(found.apply(read_only), expected, rtol=0, atol=1e-13)
    y = rng.normal(size=(4, found.n_out))
    frozen = y.copy()
    frozen.setflags(write=False)
    np.testing.assert_allclose(found.adjoint(frozen), found.adjoint(np.asfortranarray(y)), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(frozen, y)


def test_a_row_alone_gives_what_it_gives_in_a_batch() -> None:
    for kind in KINDS:
        found = drawn(kind, 7)
        x = np.random.default_rng(1).normal(size=(5, found.n_in))
        np.testing.assert_allclose(found.apply(x)[2:3], found.apply(x[2:3]), rtol=0, atol=1e-13)


def test_windows_that_are_copied_a_row_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("conv1d", "conv2d", "conv3d", "transposed2d"):
        found = drawn(kind, 11)
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(5, found.n_in)), rng.normal(size=(5, found.n_out))
        together = found.apply(x), found.adjoint(y)
        with monkeypatch.context() as patched:
            patched.setattr("idl_audit.implicit.convolution.NUMBERS_AT_ONCE", 1)
            np.testing.assert_allclose(found.apply(x), together[0], rtol=0, atol=1e-13)
            np.testing.assert_allclose(found.adjoint(y), together[1], rtol=0, atol=1e-13)


class TestSelection:
    def test_traits(self) -> None:
        assert Selection.identity(3).is_identity
        assert Selection.diagonal(np.ones(3)).is_diagonal
        assert not Selection.diagonal(np.ones(3)).is_identity
        assert not Selection(index=np.array([0, 1]), size_in=3).is_diagonal
        assert not Selection(index=np.array([0, -1]), size_in=2).is_diagonal
        assert Selection(index=np.array([2, -1, -1, 0]), size_in=3).is_column_monomial
        assert not Selection(index=np.array([1, 1]), size_in=3).is_column_monomial

    def test_minus_one_is_zero_and_not_the_last_entry(self) -> None:
        found = Selection(index=np.array([-1, 0]), size_in=2)
        np.testing.assert_array_equal(found.apply(np.array([[5.0, 7.0]])), [[0.0, 5.0]])
        np.testing.assert_array_equal(found.adjoint(np.array([[5.0, 7.0]])), [[7.0, 0.0]])

    def test_a_weight_at_minus_one_counts_for_nothing(self) -> None:
        found = Selection(index=np.array([-1, 0]), size_in=2, weights=np.array([np.nan, 2.0]))
        np.testing.assert_array_equal(found.row_weights, [0.0, 2.0])
        np.testing.assert_array_equal(found.to_sparse().toarray(), [[0, 0], [2, 0]])

    def test_repeats_are_summed_by_the_adjoint(self) -> None:
        found = Selection(index=np.array([1, 1, -1, 1]), size_in=3, weights=np.array([1.0, 2.0, 8.0, -4.0]))
        assert (found.column_terms, found.row_terms, found.nnz) == (3, 1, 3)
        np.testing.assert_array_equal(found.adjoint(np.ones((1, 4))), [[0, -1, 0]])
        np.testing.assert_array_equal(found.column_sums >= np.array([0, 7, 0]), [True] * 3)

    def test_a_selection_of_nothing_gives_zeros(self) -> None:
        found = Selection(index=np.array([-1, -1]), size_in=0)
        np.testing.assert_array_equal(found.apply(np.zeros((2, 0))), np.zeros((2, 2)))


class TestConvolution:
    def test_a_kernel_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not fit"):
            Convolution(kernel=np.ones((1, 1, 4)), spatial_in=(2,), strides=(1,), pads=(0, 1), dilations=(1,))

    def test_windows_in_the_padding_are_zero_rows(self) -> None:
        found = Convolution(kernel=np.ones((1, 1, 2)), spatial_in=(1,), strides=(1,), pads=(3, 3), dilations=(1,))
        np.testing.assert_array_equal(found.apply(np.ones((1, 1))), matrix(found).T)
        np.testing.assert_array_equal(found.to_sparse().toarray(), matrix(found))

    def test_entries_that_no_window_reads_have_zero_columns(self) -> None:
        found = Convolution(kernel=np.ones((1, 1, 1)), spatial_in=(6,), strides=(4,), pads=(0, 0), dilations=(1,))
        np.testing.assert_array_equal(found.adjoint(np.ones((1, 2))), [[1, 0, 0, 0, 1, 0]])

    @given(seed=SEEDS)
    @QUICK
    def test_scaling_channels_is_a_product_with_diagonals(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        found = convolution(rng)
        rows, columns = rng.normal(size=found.channels_out), rng.normal(size=found.channels_in)
        left = np.repeat(rows, found.n_out // found.channels_out)
        right = np.repeat(columns, found.n_in // found.channels_in)
        scaled = found.scale_channels(rows, columns)
        expected = left[:, None] * matrix(found) * right[None, :]
        np.testing.assert_allclose(matrix(scaled), expected, rtol=1e-15, atol=0)
        np.testing.assert_array_equal(matrix(found.scale_channels(None, None)), matrix(found))

    @given(seed=SEEDS)
    @QUICK
    def test_rounding_stays_within_the_bound_of_a_dot_product(self, seed: int) -> None:
        """The claim in the module's docstring, that torch sums plainly in float64, against rational arithmetic."""
        from idl_audit.values.rounding import gamma

        rng = np.random.default_rng(seed)
        for found in (convolution(rng), TransposedConvolution(forward=convolution(rng))):
            x = rng.normal(size=found.n_in)
            true = exact(found) @ np.vectorize(lambda v: Fraction(float(v)), otypes=[object])(x)
            size = np.abs(matrix(found)) @ np.abs(x)
            computed = found.apply(x[None])[0]
            for t, c, s in zip(true, computed, size, strict=True):
                assert abs(t - Fraction(float(c))) <= Fraction(gamma(found.row_terms) * float(s) * (1 + 1e-12))


class TestReindexed:
    def test_reading_twice_is_refused(self) -> None:
        with pytest.raises(ValueError, match="reads an input twice"):
            Reindexed(
                left=Selection.identity(2),
                core=Dense(matrix=np.ones((2, 2))),
                right=Selection(index=np.array([0, 0]), size_in=1),
            )

    @given(seed=SEEDS)
    @QUICK
    def test_the_absolute_value_passes_through_the_factors(self, seed: int) -> None:
        found = reindexed(np.random.default_rng(seed))
        np.testing.assert_array_equal(found.absolute().to_sparse().toarray(), np.abs(found.to_sparse().toarray()))

    def test_rows_may_be_read_twice(self) -> None:
        core = Dense(matrix=np.array([[1.0, -2.0]]))
        found = Reindexed(left=Selection(index=np.array([0, 0, -1]), size_in=1), core=core, right=Selection.identity(2))
        np.testing.assert_array_equal(found.to_sparse().toarray(), [[1, -2], [1, -2], [0, 0]])
        np.testing.assert_array_equal(found.adjoint(np.ones((1, 3))), [[2, -4]])
        assert found.column_terms >= 2


def test_explicit_zeros_of_a_sparse_map_are_no_trouble() -> None:
    found = Sparse(matrix=sp.csr_array((np.array([0.0, 2.0]), np.array([0, 1]), np.array([0, 2, 2])), shape=(2, 2)))
    assert found.nnz == 2
    np.testing.assert_array_equal(found.absolute().to_sparse().toarray(), [[0, 2], [0, 0]])
    assert Sparse(matrix=sp.csr_array((3, 4))).norm_inf == 0.0
