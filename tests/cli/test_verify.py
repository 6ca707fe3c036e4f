"""verify: a witness is written by sensitivity or convert, checked by another command, and refused with exit code 1."""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.shared import forgeries
from tests.shared.command_line import DATA, MODEL, run

META = '{"schema_version": "1.0", "activation": "relu"}'


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    path = tmp_path / "loop.npz"
    a = -4 * np.eye(6) - a @ a.T / 6 + (a - a.T)
    np.savez(path, A=a, B=rng.normal(size=(6, 3)), C=rng.normal(size=(2, 6)), meta=META)
    return path


def rewritten(path: Path, name: str, place: tuple[int, ...], factor: float) -> Path:
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = arrays[name].copy()
    arrays[name][place] *= factor
    changed = path.with_name("changed.npz")
    np.savez(changed, **arrays)
    return changed


@pytest.mark.parametrize("command", ["sensitivity", "convert"])
def test_a_feed_forward_model(tmp_path: Path, command: str) -> None:
    witness, out = tmp_path / "w.npz", tmp_path / "out.npz"
    more = ["--out", out] if command == "convert" else []
    assert run(command, MODEL, "--witness", witness, *more).code == 0
    subject = out if more else MODEL
    found = run("verify", witness, subject, "-f", "json")
    assert found.code == 0
    assert found.report.verification is not None
    assert found.report.verification.accepted
    assert found.report.verification.checked == 10
    refused = run("verify", rewritten(witness, "S", (3, 20), 1 - 1e-6), subject)
    assert refused.code == 1
    assert "S[3, 20]" in " ".join(refused.out.split())


