"""What the commands print and write: one JSON document, tables within the width, files that can be used."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import scipy.sparse as sp
import typer
from onnx import helper
from rich.console import Console

import idl_audit
from idl_audit.cli import show
from idl_audit.cli.app import app
from idl_audit.commands import certify as robustness
from idl_audit.commands.shared import decider
from idl_audit.implicit.storage import load_model
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import Report, Verdict
from idl_audit.report.schema.document import SCHEMA_VERSION
from idl_audit.report.terminal import render
from idl_audit.values.errors import OptionError
from tests.shared.command_line import DATA, MODEL, SAMPLES, network, run, weights
from tests.shared.lonely_samples import one_by_one

COMMANDS = {
    "certify": f"certify {MODEL} -d {DATA} -e 0.02,0.05 --bounds 0,1 --limit 5",
    "attack": f"attack {MODEL} -d {DATA} -e 0.05 --bounds 0,1 --index 0-3,10",
    "sensitivity": f"sensitivity {MODEL}",
    "bounds": f"bounds {MODEL} -d {DATA} -e 0.02,0.05 --bounds 0,1 --limit 3",
    "compare": f"compare {MODEL} {MODEL} -d {DATA} -e 0.02 --bounds 0,1 --limit 2",
    "convert": f"convert {MODEL} -o out/x.npz --force",
    "inspect": f"inspect {MODEL}",
    "verify": f"verify witness.npz {MODEL}",
    "bench": "bench rules.csv",
    "run": "run -c audit.toml",
}
"""Name -> a command line that succeeds."""

ELSEWHERE = ("predict", "reduce", "compress", "compose", "harden", "train", "merge")
"""Commands that make a model, numbers or one report of several: they have tests of their own."""
OTHERS = ("demo", "init", "convert-property", "gate", "diff", "explain", "report", "history", "schema")
"""Commands that print no report."""

REPORT_FILE = {
    "certify": "-o",
    "attack": "-o",
    "sensitivity": "-o",
    "bounds": "-o",
    "compare": "-o",
    "convert": "--report",
    "inspect": "-o",
    "verify": "-o",
    "bench": "-o",
    "run": "-o",
}
"""Name -> the option that writes the report."""

MEASURED = {"created", "timing", "seconds", "peak_mb", "command_line"}
"""What differs from one run to the next."""


def lines(name: str) -> list[str]:
    return shlex.split(COMMANDS[name])


def test_every_command_that_reports_is_tested_here():
    assert {*COMMANDS, *ELSEWHERE, *OTHERS} == set(typer.main.get_command(app).commands)


def settled(value):
    """Drop what is measured."""
    if isinstance(value, dict):
        return {key: settled(entry) for key, entry in value.items() if key not in MEASURED}
    return [settled(entry) for entry in value] if isinstance(value, list) else value


def answers(inputs, model=MODEL):
    """Return the original network's outputs, by onnxruntime alone."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None].astype(np.float32)})[0] for row in inputs])


def verdicts(report: Report) -> list[list[str]]:
    return [[result.verdict.value for result in sample.results] for sample in report.samples]


@pytest.fixture(scope="module")
def told():
    """What the commands have printed and written so far: (name, way) -> result; each is run once in a way."""
    return {}


def printed_json(told, name):
    """Return the run that prints the report as JSON."""
    if (name, "json") not in told:
        told[name, "json"] = run(*lines(name), "-f", "json")
    return told[name, "json"]


