"""attack with --target, --sparse, --sigma and --images: what is found lies in the set, and what is refused is said."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from idl_audit.report.schema import Verdict
from tests.shared.command_line import DATA, MODEL, SAMPLES, run

CONV, CONV_DATA = SAMPLES / "digits_conv.onnx", SAMPLES / "digits_conv.npz"


def attack(*args, model=MODEL, data=DATA, eps="0.75", method="sign,pgd"):
    return run("attack", model, "-d", data, "-e", eps, "--bounds", "0,1", "--method", method, "-f", "json", *args)


def predicted(model, inputs):
    session = onnxruntime.InferenceSession(model)
    entry = session.get_inputs()[0]
    shape = [1, *(size if isinstance(size, int) else 1 for size in entry.shape[1:])]
    return np.array([session.run(None, {entry.name: u.reshape(shape)})[0].argmax() for u in inputs])


def loaded(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def originals(data=DATA):
    inputs = loaded(data)["inputs"]
    return inputs.reshape(len(inputs), -1)


@pytest.mark.parametrize(("model", "data"), [(MODEL, DATA), (CONV, CONV_DATA)])
def test_sparse_attacks_that_were_saved_change_at_most_k_inputs(tmp_path, model, data):
    found = attack("--sparse", 4, "--limit", 10, "--save", tmp_path / "adv.npz", model=model, data=data)
    assert found.code == 0
    report = found.report
    assert (report.threat_model.set, report.threat_model.k) == ("card", 4)
    saved = loaded(tmp_path / "adv.npz")
    assert len(saved["inputs"]) == report.summary.per_eps[0].falsified >= 5
    changes = saved["inputs"].astype(np.float64) - originals(data)[saved["indices"]].astype(np.float64)
    assert ((changes != 0).sum(axis=1) <= 4).all()
    assert (np.abs(changes) <= 0.75).all()
    assert ((saved["inputs"] >= 0) & (saved["inputs"] <= 1)).all()
    np.testing.assert_array_equal(predicted(model, saved["inputs"]), saved["predictions"])
    assert (saved["predictions"] != saved["labels"]).all()
    for sample in report.samples:
        for result in sample.results:
            assert result.adversarial is None or result.adversarial.l0 <= 4


def test_targeted_attacks_reach_their_class_and_leave_its_samples_out(tmp_path):
    found = attack("--target", 3, "--limit", 20, "--save", tmp_path / "adv.npz", eps="0.2")
    report = found.report
    labels = loaded(DATA)["labels"][:20]
    assert report.threat_model.target == 3
    assert [sample.index for sample in report.samples] == np.flatnonzero(labels != 3).tolist()
    assert (labels == 3).any()
    assert "IDL203" in [entry.code for entry in report.diagnostics]
    saved = loaded(tmp_path / "adv.npz")
    assert len(saved["inputs"]) >= 5
    assert (saved["predictions"] == 3).all()
    np.testing.assert_array_equal(predicted(MODEL, saved["inputs"]), saved["predictions"])
    for sample in report.samples:
        for result in sample.results:
            assert result.adversarial is None or (result.adversarial.class_ == 3 and result.adversarial.margin <= 0)
    untargeted = attack("--limit", 20, eps="0.2").report
    assert untargeted.summary.per_eps[0].falsified >= report.summary.per_eps[0].falsified


def test_a_target_is_proved_unreachable_where_the_label_outranks_it():
    """The bound of the one rival is that of the untargeted margins, or above."""
    whole = attack("--limit", 5, eps="0.01", method="lp").report
    for goal in (3, 5):
        aimed = attack("--limit", 5, "--target", goal, eps="0.01", method="lp").report
        bounds = {sample.index: sample.results[0].lower_bound for sample in whole.samples}
        for sample in aimed.samples:
            if sample.results[0].verdict is Verdict.CERTIFIED and bounds[sample.index] is not None:
                assert sample.results[0].lower_bound >= bounds[sample.index] - 1e-9
        assert aimed.summary.per_eps[0].certified >= 1


def test_inputs_with_radius_zero_stay(tmp_path):
    sigma = np.zeros(64)
    sigma[20:44] = 1.0
    sigma[30] = 0.5
    np.save(tmp_path / "sigma.npy", sigma)
    found = attack("--sigma", tmp_path / "sigma.npy", "--limit", 10, "--save", tmp_path / "adv.npz", eps="0.5")
    assert found.report.threat_model.sigma == str(tmp_path / "sigma.npy")
    saved = loaded(tmp_path / "adv.npz")
    assert len(saved["inputs"]) >= 3
    changes = saved["inputs"].astype(np.float64) - originals()[saved["indices"]].astype(np.float64)
    assert (np.abs(changes) <= 0.5 * sigma).all()


def test_certify_reads_radii_too(tmp_path):
    np.save(tmp_path / "sigma.npy", np.eye(64)[5])
    args = ("-d", DATA, "-e", "0.3", "--bounds", "0,1", "--limit", 5, "-f", "json", "--method", "linear")
    wide, narrow = run("certify", MODEL, *args).report, run("certify", MODEL, *args, "--sigma", tmp_path / "sigma.npy")
    assert narrow.report.summary.per_eps[0].certified > wide.summary.per_eps[0].certified


def test_samples_that_are_no_float32_numbers_are_rounded_and_it_is_said(tmp_path):
    inputs = np.clip(originals()[:3].astype(np.float64) * 0.9 + 0.01, 0.0, 1.0)
    np.savez(tmp_path / "d.npz", inputs=inputs, labels=loaded(DATA)["labels"][:3])
    found = attack("--sparse", 4, "--save", tmp_path / "adv.npz", data=tmp_path / "d.npz").report
    assert "IDL204" in [entry.code for entry in found.diagnostics]
    saved = loaded(tmp_path / "adv.npz")
    assert len(saved["inputs"]) >= 1
    assert ((saved["inputs"] != inputs.astype(np.float32)[saved["indices"]]).sum(axis=1) <= 4).all()
    assert "IDL204" not in [entry.code for entry in attack("--sparse", 4, "--limit", 3).report.diagnostics]


def test_pictures_are_drawn_for_every_success_and_listed(tmp_path):
    folder = tmp_path / "pictures"
    found = attack("--sparse", 4, "--limit", 4, "--images", folder, "--image-shape", "8,8", eps="0.5,0.75").report
    successes = sum(r.verdict is Verdict.FALSIFIED for sample in found.samples for r in sample.results)
    files = sorted(str(file) for file in folder.iterdir())
    assert successes >= 2
    assert sorted(found.artifacts) == files
    assert len(files) == successes
    for file in files:
        with Image.open(file) as picture:
            assert picture.size[0] > 500


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--target", 10), ("--target", "0 to 9")),
        (("--target", -1), ("--target", "0 to 9")),
        (("--sparse", 0), ("--sparse", "1 or more")),
        (("--sigma", "nowhere.npy"), ("nowhere.npy",)),
        (("--image-shape", "8,8"), ("--images",)),
        (("--images", "pictures", "--image-shape", "8,9"), ("72 numbers", "64")),
        (("--images", "pictures", "--image-shape", "8,x"), ("--image-shape", "8,x")),
        (("--images", "nowhere/pictures"), ("nowhere", "does not exist")),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    found = attack("--limit", 2, *args)
    assert (found.code, found.out) == (2, "")
    for word in words:
        assert word in found.err
    assert list(tmp_path.iterdir()) == []


def test_a_target_class_that_all_samples_have_is_refused():
    label = int(loaded(DATA)["labels"][0])
    found = attack("--index", 0, "--target", label)
    assert found.code == 2
    assert f"target class {label} already" in found.err


# ---- S of another network --------------------------------------------------------------------------------------------


def test_another_networks_S_ranks_the_inputs(tmp_path):
    """The paper's transfer (7.3.1): inputs that matter to the network with the flat input, changed in the other one."""
    own, other = tmp_path / "own.npz", tmp_path / "other.npz"
    for path, model in ((own, MODEL), (other, CONV)):
        assert run("sensitivity", model, "--save", path).code == 0
    for matrix in (own, other):
        saved = tmp_path / f"adv_{matrix.name}"
        found = attack(
            *("--matrix", matrix, "--fraction", "0.1", "--limit", 20, "--save", saved), eps="1", method="sensitivity"
        )
        assert found.code == 0, found.err
        (told,) = (one for one in found.report.diagnostics if one.code == "IDL218")
        assert str(matrix) in told.message
        S, adversarial = loaded(matrix)["S"], loaded(saved)
        moved = adversarial["inputs"].reshape(-1, 64) != originals()[adversarial["indices"]]
        assert len(moved)
        for row, label in zip(moved, adversarial["labels"], strict=True):
            ranked = np.argsort(-S[label], kind="stable")[:6]
            assert set(np.flatnonzero(row)) <= set(ranked)


