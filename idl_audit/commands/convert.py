"""convert: a network file becomes an .npz with A, B, C, D, b, d, checked against the original network."""

from __future__ import annotations

from pathlib import Path

from idl_audit.commands.options.models import ConvertOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.classifier import open_labelled
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.proof_files import write
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.subject import (
    check_agreement,
    describe_conversion,
    open_subject,
    peak_megabytes,
)
from idl_audit.graph.files import hashed
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import norm_inf_a, rescale, why_above
from idl_audit.implicit.storage import save_model
from idl_audit.implicit.structure import structure
from idl_audit.implicit.walk import BYTES_PER_ENTRY
from idl_audit.proof.files.claims import About, SensitivityClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.sensitivity_witness import make_witness
from idl_audit.report.pictures import draw_structure
from idl_audit.report.schema import Diagnostic, Report, Rescaling
from idl_audit.values.budget import Budget
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_distinct, check_new_file, write_whole


def convert(
    path: Path,
    out: Path,
    options: ConvertOptions,
    data: DataOptions | None = None,
    *,
    tell: Teller = tell_nobody,
) -> Report:
    """Convert the network at `path`, check it, write it to `out` and report on it.

    Raises:
        InvalidInputError: where the file, the data or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network; nothing is written.
    """
    written = (out, options.spy, options.witness)
    check_distinct((path, None if data is None else data.path), written)
    for file in filter(None, written):
        check_new_file(file, force=options.force, ending="" if file == options.spy else ".npz")
    if options.spy is not None and options.spy.suffix.lower() != ".png":
        raise OptionError(f"--spy draws a PNG file; name it {options.spy.with_suffix('.png')}")
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
    reader, samples = subject, None
    inputs = subject.random_inputs(seed=options.seed)
    if data is not None:
        reader, samples = open_labelled(subject, data)
        inputs = data.preprocessing.apply(samples.inputs, subject.input_shape).astype(float)
    with clock.step("check"):
        check = check_agreement(subject, inputs)
    diagnostics: list[Diagnostic] = []
    if samples is not None and data is not None:
        with clock.step("preflight"):
            diagnostics.extend(preflight(reader, samples, data, tell=tell))
    model = subject.model
    if options.rescale:
        with clock.step("rescale"):
            model = rescale(subject.model, kappa=options.kappa)
        if model.scaling is not None and model.scaling.norm_after is None:
            diagnostics.append(
                Diagnostic(code="IDL301", level="warning", message=f"the model is not rescaled: {model.scaling.reason}")
            )
        if above := why_above(model):
            diagnostics.append(Diagnostic(code="IDL308", level="info", message=f"--kappa: {above}"))
    witness = None
    if options.witness is not None:
        with clock.step("witness"):
            witness = make_witness(model, options.model.max_bytes)
    if options.flat:
        _refuse_too_large(model, options.model.max_bytes)
    with clock.step("write"):
        origin = subject.info.model_dump(mode="json")
        save_model(out, model, origin=origin, flat=options.flat, force=options.force)
    if options.witness is not None and witness is not None:
        of = About(hashed(out).sha256)
        write(options.witness, ProofFile(of, SensitivityClaim(witness.S), witness=witness), force=options.force)
    if options.spy is not None:
        with clock.step("draw"):
            _draw(options.spy, model, path)
    seconds = sum(clock.timing().steps.values())
    conversion = describe_conversion(subject.model, model if options.rescale else None, check, seconds)
    if not options.rescale:
        unscaled = Rescaling(before=norm_inf_a(model))
        conversion = conversion.model_copy(update={"norm_inf_A": unscaled})
    return framed_report(
        "convert",
        clock,
        seed=options.seed,
        model=subject.info,
        conversion=conversion.model_copy(update={"peak_mb": peak_megabytes()}),
        data=None if samples is None or data is None else describe_data(samples, data),
        diagnostics=tuple(diagnostics),
        artifacts=tuple(str(file) for file in written if file is not None),
    )


def _refuse_too_large(model: ImplicitModel, max_bytes: int | None) -> None:
    """Raise MemoryLimitError where the flat matrices do not fit: each is put together from the blocks' own."""
    Budget(max_bytes=max_bytes).allow(3 * BYTES_PER_ENTRY * model.nnz, "A, B, C and D as plain matrices (--flat)")


def _draw(file: Path, model: ImplicitModel, path: Path) -> None:
    found = structure(model)
    title = f"{path.name}: {model.n_states:,} states, {model.n_inputs:,} inputs, {model.n_outputs:,} outputs"
    write_whole(
        file,
        lambda stream: draw_structure(
            stream,
            density=found.density,
            row_edges=found.row_edges,
            column_edges=found.column_edges,
            row_names=found.row_names,
            column_names=found.column_names,
            title=title,
        ),
    )
