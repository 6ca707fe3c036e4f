"""certify --features --certificates: a proof for each cell of valid rows, which verify and another checker accept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_audit.commands.verify import ends_and_values
from idl_audit.values.box import Box
from idl_audit.values.mixed import Cell, Choice
from tests import independent_rows
from tests.independent_files import Refused
from tests.shared.command_line import run
from tests.shared.pairs import onnx_chain

TEXT = """
[[feature]]
name = "age"
kind = "integer"
range = [17, 90]
radius = 1.5

[[feature]]
name = "hours"
range = [0, 60]
radius = 1.25

[[feature]]
name = "sex"
categories = ["female", "male"]
moves = true
"""
RULE = """
[[feature]]
name = "a"
range = [0, 8]

[[feature]]
name = "b"
range = [0, 8]

[[rule]]
holds = "a <= b"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1 where |age - 40| + 3 |female + male - 1| + hours > 20.5; of the others where a - b > 1/2.

    Between two categories, and between two ages, there are points of class 1 that are no rows.
    """
    found = tmp_path_factory.mktemp("rows")
    hidden = np.array([[1, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 1], [0, 0, -1, -1], [0, 1, 0, 0]], float)
    last = np.array([[0.0, 0, 0, 0, 0], [1, 1, 3, 3, 1]])
    onnx_chain(found / "m.onnx", [hidden, last], [np.array([-40, 40, -1, 1, 0.0]), np.array([20.5, 0.0])])
    np.savez(found / "d.npz", inputs=np.array([[40, 18, 1, 0]], np.float32), labels=np.array([0]))
    (found / "f.toml").write_text(TEXT)
    onnx_chain(found / "r.onnx", [np.array([[0.0, 0], [1, -1]])], [np.array([0, -0.5])])
    np.savez(found / "e.npz", inputs=np.array([[2, 2]], np.float32), labels=np.array([0]))
    (found / "r.toml").write_text(RULE)
    for name, data, text, out in (("m", "d", "f", "proofs"), ("r", "e", "r", "ruled")):
        given = ("-d", found / f"{data}.npz", "--features", found / f"{text}.toml", "-e", 1, "-q", "-f", "json")
        report = run("certify", found / f"{name}.onnx", *given, "--certificates", found / out).report
        assert report.samples[0].results[0].verdict.value == "certified"
        assert len(list((found / out).glob("*.npz"))) == 1
    return found


def held(path: Path) -> dict[str, Any]:
    with np.load(path) as read:
        return {name: read[name] for name in read.files}


def written(path: Path, arrays: dict[str, Any], **claim: object) -> Path:
    meta = json.loads(str(arrays["meta"][()]))
    meta["claim"] |= claim
    meta["claim"] = {key: value for key, value in meta["claim"].items() if value is not None}
    np.savez(path, **(arrays | {"meta": np.asarray(json.dumps(meta))}))
    return path


def test_a_proof_of_each_cell_is_accepted_here_and_elsewhere(folder: Path) -> None:
    (path,) = (folder / "proofs").glob("*.npz")
    parts = {name.split(".")[1] for name in held(path) if name.startswith("part.")}
    assert len(parts) > 1, "the hull of all rows has points of class 1"
    found = run("verify", path, folder / "m.onnx")
    assert found.code == 0, found.out
    text = " ".join(found.out.split())
    assert "class 0 at all rows of the file's range of 4 inputs, within [0.0, 41.0], 2 features at values" in text
    independent_rows.check(folder / "m.onnx", path)


def test_rules_are_part_of_what_is_claimed(folder: Path, tmp_path: Path) -> None:
    (path,) = (folder / "ruled").glob("*.npz")
    found = run("verify", path, folder / "r.onnx")
    assert found.code == 0, found.out
    text = " ".join(found.out.split())
    assert "rows that keep 1 rules" in text
    assert "rules 1 x 3 numbers" in text
    arrays = held(path)
    without = {name: value for name, value in arrays.items() if not name.startswith("range.rule")}
    assert run("verify", written(tmp_path / "none.npz", without, rules=None), folder / "r.onnx").code != 0
    assert run("verify", written(tmp_path / "less.npz", without), folder / "r.onnx").code != 0
    looser = arrays | {"range.rule.limits": arrays["range.rule.limits"] + 1.0}
    assert run("verify", written(tmp_path / "loose.npz", looser), folder / "r.onnx").code != 0
    assert run("verify", written(tmp_path / "many.npz", arrays, rules=2**20), folder / "r.onnx").code != 0


def test_what_tells_ranges_apart_names_the_inputs_of_features() -> None:
    """Either of two inputs is 0 or 1, and the other anything between: ends and values are the same."""
    box, values = Box.between(np.zeros(2), np.ones(2)), np.array([[0.0], [1.0]])
    one, other = (ends_and_values(Cell(box, (Choice((column,), values),))) for column in (0, 1))
    assert one[0] == other[0]
    assert one[1] != other[1]


def without_part(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arrays.items() if not name.startswith("part.0.")}


def whole(arrays: dict[str, Any]) -> dict[str, Any]:
    """One leaf in place of the tree, with the proof of the first cell."""
    one = {"tree.roots": np.zeros(1, int), "tree.variable": -np.ones(1, int), "tree.child": np.zeros(1, int)}
    kept = {name: value for name, value in arrays.items() if not name.startswith("part.") or name.startswith("part.0.")}
    return kept | one | {"tree.cut": np.zeros(1)}


def changed(name: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: arrays | {name: value(arrays[name])}


FORGED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a larger range": changed("range.hi", lambda hi: hi + np.array([0, 3, 0, 0])),
    "an empty range": changed("range.hi", lambda hi: hi * 0 - 1),
    "an age that was none": changed("range.choice.0.values", lambda ages: np.vstack([ages, [[44.0]]])),
    "a category between two": changed("range.choice.1.values", lambda rows: np.vstack([rows, [[0.0, 0.0]]])),
    "a choice of other inputs": changed("range.choice.1.columns", lambda columns: columns - 1),
    "a sample elsewhere": changed("centre", lambda row: row + np.array([0, 9, 0, 0])),
    "a sample between": changed("centre", lambda row: row + np.array([0.5, 0, 0, 0])),
    "an input that is cut": changed("tree.variable", lambda some: np.where(some >= 4, 1, some)),
    "a tree without end": changed("tree.child", lambda child: np.where(child > 0, 0, child)),
    "a cell without proof": without_part,
    "one cell for all": whole,
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_proofs_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (path,) = (folder / "proofs").glob("*.npz")
    forged = written(tmp_path / "forged.npz", FORGED[name](held(path)))
    assert run("verify", forged, folder / "m.onnx").code in (1, 2)
    with pytest.raises(Refused):
        independent_rows.check(folder / "m.onnx", forged)


def test_another_class_is_refused(folder: Path, tmp_path: Path) -> None:
    (path,) = (folder / "proofs").glob("*.npz")
    forged = written(tmp_path / "forged.npz", held(path), label=1)
    assert run("verify", forged, folder / "m.onnx").code == 1
