"""What other code may rely on: the public names, what importing them costs, and exit codes for every error."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import idl_audit
from idl_audit.cli import show
from idl_audit.cli.exits import Exit
from idl_audit.values import errors

MODEL = Path(__file__).resolve().parents[1] / "sample_models/digits_mlp.onnx"
DATA = MODEL.with_suffix(".npz")

HEAVY = ("torch", "onnx", "onnxruntime", "onnx2torch", "highspy", "scipy", "rich", "typer")

ERRORS = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.IdlAuditError) and value is not errors.IdlAuditError
]


def test_the_public_names_are_these():
    assert sorted(idl_audit.__all__) == [
        "Box",
        "IdlAuditError",
        "ImplicitModel",
        "Robustness",
        "SampleVerdict",
        "Sweep",
        "__version__",
        "attack",
        "audit",
        "certify",
        "certify_everywhere",
        "check_rules",
        "compare",
        "from_fixed_point",
        "from_mondeq",
        "from_torch",
        "harden",
        "load",
        "losses",
        "plot_accuracy",
        "plot_adversarial",
        "plot_sensitivity",
        "rescale",
        "sensitivity_matrix",
        "to_dataframe",
        "to_html",
        "to_rows",
        "train",
    ]
    assert dir(idl_audit) == sorted(idl_audit.__all__)


@pytest.mark.parametrize("name", idl_audit.__all__)
def test_every_public_name_resolves(name):
    value = getattr(idl_audit, name)
    assert name == "__version__" or value.__doc__


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = idl_audit.nothing


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(found.stdout.split())


def test_importing_the_package_is_light():
    assert not loaded_by("import idl_audit; idl_audit.IdlAuditError").intersection(HEAVY)


def test_reading_a_report_needs_no_solver_and_no_network():
    loaded = loaded_by("from idl_audit.report.json_text import from_json")
    assert not loaded.intersection({"torch", "onnx", "onnxruntime", "highspy", "scipy", "rich"})


def test_the_command_line_starts_without_torch():
    assert not loaded_by("from idl_audit.cli.app import app").intersection({"torch", "onnx2torch", "torchvision"})


def running(*arguments: str) -> str:
    typed = [str(argument) for argument in ("idl-audit", *arguments)]
    return f"from idl_audit.cli.app import app\nsys.argv = {typed}\ntry: app()\nexcept SystemExit: pass"


def test_what_is_said_without_work_waits_for_no_library():
    unneeded = {"pydantic", *HEAVY} - {"typer"}
    assert not loaded_by(running("--version")).intersection(unneeded)
    assert not loaded_by(running("--help")).intersection(unneeded - {"rich"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "digits_conv.onnx"),
        ("sensitivity", "digits_resnet.onnx"),
        ("certify", "digits_conv.onnx", "-d", "digits_conv.npz", "--limit", "1", "-e", "0.001", "--bounds", "0,1"),
    ],
)
def test_convolutions_do_not_wait_for_torch(arguments):
    folder = MODEL.parent
    paths = [folder / one if one.startswith("digits") else one for one in arguments]
    assert "torch" not in loaded_by(running(*paths))


def test_a_model_is_loaded_and_its_sensitivity_matrix_bounds_its_outputs():
    model = idl_audit.load(MODEL)
    assert isinstance(model, idl_audit.ImplicitModel)
    matrix = idl_audit.sensitivity_matrix(model)
    assert matrix.shape == (model.n_outputs, model.n_inputs) == (10, 64)
    with np.load(DATA) as archive:
        inputs = archive["inputs"][:50].astype(np.float64)
    outputs = model(inputs)
    change = np.abs(outputs[1:] - outputs[:-1])
    assert (change <= np.abs(inputs[1:] - inputs[:-1]) @ matrix.T).all()


def test_a_model_is_loaded_from_a_name_as_text():
    assert idl_audit.load(str(MODEL)).n_states == 80


def test_rescaling_a_public_model_keeps_what_it_computes():
    model = idl_audit.load(MODEL)
    inputs = np.random.default_rng(0).random((5, 64))
    np.testing.assert_allclose(idl_audit.rescale(model)(inputs), model(inputs), rtol=1e-12)


def test_what_load_refuses_is_an_error_of_ours(tmp_path):
    with pytest.raises(idl_audit.IdlAuditError, match=r"missing\.onnx"):
        idl_audit.load(tmp_path / "missing.onnx")


def code_of(error: BaseException) -> int:
    def failing(_: object) -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        show.guarded(failing)(None)
    return caught.value.exit_code


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code(kind, capsys):
    error = kind(["one\nthing"]) if issubclass(kind, errors.UnsupportedModelError) else kind("one\nthing")
    expected = Exit.USAGE if issubclass(kind, errors.InvalidInputError) else Exit.INCOMPLETE
    assert code_of(error) == expected
    assert capsys.readouterr() == ("", "error: one thing\n")


def test_every_error_is_the_users_to_mend_or_ours():
    for kind in ERRORS:
        assert issubclass(kind, errors.InvalidInputError) != issubclass(kind, errors.IncompleteError)
        assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
        (MemoryError(), Exit.INCOMPLETE, "out of memory"),
        (ZeroDivisionError("1/0"), Exit.INCOMPLETE, "internal error in test_public.py"),
    ],
)
def test_every_other_exception_has_an_exit_code_and_a_sentence(error, code, word, capsys):
    assert code_of(error) == code
    assert word in capsys.readouterr().err


def test_an_interruption_during_the_imports_is_no_traceback():
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'idl_audit.cli.app':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from idl_audit.__main__ import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "error: interrupted\n")
