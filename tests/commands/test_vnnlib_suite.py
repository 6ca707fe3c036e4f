"""The third-party suite vnnlib-satisfactory: every query has the answer that its author expects."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from idl_audit.cli.vnnlib import run
from idl_audit.commands.capabilities import operators

pytestmark = pytest.mark.slow

MISMATCHED = {"network_isomorphic01"}
"""It declares float16 for a float32 model, which the standard calls an error, and expects an answer."""

SECONDS = 60


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the suite's cases, written to a folder; it writes beside where it is run."""
    pytest.importorskip("vnntest")
    from vnntest.core.generator import generate_all_tests

    folder, here = tmp_path_factory.mktemp("suite"), Path.cwd()
    os.chdir(folder)
    try:
        generate_all_tests(suite="full")
    finally:
        os.chdir(here)
    made = folder / ".vnnlib-satisfactory"
    found = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    for case in found:
        case["folder"] = made / "tests" / case["category"]
    return list(found)


def answer(case: dict[str, Any]) -> tuple[str, str]:
    flags = [f"--network={name}={case['folder'] / file}" for name, file in case["networks"].items()]
    query = str(case["folder"] / case["vnnlib"])
    said = run(["verify", query, *flags, "--timeout", str(SECONDS)], apart=False)
    return (said.out.splitlines() or ["error"])[0], said.err


def test_every_query_has_the_answer_that_is_expected(cases: list[dict[str, Any]]) -> None:
    assert len(cases) >= 178
    wrong = {}
    for case in cases:
        word, told = answer(case)
        expected = "error" if case["name"] in MISMATCHED else case["expected"].lower()
        if word != expected:
            wrong[case["name"]] = (expected, word, told)
    assert wrong == {}


def test_every_operator_of_the_suite_is_named_as_it_asks_for(cases: list[dict[str, Any]]) -> None:
    plain = {line for line in operators() if " " not in line}
    assert {case["primary_op_type"] for case in cases if case["primary_op_type"]} <= plain


def test_capabilities_have_the_form_that_the_suite_checks() -> None:
    assert importlib.util.find_spec("vnntest") is not None
    from vnntest.core.compliance import (
        validate_opset_versions,
        validate_serialise_assignments,
        validate_vnnlib_versions,
    )

    for capability, validate in (
        ("--onnx-opset-versions", validate_opset_versions),
        ("--vnnlib-versions", validate_vnnlib_versions),
        ("--serialise-assignments", validate_serialise_assignments),
    ):
        assert validate(run(["supports", capability]).out) is None
    assert re.fullmatch(r"(\w+\n)+", run(["supports", "--onnx-element-types"]).out)
