"""What `idl-audit harden` makes of networks: verdicts before and after, on samples that it has not seen.

    IDL_AUDIT_DATA=... python -m benchmarks.harden_table [--out reports/hardening.md] [--names digits_conv,new_wine]

Each network (benchmarks.hardened_networks) is a row of its own; rows of others that the report has already stay. Every
certified sample has a proof by `certify`; some are given to `verify` and to the checker of the tests, which shares no
code with it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.hardened_networks import CASES, DATA, Case, network, sample_script
from benchmarks.measuring import machine
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.harden import harden_model
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.options.training import HardenOptions
from idl_audit.commands.verify import verify
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.report.schema import EpsSummary, Hardening
from tests import independent_checker, independent_curves
from tests.independent_files import Refused

CHECKED: Final = 5
"""Proofs that `verify` is given, of each network; the first of them goes to the other checker, too."""
TIMES: Final = 3
MOST: Final = 0.9
"""Of a network that nothing was tuned on: so many times as many certified samples, or this share of clean ones."""
UNLIMITED: Final = 3600.0
"""Seconds a verdict: it is the nodes that end it, the same on every machine."""
HEAD: Final = (
    "| network | layers | eps | minutes | clean may fall by | weights | right of those that chose "
    "| samples | nodes | before | after | asked | proofs accepted | s |",
    "|---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---|---:|---:|",
)


def load_digits_split() -> Any:
    """Return the split that the sample networks were trained on."""
    return sample_script().load_split()


def audited(path: Path, case: Case, asked: argparse.Namespace, folder: Path, proofs: Path | None = None) -> EpsSummary:
    """Return the counts of verdicts on a file, with a proof of each certified sample where a folder is given."""
    options = RobustnessOptions(
        eps=tuple(parse_eps(case.eps)),
        data=DataOptions(path=folder / "audit.npz", limit=asked.images, preprocessing=Preprocessing(bounds=(0.0, 1.0))),
        verdicts=Options(time_limit=UNLIMITED, max_nodes=asked.nodes),
        certificates=proofs,
    )
    report = audit_robustness("certify", path, options)
    assert report.summary is not None
    return report.summary.per_eps[0]


def checked(proofs: Path, model: Path) -> str:
    """Return how many of some of the proofs the two checkers accept, and how many there are."""
    files = sorted(proofs.glob("*.npz"))
    some = files[:: max(1, len(files) // CHECKED)][:CHECKED]
    reports = [verify(file, model, ModelOptions()) for file in some]
    accepted = sum(one.verification is not None and one.verification.accepted for one in reports)
    return f"{accepted} of {len(some)}, {also(model, some)} ({len(files)} proofs)"


def also(model: Path, some: list[Path]) -> str:
    """Return how many of the first proof another checker accepts, or what the last of them does not read."""
    why = ""
    for checker in (independent_checker, independent_curves):
        try:
            return f"{sum(bool(checker.check(model, file)) for file in some[:1])} of {len(some[:1])}"
        except Refused as error:
            why = f"refused: {error}"
    return why


def counted(c: EpsSummary) -> str:
    """Return certified / attacked / undecided / wrong."""
    return f"{c.certified} / {c.falsified} / {c.unknown} / {c.clean_wrong}"


def reached(case: Case, before: EpsSummary, after: EpsSummary | None) -> str:
    """Return what was asked, and whether it was reached."""
    if case.asked is not None:
        met = after is not None and after.certified >= case.asked * after.n
        return f"{case.asked:.0%}: {'yes' if met else 'no'}"
    if after is None:
        return "no"
    enough = after.certified >= MOST * (after.n - after.clean_wrong)
    return "yes" if enough or after.certified >= TIMES * max(1, before.certified) else "no"


def row(case: Case, folder: Path, asked: argparse.Namespace) -> str:
    """Return one row of the table."""
    data = DATA[case.data]()
    for name, (inputs, labels) in (("train", data.train), ("holdout", data.holdout), ("audit", data.audit)):
        np.savez(folder / f"{name}.npz", inputs=inputs, labels=labels)
    model, proofs = network(case, data, folder), folder / "proofs"
    start, minutes = time.process_time(), asked.minutes or case.minutes
    options = HardenOptions(  # type: ignore[arg-type]
        out=folder / f"hardened_{case.name}.onnx",
        data=DataOptions(path=folder / "train.npz", preprocessing=Preprocessing(bounds=(0.0, 1.0))),
        eps=case.eps,
        minutes=minutes,
        keep_clean=case.keep,
        holdout=folder / "holdout.npz",
        force=True,
    )
    found = harden_model(model, options).hardening
    assert isinstance(found, Hardening)
    trained = time.process_time() - start
    before, after, accepted = audited(model, case, asked, folder), None, "-"
    if found.chosen is not None:
        after = audited(options.out, case, asked, folder, proofs)
        accepted = checked(proofs, options.out)
    kept = {one.name: one for one in (found.before, *found.front)}
    clean = f"{found.before.clean} -> {kept[found.chosen].clean if found.chosen else '-'} of {found.held_out}"
    cells = (
        *(case.layers, case.eps, f"{minutes:g}", case.keep, found.chosen or "none", clean, before.n, asked.nodes),
        *(counted(before), "-" if after is None else counted(after), reached(case, before, after), accepted),
    )
    return f"| {case.name} | {' | '.join(map(str, cells))} | {trained:.0f} |"


def _rows(path: Path) -> dict[str, str]:
    """Return the rows that the report has already."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    bars = HEAD[0].count("|")
    return {
        case.name: line
        for line in lines
        for case in CASES
        if line.startswith(f"| {case.name} |") and line.count("|") == bars
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/hardening.md"))
    parser.add_argument("--minutes", type=float, help="of training, in place of each network's own")
    parser.add_argument("--names", default=",".join(case.name for case in CASES))
    parser.add_argument("--images", type=int, default=200, help="samples that are audited, at most")
    parser.add_argument("--nodes", type=int, default=100, help="of each verdict's branching")
    asked = parser.parse_args()
    lines = [
        "# Hardened networks",
        "",
        "Made by `python -m benchmarks.harden_table --names NAME`, one network after the other (`--minutes` and "
        "`--images` as in the table: the budgets that are asked for stand in benchmarks.hardened_networks).",
        "",
        machine(1, ("numpy", "torch")),
        "",
        "Within [0, 1]. Verdicts are on samples that neither training nor choice has seen, each of at most so many "
        "nodes of branching: certified / attacked / undecided / wrong without any change. Every certified sample has "
        "a proof file; some are given to `verify`, and one to a checker that shares no code with it. Seconds are of "
        "the processor, for training and choice.",
        "",
        "The networks named digits_mlp, digits_conv and digits_resnet are the sample networks as they are shipped; the "
        "others were trained for accuracy alone. Nothing was tuned on those named new: of them three times as many "
        "certified samples are asked for, or 90 % of those that are right without any change.",
        "",
        "digits_conv and those named new were last measured when the first run began at a = 0.0125 and had less time.",
        "",
        *HEAD,
    ]
    for case in (case for name in asked.names.split(",") for case in CASES if case.name == name):
        with tempfile.TemporaryDirectory() as place:
            made = row(case, Path(place), asked)
        print(made, flush=True)
        rows = {**_rows(asked.out), case.name: made}
        asked.out.write_text("\n".join([*lines, *(rows[one.name] for one in CASES if one.name in rows)]) + "\n")


if __name__ == "__main__":
    main()
