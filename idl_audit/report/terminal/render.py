"""The report as sections: a sentence on top, then a table for each part that the command filled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from idl_audit.report.claims import facts
from idl_audit.report.schema import (
    AgreementCheck,
    CheckedFile,
    Conversion,
    Diagnostic,
    EquilibriumCheck,
    ModelInfo,
    Report,
    Rescaling,
    Verification,
)
from idl_audit.report.terminal.bounds import bounds_sections
from idl_audit.report.terminal.comparison import comparison_sections
from idl_audit.report.terminal.compression import compression_sections, prediction_sections
from idl_audit.report.terminal.everywhere import everywhere_sections
from idl_audit.report.terminal.gate import gate_sections
from idl_audit.report.terminal.hardening import hardening_sections
from idl_audit.report.terminal.layout import MAX_ROWS, WIDE, Section, add_row, grid, heading, pair, table
from idl_audit.report.terminal.monotonicity import monotone_sections
from idl_audit.report.terminal.objectives import objective_sections
from idl_audit.report.terminal.properties import property_sections
from idl_audit.report.terminal.sensitivity import sensitivity_sections
from idl_audit.report.terminal.training import training_sections
from idl_audit.report.terminal.verdicts import verdict_sections
from idl_audit.report.wording import counted, figure, near_jumps, optimisation, plain, verdict_sentence

MANY_FILES: Final = 8
"""More within one folder are counted."""
_LEVELS: Final[Mapping[str, str]] = MappingProxyType({"info": "cyan", "warning": "yellow", "error": "red"})


def render(report: Report, *, console: Console, verbose: bool = False) -> None:
    """Print the report on the console, within its width.

    `verbose` prints every row of long tables and, whatever the command, the model's blocks.
    """
    console.print(Text(verdict_sentence(report), style="bold"))
    for title, body in _sections(report, wide=console.width >= WIDE, verbose=verbose):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(Padding(body, (0, 0, 0, 2), expand=False))


def _sections(report: Report, *, wide: bool, verbose: bool) -> Iterable[Section]:
    most = None if verbose else MAX_ROWS
    if report.model is not None:
        yield "Model", _model(report.model, report.conversion)
    if report.conversion is not None and report.conversion.blocks and (verbose or report.command == "convert"):
        yield heading("Blocks", len(report.conversion.blocks), most), _blocks(report.conversion, most)
    if report.sensitivity is not None:
        yield from sensitivity_sections(report, report.sensitivity, most)
    if report.bounds:
        yield from bounds_sections(report, most, wide=wide)
    if report.compression is not None:
        yield from compression_sections(report, report.compression, most, wide=wide)
    if report.training is not None:
        yield from training_sections(report.training, most)
    if report.comparison is not None:
        yield from comparison_sections(report, report.comparison, most, wide=wide)
    if report.monotonicity is not None:
        yield from monotone_sections(report, report.monotonicity, most)
    if report.everywhere is not None:
        yield from everywhere_sections(report.everywhere, most)
    if report.hardening is not None:
        yield from hardening_sections(report.hardening)
    if report.predictions:
        yield from prediction_sections(report, most)
    if report.verification is not None:
        yield "Verification", _verification(report.verification)
    if report.verification is not None and report.verification.files:
        files = report.verification.files
        yield heading("Files, refused ones first", len(files), most), _checked_files(files, most)
    if report.summary is not None and report.summary.per_eps:
        yield from verdict_sections(report, report.summary, most, wide=wide)
    if report.objectives:
        yield from objective_sections(report, most, wide=wide)
    if report.properties:
        yield from property_sections(report, None if report.command == "bench" else most, wide=wide)
    if report.gate is not None:
        yield from gate_sections(report, report.gate, most)
    if report.diagnostics:
        yield "Diagnostics (`idl-audit explain CODE` says more)", _diagnostics(report.diagnostics)
    if report.artifacts:
        yield "Files written", Text("\n".join(_files(report.artifacts, verbose=verbose)))


def _files(names: Sequence[str], *, verbose: bool) -> Iterator[str]:
    """Yield the names of files; of a folder with many, where it is not `verbose`, how many there are."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(os.path.dirname(name), []).append(name)
    for folder, within in by_folder.items():
        if verbose or not folder or len(within) <= MANY_FILES:
            yield from map(plain, within)
        else:
            yield f"{plain(folder)}: {len(within):,} files, {plain(os.path.basename(within[0]))} and others (-v: all)"


