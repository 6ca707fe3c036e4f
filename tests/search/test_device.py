"""The door to accelerators: nothing passes beside it, and a device whose arithmetic is not what it says is refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain
from idl_audit.proof.check import check
from idl_audit.proof.convert import of_chain
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search import device
from idl_audit.search.branching import BranchOutcome, branch
from idl_audit.search.fast_gradients import searched
from idl_audit.search.judge import Judge
from idl_audit.values import products
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DeviceError, OptionError
from idl_audit.values.input_sets import NormBall
from idl_audit.values.query import Conjunction, Query
from tests.shared.budgets import enough
from tests.shared.elsewhere import THERE, Border, elsewhere
from tests.shared.gated_networks import GATED
from tests.shared.small_networks import layered, pooled_network, random_network

# --- the way there and back -------------------------------------------------------------------------------------------


def a_network(kind: str) -> ImplicitModel:
    rng = np.random.default_rng(3)
    if kind == "convolution":
        return pooled_network(rng)
    if kind in GATED:
        return GATED[kind](rng)
    return random_network(rng, p=3, widths=(6, 6, 5), q=2, activations=(kind,))


KINDS = ("relu", "leaky", "tanh", "softmax", "convolution", "a gated unit", "attention")


def refuted(model: ImplicitModel, *, ball: bool) -> tuple[BranchOutcome, list[str]]:
    """Return what comes of a query that is true and needs some branching, and what is wrong with its proof."""
    centre = np.zeros(model.n_inputs)
    box = Box.between(centre - 0.25, centre + 0.25)
    inputs = NormBall.around(centre, 0.25, "l2") if ball else box
    row = np.zeros(model.n_outputs)
    row[0] = 1.0
    rng = np.random.default_rng(0)
    least = (model(box.lo + rng.random((400, model.n_inputs)) * (box.hi - box.lo)) @ row).min()
    query = Query(inputs, (Conjunction(row[None], np.array([0.02 - least])),))
    chain = Chain()
    outcome = branch(model, query, budget=enough(), judge=Judge.of_model(model, query), record=chain)
    wrong = check(model, query, of_chain(model, query, chain)) if outcome.proved else []
    return outcome, wrong


QUICK = (("leaky", False), ("leaky", True), ("softmax", False), ("a gated unit", False))


@pytest.mark.parametrize(
    ("kind", "ball"),
    [
        *QUICK,
        *(
            pytest.param(kind, ball, marks=pytest.mark.slow)
            for kind, ball in itertools.product(KINDS, (False, True))
            if (kind, ball) not in QUICK and ball is (kind in ("relu", "softmax", "convolution"))
        ),
    ],
)
def test_branching_on_another_device_passes_through_the_door_and_proves_the_same(kind: str, ball: bool) -> None:
    model = a_network(kind)
    here, _ = refuted(model, ball=ball)
    with elsewhere() as border:
        there, wrong = refuted(model, ball=ball)
    assert border.operations > 50
    assert border.sent
    assert border.fetched
    assert not wrong
    assert there.proved == here.proved
    # Slopes that a processor's kernels round otherwise end at another bound; both are proved.
    np.testing.assert_allclose(there.lowers, here.lowers, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_on_another_device_see_the_same_network(kind: str) -> None:
    model = a_network(kind)
    points = np.random.default_rng(1).normal(size=(5, model.n_inputs)) * 0.3

    def seen() -> tuple[FloatArray, FloatArray]:
        return searched(model).slopes(points, lambda y: np.ones_like(y))

    y, slopes = seen()
    with elsewhere(Border(float64=False)) as border:
        found = seen()
    assert border.operations > 2
    np.testing.assert_allclose(found[0], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], slopes, rtol=1e-4, atol=1e-5)


def test_a_device_without_float64_searches_and_proves_here() -> None:
    model = a_network("leaky")
    with elsewhere(Border(float64=False)) as border:
        outcome, wrong = refuted(model, ball=False)
    assert outcome.proved
    assert not wrong
    assert border.operations > 50


def test_a_tensor_that_did_not_pass_the_door_is_caught() -> None:
    with elsewhere():
        there = device.tensor(np.ones(3))
        with pytest.raises(AssertionError, match="two devices"):
            there + torch.ones(3)
        with pytest.raises((TypeError, RuntimeError)):
            there.detach().numpy()
        np.testing.assert_array_equal(device.array(there + device.full((3,), 1.0)), 2 * np.ones(3))


FOLDER = Path(device.__file__).parent
BESIDE = re.compile(
    r"from_numpy|\.numpy\(\)|\.cpu\(\)|\.to\(|\.double\(\)|"
    r"torch\.(zeros|ones|full|empty|arange|tensor|as_tensor|linspace|eye|rand|randn)\("
)
ALLOWED = {
    "device.py": "the door",
    "torch_maps.py": "a sparse matrix is put together here and moved as a whole",
    "groups.py": "`.to` changes a type",
    "search_planes.py": "`.to` changes a type",
}


def test_numbers_pass_between_numpy_and_torch_at_the_door_alone() -> None:
    found = {path.name for path in FOLDER.rglob("*.py") if BESIDE.search(path.read_text(encoding="utf-8"))}
    assert found == set(ALLOWED)
    types = re.compile(r"\.to\((area\.dtype|torch\.uint8)\)|torch\.(from_numpy|sparse_csr_tensor)\(")
    for name in set(ALLOWED) - {"device.py"}:
        (path,) = FOLDER.rglob(name)
        assert not BESIDE.search(types.sub("", path.read_text(encoding="utf-8")))


# --- products of proofs -----------------------------------------------------------------------------------------------


def wide(rng: np.random.Generator) -> ImplicitModel:
    sizes = (20, 64, 64, 3)
    layers = [(rng.normal(size=(n, m)) / np.sqrt(m), rng.normal(size=n) * 0.1) for m, n in itertools.pairwise(sizes)]
    return layered(layers[:-1], layers[-1])


def bounds_of(model: ImplicitModel) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(2)
    box = Interval.of_boxes(Box.between(np.full(model.n_inputs, -0.05), np.full(model.n_inputs, 0.05)))
    rows = np.eye(model.n_outputs)
    lower = output_lower_bounds(model, box, backward_state_bounds(model, box), rows)
    points = rng.uniform(-0.05, 0.05, (500, model.n_inputs))
    return lower[0], model(points).min(axis=0)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_proofs_with_products_of_another_device_are_proofs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wide(np.random.default_rng(0)) if kind == "dense" else a_network("convolution")
    here, attained = bounds_of(model)
    monkeypatch.setattr(device, "WORTH", 64)
    with elsewhere() as border:
        there, _ = bounds_of(model)
    assert border.operations > 3
    assert (there <= attained).all()
    np.testing.assert_allclose(there, here, rtol=1e-12)


class Short(Border):
    """Makes products of float64 matrices in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.mm.default:
            found.inner = found.inner.float().double()
        return found


