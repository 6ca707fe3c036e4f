"""Every wrong thing a newcomer does: one sentence that names it, exit code 2, and nothing left behind."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import numpy as np
import pytest

from idl_audit.commands import certify as robustness
from idl_audit.commands.shared import decider
from tests.shared import command_line
from tests.shared.command_line import DATA, MODEL, run


@dataclass(frozen=True)
class Case:
    """A command line, and words that its one sentence must have."""

    line: str
    words: tuple[str, ...]


def case(line: str, *words: str) -> Case:
    return Case(line, words)


CERTIFY = "certify MODEL -d good.npz -e 0.02"

MODELS = (
    case("certify missing.onnx -d good.npz -e 0.02", "missing.onnx", "no such file"),
    case("certify out -d good.npz -e 0.02", "out", "folder"),
    case("certify text.onnx -d good.npz -e 0.02", "text.onnx", "text file", "ONNX"),
    case("certify empty.onnx -d good.npz -e 0.02", "empty.onnx", "empty"),
    case("certify truncated.onnx -d good.npz -e 0.02", "truncated.onnx", "truncated"),
    case("certify module.pt -d good.npz -e 0.02", "module.pt", "torch.onnx.export"),
    case("certify state_dict.pt -d good.npz -e 0.02", "state_dict.pt", "weights", "torch.onnx.export"),
    case("certify old.pt -d good.npz -e 0.02", "old.pt", "pickle", "torch.onnx.export"),
    case("certify array.npy -d good.npz -e 0.02", "array.npy", "NumPy array", "torch.onnx.export"),
    case("certify good.npz -d MODEL -e 0.02", "good.npz", "no implicit model", "MODEL -d DATA"),
    case("certify small.onnx.gz -d good.npz -e 0.02", "small.onnx.gz", "gunzip"),
    case("certify small.onnx.data -d small.npz -e 0.02", "small.onnx.data", "weights of small.onnx"),
    case("verify small.onnx good.npz", "small.onnx", "verify PROOF small.onnx"),
    case("certify no_weights.onnx -d good.npz -e 0.02", "digits_mlp.onnx.data", "external data", "no such file"),
    case("certify unknown_operator.onnx -d small.npz -e 0.02", "unknown_operator.onnx", "Hardmax", "odd"),
    case("convert unknown_operator.onnx -o out/x.npz", "unknown_operator.onnx", "Hardmax", "odd"),
    case("inspect missing.onnx", "missing.onnx", "no such file"),
    case("inspect text.onnx", "text.onnx", "text file"),
    case("inspect truncated.onnx", "truncated.onnx", "truncated"),
    case("sensitivity unknown_operator.onnx --save out/S.npz", "unknown_operator.onnx", "Hardmax", "odd"),
    case("certify two_unknown_operators.onnx -d small.npz -e 0.02", "Hardmax", "Bernoulli"),
    case("certify hostile_operator.onnx -d small.npz -e 0.02", "Hardmax", "a[bold red]b[/] c", "no lowering"),
    case("certify foreign_domain.onnx -d small.npz -e 0.02", "Foo", "my.own", "not read"),
    case(
        "certify foreign_domain.onnx -d small.npz -e 0.02",
        "foreign_domain.onnx",
    ),
    case("certify nan_weights.onnx -d small.npz -e 0.02", "tensor b", "NaN"),
    case(
        "certify nan_weights.onnx -d small.npz -e 0.02",
        "nan_weights.onnx",
    ),
    case("certify two_outputs.onnx -d small.npz -e 0.02", "two_outputs.onnx", "2 outputs", "choose one of y, z"),
    case("certify two_outputs.onnx -d small.npz -e 0.02 --output-name w", "no output", "'w'", "y, z"),
    case(
        "certify one_output.onnx -d small.npz -e 0.02",
        "small.npz",
        "one output has the classes 0 and 1",
    ),
)

SAMPLES = (
    case("certify MODEL -d missing.npz -e 0.02", "missing.npz", "no such file", ".npz"),
    case("certify MODEL -d out -e 0.02", "out", "folder without images", ".png"),
    case("certify MODEL -d MODEL -e 0.02", "digits_mlp.onnx", "no file of samples", ".npz"),
    case("certify MODEL -d small.onnx.gz -e 0.02", "small.onnx.gz", "gunzip"),
    case("certify MODEL -d document.json -e 0.02", "document.json", "JSON", ".npz"),
    case("certify MODEL good.npz", "good.npz", ".vnnlib", "--data"),
    case("certify MODEL -d module.pt -e 0.02", "module.pt", "more than plain tensors", "torch.save"),
    case("certify good.npz -d small.onnx -e 0.02", "good.npz", "no implicit model"),
    case("certify MODEL -d data.csv -e 0.02", "data.csv", "no labels", "--labels"),
    case("certify MODEL -d empty.npz -e 0.02", "empty.npz", "is empty"),
    case("certify MODEL -d truncated.npz -e 0.02", "truncated.npz", "cannot be read", "numpy.savez"),
    case("certify MODEL -d no_labels.npz -e 0.02", "no_labels.npz", "no labels", "--labels"),
    case("attack MODEL -d no_labels.npz -e 0.02", "no_labels.npz", "no labels", "--labels"),
    case("certify MODEL -d array.npy -e 0.02", "array.npy", "no labels", "--labels"),
    case("certify MODEL -d no_inputs.npz -e 0.02", "no_inputs.npz", "no array named inputs", "'pixels'", "numpy.savez"),
    case("certify MODEL -d no_samples.npz -e 0.02", "no_samples.npz", "no samples"),
    case("certify MODEL -d wrong_shape.npz -e 0.02", "wrong_shape.npz", "63", "(1, 64)", "64"),
    case("convert MODEL -o out/x.npz -d wrong_shape.npz", "wrong_shape.npz", "63", "(1, 64)"),
    case("certify MODEL -d labels_above.npz -e 0.02", "labels_above.npz", "sample 0 is 17", "0 to 9"),
    case("certify MODEL -d labels_below.npz -e 0.02", "labels_below.npz", "sample 0 is -13", "0 to 9"),
    case("certify MODEL -d labels_from_1.npz -e 0.02", "labels_from_1.npz", "1-based", "subtract 1"),
    case("certify MODEL -d one_hot.npz -e 0.02", "one_hot.npz", "one-hot", "argmax"),
    case("certify MODEL -d too_few_labels.npz -e 0.02", "too_few_labels.npz", "(9,)", "10 samples"),
    case("certify MODEL -d half_labels.npz -e 0.02", "half_labels.npz", "7.5", "whole"),
    case("certify MODEL -d text_labels.npz -e 0.02", "text_labels.npz", "'labels'", "real numbers"),
    case("certify MODEL -d objects.npz -e 0.02", "objects.npz", "Python objects", "run code"),
    case("certify MODEL -d complex.npz -e 0.02", "complex.npz", "real numbers"),
    case("certify MODEL -d nan.npz -e 0.02", "nan.npz", "sample 3", "NaN", "input 5"),
    case("certify MODEL -d infinity.npz -e 0.02", "infinity.npz", "sample 3", "infinity", "input 5"),
    case("certify two_inputs.onnx -d small.npz -e 0.02", "small.npz", "4 numbers", "(1, 8)"),
    case("certify two_inputs.onnx -d half_pair.npz -e 0.02", "no array named 'z'", "inputs are 'x', 'z'"),
    case("certify two_inputs.onnx -d narrow_pair.npz -e 0.02", "array 'z'", "3 numbers", "input (1, 4)"),
    case("certify two_inputs.onnx -d uneven_pair.npz -e 0.02", "6 of 'x', 5 of 'z'"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --layout nhwc", "--layout nhwc", "inputs 'x', 'z'"),
    case("certify two_inputs.onnx -d out -e 0.02", "out is a folder without images"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --input-name w", "--input-name w", "no such input", "x, z"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --input-name x,x", "--input-name", "twice"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --input-name x,", "--input-name", "such as a,b"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --input-name x", "depends on z", "--fix z=FILE"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix z", "--fix", "NAME=FILE"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix w=pair.npz", "--fix w", "no array of this name"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix w=array.npy", "--fix w", "no such input", "x, z"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix z=missing.npy", "missing.npy", "no such file"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix z=pair.npz", "--fix z", "(6, 4)", "(1, 4)", "one sample"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix x=row.npy --fix z=row.npy", "every input", "leave one"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix z=row.npy --fix z=row.npy", "--fix z", "twice"),
    case("certify two_inputs.onnx -d pair.npz -e 0.02 --fix z=row.npy --input-name z", "--input-name z", "--fix"),
    case("certify good.npz -d pair.npz -e 0.02 --input-name z", "--input-name", "implicit model", "convert"),
    case(f"{CERTIFY} --labels no_labels.npz", "no_labels.npz", "no array named labels or y"),
    case(f"{CERTIFY} --labels missing.npz", "missing.npz", "no such file"),
    case(f"{CERTIFY} --labels too_few_labels.npz", "too_few_labels.npz", "(9,)", "10 samples"),
    case("certify MODEL -d bytes.npz -e 0.02 --bounds 0,1", "sample 0", "above", "--bounds", "--scale"),
    case(f"{CERTIFY} --bounds 0,0.5", "sample 0", "above", "0.5", "--bounds"),
    case(f"{CERTIFY} --layout nhwc", "--layout nhwc", "(1, 64)"),
)

NUMBERS = (
    case("certify MODEL -d good.npz -e 0", "--eps", "above zero", "8/255"),
    case("certify MODEL -d good.npz -e 0,02", "--eps", "above zero", "0.02 is one"),
    case("certify MODEL -d good.npz -e -1", "--eps", "above zero", "'-1'"),
    case("certify MODEL -d good.npz -e abc", "--eps", "'abc'", "8/255"),
    case("certify MODEL -d good.npz -e ''", "--eps", "8/255"),
    case("certify MODEL -d good.npz -e 1/0", "--eps", "divides by zero"),
    case("certify MODEL -d good.npz -e nan", "--eps", "'nan'"),
    case("certify MODEL -d good.npz -e 8", "--eps 8", "8/255", "data units"),
    case("attack MODEL -d good.npz -e 8", "--eps 8", "8/255", "data units"),
    case("certify MODEL -d good.npz -e 0.1,0.1", "--eps", "twice"),
    case("certify MODEL -d good.npz -e 0.1:0.2", "--eps", "start:stop:count"),
    case("certify MODEL -d good.npz -e 0.2:0.1:3", "--eps", "0.2:0.1:3"),
    case("certify MODEL -d good.npz -e 0.1:0.2:1", "--eps", "count from 2"),
    case(f"{CERTIFY} --bounds 0", "--bounds", "LO,HI"),
    case(f"{CERTIFY} --bounds '0;1'", "--bounds", "'0;1'", "LO,HI"),
    case(f"{CERTIFY} --bounds 1,0", "--bounds", "LO < HI"),
    case(f"{CERTIFY} --bounds a,b", "--bounds", "'a'"),
    case(f"{CERTIFY} --limit 0", "--limit", "1 or more", "not 0"),
    case(f"{CERTIFY} --limit -3", "--limit", "1 or more"),
    case(f"{CERTIFY} --index 999", "--index 999", "0 to 9"),
    case(f"{CERTIFY} --index 5-3", "--index", "5-3"),
    case(f"{CERTIFY} --index -1", "--index", "0,3,10-19"),
    case(f"{CERTIFY} --index one", "--index", "'one'"),
    case(f"{CERTIFY} --index 1,1", "--index", "twice"),
    case(
        f"{CERTIFY} --index ²",
        "--index",
        "'²'",
    ),
    case(f"{CERTIFY} --scale 0", "--scale", "1/255"),
    case(f"{CERTIFY} --std 0", "--std", "above zero"),
    case(f"{CERTIFY} --mean 1,2,3", "--mean", "3 numbers", "64"),
    case(f"{CERTIFY} --mean x", "--mean", "'x'"),
    case(f"{CERTIFY} --scale 1e300", "float32", "--scale"),
    case(f"{CERTIFY} --time-limit 0", "--time-limit", "positive"),
    case(f"{CERTIFY} --time-limit nan", "--time-limit", "positive"),
    case(f"{CERTIFY} --max-memory 0", "--max-memory", "500MB"),
    case(f"{CERTIFY} --max-memory 1KB", "node_linear", "--max-memory"),
    case(
        f"{CERTIFY} --max-memory lots",
        "--max-memory",
        "500MB",
    ),
    case(
        f"{CERTIFY} --seed -1",
        "--seed",
        "0 or more",
    ),
    case(
        "convert MODEL -o out/x.npz --seed -1",
        "--seed",
        "0 or more",
    ),
    case(f"{CERTIFY} --method foo", "'foo'", "interval", "lp"),
    case(f"{CERTIFY} --method pgd,foo", "'foo'", "interval", "lp"),
    case(f"{CERTIFY} --method ''", "--method", "interval", "lp"),
    case("attack MODEL -d good.npz -e 0.02 --method linear", "no attack 'linear'", "sign", "lp"),
    case("attack MODEL -d good.npz -e 0.02 --method ,", "--method", "sign", "lp"),
    case("attack MODEL -d good.npz -e 0.02 --fraction 0", "--fraction", "above 0"),
    case("attack MODEL -d good.npz -e 0.02 --fraction 2", "--fraction", "at most 1"),
    case("convert MODEL -o out/x.npz --kappa 0", "kappa", "between 0 and 1"),
    case("convert MODEL -o out/x.npz --kappa nan", "--kappa", "a number"),
    case("sensitivity MODEL --top 0", "--top", "1 or more"),
    case(
        "convert MODEL -o out/x.npz --scale 1/255",
        "--scale",
        "--data",
    ),
    case(
        "convert MODEL -o out/x.npz --limit 3",
        "--limit",
        "--data",
    ),
)


OUTPUTS = (
    case(f"{CERTIFY} -o nowhere/r.json", "nowhere", "does not exist"),
    case(f"{CERTIFY} -o out", "out", "folder"),
    case(f"{CERTIFY} -o out/page.html", "page.html", "JSON", "page.json", "idl-audit report"),
    case(f"{CERTIFY} -o /dev/null", "/dev/null", "device"),
    case(f"{CERTIFY} --save /dev/null --force", "/dev/null", "device"),
    case(f"{CERTIFY} --save out/adv.csv", "adv.csv", "NPZ", "adv.npz"),
    case("certify MODEL -d good.npz -e 0.01,0.02 --plot out/x.jpg", "x.jpg", "PNG", "x.png"),
    case("convert MODEL -o out/x.onnx", "x.onnx", "NPZ", "x.npz"),
    case("compress MODEL --quantize 8 -o out/x.onnx", "x.onnx", "NPZ", "x.npz"),
    case("reduce MODEL -o out/x.onnx", "x.onnx", "NPZ", "x.npz"),
    case("sensitivity MODEL -o out/page.html", "page.html", "JSON", "page.json"),
    case(f"{CERTIFY} --save nowhere/adv.npz", "nowhere", "does not exist"),
    case(f"{CERTIFY} --save out", "out", "folder"),
    case(f"{CERTIFY} --save good.npz --force", "good.npz", "named twice"),
    case(f"{CERTIFY} --save small.npz", "small.npz", "exists already", "--force"),
    case(f"{CERTIFY} --save out --force", "out", "folder"),
    case("sensitivity MODEL -o nowhere/r.json", "nowhere", "does not exist"),
    case("sensitivity MODEL --save nowhere/S.npz", "nowhere", "does not exist"),
    case("sensitivity MODEL --save good.npz", "good.npz", "exists already", "--force"),
    case("sensitivity MODEL --save out --force", "out", "folder"),
    case("convert MODEL -o good.npz", "good.npz", "exists already", "--force"),
    case("convert MODEL -o out", "out", "folder"),
    case("convert MODEL -o out --force", "out", "folder"),
    case("convert MODEL -o nowhere/x.npz", "nowhere", "does not exist"),
    case("convert MODEL -o out/x.npz --report nowhere/r.json", "nowhere", "does not exist"),
    case("convert MODEL -o out/x.npz --report out", "out", "folder"),
    case(f"{CERTIFY} -o good.npz", "good.npz"),
    case("certify small.onnx -d small.npz -e 0.02 -o small.onnx", "small.onnx"),
    case(f"{CERTIFY} -o out/x --save out/x", "out/x"),
    case("convert MODEL -o out/x.npz --report out/x.npz", "out/x.npz"),
    case("inspect small.onnx -o small.onnx", "small.onnx"),
    case(
        "convert small.onnx -o out/x.npz --spy out/s.xyz",
        "--spy",
        "png",
    ),
    case("convert small.onnx -o small.onnx --force", "small.onnx"),
)


TORCH = (
    case("convert state_dict.pt -o out/x.npz --allow-code-execution", "state_dict.pt", "--arch"),
    case("convert state_dict.pt -o out/x.npz --arch my.models:make", "my.models:make", "--allow-code-execution"),
    case("convert state_dict.pt -o out/x.npz --arch make --allow-code-execution", "--arch", "package.module:factory"),
    case("convert module.pt -o out/x.npz", "module.pt", "would run code"),
    case("convert module.pt -o out/x.npz --allow-code-execution", "module.pt", "--input-shape"),
    case("convert module.pt -o out/x.npz --allow-code-execution --input-shape 0,3", "--input-shape", "1,3,32,32"),
    case("convert small.onnx -o out/x.npz --input-shape 1,3", "--input-shape"),
)

BOUNDS = "bounds MODEL -d good.npz -e 0.02"

STATES = (
    case(f"{BOUNDS} --method foo", "'foo'", "norm", "linear"),
    case(f"{BOUNDS} --method ''", "--method", "norm", "linear"),
    case(f"{BOUNDS} --sparse 0", "--sparse", "1 or more"),
    case(f"{BOUNDS} --sparse two", "--sparse", "whole number"),
    case(f"{BOUNDS} --sigma missing.npy", "missing.npy", "no such file"),
    case(f"{BOUNDS} --sigma array.npy", "array.npy", "640 radii", "64 inputs"),
    case(f"{BOUNDS} --sigma data.csv", "data.csv", "640 radii", "64 inputs"),
    case(f"{BOUNDS} --sigma good.npz", "good.npz", "sigma"),
    case(f"{BOUNDS} --sigma text.onnx", "text.onnx", "'not'", "no number"),
    case(f"{BOUNDS} --bounds 0,0.5", "sample 0", "above", "0.5", "--bounds"),
    case("bounds MODEL -d good.npz -e 8", "--eps 8", "8/255", "data units"),
    case("bounds MODEL -d wrong_shape.npz -e 0.02", "wrong_shape.npz", "63", "(1, 64)"),
    case(f"{BOUNDS} --save good.npz --force", "good.npz", "named twice"),
    case(f"{BOUNDS} --save small.npz", "small.npz", "exists already", "--force"),
    case(f"{BOUNDS} --save nowhere/b.npz", "nowhere", "does not exist"),
    case(f"{BOUNDS} --sigma array.npy --save array.npy --force", "array.npy", "array.npz"),
    case(f"{BOUNDS} --time-limit 0", "--time-limit", "positive"),
    case("bounds MODEL -d good.npz", "--eps"),
)

USAGE = (
    case("certify", "MODEL"),
    case("certify MODEL -d good.npz", "--eps"),
    case("certify MODEL -e 0.02", "--data"),
    case("certify MODEL good.npz -e 0.02", "--data"),
    case(f"{CERTIFY} --bounds 0 1", "--bounds", "LO,HI"),
    case(f"{CERTIFY} --limit many", "--limit", "whole number"),
    case(f"{CERTIFY} --seed x", "--seed", "whole number"),
    case(f"{CERTIFY} -f xml", "--format", "table", "json"),
    case(f"{CERTIFY} --layout hwc", "--layout", "nhwc"),
    case(f"{CERTIFY} --epsilon 0.1", "--epsilon"),
    case("convert MODEL", "--out"),
    case("sensitivity MODEL -d good.npz", "-d"),
    case("schema nonsense", "nonsense", "report", "config"),
    case("gate report.json", "--require"),
)


def parameters(*tables: tuple[Case, ...]):
    return [pytest.param(entry, id=entry.line) for table in tables for entry in table]


def arguments(line: str) -> list[str]:
    names = {"MODEL": str(MODEL), "DATA": str(DATA)}
    return [names.get(part, part) for part in shlex.split(line)]


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("entry", parameters(MODELS, SAMPLES, NUMBERS, OUTPUTS, TORCH, STATES, USAGE))
def test_a_wrong_input_gives_one_sentence_and_exit_code_2(files, entry):
    before = snapshot(files)
    found = run(*arguments(entry.line))
    assert (found.code, found.out) == (2, ""), found.err
    (line,) = found.err.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    for word in entry.words:
        assert word in line
    assert snapshot(files) == before


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.line) for entry in USAGE])
def test_a_usage_error_names_the_option_and_has_exit_code_2(files, entry):
    before = snapshot(files)
    found = run(*arguments(entry.line), COLUMNS="200")
    assert (found.code, found.out) == (2, "")
    assert "Traceback" not in found.err
    for word in entry.words:
        assert word in found.err
    assert snapshot(files) == before


def test_init_says_what_run_does_with_a_report_that_is_there(files):
    (files / "report.json").write_text("{}")
    told = run("init", MODEL, DATA).out
    assert "run --force, which replaces report.json" in told
    (files / "report.json").unlink()
    assert run("init", MODEL, DATA, "--force").out.endswith("then: idl-audit run\n")


def test_attack_without_a_method_lists_attacks_only(files):
    assert "interval" not in run(*arguments("attack MODEL -d good.npz -e 0.02 --method ,")).err


@pytest.mark.parametrize("option", ["--output", "--save"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(files, monkeypatch, option):
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("a sample was decided")

    monkeypatch.setattr(robustness, "decide_all", no_work)
    assert run("certify", MODEL, "-d", "good.npz", "-e", "0.02", option, "nowhere/file").code == 2


@pytest.mark.parametrize(
    "line",
    [f"{CERTIFY} -o out/r.json", f"{CERTIFY} --save out/a.npz", "convert MODEL -o out/x.npz"],
)
def test_a_folder_that_may_not_be_written_to_is_named(files, monkeypatch, line):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "out")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    found = run(*arguments(line))
    assert found.code == 2
    assert found.err.startswith("error: ")
    assert "out" in found.err
    assert "internal" not in found.err


@pytest.mark.parametrize("line", [f"{CERTIFY} -o out/r.json", f"{CERTIFY} --save out/a.npz"])
def test_a_write_that_fails_half_way_leaves_no_file(files, monkeypatch, line):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        found = run(*arguments(line))
    assert (found.code, found.out) == (2, "")
    if "--save" in line:
        assert list((files / "out").iterdir()) == []
        return
    # the samples are decided: they are kept, and the report is written when there is room
    assert [path.name for path in (files / "out").iterdir()] == ["r.json.journal"]
    assert "--resume" in found.err
    monkeypatch.setattr(decider, "decide_sample", lambda *_, **__: pytest.fail("a sample was decided twice"))
    assert run(*arguments(f"{line} --resume")).code == 0
    assert [path.name for path in (files / "out").iterdir()] == ["r.json"]


@pytest.mark.parametrize("line", ["convert MODEL -o good.npz --force", f"{CERTIFY} --save small.npz --force"])
def test_force_overwrites(files, line):
    target = files / re.search(r"\w+\.npz(?= --force)", line)[0]
    before = target.read_bytes()
    assert run(*arguments(line)).code == 0
    assert target.read_bytes() != before


def test_an_unknown_file_name_is_printed_without_its_escapes(files):
    found = run("certify", "no\x1b[31m[bold]\nsuch\u202e.onnx", "-d", "good.npz", "-e", "0.02")
    assert found.code == 2
    assert found.err.splitlines() == ["error: no[bold] such.onnx: there is no such file; check the path"]


@pytest.mark.parametrize("name", ["[bold]näh.onnx", "a b.onnx", "-x.onnx"])
def test_any_file_name_can_be_read_and_written(files, name):
    (files / "small.onnx").rename(files / name)
    found = run("convert", "-o", f"out/{name}.npz", "--", name)
    assert found.code == 0, found.err
    assert f"out/{name}.npz" in found.out
    with np.load(f"out/{name}.npz") as archive:
        assert "meta" in archive


def test_hostile_names_inside_a_model_are_printed_as_plain_text(files):
    found = run("certify", "hostile_names.onnx", "-d", "small.npz", "-e", "0.02", "-v", COLUMNS="160")
    assert found.code == 0
    assert "a[bold red]b[/] c " in found.out
    assert not set("\x1b\u202e").intersection(found.out)
    assert run("convert", "hostile_names.onnx", "-o", "out/x.npz", "-f", "json").report.conversion.blocks


def start(*args: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_a_process_of_its_own_fails_the_same_way(files):
    """Also from another folder, and by `python -m`."""
    found = start("-m", "idl_audit", "certify", "missing.onnx", "-d", "good.npz", "-e", "0.02", cwd=files / "out")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: missing.onnx: there is no such file; check the path\n"


@pytest.mark.skipif(os.name != "posix", reason="closes a file descriptor in the child")
def test_a_closed_stdout_is_no_internal_error(files):
    command = [sys.executable, "-m", "idl_audit", "sensitivity", "small.onnx"]
    found = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    assert found.returncode in (0, 2, 3)
    assert "internal" not in found.stderr


READERS_GONE = ("json", "table")


@pytest.mark.parametrize("format", READERS_GONE)
def test_a_reader_that_went_away_is_no_error(files, format):
    """As in `idl-audit certify ... | head -3`."""
    reading, writing = os.pipe()
    os.close(reading)
    line = ["-m", "idl_audit", "convert", "small.onnx", "-o", "out/x.npz", "-f", format]
    try:
        found = subprocess.run(
            [sys.executable, *line], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (0, "")


def test_hostile_constant_is_hostile():
    assert not command_line.HOSTILE.isprintable()
