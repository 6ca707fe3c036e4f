"""Products and sums of linear maps: the product's own matrix, its own absolute value, and a proved error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product as pairs
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.composition import add, compose, product_nnz
from idl_audit.implicit.convolution import Convolution, TransposedConvolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Selection, Sparse
from tests.shared.map_examples import (
    KINDS,
    Rng,
    admits,
    allowance,
    convolution,
    distance,
    exact,
    matrix,
    pair,
    perturbed,
    product,
    rational,
)

PAIRS = sorted(pairs(KINDS, KINDS))
EVERY_PAIR = pytest.mark.parametrize(("outer", "inner"), PAIRS, ids=["-".join(p) for p in PAIRS])
SEEDS = st.integers(0, 2**32 - 1)
Uncertainty = tuple[tuple[float, float], tuple[float, float]]
"""(relative, slack in multiples of |W|) of two maps."""
FEW = settings(deadline=None, max_examples=3)


def drawn(outer: str, inner: str, seed: int) -> tuple[LinearMap, LinearMap]:
    return pair(outer, inner, np.random.default_rng(seed))


def check_product(first: LinearMap, second: LinearMap, seed: int) -> None:
    """The product's matrix, its absolute value (|W2 W1|, not |W2||W1|), what it does to vectors, and its size."""
    found = compose(first, second)
    inner, outer = matrix(second), matrix(first)
    w = outer @ inner
    assert (found.n_out, found.n_in) == w.shape
    csr = found.to_sparse()
    np.testing.assert_allclose(csr.toarray(), w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.absolute().to_sparse().toarray(), np.abs(w), rtol=0, atol=1e-12)
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, second.n_in)), rng.normal(size=(2, first.n_out))
    np.testing.assert_allclose(found.apply(x), x @ w.T, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.adjoint(y), y @ w, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.magnitude.apply(x), x @ np.abs(w).T, rtol=0, atol=1e-11)
    assert found.nnz >= csr.nnz
    assert product_nnz(first, second) >= csr.nnz
    assert product_nnz(first, second) >= ((outer != 0).astype(float) @ (inner != 0).astype(float) > 0).sum()


def check_error(first: LinearMap, second: LinearMap, uncertainty: Uncertainty, seed: int) -> None:
    """The bounds hold for exact factors, and for factors that are off by as much as they admit."""
    if max(first.n_out * first.n_in, second.n_out * second.n_in) > 400:
        return  # rational arithmetic on larger matrices is slow
    plain = compose(first, second)
    assert admits(plain, product(exact(first), exact(second)))
    assert plain.uncertain_norm <= 1e-12 * (1 + first.norm_inf * second.norm_inf)
    first, second = uncertain(first, *uncertainty[0]), uncertain(second, *uncertainty[1])
    found = compose(first, second)
    rng = np.random.default_rng(seed)
    assert admits(found, product(perturbed(first, rng), perturbed(second, rng)))
    above = product(exact(first) + allowance(first), exact(second) + allowance(second))
    assert admits(found, above)


def uncertain(found: LinearMap, relative: float, slack: float) -> LinearMap:
    """Return the map with a relative uncertainty, and a slack that is a multiple of |W|."""
    if not slack:
        return found.uncertain(relative)
    return found.uncertain(relative, Sparse(matrix=found.magnitude.to_sparse() * slack))


ERRORS = st.tuples(*[st.tuples(st.sampled_from([0.0, 1e-10, 0.5]), st.sampled_from([0.0, 0.0, 1e-10, 0.5]))] * 2)


@EVERY_PAIR
@given(seed=SEEDS, errors=ERRORS)
@FEW
def test_a_composition_is_the_product_and_its_error_is_bounded(
    outer: str, inner: str, seed: int, errors: Uncertainty
) -> None:
    first, second = drawn(outer, inner, seed)
    check_product(first, second, seed)
    check_error(first, second, errors, seed)


@pytest.mark.slow
@EVERY_PAIR
@given(seed=SEEDS, errors=ERRORS)
@settings(deadline=None, max_examples=3)
def test_many_compositions(outer: str, inner: str, seed: int, errors: Uncertainty) -> None:
    first, second = drawn(outer, inner, seed)
    check_product(first, second, seed)
    check_error(first, second, errors, seed)


