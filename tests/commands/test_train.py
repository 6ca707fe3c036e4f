"""train: what is written is a model for every other command, well-posed by proof, and as good as the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import idl_audit
from idl_audit.commands.options.models_from_data import TrainOptions
from idl_audit.commands.train import train_model
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.measure.reachability import independent_pairs
from idl_audit.values.errors import DataError, OptionError
from tests.shared.blobs import blobs
from tests.shared.command_line import run

MINUTES = 0.005


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, and numbers that three of six inputs make."""
    where = tmp_path_factory.mktemp("train")
    points, labels = blobs(300)
    np.savez(where / "blobs.npz", inputs=points[:200], labels=labels[:200])
    np.savez(where / "others.npz", inputs=points[200:], labels=labels[200:])
    rng = np.random.default_rng(0)
    u = rng.standard_normal((200, 6))
    y = np.abs(u[:, 1]) - 2 * u[:, 4] + np.maximum(u[:, 5], 0.3)
    np.savez(where / "table.npz", inputs=1000 + u * [1, 1, 1, 1, 1e-3, 1e3], targets=50 * y)
    return where


def asked(folder: Path, out: Path, data: str = "blobs.npz", **more: Any) -> TrainOptions:
    return TrainOptions(**{"data": folder / data, "out": out, "states": 8, "minutes": MINUTES, **more})


