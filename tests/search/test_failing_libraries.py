"""Linear algebra that fails, or answers with what is no number: a sentence or no proof, never a crash or a verdict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.kinked import relu
from idl_audit.implicit.gradients import gradient
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.centre_radius import METHODS
from idl_audit.measure.spectral import spectral_scalar
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.sensitivity_witness import make_witness
from idl_audit.values.box import Box
from idl_audit.values.errors import IdlAuditError
from tests.shared.small_networks import layered

FUNCTIONS = ("inv", "pinv", "solve", "lstsq", "norm", "svd", "cholesky", "eigh", "eigvalsh", "eigvals")
BOX = Box.between(np.full(2, -1.0), np.ones(2))


def loop(seed: int = 0, activation: str = "relu", n: int = 5) -> ImplicitModel:
    """x = phi(A x + B u + b), y = C x + d: a loop that is well-posed, and attacked within the box."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) * 0.15 - 0.5 * np.eye(n)
    phi = relu() if activation == "relu" else ACTIVATIONS[activation]()
    row = Affine({0: Dense(matrix=A)}, Dense(matrix=rng.normal(size=(n, 2))), rng.normal(size=n))
    output = Affine({0: Dense(matrix=np.array([[1.0] * n, [0.0] * n]))}, None, np.array([0.0, 1.0]))
    return ImplicitModel((StateBlock("loop", "Relu", phi, (n,)),), (row,), output, (2,), (2,))


def fails(*_: object, **__: object) -> None:
    raise np.linalg.LinAlgError("it did not converge")


def no_numbers(real: Callable[..., object]) -> Callable[..., object]:
    """Return a function whose answers have the right shapes and hold nothing but NaN."""

    def spoiled(value: object) -> object:
        return np.full_like(value, np.nan) if isinstance(value, np.ndarray) else np.nan

    def answer(*given: object, **options: object) -> object:
        found = real(*given, **options)
        if isinstance(found, tuple):
            parts = [spoiled(part) for part in found]
            return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
        return spoiled(found)

    return answer


def steps(model: ImplicitModel) -> dict[str, Callable[[], object]]:
    inputs = Interval.of_boxes(BOX)
    u = np.random.default_rng(1).uniform(-1, 1, (3, 2))
    return {
        "evaluate": lambda: model(u),
        "gradient": lambda: gradient(model, u, np.ones((3, 2))),
        "well posed": lambda: model.is_well_posed,
        "intervals": lambda: interval_bounds(model, inputs),
        "lines": lambda: backward_state_bounds(model, inputs),
        **{f"S, {name}": lambda name=name: METHODS[name](model, None, 10**9) for name in METHODS},
        "witness": lambda: make_witness(model),
        "rescale": lambda: rescale(model),
        "spectral": lambda: spectral_scalar(model),
    }


def feed_forward() -> ImplicitModel:
    rng = np.random.default_rng(2)
    return layered([(rng.normal(size=(4, 2)), rng.normal(size=4))], (rng.normal(size=(2, 4)), np.zeros(2)))


@pytest.mark.parametrize("how", ["fails", "no numbers"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["relu", "tanh", "feed-forward"])
def test_linear_algebra_that_fails_is_no_crash(kind: str, name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.linalg, name, fails if how == "fails" else no_numbers(getattr(np.linalg, name)))
    with np.errstate(all="ignore"):
        for what, step in steps(feed_forward() if kind == "feed-forward" else loop(activation=kind)).items():
            try:
                step()
            except IdlAuditError:
                continue
            except Exception as error:
                pytest.fail(f"{what}: {type(error).__name__}: {error}")
