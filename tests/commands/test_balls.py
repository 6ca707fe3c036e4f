"""certify --norm l2|l1: verdicts with an exact answer, certificates, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import idl_audit
from idl_audit.commands.shared.subject import open_subject
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.json_text import from_json
from idl_audit.search.branching.balls import SearchBall
from idl_audit.values import input_sets
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import InvalidInputError, OptionError
from idl_audit.values.input_sets import NORMS, Norm, NormBall
from tests import independent_balls
from tests.independent_files import Refused
from tests.shared.command_line import DATA, MODEL, Run, run
from tests.shared.pairs import onnx_chain
from tests.shared.small_networks import random_network

NORM = {"l2": 2.0, "l1": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 0 where 3 u0 + 4 u1 > 2.5: (0.5, 0.5) is 0.2 away in l2 and 0.25 in l1; where u1 cannot fall, 1/3."""
    found = tmp_path_factory.mktemp("norms")
    onnx_chain(found / "m.onnx", [np.eye(2), np.array([[3.0, 4.0], [0.0, 0.0]])], [np.zeros(2), np.array([0.0, 2.5])])
    (found / "radii.csv").write_text("1,0.5")
    np.savez(found / "d.npz", inputs=np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 0.125]]), labels=np.array([0, 0, 1]))
    return found


def certify(folder: Path, *more: object, command: str = "certify") -> Run:
    return run(command, folder / "m.onnx", "-d", folder / "d.npz", "-f", "json", "--bounds", "0,1", *more)


def verdicts(found: Run) -> list[list[str]]:
    assert found.code == 0, found.err
    return [[result.verdict.value for result in sample.results] for sample in found.report.samples]


def test_radii_are_those_of_the_norm(folder: Path) -> None:
    """The second sample, (1, 0), falls along u0 alone: 1/6 in either norm."""
    found = verdicts(certify(folder, "--norm", "l2", "-e", "0.16,0.17,0.199,0.201"))
    assert found[0] == ["certified", "certified", "certified", "falsified"]
    assert found[1] == ["certified", "falsified", "falsified", "falsified"]
    assert found[2] == ["certified"] * 4
    found = verdicts(certify(folder, "--norm", "l1", "-e", "0.16,0.17,0.249,0.251"))
    assert found[0] == ["certified", "certified", "certified", "falsified"]
    assert found[1] == ["certified", "falsified", "falsified", "falsified"]


def test_radii_of_inputs_weigh_their_changes(folder: Path) -> None:
    """With radii (1, 1/2) the slopes (3, 4) are (3, 2): 1/sqrt(13) away in l2, 1/3 in l1."""
    weighed = ("--sigma", folder / "radii.csv")
    assert verdicts(certify(folder, "--norm", "l2", *weighed, "-e", "0.277,0.278"))[0] == ["certified", "falsified"]
    assert verdicts(certify(folder, "--norm", "l1", *weighed, "-e", "0.333,0.334"))[0] == ["certified", "falsified"]


@pytest.mark.parametrize("norm", NORMS)
def test_every_attack_finds_points_of_the_ball_whose_inputs_have_radii(
    folder: Path, norm: Norm, tmp_path: Path
) -> None:
    for method in ("apgd-ce", "apgd-t", "fmn", "square", "sign,pgd"):
        asked = ("--norm", norm, "-e", "0.4", "--sigma", folder / "radii.csv", "--method", method)
        found = certify(folder, *asked, "--save", tmp_path / f"{method}.npz", command="attack")
        assert verdicts(found)[0] == ["falsified"]
        with np.load(tmp_path / f"{method}.npz") as saved:
            change = (saved["inputs"].astype(float) - saved["originals"]) / np.array([1, 0.5])
        assert (np.linalg.norm(change, NORM[norm], axis=1) <= 0.4).all()


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_found_lies_in_the_ball(folder: Path, norm: Norm) -> None:
    asked = ("--norm", norm, "-e", "0.3", "--save", folder / f"{norm}.npz", "--force")
    found = certify(folder, *asked, command="attack")
    with np.load(folder / f"{norm}.npz") as saved:
        inputs, originals = saved["inputs"], saved["originals"]
    assert len(inputs) == 2
    assert (np.linalg.norm(inputs.astype(float) - originals, NORM[norm], axis=1) <= 0.3).all()
    assert ((inputs >= 0) & (inputs <= 1)).all()
    sizes = [s.results[0].adversarial.distance for s in found.report.samples if s.results[0].adversarial]
    np.testing.assert_allclose(sizes, np.linalg.norm(inputs.astype(float) - originals, NORM[norm], axis=1))


