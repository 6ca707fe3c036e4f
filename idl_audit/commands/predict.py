"""predict: the outputs of the implicit model for samples, with the state, the iteration and its residual."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idl_audit.commands.options.models import PredictOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.classifier import open_labelled
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.subject import Subject, check_agreement, describe_conversion, open_subject
from idl_audit.implicit.model import ImplicitModel, Solution
from idl_audit.report.schema import CleanAccuracy, Diagnostic, Prediction, Report, Summary
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_distinct, check_new_file
from idl_audit.values.npz import write_npz

BATCH = 64
LARGEST_SAVED = 2**31
"""Bytes of states that --save writes, at most."""


def predict(path: Path, data: DataOptions, options: PredictOptions, *, tell: Teller = tell_nobody) -> Report:
    """Return y = C x + D u + d for every sample, x = phi(A x + B u + b).

    Iterations and residual are each sample's own; both are left out of the report of a feed-forward model.

    Raises:
        InvalidInputError: where the file, the data or an option is refused, or no state was found; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    check_distinct((path, data.path, data.labels), (options.save,))
    if options.save is not None:
        check_new_file(options.save, force=options.force, ending=".npz")
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
    model = subject.model
    reader, samples = open_labelled(subject, data, options.model.threshold)
    needed = 8 * samples.n * model.n_states
    if options.save is not None and needed > LARGEST_SAVED:
        raise OptionError(
            f"--save would write {needed / 2**30:.1f} GiB of states, above the limit of {LARGEST_SAVED / 2**30:g} GiB; "
            "take fewer samples with --limit"
        )
    inputs = data.preprocessing.apply(samples.inputs, subject.input_shape).astype(np.float64)
    with clock.step("check"):
        check = check_agreement(subject, inputs)
    told = list(preflight(reader, samples, data, tell=tell)) if samples.labels is not None else []
    if samples.has_targets:
        message = (
            "the labels are not those of two classes; they are taken for the targets of a regression, and left out"
        )
        told.append(Diagnostic(code="IDL108", level="info", message=message))
    outputs, states, steps = [], [], []
    with clock.step("predict"):
        for start in range(0, samples.n, BATCH if model.is_feed_forward else 1):
            u = inputs[start : start + (BATCH if model.is_feed_forward else 1)]
            solved = model.solve(u)
            outputs.append(model.output(dict(enumerate(solved.states)), u))
            steps.append((solved.iterations, solved.residual))
            if options.save is not None:
                states.append(_flat(solved))
    y = np.vstack(outputs)
    predicted = _classes(y, reader)
    loops = None if model.is_feed_forward else steps
    entries = tuple(
        Prediction(
            index=int(index),
            label=None if samples.labels is None else int(samples.labels[place]),
            predicted=None if predicted is None else int(predicted[place]),
            output=tuple(float(value) for value in y[place]),
            iterations=None if loops is None else loops[place][0],
            residual=None if loops is None else loops[place][1],
        )
        for place, index in enumerate(samples.indices)
    )
    if not model.is_well_posed:
        message = "nothing proves that the model has one state for every input; the states below solve its equation"
        told.append(Diagnostic(code="IDL305", level="warning", message=message))
    told += without_last_operator(subject.info.stripped_output, "these are its inputs")
    if options.save is not None:
        with clock.step("write"):
            arrays = {"outputs": y, "indices": samples.indices, **_states(model, np.vstack(states))}
            if predicted is not None:
                arrays["predictions"] = predicted
            write_npz(options.save, arrays, force=options.force)
    clean = None
    if samples.labels is not None and predicted is not None:
        clean = CleanAccuracy(k=int((predicted == samples.labels).sum()), n=samples.n)
    return framed_report(
        "predict",
        clock,
        model=subject.info.model_copy(update={"threshold": reader.info.threshold}),
        conversion=describe_conversion(model, None, check, subject.seconds),
        data=describe_data(samples, data),
        summary=None if clean is None else Summary(clean=clean),
        predictions=entries,
        diagnostics=tuple(told),
        artifacts=() if options.save is None else (str(options.save),),
    )


def _classes(y: FloatArray, reader: Subject) -> IntArray | None:
    """Return the class of each row of outputs; None where nothing says which there are."""
    if reader.threshold is not None:
        y = reader.threshold.scores(y)
    return y.argmax(axis=1) if y.shape[1] > 1 else None


def _flat(solved: Solution) -> FloatArray:
    """Return the states of a batch side by side, newest block first."""
    n = len(solved.states[0]) if solved.states else 0
    return np.hstack([np.zeros((n, 0)), *solved.states])


def _states(model: ImplicitModel, states: FloatArray) -> dict[str, AnyArray]:
    """Return the arrays of --save that hold the state: x, and where each block starts in it."""
    return {
        "states": states,
        "blocks": np.array([block.name for block in model.blocks], np.str_),
        "block_starts": np.array(model.offsets, np.int64),
    }
