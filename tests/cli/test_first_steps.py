"""The first hour: what a bare `idl-audit` says, examples that are taken, completion."""

from __future__ import annotations

import re
import shlex

import pytest
import typer

from idl_audit.cli.app import app
from idl_audit.cli.first_steps import EXAMPLES, SAMPLE, what_next
from tests.shared.command_line import ROOT, run

GROUP = typer.main.get_command(app)
COMMANDS = list(GROUP.commands)
OF_A_FILE = (
    "compose",
    "compress",
    "convert",
    "convert-property",
    "demo",
    "harden",
    "init",
    "reduce",
    "report",
    "train",
)


def test_a_bare_call_says_what_to_do_next_with_a_command_that_works(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = run()
    assert (found.code, found.err) == (0, "")
    line = next(line for line in found.out.splitlines() if SAMPLE in line)
    program, *arguments = shlex.split(line)
    assert program == "idl-audit"
    tried = run(*arguments)
    assert tried.code == 0
    assert re.match(r"At eps 0\.02: \d+ of 20 samples are certified", tried.out)


def test_a_bare_call_elsewhere_names_no_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SAMPLE not in what_next()
    assert "idl-audit certify model.onnx" in what_next()
    assert max(map(len, what_next().splitlines())) <= 120


def test_every_command_has_examples():
    assert set(COMMANDS) <= set(EXAMPLES)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_examples(name):
    out = " ".join(run(name, "--help", COLUMNS="160").out.split())
    for line in EXAMPLES[name]:
        assert " ".join(line.split()) in out


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in COMMANDS for line in EXAMPLES[name]])
def test_examples_are_taken(name, line):
    program, command, *arguments = shlex.split(line.partition(" > ")[0])
    assert (program, command) == ("idl-audit", name)
    GROUP.get_command(None, name).make_context(name, arguments)  # raises where an option is unknown or lacks its value
    for part in arguments:
        if part.startswith("sample_models/"):
            assert (ROOT / part).is_file()


@pytest.mark.parametrize(
    ("words", "expected"), [("idl-audit cert", {"certify"}), ("idl-audit certify --lim", {"--limit"})]
)
def test_the_shell_completes_commands_and_options(words, expected):
    count = str(len(words.split()) - 1)
    found = run(_IDL_AUDIT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count)
    assert (found.code, set(found.out.split())) == (0, expected)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(shell):
    found = run(_IDL_AUDIT_COMPLETE=f"source_{shell}")
    assert found.code == 0
    assert "_IDL_AUDIT_COMPLETE" in found.out


def test_an_option_has_one_short_name_and_one_panel_in_all_commands():
    """Some commands are about the file that they write: there -f, -o and --report stand among the first."""
    found = {}
    for name in COMMANDS:
        for option in GROUP.commands[name].params:
            for long in (text for text in option.opts if text.startswith("--")):
                own = name in OF_A_FILE and long in ("--format", "--output", "--report")
                short = tuple(text for text in option.opts if not text.startswith("--"))
                found.setdefault(long, set()).add((short, None if own else option.rich_help_panel, own))
    assert {"--jobs", "--resume", "--quiet", "--time-limit"} < found.keys()
    for long, seen in found.items():
        assert len({short for short, _, _ in seen}) == 1, long
        assert len({panel for _, panel, own in seen if not own}) <= 1, long


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_are_capitals_and_sentences_flow(name):
    command = GROUP.commands[name]
    assert all("\n" not in paragraph for paragraph in command.help.split("\n\n"))
    names = [option.metavar for option in command.params if option.param_type_name == "argument"]
    assert all(text.isupper() for text in names)


def test_a_model_that_is_implicit_already_is_compared_with_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = run("convert", "sample_models/digits_mondeq.npz", "-o", tmp_path / "c.npz", COLUMNS="200")
    assert found.code == 0
    assert "there is no other network to compare it with" in found.out.splitlines()[0]