def certified_near(model: ImplicitModel, network: Any, x: FloatArray, label: int, norm: Norm, eps: float) -> NormBall:
    ball = NormBall.around(x, eps, norm, valid_lo=0.0, valid_hi=1.0)
    found = decide_sample(model, network, x, label, ball, Options(time_limit=60.0, max_nodes=3000))
    assert found.verdict.value in ("certified", "falsified", "unknown", "clean_wrong")
    if found.verdict.value == "certified":
        rng = np.random.default_rng(0)
        wild = ball.project(x + rng.normal(size=(6000, x.size)) * rng.choice([0.05, 0.5, 5.0], size=(6000, 1)))
        spikes = np.where(rng.random((2000, x.size)) < 0.03, rng.normal(size=(2000, x.size)), 0.0)
        ends = ball.lowest(rng.normal(size=(4000, x.size)) ** 3)
        points = np.vstack([wild, ball.project(x + spikes), ends]).astype(np.float64)
        points = points[ball.contains(points)]
        assert len(points) > 4000
        y = model(points)
        assert (y[:, label] - np.delete(y, label, axis=1).max(axis=1)).min() >= found.lower > 0
    return found.verdict.value


@pytest.mark.parametrize(("norm", "radii"), [("l2", (0.15, 0.5)), ("l1", (0.5, 1.2))])
def test_a_certified_ball_has_no_point_of_another_class(norm: Norm, radii: tuple[float, ...]) -> None:
    """Some 10^5 points of each net's balls, ends included; a smaller ball of a certified one is certified."""
    subject = open_subject(MODEL)
    with np.load(DATA) as data:
        x, y = data["inputs"][:6].astype(np.float64).reshape(6, -1), data["labels"][:6]
    seen = []
    for row, label in zip(x, y.tolist(), strict=True):
        found = [certified_near(subject.model, subject.original, row, label, norm, eps) for eps in radii]
        assert not (found[0] != "certified" and found[1] == "certified")
        assert not (found[0] == "falsified" and found[1] != "falsified")
        seen += found
    assert seen.count("certified") >= 4
    assert "falsified" in seen


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(5))
def test_small_networks_of_other_activations_hold_against_samples(norm: Norm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 4), activations=("relu", "leaky", "tanh", "sigmoid"))
    x = rng.random(3)
    label = int(model(x[None])[0].argmax())
    for eps in (0.05, 0.2, 0.6):
        certified_near(model, lambda u: model(u.astype(np.float64)), x, label, norm, eps)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weighed", [False, True])
def test_the_search_has_the_support_of_the_proof(norm: Norm, weighed: bool) -> None:
    import torch

    rng = np.random.default_rng(0)
    sigma = rng.choice([0.0, 0.4, 1.0, 3.0], 20) if weighed else None
    centre = np.clip(rng.random(20) * 1.4 - 0.2, 0, 1)
    ball = NormBall.around(centre, 0.7, norm, sigma=sigma, valid_lo=0.0, valid_hi=1.0)
    w = rng.normal(size=(30, 20)).astype(np.float32)
    seen = SearchBall.of(ball).least(torch.from_numpy(w)).numpy()
    proved = w.astype(float) @ ball.centre - ball.rise(-w.astype(float))
    np.testing.assert_allclose(seen, proved, rtol=1e-4, atol=1e-4)


