"""Every option of every command means the same on the command line, in the environment, in a file and in Python."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from idl_audit import api
from idl_audit.cli import app as command_line
from idl_audit.cli import loading
from idl_audit.cli.options import Given, given_to, parameter_of, variables_of
from idl_audit.commands.options import COMMANDS, asked_of, common
from idl_audit.commands.options.common import Printing, Watching
from idl_audit.commands.options.robustness import (
    ArrayOptions,
    AttackedArrayOptions,
    AttackVerdicts,
    Audit,
    CertifyVerdicts,
)
from idl_audit.config.files import SHARED, TABLES, keys_of, read_configuration, schema
from idl_audit.config.finding import CONFIGURED, FILE
from idl_audit.data.groups import SPECS
from idl_audit.decide import ladder, objectives
from idl_audit.implicit.compose import COMPOSITIONS
from idl_audit.measure import centre_radius, local_sensitivity, state_bounds
from idl_audit.search import attacks, ensemble
from idl_audit.testing import assert_robust
from idl_audit.values.errors import OptionError
from idl_audit.values.options import OTHER_NAMES, PATH, SWITCH, Option, options_of
from tests.shared.command_line import run

# --- what is not the same, and why ------------------------------------------------------------------------------------

TYPED = "what is shown, replaced or gone on with is said by whoever sits there"
NOT_IN_A_FILE: Mapping[str, str] = {
    "check": "what inspect is asked at one moment",
    "allow_code_execution": "no file runs code",
    "scheduler": "no file names who is sent pickles and sends some back",
    "config": "the file itself",
    "report": "what is judged is named where it is judged",
    "property": "what is decided in place of samples is named where it is decided",
    "monotone": "what is decided in place of samples is named where it is decided",
    "everywhere": "what is decided in place of samples is named where it is decided",
    "update_baseline": "a rule file does not replace what it is compared with",
    "output": "what a command makes is named where it is made; [run] has it, as its report is what a job keeps",
    "json": TYPED,
    "format": TYPED,
    "quiet": TYPED,
    "verbose": TYPED,
    "force": TYPED,
    "only": "the file has the audits of which it chooses",
    "resume": TYPED,
    "log_json": TYPED,
    "metrics": "what a run keeps beside it is named where it is started",
    "journal": "it stands beside --output",
}
NOT_IN_THE_ENVIRONMENT: Mapping[str, str] = {
    "allow_code_execution": "no environment runs code",
    "scheduler": "no environment names who is sent pickles and sends some back",
    "journal": "it stands beside --output",
    "only": "what is left out is seen in the command",
    "reports": "a list of files has its place in the configuration",
}
NOT_TYPED: Mapping[str, str] = {
    "journal": "it stands beside --output",
    "reports": "`idl-audit report` makes them one by one",
}
NOT_IN_PYTHON: Mapping[str, str] = {
    **{name: "Python gets the report itself" for name in options_of(Printing) if name != "force"},
    **dict.fromkeys(options_of(Watching), "Python calls `watch`"),
    "model": "an argument without a name",
    "data": "an argument without a name",
    "property": "`audit` is about samples",
    "monotone": "`audit` is about samples",
    "everywhere": "`certify_everywhere` is",
    "never": "`certify_everywhere` has it",
    "axes": "`certify_everywhere` has it",
    "class": "`audit` is about samples",
    "objective": "`attack` is about verdicts",
}
NOT_OF_ARRAYS = "arrays are in memory, as the network reads them: nothing is read, written or handed to other processes"
OF_ARRAYS = (
    *(
        "arithmetic",
        "bounds",
        "draws",
        "eps",
        "features",
        "fraction",
        "image_shape",
        "max_nodes",
        "max_queries",
        "method",
        "norm",
    ),
    *("perturb", "seed", "target", "threshold", "time_limit"),
)
OTHER_READERS: Mapping[str, str] = {"eps": "arrays are asked about at one radius"}

# --- the cases --------------------------------------------------------------------------------------------------------

ALL = [(command, one) for command in COMMANDS for one in options_of(asked_of(command)).values()]
ON_THE_LINE = [(command, one) for command, one in ALL if one.typed]

GOOD: Mapping[str, str] = {
    "action": "show",
    "bounds": "0,2",
    "code": "IDL101",
    "eps": "0.25",
    "fix": "mask=mask.npy",
    "image_shape": "2,2",
    "index": "0,2-3",
    "input_shape": "1,3",
    "kind": "sum",
    "layout": "nhwc",
    "max_memory": "1MB",
    "mean": "0.5",
    "monotone": "3+",
    "network": "N=model.onnx",
    "scheduler": "tcp://127.0.0.1:8786",
    "shard": "2/3",
    "perturb": "contrast=0.5,brightness=0.25",
    "std": "0.25",
    "steps": "bounds,certify",
    "task": "multilabel",
}
"""A text that makes sense; of options that are not here, what their kind makes of the fallbacks below."""


def good(one: Option) -> str:
    if one.name in GOOD:
        return GOOD[one.name]
    tried = (one.default if isinstance(one.default, str) else "0.5", "0.5", "3", "true", "html", "pgd", "A")
    return next(text for text in tried if not refusal(one, text))


def refusal(one: Option, text: str) -> str:
    """Return the sentence that refuses a text; empty where it is taken."""
    try:
        one.read(text)
    except OptionError as error:
        return str(error)
    return ""


def bad(one: Option) -> str:
    return next(text for text in ("magic", "-1", "0", " ", "") if refusal(one, text))


def test_files_in_a_configuration_lie_beside_it() -> None:
    folder = Path("folder")
    assert PATH.placed(Path("a.npz"), folder) == folder / "a.npz"
    (fixed,) = options_of(asked_of("run"))["fix"].read("mask=m.npy")
    assert options_of(asked_of("run"))["fix"].reader.placed(fixed, folder).path == folder / "m.npy"


def named(cases: list[tuple[str, Option]]) -> list[Any]:
    return [pytest.param(command, one, id=f"{command}-{one.key}") for command, one in cases]


@pytest.fixture(scope="module")
def idle() -> Iterator[list[Given]]:
    """What commands are given: they do no work, and are built once."""
    found: list[Given] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading.LazyCommands, "_do", lambda self, name, ctx: found.append(given_to(ctx)))
        built = typer.main.get_command(command_line.app)
        patch.setattr("typer.testing._get_command", lambda app: built)
        yield found


@pytest.fixture
def captured(idle: list[Given], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Given]:
    """The same, in a folder without a configuration."""
    monkeypatch.chdir(tmp_path)
    idle.clear()
    return idle


def needed(command: str, besides: Option, *, positional: bool = True) -> Iterator[str]:
    """Yield what must be typed besides an option."""
    for one in options_of(asked_of(command)).values():
        if one.required and one.name != besides.name and (positional or not one.positional):
            yield from (good(one),) if one.positional else (f"--{one.key}", good(one))


def line(command: str, one: Option, text: str) -> list[str]:
    if one.positional:
        places = [other for other in options_of(asked_of(command)).values() if other.positional]
        texts = [text if other.name == one.name else good(other) for other in places]
        return [command, *texts, *needed(command, one, positional=False)]
    return [command, f"--{one.key}", *([] if one.reader is SWITCH else [text]), *needed(command, one)]


# --- the command line -------------------------------------------------------------------------------------------------


BUILT = typer.main.get_command(command_line.app).commands


@pytest.mark.parametrize(("command", "one"), named(ON_THE_LINE))
def test_the_command_line_has_it(command: str, one: Option) -> None:
    (found,) = [parameter for parameter in BUILT[command].params if parameter.name == parameter_of(one.name)]
    assert found.required == one.required
    assert found.default == (None if one.required or one.default == () else one.default)
    if not one.positional:
        assert set(found.opts) == {*one.flags, f"--{one.key}"}
        assert (found.envvar or []) == variables_of(command, one)
    assert found.help == one.help


@pytest.mark.parametrize(("command", "one"), named([case for case in ON_THE_LINE if case[1].name != "config"]))
def test_what_is_typed_or_in_the_environment_is_read_alike(captured: list[Given], command: str, one: Option) -> None:
    text = good(one)
    found = run(*line(command, one, text))
    assert (found.code, one.read(captured[-1].values[one.name])) == (0, one.read(text)), found.err
    assert one.name in captured[-1].typed
    for variable in variables_of(command, one):
        found = run(
            command, *needed(command, one), *([f"--{one.key}", text] if one.required else []), **{variable: text}
        )
        assert (found.code, one.read(captured[-1].values[one.name])) == (0, one.read(text)), found.err
        assert one.required or one.name not in captured[-1].typed


@pytest.mark.parametrize(("command", "one"), named([case for case in ON_THE_LINE if case[1].name != "config"]))
def test_what_makes_no_sense_is_refused_with_one_sentence(captured: list[Given], command: str, one: Option) -> None:
    text = bad(one)
    sentence = f"error: {refusal(one, text)}\n"
    if one.reader is not SWITCH and not one.several and not (one.positional and one.reader is PATH):
        found = run(*line(command, one, text))
        assert (found.code, found.err) == (2, sentence)
    for variable in variables_of(command, one):
        if text and not one.several and one.reader is not SWITCH:  # an empty variable is none
            found = run(command, *needed(command, one), **{variable: text})
            assert (found.code, found.err) == (2, sentence)
    assert captured == []


@pytest.mark.parametrize("other", OTHER_NAMES)
def test_another_name_stands_for_an_option(captured: list[Given], other: str) -> None:
    for command, one in ON_THE_LINE:
        if one.name == OTHER_NAMES[other]:
            text = good(one)
            assert run(command, *needed(command, one), f"--{other}", text).code == 0
            assert captured[-1].values[one.name] == one.read(text)
            assert other not in run(command, "--help").out.replace(f"{other} ", "")


# --- files ------------------------------------------------------------------------------------------------------------


def table_of(command: str, one: Option) -> str | None:
    return next((table for table in (command, SHARED) if table in TABLES and one.key in keys_of(table)), None)


@pytest.mark.parametrize(("command", "one"), named([case for case in ALL if case[0] in CONFIGURED]))
def test_a_file_has_it_and_reads_it_alike(tmp_path: Path, command: str, one: Option) -> None:
    table = table_of(command, one)
    if one.name in NOT_IN_A_FILE and not (command == "run" and one.name == "output"):
        assert table != command
        assert table is None or one.name == "output"
        return
    assert table is not None
    path, text = tmp_path / FILE, good(one)
    extra = "" if table != SHARED or command != "sensitivity" else "[sensitivity]\neps = 0.25\n"
    path.write_text(f'[{table}]\n{one.key} = "{text}"\n{extra}')
    expected = one.read(text)
    place = one.reader.placed
    expected = tuple(place(entry, tmp_path) for entry in expected) if one.several else place(expected, tmp_path)
    found = read_configuration(path).options(command)
    if command != "convert" or one.name in found:
        assert found[one.name] == expected
    path.write_text(f'[{table}]\n{one.key} = "{bad(one)}"\n')
    with pytest.raises(OptionError) as caught:
        read_configuration(path)
    assert f"{table}.{one.key} is refused ({refusal(one, bad(one))})" in str(caught.value)
    described = schema()["properties"][table]["properties"][one.key]
    assert described.get("default") in (None, one.default)


def test_defaults_of_a_file_stand_where_nothing_is_typed(captured: list[Given], tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[defaults]\nlimit = 3\n[attack]\ndraws = 7\nobjective = "l1"\n')
    assert run("attack", "m.onnx", "-d", "d.npz", "-e", "0.1").code == 0
    assert {"limit": 3, "draws": 7, "objective": "l1"}.items() <= captured[-1].values.items()
    assert not {"limit", "draws", "objective"} & captured[-1].typed
    assert run("attack", "m.onnx", "-d", "d.npz", "-e", "0.1", "--draws", "8").code == 0
    assert captured[-1].values["draws"] == 8


# --- Python -----------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "certify": (api.certify, ArrayOptions),
    "attack": (api.attack, AttackedArrayOptions),
    "audit": (api.audit, Audit),
    "assert_robust": (assert_robust, ArrayOptions),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_python_has_it_with_the_same_default_and_reader(name: str) -> None:
    function, kind = FUNCTIONS[name]
    command = "attack" if name == "attack" else "certify"
    typed, here = options_of(asked_of(command)), options_of(kind)
    listed = inspect.signature(function).parameters
    for one in typed.values():
        left_out = one.name in NOT_IN_PYTHON or (name != "audit" and one.name not in OF_ARRAYS)
        assert (one.name in listed) != left_out or one.name in ("model", "data"), one.name
        if left_out:
            continue
        own = here[one.name]
        assert listed[one.name].default == (inspect.Parameter.empty if own.required else own.default)
        assert own.default == one.default or one.name == "eps"
        assert own.reader is one.reader or one.name in OTHER_READERS
        with pytest.raises(OptionError) as caught:
            function("m.onnx", "d.npz", "y", **{"eps": 0.1, one.name: bad(one)}) if name != "audit" else function(
                "m.onnx", "d.npz", **{"eps": 0.1, one.name: bad(one)}
            )
        assert str(caught.value) == refusal(own, bad(one))
    assert set(OF_ARRAYS) >= set(options_of(ArrayOptions))
    with pytest.raises(TypeError, match="unexpected keyword argument 'magic'"):
        function("m.onnx", "d.npz", "y", eps=0.1, magic=1) if name != "audit" else function("m", "d", magic=1)


# --- the tables are complete ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_of_a_command_keeps_its_default_beside_its_groups(command: str) -> None:
    kind: Any = asked_of(command)
    declared = [field.metadata["option"] for field in dataclasses.fields(kind) if "option" in field.metadata]
    found = [one.default for one in options_of(kind).values()]
    assert all(any(one.default is default for default in found) for one in declared)


def test_every_exception_is_one() -> None:
    names = {one.name for command, one in ALL if command in CONFIGURED}
    in_no_file = {one.name for command, one in ALL if command in CONFIGURED and not one.in_file}
    assert in_no_file == set(NOT_IN_A_FILE) <= names
    assert {one.name for _, one in ALL if not one.in_environment} == set(NOT_IN_THE_ENVIRONMENT)
    assert {one.name for _, one in ALL if not one.typed} == set(NOT_TYPED)
    assert set(NOT_IN_PYTHON) <= set(options_of(asked_of("certify"))) | set(options_of(asked_of("attack")))


def test_names_are_those_of_the_tables_that_do_the_work() -> None:
    assert tuple(ladder.METHODS) == common.METHODS
    assert {*attacks.ATTACKS, *ensemble.MEMBERS, "auto", "lp", "mip"} == set(common.ATTACKS)
    assert objectives.SEARCHES == common.SEARCHES
    assert state_bounds.METHODS == common.BOUNDS
    assert tuple(centre_radius.METHODS) == common.MATRICES
    assert tuple(local_sensitivity.STATE_BOUNDS) == common.STATE_BOUNDS
    assert set(COMPOSITIONS) == set(common.KINDS)
    assert SPECS in options_of(asked_of("sensitivity"))["groups"].help
    assert CertifyVerdicts().made() == ladder.Options()
    assert AttackVerdicts().made().attack == attacks.AttackOptions()


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("0", False), ("OFF", False), ("true", True)])
def test_switches_have_words(text: str, value: bool) -> None:
    assert SWITCH.parse(text, "--x") is value


def test_values_are_what_would_be_typed() -> None:
    index = options_of(asked_of("certify"))["index"]
    for value in ("0,1,2", [0, 1, 2], (0, 1, 2), range(3), np.arange(3), ["0-2"]):
        assert index.read(value) == (0, 1, 2)
    eps = options_of(asked_of("certify"))["eps"]
    assert eps.read(eps.read("0:2/255:3")) == eps.read("0:2/255:3")
    assert refusal(options_of(asked_of("sensitivity"))["eps"], eps.read("0:2/255:3"))
    for nothing in ({}, object(), [None], [{}]):
        assert "must be text, a number or a list" in refusal(eps, nothing)  # type: ignore[arg-type]
    whole = options_of(asked_of("certify"))["jobs"]
    assert [whole.read(value) for value in (3, "3", " 3 ")] == [3, 3, 3]
    for wrong in (3.0, True, "3.0", "\u0663", "9" * 30):
        assert "whole number" in refusal(whole, wrong), wrong  # type: ignore[arg-type]
    rules = options_of(asked_of("gate"))["require"]
    assert [rules.read(value) for value in (3, "a", ["a", 3], ())] == [("3",), ("a",), ("a", "3"), ()]
