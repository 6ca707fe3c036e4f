"""certify --monotone from files to a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.subject import open_subject
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.reading import parse_report
from tests.shared.command_line import Run, run
from tests.shared.pairs import drawn, onnx_chain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("monotone")
    rng = np.random.default_rng(3)
    weights, biases = drawn(rng, (4, 8, 8, 1))
    onnx_chain(found / "rises.onnx", [np.abs(w) for w in weights], biases)
    onnx_chain(found / "any.onnx", weights, biases)
    three, ends = drawn(rng, (4, 6, 3))
    onnx_chain(found / "three.onnx", three, ends)
    onnx_chain(found / "soft.onnx", three, ends, ending="Softmax")
    # class 0 gains all that the others lose
    onnx_chain(
        found / "gains.onnx",
        [np.eye(4), np.array([[1.0, 0, 0, 0], [-1.0, 1, 0, 0], [0, 0, 1, 0]])],
        [np.ones(4), np.zeros(3)],
        ending="Softmax",
    )
    np.savez(found / "d.npz", inputs=rng.random((4, 4)).astype(np.float32))
    return found


def certify(folder: Path, model: str, way: str, *more: object, eps: object = "0,0.1") -> Run:
    limits = ("--bounds", "0,1", "--max-nodes", 60, "-f", "json")
    return run("certify", folder / model, "-d", folder / "d.npz", "-e", eps, "--monotone", way, *limits, *more)


def words(found: Run) -> set[str]:
    assert found.code == 0, found.err
    return {result.verdict.value for sample in found.report.monotonicity.samples for result in sample.results}


def test_a_network_of_weights_that_are_not_negative_rises(folder: Path) -> None:
    for k in range(4):
        assert words(certify(folder, "rises.onnx", f"{k}+")) == {"certified"}
    found = certify(folder, "rises.onnx", "2-").report.monotonicity
    assert (found.input, found.direction, found.score, found.label) == (2, "-", "the output", None)
    for sample in found.samples:
        for result in sample.results:
            assert result.verdict == "falsified"
            assert result.found.low < result.found.high
            assert result.found.score_low < result.found.score_high
            assert result.found.linf <= result.eps + 1e-6


def test_the_whole_range_of_the_input_counts(folder: Path) -> None:
    report = certify(folder, "any.onnx", "1+").report
    assert report.threat_model.free == (1,)
    assert report.summary is None
    assert sum(entry.n for entry in report.monotonicity.per_eps) == 8


def test_a_class_is_named_where_there_are_several(folder: Path) -> None:
    assert words(certify(folder, "gains.onnx", "0+", "--class", 0)) == {"certified"}
    assert words(certify(folder, "gains.onnx", "0-", "--class", 0)) == {"falsified"}
    assert "IDL201" in {told.code for told in certify(folder, "gains.onnx", "0+", "--class", 0).report.diagnostics}
    for model, more, told in (
        ("three.onnx", (), "name it with --class, 0 to 2"),
        ("three.onnx", ("--class", 3), "0 to 2, not 3"),
        ("rises.onnx", ("--class", 0), "has one; leave it out"),
    ):
        found = certify(folder, model, "0+", *more)
        assert found.code == 2
        assert told in found.err
    assert words(certify(folder, "three.onnx", "0+", "--class", 1)) <= {"certified", "falsified", "unknown"}
    assert words(certify(folder, "soft.onnx", "0+", "--class", 1)) <= {"certified", "falsified", "unknown"}


def test_what_makes_no_sense_is_refused(folder: Path) -> None:
    for way in ("3", "+", "zebra+", "9+"):
        assert certify(folder, "rises.onnx", way).code == 2
    found = run("certify", folder / "rises.onnx", "-d", folder / "d.npz", "-e", 0.1, "--monotone", "1+")
    assert "--monotone needs the range" in found.err
    (folder / "full").mkdir(exist_ok=True)
    (folder / "full" / "file").touch()
    found = certify(folder, "rises.onnx", "1+", "--certificates", folder / "full")
    assert found.code == 2
    assert "--force" in found.err


def test_views_and_gate(folder: Path) -> None:
    report = folder / "r.json"
    assert certify(folder, "rises.onnx", "2+", "-o", report).code == 0
    assert "It is proved that the output never falls while input 2 rises" in run("report", report).out
    assert "monotonicity at eps 0.1" in run("report", report, "-f", "junit").out
    assert "Monotonicity" in run("report", report, "-f", "markdown").out
    assert run("gate", report, "--require", "monotone@0.1 >= 1").code == 0
    assert run("gate", report, "--require", "monotone@0 < 1").code == 1
    assert "has no monotonicity" in run("gate", "reports/digits_mlp.json", "--require", "monotone >= 1").err


def test_reports_that_contradict_themselves_are_refused(folder: Path) -> None:
    report = certify(folder, "rises.onnx", "2+").report
    document = json.loads(to_json(report))
    document["monotonicity"]["samples"][0]["results"][0] |= {
        "verdict": "unknown",
        "reason": "time_limit",
        "slope": None,
    }
    with pytest.raises(Exception, match="contradicts itself"):
        parse_report(json.dumps(document).encode(), Path("r.json"))
    document["monotonicity"]["per_eps"][0] |= {"certified": 3, "unknown": 1}
    assert parse_report(json.dumps(document).encode(), Path("r.json")) != report
    document["monotonicity"]["samples"].pop()
    with pytest.raises(Exception, match="contradicts itself"):
        parse_report(json.dumps(document).encode(), Path("r.json"))
    assert from_json(to_json(report)) == report


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bent(folder: Path) -> Path:
    """relu(u_0 - .2) - relu(u_0 - .4) + u_1, which is flat, rises and is flat again: no bound over all of it shows."""
    onnx_chain(
        folder / "bent.onnx",
        [np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0]]), np.array([[1.0, -1.0, 1.0]])],
        [np.array([-0.2, -0.4, 1.0]), np.zeros(1)],
    )
    certificates = folder / "proofs"
    found = certify(folder, "bent.onnx", "0+", "--certificates", certificates)
    assert words(found) == {"certified"}
    assert sorted(map(Path, found.report.artifacts)) == sorted(certificates.iterdir())
    assert len(list(certificates.iterdir())) == 8
    return certificates


def verified(folder: Path, file: Path, model: str = "bent.onnx") -> Run:
    return run("verify", file, folder / model, "-f", "json")


def test_what_is_certified_has_a_certificate_that_verify_accepts(folder: Path, bent: Path) -> None:
    for file in sorted(bent.iterdir()):
        found = verified(folder, file)
        assert found.code == 0, found.out
        checked = found.report.verification
        assert checked.claim.startswith(
            "output 0 never falls while input 0 rises within [0.0, 1.0], in the box of eps "
        )
        about = checked.about
        assert (about.kind, about.label, about.free, about.direction) == ("monotone", 0, (0,), "+")
        assert about.leaves > 1
        assert from_json(to_json(found.report)) == found.report
    assert verified(folder, file, "any.onnx").code == 1


def test_a_class_before_softmax_has_certificates(folder: Path, tmp_path: Path) -> None:
    proofs = tmp_path / "proofs"
    certify(folder, "gains.onnx", "0+", "--class", 0, "--certificates", proofs)
    certify(folder, "gains.onnx", "0-", "--class", 1, "--certificates", tmp_path / "falls")
    for file in (*proofs.iterdir(), *(tmp_path / "falls").iterdir()):
        found = verified(folder, file, "gains.onnx")
        assert found.code == 0
        assert found.report.verification.claim.startswith("Softmax output ")


def forged(
    source: Path, to: Path, arrays: dict[str, object] | None = None, of: str = "claim", **changed: object
) -> Path:
    """Write a file with some arrays and some of meta's words changed; an array that is None is left out."""
    with np.load(source) as file:
        found = {name: file[name] for name in file.files}
    found |= arrays or {}
    meta = json.loads(str(found["meta"]))
    (meta if of == "meta" else meta[of]).update(changed)
    found["meta"] = np.asarray(json.dumps(meta))
    np.savez(to, **{name: value for name, value in found.items() if value is not None})
    return to


