"""monDEQ state dicts: the formula, the normalisation, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import idl_audit
from idl_audit.commands.shared.subject import open_subject
from idl_audit.values.errors import ModelFileError, OptionError


def state_dict(rng, n=5, p=4, q=3, prefix="mon.linear_module."):
    def made(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    return {
        f"{prefix}A.weight": made(n, n),
        f"{prefix}B.weight": made(n, n),
        f"{prefix}U.weight": made(n, p),
        f"{prefix}U.bias": made(n),
        "Wout.weight": made(q, n),
        "Wout.bias": made(q),
    }


@pytest.mark.parametrize("prefix", ["", "mon.linear_module.", "module.core."])
def test_the_model_is_the_equilibrium_of_the_formula(prefix):
    rng = np.random.default_rng(0)
    weights, m, mean, std = state_dict(rng, prefix=prefix), 0.5, 0.3, 0.7
    model = idl_audit.from_mondeq(weights, m=m, mean=mean, std=std)
    own = {name.removeprefix(prefix): value.double().numpy() for name, value in weights.items()}
    A, B = own["A.weight"], own["B.weight"]
    W = (1 - m) * np.eye(5) - A.T @ A + B - B.T
    (loop,) = model.loops.values()
    np.testing.assert_allclose(loop.A.matrix, W, rtol=1e-12, atol=1e-12)
    assert loop.A.error is None
    assert model.is_well_posed
    u = rng.random((6, 4))
    solved = model.solve(u)
    drive = (u - mean) / std @ own["U.weight"].T + own["U.bias"]
    x = solved.states[0]
    np.testing.assert_allclose(x, np.maximum(x @ W.T + drive, 0), atol=1e-9)
    np.testing.assert_allclose(model(u), x @ own["Wout.weight"].T + own["Wout.bias"], atol=1e-9)


def test_one_mean_and_one_std_for_each_input():
    rng = np.random.default_rng(1)
    weights = state_dict(rng)
    mean, std = rng.random(4), 0.5 + rng.random(4)
    plain = idl_audit.from_mondeq(weights, m=1.0)
    model = idl_audit.from_mondeq(weights, m=1.0, mean=mean, std=std)
    u = rng.random((5, 4))
    np.testing.assert_allclose(model(u), plain((u - mean) / std), atol=1e-9)


def test_files_in_and_out(tmp_path):
    rng = np.random.default_rng(2)
    weights = state_dict(rng)
    torch.save(weights, tmp_path / "weights.pt")
    out = tmp_path / "model.npz"
    model = idl_audit.from_mondeq(tmp_path / "weights.pt", m=1.0, std=0.5, save=out)
    u = rng.random((5, 4))
    np.testing.assert_array_equal(open_subject(out).model(u), model(u))
    np.testing.assert_array_equal(idl_audit.from_mondeq(weights, m=1.0, std=0.5)(u), model(u))
    with pytest.raises(OptionError, match="exists"):
        idl_audit.from_mondeq(weights, m=1.0, save=out)


def changed(**changes):
    weights = state_dict(np.random.default_rng(3))
    for name, value in changes.items():
        key = next(key for key in weights if key.endswith(name.replace("_", ".")))
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    return weights


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (changed(A_weight=None), "no parameters named A.weight"),
        (changed(Wout_bias=None), "no parameters named Wout.bias"),
        (changed(B_weight=torch.zeros(5, 4)), "B.weight has the shape"),
        (changed(U_bias=torch.full((5,), float("nan"))), "finite numbers"),
        (changed(U_bias=torch.zeros(5, dtype=torch.int64)), "finite numbers"),
        ({**changed(), "other.A.weight": torch.zeros(5, 5)}, "2 parameters named A.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_sentence(weights, sentence):
    with pytest.raises(ModelFileError, match=sentence):
        idl_audit.from_mondeq(weights, m=1.0)


@pytest.mark.parametrize(
    "options", [{"m": 0.0}, {"m": float("nan")}, {"m": 1, "std": 0.0}, {"m": 1, "mean": [0.0, 1.0]}]
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(OptionError):
        idl_audit.from_mondeq(changed(), **options)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="no file"):
        idl_audit.from_mondeq(tmp_path / "nothing.pt", m=1.0)


def fixed_point(rng, n=5, p=4, q=3):
    made = {"W": (n, n), "U": (n, p), "b": (n,), "C": (q, n), "d": (q,)}
    return {name: torch.from_numpy(0.1 * rng.normal(size=shape).astype(np.float32)) for name, shape in made.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_fixed_point_layer_is_its_equation(tmp_path, activation):
    rng = np.random.default_rng(3)
    own = fixed_point(rng)
    called = {"W": "f.core.weight", "U": "f.U.weight", "b": "f.U.bias", "C": "Wout.weight", "d": "Wout.bias"}
    torch.save({called[name]: value for name, value in own.items()}, tmp_path / "deq.pt")
    model = idl_audit.from_fixed_point(
        tmp_path / "deq.pt",
        activation=activation,
        names={"W": "core.weight"},
        mean=0.5,
        std=2.0,
        save=tmp_path / "deq.npz",
    )
    assert model.is_well_posed
    W, U, b, C, d = (own[name].double().numpy() for name in "WUbCd")
    u = rng.random((6, 4))
    (x,) = model.solve(u).states
    phi = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}[activation]
    np.testing.assert_allclose(x, phi(x @ W.T + (u - 0.5) / 2 @ U.T + b), atol=1e-9)
    np.testing.assert_allclose(model(u), x @ C.T + d, atol=1e-9)
    np.testing.assert_array_equal(open_subject(tmp_path / "deq.npz").model(u), model(u))


def test_what_is_no_fixed_point_layer_is_refused():
    own = fixed_point(np.random.default_rng(4))
    for options, words in (
        ({"activation": "leaky_relu"}, "no activation 'leaky_relu'"),
        ({"names": {"V": "x"}}, "names speaks of 'V'"),
        ({"std": 0}, "std must not be 0"),
    ):
        with pytest.raises(OptionError, match=words):
            idl_audit.from_fixed_point(own, **options)
    with pytest.raises(ModelFileError, match=r"no parameters named core; a fixed-point layer has core, U\.weight"):
        idl_audit.from_fixed_point(own, names={"W": "core"})
    with pytest.raises(ModelFileError, match=r"U\.weight has the shape \(4, 4\)"):
        idl_audit.from_fixed_point({**own, "U": own["U"][:4]})
