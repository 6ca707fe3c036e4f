"""Changed proofs against two checkers: few of them here, and whether the judge of claims knows what is true.

`python -m benchmarks.forged_proofs` runs 100,000 for each checker (reports/mutations.md).
"""

from __future__ import annotations

import copy
import json

import pytest

from benchmarks import forged_proofs
from benchmarks.forged_proofs import CHECKERS, Subjects, Tally, tried
from tests.shared import small_proofs
from tests.shared.decided_claims import InFractions


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    sources = list(small_proofs.sources(tmp_path_factory.mktemp("sources"), [0]))
    return Subjects(sources, [InFractions(s.model, s.meta["arithmetic"] != "real") for s in sources])


LOOSER = {"boxes together"}
"""Kinds that the independent checker may refuse: it has no affine forms."""


def test_there_is_a_proof_of_every_kind_and_both_checkers_accept_it(subjects):
    names = {name for source in subjects.sources for name in source.arrays}
    wanted = (".lemma.", ".kept.", ".planes.", ".slopes.", ".multipliers.", ".duals.", ".own.", ".delta.")
    assert all(any(kind in name for name in names) for kind in wanted)
    splits = [a for s in subjects.sources for name, a in s.arrays.items() if name.endswith("variable")]
    assert any(((a >= 0) & (a < 2)).any() and (a >= 2).any() for a in splits)
    refused = set()
    for source, decide in zip(subjects.sources, subjects.decide, strict=True):
        assert decide(source.arrays, source.meta), source.name
        accepted = {name: accepts(source, source.arrays, json.dumps(source.meta)) for name, accepts in CHECKERS.items()}
        assert accepted.pop("product"), source.name
        refused |= {source.name for one in accepted.values() if not one}
    assert refused <= LOOSER


def test_the_judge_knows_that_larger_claims_are_false(subjects):
    false = 0
    for source, decide in zip(subjects.sources, subjects.decide, strict=True):
        arrays, meta = dict(source.arrays), copy.deepcopy(source.meta)
        if meta["claim"]["kind"] == "sample":
            meta["claim"]["eps"] *= 10
        else:
            arrays |= {name: a * 20 for name, a in arrays.items() if name.endswith((".lo", ".hi"))}
        if not decide(arrays, meta):  # the class of some networks is the same nearly everywhere
            false += 1
            assert not any(accepts(source, arrays, json.dumps(meta)) for accepts in CHECKERS.values()), source.name
    assert false > len(subjects.sources) / 2


@pytest.mark.parametrize("name", CHECKERS)
def test_no_change_of_a_hundred_makes_a_false_claim_accepted(subjects, tmp_path, name):
    tally = Tally()
    assert tried(name, subjects, tally, 100, 0, tmp_path / "state.json") == []
    assert tally.count == tally.total("refused") + tally.total("same claim") + tally.total("another true claim") == 100
    assert 5 < tally.total("refused") < 100


def test_a_false_claim_that_is_accepted_is_kept_and_told(subjects, tmp_path, monkeypatch):
    monkeypatch.setitem(CHECKERS, "product", lambda source, arrays, text: True)
    doubting = Subjects(subjects.sources, [lambda arrays, meta: False] * len(subjects.sources))
    problems = tried("product", doubting, Tally(), 3, 0, tmp_path / "state.json")
    assert len(problems) == len(list(tmp_path.glob("false-*.pickle"))) == 3


def test_the_table_counts_what_the_state_file_says():
    tally = Tally(3, 1.0)
    tally.fields.update({"cut|refused": 2, "cut|same claim": 1})
    tally.changes.update({"nudge|refused": 2, "nudge|same claim": 1})
    text = forged_proofs.table({"about": "By hand.\n", "product": tally.told()})
    assert "| product | 3 | 2 | 1 | 0 | 0 | 1 |" in text
    assert "| cut | 2 | 1 | 0 |" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKERS)
def test_no_change_of_many_makes_a_false_claim_accepted(tmp_path, name):
    subjects = Subjects.drawn(tmp_path)[name]
    assert tried(name, subjects, Tally(), 500, 1, tmp_path / "state.json") == []
    assert len({source.name for source in subjects.sources}) > len(small_proofs.KINDS)


def test_arrays_are_told_by_their_kind():
    found = [forged_proofs.pattern(name) for name in ("part.0.goals.1.slopes.0.values", "part.0.stage.1.lemma.0.roots")]
    assert found == ["slopes.values", "roots"]
