"""Write reports/properties.md: every VNN-LIB property of the data folder against the published truth.

    IDL_AUDIT_DATA=... python -m benchmarks.property_table [--cap 60] [--jobs 1] [--families a,b] [--out DIR]

Each family is one run of `bench`; its report is kept in --work and resumed from, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.measuring import machine
from idl_audit.commands.bench import audit_bench, is_wrong
from idl_audit.commands.options.many import BenchOptions
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import PropertyReport, Report

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ("sat", "unsat")
PACKAGES = ("numpy", "scipy", "torch", "onnxruntime")


def run_family(folder: Path, work: Path, *, cap: float, jobs: int) -> Report:
    """Decide the properties of one family, or what an earlier run has left of them."""
    kept = work / f"{folder.name}.json"
    earlier = from_json(kept.read_text(encoding="utf-8")) if kept.exists() else None

    def save(report: Report) -> None:
        kept.write_text(to_json(report), encoding="utf-8")

    report = audit_bench(folder / "instances.csv", BenchOptions(cap=cap, jobs=jobs, earlier=earlier), save=save)
    save(report)
    return report


def is_decided(entry: PropertyReport) -> bool:
    """Return whether we say sat or unsat."""
    return entry.result in KNOWN


def summary_row(family: str, entries: Sequence[PropertyReport]) -> str:
    """Return one family's row of the summary."""
    known = [entry for entry in entries if entry.truth in KNOWN]
    decided = [entry for entry in entries if is_decided(entry)]
    seconds = [entry.seconds for entry in decided if entry.seconds is not None]
    methods = Counter(entry.method for entry in decided)
    beyond = len(decided) - sum(map(is_decided, known))
    cells = (
        family,
        str(len(entries)),
        f"{sum(map(is_decided, known))} of {len(known)}",
        str(beyond),
        str(sum(map(is_wrong, entries))),
        f"{statistics.median(seconds):.2f}" if seconds else "-",
        f"{max(seconds):.2f}" if seconds else "-",
        ", ".join(f"{name} {count}" for name, count in methods.most_common()),
    )
    return f"| {' | '.join(cells)} |"


def family_rows(entries: Sequence[PropertyReport]) -> Iterator[str]:
    """Yield the rows of one family's table."""
    for entry in entries:
        ours = f"**{entry.result}, WRONG**" if is_wrong(entry) else entry.result
        seconds = "-" if entry.seconds is None else f"{entry.seconds:.2f}"
        cells = (entry.onnx, entry.vnnlib, entry.truth or "-", ours, seconds, entry.method or "-")
        yield f"| {' | '.join(cells)} |"


def table(found: Mapping[str, Report], *, cap: float, jobs: int) -> str:
    """Return the report as markdown."""
    wrong = sum(is_wrong(entry) for report in found.values() for entry in report.properties)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    lines = [
        "# Properties",
        "",
        f"Made by `python -m benchmarks.property_table --cap {cap:g} --jobs {jobs}`. Truth: the published "
        "answer, unknown where nobody found one. Seconds: one property with the reading of its file. "
        "sat has a witness that onnxruntime confirms inside the exact box; unsat is proved.",
        "",
        f"{machine(threads, PACKAGES)}.",
        "",
        f"{wrong} results contradict the truth.",
        "",
        "| family | properties | decided of known | decided beyond | wrong | median s | max s | methods |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
        *(summary_row(family, report.properties) for family, report in found.items()),
    ]
    for family, report in found.items():
        lines += ["", f"## {family}", "", "| network | property | truth | ours | seconds | method |"]
        lines += ["|---|---|---|---|---:|---|", *family_rows(report.properties)]
        told = [entry for entry in report.diagnostics if entry.level != "info"]
        lines += [""] * bool(told)
        lines += [f"- {entry.code} ({entry.where}): {entry.message}" for entry in told]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap", type=float, default=60.0, help="seconds for a property at most")
    parser.add_argument("--jobs", type=int, default=1, help="properties at the same time")
    parser.add_argument("--families", help="a comma list; all where it is left out")
    parser.add_argument("--work", type=Path, help="where the families' reports are kept and resumed from")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    folders = sorted(path.parent for path in Path(os.environ["IDL_AUDIT_DATA"]).glob("vnncomp/*/instances.csv"))
    if given.families is not None:
        folders = [folder for folder in folders if folder.name in given.families.split(",")]
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        found = {}
        for folder in folders:
            found[folder.name] = run_family(folder, work, cap=given.cap, jobs=given.jobs)
            print(summary_row(folder.name, found[folder.name].properties), flush=True)
    (given.out / "properties.md").write_text(table(found, cap=given.cap, jobs=given.jobs), encoding="utf-8")


if __name__ == "__main__":
    main()