def printed_table(told, name):
    """Return the run that prints tables of 80 columns, and the report that it writes."""
    if (name, "table") not in told:
        found = run(*lines(name), "-v", REPORT_FILE[name], "out/r.json", COLUMNS="80")
        told[name, "table"] = found, Path("out/r.json").read_text(encoding="utf-8")
    return told[name, "table"]


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_one_document_that_fits_the_schema(files, told, name):
    found = printed_json(told, name)
    assert (found.code, found.err) == (0, "")
    assert found.report.command == name
    assert found.report.status == "complete"
    document = json.loads(found.out, parse_constant=lambda name: pytest.fail(f"the document has {name}"))
    assert document["schema_version"] == SCHEMA_VERSION
    assert found.out.isascii()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_report_file_holds_what_json_prints(files, told, name):
    found, written = printed_table(told, name)
    assert found.code == 0
    assert settled(json.loads(written)) == settled(json.loads(printed_json(told, name).out))
    assert from_json(written).command == name


def test_json_into_a_file_prints_nothing(files):
    assert run(*lines("certify"), "-f", "json", "-o", "out/r.json").out == ""


@pytest.mark.parametrize("columns", [80, 120, 160])
@pytest.mark.parametrize("name", COMMANDS)
def test_tables_stay_within_the_width(files, told, name, columns):
    found, written = printed_table(told, name)
    text = io.StringIO()
    render(from_json(written), console=Console(file=text, width=columns, highlight=False), verbose=True)
    if columns == 80:  # a report read from its file is printed as it was when it was made
        assert text.getvalue().split() == found.out.split()
        assert max(map(len, found.out.splitlines())) <= columns
    assert max(map(len, text.getvalue().splitlines())) <= columns
    assert run(name, "--help", COLUMNS=str(columns)).out
    assert max(map(len, run(name, "--help", COLUMNS=str(columns)).out.splitlines())) <= columns


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_words_are_not_broken(files, columns):
    out = run(
        "certify",
        MODEL,
        "-d",
        DATA,
        "-e",
        "0.05",
        "--bounds",
        "0,1",
        "--index",
        "14,26,37",
        "--method",
        "interval,sign,pgd,linear,lp",
        COLUMNS=str(columns),
    ).out
    assert out.count("relaxation_gap") == 2


def test_colours_are_left_out_with_no_color(files):
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert colour.search(run(*lines("certify"), FORCE_COLOR="1").out)
    assert not colour.search(run(*lines("certify"), FORCE_COLOR="1", NO_COLOR="1").out)


def test_tables_in_a_pipe_are_plain_text(files):
    assert "\x1b" not in run(*lines("certify")).out


def test_the_version_is_the_package_s():
    assert run("--version").out == f"idl-audit {idl_audit.__version__}\n"


def options_of(name: str):
    command = typer.main.get_command(app).commands[name]
    return [option for option in command.params if option.param_type_name == "option"]


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
def test_help_mentions_every_option(name, columns):
    found = run(name, "--help", COLUMNS=str(columns))
    assert found.code == 0
    for option in options_of(name):
        assert option.help, option.name
        for opt in (*option.opts, *option.secondary_opts):
            assert re.search(rf"(?<![\w-]){re.escape(opt)}(?![\w-])", found.out), opt


def test_help_names_every_method(files):
    from idl_audit.decide.ladder import METHODS
    from idl_audit.measure.state_bounds import METHODS as RUNGS
    from idl_audit.search.attacks import ATTACKS

    for name, methods in (("certify", METHODS), ("attack", [*ATTACKS, "lp"]), ("bounds", RUNGS)):
        (option,) = (option for option in options_of(name) if option.name == "method")
        assert set(re.split(r"[^a-z-]+", option.help)).issuperset(methods)


def test_the_schema_describes_the_report():
    found = run("schema")
    document = json.loads(found.out)
    assert (found.code, found.err) == (0, "")
    assert set(document["properties"]) == set(Report.model_fields)
    assert document["additionalProperties"] is False


def test_findings_are_no_failure(files):
    found = run(*lines("attack"), "-f", "json")
    assert found.code == 0
    assert found.report.summary.per_eps[0].falsified > 0


