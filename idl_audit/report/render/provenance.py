"""Sections on where the figures come from: model, data, threat model, run, time, and what the user should know."""

from __future__ import annotations

from collections.abc import Iterator

from idl_audit.report.claims import ARITHMETICS
from idl_audit.report.render.parts import Cell, Kind, Mark, Name, PairList, Pairs, Section, Share, Table, table
from idl_audit.report.schema import Conversion, DataInfo, Report, ThreatModel
from idl_audit.report.wording import (
    demand_text,
    figure,
    is_patch,
    near_jumps,
    optimisation,
    perturbation_text,
    saturates,
)

_LEVELS: dict[str, Kind] = {"info": "info", "warning": "warning", "error": "error"}


def diagnostics_section(report: Report) -> Iterator[Section]:
    """Yield what the user should know."""
    if report.diagnostics:
        rows = [
            (Mark(entry.level, _LEVELS[entry.level]), entry.code, entry.message, entry.where, entry.hint)
            for entry in report.diagnostics
        ]
        found = table("Diagnostics", ("level", "code", "message", "where", "what would help"), rows, shown=100)
        yield Section("diagnostics", "Diagnostics", (found,))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def model_section(report: Report) -> Iterator[Section]:
    """Yield the model file and its implicit form, with the blocks of states."""
    pairs = PairList()
    model = report.model
    if model is not None:
        pairs.add("file", Name(model.path))
        pairs.add("sha256", Name(model.sha256))
        pairs.add("format", model.format if model.opset is None else f"{model.format}, opset {model.opset}")
        pairs.add("written by", model.producer)
        pairs.add("computes in", None if model.arithmetic == "float32" else model.arithmetic)
        pairs.add("reads", f"{model.input_type} (whole numbers)" if model.reads_whole_numbers else None)
        pairs.add("weights in", ", ".join(model.external_files))
        if model.inputs:
            pairs.add("inputs", "; ".join(f"{one.name}: {_by(one.shape)}" for one in model.inputs))
        else:
            pairs.add("input", _by(model.input_shape))
        pairs.add("held fixed", "; ".join(one.name for one in model.fixed_inputs))
        pairs.add("outputs", f"{model.n_outputs:,}")
        pairs.add("output audited", None if model.output_name is None else Name(model.output_name))
        pairs.add("network by", None if model.arch is None else Name(model.arch))
        pairs.add("parameters", f"{model.n_parameters:,}")
        pairs.add("operators", ", ".join(f"{op} {count}" for op, count in model.ops.items()))
        pairs.add("left out", None if model.stripped_output is None else f"{model.stripped_output} at the output")
        classes = None if model.threshold is None else f"1 where the output is above {model.threshold!r}, else 0"
        pairs.add("classes", classes)
        pairs.add("unsupported", "; ".join(model.unsupported))
    if report.conversion is not None:
        _add_conversion(pairs, report.conversion)
    if pairs.rows:
        blocks = () if report.conversion is None else tuple(_blocks(report.conversion))
        yield Section("model", "Model", (pairs.done(), *blocks))


def _add_conversion(pairs: PairList, found: Conversion) -> None:
    nnz, proof, norm = found.nnz, found.well_posed, found.norm_inf_A
    pairs.add("states", f"{found.n_states:,} ({found.structure})")
    pairs.add("nonzeros", f"A {nnz.A:,}, B {nnz.B:,}, C {nnz.C:,}, D {nnz.D:,}")
    pairs.add("well posed", proof.proof if proof.value is None else f"{proof.proof} ({figure(proof.value)})")
    if norm.before is not None:
        kappa = "" if norm.kappa is None else f" (kappa {figure(norm.kappa)})"
        pairs.add("||A||_inf", f"{figure(norm.before)}; after scaling {figure(norm.after)}{kappa}")
    if found.check is None:
        pairs.add("agreement", Mark("not checked", "warning"))
    else:
        check = found.check
        error = f"largest error {figure(check.max_rel_error)} of max|y|"
        same = f"{check.argmax_agreement} of {check.n} classes equal"
        against = f"{check.reference}{optimisation(check)}{near_jumps(check)}"
        pairs.add("agreement with the original", f"{error}, {same}, against {against}")
    if found.equilibrium is not None:
        solved = found.equilibrium
        steps = f"after at most {solved.iterations} steps, on {solved.n} inputs"
        pairs.add("equilibria", f"residual {figure(solved.residual)} {steps}")


def _blocks(found: Conversion) -> Iterator[Table]:
    if found.blocks:
        largest = max(block.size for block in found.blocks) or 1
        rows: list[tuple[Cell, ...]] = [
            (
                Name(block.name),
                block.op,
                block.activation,
                " x ".join(map(str, block.shape)) or "1",
                Share(f"{block.size:,}", block.size / largest),
            )
            for block in found.blocks
        ]
        yield table("Blocks of states", ("block", "operator", "activation", "shape", "states"), rows, shown=12)