def test_forged_claims_are_refused(folder: Path, bent: Path, tmp_path: Path) -> None:
    source = bent / "sample-0-eps-0.1-monotone.npz"
    false = [{"direction": "-"}, {"direction": "-", "input": 1}, {"clip": [0.0, 1.0], "direction": "-", "eps": 0.5}]
    for number, claim in enumerate(false):
        assert verified(folder, forged(source, tmp_path / f"{number}.npz", **claim)).code == 1
    assert verified(folder, forged(source, tmp_path / "other.npz", input=1)).code == 0  # it rises with that one, too
    leaf = {"tree.variable": np.array([-1]), "tree.cut": np.zeros(1), "tree.child": np.zeros(1, np.int64)}
    assert verified(folder, forged(source, tmp_path / "leaf.npz", leaf)).code == 1
    with np.load(source) as file:
        variable, child = file["tree.variable"], file["tree.child"]
    for name, arrays in {
        "beyond": {"tree.cut": np.where(variable >= 0, 9.0, 0.0)},  # every node but one is empty: the leaf is the whole
        "negative": {"tree.cut": np.where(variable >= 0, -9.0, 0.0)},
        "others": {"tree.variable": np.where(variable >= 0, 3, variable)},
        "circle": {"tree.child": np.where(variable >= 0, 0, child)},
        "states": {"tree.variable": np.where(variable >= 0, 4, variable)},
    }.items():
        assert verified(folder, forged(source, tmp_path / f"{name}.npz", arrays)).code == 1, name