@pytest.mark.parametrize("name", ["certify", "attack"])
def test_the_first_sentence_has_all_four_counts(files, name):
    method = "sign,pgd,lp" if name == "attack" else "interval,sign,pgd,linear,lp"  # branching leaves nothing undecided
    line = (name, MODEL, "-d", DATA, "-e", "0.05", "--bounds", "0,1", "--index", "0,1,10,14,37")
    line = (*line, "--method", method, "-f")
    (counts,) = run(*line, "json").report.summary.per_eps
    assert (counts.certified, counts.falsified, counts.unknown, counts.clean_wrong) == (2, 1, 1, 1)
    numbers = re.findall(r"\b\d+\b", run(*line, "table", COLUMNS="300").out.splitlines()[0].split(": ")[1])
    assert sorted(map(int, numbers)) == [1, 1, 1, 2, 5]


@pytest.mark.parametrize(
    ("name", "options"),
    [("attack", ""), ("certify", ""), ("attack", "--method random,sensitivity,gradient,sign,pgd,lp")],
)
def test_saved_attacks_fool_the_original_network(files, name, options):
    line = f"{name} {MODEL} -d {DATA} -e 0.08,0.05 --bounds 0,1 --index 10,3,25,26,14 --save out/adv.npz -f json"
    report = run(*shlex.split(line), *shlex.split(options)).report
    assert report.artifacts == ("out/adv.npz",)
    with np.load("out/adv.npz") as adv, np.load(DATA) as data:
        centres, labels = data["inputs"], data["labels"]
        kept = {key: adv[key] for key in ("inputs", "labels", "predictions", "eps", "indices", "originals")}
        assert set(adv.files) == set(kept)
    found = [(s.index, r.eps) for s in report.samples for r in s.results if r.verdict is Verdict.FALSIFIED]
    assert len(found) >= 4
    assert sorted(zip(kept["indices"].tolist(), kept["eps"].tolist(), strict=True)) == sorted(found)
    assert kept["inputs"].dtype == np.float32
    assert (kept["labels"] == labels[kept["indices"]]).all()
    assert (kept["originals"] == centres[kept["indices"]].reshape(len(found), -1)).all()
    predictions = answers(kept["inputs"]).argmax(axis=1)
    assert (predictions == kept["predictions"]).all()
    assert (predictions != kept["labels"]).all()
    assert kept["inputs"].min() >= 0
    assert kept["inputs"].max() <= 1
    for point, eps, index in zip(kept["inputs"], kept["eps"], kept["indices"], strict=True):
        pairs = zip(point.tolist(), centres[index].tolist(), strict=True)
        assert max(abs(Fraction(u) - Fraction(x)) for u, x in pairs) <= Fraction(eps)


def test_saved_attacks_are_samples_that_the_network_gets_wrong(files):
    assert run(*lines("attack"), "--save", "out/adv.npz").code == 0
    (counts,) = run("certify", MODEL, "-d", "out/adv.npz", "-e", "0.01", "-f", "json").report.summary.per_eps
    assert counts.clean_wrong == counts.n > 0


def test_no_attack_found_saves_an_empty_file(files):
    line = f"attack {MODEL} -d {DATA} -e 0.0001 --limit 3 --save out/adv.npz"
    assert run(*shlex.split(line)).code == 0
    with np.load("out/adv.npz") as archive:
        assert archive["inputs"].shape == (0, 64)


CONVERTIBLE = (
    ("digits_mlp", ""),
    ("digits_mlp", "--no-rescale"),
    ("digits_mlp", "--kappa 0.01"),
    ("digits_conv", ""),
    ("digits_resnet", ""),
)


