"""One output as two classes: the class is that of y > T for every input, and the inverse's rounding is paid for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.linear_maps import Dense, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.implicit.storage import load_model, save_model
from idl_audit.implicit.threshold import RISING, Threshold, with_threshold
from idl_audit.values.arrays import FloatArray

P = 3
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((200, P))


def block(name: str, size: int) -> StateBlock:
    return StateBlock(name, name.title(), ACTIVATIONS[name](), (1, size))


def row(states: dict[int, FloatArray], inputs: FloatArray | None, constant: list[float]) -> Affine:
    maps = {k: Dense(matrix=np.asarray(matrix, float)) for k, matrix in states.items()}
    return Affine(
        maps, None if inputs is None else Dense(matrix=np.asarray(inputs, float)), np.asarray(constant, float)
    )


def last(name: str, size: int = 1) -> ImplicitModel:
    """Return y = phi(w relu(W u + b) + c), phi the named activation; of several states the second is the output."""
    rng = np.random.default_rng(size)
    W, b, w = rng.standard_normal((5, P)), rng.standard_normal(5), rng.standard_normal((size, 5)) / 4
    middle = np.median(np.maximum(INPUTS @ W.T + b, 0) @ w.T, axis=0)
    read = Selection(index=np.array([size - 1]), size_in=size)
    hidden, ends = row({}, W, b.tolist()), row({1: w}, None, (-middle).tolist())
    return ImplicitModel(
        (block(name, size), block("relu", 5)), (ends, hidden), Affine({0: read}, None, np.zeros(1)), (1, P), (1, 1)
    )


def plain() -> ImplicitModel:
    """Return y = w relu(W u + b) + D u + d."""
    hidden = row({}, RNG.standard_normal((5, P)), RNG.standard_normal(5).tolist())
    output = row({0: RNG.standard_normal((1, 5))}, RNG.standard_normal((1, P)), [0.5])
    return ImplicitModel((block("relu", 5),), (hidden,), output, (1, P), (1, 1))


def stored(model: ImplicitModel, folder: Path) -> ImplicitModel:
    save_model(folder / "m.npz", model, origin={})
    return load_model(folder / "m.npz").model


MODELS = {
    "plain": plain(),
    "sigmoid": last("sigmoid"),
    "tanh": last("tanh"),
    "one of two sigmoids": last("sigmoid", 2),
    "relu": last("relu"),
    "rescaled sigmoid": rescale(last("sigmoid"), kappa=0.5),
    "rescaled tanh": rescale(last("tanh", 2), kappa=0.01),
}
LEFT_OUT = {"sigmoid": "Sigmoid", "tanh": "Tanh", "plain": "", "relu": ""}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_the_class_is_1_where_the_output_is_above_the_threshold(name: str, share: float) -> None:
    model = MODELS[name]
    value = float(np.quantile(model(INPUTS), share))
    found, threshold = with_threshold(model, value)
    assert found.n_outputs == 2
    assert threshold.operator == LEFT_OUT[name.split()[-1].removesuffix("s")]
    y, scores = model(INPUTS), found(INPUTS)
    assert (scores.argmax(axis=1) == (y[:, 0] > value)).all()
    assert (scores[:, 0] == 0).all()
    if not threshold.activation:
        np.testing.assert_allclose(scores[:, 1], y[:, 0] - value, rtol=0, atol=1e-12)
    else:
        phi = model.blocks[0].activation
        middle = RISING[threshold.activation].at(value)
        np.testing.assert_allclose(phi(scores[:, 1] + middle), y[:, 0], rtol=0, atol=1e-12)
    assert 0 < (y[:, 0] > value).sum() < len(y)


@pytest.mark.parametrize("name", ["sigmoid", "rescaled sigmoid"])
def test_a_stored_model_is_read_the_same_way(tmp_path: Path, name: str) -> None:
    found, threshold = with_threshold(stored(MODELS[name], tmp_path), 0.3)
    assert threshold.operator == "Sigmoid"
    np.testing.assert_array_equal(found(INPUTS), with_threshold(MODELS[name], 0.3)[0](INPUTS))


def test_an_output_that_is_more_than_the_last_activation_keeps_it() -> None:
    model = last("sigmoid")
    shifted = ImplicitModel(
        model.blocks, model.rows, Affine(model.output.states, None, np.array([0.5])), (1, P), (1, 1)
    )
    assert with_threshold(shifted, 1.0)[1].operator == ""
    halved = Affine({0: Selection(index=np.array([0]), size_in=1, weights=np.array([0.5]))}, None, np.zeros(1))
    assert with_threshold(ImplicitModel(model.blocks, model.rows, halved, (1, P), (1, 1)), 0.3)[1].operator == ""
    assert with_threshold(model, 1.5)[1].operator == ""


inside = st.floats(0, 1, exclude_min=True, exclude_max=True, allow_nan=False)


@given(inside)
def test_the_error_of_the_logit_is_in_the_constant(value: float) -> None:
    model, _ = with_threshold(last("sigmoid"), value)
    with mpmath.workdps(1200):  # 1 - T is exact, however small T is
        T = mpmath.mpf(value)
        exact = mpmath.log(T / (1 - T))
        base = MODELS["sigmoid"].rows[0].constant[0]
        assert abs(mpmath.mpf(float(model.output.constant[1])) - (base - exact)) <= model.output.constant_error
    assert model.output.constant_error < 1e-12


@given(st.floats(-1, 1, exclude_min=True, exclude_max=True, allow_nan=False))
def test_the_error_of_the_artanh_is_in_the_constant(value: float) -> None:
    model, _ = with_threshold(last("tanh"), value)
    with mpmath.workdps(1200):
        exact = mpmath.atanh(mpmath.mpf(value))
        base = MODELS["tanh"].rows[0].constant[0]
        assert abs(mpmath.mpf(float(model.output.constant[1])) - (base - exact)) <= model.output.constant_error


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_the_sign_of_a_score_is_that_of_the_exact_difference(y: float, value: float) -> None:
    with np.errstate(over="ignore"):
        (scores,) = Threshold(value).scores(np.array([[y]]))
    difference = Fraction(y) - Fraction(value)
    assert (scores[1] > 0, scores[1] < 0) == (difference > 0, difference < 0)
    assert scores[0] == 0


def test_a_margin_pays_for_what_the_last_operator_hides() -> None:
    assert Threshold(3.0).margin(0.25) == 0.25
    half = Threshold(0.5, "Sigmoid", "sigmoid").margin(0.0)
    assert 3e-6 < half < 5e-6
    assert Threshold(1 - 1e-9, "Sigmoid", "sigmoid").margin(0.0) == np.inf
    wide = Threshold(0.9, "Sigmoid", "sigmoid").margin(0.05)
    logit = RISING["sigmoid"].at
    assert wide >= max(logit(0.95) - logit(0.9), logit(0.9) - logit(0.85))
