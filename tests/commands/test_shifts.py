"""Shifts by less than a pixel are bilinear resampling, exactly; certificates and verdicts are about all of them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_audit.commands.shared.subject import open_subject
from idl_audit.decide.ladder import Options
from idl_audit.decide.perturbed import decide_perturbed
from idl_audit.implicit.front import with_family
from idl_audit.proof.bounds import Interval
from idl_audit.proof.exact.point import enclosed_outputs
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.errors import OptionError
from idl_audit.values.families import Family
from idl_audit.values.layouts import Layout
from idl_audit.values.perturbations import Around, Perturbation, Perturbed
from idl_audit.values.shifts import QUADRANTS, Shift
from tests.shared.command_line import DATA, MODEL, Run, run
from tests.shared.pairs import onnx_chain
from tests.shared.small_networks import random_network


def resampled(picture: np.ndarray, down: Fraction, right: Fraction) -> list[Fraction]:
    """Bilinear interpolation at (i - down, j - right), edges repeated, pixel by pixel in fractions."""
    height, width = picture.shape
    found = []
    for i in range(height):
        for j in range(width):
            y, x = i - down, j - right
            i0, j0 = y.__floor__(), x.__floor__()
            value = Fraction(0)
            for k, wy in ((i0, 1 - (y - i0)), (i0 + 1, y - i0)):
                for m, wx in ((j0, 1 - (x - j0)), (j0 + 1, x - j0)):
                    pixel = picture[min(max(k, 0), height - 1), min(max(m, 0), width - 1)]
                    value += wy * wx * Fraction(float(pixel))
            found.append(value)
    return found


@pytest.mark.parametrize("number", range(4))
def test_members_are_bilinear_resampling(number: int) -> None:
    rng = np.random.default_rng(number)
    picture = rng.integers(0, 256, (4, 5)) / 256.0  # sums of which are exact
    family = list(Shift(1.0).families(picture.reshape(-1), Layout(1, 4, 5, last=False), 1.0))[number]
    down, right = QUADRANTS[number]
    for a, b in ((0, 0), (1, 0), (0, 1), (1, 1), (Fraction(1, 3), Fraction(5, 7)), (Fraction(1, 2), Fraction(1, 4))):
        wanted = resampled(picture, down * Fraction(a), right * Fraction(b))
        t = np.array([float(a), float(b)])
        lo, hi = family.enclosed(np.nextafter(t, -1), np.nextafter(t, 2))
        assert all(Fraction(x) <= value <= Fraction(y) for x, value, y in zip(lo, wanted, hi, strict=True))
        np.testing.assert_allclose(family.members(t[None])[0], [float(v) for v in wanted], rtol=1e-14, atol=1e-15)
    whole = np.roll(picture, down, axis=0)
    whole[0 if down > 0 else -1] = picture[0 if down > 0 else -1]
    np.testing.assert_array_equal(family.members(np.array([[1.0, 0.0]])).reshape(4, 5), whole)


def test_the_enclosure_of_a_box_holds_its_members() -> None:
    rng = np.random.default_rng(0)
    family = next(Shift(1.0).families(rng.random(12), Layout(3, 2, 2, last=True), 1.0))
    for _ in range(40):
        ends = np.sort(rng.random((2, 2)), axis=0)
        lo, hi = family.enclosed(*ends)
        u = family.members(ends[0] + rng.random((500, 2)) * (ends[1] - ends[0]))
        assert (u >= lo - 1e-15).all()
        assert (u <= hi + 1e-15).all()


@pytest.mark.parametrize("seed", range(4))
def test_in_front_of_a_model_it_is_the_model_at_the_members(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=6, widths=(5, 4))
    for family in Shift(0.8).families(rng.random(6), Layout(1, 2, 3, last=False), 1.0):
        front, box = with_family(model, family), family.parameters
        t = rng.random((100, 2)) * box.hi
        np.testing.assert_allclose(front(t), model(family.members(t)), rtol=1e-11, atol=1e-11)
        inputs = Interval.of_boxes(box)
        seeds = np.vstack([np.eye(3), -np.eye(3)])
        least = output_lower_bounds(front, inputs, backward_state_bounds(front, inputs), seeds)[0]
        assert (front(t) @ seeds.T >= least - 1e-12).all()
        lo, hi = enclosed_outputs(front, [Fraction(1, 3), Fraction(2, 3)])
        near = front(np.array([[1 / 3, 2 / 3]]))[0]
        assert ((lo - 1e-12 <= near) & (near <= hi + 1e-12)).all()


def test_a_certified_shift_changes_no_class() -> None:
    subject = open_subject(MODEL)
    with np.load(DATA) as data:
        x, y = data["inputs"][:6].astype(np.float64).reshape(6, -1), data["labels"][:6]
    rng, proved = np.random.default_rng(0), 0
    for row, label in zip(x, y.tolist(), strict=True):
        inputs = Perturbed(Around(row, (8, 8), (0.0, 1.0)), Perturbation(shift=Shift(0.4)))
        found = decide_perturbed(
            subject.model, subject.original, label, inputs, Options(time_limit=60, max_nodes=20_000)
        )
        if found.verdict.value == "certified":
            proved += 1
            for family in inputs.pieces:
                assert isinstance(family, Family)
                t = np.vstack([rng.random((25_000, 2)), np.array([[0, 0], [0, 1], [1, 0], [1, 1]])]) * 0.4
                outputs = subject.model(family.members(t))
                rivals = np.delete(outputs, label, axis=1).max(axis=1)
                assert (outputs[:, label] - rivals).min() >= found.lower > 0
    assert proved >= 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 0 where the left column of 3 x 3 pixels is brighter than 1: a dark picture with a bright left column."""
    found = tmp_path_factory.mktemp("shifts")
    left = np.zeros((3, 3))
    left[:, 0] = 1.0
    layers = [np.eye(9), np.stack([left.reshape(-1), np.zeros(9)])]
    onnx_chain(found / "m.onnx", layers, [np.zeros(9), np.array([0.0, 1.0])])
    picture = np.zeros((2, 3, 3))
    picture[0, :, 0] = 0.5  # 1.5; shifted to the left by a: 1.5 (1 - a)
    picture[1, :, 1] = 0.25  # 0; shifted to the left by a: 0.75 a
    np.savez(found / "d.npz", inputs=picture.reshape(2, -1), labels=np.array([0, 1]))
    return found


