"""For every operator of the table: a proof that the tool writes is accepted by `verify` and by a checker of its own.

A file says what is true around one point; copies say what is false there, and choose and bound whatever they like. The
model that the checker reads computes what onnxruntime and, where that is right, onnx's reference evaluator do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

from idl_audit.values.errors import UnsupportedModelError
from tests import independent_curves
from tests.implicit.test_operators import CASES
from tests.independent_files import Refused
from tests.independent_models import StoredNetwork
from tests.shared.implicit_models import node
from tests.shared.operator_cases import Case
from tests.shared.operator_proofs import Proved, proved, uses, written

PAGE = (Path(__file__).resolve().parents[1] / "docs/operators.md").read_text()
FAMILIES = {
    cells[0].strip(): re.findall(r"\b[A-Z][A-Za-z0-9]+\b", cells[1])
    for line in PAGE.split("<!-- operators")[1].split("<!-- end of operators -->")[0].splitlines()
    if line.startswith("| ") and len(cells := line.strip("| ").split("|")) == 2 and cells[0].strip() != "family"
}
OPERATORS = sorted({op for family in FAMILIES.values() for op in family})

NOT_RUN = {
    "LinearAttention": "onnxruntime 1.31 knows no operator set that has it",
    "SwiGLU": "onnxruntime 1.31 knows no operator set that has it",
    "Swish": "onnxruntime 1.31 has no kernel for it",
}
"""What is read, but refused where a network is audited: onnxruntime does not run it, and nothing else is the judge."""

NOT_INSIDE = {"ArgMax": "is read as the last operator alone, and left out: claims are about the scores"}
OTHERS = [op for op in OPERATORS if op not in {*NOT_RUN, *NOT_INSIDE}]

MOVES = ("other linear maps", "data movement", "lists of tensors", "no effect", "linear layers")
DEAR = ("Attention", "GRU", "GroupNormalization", "LRN", "LSTM", "MeanVarianceNormalization", "RNN")

NO_REFERENCE = {
    "BatchNormalization": "cannot broadcast its parameters over the batch",
    "GlobalLpPool": "no implementation",
    "GlobalMaxPool": "takes one maximum of all channels of a sequence",
    "LRN": "takes as many channels as the batch has rows",
    "Optional": "no implementation for tensors",
    "OptionalGetElement": "no implementation for tensors",
    "Resize": "does not read operator set 10",
    "Scatter": "no implementation",
    "Unsqueeze": "does not sort axes",
    "Upsample": "does not read its scales",
}
"""Where onnx's reference evaluator is not what onnxruntime is, in the uses below: `findings/` has some of it."""


def marked(op: str) -> Any:
    moves = any(op in FAMILIES[family] for family in MOVES)
    return pytest.param(op, marks=[pytest.mark.slow] if moves or op in DEAR else [])


def about(op: str, folder: Path) -> Proved:
    case = uses(CASES, op)[0]
    found = proved(written(folder, case))
    assert found is not None, case
    return found


def accepted(found: Proved, arrays: dict[str, np.ndarray]) -> bool:
    """Whether the independent checker accepts a changed file."""
    try:
        independent_curves.check(found.model, found.held(arrays), found.converted)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("op", [marked(op) for op in OTHERS])
def test_a_proof_about_every_operator_is_accepted(op: str, tmp_path: Path) -> None:
    found = about(op, tmp_path)
    assert found.verified()
    assert independent_curves.check(found.model, found.proof, found.converted)


@pytest.mark.parametrize("op", NOT_RUN)
def test_what_onnxruntime_does_not_run_is_refused_by_name(op: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="onnxruntime"):
        written(tmp_path, uses(CASES, op)[0])


@pytest.mark.parametrize("op", NOT_INSIDE)
def test_what_is_read_as_the_last_operator_is_refused_by_name_elsewhere(op: str, tmp_path: Path) -> None:
    nodes = node(op, "x", "k", axis=1, keepdims=1), node("Cast", "k", "y", to=onnx.TensorProto.FLOAT)
    with pytest.raises(UnsupportedModelError, match=op):
        written(tmp_path, Case(op, "inside", (1, 6), nodes, first=13))


ALTERNATIVES = [f"part.0.alternative.{k}.offsets" for k in (0, 1)]
WILD = (7.0, -3.0, 1e30, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("op", OTHERS)
def test_no_proof_of_what_is_false_of_an_operator_is_accepted(op: str, tmp_path: Path) -> None:
    """An output is said to stay away from the value that it has in the middle; with any choices, and larger boxes."""
    found, rng = about(op, tmp_path), np.random.default_rng(0)
    the_checker_reads_the_network(op, found)
    gap = 1e-6 * (1 + abs(found.middle))
    ends = [np.array([side * -found.middle - gap]) for side in (1, -1)]
    assert not found.verified({ALTERNATIVES[0]: ends[0]})
    sizes = {k: block.size for k, block in enumerate(found.subject.model.blocks)}
    for name, end, kind in zip(ALTERNATIVES, ends, ("slopes", rng.choice(["multipliers", "duals"])), strict=True):
        false = {name: end, **chosen(sizes, kind, rng)}
        assert not accepted(found, false)
        assert not found.verified(false)
    wide = {f"part.0.{end}": found.arrays[f"part.0.{end}"] + side for end, side in (("lo", -0.5), ("hi", 0.5))}
    assert not accepted(found, {**wide, ALTERNATIVES[1]: ends[1]})
    assert not found.verified(chosen(sizes, "slopes", rng, np.nan) or {ALTERNATIVES[0]: np.array([np.nan])})
    assert not accepted(found, {ALTERNATIVES[0]: np.array([np.nan])})


def chosen(
    sizes: dict[int, int], kind: str, rng: np.random.Generator, value: float | None = None
) -> dict[str, np.ndarray]:
    """Choices for the first leaf of every goal's tree in each block: wild ones, or a value."""
    found = {}
    for k, n in sizes.items():
        values = rng.choice(WILD, (1, n)) if value is None else np.full((1, n), value)
        found[f"part.0.goals.0.{kind}.{k}.leaves"] = np.zeros(1, np.int64)
        found[f"part.0.goals.0.{kind}.{k}.values"] = values.astype(np.float32)
    return found


def the_checker_reads_the_network(op: str, found: Proved) -> None:
    """Show that the model that the checker reads computes what the network does."""
    digest = found.meta["model"]["sha256"]
    model = StoredNetwork(found.converted, found.model, digest, None, json.dumps([1.0, [], []]))
    rows = np.random.default_rng(3).uniform(0.2, 0.9, (3, found.subject.model.n_inputs)).astype(np.float32)
    expected = found.subject.original(rows)
    near = {"rtol": 0, "atol": 1e-5 * max(1e-6, np.abs(expected).max())}
    np.testing.assert_allclose(model(rows.astype(float)), expected, **near)
    if op not in NO_REFERENCE:
        run = onnx.reference.ReferenceEvaluator(str(found.model)).run
        shape = uses(CASES, op)[0].shape
        np.testing.assert_allclose([run(None, {"u": row.reshape(shape)})[0].ravel() for row in rows], expected, **near)