def test_what_is_no_product_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wide(np.random.default_rng(0))
    monkeypatch.setattr(device, "WORTH", 64)
    sentence = r"as far from the exact one as rounding explains.*--device cpu"
    with elsewhere(Short()), pytest.raises(DeviceError, match=sentence):
        bounds_of(model)


def test_products_are_numpys_where_nobody_else_makes_them_and_in_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.ones((2, 3)), np.ones((3, 2))
    asked: list[int] = []
    monkeypatch.setattr(products, "_maker", [lambda a, b: asked.append(1)])  # numpy is to make it
    np.testing.assert_array_equal(products.product(a, b), np.full((2, 2), 3.0))
    assert asked == [1]
    with products.by_numpy():
        products.product(a, b)
    assert asked == [1]
    assert products._maker
    model, query = a_network("relu"), Query(Box.between(-np.ones(3), np.ones(3)), (Conjunction(np.eye(2), np.ones(2)),))
    proof = of_chain(model, query, Chain())
    asked.clear()
    check(model, query, proof)
    assert not asked


def test_numbers_that_are_not_finite_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "WORTH", 1)
    for bad in (np.inf, np.nan, 1e300):
        a = np.full((4, 4), 1.0)
        a[0, 0] = bad
        with elsewhere():
            assert device._made_there(a, np.full((4, 4), 1e300)) is None


@pytest.mark.parametrize("shape", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5))])
def test_products_have_the_shapes_of_numpys(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "WORTH", 1)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape[0]), rng.normal(size=shape[1])
    with elsewhere():
        np.testing.assert_allclose(products.product(a, b), a @ b, rtol=1e-14)


