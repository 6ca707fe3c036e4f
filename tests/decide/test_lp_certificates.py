"""Certificates of equilibrium networks: written by certify, checked by verify, refused once they are changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.commands.verify import verify
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.proof.files.claims import Ball
from idl_audit.values.box import Box
from idl_audit.values.errors import ModelFileError
from idl_audit.values.verdicts import Verdict
from tests.shared.format_1 import certificate_of, write_certificate

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "sample_models/digits_mondeq.npz"
DATA = ROOT / "sample_models/digits_mlp.npz"
EPS = 0.08


def run(*arguments):
    command = [sys.executable, "-m", "idl_audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of a held-out digit whose proof needs a tree, at eps .08."""
    path = tmp_path_factory.mktemp("certificates") / "certificate.npz"
    subject = open_subject(MODEL)
    with np.load(DATA) as file:
        inputs, labels = file["inputs"].reshape(-1, 64).astype(float), file["labels"]
    for i in range(40):
        box = Box.around(inputs[i], EPS, valid_lo=0.0, valid_hi=1.0)
        options = Options(record=True, time_limit=5.0)
        found = decide_sample(subject.model, subject.original, inputs[i], int(labels[i]), box, options)
        if found.verdict is not Verdict.CERTIFIED or found.recorded.lp is None:
            continue
        if max(len(leaves.phases) for leaves in found.recorded.lp.trees.values()) < 3:
            continue
        ball = Ball(inputs[i], EPS, clip=(0.0, 1.0))
        made = certificate_of(subject.model, subject.original, ball, int(labels[i]), found.recorded.lp, index=i)
        write_certificate(
            path, made, sha256=subject.info.sha256, output_name=None, preprocessing=Preprocessing(), force=False
        )
        return path
    raise AssertionError("no certified digit needs a tree")


def verified(file):
    return verify(file, MODEL, ModelOptions()).verification


def test_a_certificate_is_accepted(certificate):
    found = verified(certificate)
    assert found.accepted
    assert found.checked == 9
    assert "leaves" in found.claim


def rewritten(file, out, change):
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    change(arrays)
    np.savez(out, **arrays)
    return out


def drop_a_leaf(arrays):
    name = max((n for n in arrays if n.endswith(".phases")), key=lambda n: len(arrays[n]))
    arrays[name] = arrays[name][1:]
    other = name.replace("phases", "multipliers")
    arrays[other] = arrays[other][1:]


def widen_the_input_box(arrays):
    meta = json.loads(str(arrays["meta"]))
    assert meta["eps"] == EPS
    meta["eps"] += 0.2
    arrays["meta"] = np.asarray(json.dumps(meta))


def spoil_the_proof(arrays):
    for name in [n for n in arrays if "loop." in n and n.endswith("factor")]:
        arrays[name] = arrays[name] * 1.1


def another_class(arrays):
    meta = json.loads(str(arrays["meta"]))
    meta["label"] = (meta["label"] + 1) % 10
    arrays["meta"] = np.asarray(json.dumps(meta))


@pytest.mark.parametrize("change", [drop_a_leaf, widen_the_input_box, spoil_the_proof, another_class])
def test_changed_certificates_are_refused(certificate, change, tmp_path):
    found = verified(rewritten(certificate, tmp_path / "changed.npz", change))
    assert not found.accepted
    assert found.refused


def test_a_damaged_certificate_is_a_sentence(certificate, tmp_path):
    def lose(arrays):
        del arrays[next(n for n in arrays if n.startswith("box."))]

    with pytest.raises(ModelFileError, match="damaged certificate"):
        verified(rewritten(certificate, tmp_path / "damaged.npz", lose))


@pytest.mark.slow
def test_the_commands_write_and_check_them(tmp_path):
    folder = tmp_path / "certificates"
    done = run("certify", MODEL, "-d", DATA, "-e", "0.05", "--bounds", "0,1", "--limit", "4", "-f", "json",
               "--certificates", folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdicts = [sample["results"][0]["verdict"] for sample in json.loads(done.stdout)["samples"]]
    files = sorted(folder.glob("*.npz"))
    assert len(files) == verdicts.count("certified") >= 3
    done = run("verify", files[0], MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 refused" in " ".join(done.stdout.split())
    done = run("verify", rewritten(files[0], tmp_path / "changed.npz", spoil_the_proof), MODEL)
    assert done.returncode == 1, done.stdout + done.stderr


def test_a_loop_without_a_proof_stays_unknown_and_exits_0(tmp_path):
    model, data = tmp_path / "model.npz", tmp_path / "data.npz"
    meta = '{"schema_version": "1.0", "activation": "relu"}'
    np.savez(model, A=[[2.0]], B=[[1.0]], C=[[1.0], [-1.0]], b=[0.0], d=[0.5, 0.0], meta=meta)
    np.savez(data, inputs=np.array([[-1.0]], np.float32), labels=np.array([0]))
    done = run("certify", model, "-d", data, "-e", "0.01", "-f", "json")
    assert done.returncode == 0, done.stderr
    (sample,) = json.loads(done.stdout)["samples"]
    assert sample["results"][0]["verdict"] == "unknown"
    assert sample["results"][0]["reason"] == "no_uniqueness_proof"