def test_quietly_the_exit_code_says_whether_every_claim_holds(tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    assert run("sensitivity", MODEL, "--witness", witness).code == 0
    held = run("verify", witness, MODEL, "-q")
    assert (held.code, held.out, held.err) == (0, "", "")
    refused = run("verify", rewritten(witness, "S", (3, 20), 1 - 1e-6), MODEL, "-q")
    assert (refused.code, refused.out, refused.err) == (1, "", "")
    missing = run("verify", tmp_path / "missing.npz", MODEL, "-q")
    assert (missing.code, missing.out, missing.err.count("\n")) == (2, "", 1)
    assert run("verify", witness, MODEL, "-q", "-f", "json").report.verification is not None


def test_data_units_are_kept_in_the_witness(tmp_path: Path) -> None:
    plain, scaled = tmp_path / "plain.npz", tmp_path / "scaled.npz"
    assert run("sensitivity", MODEL, "--witness", plain).code == 0
    assert run("sensitivity", MODEL, "--witness", scaled, "--scale", "1/4", "--mean", "0.1", "--std", "0.5").code == 0
    assert run("verify", scaled, MODEL).code == 0
    with np.load(plain) as first, np.load(scaled) as second:
        np.testing.assert_allclose(second["S"], first["S"] / 2, rtol=1e-8)


def test_a_cyclic_model(loop: Path, tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    assert run("sensitivity", loop, "--witness", witness).code == 0
    assert run("verify", witness, loop).code == 0
    for name, place, factor in (("S", (0, 0), 0.999), ("loop.0.v", (0,), -1.0), ("flat.0.r", (0, 0), 0.5)):
        assert run("verify", rewritten(witness, name, place, factor), loop).code == 1, name


def test_a_witness_of_another_model_says_so(loop: Path, tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    run("sensitivity", MODEL, "--witness", witness)
    found = run("verify", witness, loop)
    assert found.code == 1
    assert "another file" in found.out


def test_what_is_no_witness_is_refused(loop: Path) -> None:
    found = run("verify", loop, loop)
    assert found.code == 2
    assert "is no witness or certificate" in found.err


def test_a_damaged_witness_is_refused(loop: Path, tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    run("sensitivity", loop, "--witness", witness)
    with np.load(witness) as file:
        arrays = {name: array for name, array in file.items() if name != "S"}
    np.savez(witness, **arrays)
    found = run("verify", witness, loop)
    assert found.code == 2
    assert "damaged" in found.err


def test_an_ill_posed_model_has_no_witness(tmp_path: Path) -> None:
    path, witness = tmp_path / "ill.npz", tmp_path / "w.npz"
    np.savez(path, A=[[2.0]], B=[[1.0]], C=[[1.0]], b=[-1.0], meta=META)
    found = run("convert", path, "-o", tmp_path / "out.npz", "--witness", witness)
    assert found.code == 2
    assert not witness.exists()
    assert not (tmp_path / "out.npz").exists()


# ---- what a claim is about -------------------------------------------------------------------------------------------

ABOUT_EPS = 0.0123456789012345
OUTPUT = onnx.load(MODEL, load_external_data=False).graph.output[0].name


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proofs")
    units = ("--scale", "0.5", "--mean", "0.1", "--std", "0.25", "--bounds", "0,1")
    found = run("certify", MODEL, "-d", DATA, "-e", ABOUT_EPS, "--index", "3", "--certificates", folder, *units)
    assert found.code == 0
    (path,) = folder.iterdir()
    return path


def test_a_claim_is_told_in_full(certificate: Path) -> None:
    found = run("verify", certificate, MODEL, "-f", "json")
    assert found.code == 0
    assert found.report.verification is not None
    about = found.report.verification.about
    assert about is not None
    with np.load(DATA) as data:
        centre, label = data["inputs"][3].reshape(-1).astype("<f8"), int(data["labels"][3])
    assert (about.kind, about.arithmetic, about.output) == ("class", "real", OUTPUT)
    assert (about.label, about.eps, about.clip, about.index) == (label, ABOUT_EPS, (0.0, 1.0), 3)
    assert about.centre is not None
    assert about.centre.sha256 == hashlib.sha256(centre.tobytes()).hexdigest()
    assert (about.centre.least, about.centre.greatest) == (centre.min(), centre.max())
    assert (about.preprocessing.scale, about.preprocessing.mean, about.preprocessing.std) == (0.5, (0.1,), (0.25,))
    assert found.report.model is not None
    assert found.report.model.sha256 == json.loads(str(np.load(certificate)["meta"]))["model"]["sha256"]


@pytest.mark.parametrize("form", ["table", "html", "markdown"])
def test_no_digit_of_a_claim_is_hidden(certificate: Path, tmp_path: Path, form: str) -> None:
    report = tmp_path / "r.json"
    told = run("verify", certificate, MODEL, "-o", report).out
    if form != "table":
        told = run("report", report, "-f", form, "-o", tmp_path / "out").out
        told = (tmp_path / "out").read_text().replace("\\", "")  # Markdown's escapes
    text = " ".join(told.split())
    for word in (repr(ABOUT_EPS), OUTPUT, "(u * 0.5 - (0.1)) / (0.25)", "[0.0, 1.0]", "real numbers", "sample 3"):
        assert html.escape(word) in text if form == "html" else word in text, word


def test_a_claim_about_one_output_is_none_about_another(tmp_path: Path) -> None:
    model = forgeries.two_outputs(tmp_path)
    arrays, meta = forgeries.certificate(model, 0.7)
    path = forgeries.written(tmp_path / "c.npz", arrays, {**meta, "output_name": "y"})
    assert run("verify", path, model).code == 0
    other = run("verify", path, model, "--output-name", "z")
    assert (other.code, "speaks of the output 'y'" in other.err) == (2, True)
    forged = forgeries.written(tmp_path / "f.npz", arrays, {**meta, "output_name": "z"})
    refused = run("verify", forged, model, "-f", "json")
    assert refused.code == 1
    assert refused.report.verification is not None
    assert refused.report.verification.about is not None
    assert refused.report.verification.about.output == "z"


def test_a_property_is_told_with_its_boxes_and_rows(tmp_path: Path) -> None:
    model = forgeries.absolute(tmp_path)
    path = forgeries.written(tmp_path / "c.npz", *forgeries.property_certificate(model, 0.5))
    found = run("verify", path, model, "-f", "json")
    assert found.code == 0
    assert found.report.verification is not None
    about = found.report.verification.about
    assert about is not None
    assert about.property is not None
    assert (about.property.file, about.property.sha256, about.property.compared) == ("p.vnnlib", "0" * 64, False)
    assert (about.property.boxes.shape, about.property.boxes.least) == ((1, 2, 2), -0.5)
    assert (about.property.alternatives.shape, about.property.n_alternatives) == ((1, 3), 1)
    assert "not compared" in run("verify", path, model).out


def test_a_threshold_is_part_of_the_claim(tmp_path: Path) -> None:
    model = forgeries.one_output(tmp_path)
    arrays, meta = forgeries.certificate(model, 0.7)
    accepted = forgeries.written(tmp_path / "c.npz", arrays, {**meta, "threshold": 0.75})
    found = run("verify", accepted, model, "-f", "json")
    assert found.code == 0
    assert found.report.verification is not None
    assert found.report.verification.about is not None
    assert found.report.verification.about.threshold == 0.75
    for value in (0.6, None, "0.75", True, 1e400, -0.75):
        path = forgeries.written(tmp_path / "f.npz", arrays, {**meta, "threshold": value})
        assert run("verify", path, model).code in (1, 2), value


# ---- loops with coupled states ---------------------------------------------------------------------------------------

TURN = np.array([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
COUPLED = {
    "norms": ("norms: lambda_PF(N(A, gamma)) < 1", 0.9 * np.roll(np.eye(6), 1, axis=1), [6]),
    "monotone": ("monotone:", -20 * np.eye(6), [6]),
    "weights": (
        "monotone:",
        np.block([[np.zeros((3, 3)), 60 * TURN], [-0.6 * TURN.T, np.zeros((3, 3))]]),
        [3, 3],
    ),
}
"""A proof of a loop behind softmaxes -> what reports say of it, A, the sizes of the groups."""


@pytest.mark.parametrize("kind", COUPLED)
def test_proofs_of_a_coupled_loop_go_through_files(kind: str, tmp_path: Path) -> None:
    words, A, sizes = COUPLED[kind]
    rng = np.random.default_rng(3)
    path, data, converted = tmp_path / "m.npz", tmp_path / "d.npz", tmp_path / "c.npz"
    blocks = [{"activation": "softmax", "size": size} for size in sizes]
    meta = json.dumps({"schema_version": "1.0", "blocks": blocks})
    np.savez(path, A=A, B=rng.normal(size=(6, 2)), C=3 * rng.normal(size=(2, 6)), b=rng.normal(size=6), meta=meta)
    assert words in run("inspect", path).out
    assert run("convert", path, "-o", converted).code == 0
    assert words in run("inspect", converted).out
    inputs = rng.normal(size=(2, 2))
    np.savez(data, x=inputs, labels=[0, 0])
    outputs = [sample.output for sample in run("predict", path, "-d", data, "-f", "json").report.predictions]
    np.savez(data, x=inputs, labels=np.argmax(outputs, axis=1))
    found = run("certify", path, "-d", data, "-e", "0.001", "--certificates", tmp_path / "proofs")
    assert found.code == 0
    proofs = sorted((tmp_path / "proofs").iterdir())
    assert proofs
    for proof in proofs:
        assert run("verify", proof, path).code == 0
    with np.load(proofs[0]) as arrays:
        names = {name.rsplit(".", 1)[-1] for name in arrays.files if ".loop." in name}
    assert names == {"norms": {"norm", "v"}, "monotone": {"m", "factor"}, "weights": {"m", "factor", "weights"}}[kind]
    altered = {"norms": "part.0.loop.0.v", "monotone": "part.0.loop.0.m", "weights": "part.0.loop.0.weights"}[kind]
    assert run("verify", rewritten(proofs[0], altered, (0,), -1.0), path).code == 1
    witness = tmp_path / "w.npz"
    assert run("sensitivity", path, "--witness", witness).code == 0
    assert run("verify", witness, path).code == 0
    assert run("verify", rewritten(witness, "S", (0, 0), 0.9), path).code == 1


# ---- many files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "proofs"
    found = run("certify", MODEL, "-d", DATA, "-e", "0.01,0.02", "--limit", 3, "--certificates", folder)
    assert found.code == 0
    assert len([*folder.iterdir()]) >= 4
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_is_checked_with_one_start(proofs: Path, jobs: int) -> None:
    found = run("verify", proofs, MODEL, "--jobs", jobs, "-f", "json")
    assert (found.code, found.err) == (0, "")
    one = found.report.verification
    assert [file.file for file in one.files] == sorted(map(str, proofs.iterdir()))
    assert all(file.accepted and file.claim and not file.refused for file in one.files)
    assert (one.accepted, one.refused, one.checked) == (True, (), sum(file.checked for file in one.files))
    assert f"{len(one.files)} of {len(one.files)} proof files are accepted" in run("verify", proofs, MODEL).out


def test_what_is_said_of_one_of_many_is_what_is_said_of_it_alone(proofs: Path) -> None:
    many = run("verify", proofs, MODEL, "-f", "json").report
    for file in many.verification.files:
        alone = run("verify", file.file, MODEL, "-f", "json").report
        own = alone.verification
        assert (file.claim, file.checked, file.accepted) == (own.claim, own.checked, own.accepted)
        assert alone.model == many.model
        assert own.files == ()


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_refused_file_among_many_is_named_and_the_others_are_checked(
    proofs: Path, jobs: int, tmp_path: Path
) -> None:
    first, *others = sorted(proofs.iterdir())
    junk, lie, witness = tmp_path / "junk.npz", tmp_path / "lie.npz", tmp_path / "w.npz"
    junk.write_text("no proof")
    with np.load(first) as file:
        arrays = dict(file)
    np.savez(lie, **{**arrays, "meta": np.array(str(arrays["meta"]).replace('"label": ', '"label": 1'))})
    assert run("sensitivity", MODEL, "--witness", witness).code == 0
    more = [part for path in (junk, lie, witness, proofs) for part in ("--also", path)]
    found = run("verify", first, MODEL, *more, "--jobs", jobs, "-f", "json")
    assert found.code == 1
    files = found.report.verification.files
    names = [str(path) for path in (first, junk, lie, witness, *others)]  # each once
    assert [file.file for file in files] == names
    assert [file.accepted for file in files] == [name not in (str(junk), str(lie)) for name in names]
    assert all(any(name in why for why in found.report.verification.refused) for name in (str(junk), str(lie)))
    quiet = run("verify", first, MODEL, *more, "-q")
    assert (quiet.code, quiet.out, quiet.err) == (1, "", "")


def test_a_folder_without_proofs_and_a_missing_model_are_refused(proofs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = run("verify", tmp_path / "empty", MODEL)
    assert (empty.code, "has no .npz file" in empty.err) == (2, True)
    missing = run("verify", proofs, tmp_path / "missing.onnx")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
