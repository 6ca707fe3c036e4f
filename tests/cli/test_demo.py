"""demo: one command from the package alone to a verdict and a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from idl_audit.commands import demo
from tests.shared.command_line import ROOT, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_package_holds_the_sample_network_as_it_is() -> None:
    own = ROOT / "idl_audit/commands/demo_files"
    assert {file.name for file in own.iterdir()} == set(demo.FILES)
    for name in demo.FILES:
        assert (own / name).read_bytes() == (ROOT / "sample_models" / name).read_bytes(), name


def test_one_command_gives_verdicts_of_every_kind_proofs_and_a_page(folder: Path) -> None:
    found = run("demo", COLUMNS="80")
    assert found.code == 0
    made = folder / "idl-audit-demo"
    names = {file.name for file in made.iterdir()}
    assert names == {*demo.FILES, "report.json", "report.html", "proofs", "adversarial.npz"}
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "data:image/png" in page  # pictures of what attacks found
    assert found.out.startswith("From eps 0.02 to 0.1: certified samples go from 19 to ")
    assert "1 misclassified to begin" in found.out


def test_what_it_says_to_try_next_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("demo", "here").out.splitlines()
    lines = [line.strip() for line in said[said.index("Try next:") + 1 :]]
    assert lines[0] == "cd here"
    monkeypatch.chdir(folder / "here")
    for line in lines[1:]:
        for one in line.split(" && "):
            program, *words = one.split()
            assert program == "idl-audit"
            assert run(*words).code == 0, one


def test_a_folder_with_files_is_left_alone(folder: Path) -> None:
    (folder / "idl-audit-demo").mkdir()
    (folder / "idl-audit-demo/mine.txt").write_text("mine", encoding="utf-8")
    found = run("demo")
    assert (found.code, "--force" in found.err) == (2, True)
    assert [file.name for file in (folder / "idl-audit-demo").iterdir()] == ["mine.txt"]
