"""bounds as a function: its figures against the original network, its files, its limits, what the user is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands import bounds as audit_module
from idl_audit.commands.bounds import audit_bounds
from idl_audit.commands.options.measures import BoundsOptions
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data import vectors
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.radii import read_radii
from idl_audit.measure.state_bounds import METHODS
from idl_audit.report.json_text import from_json, to_json
from idl_audit.values.errors import DataError, OptionError

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL = SAMPLES / "digits_mlp.onnx"
DATA = SAMPLES / "digits_mlp.npz"


def options(*, eps="0.02", index=(0, 3), valid=(0.0, 1.0), data=DATA, scale=1.0, **changes):
    given = DataOptions(data, index=index, preprocessing=Preprocessing(scale=scale, bounds=valid))
    return BoundsOptions(eps=parse_eps(eps), data=given, **changes)


def audit(model=MODEL, watch=lambda progress: None, **changes):
    return audit_bounds(model, options(**changes), watch=watch)


def outputs(report, eps=None):
    (entry,) = (e for e in report.bounds if e.part == "outputs" and eps in (None, e.eps))
    return entry


def states(report):
    return [entry for entry in report.bounds if entry.part == "states"]


def codes(report):
    return [entry.code for entry in report.diagnostics]


def inputs_of(data=DATA):
    with np.load(data) as archive:
        return archive["inputs"].reshape(len(archive["inputs"]), -1).astype(np.float64)


def random_points(rng, centre, radius, k, count):
    """Return points within the radius and [0, 1] that change k inputs at most."""
    points = np.clip(centre + radius * rng.choice([-1, 0.3, 1], size=(count, centre.size)), 0, 1)
    for point in points:
        kept = rng.permutation(centre.size)[k:]
        point[kept] = centre[kept]
    return points


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
@pytest.mark.parametrize("k", [None, 3])
def test_the_original_network_stays_within_the_bounds(name, k):
    model, data = SAMPLES / f"{name}.onnx", SAMPLES / f"{name}.npz"
    report = audit(model, data=data, eps="0.05", sparse=k)
    subject, rng = open_subject(model), np.random.default_rng(0)
    for sample in outputs(report).samples:
        points = random_points(rng, inputs_of(data)[sample.index], 0.05, k or 64, 200)
        y = subject.original(points.astype(np.float32))
        slack = 1e-5 * np.abs(y).max()  # float32 inference
        assert (y >= np.array(sample.lower) - slack).all()
        assert (y <= np.array(sample.upper) + slack).all()


def test_the_report_has_an_entry_for_each_block_and_the_outputs_at_each_radius():
    report = audit(eps="0.01,0.02")
    names = [block.name for block in report.conversion.blocks]
    assert [(e.block, e.eps) for e in states(report)] == [(name, eps) for eps in (0.01, 0.02) for name in names]
    for entry, size in zip(states(report), [48, 32, 48, 32], strict=True):
        assert entry.size == entry.dead + entry.active + entry.unstable == size
        assert 0 <= entry.mean_unstable <= entry.unstable
        assert 0 < entry.mean_width <= entry.max_width
    small, large = (outputs(report, eps) for eps in (0.01, 0.02))
    assert small.mean_width < large.mean_width
    assert [s.index for s in small.samples] == [0, 3]
    assert from_json(to_json(report)) == report


def test_methods_are_listed_in_order_and_only_tighten():
    report = audit(SAMPLES / "digits_conv.onnx", data=SAMPLES / "digits_conv.npz")
    methods = outputs(report).methods
    assert [entry.method for entry in methods] == ["norm", "norm-matrix", "sensitivity", "interval", "linear"]
    widths = [entry.mean_width for entry in methods]
    assert widths == sorted(widths, reverse=True)
    assert all(entry.n == 2 for entry in methods)
    unstable = [entry.unstable for entry in methods[1:]]
    assert unstable == sorted(unstable, reverse=True)
    assert methods[-1].mean_width == outputs(report).mean_width
    total = sum(entry.mean_unstable for entry in states(report))
    assert methods[-1].unstable == pytest.approx(total)


def test_counts_are_those_of_the_sample_with_the_most_unstable_states():
    together = audit(index=(0, 3, 5))
    alone = [audit(index=(i,)) for i in (0, 3, 5)]
    for place, entry in enumerate(states(together)):
        single = [states(report)[place] for report in alone]
        worst = max(single, key=lambda e: e.unstable)
        assert (entry.dead, entry.active, entry.unstable) == (worst.dead, worst.active, worst.unstable)
        assert entry.mean_unstable == pytest.approx(np.mean([e.unstable for e in single]))
        assert entry.mean_width == pytest.approx(np.mean([e.mean_width for e in single]))
        assert entry.max_width == max(e.max_width for e in single)


@pytest.mark.parametrize("method", METHODS)
def test_one_method_alone_is_enough(method):
    report = audit(methods=(method,))
    found = outputs(report)
    assert [entry.method for entry in found.methods] == [method]
    assert found.mean_width == found.methods[0].mean_width
    assert bool(states(report)) == (method != "norm")


def test_labels_are_not_needed(tmp_path):
    np.savez(tmp_path / "x.npz", inputs=inputs_of()[:2])
    assert outputs(audit(data=tmp_path / "x.npz", index=(0, 1))).samples


def test_bounds_are_told_in_data_units(tmp_path):
    """Pixels of 0..16 with --scale 1/16 and eps 16 times as large give the same outputs."""
    np.savez(tmp_path / "x.npz", inputs=inputs_of() * 16)
    scaled = outputs(audit(data=tmp_path / "x.npz", eps="0.32", scale=1 / 16, valid=(0.0, 16.0)))
    plain = outputs(audit())
    np.testing.assert_allclose(
        [s.lower for s in scaled.samples], [s.lower for s in plain.samples], rtol=1e-6, atol=1e-6
    )


def test_saved_arrays_hold_what_the_report_says(tmp_path):
    file = tmp_path / "b.npz"
    report = audit(eps="0.01,0.02", save=file)
    assert report.artifacts == (str(file),)
    with np.load(file, allow_pickle=False) as archive:
        kept = dict(archive)
    assert kept["eps"].tolist() == [0.01, 0.02]
    assert kept["indices"].tolist() == [0, 3]
    assert kept["blocks"].tolist() == [block.name for block in report.conversion.blocks]
    for i, eps in enumerate((0.01, 0.02)):
        for j, sample in enumerate(outputs(report, eps).samples):
            assert kept["outputs_lo"][i, j].tolist() == list(sample.lower)
            assert kept["outputs_hi"][i, j].tolist() == list(sample.upper)
    subject = open_subject(MODEL)
    z, x = subject.model.pre_activations(inputs_of()[[0, 3]]), subject.model.state(inputs_of()[[0, 3]])
    for number, k in enumerate(subject.model.evaluation_order):
        for letter, values in (("z", z), ("x", x)):
            lo, hi = kept[f"{letter}{number}_lo"], kept[f"{letter}{number}_hi"]
            assert lo.shape == (2, 2, subject.model.blocks[k].size)
            assert (lo <= values[k]).all()
            assert (values[k] <= hi).all()
    entry = states(report)[0]
    assert float((kept["z0_hi"] - kept["z0_lo"])[0].mean()) == pytest.approx(entry.mean_width)


def test_blocks_without_bounds_are_saved_as_infinite(tmp_path):
    audit(methods=("norm",), save=tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as archive:
        assert np.isinf(archive["z0_lo"]).all()
        assert np.isfinite(archive["outputs_lo"]).all()


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "b.npz").write_bytes(b"mine")
    with pytest.raises(OptionError, match="exists already"):
        options(save=tmp_path / "b.npz")
    audit(save=tmp_path / "b.npz", force=True)
    assert (tmp_path / "b.npz").read_bytes() != b"mine"


def test_what_would_collect_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_module, "LARGEST_SAVED", 1000)
    with pytest.raises(OptionError, match="--limit"):
        audit(save=tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()


def test_the_threat_model_says_how_many_inputs_change():
    report = audit(sparse=3)
    assert (report.threat_model.set, report.threat_model.k) == ("card", 3)
    assert report.threat_model.clip == (0.0, 1.0)
    assert audit().threat_model.set == "box"
    assert outputs(report).mean_width < outputs(audit()).mean_width


def test_own_radii_hold_inputs_fixed(tmp_path):
    sigma = np.zeros(64)
    sigma[20] = 1.0
    np.save(tmp_path / "s.npy", sigma)
    report = audit(sigma=tmp_path / "s.npy")
    assert "IDL404" in codes(report)
    one = outputs(audit(sparse=1))
    own = outputs(report)
    assert 0 < own.mean_width <= one.mean_width + 1e-9
    np.save(tmp_path / "ones.npy", np.ones((8, 8)))
    assert outputs(audit(sigma=tmp_path / "ones.npy")).samples == outputs(audit()).samples


def test_radii_are_read_from_every_kind_of_file(tmp_path):
    wanted = np.array([0.0, 0.5, 1.0, 2.0])
    np.save(tmp_path / "a.npy", wanted.reshape(2, 2))
    np.savez(tmp_path / "a.npz", sigma=wanted)
    (tmp_path / "a.csv").write_text("0,0.5\n1, 2.0\n")
    (tmp_path / "b.csv").write_text("\ufeff0;5e-1 1\n2\n")
    for name in ("a.npy", "a.npz", "a.csv", "b.csv"):
        assert read_radii(tmp_path / name, (1, 4)).tolist() == wanted.tolist()


def test_radii_of_images_follow_the_layout(tmp_path):
    image = np.arange(24.0).reshape(2, 4, 3)  # height, width, channels
    np.save(tmp_path / "s.npy", image)
    assert read_radii(tmp_path / "s.npy", (1, 3, 2, 4), "nhwc").tolist() == image.transpose(2, 0, 1).ravel().tolist()
    np.save(tmp_path / "flat.npy", image.ravel())
    with pytest.raises(DataError, match=r"shape \(2, 4, 3\)"):
        read_radii(tmp_path / "flat.npy", (1, 3, 2, 4), "nhwc")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("1,2,3", "3 radii"),
        ("1,2,3,x", "'x' in column 4"),
        ("1,2,3,-4", "-4 for input 3"),
        ("1,2,3,nan", "column 4 has 'nan'"),
        ("1,2,inf,4", "inf for input 2"),
        ("0,0,0,0", "no radius above 0"),
        ("", "is empty"),
        (b"\xff\xfe\x00", "no UTF-16 text"),
    ],
)
def test_radii_that_are_none_are_refused(tmp_path, content, what):
    (tmp_path / "s.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=what):
        read_radii(tmp_path / "s.csv", (1, 4))


def test_radius_files_that_are_missing_or_have_other_names_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no such file"):
        read_radii(tmp_path / "s.npy", (4,))
    np.savez(tmp_path / "s.npz", radius=np.ones(4))
    with pytest.raises(DataError, match="no array named sigma"):
        read_radii(tmp_path / "s.npz", (4,))
    (tmp_path / "s.csv").write_text("1,2,3,4")
    monkeypatch.setattr(vectors, "LARGEST_TEXT", 3)
    with pytest.raises(DataError, match=r"numpy\.save"):
        read_radii(tmp_path / "s.csv", (4,))


def test_samples_outside_the_valid_range_are_refused_before_any_work():
    with pytest.raises(DataError, match="sample 3: input"):
        audit(valid=(0.0, 0.5), index=(3,))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"methods": ("magic",)}, "no method for bounds 'magic'"),
        ({"methods": ()}, "at least one"),
        ({"sparse": 0}, "--sparse"),
        ({"time_limit": 0.0}, "--time-limit"),
        ({"time_limit": float("nan")}, "--time-limit"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, what):
    with pytest.raises(OptionError, match=what):
        options(**changes)


def test_what_is_left_out_is_told():
    report = audit(model=MODEL, sparse=2)
    assert codes(report) == []
    chosen = replace(options(sparse=2), model=ModelOptions(max_bytes=60_000))
    report = audit_bounds(MODEL, chosen)
    assert codes(report) == ["IDL401", "IDL401"]
    assert all("--max-memory" in entry.hint for entry in report.diagnostics)


def test_running_out_of_time_is_told():
    report = audit(time_limit=1e-9)
    assert codes(report) == ["IDL402"]
    assert "2 of 2 sets" in report.diagnostics[0].message
    assert report.status == "complete"


def test_an_interrupted_run_reports_what_is_done(tmp_path):
    def stop(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    report = audit(watch=stop, eps="0.01,0.02", save=tmp_path / "b.npz")
    assert report.status == "incomplete"
    assert [s.index for s in outputs(report, 0.01).samples] == [0, 3]
    assert [s.index for s in outputs(report, 0.02).samples] == [0]
    with np.load(tmp_path / "b.npz") as archive:
        assert archive["indices"].tolist() == [0]
        assert archive["outputs_lo"].shape == (2, 1, 10)


def test_progress_counts_every_set():
    seen = []
    audit(eps="0.01,0.02", watch=lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(i, 4) for i in range(5)]
