"""compress --keep-certified: as far as enough samples stay certified, by the verdicts of `certify`; else nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.kept_certified import _furthest, certified_count
from idl_audit.decide.ladder import Options, Sample
from idl_audit.implicit.compress import quantized
from idl_audit.values.box import Box
from tests.shared.blobs import blobs, distracted
from tests.shared.command_line import run
from tests.shared.implicit_models import Network, node, proto

EPS = "0.02"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("kept")
    points, labels = blobs(30)
    np.savez(where / "data.npz", inputs=points, labels=labels)
    distracted(where / "model.onnx")
    return where


def compressed(folder: Path, tmp_path: Path, *more: str) -> tuple[int, str, dict]:
    given = (folder / "model.onnx", "-d", folder / "data.npz", "-e", EPS, "--bounds", "0,1")
    found = run("compress", *given, "-o", tmp_path / "small.npz", "--json", tmp_path / "report.json", *more)
    report = tmp_path / "report.json"
    return found.code, found.err + found.out, json.loads(report.read_text()) if report.exists() else {}


def certified_in(path: Path, folder: Path) -> int:
    run("certify", path, "-d", folder / "data.npz", "-e", EPS, "--bounds", "0,1", "-q", "-o", path.with_suffix(".json"))
    return int(json.loads(path.with_suffix(".json").read_text())["summary"]["per_eps"][0]["certified"])


@pytest.mark.parametrize("how", [("--quantize", "2"), ("--prune", "0.9"), ("--rank", "1")])
def test_what_is_written_is_the_furthest_level_that_keeps_enough(
    how: tuple[str, str], folder: Path, tmp_path: Path
) -> None:
    code, text, report = compressed(folder, tmp_path, *how, "--keep-certified", "90%")
    assert code == 0, text
    kept = report["compression"]["kept_certified"]
    assert kept["before"] == certified_in(folder / "model.onnx", folder) > 10
    assert kept["least"] == int(np.ceil(0.9 * kept["before"]))
    assert certified_in(tmp_path / "small.npz", folder) >= kept["least"]
    chosen = [level for level in kept["levels"] if level["setting"] == report["compression"]["setting"]]
    assert chosen[0]["kept"]
    assert report["compression"]["nonzeros"]["after"] == chosen[0]["nonzeros"]
    assert "must stay" in text


def test_nothing_is_written_where_no_level_keeps_enough(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idl_audit.commands.shared.kept_certified.MILDEST_BITS", 2)
    code, text, report = compressed(folder, tmp_path, "--quantize", "2", "--keep-certified", "100%")
    (level,) = report["compression"]["kept_certified"]["levels"]
    assert level["certified"] < level["looked_at"]
    assert code == 1, text
    assert not (tmp_path / "small.npz").exists()
    assert report["diagnostics"][-1]["code"] == "IDL309"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--keep-certified", "101%"), "share from 0% to 100%"),
        (("--keep-certified", "1.5"), "a number of samples"),
        (("--keep-certified", "31"), "samples are certified before"),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], words: str, folder: Path, tmp_path: Path) -> None:
    code, text, _ = compressed(folder, tmp_path, "--quantize", "4", *options)
    assert code == 2
    assert words in text
    assert not (tmp_path / "small.npz").exists()


def test_a_radius_alone_does_nothing_and_is_refused(folder: Path, tmp_path: Path) -> None:
    code, text, _ = compressed(folder, tmp_path, "--quantize", "4")
    assert code == 2
    assert "go together" in text


@pytest.mark.parametrize("last", range(-1, 9))
def test_halving_finds_the_last_place_that_is_kept(last: int) -> None:
    asked: list[int] = []

    def kept(place: int) -> object:
        asked.append(place)
        return f"pair {place}" if place <= last else None

    place, pair = _furthest(9, kept)  # type: ignore[arg-type]
    assert place == last - (last == 9)
    assert pair == (None if last < 0 else f"pair {place}")
    assert asked[0] == 8
    assert len(asked) <= 5


def test_counting_ends_where_too_few_are_left() -> None:
    weights = {"w": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)}
    model = Network(proto([node("MatMul", "x w")], ("N", 2), weights)).implicit
    points = [(0.9, 0.1), (0.5, 0.45), (0.5, 0.45), (0.9, 0.1)]  # of them the second and third are too near the border
    samples = [Sample(np.array(x), 0, Box.around(np.array(x), 0.1)) for x in points]
    assert certified_count(model, samples, None, Options(time_limit=5)) == (2, 4)
    assert certified_count(model, samples, 3, Options(time_limit=5)) == (1, 3)
    assert certified_count(quantized(model, 2).stored, samples, 2, Options(time_limit=5)) == (2, 4)