def _model(model: ModelInfo, conversion: Conversion | None) -> Table:
    rows = grid()
    pair(rows, "file", f"{plain(model.path)} ({plain(model.format)}, sha256 {model.sha256[:12]})")
    opset = "" if model.opset is None else f"opset {model.opset}"
    if model.producer:
        pair(rows, "written by", ", ".join(filter(None, (plain(model.producer), opset))))
    elif opset:
        pair(rows, "operators of", opset)
    if model.arithmetic != "float32":
        pair(rows, "computes in", plain(model.arithmetic))
    if model.reads_whole_numbers:
        pair(rows, "reads", f"{plain(model.input_type)} (whole numbers)")
    if model.inputs:
        pair(rows, "inputs", ", ".join(f"{plain(one.name)} ({_shape(one.shape)})" for one in model.inputs))
    else:
        pair(rows, "input", _shape(model.input_shape))
    if model.fixed_inputs:
        pair(rows, "held fixed", ", ".join(plain(one.name) for one in model.fixed_inputs))
    if model.n_outputs:
        name = "" if model.output_name is None else f" ({plain(model.output_name)})"
        pair(rows, "outputs", f"{model.n_outputs:,}{name}")
    if model.arch is not None:
        pair(rows, "network by", plain(model.arch))
    pair(rows, "parameters", f"{model.n_parameters:,}")
    if model.ops:
        pair(rows, "operators", ", ".join(f"{plain(op)} {count}" for op, count in model.ops.items()))
    if model.external_files:
        pair(rows, "weights in", ", ".join(plain(name) for name in model.external_files))
    if model.stripped_output:
        pair(rows, "left out", f"{plain(model.stripped_output)} at the output")
    if model.threshold is not None:
        pair(rows, "classes", f"1 where the output is above {model.threshold!r}, else 0")
    if model.unsupported:
        pair(rows, "unsupported", Text("\n".join(plain(part) for part in model.unsupported), style="red"))
    if conversion is not None:
        _add_conversion(rows, conversion)
    return rows


def _add_conversion(rows: Table, found: Conversion) -> None:
    nnz, proof = found.nnz, found.well_posed
    pair(rows, "states", f"{found.n_states:,} ({found.structure})")
    memory = "" if found.estimated_mb is None else f" ({figure(found.estimated_mb)} MB as sparse matrices)"
    pair(rows, "nonzeros", f"A {nnz.A:,}, B {nnz.B:,}, C {nnz.C:,}, D {nnz.D:,}{memory}")
    pair(rows, "well posed", plain(proof.proof) + ("" if proof.value is None else f" ({figure(proof.value)})"))
    if found.norm_inf_A.before is not None:
        pair(rows, "||A||_inf", _rescaling(found.norm_inf_A))
    pair(rows, "agreement", Text("not checked", style="yellow") if found.check is None else _agreement(found.check))
    if found.equilibrium is not None:
        pair(rows, "equilibria", _equilibria(found.equilibrium))
    cost = [] if found.seconds is None else [f"{figure(found.seconds)} s"]
    cost += [] if found.peak_mb is None else [f"{found.peak_mb:,.0f} MB at most"]
    if cost:
        pair(rows, "cost", ", ".join(cost))


def _rescaling(found: Rescaling) -> str:
    kappa = "" if found.kappa is None else f" (kappa {figure(found.kappa)})"
    return f"{figure(found.before)}; after scaling {figure(found.after)}{kappa}"


def _verification(found: Verification) -> Table:
    rows = grid()
    if found.claim is not None:
        pair(rows, "claim", plain(found.claim))
    for name, text in facts(found.about) if found.about is not None else ():
        pair(rows, name, plain(text))
    if found.norm_inf is not None:
        pair(rows, "||S||_inf", f"{figure(found.norm_inf)}, proved")
    pair(rows, "checked", f"{counted(found.checked, 'claim')}, {len(found.refused)} refused")
    if found.refused:
        pair(rows, "refused", Text("\n".join(plain(reason) for reason in found.refused[:MAX_ROWS]), style="red"))
    return rows


def _checked_files(files: Sequence[CheckedFile], most: int | None) -> Table:
    rows = table(
        ("file", "left"), ("verdict", "left"), ("claims", "right"), ("what it claims, or why it is refused", "left")
    )
    for one in sorted(files, key=lambda one: one.accepted)[:most]:
        said = one.claim or "" if one.accepted else one.refused[0] if one.refused else "a claim does not hold"
        verdict = Text("accepted") if one.accepted else Text("refused", style="red")
        rows.add_row(plain(one.file), verdict, f"{one.checked}", plain(said))
    return rows


def _equilibria(found: EquilibriumCheck) -> str:
    return f"residual {figure(found.residual)} after at most {found.iterations} steps, on {found.n} inputs"


def _agreement(found: AgreementCheck) -> str:
    return (
        f"relative error {figure(found.max_rel_error)}, {found.argmax_agreement} of {found.n} classes equal, "
        f"against {plain(found.reference)}{optimisation(found)}{near_jumps(found)}"
    )


def _blocks(found: Conversion, most: int | None) -> Table:
    blocks = table(
        ("block", "left"), ("operator", "left"), ("activation", "left"), ("shape", "left"), ("states", "right")
    )
    for block in found.blocks[:most]:
        add_row(blocks, (block.name, block.op, block.activation, _shape(block.shape), f"{block.size:,}"))
    return blocks


def _diagnostics(found: Sequence[Diagnostic]) -> Table:
    rows = table(("code", "left"), ("level", "left"), ("message", "left"))
    for entry in found:
        message = Text(plain(entry.message))
        if entry.where is not None:
            message.append(f" [{plain(entry.where)}]", style="dim")
        if entry.hint is not None:
            message.append(f"\n{plain(entry.hint)}", style="italic")
        add_row(rows, (entry.code, Text(entry.level, style=_LEVELS[entry.level]), message))
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
