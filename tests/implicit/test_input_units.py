"""in_data_units: the model of the data is the model of the preprocessed data."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.scaling import rescale
from tests.shared.implicit_models import built, floats, node, read
from tests.shared.map_examples import admits, exact, rational
from tests.shared.random_networks import FAMILIES

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@given(seed=SEEDS)
@settings(deadline=None, max_examples=2)
def test_the_model_of_the_data_is_the_model_of_the_preprocessed_data(family: str, seed: int) -> None:
    model = build_implicit(read(FAMILIES[family](seed).proto()))
    rng = np.random.default_rng(seed)
    p = model.n_inputs
    scale, mean, std = 1 / 255, rng.normal(size=p), 0.1 + rng.random(p)
    found = in_data_units(model, scale / std, -mean / std)
    u = 255 * rng.random((4, p))
    expected = model((u * scale - mean) / std)
    np.testing.assert_allclose(found(u), expected, rtol=0, atol=1e-10 * (1 + np.abs(expected).max()))
    assert (found.input_shape, found.output_shape, found.blocks) == (
        model.input_shape,
        model.output_shape,
        model.blocks,
    )
    with_scaling = rescale(model)
    np.testing.assert_allclose(
        in_data_units(with_scaling, scale / std, -mean / std)(u),
        expected,
        rtol=0,
        atol=1e-10 * (1 + np.abs(expected).max()),
    )


def test_nothing_to_fold_changes_nothing() -> None:
    model = build_implicit(read(FAMILIES["dense"](3).proto()))
    assert in_data_units(model, np.ones(model.n_inputs), np.zeros(model.n_inputs)) is model


def test_a_scale_per_channel_keeps_convolutions_and_zero_padding_keeps_its_meaning() -> None:
    rng = np.random.default_rng(0)
    model = built(
        [node("Conv", "x w", "h", pads=[1] * 4), node("Relu", "h")], (1, 3, 4, 4), {"w": floats(rng, 2, 3, 3, 3)}
    )
    factor, offset = np.repeat([4.0, 5.0, 3.0], 16), np.repeat([-2.0, -1.0, 0.5], 16)
    found = in_data_units(model, factor, offset)
    assert isinstance(found.rows[0].input, Convolution)
    u = rng.random((3, 48))
    np.testing.assert_allclose(found(u), model(factor * u + offset), rtol=0, atol=1e-12)


def test_a_factor_per_pixel_a_factor_of_0_and_an_offset_alone() -> None:
    rng = np.random.default_rng(0)
    model = built(
        [
            node("Conv", "x w", "h"),
            node("Tanh", "h", "t"),
            node("Flatten", "t", "a"),
            node("Flatten", "x", "b"),
            node("Concat", "a b", axis=1),
        ],
        (1, 1, 4, 4),
        {"w": floats(rng, 2, 1, 3, 3)},
    )
    u = rng.random((3, 16))
    for factor, offset in [
        (rng.normal(size=16), np.zeros(16)),
        (np.zeros(16), rng.normal(size=16)),
        (np.ones(16), rng.normal(size=16)),
    ]:
        np.testing.assert_allclose(
            in_data_units(model, factor, offset)(u), model(factor * u + offset), rtol=0, atol=1e-12
        )


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_the_errors_cover_the_rounding_of_mean_and_scale(seed: int) -> None:
    """factor = scale / std and offset = -mean / std round; B and b admit it."""
    rng = np.random.default_rng(seed)
    w, c = floats(rng, 3, 2), floats(rng, 2)
    model = built([node("Gemm", "x w c")], (1, 3), {"w": w, "c": c})
    scale, mean, std = 1 / 255, rng.normal(size=3), 0.1 + rng.random(3)
    found = in_data_units(model, scale / std, -mean / std)
    assert found.output.input is not None
    diagonal = [Fraction(scale) / Fraction(float(s)) for s in std]
    shift = [-Fraction(float(m)) / Fraction(float(s)) for m, s in zip(mean, std, strict=True)]
    assert model.output.input is not None
    matrix = exact(model.output.input)
    assert admits(found.output.input, matrix * np.array(diagonal, dtype=object)[None, :])
    true = (matrix * np.array(shift, dtype=object)[None, :]).sum(axis=1) + rational(c.astype(float))
    off = max(abs(t - Fraction(float(r))) for t, r in zip(true, found.output.constant, strict=True))
    assert off <= Fraction(found.output.constant_error)
    assert found.output.constant_error < 1e-12
