"""harden: more is certified by the same proofs, the file stays the user's, and nothing is claimed from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from idl_audit.commands.harden import harden_model
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.training import HardenOptions
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.original import onnxruntime_network
from idl_audit.graph.reader import read_graph
from idl_audit.values.errors import DataError, OptionError
from tests.shared.blobs import blobs, distracted
from tests.shared.command_line import run
from tests.shared.implicit_models import floats, node, proto

MINUTES = 0.004


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples to train on, to choose by and to audit, and a network."""
    where = tmp_path_factory.mktemp("harden")
    points, labels = blobs(500)
    for name, part in (("train", slice(0, 400)), ("holdout", slice(400, 440)), ("audit", slice(440, 500))):
        np.savez(where / f"{name}.npz", inputs=points[part], labels=labels[part])
    distracted(where / "model.onnx")
    return where


def asked(folder: Path, out: Path, **more: Any) -> HardenOptions:
    given: dict[str, Any] = {"eps": "0.1", "minutes": MINUTES, "holdout": folder / "holdout.npz", "keep_clean": "2%"}
    data = DataOptions(path=folder / "train.npz", preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    return HardenOptions(out=out, data=data, **{**given, **more})


def test_more_samples_are_certified_by_the_same_proofs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "hardened.onnx"
    report = harden_model(folder / "model.onnx", asked(folder, out, audit=folder / "audit.npz"))
    found = report.hardening
    assert found is not None
    assert found.chosen is not None
    assert found.audited_before is not None
    assert found.audited_after is not None
    assert found.audited_after.counts.certified > found.audited_before.counts.certified + 20
    assert report.artifacts == (str(out),)
    assert (found.trained_on, found.held_out) == (400, 40)
    before, after = onnx.load(folder / "model.onnx"), onnx.load(out)
    assert [n.op_type for n in before.graph.node] == [n.op_type for n in after.graph.node]
    assert before.graph.input == after.graph.input
    rows = np.random.default_rng(1).random((5, 4)).astype(np.float32)
    ran = onnxruntime_network(out, read_graph(out))(rows)
    assert ran.shape == (5, 2)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    files = []
    for name in ("a.onnx", "b.onnx"):
        harden_model(folder / "model.onnx", asked(folder, tmp_path / name))
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_nothing_is_written_where_clean_accuracy_is_lost(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "hardened.onnx"
    found = run(
        *("harden", folder / "model.onnx", "-d", folder / "train.npz", "-e", "0.45", "--bounds", "0,1", "-o", out),
        *("--holdout", folder / "holdout.npz", "--keep-clean", "0", "--minutes", "0.01", "--method", "ibp", "-q"),
        *("--json", tmp_path / "report.json"),
    )
    assert found.code == 1, found.err
    assert not out.exists()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["hardening"]["chosen"] is None
    assert report["diagnostics"][0]["code"] == "IDL601"
    assert "was not hardened" in found.out


def test_a_sample_that_was_seen_is_no_audit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--audit .* 400 of its 400 samples .* training") as refused:
        harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", audit=folder / "train.npz"))
    assert refused.value.code == "IDL603"
    with pytest.raises(DataError, match="are among those of choice"):
        harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", audit=folder / "holdout.npz"))
    with pytest.raises(DataError, match="--holdout"):
        harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", holdout=folder / "train.npz"))
    assert not (tmp_path / "x.onnx").exists()


def test_a_share_of_the_samples_is_kept_apart(folder: Path, tmp_path: Path) -> None:
    report = harden_model(folder / "model.onnx", asked(folder, tmp_path / "x.onnx", holdout="20%", method="ibp"))
    assert report.hardening is not None
    assert (report.hardening.trained_on, report.hardening.held_out) == (320, 80)
    assert "IDL602" in {told.code for told in report.diagnostics}


def test_frozen_initializers_are_bit_equal(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    report = harden_model(folder / "model.onnx", asked(folder, out, freeze=("[cd]",)))
    assert report.hardening is not None
    assert report.hardening.weights == ("v", "w")
    before, after = (
        {t.name: t.raw_data for t in onnx.load(path).graph.initializer} for path in (folder / "model.onnx", out)
    )
    assert {name for name in before if before[name] != after[name]} == {"v", "w"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minutes", "0"), "--minutes must be a number of minutes above 0"),
        (("--keep-clean", "120%"), "--keep-clean must be a share"),
        (("--holdout", "95%"), "--holdout must be a share from 1% to 90%"),
        (("--freeze", "zz*"), "--freeze zz*: no weight of the network has such a name"),
        (("--method", "magic"), "--method must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    given = ("harden", folder / "model.onnx", "-d", folder / "train.npz", "-e", "0.1", "-o", tmp_path / "x.onnx")
    found = run(*given, *options)
    assert found.code == 2
    assert words in found.err
    assert not (tmp_path / "x.onnx").exists()


def test_an_existing_file_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"precious")
    with pytest.raises(OptionError, match="exists already"):
        asked(folder, tmp_path / "x.onnx")


def test_networks_that_are_no_classifiers_are_refused(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    onnx.save(proto([node("MatMul", "x v")], ("N", 4), {"v": floats(rng, 4, 1)}), tmp_path / "one.onnx")
    with pytest.raises(OptionError, match="has one output"):
        harden_model(tmp_path / "one.onnx", asked(folder, tmp_path / "x.onnx"))
