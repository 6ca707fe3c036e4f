"""Every command that reads samples tells at once, and in its report, how the samples should perhaps be read."""

from __future__ import annotations

import re

import numpy as np
import pytest

from idl_audit.report.codes import CODES, WORDS
from tests.shared.command_line import DATA, MODEL, run

COMMANDS = {
    "certify": f"certify {MODEL} -d wrong.npz -e 0.01 --method interval",
    "attack": f"attack {MODEL} -d wrong.npz -e 0.01 --method sign",
    "sensitivity": f"sensitivity {MODEL} -d wrong.npz -e 0.01 --method paper",
    "convert": f"convert {MODEL} -o out/x.npz -d wrong.npz",
}


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """Thirty samples whose labels count from 1; the last class is left out."""
    with np.load(DATA) as archive:
        kept = np.flatnonzero(archive["labels"] < 9)[:30]
        np.savez(tmp_path / "wrong.npz", inputs=archive["inputs"][kept], labels=archive["labels"][kept] + 1)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_poor_accuracy_is_told_at_once_and_in_the_report(wrong, name):
    found = run(*COMMANDS[name].split(), "-f", "json")
    assert found.code == 0
    (told,) = (entry for entry in found.report.diagnostics if entry.code == "IDL101")
    right, better = re.fullmatch(r".* only (\d+) of 30 samples", told.message)[1], told.hint
    assert re.fullmatch(rf"labels that count from 0 .* from {right} to (2\d|30) of 30; nothing was changed", better)
    (line,) = found.err.splitlines()
    assert line == f"warning: {told.message} ({told.hint}) [IDL101]"


def test_quiet_tells_it_in_the_report_alone(wrong):
    found = run(*COMMANDS["certify"].split(), "-q", "-f", "json")
    assert found.err == ""
    assert "IDL101" in [entry.code for entry in found.report.diagnostics]


def test_bounds_needs_no_labels_and_is_checked_too(wrong):
    with np.load(DATA) as archive:
        np.save("twice.npy", np.repeat(archive["inputs"][:1], 2, axis=0))
    found = run("bounds", MODEL, "-d", "twice.npy", "-e", "0.01", "-f", "json")
    assert [entry.code for entry in found.report.diagnostics if entry.code < "IDL200"] == ["IDL105"]
    assert "1 of 2 samples repeat" in found.err


def test_an_error_names_its_code(wrong):
    np.savez("one_hot.npz", inputs=np.zeros((10, 64)), labels=np.eye(10))
    found = run("certify", MODEL, "-d", "one_hot.npz", "-e", "0.01")
    assert (found.code, found.err.rstrip()[-8:]) == (2, "[IDL111]")


@pytest.mark.parametrize("code", ["IDL111", "idl111"])
def test_explain_says_what_a_code_means(code):
    found = run("explain", code)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("IDL111: one-hot labels\n")
    assert CODES["IDL111"].advice in found.out


def test_explain_lists_all_codes():
    assert [line.split()[0] for line in run("explain").out.splitlines()] == [*CODES, *WORDS]


def test_explain_refuses_other_codes():
    found = run("explain", "IDL999")
    assert (found.code, found.out) == (2, "")
    assert "idl-audit explain" in found.err