@pytest.mark.parametrize(("name", "options"), CONVERTIBLE)
def test_a_converted_model_answers_as_the_network(files, name, options):
    path = SAMPLES / f"{name}.onnx"
    assert run("convert", path, "-o", "out/x.npz", *shlex.split(options)).code == 0
    with np.load(SAMPLES / f"{name}.npz") as data:
        inputs = data["inputs"][:20].reshape(20, -1)
    shape = (1, 64) if name == "digits_mlp" else (1, 1, 8, 8)
    expected = np.concatenate([answers([row.reshape(shape)[0]], path) for row in inputs])
    found = load_model(files / "out/x.npz").model(inputs.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_converted_model_is_a_model(files):
    assert run("convert", MODEL, "-o", "out/x.npz").code == 0
    line = f"-d {DATA} -e 0.05 --bounds 0,1 --limit 30 -f json"
    for name in ("certify", "attack"):
        own = run(name, "out/x.npz", *shlex.split(line)).report
        assert verdicts(own) == verdicts(run(name, MODEL, *shlex.split(line)).report)
        assert own.model.format == "implicit"
    rows = [run("sensitivity", path, "-f", "json").report.sensitivity.row_sums for path in ("out/x.npz", MODEL)]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-9)
    assert run("convert", "out/x.npz", "-o", "out/y.npz").code == 0


@pytest.mark.parametrize("options", ["", "--no-rescale"])
def test_flat_matrices_reproduce_the_outputs(files, options):
    """x = relu(A x + B u + b), y = C x + D u + d."""
    assert run("convert", MODEL, "-o", "out/x.npz", "--flat", *shlex.split(options)).code == 0
    with np.load("out/x.npz") as archive:
        a, b_matrix, c, d_matrix = (
            sp.csr_array(
                tuple(archive[f"{name}_{part}"] for part in ("data", "indices", "indptr")),
                shape=tuple(archive[f"{name}_shape"]),
            )
            for name in "ABCD"
        )
        b, d = np.concatenate([archive["b.0"], archive["b.1"]]), archive["d"]
    with np.load(DATA) as data:
        inputs = data["inputs"][:20]
    u = inputs.T.astype(np.float64)
    x = np.zeros((len(b), 20))
    for _ in range(2):
        x = np.maximum(a @ x + b_matrix @ u + b[:, None], 0)
    y = (c @ x + d_matrix @ u + d[:, None]).T
    np.testing.assert_allclose(y, answers(inputs), rtol=0, atol=1e-5 * np.abs(y).max())
    assert sp.triu(a, k=1).nnz == a.nnz


def test_flat_has_the_vectors_too(files):
    assert run("convert", MODEL, "-o", "out/x.npz", "--flat").code == 0
    with np.load("out/x.npz") as archive:
        assert archive["b"].shape == (80,)
        assert archive["d"].shape == (10,)


UNITS = (
    pytest.param(255, 0, "--scale 1/255 --bounds 0,255", "12.75", id="bytes"),
    pytest.param(0.5, 0.25, "--mean 0.25 --std 0.5 --bounds 0.25,0.75", "0.025", id="mean and std"),
    pytest.param(255 * 0.5, 0.25 * 255, "--scale 1/255 --mean 0.25 --std 0.5 --bounds 63.75,191.25", "6.375", id="all"),
)


def in_other_units(name, factor, offset):
    """Write the samples as u' = factor u + offset."""
    with np.load(SAMPLES / f"{name}.npz") as data:
        inputs, labels = data["inputs"].astype(np.float64) * factor + offset, data["labels"]
    np.savez("units.npz", inputs=inputs, labels=labels)


@pytest.mark.parametrize(("factor", "offset", "options", "eps"), UNITS)
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("digits_mlp", "14,25,26,37,39,44,0-10"),
        pytest.param("digits_conv", "0,1,3-5", marks=pytest.mark.slow),
    ],
)
def test_verdicts_do_not_depend_on_the_units_of_the_data(files, name, index, factor, offset, options, eps):
    """The radius and the valid range are in the data's units, and so is the distance that is reported."""
    in_other_units(name, factor, offset)
    line = f"certify {SAMPLES / name}.onnx -d {{}} -e {{}} --index {index} -f json"
    plain = run(*shlex.split(line.format(SAMPLES / f"{name}.npz", "0.05")), "--bounds", "0,1").report
    other = run(*shlex.split(line.format("units.npz", eps)), *shlex.split(options)).report
    assert verdicts(other) == verdicts(plain)
    for ours, theirs in zip(other.samples, plain.samples, strict=True):
        (found,), (expected,) = ours.results, theirs.results
        assert found.method == expected.method
        if expected.verdict is Verdict.CERTIFIED and expected.method != "branch":  # a search in float32 stops anywhere
            assert found.lower_bound == pytest.approx(expected.lower_bound, rel=1e-6)
        if expected.adversarial is not None:
            assert found.adversarial.linf <= Fraction(eps) * (1 + Fraction(1, 10**12))