def provenance_section(report: Report) -> Iterator[Section]:
    """Yield data, threat model, environment, the exact command, and where the time went."""
    run = PairList()
    run.add("command", Name(report.command_line or f"idl-audit {report.command}"))
    run.add("created", report.created.isoformat(sep=" "))
    run.add("status", Mark(report.status, "good" if report.status == "complete" else "warning"))
    run.add("tool", f"{report.tool.name} {report.tool.version}")
    if report.data is not None:
        _add_data(run, report.data)
    if report.threat_model is not None:
        _add_threat(run, report.threat_model)
    run.add("asked of the outputs", demand_text(report) or None)
    environment = report.environment
    run.add("python", f"{environment.python} on {environment.platform}")
    run.add("libraries", ", ".join(f"{name} {version}" for name, version in environment.versions.items()))
    run.add("threads", environment.threads)
    run.add("searched on", environment.device)
    run.add("seed", environment.seed)
    if report.conversion is not None and report.conversion.peak_mb is not None:
        run.add("peak memory", f"{report.conversion.peak_mb:,.0f} MB")
    run.add("files written", ", ".join(report.artifacts))
    body: tuple[Pairs | Table, ...] = (run.done(),)
    if report.timing is not None:
        total = report.timing.total
        steps = [*report.timing.steps.items(), ("all", total)]
        rows = [(name, Share(f"{value:.2f} s", min(value / total, 1.0) if total else 0.0)) for name, value in steps]
        body = (*body, table("Time per phase", ("phase", "wall time"), rows, shown=100))
    yield Section("provenance", "Provenance", body)


def _add_data(pairs: PairList, data: DataInfo) -> None:
    pairs.add("data", Name(data.source))
    pairs.add("data sha256", Name(data.sha256))
    pairs.add("samples", f"{data.n:,}{_indices(data.indices)}")
    pairs.add("layout", data.layout)
    done = data.preprocessing
    parts = [] if done.scale == 1 else [f"scale {figure(done.scale)}"]
    parts += [f"{name} {_few(values)}" for name, values in (("mean", done.mean), ("std", done.std)) if values]
    pairs.add("preprocessing", ", ".join(parts) or "none: the network reads the data as they are")
    pairs.add("valid range", None if data.bounds is None else f"{data.bounds[0]:g} to {data.bounds[1]:g}")


def _indices(indices: tuple[int, ...]) -> str:
    if not indices:
        return ""
    if indices == tuple(range(indices[0], indices[0] + len(indices))):
        return f" (positions {indices[0]} to {indices[-1]})" if len(indices) > 1 else f" (position {indices[0]})"
    return f" (positions {', '.join(map(str, indices[:20]))}{', ...' if len(indices) > 20 else ''})"


def _few(values: tuple[float, ...]) -> str:
    return ", ".join(figure(value) for value in values[:4]) + (f", ... ({len(values)})" if len(values) > 4 else "")


def _add_threat(pairs: PairList, threat: ThreatModel) -> None:
    if threat.set == "perturbed":
        drawn = f", as pictures of {' x '.join(map(str, threat.picture))}" if threat.picture else ""
        text = f"{'any values in ' if is_patch(threat) else 'eps times '}{perturbation_text(threat)}{drawn}"
        text += ", inputs saturating" if threat.clip is not None and saturates(threat.perturbation) else ""
    elif threat.norm != "linf":
        text = f"the inputs may move by at most eps in the {threat.norm} norm, all together"
    elif threat.k is None:
        text = "every input may move by at most eps"
    else:
        text = f"at most {threat.k} inputs may move, each by at most eps"
    if threat.features is not None:
        text = f"valid rows of {threat.features} whose features move by at most eps times their radii"
    if threat.fair:
        text = f"valid rows of {threat.features} in which the protected features alone differ"
    if threat.sigma is not None and threat.norm != "linf":
        text += f", changes in units of each input's own radius in {threat.sigma}"
    elif threat.sigma is not None:
        text += f" times its own radius in {threat.sigma}"
    if threat.clip is not None:
        text += f", within {threat.clip[0]:g} to {threat.clip[1]:g}"
    if threat.free:
        text += f"; inputs {', '.join(map(str, threat.free))} move through the whole range"
    if threat.target is not None:
        text += f"; only class {threat.target} counts"
    pairs.add("threat model", text)
    pairs.add("arithmetic", ARITHMETICS[threat.arithmetic])
    pairs.add("eps", ", ".join(point.text for point in threat.eps))
