"""Every diagnostic code is in one table, and every entry of the table is used somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import idl_audit
from idl_audit.cli.options import codes_from
from idl_audit.report.codes import CODES, WORDS
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.command_line import run

SOURCES = [path for path in Path(idl_audit.__file__).parent.rglob("*.py") if path.name != "codes.py"]


def test_the_table_holds_the_codes_that_are_used_and_no_others():
    used = {code for path in SOURCES for code in re.findall(r'"(IDL\d{3})"', path.read_text(encoding="utf-8"))}
    assert used == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_entry_says_what_it_means_and_what_to_do(code):
    entry = CODES[code]
    assert re.fullmatch(r"IDL[1-6]\d\d", code)
    assert entry.title == entry.title.strip().rstrip(".")
    for text in (entry.meaning, entry.advice):
        assert text.endswith(".")
        assert text[0].isupper()


def test_the_table_is_in_order():
    assert list(CODES) == sorted(CODES)


def test_every_word_of_a_verdict_is_explained():
    assert set(WORDS) == {*Verdict, *Reason}
    for word, entry in WORDS.items():
        found = run("explain", word.replace("_", "-").upper())
        assert found.code == 0
        assert entry.meaning in found.out
        assert entry.meaning.endswith(".")
        assert entry.advice.endswith(".")
    assert "clean_wrong" in run("explain").out


def test_the_shell_completes_codes_and_words():
    words = {"_IDL_AUDIT_COMPLETE": "complete_bash", "COMP_WORDS": "idl-audit explain IDL50", "COMP_CWORD": "2"}
    offered = run(**words).out.split()
    assert offered == [code for code in CODES if code.startswith("IDL50")]
    assert codes_from("time") == ["time_limit"]
    assert codes_from("idl101") == ["IDL101"]
    assert set(codes_from("")) == {*CODES, *WORDS}