@pytest.mark.parametrize(
    ("factor", "offset", "options", "eps"),
    UNITS,
)
def test_the_lp_does_not_depend_on_the_units_of_the_data(files, factor, offset, options, eps):
    in_other_units("digits_mlp", factor, offset)
    line = f"attack {MODEL} -d {{}} -e {{}} --index 0-5,10,37,44 --method lp -f json"
    plain = run(*shlex.split(line.format(DATA, "0.05")), "--bounds", "0,1").report
    other = run(*shlex.split(line.format("units.npz", eps)), *shlex.split(options)).report
    assert verdicts(other) == verdicts(plain)
    for ours, theirs in zip(other.samples, plain.samples, strict=True):
        if theirs.results[0].lower_bound is not None:
            assert ours.results[0].lower_bound == pytest.approx(theirs.results[0].lower_bound, rel=1e-6)
        assert ours.results[0].reason == theirs.results[0].reason


@pytest.mark.parametrize(
    ("options", "factor"),
    [("--scale 1/255", 1 / 255), ("--std 0.5", 2), ("--mean 0.3", 1), ("--scale 1/255 --mean 0.5 --std 0.25", 4 / 255)],
)
def test_sensitivity_is_in_the_units_of_the_data(files, options, factor):
    matrices = []
    for number, extra in enumerate(("", options)):
        assert run("sensitivity", MODEL, "--save", f"out/{number}.npz", *shlex.split(extra)).code == 0
        with np.load(f"out/{number}.npz") as archive:
            matrices.append(archive["S"])
            np.testing.assert_allclose(archive["row_sums"], archive["S"].sum(axis=1), rtol=1e-12)
    assert matrices[0].shape == (10, 64)
    np.testing.assert_allclose(matrices[1], factor * matrices[0], rtol=1e-12)


def test_channels_have_their_own_mean_and_std(files):
    """A network on three channels: data u, network input (u - mean) / std."""
    rng = np.random.default_rng(1)
    nodes = [helper.make_node("Conv", ["x", "k"], ["h"]), helper.make_node("Flatten", ["h"], ["y"])]
    shape = (1, 3, 2, 2)
    kernel = rng.normal(size=(2, 3, 2, 2))
    path = network(files / "rgb.onnx", nodes, {"k": kernel}, inputs=(("x", shape),), outputs=(("y", (1, 2)),))
    mean, std = np.array([0.1, 0.5, 0.9]), np.array([0.25, 0.5, 2.0])
    assert run("sensitivity", path, "--mean", "0.1,0.5,0.9", "--std", "0.25,0.5,2", "--save", "out/S.npz").code == 0
    with np.load("out/S.npz") as archive:
        expected = np.abs(kernel.astype(np.float32)) / std[:, None, None]
        np.testing.assert_allclose(archive["S"], expected.reshape(2, 12), rtol=1e-12)
    inputs = rng.random((8, *shape[1:]))
    labels = answers((inputs - mean[:, None, None]) / std[:, None, None], path).argmax(axis=1)
    for layout, order in (("nchw", (0, 1, 2, 3)), ("nhwc", (0, 2, 3, 1))):
        np.savez(f"{layout}.npz", inputs=inputs.transpose(order), labels=labels)
        line = f"certify {path} -d {layout}.npz -e 0.001 --mean 0.1,0.5,0.9 --std 0.25,0.5,2 --layout {layout} -f json"
        report = run(*shlex.split(line)).report
        assert report.summary.clean.k == 8, layout
        assert report.data.preprocessing.mean == tuple(mean)


