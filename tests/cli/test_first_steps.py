"""The first hour: what a bare `idl-audit` says, examples that are taken, completion."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from command_line import ROOT, run

from idl_audit.cli.app import app
from idl_audit.cli.first_steps import EXAMPLES, SAMPLE, what_next

GROUP = typer.main.get_command(app)
COMMANDS = list(GROUP.commands)


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
