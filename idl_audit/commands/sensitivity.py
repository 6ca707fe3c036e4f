"""sensitivity: the matrix S of a model in data units, for all inputs or on boxes, and what to read off it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from idl_audit.commands.options.measures import SensitivityOptions
from idl_audit.commands.shared.boxes import box_threat_model, sample_boxes
from idl_audit.commands.shared.classifier import open_labelled
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.local_sensitivity import Rows, worst_case
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Watcher
from idl_audit.commands.shared.proof_files import units_of, write
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.sensitivity_pictures import draw_rows
from idl_audit.commands.shared.sensitivity_section import Found, Inputs, saved_arrays, sensitivity_section
from idl_audit.commands.shared.subject import (
    CHECKED_SAMPLES,
    Subject,
    check_agreement,
    describe_conversion,
    open_subject,
)
from idl_audit.commands.shared.whole_numbers import with_range, within_range
from idl_audit.data.groups import parse_groups
from idl_audit.data.numbers import check_eps_units
from idl_audit.data.samples import Samples
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.sensitivity import global_or_infinite
from idl_audit.proof.files.claims import About, SensitivityClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.restricted import everywhere
from idl_audit.proof.sensitivity_witness import make_witness
from idl_audit.report.schema import Diagnostic, Report
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import is_whole
from idl_audit.values.errors import OptionError
from idl_audit.values.margins import margin_functionals
from idl_audit.values.npz import write_npz


def audit_sensitivity(
    path: Path, options: SensitivityOptions, *, watch: Watcher = lambda progress: None, tell: Teller = tell_nobody
) -> Report:
    """Compute S of the network at `path` (docs/mathematics.md, sections 5 and 6.3) and report on it.

    Ctrl-C within the samples leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the file, the data or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        options = _within_range(subject, options)
        local = options.local
        inputs = _inputs(subject, options)
        reader, samples = (subject, None) if local is None else open_labelled(subject, local.data)
    with clock.step("check"):
        check = check_agreement(subject, _checked_inputs(subject, samples, options))
    noted: tuple[Diagnostic, ...] = ()
    if samples is not None and local is not None:
        with clock.step("preflight"):
            noted = preflight(reader, samples, local.data, eps=(local.eps,), tell=tell)
    model = subject.in_data_units(options.preprocessing)
    rescaled = rescale(model)
    with clock.step("sensitivity"):
        found = _find(model, samples, options, watch, reads_whole=is_whole(subject.point_type))
    proof = None
    if options.witness is not None:
        with clock.step("witness"):
            proof = make_witness(model, options.model.max_bytes)
    artifacts, images = _write(found, inputs, path, options, model.input_shape)
    if options.witness is not None and proof is not None:
        of = About(subject.info.sha256, subject.output_name, units_of(options.preprocessing))
        write(options.witness, ProofFile(of, SensitivityClaim(proof.S), witness=proof), force=options.force)
        artifacts = (*artifacts, str(options.witness))
    return framed_report(
        "sensitivity",
        clock,
        seed=options.seed,
        why_incomplete=None if found.local is None or found.local.complete else "interrupted",
        model=subject.info,
        conversion=describe_conversion(subject.model, rescaled, check, subject.seconds),
        data=None if samples is None or local is None else describe_data(samples, local.data),
        threat_model=None if local is None else box_threat_model([local.eps], options.preprocessing.bounds),
        sensitivity=sensitivity_section(found, model, rescaled, inputs, images, options),
        diagnostics=(*noted, *_diagnostics(found, model)),
        artifacts=artifacts,
    )


def _within_range(subject: Subject, options: SensitivityOptions) -> SensitivityOptions:
    """Return the options with the range of a network's whole numbers. Raises OptionError where something is scaled."""
    if options.local is None:
        within_range(subject, options.preprocessing)
        return options
    return replace(options, local=replace(options.local, data=with_range(subject, options.local.data)))