@pytest.mark.parametrize(
    ("S", "more", "method", "words"),
    [
        (np.ones((10, 63)), {}, "sensitivity", "an S of shape (10, 63), and the network has 10 outputs and 64 inputs"),
        (np.ones((9, 64)), {}, "sensitivity", "10 outputs and 64 inputs"),
        (-np.ones((10, 64)), {}, "sensitivity", "no sensitivity matrix"),
        (np.full((10, 64), np.nan), {}, "sensitivity", "no finite numbers"),
        (np.ones((10, 64)), {"input_shape": [1, 1, 4, 16]}, "sensitivity", "inputs of shape (1, 1, 4, 16)"),
        (np.ones((10, 64)), {}, "pgd", "--method sensitivity"),
    ],
)
def test_a_matrix_that_ranks_nothing_is_refused(tmp_path, S, more, method, words):
    np.savez(tmp_path / "S.npz", S=S, **more)
    found = attack("--matrix", tmp_path / "S.npz", "--limit", 1, model=CONV, data=CONV_DATA, method=method)
    assert found.code == 2
    assert words in found.err


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5), ("l1", 2.0)])
def test_auto_says_which_attack_found_a_point_and_with_how_many_queries(tmp_path, norm, eps):
    save = tmp_path / "adv.npz"
    more = ("--norm", norm, "--max-queries", 100, "--limit", 12, "--save", save)
    found = attack(*more, eps=str(eps), method="auto")
    assert found.code == 0
    report = found.report
    assert report.summary.methods == ("apgd-ce", "apgd-t", "fmn", "square")
    results = [sample.results[0] for sample in report.samples]
    toppled = [one for one in results if one.verdict is Verdict.FALSIFIED]
    assert 0 < len(toppled) < len(results)
    assert all(one.method in report.summary.methods and one.queries > 0 for one in toppled)
    withstood = [one.queries for one in results if one.verdict is Verdict.UNKNOWN]
    assert all(300 <= queries <= 450 for queries in withstood)
    saved = loaded(save)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    sizes = np.linalg.norm(saved["inputs"].astype(np.float64) - saved["originals"], order, axis=1)
    assert (sizes <= eps).all()
    np.testing.assert_array_equal(predicted(MODEL, saved["inputs"]), saved["predictions"])
    assert (saved["predictions"] != saved["labels"]).all()


def test_auto_works_through_what_a_perturbation_changes_and_over_pixels_and_refuses_few_inputs():
    perturbed = ("--perturb", "brightness=0.3,contrast=0.5:1.5", "--image-shape", "8,8", "--limit", 3)
    asked = ("--method", "auto", "--max-queries", 20, *perturbed, "-f", "json")
    found = run("attack", MODEL, "-d", DATA, "--bounds", "0,1", *asked)
    assert found.code == 0
    assert found.report.summary.per_eps[0].n == 3
    assert {sample.results[0].queries is not None for sample in found.report.samples} == {True}
    refused = attack("--sparse", 3, method="auto")
    assert (refused.code, refused.err) == (
        2,
        "error: the method apgd-ce is not for sets in which few inputs change; leave it out\n",
    )