def test_a_classifier_is_written_and_certified(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.npz"
    report = train_model(asked(folder, out, holdout=folder / "others.npz", penalty="S=1e-3"))
    found = report.training
    assert found is not None
    assert report.artifacts == (str(out),)
    assert (found.train.n, found.holdout.n) == (200, 100)
    assert found.holdout.right is not None
    assert found.holdout.right >= 97
    assert found.norm_inf_A <= 0.95 == found.kappa
    assert report.conversion is not None
    assert report.conversion.well_posed.proof.startswith("PF")
    told = run("certify", out, "-d", folder / "others.npz", "-e", "0.02", "--limit", "20", "-q", "-f", "json")
    assert told.report.summary.per_eps[0].certified >= 18
    with np.load(out) as arrays:
        assert {"A", "B", "C", "D", "b", "d"} <= set(arrays)


def test_inputs_are_selected_and_the_others_proved_independent(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.npz"
    given = ("train", folder / "table.npz", "-o", out, "--states", "8", "--select", "3", "--solver", "bcd")
    told = run(*given, "--minutes", "0.02", "--json", tmp_path / "r.json", "-q")
    assert told.code == 0, told.err
    assert "Inputs that act: 3 of 6" in told.out
    report = json.loads((tmp_path / "r.json").read_text())["training"]
    assert set(report["kept_inputs"]) == {1, 4, 5}
    assert [norm > 0 for norm in report["column_norms"]] == [False, True, False, False, True, True]
    assert report["holdout"]["r2"] > 0.8
    model = idl_audit.load(out)
    assert independent_pairs(model).tolist() == [[True, False, True, True, False, False]]
    moved = np.full((1, 6), 1000.0)
    moved[0, [0, 2, 3]] += 77
    assert np.array_equal(model(np.full((1, 6), 1000.0)), model(moved))


@pytest.mark.parametrize(
    "more",
    [
        {"structure": "feed-forward:5,3", "states": None},
        {"eps": "0.05", "preprocessing": Preprocessing(bounds=(0.0, 1.0))},
        {"eps": "0.05", "data": "table.npz"},
        {"solver": "frank-wolfe", "penalty": "rho=1e-4,l1=1e-5"},
        {"preprocessing": Preprocessing(scale=2.0, mean=(0.5,), std=(0.25,))},
        {"loss": "squared"},
    ],
    ids=str,
)
def test_every_way_gives_a_model_that_the_report_is_right_about(
    folder: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    out = tmp_path / "m.npz"
    options = asked(folder, out, **more)
    found = train_model(options).training
    assert found is not None
    model = idl_audit.load(out)
    assert model.is_well_posed
    assert model.is_feed_forward == bool(options.structure.layers)
    assert (found.kappa is None) == model.is_feed_forward
    with np.load(options.data) as data:
        inputs = options.preprocessing.apply(data["inputs"].astype(float), (1, data["inputs"].shape[1]))
        outputs = model(inputs.astype(float))
        if found.loss == "squared":
            wanted = data["targets" if "targets" in data else "labels"].reshape(len(inputs), -1)
            squares = np.square(outputs - wanted).sum()
            parts = (found.train, found.holdout)
            assert squares == pytest.approx(sum(part.n * (part.rmse or 0) ** 2 for part in parts), rel=1e-6)
        else:
            right = int((outputs.argmax(axis=1) == data["labels"]).sum())
            assert right == (found.train.right or 0) + (found.holdout.right or 0)
            assert right >= 190


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_model(asked(folder, tmp_path / f"{name}.npz", seed=seed))
        files.append((tmp_path / f"{name}.npz").read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"states": None}, "--states is missing"),
        ({"structure": "feed-forward:5,4"}, "--states 8 are not the 9 of --structure feed-forward:5,4"),
        ({"structure": "feed-forward:5,3", "penalty": "rho=1"}, "rho is for a norm"),
        ({"structure": "feed-forward:5,3", "solver": "frank-wolfe"}, "frank-wolfe is for a norm"),
        ({"structure": "ring:3"}, "--structure must be free, or feed-forward"),
        ({"solver": "bcd", "eps": "0.1"}, "--solver bcd takes"),
        ({"kappa": "1"}, "--kappa must be"),
        ({"penalty": "S=1,S=2"}, "--penalty must be like"),
        ({"penalty": "magic=1"}, "--penalty must be like"),
        ({"penalty": "S=-1"}, "--penalty needs weights from 0"),
        ({"select": 2, "penalty": "columns=1"}, "--select finds the weight"),
        ({"select": 9}, "--select 9 is more than the 4 inputs"),
        ({"states": 10**5}, "is too many"),
        ({"shift": 1}, "--shift 1 needs images of shape .* the samples are 4"),
        ({"shift": 1, "solver": "bcd"}, "takes all samples at once"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        train_model(asked(folder, tmp_path / "m.npz", **more))
    assert not (tmp_path / "m.npz").exists()


def test_images_are_shifted_while_trained_on_and_judged_as_they_are(folder: Path, tmp_path: Path) -> None:
    """A class is where a bright column is; shifted copies of the samples kept apart are then right as well."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = 0.1 * rng.standard_normal((120, 8, 8))
    images[np.arange(120), :, 2 + 3 * labels] += 1
    np.savez(tmp_path / "images.npz", inputs=images, labels=labels)
    found = train_model(asked(tmp_path, tmp_path / "m.npz", "images.npz", shift=1)).training
    assert found is not None
    assert found.shift == 1
    assert found.holdout.right == found.holdout.n
    moved = np.concatenate([images[:, :, :1], images[:, :, :-1]], axis=2)
    model = idl_audit.load(tmp_path / "m.npz")
    assert (model(moved.reshape(120, -1)).argmax(axis=1) == labels).mean() > 0.95
    wide = images.reshape(120, 32, 2, 1)
    np.savez(tmp_path / "last.npz", inputs=wide, labels=labels)
    with pytest.raises(OptionError, match="the samples are 32 x 2 x 1"):
        train_model(asked(tmp_path, tmp_path / "n.npz", "last.npz", shift=1))


def test_data_that_teach_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", inputs=np.zeros((30, 2)), labels=np.zeros(30, int))
    with pytest.raises(DataError, match="one class only"):
        train_model(asked(tmp_path, tmp_path / "m.npz", "one.npz"))
    with pytest.raises(DataError, match="are among those of training"):
        train_model(asked(folder, tmp_path / "m.npz", holdout=folder / "blobs.npz"))
    with pytest.raises(DataError, match="10 are the fewest"):
        train_model(asked(folder, tmp_path / "m.npz", limit=20))
    with pytest.raises(DataError, match="no such file"):
        train_model(asked(folder, tmp_path / "m.npz", "missing.npz"))


def test_a_class_that_only_samples_kept_apart_have_is_an_output(tmp_path: Path) -> None:
    points, labels = blobs(100)
    held = np.sort(np.random.default_rng(0).permutation(100)[:10])
    labels[held[0]] = 2
    np.savez(tmp_path / "rare.npz", inputs=points, labels=labels)
    report = train_model(asked(tmp_path, tmp_path / "m.npz", "rare.npz"))
    assert report.model is not None
    assert report.model.n_outputs == 3


def test_inputs_of_unequal_size_in_one_unit_are_told(folder: Path, tmp_path: Path) -> None:
    bounds = Preprocessing(bounds=(-1e4, 1e4))
    report = train_model(asked(folder, tmp_path / "m.npz", "table.npz", preprocessing=bounds))
    assert [told.code for told in report.diagnostics] == ["IDL604"]
    assert report.training is not None
    assert report.training.units == "one"