def _inputs(subject: Subject, options: SensitivityOptions) -> Inputs:
    """Return how the inputs are looked at. Raises InvalidInputError where an option does not fit the model."""
    model = subject.model
    if options.label is not None and not options.label < max(model.n_outputs, 2):
        outputs = f"{model.n_outputs} outputs" if model.n_outputs > 1 else "two classes, 0 and 1, of the one output"
        raise OptionError(f"--class {options.label} is none of the {outputs} of {subject.path}")
    shape = options.image_shape or model.input_shape
    if math.prod(shape) != model.n_inputs:
        size = " x ".join(map(str, shape))
        raise OptionError(f"--image-shape {size} has {math.prod(shape)} numbers, and an input has {model.n_inputs}")
    return Inputs(shape, None if options.groups is None else parse_groups(options.groups, shape))


def _checked_inputs(subject: Subject, samples: Samples | None, options: SensitivityOptions) -> FloatArray:
    """Return what the implicit model and the network are compared on, in the network's own units."""
    if samples is None:
        return subject.random_inputs(seed=options.seed)
    inputs = options.preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
    return inputs.astype(np.float64)


def _find(
    model: ImplicitModel, samples: Samples | None, options: SensitivityOptions, watch: Watcher, *, reads_whole: bool
) -> Found:
    functionals = None if options.label is None else _margins(model.n_outputs, options.label)
    boxes = None
    if options.local is not None and samples is not None:  # refuses samples outside the valid range before any work
        ends = float(samples.inputs.min()), float(samples.inputs.max())
        check_eps_units((options.local.eps,), *ends, options.preprocessing.bounds, whole=reads_whole)
        boxes = [several[0] for several in sample_boxes(samples, [options.local.eps], options.preprocessing.bounds)]
    limit = options.model.max_bytes
    asked = [Rows(None, global_or_infinite(model, options.method, max_bytes=limit))]
    if functionals is not None:
        margins_only = global_or_infinite(model, options.method, functionals=functionals, max_bytes=limit)
        asked.append(Rows(functionals, margins_only))
    whole, margins = asked[0].whole, None if functionals is None else asked[1].whole
    if options.local is None or samples is None or boxes is None:
        return Found(whole, margins, whole)
    kind = options.local.state_bounds
    local = worst_case(
        model,
        boxes,
        samples.indices,
        asked,
        method=options.method,
        state_bounds=kind,
        max_bytes=limit,
        watch=watch,
    )
    return Found(local.matrices[0], None if functionals is None else local.matrices[1], whole, local)


def _margins(n_outputs: int, label: int) -> FloatArray:
    """Return the rows that take the outputs to y_label - y_j; of one output, to its distance from any threshold."""
    if n_outputs == 1:
        return np.array([[1.0 if label else -1.0]])
    return margin_functionals(n_outputs, label)


def _write(
    found: Found, inputs: Inputs, path: Path, options: SensitivityOptions, input_shape: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write what was asked for; return the names of all files, and of the pictures among them."""
    written: list[str] = []
    pictures: tuple[str, ...] = ()
    if options.save is not None and found.is_finite:
        write_npz(options.save, saved_arrays(found, inputs.groups, options, input_shape), force=options.force)
        written.append(str(options.save))
    if options.images is not None and found.is_finite:
        where = "all inputs" if options.local is None else f"within {options.local.eps.text} of the samples"
        files = draw_rows(options.images, found.matrix, shape=inputs.shape, name=path.name, where=where)
        pictures = tuple(str(file) for file in files)
    return (*written, *pictures), pictures


def _diagnostics(found: Found, model: ImplicitModel) -> list[Diagnostic]:
    if np.isfinite(found.matrix).all():
        return []
    beyond = "entries of S are beyond the range of float64: nothing is said about how far the outputs move"
    return [Diagnostic(code="IDL302", level="warning", message=everywhere(model).unbounded or beyond)]