def is_identity(linear_map: LinearMap) -> bool:
    return isinstance(linear_map, Selection) and linear_map.is_identity


def scaled(found: LinearMap, rng: Rng) -> LinearMap:
    """Return the map times powers of two of very different sizes, which provokes cancellation in sums."""
    return compose(Selection.diagonal(np.ldexp(1.0, rng.integers(-40, 40, size=found.n_out))), found)


@pytest.mark.parametrize(
    "kinds", [("dense", "dense"), ("dense", "conv2d"), ("sparse", "reindexed"), ("conv1d", "sparse")]
)
@given(seed=SEEDS)
@FEW
def test_the_error_bounds_cancellation_along_chains(kinds: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = drawn(*kinds, seed)
    if first.n_out * first.n_in * second.n_in > 30_000:
        return
    second = scaled(second, rng)
    third = Dense(matrix=np.ldexp(rng.normal(size=(3, first.n_out)), rng.integers(-40, 40, size=(3, first.n_out))))
    true = product(exact(third), product(exact(first), exact(second)))
    for found in (compose(third, compose(first, second)), compose(compose(third, first), second)):
        assert admits(found, true)


def test_the_error_covers_a_difference_of_near_equals() -> None:
    """[1, -1] [[a], [b]] with a and b products that round: the entry is all error."""
    thirds = Dense(matrix=np.array([[1 / 3, 1 / 7], [1 / 3 * (1 + 2e-16), 1 / 7]]))
    sevens = Dense(matrix=np.array([[3.0, 1 / 9], [7.0, 1 / 11]]))
    inner = compose(thirds, sevens)
    difference = Dense(matrix=np.array([[1.0, -1.0]]))
    found = compose(difference, inner)
    true = product(rational(difference.matrix), product(exact(thirds), exact(sevens)))
    assert distance(true, found) > 0
    assert admits(found, true)
    assert found.uncertain_norm < 1e-13


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(4, 1\)"):
        compose(Dense(matrix=np.ones((2, 3))), Dense(matrix=np.ones((4, 1))))


def test_the_identity_changes_nothing() -> None:
    for kind in KINDS:
        found = KINDS[kind](np.random.default_rng(2))
        assert compose(found, Selection.identity(found.n_in)).to_sparse().nnz == found.to_sparse().nnz
        assert compose(Selection.identity(found.n_out), found).relative == found.relative
        if not is_identity(found):
            assert compose(found, Selection.identity(found.n_in)) is found


def negative(found: LinearMap) -> LinearMap:
    return compose(Selection.diagonal(-np.ones(found.n_out)), found)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(seed=SEEDS)
@FEW
def test_negation_is_exact(kind: str, seed: int) -> None:
    found = uncertain(KINDS[kind](np.random.default_rng(seed)), 0.125, 0.5)
    np.testing.assert_array_equal(negative(found).to_sparse().toarray(), -found.to_sparse().toarray())
    assert (allowance(negative(found)) == allowance(found)).all()


class TestWhatKeepsItsForm:
    @given(seed=SEEDS)
    @FEW
    def test_a_scaling_per_channel_folds_into_the_kernel(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        conv = convolution(rng)
        rows = Selection.diagonal(np.repeat(rng.normal(size=conv.channels_out), conv.n_out // conv.channels_out))
        columns = Selection.diagonal(np.repeat(rng.normal(size=conv.channels_in), conv.n_in // conv.channels_in))
        transposed = TransposedConvolution(forward=conv)
        for outer, inner, kept in [
            (rows, conv, Convolution),
            (conv, columns, Convolution),
            (columns, transposed, TransposedConvolution),
            (transposed, rows, TransposedConvolution),
        ]:
            found = compose(outer, inner)
            assert isinstance(found, kept)
            np.testing.assert_allclose(matrix(found), matrix(outer) @ matrix(inner), rtol=1e-15, atol=0)
            assert admits(found, product(exact(outer), exact(inner)))

    def test_powers_of_two_are_folded_without_error(self) -> None:
        rng = np.random.default_rng(0)
        for kind in KINDS:
            found = KINDS[kind](rng)
            twos = Selection.diagonal(np.ldexp(1.0, rng.integers(-9, 9, size=found.n_out)))
            columns = Selection.diagonal(-np.ldexp(1.0, rng.integers(-9, 9, size=found.n_in)))
            for scaled_map, true in [
                (compose(twos, found), product(exact(twos), exact(found))),
                (compose(found, columns), product(exact(found), exact(columns))),
            ]:
                assert (scaled_map.relative, scaled_map.slack) == (0.0, None)
                assert distance(true, scaled_map) == 0

    def test_a_scaling_per_pixel_stays_in_front_of_the_convolution(self) -> None:
        rng = np.random.default_rng(0)
        conv = convolution(rng, 2)
        found = compose(Selection.diagonal(rng.normal(size=conv.n_out)), conv)
        assert isinstance(found, Reindexed)

    @given(seed=SEEDS)
    @settings(deadline=None, max_examples=20)
    def test_zero_padding_folds_into_the_convolution(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        conv = convolution(rng)
        before = [int(rng.integers(0, n)) for n in conv.spatial_in]
        sizes = [int(rng.integers(1, n - b + 1)) for n, b in zip(conv.spatial_in, before, strict=True)]
        inside = np.arange(conv.channels_in * int(np.prod(sizes))).reshape(conv.channels_in, *sizes)
        widths = [(b, n - b - s) for n, b, s in zip(conv.spatial_in, before, sizes, strict=True)]
        index = np.pad(inside, [(0, 0), *widths], constant_values=-1)
        pad = Selection(index=index.reshape(-1), size_in=inside.size)
        found = compose(conv, pad)
        assert isinstance(found, Convolution)
        np.testing.assert_array_equal(matrix(found), matrix(conv) @ matrix(pad))
        assert (found.relative, found.slack) == (0.0, None)

    NO_PADDING: ClassVar[dict[str, list[list[list[int]]]]] = {
        "channels exchanged": [[[-1, 3], [4, 5]], [[-1, 0], [1, 2]]],
        "one channel differs": [[[-1, 0], [-1, 1]], [[-1, 2], [3, -1]]],
        "transposed": [[[0, 2], [1, 3]], [[4, 6], [5, 7]]],
        "a hole": [[[0, -1], [1, 2]], [[3, -1], [4, 5]]],
        "nothing": [[[-1, -1], [-1, -1]], [[-1, -1], [-1, -1]]],
        "padded where another channel is not": [[[-1, 0], [-1, 1]], [[2, 3], [4, 5]]],
    }

    @pytest.mark.parametrize("case", sorted(NO_PADDING))
    def test_what_only_looks_like_padding_does_not(self, case: str) -> None:
        rng = np.random.default_rng(0)
        index = np.asarray(self.NO_PADDING[case])
        conv = Convolution(
            kernel=rng.normal(size=(2, 2, 2, 2)), spatial_in=(2, 2), strides=(1, 1), pads=(1, 0, 0, 1), dilations=(1, 1)
        )
        for size_in in (8, 9):
            moved = Selection(index=index.reshape(-1), size_in=size_in)
            found = compose(conv, moved)
            np.testing.assert_allclose(matrix(found), matrix(conv) @ matrix(moved), rtol=0, atol=1e-14)

    def test_an_image_cropped_and_padded_again_is_no_padding(self) -> None:
        conv = Convolution(kernel=np.ones((1, 1, 2)), spatial_in=(3,), strides=(1,), pads=(0, 0), dilations=(1,))
        moved = Selection(index=np.array([-1, 0, 1]), size_in=3)  # entry 2 is dropped
        found = compose(conv, moved)
        np.testing.assert_array_equal(matrix(found), matrix(conv) @ matrix(moved))

    def test_selections_of_convolutions_are_joined(self) -> None:
        rng = np.random.default_rng(0)
        conv = convolution(rng, 2)
        back = np.arange(conv.n_out)[::-1].copy()
        reverse = Selection(index=back, size_in=conv.n_out)
        once = compose(reverse, conv)
        assert isinstance(once, Reindexed)
        assert isinstance(compose(reverse, once), Convolution)  # two reversals are none


ADDENDS: list[tuple[str, Callable[[Rng], tuple[LinearMap, LinearMap]], type[LinearMap]]] = [
    (
        "selections of different rows",
        lambda rng: (
            Selection(index=np.array([0, -1, 2]), size_in=3, weights=rng.normal(size=3)),
            Selection(index=np.array([-1, 1, -1]), size_in=3),
        ),
        Selection,
    ),
    (
        "plain selections of different rows",
        lambda rng: (Selection(index=np.array([0, -1]), size_in=3), Selection(index=np.array([-1, 0]), size_in=3)),
        Selection,
    ),
    (
        "selections of the same rows",
        lambda rng: (Selection.identity(3), Selection.diagonal(rng.normal(size=3))),
        Sparse,
    ),
    (
        "dense and dense",
        lambda rng: (Dense(matrix=rng.normal(size=(2, 3))), Dense(matrix=rng.normal(size=(2, 3)))),
        Dense,
    ),
    ("dense and selection", lambda rng: (Dense(matrix=rng.normal(size=(3, 3))), Selection.identity(3)), Dense),
    (
        "one geometry",
        lambda rng: (same := convolution(rng), same.scale_channels(rng.normal(size=same.channels_out), None)),
        Convolution,
    ),
    ("identity and convolution", lambda rng: (residual(rng), Selection.identity(32)), Sparse),
    ("convolution and transposed", lambda rng: (residual(rng), TransposedConvolution(forward=residual(rng))), Sparse),
]


def residual(rng: Rng) -> Convolution:
    return Convolution(
        kernel=rng.normal(size=(2, 2, 3, 3)), spatial_in=(4, 4), strides=(1, 1), pads=(1,) * 4, dilations=(1, 1)
    )


@pytest.mark.parametrize(("name", "make", "kept"), ADDENDS, ids=[case[0] for case in ADDENDS])
@given(seed=SEEDS, errors=ERRORS)
@settings(deadline=None, max_examples=8)
def test_a_sum_is_the_sum(
    name: str,
    make: Callable[[Rng], tuple[LinearMap, LinearMap]],
    kept: type[LinearMap],
    seed: int,
    errors: Uncertainty,
) -> None:
    first, second = make(np.random.default_rng(seed))
    first, second = uncertain(first, *errors[0]), uncertain(second, *errors[1])
    rng = np.random.default_rng(seed)
    for one, two in ((first, second), (second, first)):
        found = add(one, two)
        assert isinstance(found, kept)
        np.testing.assert_allclose(matrix(found), matrix(first) + matrix(second), rtol=1e-15, atol=1e-300)
        np.testing.assert_array_equal(matrix(found.absolute()), np.abs(matrix(found)))
        assert admits(found, exact(first) + exact(second))
        assert admits(found, perturbed(first, rng) + perturbed(second, rng))


@pytest.mark.parametrize(("outer", "inner"), [(a, b) for a, b in PAIRS if "identity" in (a, b)])
@given(seed=SEEDS)
@FEW
def test_sums_of_any_two_maps_of_one_shape(outer: str, inner: str, seed: int) -> None:
    first, second = drawn(outer, inner, seed)
    other = Sparse(matrix=(compose(first, second)).to_sparse() * 3)
    found = add(compose(first, second), other)
    np.testing.assert_allclose(matrix(found), 4 * matrix(first) @ matrix(second), rtol=1e-14, atol=1e-300)


def test_a_map_minus_itself_has_no_entries_and_admits_only_the_errors() -> None:
    for kind in KINDS:
        found = KINDS[kind](np.random.default_rng(1))
        nothing = add(found, negative(found))
        assert not nothing.to_sparse().toarray().any()
        assert nothing.norm_inf == 0.0


def test_geometries_that_differ_are_not_added_as_kernels() -> None:
    rng = np.random.default_rng(0)
    first = Convolution(kernel=rng.normal(size=(1, 1, 3)), spatial_in=(5,), strides=(1,), pads=(1, 1), dilations=(1,))
    second = Convolution(kernel=rng.normal(size=(1, 1, 3)), spatial_in=(5,), strides=(1,), pads=(0, 2), dilations=(1,))
    found = add(first, second)
    np.testing.assert_allclose(matrix(found), matrix(first) + matrix(second), rtol=1e-15)
    assert isinstance(found, Sparse)


def test_an_error_of_an_identity_is_not_forgotten() -> None:
    """An identity that admits an error is a legal map; composing with it must carry the error on."""
    off = Selection.identity(2).uncertain(0.5)
    for found in (compose(Dense(matrix=np.eye(2)), off), compose(off, Dense(matrix=np.eye(2)))):
        assert found.uncertain_norm >= 0.5


@EVERY_PAIR
@given(seed=SEEDS, power=st.integers(-1074, -850))
@FEW
def test_underflowing_products_are_paid_for(outer: str, inner: str, seed: int, power: int) -> None:
    """Entries from 2^power up to 1, so that products, and what bounds their rounding, vanish here and there."""
    rng = np.random.default_rng(seed)
    first, second = tiny(drawn(outer, inner, seed)[0], power // 2, rng), tiny(drawn(outer, inner, seed)[1], power, rng)
    if max(first.n_out * first.n_in, second.n_out * second.n_in) > 400:
        return
    true = product(exact(first), exact(second))
    assert admits(compose(first, second), true)
    first = first.uncertain(1e-10, Sparse(matrix=first.magnitude.to_sparse() * 2.0**-500))
    assert admits(compose(first, second), product(exact(first) + allowance(first), exact(second)))


def tiny(found: LinearMap, power: int, rng: np.random.Generator) -> LinearMap:
    """Return the matrix of a map with its entries made smaller by up to 2^power, or its Selection or kernel."""

    def small(values: np.ndarray) -> np.ndarray:
        return np.ldexp(values, rng.integers(power, 1, size=values.shape))

    match found:
        case Selection() if found.weights is not None:
            return replace(found, weights=small(found.weights))
        case Convolution():
            return replace(found, kernel=small(found.kernel))
        case TransposedConvolution():
            return TransposedConvolution(forward=replace(found.forward, kernel=small(found.forward.kernel)))
        case Reindexed():
            return Reindexed(left=tiny_selection(found.left, small), core=found.core, right=found.right)
        case Dense():
            return Dense(matrix=small(found.matrix))
        case Sparse():
            matrix = found.matrix.copy()
            matrix.data = small(matrix.data)
            return Sparse(matrix=matrix)
    return found


def tiny_selection(found: Selection, small: Callable[[np.ndarray], np.ndarray]) -> Selection:
    return found if found.weights is None else replace(found, weights=small(found.weights))


def test_two_tiny_numbers() -> None:
    number = Dense(matrix=np.array([[1e-200]]))
    found = compose(number, number)
    assert found.slack is not None
    assert admits(found, product(exact(number), exact(number)))
    assert found.uncertain_norm < 1e-290


def test_a_product_that_underflows_before_it_is_multiplied_out() -> None:
    tiny = Selection.diagonal(np.full(1, 1e-170))
    kept = Reindexed(left=tiny, core=Dense(matrix=np.array([[1e-170]])), right=Selection.identity(1))
    found = compose(Dense(matrix=np.array([[1e3]])), kept)  # 1e-337, 0 in float64
    assert found.slack is not None
    assert found.slack.to_sparse().toarray()[0, 0] > 0


def test_ordinary_weights_pay_nothing_for_underflow() -> None:
    """Three float32 layers of the smallest weights there are."""
    number = Selection.diagonal(np.array([2.0**-149, 1.0]))
    found = compose(number, compose(number, number))
    assert found.slack is None


@pytest.mark.parametrize(
    "inner",
    [
        Dense(matrix=np.zeros((0, 3))),
        Sparse(matrix=Dense(matrix=np.zeros((0, 3))).to_sparse()),
    ],
)
def test_zeros_can_be_put_behind_nothing(inner: LinearMap) -> None:
    found = compose(Selection(index=np.array([-1, -1]), size_in=0), inner)
    assert found.to_sparse().shape == (2, 3)
