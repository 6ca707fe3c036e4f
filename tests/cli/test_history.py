"""The history of reports: what moved from commit to commit, and files that are damaged, foreign or in use."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from idl_audit.gate.history import APPLICATION, VERSION, add, points, question_of, read
from idl_audit.report.history import Point, change
from idl_audit.values.errors import DataError, OptionError
from tests.shared.command_line import HOSTILE, run
from tests.shared.gate_reports import audited, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path / "first.json", audited("cccccccfuw"))
    written(tmp_path / "second.json", audited("ccccccfffw"))
    return tmp_path


def keep(folder: Path, name: str, commit: str, *more: object):
    return run("history", "add", folder / name, "--commit", commit, "--database", folder / "h.sqlite", *more)


def show(folder: Path, *more: object):
    return run("history", "show", "--database", folder / "h.sqlite", *more)


def test_figures_of_two_commits_stand_below_one_another_with_what_changed(folder: Path) -> None:
    assert keep(folder, "first.json", "aaa").code == 0
    assert keep(folder, "second.json", "bbb").code == 0
    found = show(folder)
    assert found.code == 0
    lines = [line.split() for line in found.out.splitlines()]
    (before,), (after,) = ([line for line in lines if line[:1] == [name]] for name in ("aaa", "bbb"))
    assert "70.0" in before
    assert "60.0" in after
    assert "(-10.0)" in after
    wide = show(folder, "-v")
    assert re.search(r"unknown@2/255 +10.0 % +0 % \(-10.0\)", wide.out)
    told = json.loads(show(folder, "-f", "json").out)
    assert [entry["commit"] for entry in told[0]["entries"]] == ["aaa", "bbb"]
    assert {"name": "certified_accuracy@2/255", "k": 6, "n": 10, "number": None} in told[0]["entries"][1]["points"]


def test_the_same_report_is_kept_once_and_another_of_the_commit_needs_force(folder: Path) -> None:
    assert "is kept in" in keep(folder, "first.json", "aaa").out
    assert "is kept already" in keep(folder, "first.json", "aaa").out
    refused = keep(folder, "second.json", "aaa")
    assert (refused.code, "--force puts this one in its place" in refused.err) == (2, True)
    assert keep(folder, "second.json", "aaa", "--force").code == 0
    (series,) = read(folder / "h.sqlite")
    assert [entry.point("certified_accuracy@2/255").k for entry in series.entries] == [6]


def test_other_samples_are_another_series_and_other_radii_of_a_commit_are_not(folder: Path) -> None:
    database = folder / "h.sqlite"
    add(database, audited("cccc"), "aaa")
    add(database, audited({"1/255": "cccc"}), "aaa")
    add(database, audited("ccccc"), "aaa")
    assert question_of(audited("cccc")) == question_of(audited({"1/255": "fccu"})) != question_of(audited("ccccc"))
    found = read(database)
    assert [len(one.entries) for one in found] == [1, 1]
    names = found[1].names
    assert [name for name in names if name.startswith("certified")] == [
        "certified_accuracy@1/255",
        "certified_accuracy@2/255",
    ]


def test_every_figure_is_what_rules_measure() -> None:
    found = {point.name: (point.k, point.n, point.number) for point in points(audited("cccccccfuw"))}
    assert found["certified_accuracy@2/255"] == (7, 10, None)
    assert found["attack_success@2/255"] == (1, 9, None)
    assert found["norm_inf_S"][2] == 12.5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([Point("a", 7, 10)], "70.0 %"),
        ([Point("a", 7, 10), Point("a", 6, 10)], "60.0 % (-10.0)"),
        ([Point("a", 7, 10), None, Point("a", 7, 10)], "70.0 %"),
        ([Point("s", number=2.0), Point("s", number=2.5)], "2.5 (+0.5)"),
        ([None], "-"),
    ],
)
def test_a_change_is_told_beside_the_figure(given: list[Point | None], told: str) -> None:
    assert change(given) == told


@pytest.mark.parametrize("name", ["h.html", "h.png"])
def test_a_page_or_picture_is_written_and_not_over_another(folder: Path, name: str) -> None:
    keep(folder, "first.json", "aaa")
    keep(folder, "second.json", HOSTILE.replace(" ", "_")[:1] + "bb")
    plot = ("history", "plot", "--database", folder / "h.sqlite", "-o", folder / name)
    assert run(*plot).code == 0
    content = (folder / name).read_bytes()
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<!doctype html>")
    assert run(*plot).code == 2
    assert run(*plot, "--force").code == 0
    if name.endswith("html"):
        text = content.decode()
        assert "60.0 % (-10.0)" in text
        assert "<script" not in text
        assert re.search(r"default-src &#39;none&#39;|default-src 'none'", text)


def test_commits_are_names(folder: Path) -> None:
    for commit in ("", "a b", "x" * 101, "a\x1b[31m"):
        assert keep(folder, "first.json", commit).code == 2
    assert not (folder / "h.sqlite").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add",), "give the reports"),
        (("add", "first.json"), "--commit HASH"),
        (("show", "first.json"), "takes no reports"),
        (("show",), "no such history"),
        (("plot",), "-o history.html"),
        (("plot", "-o", "h.gif"), "-o history.html"),
        (("draw",), "must be one of add, show, plot"),
    ],
)
def test_wrong_words_are_told_in_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    found = run("history", *words)
    assert (found.code, message in found.err, found.err.count("\n")) == (2, True, 1)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged, "damaged"),
        (of_another_version, f"of version {VERSION + 1}, and this idl-audit reads version {VERSION}"),
        (of_another_program, "of another program"),
        (lambda path: path.write_text("no database"), "no SQLite file"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "damaged|another program|cannot be used"),
    ],
)
def test_files_that_are_not_ours_are_refused_by_all(folder: Path, spoil, message: str) -> None:
    keep(folder, "first.json", "aaa")
    spoil(folder / "h.sqlite")
    before = (folder / "h.sqlite").read_bytes()
    for found in (show(folder), keep(folder, "second.json", "bbb")):
        assert found.code == 2, found
        assert re.search(message, found.err)
        assert found.err.count("\n") == 1
    assert (folder / "h.sqlite").read_bytes() == before


def test_a_database_of_another_program_is_never_written_to(folder: Path) -> None:
    with sqlite3.connect(folder / "h.sqlite") as connection:
        connection.execute("CREATE TABLE notes (text)")
    with pytest.raises(DataError, match="another program"):
        add(folder / "h.sqlite", audited("c"), "aaa")


def test_who_writes_for_too_long_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(folder, "first.json", "aaa")
    monkeypatch.setattr("idl_audit.gate.history.PATIENCE", 0.01)
    other = sqlite3.connect(folder / "h.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DataError, match="being written by another process"):
        add(folder / "h.sqlite", audited("c"), "bbb")
    other.close()
    add(folder / "h.sqlite", audited("c"), "bbb")


def test_a_report_that_cannot_be_read_leaves_nothing_half_written(folder: Path) -> None:
    (folder / "bad.json").write_text("{")
    database = folder / "h.sqlite"
    found = run("history", "add", folder / "first.json", folder / "bad.json", "--commit", "a", "--database", database)
    assert (found.code, database.exists()) == (2, False)
    with pytest.raises(OptionError):
        add(database, audited("c"), "a b")
    assert not database.exists()


PROGRAM = """
import sys
from pathlib import Path
from idl_audit.gate.history import add
from tests.shared.gate_reports import audited
for k in range(10):
    add(Path(sys.argv[1]), audited("c"), f"{sys.argv[2]}-{k}")
"""


@pytest.mark.slow
def test_two_at_once_lose_nothing(folder: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    asked = [[sys.executable, "-c", PROGRAM, str(folder / "h.sqlite"), name] for name in ("one", "two")]
    running = [subprocess.Popen(one, cwd=root) for one in asked]
    assert [one.wait(300) for one in running] == [0, 0]
    (series,) = read(folder / "h.sqlite")
    assert len({entry.commit for entry in series.entries}) == 20


def test_files_of_ours_say_so(folder: Path) -> None:
    keep(folder, "first.json", "aaa")
    with sqlite3.connect(folder / "h.sqlite") as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
