"""Proofs of `unsat` answers to VNN-LIB 2 queries: made and checked."""

from __future__ import annotations

from pathlib import Path

from idl_audit.commands.shared.answers import Answer
from idl_audit.commands.shared.assertions import AskedQuery
from idl_audit.commands.shared.query_proofs import about_query, named_networks
from idl_audit.decide.proofs import proof_of
from idl_audit.proof.files.claims import QueryClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.values.budget import Budget


def proof_of_answer(asked: AskedQuery, sha256: str, answer: Answer, budget: Budget) -> ProofFile | None:
    """Return the proof of a query that is unsat, checked; None where what the budget allows proves nothing.

    Args:
        asked: the query.
        sha256: of its text.
        answer: unsat, with what was recorded.
        budget: what it may cost beyond the check of that.
    """
    proofs = []
    for box, query in () if answer.posed is None else answer.posed.parts:
        posed, recorded = answer.posed, answer.recorded.get(box)
        assert posed is not None
        proof = proof_of(
            posed.model,
            asked.replay,
            query,
            recorded,
            budget=budget,
            arithmetic=posed.arithmetic,
            exact=posed.exact,
        )
        if proof is None:
            return None
        proofs.append(proof)
    claim = QueryClaim(Path(asked.specification.source).name, sha256, named_networks(asked.networks))
    return ProofFile(about_query(asked), claim, tuple(proofs))
