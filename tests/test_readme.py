"""The README and the pages of reference against the code: commands, operators, verdicts, exit codes, options."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
import typer

from idl_audit.cli.app import app
from idl_audit.cli.exits import MEANINGS, PARTICULAR, codes_of
from idl_audit.cli.vnnlib import run as solver
from idl_audit.implicit.last_operator import NAMED
from idl_audit.implicit.lowering import LOWERINGS
from idl_audit.implicit.lowering.sequences import SEQUENCES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS_PAGE, OPERATORS_PAGE, VERDICTS_PAGE, PYTHON_PAGE, CI_PAGE = (
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    for name in ("commands", "operators", "verdicts", "python", "ci")
)
CI = (ROOT / ".ci/run").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of the tables in `text`, without headings' rules."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in cells if not set("".join(row)) <= set("-: ")]


def table_after(heading: str, page: str = COMMANDS_PAGE) -> list[list[str]]:
    """Return the rows of a page below the heading row that starts with `heading`."""
    start = page.index(heading)
    return rows(page[start:].split("\n\n")[0])[1:]


def options_of(command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_ci_runs_the_readme_s_commands():
    blocks = re.findall(r"^```sh\n(.*?)\n```$", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    assert [line for line in CI.splitlines() if line.startswith("python3 ")] == blocks


def test_the_files_that_the_commands_name_exist():
    block = re.search(r"^```sh\n(.*?)\n```$", README, flags=re.DOTALL | re.MULTILINE)[1]
    names = re.search(r"for name in ([^;]+);", block)[1].split()
    for pattern in re.findall(r"sample_models/\$name\.\w+", block):
        for name in names:
            assert (ROOT / pattern.replace("$name", name)).is_file()
    assert (ROOT / "constraints.txt").is_file()


def test_the_operator_table_is_the_table_of_lowerings():
    text = OPERATORS_PAGE.split("<!-- operators")[1].split("<!-- end of operators -->")[0]
    cells = " ".join(row[1] for row in rows(text)[1:])
    named = re.findall(r"\b[A-Z][A-Za-z0-9]+\b", cells)
    assert set(named) == {*LOWERINGS, *SEQUENCES, *NAMED}
    assert len(named) == len(set(named))


def test_the_table_of_commands_is_complete():
    assert {row[0].strip("`") for row in table_after("| command |")} == set(COMMANDS)


def test_the_verdicts_are_those_of_the_reports():
    from idl_audit.report.schema import Verdict

    assert [row[0] for row in table_after("| verdict |", VERDICTS_PAGE)] == [verdict.value for verdict in Verdict]


def test_the_table_of_exit_codes_is_the_code_s():
    """Every code with its commands, then what it means of some where that is more than what it means of any."""
    assert table_after("| exit code |") == list(documented_codes())


def documented_codes():
    for code, text in MEANINGS.items():
        own = {}
        for name in sorted(PARTICULAR):
            if code in PARTICULAR[name]:
                own.setdefault(PARTICULAR[name][code], []).append(f"`{name}`")
        everybody = [name for name in COMMANDS if code in codes_of(name)] == [*COMMANDS]
        if everybody:
            yield [f"{code:d}", "all" if not own else "all others", text]
        yield from ([f"{code:d}", ", ".join(names), told] for told, names in own.items())


def test_only_commands_that_judge_end_with_1():
    judging = {"compress", "harden", "inspect", "run", "gate", "diff", "verify"}
    assert {name for name in COMMANDS if 1 in codes_of(name)} == judging


def test_every_option_in_the_readme_exists():
    known = set().union(*map(options_of, COMMANDS.values())) | {"--version", "--help", "--install-completion"}
    known |= {name for part in ([], ["verify"]) for name in re.findall(r"--[a-z-]+", solver([*part, "--help"]).out)}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert mentioned
    assert mentioned <= known


@pytest.mark.parametrize("name", ["attack", "sensitivity", "convert"])
def test_options_stand_beside_the_command_that_has_them(name):
    (text,) = (row[1] for row in table_after("| command |") if row[0] == f"`{name}`")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= options_of(COMMANDS[name])


def test_the_examples_from_python_hold(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```$", PYTHON_PAGE, flags=re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if block.startswith(">>> "))
    found = doctest.DocTestParser().get_doctest(code, {}, "python", "docs/python.md", 0)
    assert len(found.examples) == 12
    assert doctest.DocTestRunner().run(found).failed == 0


def test_the_example_for_a_test_suite_holds(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(from idl_audit.testing .*?)^```$", CI_PAGE, flags=re.DOTALL | re.MULTILINE)
    with np.load("sample_models/digits_mlp.npz") as data:
        given = {"x": data["inputs"][:10], "y": data["labels"][:10]}
    exec(code.replace("model.onnx", "sample_models/digits_mlp.onnx"), given)
    given["y"] = (given["y"] + 1) % 10
    with pytest.raises(AssertionError, match="certified"):
        exec(code.replace("model.onnx", "sample_models/digits_mlp.onnx"), given)


def test_the_readme_is_short_and_has_one_picture():
    assert len(README.splitlines()) <= 250
    assert re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README) == ["docs/images/robustness.png"]


def test_the_readme_names_commands_that_exist():
    rows_ = table_after("| you want |", README)
    named = {name for row in rows_ for name in re.findall(r"`([a-z][\w-]*)", row[1])}
    assert named - {"idl-audit-vnnlib"} <= set(COMMANDS)
    assert {"certify", "attack", "verify", "gate"} <= named
