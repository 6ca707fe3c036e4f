"""What people bring, what they type, and what they are told."""

from __future__ import annotations

import pytest

from tests.shared.command_line import run
from tests.thirty_models import MODELS


def test_there_are_thirty() -> None:
    assert len(MODELS) > 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_what_people_bring_gets_verdicts_or_one_sentence(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    MODELS[name].make(tmp_path)
    for typed in MODELS[name].typed:
        found = run(*typed.line.split())
        printed = " ".join((found.out if typed.code == 0 else found.err).split())
        assert (found.code, typed.words in printed) == (typed.code, True), (typed.line, found.code, printed)
        if typed.code:
            assert not found.out
            assert printed.count("error: ") == 1
