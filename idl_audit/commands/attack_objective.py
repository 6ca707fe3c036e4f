"""attack --objective: how far an objective moves around every sample, reached and proved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from idl_audit.commands.options.common import OBJECTIVES
from idl_audit.commands.options.robustness import ObjectiveOptions
from idl_audit.commands.shared.boxes import sample_sets, threat_model
from idl_audit.commands.shared.class_output import gives_class
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.samples import describe_data, open_samples
from idl_audit.commands.shared.subject import (
    CHECKED_SAMPLES,
    Subject,
    check_agreement,
    describe_conversion,
    open_subject,
)
from idl_audit.commands.shared.whole_numbers import with_range
from idl_audit.data.fingerprints import numbers_sha256
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import Samples
from idl_audit.data.vectors import read_objective
from idl_audit.decide.objectives import Measured, Measurement, Objective, l1, linear, state_discrepancy
from idl_audit.decide.rungs import REASONS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.report.schema import Diagnostic, ObjectiveReport, Reason, Report, WhyIncomplete
from idl_audit.search.linprog import Outcome
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import is_whole
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.npz import write_npz


@dataclass(frozen=True)
class _Entry:
    index: int
    eps: Eps
    found: Measured


def audit_objectives(path: Path, options: ObjectiveOptions, *, watch: Watcher = lambda progress: None) -> Report:
    """Measure an objective around every sample at every radius; Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the model, the data or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        if gives_class(subject.model):
            operator = subject.model.stripped_output
            raise UnsupportedModelError(
                [f"{path} ends in {operator}, and shows no numbers to measure; make the scores before it the output"]
            )
        options = replace(options, data=with_range(subject, options.data))
        preprocessing = options.data.preprocessing
        samples = open_samples(subject, options.data, with_labels=False)
        sigma = None
        if options.sigma is not None:
            sigma = read_radii(options.sigma, subject.input_shape, options.data.layout)
        else:
            ends = float(samples.inputs.min()), float(samples.inputs.max())
            check_eps_units(options.eps, *ends, preprocessing.bounds, whole=is_whole(subject.point_type))
        model = subject.in_data_units(preprocessing)
        objective, weights = _objective(model, options.objective)
        sets = sample_sets(samples, options.eps, preprocessing.bounds, sigma=sigma, k=options.sparse)
        sets = [[subject.readable(one, preprocessing) for one in row] for row in sets]
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        check = check_agreement(subject, inputs.astype(float))
    found: list[_Entry] = []
    why: WhyIncomplete | None = None
    with clock.step("measure"):
        measurement = Measurement(model, subject.network(preprocessing), objective, seed=options.seed)
        try:
            for entry in _measure_all(measurement, samples, sets, options, watch):
                found.append(entry)
        except KeyboardInterrupt:
            why = "interrupted"
    subject.check_unchanged()
    if options.save is not None:
        write_npz(options.save, _arrays(found, model.n_inputs), force=options.force)
    return framed_report(
        "attack",
        clock,
        seed=options.seed,
        why_incomplete=why,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(
            options.eps, preprocessing.bounds, sigma=options.sigma, radii=sigma, k=options.sparse
        ),
        objectives=tuple(_entry_report(entry, objective, weights, options) for entry in found),
        diagnostics=tuple(_diagnostics(subject, objective)),
        artifacts=() if options.save is None else (str(options.save),),
    )


def _objective(model: ImplicitModel, name: str) -> tuple[Objective, str | None]:
    """Return the objective, and the hash of its weights where they are in a file."""
    if name in OBJECTIVES:
        return l1(model) if name == "l1" else state_discrepancy(model), None
    weights = read_objective(Path(name))
    return linear(model, *weights), numbers_sha256(weights)


def _measure_all(
    measurement: Measurement,
    samples: Samples,
    all_sets: list[list[InputSet]],
    options: ObjectiveOptions,
    watch: Watcher,
) -> Iterator[_Entry]:
    total, done = samples.n * len(options.eps), 0
    watch(Progress(0, total, Counter()))
    for index, x, sets in zip(samples.indices, samples.inputs, all_sets, strict=True):
        for radius, inputs in zip(options.eps, sets, strict=True):
            found = measurement.measure(x, inputs, searches=options.searches, budget=options.budget)
            done += 1
            watch(Progress(done, total, Counter()))
            yield _Entry(int(index), radius, found)


def _entry_report(
    entry: _Entry, objective: Objective, weights: str | None, options: ObjectiveOptions
) -> ObjectiveReport:
    found = entry.found
    return ObjectiveReport(
        index=entry.index,
        eps=entry.eps.value,
        objective=options.objective,
        objective_sha256=weights,
        sense=objective.sense,
        at_sample=_finite(found.at_sample),
        reached=_finite(found.reached),
        proved=None if found.proved is None else _finite(found.proved),
        method=found.method,
        reason=_reason(found.reason),
        seconds=found.seconds,
    )


def _reason(outcome: Outcome | None) -> Reason | None:
    return None if outcome is None else Reason(REASONS[outcome].value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _arrays(found: list[_Entry], size: int) -> dict[str, AnyArray]:
    """Return the points with what is reached there, for --save."""
    return {
        "inputs": np.array([entry.found.point for entry in found], np.float32).reshape(len(found), size),
        "values": np.array([entry.found.reached for entry in found], np.float64),
        "eps": np.array([entry.eps.value for entry in found], np.float64),
        "indices": np.array([entry.index for entry in found], np.int64),
    }


def _diagnostics(subject: Subject, objective: Objective) -> Iterator[Diagnostic]:
    yield from without_last_operator(subject.info.stripped_output, "outputs are those before it")
    if objective.reads_states:
        yield Diagnostic(
            code="IDL221",
            level="info",
            message="the objective reads states, which the original network does not show: values are those of the "
            "implicit model",
        )