def test_reports_say_the_norm_and_other_norms_never_compare(folder: Path) -> None:
    names = ("linf", "weighed", *NORMS)
    for name in names:
        norm, *more = ("l2", "--sigma", folder / "radii.csv") if name == "weighed" else (name,)
        found = certify(folder, "--norm", norm, *more, "-e", "0.1", "-o", folder / f"{name}.json", "--force")
        assert found.code == 0
        assert from_json((folder / f"{name}.json").read_text()).threat_model.norm == norm
    gate = run("gate", folder / "weighed.json", "--require", "certified_accuracy@0.1 >= 0.9").out
    assert "norm of the change, each input's in units of its own radius" in " ".join(gate.split())
    page = run("report", folder / "weighed.json", "-f", "markdown").out
    assert "in the l2 norm, all together, changes in units of each input's own radius" in page
    text = run("certify", folder / "m.onnx", "-d", folder / "d.npz", "--norm", "l2", "-e", 0.1, "-q").out
    assert "At eps 0.1 in the l2 norm: 3 of 3 samples are certified" in text
    page = run("report", folder / "l2.json", "-f", "markdown").out
    assert "by at most eps in the l2 norm, all together, within 0 to 1" in page
    gate = run("gate", folder / "l2.json", "--require", "certified_accuracy@0.1 >= 0.9")
    assert "eps bounds the l2 norm of the change" in gate.out
    for first in names:
        for second in names:
            code = run("diff", folder / f"{first}.json", folder / f"{second}.json").code
            assert code == (0 if first == second else 2)


def test_a_report_that_contradicts_itself_is_refused(folder: Path) -> None:
    found = certify(folder, "--norm", "l2", "-e", "0.1")
    for change in ({"set": "box"}, {"norm": "linf"}, {"k": 3}):
        text = json.loads(found.out)
        text["threat_model"] |= change
        with pytest.raises(InvalidInputError, match="threat_model"):
            from_json(json.dumps(text))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--norm", "l3"), "there is no norm 'l3'; known are linf, l2, l1"),
        (("--norm", "l2", "--ignore", "1"), "has no --sparse or --ignore"),
        (("--norm", "l2", "--arithmetic", "float32"), "in real arithmetic alone"),
        (("--norm", "l2", "--perturb", "brightness=0.1"), "leave it out beside --perturb"),
        (("--norm", "l2", "--method", "split"), "split is not for"),
    ],
)
def test_what_is_not_proved_is_refused_by_name(folder: Path, line: tuple[str, ...], words: str) -> None:
    found = certify(folder, "-e", "0.1", *line)
    assert found.code == 2
    assert words in found.err


def test_loops_are_refused() -> None:
    found = run("certify", MODEL.parent / "digits_mondeq.npz", "-d", DATA, "--norm", "l2", "-e", "0.1")
    assert found.code == 2
    assert "without loops" in found.err


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proofs(folder: Path) -> dict[str, Path]:
    asked = {"l2": ("l2", "0.19", False), "l1": ("l1", "0.24", False)}
    asked |= {"weighed l2": ("l2", "0.27", True), "weighed l1": ("l1", "0.33", True)}
    for name, (norm, eps, weighed) in asked.items():
        more = ("--sigma", folder / "radii.csv") if weighed else ()
        assert certify(folder, "--norm", norm, "-e", eps, *more, "--certificates", folder / name).code == 0
    return {name: folder / name / f"sample-0-eps-{eps}.npz" for name, (_, eps, _) in asked.items()}


def verified(folder: Path, source: Path, target: Path, **claim: object) -> Run:
    with np.load(source) as read:
        found = {name: read[name] for name in read.files}
    sigma = claim.pop("sigma", None)
    if sigma == "left out":
        del found["sigma"]
    elif sigma is not None:
        found["sigma"] = np.array(sigma)
    meta = json.loads(str(found["meta"][()]))
    meta["claim"] = {name: value for name, value in (meta["claim"] | claim).items() if value != "left out"}
    np.savez(target, **(found | {"meta": np.asarray(json.dumps(meta))}))
    return run("verify", target, folder / "m.onnx")


def test_certificates_are_accepted_and_say_the_norm(folder: Path, proofs: dict[str, Path]) -> None:
    for norm, eps in (("l2", 0.19), ("l1", 0.24)):
        found = run("verify", proofs[norm], folder / "m.onnx")
        assert found.code == 0, found.out
        text = " ".join(found.out.split())
        assert f"in the {norm} ball of eps {eps} within [0.0, 1.0] around the file's sample 0" in text
        assert f"eps {eps} in the {norm} norm" in text
    text = " ".join(run("verify", proofs["weighed l2"], folder / "m.onnx").out.split())
    assert "in the l2 ball of eps 0.27 in units of the radii of the file" in text
    assert (
        "eps 0.27 in the l2 norm of changes in units of sigma, 2 numbers" in text or "units of sigma, 1.0, 0.5" in text
    )