def shifted(folder: Path, text: str, *more: object) -> Run:
    asked = ("--perturb", text, "--image-shape", "3,3", "--bounds", "0,1", "-f", "json")
    return run("certify", folder / "m.onnx", "-d", folder / "d.npz", *asked, *more)


def test_verdicts_are_those_of_the_formula(folder: Path) -> None:
    def verdicts(text: str, *more: object) -> list[list[str]]:
        return [[r.verdict.value for r in s.results] for s in shifted(folder, text, *more).report.samples]

    assert verdicts("translate=0.33") == [["certified"], ["certified"]]
    assert verdicts("translate=0.34") == [["falsified"], ["certified"]]
    assert verdicts("translate=1", "-e", "0.33,0.34,1/1") == [
        ["certified", "falsified", "falsified"],
        ["certified", "certified", "certified"],
    ]
    (found,) = [s.results[0].adversarial for s in shifted(folder, "translate=0.5").report.samples if s.index == 0]
    assert -0.5 <= found.parameters[1] < -1 / 3, "the picture moves to the left"


def test_certificates_are_remade_from_the_sample(folder: Path, tmp_path: Path) -> None:
    assert shifted(folder, "translate=0.3", "--certificates", tmp_path / "proofs").code == 0
    proof = tmp_path / "proofs" / "sample-0-eps-1.0.npz"
    found = run("verify", proof, folder / "m.onnx")
    assert found.code == 0
    assert "for all of translate=0.3 within [0.0, 1.0]" in " ".join(found.out.split())
    forgeries: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"translate": 0.4}, {}),
        ({"factor": 1.2}, {}),
        ({"translate": 1.5}, {}),
        ({"factor": -1.0}, {}),
        ({"translate": "0.3"}, {}),
        ({"label": 1}, {}),
        ({"patch": [1, 1]}, {}),
        ({"clip": [0.2, 1.0]}, {}),
        ({}, {"centre": np.full(9, 0.3)}),
    ]
    for number, (claim, arrays) in enumerate(forgeries):
        with np.load(proof) as read:
            made = {name: read[name] for name in read.files} | arrays
        meta = json.loads(str(made["meta"][()]))
        meta["claim"] |= claim
        np.savez(tmp_path / f"{number}.npz", **(made | {"meta": np.asarray(json.dumps(meta))}))
        assert run("verify", tmp_path / f"{number}.npz", folder / "m.onnx").code in (1, 2), claim


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("translate=2", (), "up to 1 pixel"),
        ("translate=0", (), "above 0"),
        ("translate=0.5,brightness=0.1", (), "stands alone"),
        ("translate=0.5,patch=1x1", (), "stands alone"),
        ("translate=0.5,translate=0.5", (), "translates twice"),
        ("translate=0.5", ("-e", "3/1"), "more than 1 pixel"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, text: str, more: tuple[str, ...], words: str) -> None:
    found = shifted(folder, text, *more)
    assert found.code == 2
    assert words in found.err


def test_flat_inputs_are_refused() -> None:
    with pytest.raises(OptionError, match="--image-shape"):
        _ = Perturbed(Around(np.zeros(9), (9,), None), Perturbation(shift=Shift(1.0))).pieces