@pytest.mark.parametrize(
    ("changed", "arrays"),
    [
        ({"direction": "up"}, {}),
        ({"direction": None}, {}),
        ({"input": 4}, {}),
        ({"input": -1}, {}),
        ({"output": 1}, {}),
        ({"clip": None}, {}),
        ({"clip": [0.5, 0.4]}, {}),
        ({"eps": -0.1}, {}),
        ({"eps": float("inf")}, {}),
        ({"kind": "sample"}, {}),
        ({"free": [0]}, {}),
        ({}, {"tree.cut": None}),
        ({}, {"tree.cut": np.array([np.nan])}),
        ({}, {"tree.roots": np.array([0, 0]), "tree.more": np.array([0])}),
        ({}, {"centre": np.full(4, 2.0)}),
        ({}, {"centre": np.full(5, 0.5)}),
        ({}, {"sigma": np.ones(4)}),
    ],
)
def test_damaged_files_are_told(
    folder: Path, bent: Path, tmp_path: Path, changed: dict[str, object], arrays: dict[str, object]
) -> None:
    source = bent / "sample-0-eps-0.1-monotone.npz"
    found = verified(folder, forged(source, tmp_path / "damaged.npz", arrays, **changed))
    assert found.code in (1, 2)
    assert "Traceback" not in found.err


def test_such_a_file_is_about_real_numbers_and_has_no_classes(folder: Path, bent: Path, tmp_path: Path) -> None:
    source = bent / "sample-0-eps-0.1-monotone.npz"
    found = verified(folder, forged(source, tmp_path / "rounded.npz", of="meta", arithmetic="float32"))
    assert found.code == 2
    assert "a score that never goes the wrong way" in found.err
    assert verified(folder, forged(source, tmp_path / "classes.npz", of="model", threshold=0.5)).code == 2


def test_no_mutant_proves_what_is_false(folder: Path, tmp_path: Path) -> None:
    """Files of a network that rises in some places: whatever they claim and are accepted for is true on a grid."""
    certificates = tmp_path / "proofs"
    certify(folder, "any.onnx", "1+", "--certificates", certificates)
    certify(folder, "any.onnx", "1-", "--certificates", certificates, "--force")
    sources = [*certificates.iterdir(), *(folder / "proofs").iterdir()][:6]
    assert sources
    rng, accepted = np.random.default_rng(0), 0
    for number in range(40):
        source = sources[number % len(sources)]
        model = "bent.onnx" if source.parent.name == "proofs" and source.parent.parent == folder else "any.onnx"
        claim = {
            "direction": str(rng.choice(["+", "-"])),
            "input": int(rng.integers(4)),
            "eps": float(rng.choice([0.0, 0.05, 0.2])),
        }
        file = forged(source, tmp_path / "mutant.npz", {"centre": rng.random(4)}, **claim)
        if verified(folder, file, model).code == 0:
            accepted += 1
            assert is_true(folder / model, file, claim), claim
    assert accepted > 5


def is_true(model: Path, file: Path, claim: dict[str, object]) -> bool:
    """Whether the score of the implicit model goes the right way along many lines of the claim's set."""
    rng, network = np.random.default_rng(1), open_subject(model).model
    with np.load(file) as found:
        centre = found["centre"]
    eps, feature = claim["eps"], claim["input"]
    others = np.clip(centre + eps * rng.choice([-1.0, 1.0, 0.3], (200, 4)), 0, 1)
    points = np.repeat(others[:, None], 50, axis=1)
    points[..., feature] = np.linspace(0, 1, 50)
    scores = network(points.reshape(-1, 4)).reshape(200, 50)
    steps = np.diff(scores, axis=1) * (1 if claim["direction"] == "+" else -1)
    return bool((steps >= -1e-12).all())
