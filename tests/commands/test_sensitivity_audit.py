"""sensitivity as a function: the matrix that is reported is the one that was asked for, and it holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.options.measures import LocalOptions, SensitivityOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.sensitivity import audit_sensitivity
from idl_audit.commands.shared import local_sensitivity as loop
from idl_audit.commands.shared import sensitivity_pictures
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.report.json_text import from_json, to_json
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.margins import margin_functionals

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL = SAMPLES / "digits_mlp.onnx"
DATA = SAMPLES / "digits_mlp.npz"
CONV = SAMPLES / "digits_conv.onnx"


def audit(model=MODEL, *, eps=None, limit=3, bounds=(0.0, 1.0), state_bounds="interval", watch=None, **options):
    if eps is not None:
        chosen = Preprocessing(bounds=bounds)
        data = DataOptions(model.with_suffix(".npz"), limit=limit, preprocessing=chosen)
        options |= {"local": LocalOptions(data, parse_eps(eps)[0], state_bounds), "preprocessing": chosen}
    return audit_sensitivity(model, SensitivityOptions(**options), watch=watch or (lambda progress: None))


@pytest.fixture(scope="module")
def model():
    return open_subject(MODEL).model


@pytest.fixture(scope="module")
def inputs():
    with np.load(DATA) as archive:
        return archive["inputs"].astype(np.float64)


def test_all_inputs_without_data(model):
    report = audit()
    found, expected = report.sensitivity, sensitivity_matrix(model, "best")
    assert (found.kind, found.samples, found.global_norm_inf, report.threat_model) == ("global", (), None, None)
    np.testing.assert_allclose(found.row_sums, expected.sum(axis=1), rtol=1e-12)
    for entry in found.top_inputs:
        assert entry.value == expected[entry.output, entry.input]
    assert found.independent_pairs == 0
    assert from_json(to_json(report)) == report


def test_the_smallest_scalar_is_named():
    found = audit(CONV).sensitivity
    scalars = {name: getattr(found, name) for name in ("norm_inf", "rho_norm_bound", "spectral_inf")}
    assert found.smallest.value == min(scalars.values()) == scalars[found.smallest.name]
    assert found.smallest.name == "spectral_inf"  # on this network
    assert audit(MODEL, method="centre-radius", eps="0.01").sensitivity.smallest.name == "norm_inf"


def test_boxes_give_the_largest_matrix_of_the_samples(model, inputs, tmp_path):
    report = audit(eps="0.02", save=tmp_path / "S.npz")
    found = report.sensitivity
    boxes = [Box.around(x, 0.02, valid_lo=0.0, valid_hi=1.0) for x in inputs[:3]]
    matrices = [local_sensitivity(model, box) for box in boxes]
    with np.load(tmp_path / "S.npz") as saved:
        np.testing.assert_array_equal(saved["S"], np.maximum.reduce(matrices))
        np.testing.assert_array_equal(saved["S_global"], sensitivity_matrix(model, "best"))
        np.testing.assert_array_equal(saved["indices"], [0, 1, 2])
    assert [sample.index for sample in found.samples] == [0, 1, 2]
    for sample, matrix in zip(found.samples, matrices, strict=True):
        assert sample.norm_inf == pytest.approx(matrix.sum(axis=1).max(), rel=1e-12)
        assert sample.norm_inf <= found.norm_inf <= found.global_norm_inf
    assert (found.kind, found.state_bounds, report.data.n) == ("local", "interval", 3)
    assert report.threat_model.eps[0].text == "0.02"
    assert report.threat_model.clip == (0.0, 1.0)


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_no_pair_within_a_sample_s_box_moves_an_output_further(name, tmp_path):
    path = SAMPLES / f"{name}.onnx"
    assert audit(path, eps="0.05", save=tmp_path / "S.npz").status == "complete"
    with np.load(tmp_path / "S.npz") as saved, np.load(path.with_suffix(".npz")) as archive:
        matrix, x = saved["S"], archive["inputs"][:3].reshape(3, 64).astype(np.float64)
    network = open_subject(path).model
    rng = np.random.default_rng(0)
    for centre in x:
        u, v = (np.clip(centre + 0.05 * np.sign(rng.normal(size=(400, 64))), 0, 1) for _ in range(2))
        change = np.abs(network(u) - network(v))
        assert (change <= np.abs(u - v) @ matrix.T * (1 + 1e-9) + 1e-9).all()


def test_linear_state_bounds_are_no_looser():
    simple, sharp = (audit(eps="0.1", state_bounds=name).sensitivity for name in ("interval", "linear"))
    assert sharp.norm_inf < simple.norm_inf
    assert sharp.state_bounds == "linear"


def test_differences_to_one_class_come_with_their_pairs(model, tmp_path):
    report = audit(label=3, top=2, save=tmp_path / "S.npz")
    margins = report.sensitivity.margins
    expected = sensitivity_matrix(model, "best", functionals=margin_functionals(10, 3))
    assert sorted(margin.rival for margin in margins) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert [margin.row_sum for margin in margins] == sorted((m.row_sum for m in margins), reverse=True)
    with np.load(tmp_path / "S.npz") as saved:
        np.testing.assert_array_equal(saved["margins"], expected)
        rows = dict(zip(saved["rivals"].tolist(), saved["margins"], strict=True))
    for margin in margins:
        assert margin.row_sum == pytest.approx(rows[margin.rival].sum(), rel=1e-12)
        assert margin.row_sum <= margin.sum_of_rows
        assert [entry.value for entry in margin.top_inputs] == sorted(rows[margin.rival], reverse=True)[:2]


def test_differences_within_boxes_are_local():
    local, whole = audit(label=3, eps="0.02").sensitivity, audit(label=3).sensitivity
    ours, theirs = ({m.rival: m.row_sum for m in found.margins} for found in (local, whole))
    assert all(ours[rival] < theirs[rival] for rival in theirs)


@pytest.mark.parametrize(("eps", "sigma"), [(None, 1.0), ("0.02", 0.02)])
def test_few_changes_are_bounded_by_the_largest_entries(tmp_path, eps, sigma):
    few = audit(eps=eps, sparse=5, save=tmp_path / "S.npz").sensitivity.cardinality
    with np.load(tmp_path / "S.npz") as saved:
        expected = sigma * np.sort(saved["S"], axis=1)[:, -5:].sum(axis=1)
    assert (few.k, few.sigma) == (5, sigma)
    np.testing.assert_allclose(few.bounds, expected, rtol=1e-12)
    assert (np.array(few.bounds) >= expected).all()


def test_groups_of_inputs_are_summed(tmp_path):
    labels = tmp_path / "groups.npy"
    np.save(labels, np.arange(64) % 3)
    groups = audit(groups=str(labels), top=1, save=tmp_path / "S.npz").sensitivity.groups
    with np.load(tmp_path / "S.npz") as saved:
        expected = np.stack([saved["S"][:, g::3].sum(axis=1) for g in range(3)], axis=1)
        np.testing.assert_allclose(saved["group_sums"], expected, rtol=1e-12)
        assert saved["group_names"].tolist() == list(groups.names) == ["0", "1", "2"]
    assert [entry.value for entry in groups.top] == pytest.approx(expected.max(axis=1), rel=1e-12)
    assert [int(entry.group) for entry in groups.top] == expected.argmax(axis=1).tolist()


def test_flat_inputs_become_images_by_their_shape(model):
    assert audit().sensitivity.input_map is None
    found = audit(image_shape=(8, 8), groups="rows").sensitivity
    expected = sensitivity_matrix(model, "best").sum(axis=0)
    assert (found.input_map.height, found.input_map.width, found.input_map.block) == (8, 8, 1)
    np.testing.assert_allclose(found.input_map.values, expected, rtol=1e-12)
    assert found.groups.names[:2] == ("row 0", "row 1")


def test_pictures_are_written_for_the_first_outputs_on_one_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity_pictures, "MOST_PICTURES", 2)
    scales = []
    real = sensitivity_pictures.draw_heat_map
    monkeypatch.setattr(
        sensitivity_pictures, "draw_heat_map", lambda *a, **k: scales.append(k["largest"]) or real(*a, **k)
    )
    report = audit(CONV, images=tmp_path / "out", save=tmp_path / "S.npz")
    names = [f"sensitivity-class-{i}.png" for i in range(2)]
    with np.load(tmp_path / "S.npz") as saved:
        assert scales == [saved["S"][:2].max()] * 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert [Path(name).name for name in report.sensitivity.images] == names
    assert report.artifacts[1:] == report.sensitivity.images
    assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in report.sensitivity.images)


def test_a_folder_with_something_in_it_needs_force(tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity_pictures, "MOST_PICTURES", 1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="is not empty"):
        audit(images=tmp_path)
    audit(images=tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for name, why in (("notes.txt", "is a file"), ("nowhere/out", "does not exist")):
        with pytest.raises(OptionError, match=why):
            audit(images=tmp_path / name)


def interrupt(monkeypatch, after):
    real, calls = loop.local_sensitivity, iter(range(100))

    def interrupted(*arguments, **options):
        if next(calls) == after:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "local_sensitivity", interrupted)


def test_an_interruption_keeps_the_samples_so_far(monkeypatch):
    expected = audit(eps="0.02", limit=2).sensitivity
    interrupt(monkeypatch, 2)
    report = audit(eps="0.02", limit=5)
    assert report.status == "incomplete"
    assert report.sensitivity.samples == expected.samples
    assert report.sensitivity.row_sums == expected.row_sums


def test_an_interruption_before_the_first_sample_bounds_nothing(monkeypatch, tmp_path):
    interrupt(monkeypatch, 0)
    report = audit(eps="0.02", save=tmp_path / "S.npz", images=tmp_path / "out")
    assert (report.status, report.artifacts) == ("incomplete", ())
    found = report.sensitivity
    assert (found.norm_inf, found.row_sums, found.matrix_file, found.samples) == (None, (), None, ())
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told():
    seen = []
    audit(eps="0.02", watch=lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "x"}, OptionError, "there is no method for S 'x'"),
        ({"eps": "0.02", "state_bounds": "x"}, OptionError, "there is no kind of state bounds 'x'"),
        ({"top": 0}, OptionError, "--top must be 1 or more"),
        ({"sparse": 0}, OptionError, "--sparse must be 1 or more"),
        ({"label": 10}, OptionError, "--class 10 is none of the 10 outputs"),
        ({"image_shape": (8, 9)}, OptionError, "--image-shape 8 x 9 has 72 numbers, and an input has 64"),
        ({"groups": "rows"}, OptionError, "needs inputs with rows and columns"),
        ({"groups": "nowhere.csv"}, DataError, "no such file"),
        ({"eps": "8"}, OptionError, "8/255"),
        ({"eps": "0.02", "bounds": (0.0, 0.5)}, DataError, "sample 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        audit(**options)


def test_a_matrix_beyond_float64_says_nothing(monkeypatch):
    from idl_audit.commands import sensitivity as module

    monkeypatch.setattr(module, "global_or_infinite", lambda model, method, **given: np.full((10, 64), np.inf))
    report = audit()
    assert report.sensitivity.norm_inf is None
    assert report.sensitivity.row_sums == ()
    assert [entry.code for entry in report.diagnostics] == ["IDL302"]
    json.loads(to_json(report))
