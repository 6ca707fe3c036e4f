"""Every option of the auditing commands: what it asks for is in the report and compared, or why it has no part in it.

Two runs differ by one option, or by what is in the file that it names. Reports must say so, and the journals of
--resume must not be mistaken for each other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from onnx import helper

from idl_audit.cli.app import app
from idl_audit.commands import certify as robustness
from idl_audit.gate.fingerprints import differences, notes
from idl_audit.report.reading import read_report
from idl_audit.report.schema import Report
from tests.shared.command_line import gemm, network, run, weights

COMMANDS = typer.main.get_command(app).commands

LINES: Mapping[str, str] = {
    "certify": "certify small.onnx -d small.npz -e 0.02 --method interval",
    "attack": "attack small.onnx -d small.npz -e 0.02 --method sign",
    "bounds": "bounds small.onnx -d small.npz -e 0.02 --method interval",
    "sensitivity": "sensitivity small.onnx -d small.npz -e 0.02 --method paper",
    "run": "run small.onnx -c small.toml -d small.npz -e 0.02",
    "bench": "bench rules.csv",
}
"""A run of each command."""


@dataclass(frozen=True)
class Enters:
    """An option that says what a report is about."""

    more: str
    """What is typed in addition, or instead where it is given twice."""
    words: str = ""
    """What a comparison says; empty where no figure is compared."""
    paths: tuple[str, ...] = ()
    """Fields of the report of which one differs."""
    swap: tuple[tuple[str, str], ...] = ()
    """Words of both lines that are replaced first."""
    only_more: tuple[tuple[str, str], ...] = ()
    """Words that are replaced in the other line alone."""


IMAGES = (("small.onnx", "image.onnx"), ("small.npz", "image.npz"))
ONE = (("small.onnx", "one.onnx"), ("small.npz", "one.npz"))
PAIR = (("small.onnx", "two_inputs.onnx"), ("small.npz", "pair.npz"))
TWO = (("small.onnx", "two_outputs.onnx --output-name y"),)

WIDE = (("-e 0.02", "-e 0.02 --bounds 0,2"),)
WITHIN = (("-e 0.02", "-e 0.02 --within 0.5"),)
SEVERAL = (("-d small.npz", "-d small.npz -y several.npy"),)
WAY = (("--method interval", "--monotone 0+ --class 0 --bounds 0,2 --max-nodes 1"),)

SAMPLES = "-d small.npz -e 0.02 --method interval"
WHOLE = ((SAMPLES, "--everywhere --bounds 0,2 --above -99"),)

ENTERS: Mapping[str, Enters] = {
    "model": Enters("", "another network", ("model.sha256",), only_more=(("small.onnx", "other.onnx"),)),
    "--data": Enters("-d other.npz", "other data", ("data.numbers_sha256",)),
    "--eps": Enters("-e 0.03", "eps", ("threat_model.eps",)),
    "--labels": Enters("-y labels.npy", "other labels", ("samples",)),
    "--limit": Enters("--limit 3", "other samples", ("data.indices",)),
    "--index": Enters("--index 0,2", "other samples", ("data.indices",)),
    "--shard": Enters("--shard 1/2", "other samples", ("data.indices", "data.shard")),
    "--scale": Enters("--scale 0.5", "scale 1.0, not 0.5", ("data.preprocessing",)),
    "--mean": Enters("--mean 0.25", "mean 0.0, not 0.25", ("data.preprocessing",)),
    "--std": Enters("--std 0.5", "std 1.0, not 0.5", ("data.preprocessing",)),
    "--layout": Enters("--layout nhwc", "other data", ("data.numbers_sha256",), swap=IMAGES),
    "--bounds": Enters("--bounds 0,2", "clip none, not 0.0, 2.0", ("threat_model.clip",)),
    "--output-name": Enters("--output-name z", "another output (y, not z)", ("model.output_name",), swap=TWO),
    "--input-name": Enters("--input-name z,x", "another network", ("model.sha256",), swap=PAIR),
    "--fix": Enters("--fix z=row.npy", "another network", ("model.fixed_inputs",), swap=PAIR),
    "--runtime-optimisation": Enters("--runtime-optimisation off", "", ("conversion.check.optimisation",)),
    "--threshold": Enters("--threshold 0.25", "another threshold (0.0, not 0.25)", ("model.threshold",), swap=ONE),
    "--sigma": Enters("--sigma radii.csv", "sigma none, not radii.csv", ("threat_model.sigma_sha256",)),
    "--target": Enters("--target 1", "target none, not 1", ("threat_model.target",)),
    "--arithmetic": Enters("--arithmetic float32", "arithmetic real, not float32", ("threat_model.arithmetic",)),
    "--sparse": Enters("--sparse 2", "k none, not 2", ("threat_model.k",)),
    "--ignore": Enters("--ignore 1", "another threat model (free", ("threat_model.free",), swap=WIDE),
    "--norm": Enters("--norm l2", "norm linf, not l2", ("threat_model.norm",)),
    "--perturb": Enters("--perturb brightness=0.25", "set box, not perturbed", ("threat_model.perturbation",)),
    "--directions": Enters("--directions ways.npy", "set box, not perturbed", ("threat_model.directions_sha256",)),
    "--monotone": Enters("--monotone 1+", "input 0+ of class 0, not 1+ of class 0", ("monotonicity",), swap=WAY),
    "--everywhere": Enters("", "the whole range of the inputs", ("everywhere",), only_more=WHOLE),
    "--never": Enters("--never 1 --max-nodes 20", "other statements", ("everywhere.statements",), swap=WHOLE),
    "--objective": Enters("--method pgd --objective c.npy", "", ("objectives",)),
    "--method": Enters("--method sign,pgd", "other methods", ("summary.methods",)),
    "--time-limit": Enters("--time-limit 7", "another time limit", ("summary.time_limit",)),
    "--max-nodes": Enters("--max-nodes 9", "another limit of nodes", ("summary.max_nodes",)),
    "--seed": Enters("--seed 3", "", ("environment.seed",)),
    "property": Enters("", "", ("properties",), only_more=(("-d small.npz -e 0.02 --method interval", "rule.vnnlib"),)),
    "--groups": Enters("--groups groups.csv", "", ("sensitivity.groups",)),
    "--class": Enters("--class 1", "", ("sensitivity.margins",)),
    "--top": Enters("--top 1", "", ("sensitivity.top_inputs",)),
    "--state-bounds": Enters("--state-bounds linear", "bounds of states", ("sensitivity.state_bounds",)),
    "--features": Enters("--features features.toml", "features_sha256 none, not", ("threat_model.features_sha256",)),
    "--fair": Enters(
        "-e 0 --fair",
        "(fair False, not True)",
        ("threat_model.fair",),
        swap=(("-e 0.02", "-e 0.02 --features f.toml"),),
    ),
    "--minimal": Enters("--minimal", "looks for the largest radii", ("samples",)),
    "--largest": Enters("--largest", "looks for the largest radii", ("samples",)),
    "--task": Enters("--task multilabel", "outputs (the class, not labels)", ("demand",), only_more=SEVERAL),
    "--within": Enters("--within 2.5", "outputs (within 0.5, not 2.5)", ("demand.within",), swap=WITHIN),
    "--above": Enters("--above 0.25", "outputs (above none, not 0.25)", ("demand.above",), swap=WITHIN),
    "--below": Enters("--below 0.25", "outputs (below none, not 0.25)", ("demand.below",), swap=WITHIN),
    "--of-outputs": Enters("--of-outputs 1", "outputs (outputs none, not 1)", ("demand.outputs",), swap=WITHIN),
    "--steps": Enters("--steps bounds,certify", "", ("sensitivity",)),
    "instances": Enters("", "", ("properties",), only_more=(("rules.csv", "other.csv"),)),
    "--cap": Enters("--cap 7", "", ("properties",)),
}

PARTICULAR: Mapping[tuple[str, str], Enters] = {
    ("sensitivity", "--method"): Enters("--method half-step", "another method of S", ("sensitivity.method",)),
    ("sensitivity", "--sparse"): Enters("--sparse 2", "", ("sensitivity.cardinality",)),
    **{
        (command, "--top"): Enters("--top 2", "outputs (the class, not top)", ("demand.top",))
        for command in ("certify", "attack")
    },
    ("certify", "--class"): Enters("--class 1", "not 0+ of class 1", ("monotonicity.label",), swap=WAY),
    ("sensitivity", "--norm"): Enters("--norm l2", "", ("sensitivity.induced",)),
    ("bounds", "--method"): Enters("--method linear", "", ("bounds",)),
    ("bench", "--arithmetic"): Enters("--arithmetic float32", "", ("properties",)),
    ("bench", "--max-nodes"): Enters("--max-nodes 9", "", ("properties",)),
    ("run", "model"): Enters("", "another network", ("model.sha256",), only_more=(("small.onnx", "other.onnx"),)),
}
"""Where an option means another thing than with other commands."""

OUTPUT = "it only says what is written or printed, and where"
HARMLESS: Mapping[str, str] = {
    "--format": OUTPUT,
    "--output": OUTPUT,
    "--save": OUTPUT,
    "--images": OUTPUT,
    "--plot": OUTPUT,
    "--axes": OUTPUT,
    "--image-shape": OUTPUT,
    "--certificates": OUTPUT,
    "--witness": OUTPUT,
    "--force": OUTPUT,
    "--quiet": OUTPUT,
    "--verbose": OUTPUT,
    "--progress": OUTPUT,
    "--log-json": OUTPUT,
    "--metrics": OUTPUT,
    "--group-by": "it adds what columns of the data say of samples; all other figures are the same",
    "--scheduler": "the same samples are decided by the same code, on other machines",
    "--best-effort": "it admits networks that are refused elsewhere; IDL225 and the reasons of verdicts say so",
    "--worker-timeout": "how long a run waits for others to decide",
    "--jobs": "the same samples are decided by the same code, several at a time",
    "--resume": "a journal is only taken over where all that is asked is the same, as is tested here",
    "--max-memory": "more or less is refused; what is done is the same",
    "--device": "searches propose, wherever they compute; environment.device says where",
    "--threads": "sums may be added up in another order, which what is proved allows for",
    "--draws": "how hard an attack tries: a point that it finds is one whatever found it",
    "--matrix": "how hard an attack tries; IDL218 names the file and its hash",
    "--max-queries": "how hard an attack tries: a point that it finds is one whatever found it",
    "--fraction": "how hard an attack tries: a point that it finds is one whatever found it",
    "--allow-code-execution": "a permission; what the code made is in the hash of the model",
    "--config": "its entries stand for other options",
}
"""Options that cannot change what a report says of its subject."""

HARMLESS_HERE: Mapping[tuple[str, str], str] = {
    ("sensitivity", "--labels"): "S is made around samples, whatever class they have",
    ("run", "--only"): "which audits of a configuration run; each has a report of its own",
    ("bounds", "--time-limit"): "what is proved holds; IDL402 says where the time ran out",
}

ELSEWHERE: Mapping[str, str] = {
    "--arch": "tests.commands.test_identity:test_the_code_of_a_network_belongs_to_it",
    "--input-shape": "tests.commands.test_identity:test_the_code_of_a_network_belongs_to_it",
}
"""Options that need torch, and the test that tries them."""


def options_of(command: str) -> list[str]:
    return [next((name for name in one.opts if name.startswith("--")), one.name) for one in COMMANDS[command].params]


def entry(command: str, option: str) -> Enters | None:
    return PARTICULAR.get((command, option), ENTERS.get(option))


def pairs() -> list[Any]:
    """Return the cases; those of bench start processes."""
    return [
        pytest.param(command, option, marks=[pytest.mark.slow] if command == "bench" else [])
        for command in LINES
        for option in options_of(command)
        if (command, option) not in HARMLESS_HERE and entry(command, option) is not None
    ]


def test_every_option_is_in_a_report_or_has_a_reason_not_to_be() -> None:
    for command in LINES:
        for option in options_of(command):
            places = [
                (command, option) in HARMLESS_HERE,
                option in HARMLESS,
                option in ELSEWHERE,
                (command, option) not in HARMLESS_HERE and entry(command, option) is not None,
            ]
            assert places.count(True) == 1, (command, option)
    known = {option for command in LINES for option in options_of(command)}
    assert {*ENTERS, *HARMLESS, *ELSEWHERE, *(option for _, option in [*PARTICULAR, *HARMLESS_HERE])} <= known


@pytest.mark.parametrize("place", [*ELSEWHERE.values()])
def test_what_is_tried_elsewhere_is(place: str) -> None:
    module, _, name = place.partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.fixture(scope="module")
def asked(shared_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two of everything that an option can name."""
    folder = tmp_path_factory.mktemp("asked")
    for name in ("small.onnx", "small.npz", "two_outputs.onnx", "two_inputs.onnx", "pair.npz", "row.npy"):
        shutil.copy(shared_files / name, folder)
    for name in ("rule.vnnlib", "rules.csv"):
        shutil.copy(shared_files / name, folder)
    w = weights()
    network(folder / "other.onnx", [gemm()], {**w, "b": w["b"] + 1})
    nodes = [helper.make_node("Flatten", ["x"], ["h"]), gemm("h")]
    network(folder / "image.onnx", nodes, w, inputs=(("x", (1, 2, 1, 2)),))
    rng = np.random.default_rng(5)
    np.save(folder / "ways.npy", rng.normal(size=(2, 4)))
    np.savez(folder / "other.npz", inputs=rng.random((6, 4)), labels=np.arange(6) % 3)
    np.savez(folder / "image.npz", inputs=rng.random((6, 1, 2, 2)), labels=np.arange(6) % 3)
    network(folder / "one.onnx", [gemm()], {"w": w["w"][:, :1], "b": w["b"][:1]}, outputs=(("y", (1, 1)),))
    np.savez(folder / "one.npz", inputs=rng.random((6, 4)), labels=np.arange(6) % 2)
    np.save(folder / "labels.npy", (np.arange(6) + 1) % 3)
    np.save(folder / "several.npy", np.arange(18).reshape(6, 3) % 2)
    np.save(folder / "c.npy", np.array([1.0, 2.0, 3.0]))
    (folder / "radii.csv").write_text("1,1,0.5,1\n")
    (folder / "groups.csv").write_text("a,a,b,b\n")
    columns = "".join(f"[[feature]]\nname = '{name}'\nrange = [-9, 9]\nprotected = true\n" for name in "abcd")
    (folder / "f.toml").write_text(columns)
    (folder / "features.toml").write_text(columns.replace("-9", "-8"))
    (folder / "other.vnnlib").write_text((folder / "rule.vnnlib").read_text().replace("-1)", "-2)"))
    (folder / "other.csv").write_text("onnx,vnnlib,timeout\nsmall.onnx,other.vnnlib,20\n")
    steps = '[run]\nsteps = "sensitivity,certify"\n[certify]\nmethod = "interval"\n[sensitivity]\nmethod = "paper"\n'
    (folder / "small.toml").write_text(steps)
    return folder


