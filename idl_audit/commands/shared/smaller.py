"""What the commands that write another implicit model share: reading, boxes of inputs, writing, the report's frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idl_audit.commands.options.models import WriteOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.classifier import open_labelled
from idl_audit.commands.shared.frame import Clock
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.subject import Subject, check_agreement, open_subject
from idl_audit.data.samples import Samples
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.storage import save_model
from idl_audit.implicit.threshold import Threshold
from idl_audit.proof.bounds import Interval
from idl_audit.report.schema import AgreementCheck, Diagnostic
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import AgreementError
from idl_audit.values.files import check_distinct, check_new_file

CHECKED_SAMPLES = 1000
"""Samples that both models are compared on, at most."""

REDUCED_TOLERANCE = 1e-9
"""Largest difference of an output that should not change at all, relative to max|y|: both models compute in float64."""

FLOAT32_MARGIN = 1e-6
"""Relative widening of a box, so that inputs that float32 rounds out of it are in it."""


@dataclass(frozen=True)
class Opened:
    """A model that was read and checked, with the samples in the network's own units."""

    subject: Subject
    check: AgreementCheck
    samples: Samples | None
    inputs: FloatArray
    """The samples, or random inputs where there are none; (m, p), at most CHECKED_SAMPLES."""
    diagnostics: tuple[Diagnostic, ...]
    threshold: Threshold | None = None
    """What makes classes of one output, where the samples have labels."""

    def classes(self, outputs: FloatArray) -> IntArray | None:
        """Return the class of each row of outputs; None where nothing says which there are."""
        scores = outputs if self.threshold is None else self.threshold.scores(outputs)
        return scores.argmax(axis=1) if scores.shape[1] > 1 else None


def open_model(
    path: Path, options: WriteOptions, data: DataOptions | None, clock: Clock, tell: Teller = tell_nobody
) -> Opened:
    """Read a model and, where there are any, samples. Raises as `open_subject` and `read_samples` do."""
    check_distinct((path, None if data is None else data.path), (options.out,))
    if options.out is not None:
        check_new_file(options.out, force=options.force, ending=".npz")
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
    inputs = subject.random_inputs(seed=options.seed)
    reader, samples = subject, None
    found: tuple[Diagnostic, ...] = ()
    if data is not None:
        reader, samples = open_labelled(subject, data, options.model.threshold)
        applied = data.preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        inputs = applied.astype(np.float64)
    with clock.step("check"):
        check = check_agreement(subject, inputs)
    if samples is not None and data is not None and samples.labels is not None:
        found = preflight(reader, samples, data, tell=tell)
    return Opened(subject, check, samples, inputs, found, reader.threshold)


def input_box(opened: Opened, options: WriteOptions) -> Interval | None:
    """Return the box that --bounds gives, or the least around the samples, in the network's units; None without both.

    It is widened by what float32 may round.
    """
    bounds = options.preprocessing.bounds
    if bounds is not None:
        factor, offset = options.preprocessing.affine(opened.subject.input_shape)
        ends = np.stack([factor * bounds[0] + offset, factor * bounds[1] + offset])
        lo, hi = ends.min(axis=0), ends.max(axis=0)
    elif opened.samples is not None:
        lo, hi = opened.inputs.min(axis=0), opened.inputs.max(axis=0)
    else:
        return None
    wider = FLOAT32_MARGIN * (1e-6 + np.maximum(np.abs(lo), np.abs(hi)))
    return Interval((lo - wider)[None], (hi + wider)[None])


def inside(box: Interval, seed: int, n: int = 200) -> FloatArray:
    """Return n points of a box, half of them corners."""
    rng = np.random.default_rng(seed)
    share = np.vstack([rng.random((n - n // 2, box.lo.size)), rng.integers(0, 2, (n // 2, box.lo.size))])
    return np.asarray(box.lo + share * (box.hi - box.lo))


def check_same(
    new: Callable[[FloatArray], FloatArray], old: Callable[[FloatArray], FloatArray], inputs: FloatArray, what: str
) -> AgreementCheck:
    """Compare two models that should be the same function, where the old one has outputs.

    Raises:
        AgreementError: where an output differs by more than REDUCED_TOLERANCE of max|y|.
    """
    theirs = old(inputs)
    within = np.isfinite(theirs).all(axis=1)
    ours, theirs = new(inputs)[within], theirs[within]
    size = max(float(np.abs(theirs).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    error = float(np.abs(ours - theirs).max(initial=0.0)) / size
    if not error <= REDUCED_TOLERANCE:
        raise AgreementError(f"the new model differs from {what} by {error:.1e} of max|y|; please report this")
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    return AgreementCheck(n=len(ours), reference=what, max_rel_error=error, argmax_agreement=same)


def save(model: ImplicitModel, options: WriteOptions, subjects: Sequence[Subject], command: str) -> tuple[str, ...]:
    """Write the new model with a note on where it came from; return the names of the files."""
    if options.out is None:
        return ()
    first = subjects[0].info.model_dump(mode="json")
    origin = {
        **first,
        "path": ", ".join(str(subject.path) for subject in subjects),
        "format": "implicit",
        "input_shape": model.input_shape,
        "n_outputs": model.n_outputs,
        "n_parameters": sum(subject.info.n_parameters for subject in subjects),
        "producer": f"idl-audit {command}",
        "ops": {},
        "opset": None,
        "stripped_output": model.stripped_output or None,
    }
    save_model(options.out, model, origin=origin, force=options.force)
    return (str(options.out),)
