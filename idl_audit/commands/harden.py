"""harden: fine-tune a network's weights until more of its samples can be certified, and write them as its own file."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

import numpy as np
import torch

from idl_audit import __version__
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.options.training import HardenOptions
from idl_audit.commands.shared.apart import refuse_few, refuse_shared, split
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.samples import describe_data, open_samples
from idl_audit.commands.shared.subject import Subject, describe_conversion, open_subject
from idl_audit.commands.shared.trained_file import open_trained
from idl_audit.data.samples import Samples
from idl_audit.decide.ladder import Options, Sample
from idl_audit.graph.fingerprint import array_sha256
from idl_audit.graph.ir import Graph
from idl_audit.graph.write_back import Written
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.report.schema import Audited, Diagnostic, Hardening, Report, TradeOff
from idl_audit.training import fine_tune
from idl_audit.training.choose import Score, certified_of, right_of, withstood
from idl_audit.training.harden import Candidate, Outcome, Task, Weights, harden
from idl_audit.training.losses import Method
from idl_audit.training.memory import Memory
from idl_audit.training.network import Twin
from idl_audit.training.schedule import Heard
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import AgreementError, DataError, UnsupportedModelError

Tell = Callable[[str], Heard]
"""Name of a run -> what is told after each of its steps."""

BESIDE: Final = frozenset({"out", "audit", "time_limit", "jobs", "resume", "force"})
"""Options that change nothing of what training reaches."""
CHECKED: Final = 100
"""Samples at which the twin is compared with the network before it is trained, and the file with the twin after."""
AGREES: Final = 1e-4
"""Of max|y|: how far the two may be apart."""
MOST_JUDGED: Final = 400
"""Samples kept apart that every trade-off is judged by."""


def harden_model(path: Path, options: HardenOptions, *, heard: Tell = lambda name: lambda step: None) -> Report:
    """Train, choose, write, and audit before and after.

    Raises:
        InvalidInputError: where the model, samples or options are refused; nothing is written.
        AgreementError: where the trained network is not the one in the file.
    """
    clock, start = Clock(), time.process_time()
    with clock.step("read and convert"):
        subject, source = open_trained(path, options.model)
        graph = source.graph
        given = _labelled(open_samples(subject, options.data), options.data.path)
        held, trained = _apart(subject, given, options)
        unseen = _unseen(subject, options, (held, trained))
        output, shape = source.output, subject.input_shape
        network = Twin.of(graph, output, shape, trained=source.names, freeze=options.freeze)
        _check_twin(network, subject, given, options)
    with clock.step("train and choose"):
        task = _task(network, subject, graph, trained, held, options)
        outcome = harden(task, heard)
    seconds = time.process_time() - start
    written: Written | None = None
    before = after = None
    if outcome.chosen is not None:
        with clock.step("write"):
            written = source.write(options.out, outcome.chosen.weights)
            _check_written(written.model, network, options)
    if unseen is not None:
        with clock.step("audit"):
            before = _audited(path, unseen, options)
            after = None if written is None else _audited(written.model, unseen, options)
    subject.check_unchanged()
    if not outcome.interrupted:
        task.memory.forget()
    return framed_report(
        "harden",
        clock,
        seed=options.seed,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), None, subject.seconds),
        data=describe_data(given, options.data),
        why_incomplete="interrupted" if outcome.interrupted else None,
        hardening=_described(task, outcome, options, held, trained, seconds, before, after),
        diagnostics=tuple(_diagnostics(outcome, task, options)),
        artifacts=() if written is None else tuple(str(file) for file in (written.model, written.data) if file),
    )


# --- what is read -----------------------------------------------------------------------------------------------------


def _labelled(samples: Samples, path: Path) -> Samples:
    if samples.labels is None:
        raise DataError(f"{path} has no labels, which training needs; give them with --labels")
    return samples


def _apart(subject: Subject, given: Samples, options: HardenOptions) -> tuple[Samples, Samples]:
    """Return the samples to choose by, and those to train on, further adversarial ones among them."""
    chosen = options.holdout
    if chosen.path is not None:
        held = _labelled(open_samples(subject, _of(options.data, chosen.path)), chosen.path)
        trained = given
        refuse_shared(held, trained, f"--holdout {chosen.path}", "training")
    else:
        assert chosen.share is not None
        held, trained = map(given.rows, split(given.n, chosen.share, options.seed))
    for samples, what in ((held, "chosen by"), (trained, "trained on")):
        refuse_few(samples, what)
    if options.adversarial is not None:
        more = _labelled(open_samples(subject, _of(options.data, options.adversarial)), options.adversarial)
        trained = replace(
            trained,
            inputs=np.concatenate([trained.inputs, more.inputs]),
            labels=np.concatenate([_labels(trained), _labels(more)]),
            indices=np.arange(trained.n + more.n),
        )
    return held, trained


def _of(data: DataOptions, path: Path) -> DataOptions:
    """Return the options of another file of the same kind: all of its samples."""
    return replace(data, path=path, labels=None, limit=None, index=None)


def _unseen(subject: Subject, options: HardenOptions, seen: tuple[Samples, ...]) -> Samples | None:
    """Return the samples of --audit. Raises DataError where one of them was trained on or chosen by."""
    if options.audit is None:
        return None
    found = _labelled(open_samples(subject, _of(options.data, options.audit)), options.audit)
    for samples, what in zip(seen, ("choice", "training"), strict=True):
        refuse_shared(found, samples, f"--audit {options.audit}", what)
    return found


def _labels(samples: Samples) -> np.ndarray:
    assert samples.labels is not None
    return samples.labels


# --- what is trained --------------------------------------------------------------------------------------------------


def _task(
    network: Twin, subject: Subject, graph: Graph, trained: Samples, held: Samples, options: HardenOptions
) -> Task:
    memory = _memory(network, subject, trained, held, options)
    judged = held.rows(np.arange(min(held.n, MOST_JUDGED)))
    bounds = options.data.preprocessing.bounds
    lo, hi = bounds or (None, None)
    samples = [
        Sample(x, int(label), Box.around(x, options.eps.value, valid_lo=lo, valid_hi=hi))
        for x, label in zip(judged.inputs, _labels(judged), strict=True)
    ]

    seen, asked = _as_read(network, subject, held, options), _as_read(network, subject, judged, options)

    def clean(weights: Weights) -> int:
        network.take(weights)
        return int(right_of(network, seen).sum())

    def judge(weights: Weights, branch: bool) -> Score:
        right = clean(weights)
        stands = right_of(network, asked) & withstood(network, asked, options.seed)
        left = [sample for sample, stands_so in zip(samples, stands, strict=True) if stands_so]
        model = _in_data_units(_model(graph, weights, network.output), subject, options)
        intervals, lines, branched, by_branching = certified_of(model, left, branch=branch)
        return Score(held.n, right, judged.n, intervals, lines, branched, by_branching, len(left) - lines)

    method = cast(Method, "mtl" if options.method == "auto" else options.method)
    train = _as_read(network, subject, trained, options)
    before = judge(network.arrays(), True)
    least = math.ceil(before.clean - options.keep_clean * held.n)
    recipe = fine_tune.Recipe.of(method, trained.n, options.seed)
    return Task(network, train, clean, judge, before, subject.model.nnz, recipe, 60 * options.minutes, least, memory)


def _memory(network: Twin, subject: Subject, trained: Samples, held: Samples, options: HardenOptions) -> Memory:
    """Return what an earlier run of the same task has done, where there was one."""
    arrays = [array for one in (trained, held) for array in (one.inputs, _labels(one))]
    data = [array_sha256(np.ascontiguousarray(array), "samples") for array in arrays]
    chosen = {one.name: repr(getattr(options, one.name)) for one in fields(options) if one.name not in BESIDE}
    told = json.dumps([__version__, subject.info.sha256, data, sorted(network.weights), chosen])
    shapes = {name: tuple(weight.shape) for name, weight in network.weights.items()}
    key = hashlib.sha256(told.encode()).hexdigest()
    return Memory.open(Path(f"{options.out}.run"), key, shapes, resume=options.resume)


def _as_read(network: Twin, subject: Subject, samples: Samples, options: HardenOptions) -> fine_tune.Samples:
    """Return the samples as the network reads them, with what an entry may move by."""
    chosen, shape = options.data.preprocessing, network.shape
    x = chosen.apply(samples.inputs, subject.input_shape).reshape(-1, *shape)
    radius, valid = chosen.reach(options.eps.value, subject.input_shape)

    def tensor(values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32).reshape(shape))

    ends = None if valid is None else (tensor(valid[0]), tensor(valid[1]))
    labels = torch.from_numpy(_labels(samples).astype(np.int64))
    return fine_tune.Samples(torch.from_numpy(x), labels, tensor(radius), ends)


def _model(graph: Graph, weights: Mapping[str, FloatArray], output: str | None) -> ImplicitModel:
    constants = {name: np.asarray(value, graph.constants[name].dtype) for name, value in weights.items()}
    changed = replace(graph, constants=MappingProxyType({**graph.constants, **constants}))
    return build_implicit(changed, output=output)


def _in_data_units(model: ImplicitModel, subject: Subject, options: HardenOptions) -> ImplicitModel:
    return in_data_units(model, *options.data.preprocessing.affine(subject.input_shape))


def _check_twin(network: Twin, subject: Subject, samples: Samples, options: HardenOptions) -> None:
    """Refuse to train what is not the network."""
    some = options.data.preprocessing.apply(samples.inputs[:CHECKED], subject.input_shape).astype(np.float64)
    apart = network.distance(some, subject.model(some))
    if not apart <= AGREES:
        raise UnsupportedModelError(
            [f"what would be trained differs from {subject.path} by {apart:.1e} of max|y|; it cannot be hardened"]
        )


def _check_written(path: Path, network: Twin, options: HardenOptions) -> None:
    """Raise AgreementError where the file that was written is not what was trained."""
    written = open_subject(path, options.model)
    rng = np.random.default_rng(options.seed)
    some = rng.random((CHECKED, written.model.n_inputs)).astype(np.float32).astype(np.float64)
    apart = network.distance(some, written.model(some))
    if not apart <= 10 * AGREES:
        raise AgreementError(f"{path} was written and differs from what was trained by {apart:.1e} of max|y|")


# --- what is told -----------------------------------------------------------------------------------------------------


def _audited(path: Path, samples: Samples, options: HardenOptions) -> Audited:
    assert options.audit is not None
    chosen = RobustnessOptions(
        eps=(options.eps,),
        data=_of(options.data, options.audit),
        verdicts=Options(time_limit=options.time_limit, seed=options.seed),
        model=options.model,
        jobs=options.jobs,
    )
    report = audit_robustness("certify", path, chosen)
    assert report.model is not None
    assert report.summary is not None
    return Audited(model_sha256=report.model.sha256, counts=report.summary.per_eps[0])


def _trade_off(candidate: Candidate) -> TradeOff:
    found = candidate.score
    return TradeOff(
        name=candidate.name,
        steps=candidate.steps,
        clean=found.clean,
        by_intervals=found.by_intervals,
        by_lines=found.by_lines,
        branched=found.branched,
        by_branching=found.by_branching,
        certified=found.certified,
    )


def _described(
    task: Task,
    outcome: Outcome,
    options: HardenOptions,
    held: Samples,
    trained: Samples,
    seconds: float,
    before: Audited | None,
    after: Audited | None,
) -> Hardening:
    return Hardening(
        method=task.recipe.method,
        eps=options.eps.value,
        minutes=options.minutes,
        seconds=seconds,
        trained_on=trained.n,
        held_out=outcome.before.score.held,
        judged=outcome.before.score.n,
        least_clean=task.least_clean,
        weights=tuple(task.network.weights),
        before=_trade_off(outcome.before),
        front=tuple(map(_trade_off, outcome.front)),
        chosen=None if outcome.chosen is None else outcome.chosen.name,
        audited_before=before,
        audited_after=after,
    )


def _diagnostics(outcome: Outcome, task: Task, options: HardenOptions) -> Iterator[Diagnostic]:
    if outcome.chosen is None:
        best = max(outcome.front, key=lambda one: one.score.certified)
        yield Diagnostic(
            code="IDL601",
            level="error",
            message=f"no trade-off certifies more and keeps {task.least_clean} of {best.score.held} samples right; "
            f"nothing was written (the most certified: {best.name}, with {best.score.clean} right)",
            hint="allow a larger loss with --keep-clean, train longer with --minutes, or choose a smaller eps",
        )
    if outcome.interrupted:
        yield Diagnostic(
            code="IDL605",
            level="warning",
            message="training was interrupted; what was chosen is the best of what it had reached",
            hint="go on with --resume, and with --force where a file was written",
        )
    if options.holdout.path is None:
        yield Diagnostic(
            code="IDL602",
            level="info",
            message="the samples kept apart are a part of --data: where the network was trained on them, its clean "
            "accuracy there flatters it",
            hint="give samples that it was not trained on with --holdout FILE",
        )