@pytest.mark.parametrize("digits", [10, 24])
def test_the_look_at_a_product_finds_missing_digits(digits: int) -> None:
    rng = np.random.default_rng(digits)
    a, b = rng.normal(size=(50, 300)), rng.normal(size=(300, 40))
    assert 0 <= device._excess(a, b, a @ b) < 0.1  # type: ignore[operator]
    one_entry = a @ b
    one_entry[3, 4] *= 1 + 2.0**-digits
    assert device._excess(a, b, one_entry) > 1  # type: ignore[operator]


# --- devices that are not what they say -------------------------------------------------------------------------------


def rounded_to(digits: int) -> Callable[[AnyArray], AnyArray]:
    def rounded(values: AnyArray) -> AnyArray:
        mantissa, exponent = np.frexp(values)
        return np.asarray(np.ldexp(np.round(mantissa * 2.0**digits) / 2.0**digits, exponent), values.dtype)

    return rounded


def plain(place: object, a: AnyArray, b: AnyArray) -> AnyArray:
    return np.asarray(a @ b)


def short_inputs(place: object, a: AnyArray, b: AnyArray) -> AnyArray:
    """TensorFloat-32: eleven digits of the factors of float32 matrices."""
    return plain(place, *(rounded_to(11)(part) if part.dtype == np.float32 else part for part in (a, b)))


def single_for_double(place: object, a: AnyArray, b: AnyArray) -> AnyArray:
    return np.asarray((a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype))


def by_the_scale_of_rows(place: object, a: AnyArray, b: AnyArray) -> AnyArray:
    """Float64 put together of whole numbers: 60 digits from each row's largest number on."""
    if a.dtype == np.float32:
        return plain(place, a, b)
    scale = 2.0 ** (59 - np.frexp(np.abs(a).max(axis=1, keepdims=True))[1])
    return plain(place, np.round(a * scale) / scale, b)


def without_small_numbers(place: object, a: AnyArray, b: AnyArray) -> AnyArray:
    made = plain(place, *(np.where(np.abs(part) < np.finfo(part.dtype).tiny, 0, part) for part in (a, b)))
    return np.where(np.abs(made) < np.finfo(made.dtype).tiny, 0, made)


def only_large_ones(lie: Callable[..., AnyArray]) -> Callable[..., AnyArray]:
    return lambda place, a, b: (lie if len(a) > 64 else plain)(place, a, b)


PLACE = device._Place(THERE, "a device", doubles=True, sparse=True)


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (short_inputs, "does not multiply float32 matrices of 8 rows in float32"),
        (only_large_ones(short_inputs), "does not multiply float32 matrices of 512 rows in float32"),
        (single_for_double, "does not multiply float64 matrices of 8 rows in float64"),
        (only_large_ones(single_for_double), "does not multiply float64 matrices of 512 rows in float64"),
        (by_the_scale_of_rows, "does not multiply float64 matrices of 8 rows in float64"),
        (without_small_numbers, "loses small numbers in float64 matrices of 8 rows"),
    ],
)
def test_a_device_with_other_arithmetic_is_refused(
    lie: Callable[..., AnyArray], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_product", lie)
    monkeypatch.setattr(device, "_found", lambda name: PLACE)
    with pytest.raises(OptionError, match=f"--device cuda: a device {sentence}; search with --device cpu"):
        device.use("cuda")
    assert products.place() == "cpu"


def test_a_device_that_works_as_it_should_is_used_until_another_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_product", plain)
    monkeypatch.setattr(device, "_found", lambda name: PLACE)
    try:
        device.use("cuda")
        assert products.place() == "a device"
        assert products._maker
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        device.use("auto")
        assert products.place() == "cpu"
        assert not products._maker
    finally:
        device.use("cpu")


def test_a_word_to_the_libraries_that_shortens_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_product", plain)
    monkeypatch.setattr(device, "_found", lambda name: PLACE)
    monkeypatch.setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "1")
    with pytest.raises(OptionError, match="CUBLAS_EMULATE_DOUBLE_PRECISION is '1' in the environment; unset it"):
        device.use("cuda")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(name: str) -> None:
    there = torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available()
    if there:
        pytest.skip(f"there is a {name} device here")
    with pytest.raises(OptionError, match=f"--device {name}: there is no such device here.*--device cpu"):
        device.use(name)
