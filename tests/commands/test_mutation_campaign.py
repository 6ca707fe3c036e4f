"""Changed proof files, reports, journals, configurations, files of numbers: none says what is false, none ends badly.

`benchmarks.mutation_campaign` runs many more of them.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.mutation_campaign import KINDS, SHARES, tried
from idl_audit.proof.files.door import Name
from idl_audit.proof.files.file import KINDS as FILES
from idl_audit.proof.format_1.arrays import RULES
from tests.shared import mutated_proofs, proof_mutations, proof_sources

QUICK = {"proofs": 150, "reports": 60, "journals": 25, "configurations": 60, "radii, groups, objectives": 30}


def rule_of(name: str) -> str:
    parts = name.split(".")
    if parts[0].isdigit():  # of a property's box
        parts = parts[1:]
    return ".".join("#" if part.isdigit() else part for part in parts)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return list(proof_sources.sources(tmp_path_factory.mktemp("sources")))


def test_there_is_a_source_for_every_array_of_the_tables(sources):
    today, before = ([s for s in sources if (s.meta["schema_version"] == "2.0") == new] for new in (True, False))
    assert {rule_of(name) for source in before for name in source.arrays} == set(RULES)
    found = {Name.of(name).pattern for source in today for name in source.arrays}
    tables = {name for kind in FILES.values() for name in kind.table} - NEVER_WRITTEN
    assert found == {name for name in tables if not ELSEWHERE.fullmatch(name)}
    assert {source.meta["claim"]["kind"] for source in today} == set(FILES) - OF_TWO_FILES - set(KINDS_ELSEWHERE)


NEVER_WRITTEN = {f"part.*.stage.*.lemma.*.duals.*.{name}" for name in ("leaves", "values")}
"""Linear programs prove alternatives alone."""
KINDS_ELSEWHERE = {
    "query": "tests/commands/test_query_proofs.py",
    "monotone": "tests/commands/test_certify_monotone.py",
    "perturbed": "tests/commands/test_perturbed.py",
    "rows": "tests/commands/test_row_certificates.py",
    **dict.fromkeys(("limits", "top", "pixels"), "tests/commands/test_demands.py"),
    **dict.fromkeys(("stays", "never", "rising"), "tests/commands/test_whole_ranges.py"),
}
"""Kind of claim -> where forged files of it are offered."""
ELSEWHERE = re.compile(
    r"directions|high|low|tree\..*|group\.\*\.parts|limit\..*|pixel\..*"  # of these claims
    r"|part\.\*\.exact\..*"  # tests/decide/test_forged_files.py, tests/proof/test_refutation.py
    r"|(part\.\*\.)?loop\.\*\.(norm|weights)|monotone\.weights|norms\..*"  # tests/decide/test_forged_files.py
    r"|range\..*|angles"  # tests/commands/test_whole_ranges.py, tests/commands/test_rotated.py
)
"""Arrays of claims and proofs of which forged files are tried in tests of their own."""
OF_TWO_FILES = {"agreement", "difference"}
"""Claims about two networks; what becomes of forged ones, `tests/commands/test_compare.py` asks."""
NEVER_WRITTEN |= {"limits"}
"""Only such claims have limits."""
NEVER_WRITTEN |= {"part.*.alternative.*.strict"}
"""No row of a VNN-LIB 1 property is strict; what becomes of those that are, `tests/values/test_strict_rows.py` asks."""


def test_the_judge_finds_the_claims_true_and_larger_ones_false(sources):
    rng, found = np.random.default_rng(0), 0
    for source in sources:
        assert source.false_claim(source.arrays, source.meta) == "", source.name
        for _ in range(12):
            mutant = mutated_proofs.mutant_of(source, rng)
            if proof_mutations.claim_more(mutant) is not None:
                with np.errstate(all="ignore"):
                    found += bool(source.false_claim(mutant.arrays, mutant.meta))
    assert found > 100


def test_every_kind_has_its_share():
    assert set(SHARES) == set(KINDS) == set(QUICK)
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_makes_a_reader_say_what_is_false(tmp_path, kind):
    found = tried(kind, QUICK[kind], 1, tmp_path / "cases")
    assert found.problems == []
    assert {code for _, code in found.codes} >= {0, 2}


OF_ONE_SOURCE = {"drop_lp_leaf", "flip_lp_phase"}
"""Changes of one file in 34, which few cases meet; `test_leaves_of_programs_can_be_changed` has them."""


@pytest.mark.parametrize("name", sorted(OF_ONE_SOURCE))
def test_leaves_of_programs_can_be_changed(sources, name):
    (source,) = (one for one in sources if one.name == "programs")
    mutant = mutated_proofs.mutant_of(source, np.random.default_rng(0))
    assert getattr(proof_mutations, name)(mutant) == proof_mutations.STRICT
    assert any(not np.array_equal(mutant.arrays[key], source.arrays[key]) for key in mutant.arrays)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_change_of_many_makes_a_reader_say_what_is_false(tmp_path, kind):
    found = tried(kind, round(900 * SHARES[kind]), 2, tmp_path / "cases")
    assert found.problems == []
    mutations = {name for name, _ in found.names if " and " not in name}
    if kind == "proofs":
        assert mutations >= {mutation.__name__ for mutation in proof_mutations.MUTATIONS} - OF_ONE_SOURCE
