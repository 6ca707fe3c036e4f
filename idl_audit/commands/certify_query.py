"""certify and the rows of bench with a VNN-LIB 2 query of one network; of several, the solver command decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from idl_audit.commands.options.reading import SearchedModel
from idl_audit.commands.options.robustness import PropertyOptions
from idl_audit.commands.shared.answers import Answer, Word, answered
from idl_audit.commands.shared.assertions import AskedQuery, asked_query
from idl_audit.commands.shared.bench_resume import row_sha256
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.networks import OpenNetwork, open_networks
from idl_audit.commands.shared.proof_files import write_certificate
from idl_audit.commands.shared.query_certificates import proof_of_answer
from idl_audit.commands.shared.subject import describe_model
from idl_audit.commands.shared.told_values import in_decimals, told_assignment
from idl_audit.commands.vnnlib import TOO_LARGE, assignment_lines
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.decide.ladder import Options
from idl_audit.graph.files import read_with_sha256, refuse_changed
from idl_audit.report.schema import Diagnostic, ModelInfo, PropertyReport, PropertyResult, Report
from idl_audit.search import device
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, DataError, TooManyDigitsError

RESULTS: Final[Mapping[Word, PropertyResult]] = MappingProxyType(
    {"sat": "sat", "unsat": "unsat", "unknown": "unknown", "timed-out": "timeout"}
)
"""The standard's word -> the report's."""


@dataclass(frozen=True, eq=False)
class QueryOfOne:
    """A query of one network with what a report says of both."""

    asked: AskedQuery | None
    """None where nothing can be said of it."""
    networks: tuple[OpenNetwork, ...]
    info: ModelInfo
    sha256: str
    """Of the model and the query together."""
    query_sha256: str
    why: str = ""
    """Why nothing can be said."""

    def decided(self, options: Options, budget: Budget) -> Answer:
        """Decide it, and see that no file was written over meanwhile.

        Raises:
            AgreementError: where the implicit model is not the network.
            ModelFileError: where a file was changed.
        """
        answer = self._answered(options, budget)
        refuse_changed(self.networks[0].graph.provenance.files)
        if answer.word != "sat" or self.asked is None:
            return answer
        assignment, remark = told_assignment(self.asked, answer.assignment, in_decimals)
        return replace(answer, assignment=assignment, remarks=(*answer.remarks, *filter(None, [remark])))

    def _answered(self, options: Options, budget: Budget) -> Answer:
        if self.asked is None:
            return Answer("unknown", remarks=(self.why,))
        try:
            return answered(self.asked, options, budget)
        except BudgetError:
            return Answer("timed-out")
        except OverflowError:
            return Answer("unknown", remarks=(TOO_LARGE,))

    def told(self, answer: Answer) -> dict[str, object]:
        """Return what a report's entry says of an answer."""
        if answer.word != "sat" or self.asked is None:
            return {"result": RESULTS[answer.word], "method": answer.method}
        lines = assignment_lines(self.asked.specification, answer.assignment)
        return {
            "result": RESULTS[answer.word],
            "method": answer.method,
            "witness": "\n".join(lines) or None,
            "confirmed_by": (self.asked.replay.name,),
        }


def open_query(path: Path, vnnlib: Path, reading: SearchedModel) -> QueryOfOne:
    """Read a query of one network, and the network.

    Raises:
        DataError: where the query is refused, is of several networks, changes meanwhile, or does not fit the model.
        ModelFileError: where the model cannot be read.
        UnsupportedModelError: where it cannot be run.
    """
    device.use(reading.device)
    query, sha256 = read_with_sha256(vnnlib, read_specification)
    if len(query.networks) != 1:
        names = ", ".join(network.name for network in query.networks)
        raise DataError(
            f"{vnnlib} is about {len(query.networks)} networks ({names}); give it to idl-audit-vnnlib verify, with a "
            "model for each of them"
        )
    networks = open_networks(query, {query.networks[0].name: path})
    info = describe_model(path, networks[0].graph, None, reading)
    row = row_sha256(info.sha256, sha256)
    try:
        return QueryOfOne(asked_query(query, networks), networks, info, row, sha256)
    except TooManyDigitsError as error:
        return QueryOfOne(None, networks, info, row, sha256, str(error))
    except OverflowError:
        return QueryOfOne(None, networks, info, row, sha256, TOO_LARGE)


def audit_query(path: Path, vnnlib: Path, options: PropertyOptions) -> Report:
    """Decide one VNN-LIB 2 query of one network and report on it.

    Raises:
        InvalidInputError: where the model or the query is refused.
        AgreementError: where the implicit model is not the network.
    """
    clock, budget = Clock(), options.budget
    with clock.step("read and convert"):
        query = open_query(path, vnnlib, options.model)
    with clock.step("verdict"):
        answer = query.decided(Options(seed=options.seed, record=options.certificates is not None), budget)
    seconds = options.time_limit - budget.left
    with clock.step("certificates"):
        artifacts, uncertified = _certificate(query, answer, vnnlib, options)
    entry = PropertyReport(
        onnx=str(path),
        vnnlib=str(vnnlib),
        result="unknown",
        seconds=seconds,
        time_limit=options.time_limit if math.isfinite(options.time_limit) else None,
        sha256=query.sha256,
        external_files=query.info.external_files,
    )
    return framed_report(
        "certify",
        clock,
        seed=options.seed,
        model=query.info,
        properties=(entry.model_copy(update=query.told(answer)),),
        diagnostics=(*remarks_of(answer, str(vnnlib)), *uncertified),
        artifacts=artifacts,
    )


def _certificate(
    query: QueryOfOne, answer: Answer, vnnlib: Path, options: PropertyOptions
) -> tuple[tuple[str, ...], tuple[Diagnostic, ...]]:
    """Write the certificate of a query that is unsat; return the file, or say that there is none."""
    if options.certificates is None or answer.word != "unsat" or query.asked is None:
        return (), ()
    found = proof_of_answer(query.asked, query.query_sha256, answer, options.budget)  # of its own, as the answer had
    if found is None:
        message = f"unsat, but no certificate that stands alone was found within {options.time_limit:g} s"
        return (), (Diagnostic(code="IDL505", level="warning", message=message, where=str(vnnlib)),)
    return (write_certificate(options.certificates, vnnlib, found, force=options.force),), ()


def remarks_of(answer: Answer, where: str) -> Iterator[Diagnostic]:
    """Yield what is to be said beside an answer."""
    for remark in answer.remarks:
        code = "IDL509" if answer.word == "sat" else "IDL508"
        yield Diagnostic(code=code, level="warning", message=f"{answer.word}: {remark}", where=where)
