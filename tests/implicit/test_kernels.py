"""What proofs take for the errors of functions: as the table has it, and never below what kernels do."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from idl_audit.implicit import kernels
from idl_audit.implicit.activations import ACTIVATIONS, JUMPS, Activation
from idl_audit.implicit.activations.analytic import power
from idl_audit.implicit.activations.curve import celu, elu, selu
from idl_audit.implicit.kernel_table import DENSE, Measured
from idl_audit.implicit.kernels import kernel_of, kernel_of_norm, measured, other_versions

NOT_KNOWN = {
    "power": "of exponents that were not measured",
}


@pytest.mark.parametrize("name", [*ACTIVATIONS, *JUMPS])
def test_every_activation_has_a_bound_or_a_reason_to_have_none(name: str) -> None:
    sizes: dict[str, Any] = {
        "contraction": {"rows": 2, "inner": 3, "columns": 2},
        "normalised": {"width": 5, "count": 4.0, "under": 1e-5},
        "power": {"exponent": 2.7},
        "softmax": {"width": 4},
    }
    activation = {**ACTIVATIONS, **JUMPS}[name](**sizes.get(name, {}))
    known = kernel_of(activation) is not None or kernel_of_norm(activation) is not None
    assert known == (name not in NOT_KNOWN)


@pytest.mark.parametrize(
    ("other", "known"),
    [
        ({"least": 1e-3}, False),
        ({"width": 2, "count": 1.0}, False),
        *(({name: value}, True) for name, value in (("beside", 1e-3), ("under", 0.0), ("count", 3.0))),
    ],
)
def test_norms_of_other_formulas_have_a_bound_or_none(other: dict[str, Any], known: bool) -> None:
    given: dict[str, Any] = {"width": 5, "count": 4.0, "under": 1e-5, **other}
    assert (kernel_of_norm(ACTIVATIONS["normalised"](**given)) is not None) == known


def test_powers_are_looked_up_by_their_exponent() -> None:
    assert kernel_of(power(3.0)) == measured("power 3")
    assert kernel_of(power(3.0000001)) is None


def test_what_was_measured_everywhere_is_doubled_and_else_taken_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for dense, doubt in ((DENSE, 2.0), (DENSE - 1, 4.0)):
        monkeypatch.setattr(kernels, "MEASURED", {"f": Measured(1e-7, 2e-7, 3e-7, 2.0**100, dense)})
        found = measured("f")
        assert (found.absolute, found.relative, found.of_value) == (doubt * 1e-7, doubt * 2e-7, doubt * 3e-7)
        assert (found.within, found.measured) == (2.0**100, "f")


def run(op: str, x: np.ndarray, **attributes: float) -> list[np.ndarray]:
    """Return what onnxruntime's operator and torch's function give."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = [np.asarray(session.run(None, {"x": x})[0], float)]
    if op != "Selu":
        function = torch.nn.functional.elu if op == "Elu" else torch.nn.functional.celu
        found.append(function(torch.from_numpy(x), attributes["alpha"]).double().numpy())
    return found


PARAMETERS: list[tuple[str, Activation, dict[str, float]]] = [
    *(("Elu", elu(alpha), {"alpha": alpha}) for alpha in (0.01, 1.0, 100.0, 1e6)),
    *(("Celu", celu(alpha), {"alpha": alpha}) for alpha in (2.0**-7, 1.0, 100.0, 1e6)),
    ("Selu", selu(), {}),
    *(("Selu", selu(a, g), {"alpha": a, "gamma": g}) for a, g in ((100.0, 0.5), (0.125, 64.0), (8.0, 128.0))),
]


@pytest.mark.parametrize(("op", "activation", "attributes"), PARAMETERS)
def test_functions_with_parameters_are_within_the_bound_that_is_made_of_alpha_1(
    op: str, activation: Activation, attributes: dict[str, float]
) -> None:
    """With alpha = 100, alpha (exp(z / alpha) - 1) is off by a hundred times what exp is."""
    rng = np.random.default_rng(0)
    x = np.concatenate([s * 2.0 ** rng.uniform(-30, 8, 40_000) for s in (1, -1)]).astype(np.float32)
    kernel = kernel_of(activation)
    assert kernel is not None
    exact = activation(x.astype(float))
    bound = kernel.absolute + kernel.relative * np.abs(x.astype(float)) + kernel.of_value * np.abs(exact)
    for found in run(op, x, **attributes):
        assert (np.abs(found - exact) <= bound).all()
    assert kernel.measured == "elu"


def test_other_versions_are_those_of_another_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "VERSIONS", {"onnxruntime": "1.31.1", "torch": "2.13.0+cpu"})
    for installed, told in (
        ({"onnxruntime": "1.31.9", "torch": "2.13.1"}, ()),
        ({"onnxruntime": "1.40.0", "torch": "2.13.0+cu128"}, (("onnxruntime", "1.31", "1.40"),)),
        ({"onnxruntime": "2.31.1"}, (("onnxruntime", "1.31", "2.31"),)),
    ):

        def version(name: str, installed: dict[str, str] = installed) -> str:
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(metadata, "version", version)
        assert other_versions() == told
