"""Proof files of VNN-LIB 2 queries: what is written of an `unsat`, and how it is checked again from the query's text.

The file names the query and its networks by their hashes and has one proof for each box in which something is left to
refute. Whoever checks it makes the model of all networks, the boxes and the rows anew (`posed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idl_audit.commands.shared.assertions import AskedQuery, asked_query
from idl_audit.commands.shared.networks import OpenNetwork, open_networks
from idl_audit.commands.shared.posed import Posed
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.graph.files import combined_sha256, read_with_sha256
from idl_audit.proof.exact.refutation import ExactQuery
from idl_audit.proof.files.claims import About, QueryClaim
from idl_audit.proof.files.file import ARITHMETICS, ProofFile, read_proof, read_without_proofs
from idl_audit.proof.files.strict_json import Misfit
from idl_audit.proof.float_margins import Unbounded
from idl_audit.proof.sensitivity_witness import Checked
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError
from idl_audit.values.npz import NpzFile
from idl_audit.values.query import Query, plain
from idl_audit.values.verdicts import ArithmeticName


def about_query(asked: AskedQuery) -> About:
    """Return what a proof file says of the networks of a query, all together."""
    sha256 = [sha256 for _, sha256 in named_networks(asked.networks)]
    return About(combined_sha256(sha256[0], sha256[1:]), arithmetic=arithmetic_of(asked))


def named_networks(networks: Sequence[OpenNetwork]) -> tuple[tuple[str, str], ...]:
    """Return name and sha256 of the networks that have files of their own, in the order of the query."""
    own = [network for network in networks if network.declared.relation != "equal-to"]
    return tuple((network.declared.name, network.graph.provenance.sha256) for network in own)


def arithmetic_of(asked: AskedQuery) -> ArithmeticName:
    """Return what `unsat` says of a query: of real numbers, or of what is computed in the types that it declares."""
    if asked.is_real:
        return "real"
    return "float32" if asked.graph is None else ARITHMETICS[asked.graph.arithmetic]


@dataclass(frozen=True, eq=False)
class CheckedQuery:
    """What came of the proof of a query."""

    checked: Checked
    asked: AskedQuery
    sha256: str
    """Of the query's text."""
    found: ProofFile | None
    """What the file says; None where it does not fit the query."""
    parts: tuple[Query, ...] = ()
    """What was left to refute."""


def check_query(archive: NpzFile, meta: Mapping[str, Any], query: Path, files: Mapping[str, Path]) -> CheckedQuery:
    """Check a proof file against a query and the networks' files.

    Raises:
        InvalidInputError: where the query or a network cannot be read, or they do not fit each other.
        Damaged: where the file contradicts itself.
    """
    specification, sha256 = read_with_sha256(query, read_specification)
    asked = asked_query(specification, open_networks(specification, files))
    unread = CheckedQuery(Checked(1, ()), asked, sha256, None)
    try:
        posed = Posed(asked, asked.model()) if asked.graph is not None else None
        found = read_without_proofs(archive, meta) if posed is None else read_proof(archive, meta, posed.model)
    except (UnsupportedModelError, MemoryLimitError) as error:
        return replace(unread, checked=Checked(1, (f"the query's networks make no model: {error}",)))
    except Misfit as error:
        return replace(unread, checked=Checked(1, (str(error),)))
    assert isinstance(found.claim, QueryClaim)
    refused = [*_other_files(found, asked, sha256)]
    if posed is None:
        refused += ["a box of the query has points that satisfy it"] if any(b.is_whole for b in asked.boxes) else []
        return replace(unread, checked=Checked(1, tuple(refused)), found=found)
    if refused:
        return replace(unread, checked=Checked(1, tuple(refused)), found=found)
    return _checked(unread, found, posed)


def _checked(unread: CheckedQuery, found: ProofFile, posed: Posed) -> CheckedQuery:
    parts, refused = [], []
    for number, (box, query) in enumerate(posed.parts):
        parts.append(query)
        if box.is_whole:
            refused.append(f"box {number}: it has points that satisfy the query")
        elif not posed.says_all(box, query):
            refused.append(f"box {number}: real inputs have no bound, and what is proved within some is not all")
    if isinstance(posed.arithmetic, Unbounded):
        refused.append(posed.arithmetic.told)
    assert isinstance(found.claim, QueryClaim)
    known = replace(found, claim=replace(found.claim, asked=tuple(map(plain, parts))))
    count = max(1, sum(len(query.alternatives) for query in parts))
    done = replace(unread, found=known, parts=tuple(parts))
    if refused:
        return replace(done, checked=Checked(count, tuple(refused)))
    exact = () if posed.exact is None else tuple(ExactQuery(query, posed.exact) for query in parts)
    try:
        checked = known.checked(posed.model, posed.arithmetic, exact)
    except (ValueError, ArithmeticError, IndexError, KeyError) as error:  # a matrix that cannot be inverted
        checked = Checked(count, (f"its arrays prove nothing ({type(error).__name__}: {error})",))
    return replace(done, checked=Checked(count, checked.refused))


def _other_files(found: ProofFile, asked: AskedQuery, sha256: str) -> list[str]:
    """Return why a file is about another query, other networks, or another arithmetic."""
    claim, wanted = found.claim, named_networks(asked.networks)
    assert isinstance(claim, QueryClaim)
    why = []
    if claim.sha256 != sha256:
        why.append(f"it was made for another query (sha256 {claim.sha256[:12]})")
    if claim.networks != wanted:
        own, theirs = dict(wanted), dict(claim.networks)
        differs = [name for name in own if theirs.get(name) != own[name]]
        which = ", ".join(differs) or "names that the query does not have"
        why.append(f"it was made for another file of a network: {which}")
    if found.about != about_query(asked):
        why.append("what it says of the model is not what the query and its networks make")
    return why
