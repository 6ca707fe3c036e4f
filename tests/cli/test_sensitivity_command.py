"""sensitivity at the command line: options, tables, files, exit codes."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from idl_audit.commands.shared import local_sensitivity as loop
from idl_audit.commands.shared import sensitivity_pictures
from tests.shared.command_line import DATA, MODEL, SAMPLES, run

LOCAL = f"-d {DATA} -e 0.02 --bounds 0,1 --limit 3"


def sensitivity(line, *, model=MODEL, **env):
    return run("sensitivity", model, *shlex.split(line), **env)


@pytest.mark.parametrize("columns", [80, 120, 160])
@pytest.mark.parametrize("line", [LOCAL, f"{LOCAL} --class 1 --sparse 4 --groups rows --image-shape 8,8"])
def test_tables_of_boxes_stay_within_the_width(files, line, columns):
    for extra in ("", "-v"):
        found = sensitivity(f"{line} {extra}", COLUMNS=str(columns))
        assert (found.code, found.err) == (0, "")
        assert max(map(len, found.out.splitlines())) <= columns


def test_json_is_one_document_with_everything(files, monkeypatch):
    monkeypatch.setattr(sensitivity_pictures, "MOST_PICTURES", 2)
    line = f"{LOCAL} --class 1 --sparse 4 --groups rows --image-shape 8,8 --save out/S.npz --images out/pictures"
    found = sensitivity(f"{line} -f json")
    assert (found.code, found.err) == (0, "")
    section = found.report.sensitivity
    assert len(section.margins) == 9
    assert len(section.samples) == 3
    assert len(section.images) == 2
    assert found.report.artifacts == ("out/S.npz", *section.images)
    with np.load("out/S.npz") as saved:
        assert set(saved) == {
            "S", "S_global", "indices", "input_shape", "row_sums", "margins", "rivals", "group_sums", "group_names",
        }  # fmt: skip


def test_boxes_have_a_smaller_matrix_than_all_inputs(files):
    line = sensitivity(LOCAL, COLUMNS="300").out.splitlines()[0]
    assert "within the boxes around the samples" in line
    local, whole = (sensitivity(f"{extra} -f json").report.sensitivity.norm_inf for extra in (LOCAL, ""))
    assert local < whole


def test_data_units_hold_for_boxes_too(files):
    with np.load(DATA) as archive:
        np.savez("bytes255.npz", inputs=archive["inputs"] * 255, labels=archive["labels"])
    plain = sensitivity(f"{LOCAL} -f json").report.sensitivity
    scaled = sensitivity("-d bytes255.npz -e 5.1 --scale 1/255 --bounds 0,255 --limit 3 -f json").report.sensitivity
    assert scaled.norm_inf * 255 == pytest.approx(plain.norm_inf, rel=1e-5)


def test_a_terminal_with_colour_gets_half_blocks_and_others_characters(files):
    model = SAMPLES / "digits_conv.onnx"
    coloured = sensitivity("", model=model, FORCE_COLOR="1", COLORTERM="truecolor", TERM="xterm").out
    assert "▀" in coloured
    for env in ({}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        found = sensitivity("", model=model, **env).out
        assert "▀" not in found
        assert "@@" in found


def test_an_interruption_prints_what_is_known(files, monkeypatch):
    real, calls = loop.local_sensitivity, iter(range(9))

    def interrupted(*arguments, **options):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "local_sensitivity", interrupted)
    found = sensitivity(f"{LOCAL} -f json")
    assert (found.code, found.err) == (130, "")
    assert found.report.status == "incomplete"
    assert len(found.report.sensitivity.samples) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-e 0.02", ("--eps", "--data")),
        ("--limit 3", ("--limit", "--data")),
        ("--labels good.npz", ("--labels", "--data")),
        ("--bounds 0,1", ("--bounds", "--data")),
        ("--layout flat", ("--layout", "--data")),
        ("-d good.npz", ("-d", "--eps")),
        ("-d good.npz -e 0.01,0.02", ("one radius", "--eps")),
        ("-d good.npz -e 0.02 --state-bounds lp", ("'lp'", "interval", "linear")),
        ("-d nan.npz -e 0.02", ("nan.npz", "NaN")),
        ("--class 12", ("--class 12", "10 outputs")),
        ("--class -1", ("--class",)),
        ("--sparse 0", ("--sparse", "1 or more")),
        ("--groups rows", ("--groups", "rows and columns")),
        ("--groups missing.csv", ("missing.csv", "no such file")),
        ("--image-shape 0,8", ("--image-shape", "28,28")),
        ("--image-shape 8,9", ("--image-shape", "72", "64")),
        ("--images good.npz", ("good.npz", "file")),
        ("--images nowhere/out", ("nowhere", "does not exist")),
        ("--images .", ("not empty", "--force")),
        ("--method monotone", ("monotone",)),
    ],
)
def test_what_makes_no_sense_is_told_in_one_sentence(files, line, words):
    found = sensitivity(f"{line} --save out/S.npz")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    for word in words:
        assert word in found.err
    assert list((files / "out").iterdir()) == []
