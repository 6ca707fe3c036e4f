"""certify --ignore: no change of some inputs, anywhere in their range, changes the class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_audit.report.json_text import from_json, to_json
from idl_audit.values.box import Box
from idl_audit.values.errors import OptionError
from tests.shared.command_line import Run, run
from tests.shared.pairs import onnx_chain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = (relu(u0) + 0.1 relu(u1), 0.25): input 1 matters only near u0 = 0.25, input 2 never."""
    found = tmp_path_factory.mktemp("ignore")
    weights = [np.eye(3), np.array([[1.0, 0.1, 0.0], [0.0, 0.0, 0.0]])]
    onnx_chain(found / "m.onnx", weights, [np.zeros(3), np.array([0.0, 0.25])])
    inputs = np.array([[0.75, 0.5, 0.5], [0.125, 0.5, 0.5], [0.2, 0.25, 0.5], [0.3, 0.0, 0.5]])
    np.savez(found / "d.npz", inputs=inputs, labels=np.array([0, 1, 1, 0]))
    return found


def certify(folder: Path, *more: object, eps: object = "0,0.01") -> Run:
    return run("certify", folder / "m.onnx", "-d", folder / "d.npz", "-e", eps, "-f", "json", *more)


def verdicts(found: Run) -> list[list[str]]:
    return [[result.verdict.value for result in sample.results] for sample in found.report.samples]


def test_verdicts_are_those_of_the_whole_range(folder: Path) -> None:
    found = certify(folder, "--ignore", "1", "--bounds", "0,1")
    assert verdicts(found) == [["certified"] * 2, ["certified"] * 2, ["falsified"] * 2, ["certified"] * 2]
    assert found.report.threat_model.free == (1,)
    (point,) = [s.results[0].adversarial for s in found.report.samples if s.index == 2]
    assert point.l0 == 1
    assert verdicts(certify(folder, "--ignore", "2", "--bounds", "0,1")) == [["certified"] * 2] * 4
    assert verdicts(certify(folder, "--ignore", "0,2", "--bounds", "0,1")) == [["falsified"] * 2] * 4
    assert verdicts(certify(folder, eps="0.01")) == [["certified"]] * 4


def test_the_report_says_what_is_free(folder: Path) -> None:
    text = run(
        *("certify", folder / "m.onnx", "-d", folder / "d.npz", "-e", 0, "--ignore", 1, "--bounds", "0,1", "-q"),
        *("-o", folder / "r.json"),
    ).out
    assert "At eps 0, input 1 moving freely: 3 of 4 samples are certified" in text
    assert "inputs 1 move through the whole range" in run("report", folder / "r.json", "-f", "markdown").out
    assert run("gate", folder / "r.json", "--require", "certified_accuracy@0 >= 0.75").code == 0
    plain = certify(folder, "--bounds", "0,1", "--ignore", "2", "-o", folder / "other.json", eps=0)
    assert plain.code == 0
    found = run("diff", folder / "r.json", folder / "other.json")
    assert found.code == 2
    assert "another threat model (free 1, not 2)" in found.err


def test_certificates_hold_for_what_they_say_is_free(folder: Path, tmp_path: Path) -> None:
    assert certify(folder, "--ignore", 1, "--bounds", "0,1", "--certificates", tmp_path / "p").code == 0
    proof = tmp_path / "p" / "sample-0-eps-0.0.npz"
    model = folder / "m.onnx"
    accepted = run("verify", proof, model)
    assert accepted.code == 0
    assert "inputs 1 free" in " ".join(accepted.out.split())
    with np.load(proof) as archive:
        arrays = dict(archive)
    meta: dict[str, Any] = json.loads(str(arrays["meta"]))
    claim = meta["claim"]
    assert claim["free"] == [1]

    def verified(**changes: Any) -> int:
        meta["claim"] = {key: value for key, value in {**claim, **changes}.items() if value != "left out"}
        np.savez(tmp_path / "forged.npz", **{**arrays, "meta": np.array(json.dumps(meta))})
        return run("verify", tmp_path / "forged.npz", model).code

    assert verified() == 0
    assert verified(free=[0, 1]) == 1
    assert verified(free="left out") == 2, "a radius of 0 leaves nothing to move"
    for damaged in ([3], [1, 1], [-1], [True], "1", None, [1.0]):
        assert verified(free=damaged) in (1, 2), damaged
    assert verified(clip=None) == 2
    assert verified(cardinality=2) == 2


def test_what_makes_no_sense_is_refused(folder: Path) -> None:
    for more, told in (
        (("--ignore", 1), "--ignore needs the range"),
        (("--ignore", "age", "--bounds", "0,1"), "--ignore speaks of the input 'age'; give a number from 0 to 2"),
        (("--ignore", "3", "--bounds", "0,1"), "speaks of the input '3'"),
        (("--ignore", "1,1", "--bounds", "0,1"), "each once"),
        (("--bounds", "0,1"), "--eps must be above zero, not 0; write for example"),
    ):
        found = certify(folder, *more)
        assert found.code == 2
        assert told in found.err
    found = run(
        *("attack", folder / "m.onnx", "-d", folder / "d.npz", "-e", 0.1, "--ignore", 1, "--sparse", 1),
        *("--bounds", "0,1"),
    )
    assert found.code == 2
    assert "leave one of them out" in found.err


def test_a_report_in_which_nothing_moves_is_refused(folder: Path) -> None:
    document = json.loads(to_json(certify(folder, "--ignore", "1", "--bounds", "0,1").report))
    document["threat_model"]["free"] = []
    with pytest.raises(Exception, match="no input is free"):
        from_json(json.dumps(document))


def test_boxes_with_free_inputs() -> None:
    box = Box.around(np.array([0.5, 0.25]), 0.0, valid_lo=0.0, valid_hi=1.0, free=(1,))
    assert (box.lo.tolist(), box.hi.tolist()) == ([0.5, 0.0], [0.5, 1.0])
    assert box.contains(np.array([0.5, 1.0]))
    for wrong in ({"free": (1,)}, {"valid_lo": 0.0, "valid_hi": 1.0}, {"valid_lo": 0.0, "valid_hi": 1.0, "free": (2,)}):
        with pytest.raises(OptionError):
            Box.around(np.array([0.5, 0.25]), 0.0, **wrong)
