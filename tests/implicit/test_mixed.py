"""Mixed activations and blocks with a scale of their own a state: the same as their parts, and sound."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS, COUPLED, Activation, Mixed
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.implicit.storage import load_model, save_model
from idl_audit.values.errors import ModelFileError
from tests.shared.cyclic_models import plain
from tests.shared.exact_activations import EXAMPLES

seeds = st.integers(0, 2**32 - 1)
NAMES = sorted({*EXAMPLES, *COUPLED})  # others are in no loop
BOUNDED = [name for name in NAMES if name not in ("contraction", "product")]
"""Those whose slopes have a bound."""


def some_part(rng: np.random.Generator, name: str, size: int) -> Activation:
    if name == "softmax":
        return ACTIVATIONS[name](width=float(size))
    if name in ("product", "contraction") and size % 2:
        return ACTIVATIONS["relu"]()
    if name == "normalised":
        return ACTIVATIONS[name](size + 0.0) if size > 1 else ACTIVATIONS["relu"]()
    if name == "contraction":
        return ACTIVATIONS[name](1, size // 2, 1)
    if name == "leaky_relu":
        return ACTIVATIONS[name](alpha=rng.normal(size=size))  # a PReLU
    return ACTIVATIONS[name]()


def some_mixture(rng: np.random.Generator, names=NAMES) -> Mixed:
    sizes = tuple(int(n) for n in rng.integers(1, 4, int(rng.integers(1, 5))))
    return Mixed(tuple(some_part(rng, str(rng.choice(names)), n) for n in sizes), sizes)


def pieces(mixed: Mixed, array: np.ndarray) -> list[np.ndarray]:
    return np.split(array, np.cumsum(mixed.sizes)[:-1], axis=-1)


def some_box(rng: np.random.Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    middle = rng.normal(size=(m, n)) * rng.choice([0.1, 2, 20])
    radius = np.abs(rng.normal(size=(m, n))) * rng.choice([0, 0.1, 3])
    return middle - radius, middle + radius


# ---------------------------------------------------------------------------------------------- its parts


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(1, 4))
def test_a_mixture_is_its_parts(seed, m):
    rng = np.random.default_rng(seed)
    mixed = some_mixture(rng, BOUNDED)
    n = sum(mixed.sizes)
    z, v, lam = (rng.normal(size=(m, n)) for _ in range(3))
    lo, hi = some_box(rng, m, n)
    own = [pieces(mixed, array) for array in (z, v, lam, lo, hi, np.abs(v))]
    for j, part in enumerate(mixed.parts):
        zj, vj, lamj, loj, hij, sizej = (arrays[j] for arrays in own)

        def at(result: np.ndarray, j: int = j) -> np.ndarray:
            return pieces(mixed, np.asarray(result))[j]

        np.testing.assert_array_equal(at(mixed(z)), part(zj))
        np.testing.assert_array_equal(at(mixed.derivative(z)), part.derivative(zj))
        np.testing.assert_array_equal(at(mixed.pull_back(z, v)), part.pull_back(zj, vj))
        np.testing.assert_array_equal(at(mixed.spread(np.abs(v))), part.spread(sizej))
        for whole, single in (
            (mixed.slopes(lo, hi), part.slopes(loj, hij)),
            (mixed.interval(lo, hi), part.interval(loj, hij)),
            (mixed.relaxation_slopes(lo, hi), part.relaxation_slopes(loj, hij)),
        ):
            for w, s in zip(whole, single, strict=True):
                np.testing.assert_array_equal(at(w), np.broadcast_to(s, loj.shape))
        np.testing.assert_array_equal(
            at(mixed.lower_support(v, np.abs(v), lam, lo, hi)), part.lower_support(vj, sizej, lamj, loj, hij)
        )
        np.testing.assert_array_equal(pieces(mixed, mixed.lipschitz)[j], np.zeros(mixed.sizes[j]) + part.lipschitz)


def test_traits_are_those_of_all_parts():
    relu, leaky, tanh, softmax = (
        ACTIVATIONS["relu"](),
        ACTIVATIONS["leaky_relu"](),
        ACTIVATIONS["tanh"](),
        ACTIVATIONS["softmax"](width=2.0),
    )
    two = Mixed((relu, leaky), (1, 2))
    assert (two.positively_homogeneous, two.piecewise_linear, two.coupled) == (True, True, False)
    three = Mixed((relu, tanh), (1, 2))
    assert (three.positively_homogeneous, three.piecewise_linear, three.coupled) == (False, False, False)
    assert Mixed((relu, softmax), (1, 2)).coupled


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_spread_bounds_the_change_of_every_state(seed):
    """|dx| <= Gamma |dz|, Gamma the rows that spread gives for unit vectors."""
    rng = np.random.default_rng(seed)
    mixed = some_mixture(rng, BOUNDED)
    n = sum(mixed.sizes)
    gamma = mixed.spread(np.eye(n))
    first = rng.normal(size=(40, n)) * 2
    second = first + rng.normal(size=(40, n)) * 10.0 ** rng.uniform(-3, 1, (40, 1))
    assert (np.abs(mixed(first) - mixed(second)) <= np.abs(first - second) @ gamma.T + 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_bounds_of_a_mixture_hold_inside_the_box(seed):
    rng = np.random.default_rng(seed)
    mixed = some_mixture(rng)
    n = sum(mixed.sizes)
    (lo,), (hi,) = some_box(rng, 1, n)
    z = lo + rng.random((60, n)) * (hi - lo)
    z[:2] = lo, hi
    x = mixed(z)
    low, high = mixed.interval(lo, hi)
    assert ((low <= x) & (x <= high)).all()
    below, above = mixed.lines(lo, hi)
    for slope, cut in below:
        assert (slope * z + cut <= x + 1e-9 * (1 + np.abs(x) + np.abs(z))).all()
    for slope, cut in above:
        assert (slope * z + cut >= x - 1e-9 * (1 + np.abs(x) + np.abs(z))).all()
    v, lam = rng.normal(size=(2, n))
    least = mixed.lower_support(v, np.full(n, 1e-3), lam, lo, hi)
    if not mixed.coupled:
        assert (least <= (v + 1e-3 * np.sign(rng.normal(size=n))) * x - lam * z).all()
    assert least.sum() <= (v * x - lam * z).sum(axis=1).min()
    if mixed.coupled:
        return
    a, g = mixed.slopes(lo, hi)
    rise, run = x[:, None] - x[None], z[:, None] - z[None]
    wide = np.abs(run) > 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = rise / run
    assert (slope[wide] >= np.broadcast_to(a, run.shape)[wide] - 1e-6).all()
    assert (slope[wide] <= np.broadcast_to(g, run.shape)[wide] + 1e-6).all()


def test_parts_with_fewer_lines_repeat_their_last():
    mixed = Mixed((ACTIVATIONS["relu"](), ACTIVATIONS["tanh"](), ACTIVATIONS["softmax"](width=1.0)), (1, 1, 1))
    below, above = mixed.lines(np.full(3, -1.0), np.full(3, 2.0))
    assert len(below) == max(len(part.lines(np.full(1, -1.0), np.full(1, 2.0))[0]) for part in mixed.parts)
    assert all(slope.shape == cut.shape == (3,) for slope, cut in [*below, *above])


# ---------------------------------------------------------------------------------------------- scaled blocks


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_a_scale_a_state_keeps_the_bounds(seed):
    """x = 2^-e phi(2^e z): values, slopes, intervals, lines and supports of the scaled function."""
    rng = np.random.default_rng(seed)
    mixed = some_mixture(rng, [name for name in NAMES if name not in COUPLED])
    n = sum(mixed.sizes)
    exponents = rng.integers(0, 7, n)
    block = StateBlock("s", "given", mixed, (1, n), exponent=exponents)
    scale = 2.0**exponents
    (lo,), (hi,) = some_box(rng, 1, n)
    z = lo + rng.random((40, n)) * (hi - lo)
    x = block(z)
    np.testing.assert_array_equal(x, mixed(z * scale) / scale)
    np.testing.assert_array_equal(block.derivative(z), mixed.derivative(z * scale))
    low, high = block.interval(lo, hi)
    assert ((low <= x) & (x <= high)).all()
    v, lam = rng.normal(size=(2, n))
    assert (block.lower_support(v, np.zeros(n), lam, lo, hi) <= v * x - lam * z).all()
    below, above = block.lines(lo, hi)
    tolerance = 1e-9 * (1 + np.abs(x) + np.abs(z))
    assert all((slope * z + cut <= x + tolerance).all() for slope, cut in below)
    assert all((slope * z + cut >= x - tolerance).all() for slope, cut in above)
    a, g = block.slopes(lo, hi)
    chord = (x[1:] - x[:-1]) / np.where(z[1:] == z[:-1], 1, z[1:] - z[:-1])
    wide = np.abs(z[1:] - z[:-1]) > 1e-6
    assert (chord >= a - 1e-6)[wide].all()
    assert (chord <= g + 1e-6)[wide].all()
    least, most = block.everywhere
    np.testing.assert_allclose(np.maximum(np.abs(least), np.abs(most)), mixed.lipschitz, rtol=1e-9)


@pytest.mark.parametrize("exponent", [28, 800])
def test_slopes_everywhere_under_a_large_scale(exponent):
    block = StateBlock("s", "given", ACTIVATIONS["tanh"](), (1, 2), exponent=exponent)
    least, most = block.everywhere
    np.testing.assert_allclose((least, most), ([0, 0], [1, 1]), atol=1e-12)


def test_a_loop_of_tanh_that_needs_a_large_scale_is_well_posed_before_and_after():
    model = plain([[0, 1e12], [0.1e-12, 0]], np.ones((2, 1)), np.ones((1, 2)), "tanh")
    scaled = rescale(model)
    assert scaled.scaling.norm_after < 1
    assert scaled.is_well_posed


# ---------------------------------------------------------------------------------------------- files


def as_model(block: StateBlock) -> ImplicitModel:
    n = block.size
    rng = np.random.default_rng(0)
    row = Affine({0: Dense(matrix=rng.normal(size=(n, n)) * 0.05)}, Dense(matrix=rng.normal(size=(n, 2))), np.ones(n))
    return ImplicitModel((block,), (row,), Affine({0: Dense(matrix=np.eye(n))}, None, np.zeros(n)), (1, 2), (1, n))


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_mixtures_come_back_from_disk(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    mixed = some_mixture(rng)
    n = sum(mixed.sizes)
    exponents = rng.integers(0, 9, n) if not mixed.coupled else 3
    model = as_model(StateBlock("mixture", "given", mixed, (1, n), exponent=exponents))
    path = tmp_path_factory.mktemp("mixed") / "m.npz"
    save_model(path, model, origin={})
    (back,) = load_model(path).model.blocks
    assert isinstance(back.activation, Mixed)
    assert back.activation.sizes == mixed.sizes
    assert [part.name for part in back.activation.parts] == [part.name for part in mixed.parts]
    z = rng.normal(size=(5, n))
    np.testing.assert_array_equal(back(z), model.blocks[0](z))
    np.testing.assert_array_equal(back.exponent, exponents)
    lo, hi = some_box(rng, 2, n)
    for first, second in zip(back.slopes(lo, hi), model.blocks[0].slopes(lo, hi), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.pop(),
        lambda parts: parts.append(parts[0]),
        lambda parts: parts[0].update(size=0),
        lambda parts: parts[0].update(size=-1),
        lambda parts: parts[0].update(activation="unknown"),
        lambda parts: parts[0].update(activation="mixed"),
        lambda parts: parts[0].update(parts=[dict(parts[1])]),
        lambda parts: parts[0].update(parameters={"alpha": 1.0}),
        lambda parts: parts[1].update(parameters={"width": 3.0}),
        lambda parts: parts[1].update(parameters={"width": 0.0}),
        lambda parts: parts[2].update(parameters={"alpha": -1.0}),
        lambda parts: parts.clear(),
    ],
)
def test_a_file_with_other_parts_is_refused(tmp_path, change):
    path = tmp_path / "m.npz"
    mixed = Mixed((ACTIVATIONS["relu"](), ACTIVATIONS["softmax"](width=2.0), ACTIVATIONS["elu"](alpha=0.5)), (1, 2, 1))
    save_model(path, as_model(StateBlock("m", "given", mixed, (1, 4))), origin={})
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"][()]))
    change(meta["blocks"][0]["parts"])
    np.savez(path, **{**arrays, "meta": np.asarray(json.dumps(meta))})
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