@dataclass(frozen=True)
class Done:
    """A report, and the key of the journal of its run where it had one."""

    report: Report
    key: Mapping[str, str] | None


class Runner:
    """Runs lines in a folder, each line once."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self._known: dict[str, Done] = {}

    def __call__(self, line: str, *, anew: bool = False) -> Done:
        if anew:
            return self._run(line)
        if line not in self._known:
            self._known[line] = self._run(line)
        return self._known[line]

    def _run(self, line: str) -> Done:
        keys: list[Mapping[str, str]] = []
        real: Callable[..., Any] = robustness.run_key

        def key(*arguments: Any) -> Any:
            keys.append(real(*arguments))
            return keys[-1]

        output = self._folder / "report.json"
        output.unlink(missing_ok=True)
        with self._patch.context() as patch:
            patch.chdir(self._folder)
            patch.setattr(robustness, "run_key", key)
            found = run(*line.split(), "-q", "-f", "json", "-o", output)
        assert found.code == 0, (line, found.err)
        return Done(read_report(output), keys[-1] if keys else None)


@pytest.fixture(scope="module")
def runner(asked: Path) -> Iterator[Runner]:
    with pytest.MonkeyPatch.context() as patch:
        yield Runner(asked, patch)


def at(report: Report, path: str) -> object:
    value: object = report.model_dump(mode="json")
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else None
    return value


def replaced(line: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        assert old in line
        line = line.replace(old, new)
    return line


def compared(new: Report, old: Report) -> list[str]:
    return [*differences(new, old, same_radii=True), *notes(new, old)]


@pytest.mark.parametrize(("command", "option"), pairs())
def test_reports_of_two_questions_are_not_taken_for_each_other(runner: Runner, command: str, option: str) -> None:
    one = entry(command, option)
    assert one is not None
    base = replaced(LINES[command], one.swap)
    other = f"{replaced(base, one.only_more)} {one.more}".strip()
    before, after = runner(base), runner(other)
    assert any(at(before.report, path) != at(after.report, path) for path in one.paths)
    assert compared(before.report, before.report) == []
    told = compared(after.report, before.report)
    if one.words:
        assert any(one.words in sentence for sentence in told), told
    if before.key is not None and after.key is not None and option != "--steps":
        assert after.key != before.key


# --- the same names, and other contents ------------------------------------------------------------------------------


def radii(path: Path) -> None:
    path.write_text("0.01,0.01,0.01,0.01\n")


def labels(path: Path) -> None:
    np.save(path, (np.arange(6) + 2) % 3)


def samples(path: Path) -> None:
    with np.load(path) as archive:
        np.savez(path, inputs=archive["inputs"] + 0.01, labels=archive["labels"])


def weights_of(path: Path) -> None:
    w = weights()
    network(path, [gemm()], {**w, "b": w["b"] + 2})


def groups(path: Path) -> None:
    path.write_text("a,b,a,b\n")


def objective(path: Path) -> None:
    np.save(path, np.array([3.0, 2.0, 1.0]))


def rule(path: Path) -> None:
    path.write_text(path.read_text().replace("-1)", "-3)"))


CONTENTS = [
    ("certify", "--sigma radii.csv", "radii.csv", radii, "the radii in the file of sigma", "threat_model.sigma_sha256"),
    ("attack", "--sigma radii.csv", "radii.csv", radii, "the radii in the file of sigma", "threat_model.sigma_sha256"),
    ("bounds", "--sigma radii.csv", "radii.csv", radii, "the radii in the file of sigma", "threat_model.sigma_sha256"),
    ("certify", "-y labels.npy", "labels.npy", labels, "other labels", "samples"),
    ("certify", "-d other.npz", "other.npz", samples, "other data", "data.numbers_sha256"),
    ("certify", "other.onnx", "other.onnx", weights_of, "another network", "model.sha256"),
    ("sensitivity", "--groups groups.csv", "groups.csv", groups, "other groups", "sensitivity.groups.sha256"),
    ("attack", "--method pgd --objective c.npy", "c.npy", objective, "", "objectives"),
    pytest.param("bench", "", "rule.vnnlib", rule, "", "properties", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("command", "more", "name", "write", "words", "path"), CONTENTS)
def test_a_file_is_what_is_in_it_and_not_its_name(
    runner: Runner,
    asked: Path,
    command: str,
    more: str,
    name: str,
    write: Callable[[Path], None],
    words: str,
    path: str,
) -> None:
    file = asked / name
    kept = file.read_bytes()
    line = LINES[command].replace("small.onnx", name) if name.endswith(".onnx") else f"{LINES[command]} {more}"
    before = runner(line, anew=True)
    try:
        write(file)
        after = runner(line, anew=True)
    finally:
        file.write_bytes(kept)
    assert at(before.report, path) != at(after.report, path)
    assert any(words in sentence for sentence in compared(after.report, before.report)) == bool(words)
    if before.key is not None:
        assert before.key != after.key


@pytest.mark.parametrize(
    ("name", "copy", "more"), [("radii.csv", "copy.csv", "--sigma"), ("small.npz", "copy.npz", "-d")]
)
def test_another_name_of_the_same_numbers_is_no_other_question(
    runner: Runner, asked: Path, name: str, copy: str, more: str
) -> None:
    if name.endswith(".npz"):
        with np.load(asked / name) as archive:  # written anew: another file, the same numbers
            np.savez_compressed(asked / copy, inputs=archive["inputs"], labels=archive["labels"])
    else:
        (asked / copy).write_text((asked / name).read_text().replace(",", " , "))
    one, two = (runner(f"{LINES['certify']} {more} {file}", anew=True).report for file in (name, copy))
    assert compared(two, one) == []