def interrupt_after(monkeypatch, samples):
    """Let Ctrl-C come when so many samples are decided."""
    real, calls = decider.decide_sample, itertools.count()

    def decide(*arguments, **named):
        if next(calls) == samples:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **named)

    one_by_one(monkeypatch)
    monkeypatch.setattr(decider, "decide_sample", decide)


@pytest.mark.parametrize("name", ["certify", "attack"])
def test_an_interruption_prints_the_report_so_far(files, monkeypatch, name):
    interrupt_after(monkeypatch, 2)
    found = run(name, MODEL, "-d", DATA, "-e", "0.01", "-f", "json")
    assert (found.code, found.err) == (130, "")
    assert found.report.status == "incomplete"
    assert found.report.summary.per_eps[0].n == len(found.report.samples) == 2


def test_an_interruption_writes_the_report_so_far(files, monkeypatch):
    interrupt_after(monkeypatch, 2)
    found = run("certify", MODEL, "-d", DATA, "-e", "0.01", "-o", "out/r.json")
    assert found.code == 130
    assert found.out.startswith("Incomplete, the work was cut short. ")
    assert from_json((files / "out/r.json").read_text(encoding="utf-8")).status == "incomplete"
    assert sorted(path.name for path in (files / "out").iterdir()) == ["r.json", "r.json.journal"]
    again = run("certify", MODEL, "-d", DATA, "-e", "0.01", "-o", "out/r.json", "--resume")
    assert again.code == 0
    assert [path.name for path in (files / "out").iterdir()] == ["r.json"]


def test_an_interruption_of_the_first_sample_leaves_nothing_to_go_on_from(files, monkeypatch):
    interrupt_after(monkeypatch, 0)
    found = run("certify", MODEL, "-d", DATA, "-e", "0.01", "-o", "out/r.json")
    assert found.code == 130
    assert "--resume" not in found.err
    assert [path.name for path in (files / "out").iterdir()] == ["r.json"]


def test_an_interruption_before_the_first_sample_says_so(files, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "opened_for", interrupted)
    found = run("certify", MODEL, "-d", DATA, "-e", "0.01", "-f", "json", "-o", "out/r.json")
    assert (found.code, found.out, found.err) == (130, "", "error: interrupted\n")
    assert list((files / "out").iterdir()) == []


def test_a_choice_of_samples_is_kept_in_order(files):
    report = run("certify", MODEL, "-d", DATA, "-e", "0.01", "--index", "7,3,10-12", "-f", "json").report
    assert [sample.index for sample in report.samples] == [7, 3, 10, 11, 12]
    assert report.data.indices == (7, 3, 10, 11, 12)
    assert report.data.n == 5


def test_labels_come_from_a_file_of_their_own(files):
    with np.load(DATA) as data:
        np.save("x.npy", data["inputs"][:5])
        np.save("y.npy", data["labels"][:5])
    report = run("certify", MODEL, "-d", "x.npy", "-y", "y.npy", "-e", "0.01", "-f", "json").report
    assert report.summary.clean.k == 5


def test_the_named_output_is_audited(files):
    report = run("convert", "two_outputs.onnx", "--output-name", "z", "-o", "out/x.npz", "-f", "json").report
    assert report.conversion.n_states == 3
    assert run("convert", "two_outputs.onnx", "--output-name", "y", "-o", "out/y.npz", "-f", "json").report.conversion
    w = weights()
    u = np.ones((1, 4))
    expected = np.maximum(u @ w["w"] + w["b"], 0)
    np.testing.assert_allclose(load_model(files / "out/x.npz").model(u), expected, rtol=1e-5, atol=1e-6)