def test_another_checker_accepts_them(proofs: dict[str, Path], folder: Path) -> None:
    for path in proofs.values():
        assert '"norm"' in independent_balls.check(folder / "m.onnx", path)


@pytest.mark.parametrize(
    ("norm", "claim"),
    [
        ("l2", {"eps": 0.21}),
        ("l1", {"eps": 0.26}),
        ("l1", {"norm": "l2"}),  # the ball of that radius is larger
        ("l2", {"norm": "left out"}),  # and so is the box
        ("l2", {"norm": "l3"}),
        ("l2", {"norm": "linf"}),
        ("l2", {"label": 1}),
        ("l2", {"clip": [0.6, 1.0]}),
        ("l2", {"cardinality": 1}),
        ("l2", {"free": [1]}),
        ("l2", {"eps": 0.0}),
        ("l2", {"sigma": [1.0, 1.2]}),
        ("l2", {"sigma": [1.0, -1.0]}),
        ("weighed l2", {"sigma": [1.0, 0.6]}),
        ("weighed l2", {"sigma": "left out"}),
        ("weighed l1", {"sigma": [1.1, 0.5]}),
        ("weighed l1", {"norm": "l2"}),
    ],
)
def test_forged_claims_are_refused(
    folder: Path, proofs: dict[str, Path], tmp_path: Path, norm: str, claim: dict[str, object]
) -> None:
    assert verified(folder, proofs[norm], tmp_path / "forged.npz", **claim).code in (1, 2)
    with pytest.raises(Refused):
        independent_balls.check(folder / "m.onnx", tmp_path / "forged.npz")


def test_a_proof_over_a_larger_ball_is_one_over_the_smaller(
    folder: Path, proofs: dict[str, Path], tmp_path: Path
) -> None:
    assert verified(folder, proofs["l2"], tmp_path / "less.npz", norm="l1").code == 0


def test_certificates_of_branched_samples_are_accepted(tmp_path: Path) -> None:
    """A network with hidden states, at radii where trees are needed."""
    line = ("--norm", "l1", "-e", "1.2", "--bounds", "0,1", "--limit", "8", "--max-nodes", "3000")
    found = run("certify", MODEL, "-d", DATA, *line, "-f", "json", "--certificates", tmp_path / "proofs")
    methods = {s.results[0].method for s in found.report.samples if s.results[0].verdict.value == "certified"}
    assert "branch" in methods
    files = sorted((tmp_path / "proofs").glob("*.npz"))
    assert files
    for file in files:
        assert run("verify", file, MODEL).code == 0
    independent_balls.check(MODEL, min(files, key=lambda file: file.stat().st_size))


# --- Python ----------------------------------------------------------------------------------------------------------


def test_python_has_norms(folder: Path) -> None:
    with np.load(folder / "d.npz") as data:
        x, y = data["inputs"], data["labels"]
    found = idl_audit.certify(folder / "m.onnx", x, y, eps=0.19, norm="l2", bounds=(0, 1))
    assert [sample.verdict for sample in found.samples] == ["certified", "falsified", "certified"]
    with pytest.raises(OptionError, match="real arithmetic alone"):
        idl_audit.certify(folder / "m.onnx", x, y, eps=0.1, norm="l2", arithmetic="float32")
    with pytest.raises(OptionError, match="beside perturb"):
        idl_audit.certify(folder / "m.onnx", x, y, norm="l2", perturb="brightness=0.1")


def test_steps_far_beyond_any_ball_are_drawn_back_onto_it_without_overflow() -> None:
    change = np.array([[3e200, -4e200, 0.0], [0.0, 0.0, 0.0], [0.1, 0.2, 0.2]])
    found = input_sets._shrunk(change, 1.0)
    np.testing.assert_allclose(found, [[0.6, -0.8, 0.0], [0.0, 0.0, 0.0], [0.1, 0.2, 0.2]], rtol=1e-14)
