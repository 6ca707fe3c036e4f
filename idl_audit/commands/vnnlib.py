"""The solver of VNN-LIB 2: one query about one or several networks, sat, unsat, unknown or timed-out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from idl_audit.commands.shared.answers import Answer, answered
from idl_audit.commands.shared.assertions import asked_query
from idl_audit.commands.shared.networks import open_networks
from idl_audit.data.vnnlib2.syntax import Specification
from idl_audit.decide.ladder import Options
from idl_audit.values.budget import Budget


def verify(query: Specification, files: Mapping[str, Path], options: Options, budget: Budget) -> Answer:
    """Decide one query.

    Raises:
        InvalidInputError: where the query, a file, or what they say of each other is refused.
        AgreementError: where the implicit model is not the networks.
    """
    return answered(asked_query(query, open_networks(query, files)), options, budget)