def test_printed_bounds_are_rounded_outward(files):
    line = ("bounds", MODEL, "-d", DATA, "-e", "0.02", "--bounds", "0,1", "--index", "0,3")
    (outputs,) = (entry for entry in run(*line, "-f", "json").report.bounds if entry.part == "outputs")
    printed = run(*line, COLUMNS="160").out
    rows = [row.split() for row in printed[printed.index("Outputs") :].splitlines() if row.split()[:1] == ["0.02"]]
    assert [int(row[1]) for row in rows] == [0, 3]
    for row, sample in zip(rows, outputs.samples, strict=True):
        for place in range(8):
            lo, dots, hi = row[2 + 3 * place : 5 + 3 * place]
            assert dots == ".."
            assert sample.lower[place] * (1.01 if sample.lower[place] < 0 else 0.99) <= float(lo) <= sample.lower[place]
            assert sample.upper[place] <= float(hi) <= sample.upper[place] * (0.99 if sample.upper[place] < 0 else 1.01)


def test_bounds_over_few_inputs_say_so(files):
    line = ("bounds", MODEL, "-d", DATA, "-e", "0.3", "--bounds", "0,1", "--limit", "1", "--sparse", "2")
    report = run(*line, "-f", "json").report
    assert (report.threat_model.set, report.threat_model.k) == ("card", 2)
    assert run(*line).code == 0


@pytest.mark.parametrize(
    "line", [f"bounds {MODEL} -d {DATA} -e 0.3 --limit 1 --method interval", f"sensitivity {MODEL}"]
)
def test_few_inputs_have_one_name_in_every_command(files, line):
    command = line.split()[0]
    before = run(*line.split(), "--sparse", "2", "-f", "json").report
    found = [run(*line.split(), *also, "-f", "json").report for also in (("--cardinality", "2"), ("--cardinality=2",))]
    old = {f"IDL_AUDIT_{command.upper()}_CARDINALITY": "2"}
    found.append(run(*line.split(), "-f", "json", **old).report)
    for report in found:
        assert (report.bounds and report.threat_model.k, report.sensitivity) == (
            before.bounds and before.threat_model.k,
            before.sensitivity,
        )
    few = before.threat_model.k if before.bounds else before.sensitivity.cardinality.k
    assert few == 2
    shown = run(command, "--help", COLUMNS="80").out
    assert "--sparse" in shown
    assert "cardinality" not in shown.lower()


def test_a_finished_report_is_replaced_with_force_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = f"inspect {MODEL} -o r.json"
    assert run(*shlex.split(line)).code == 0
    first = Path("r.json").read_bytes()
    again = run(*shlex.split(line))
    assert (again.code, again.out) == (2, "")
    assert "r.json exists already; give another name, or --force" in again.err
    assert Path("r.json").read_bytes() == first
    assert run(*shlex.split(f"{line} --force")).code == 0
    assert Path("r.json").read_bytes() != first  # written at another time


def test_what_is_no_report_is_replaced_by_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("notes", encoding="utf-8")
    found = run(*shlex.split(f"inspect {MODEL} -o notes.txt --force"))
    assert (found.code, "is no report" in found.err) == (2, True)
    assert Path("notes.txt").read_text(encoding="utf-8") == "notes"


def test_rows_of_a_bench_that_did_not_end_ask_for_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = from_json(run(*shlex.split(f"inspect {MODEL} -f json")).out)
    unfinished = report.model_copy(update={"status": "incomplete", "why_incomplete": "interrupted"})
    Path("r.json").write_text(to_json(unfinished), encoding="utf-8")
    show.check_output(Path("r.json"), force=False)  # of a command that keeps nothing there
    for resumed, force in ((True, False), (False, True)):
        show.check_output(Path("r.json"), force=force, resumed=resumed)
    with pytest.raises(OptionError, match="--resume, or lose it with --force"):
        show.check_output(Path("r.json"), force=False, resumed=False)
