"""What `idl-audit harden` makes of the sample networks: verdicts before and after, on images that it has not seen.

    python -m benchmarks.harden_table [--out reports/hardening.md] [--minutes 1] [--names digits_conv]

The networks were trained on scikit-learn's digits; the images held out then are halved: one half chooses between
trade-offs, the other is audited. Every certified image of the table has a proof by `certify`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

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

EPS = "0.1"
CHECKED = 5
"""Proofs that `verify` is given, of each network."""
NAMES = ("digits_mlp", "digits_conv", "digits_resnet")
FOLDER = Path("sample_models")


def files(folder: Path) -> dict[str, Path]:
    """Write the training images, and two halves of those held out."""
    digits, found = load_digits_split(), {}
    held, labels = digits.images.numpy(), digits.labels.numpy()
    half = len(held) // 2
    parts = {
        "train": (digits.train_images.numpy(), digits.train_labels.numpy()),
        "holdout": (held[:half], labels[:half]),
        "audit": (held[half:], labels[half:]),
    }
    for name, (inputs, own) in parts.items():
        found[name] = folder / f"{name}.npz"
        np.savez(found[name], inputs=inputs, labels=own)
    return found


def load_digits_split() -> Any:
    """Return the split that the sample networks were trained on."""
    place = FOLDER / "train.py"
    spec = importlib.util.spec_from_file_location("sample_models_train", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.load_split()


def audited(path: Path, data: Path, asked: argparse.Namespace, proofs: Path | None = None) -> EpsSummary:
    """Return the counts of verdicts on a file, with a proof of each certified image where a folder is given."""
    options = RobustnessOptions(
        eps=tuple(parse_eps(EPS)),
        data=DataOptions(path=data, limit=asked.images, preprocessing=Preprocessing(bounds=(0.0, 1.0))),
        verdicts=Options(time_limit=asked.verdict),
        certificates=proofs,
    )
    report = audit_robustness("certify", path, options)
    assert report.summary is not None
    return report.summary.per_eps[0]


def checked(proofs: Path, model: Path, most: int) -> str:
    """Return how many of some of the proofs `verify` accepts, and how many there are."""
    files = sorted(proofs.glob("*.npz"))
    some = files[:: max(1, len(files) // most)][:most]
    reports = [verify(file, model, ModelOptions()) for file in some]
    accepted = sum(one.verification is not None and one.verification.accepted for one in reports)
    return f"{accepted} of {len(some)} ({len(files)} proofs)"


def counted(c: EpsSummary) -> str:
    """Return certified / attacked / undecided / wrong."""
    return f"{c.certified} / {c.falsified} / {c.unknown} / {c.clean_wrong}"


def row(name: str, given: dict[str, Path], folder: Path, asked: argparse.Namespace) -> str:
    """Return one row of the table."""
    start = time.process_time()
    options = HardenOptions(  # type: ignore[arg-type]
        out=folder / f"{name}.onnx",
        data=DataOptions(path=given["train"], preprocessing=Preprocessing(bounds=(0.0, 1.0))),
        eps=EPS,
        minutes=asked.minutes,
        keep_clean=asked.keep,
        holdout=given["holdout"],
        force=True,
    )
    model, proofs = FOLDER / f"{name}.onnx", folder / name
    found = harden_model(model, options).hardening
    assert isinstance(found, Hardening)
    trained = time.process_time() - start
    before, after, accepted = audited(model, given["audit"], asked), "-", "-"
    if found.chosen is not None:
        after = counted(audited(options.out, given["audit"], asked, proofs))
        accepted = checked(proofs, options.out, CHECKED)
    kept = {one.name: one for one in (found.before, *found.front)}
    clean = f"{found.before.clean} -> {kept[found.chosen].clean if found.chosen else '-'} of {found.held_out}"
    cells = (asked.minutes, asked.keep, found.chosen or "none", clean, before.n, counted(before), after, accepted)
    return f"| {name} | {' | '.join(map(str, cells))} | {trained:.0f} |"


def _rows(path: Path, bars: int) -> dict[str, str]:
    """Return the rows of other networks that the table has already, of so many columns."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {
        name: line for line in lines for name in NAMES if line.startswith(f"| {name} |") and line.count("|") == bars
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/hardening.md"))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--keep", default="0.5%")
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--images", type=int, default=200, help="that are audited, at most")
    parser.add_argument("--verdict", type=float, default=10.0, help="seconds for each verdict")
    asked = parser.parse_args()
    lines = [
        "# Hardened sample networks",
        "",
        f"Made by `python -m benchmarks.harden_table --minutes {asked.minutes:g} --keep {asked.keep} "
        f"--images {asked.images} --verdict {asked.verdict:g} --names NAME`, one network after the other.",
        "",
        machine(1, ("numpy", "torch")),
        "",
        f"eps {EPS} within [0, 1]. Verdicts are on images that neither training nor choice has seen, at most "
        f"{asked.verdict:g} s each: certified / attacked / undecided / wrong without any change. Every certified image "
        "has a proof file; some are given to `verify`. Seconds are of the processor, for training and choice.",
        "",
        "| network | minutes | clean accuracy may fall by | weights | right of those that chose "
        "| images | before | after | proofs accepted | s |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        given = files(folder)
        for name in asked.names.split(","):
            made = row(name, given, folder, asked)
            print(made, flush=True)
            rows = {**_rows(asked.out, made.count("|")), name: made}
            asked.out.write_text("\n".join([*lines, *(rows[key] for key in NAMES if key in rows)]) + "\n")


if __name__ == "__main__":
    main()
