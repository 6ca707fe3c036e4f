"""What `idl-audit harden` makes of the sample networks: verdicts before and after, on images that it has not seen.

    python -m benchmarks.harden_table [--out reports/hardening.md] [--minutes 1]

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
from idl_audit.commands.harden import harden_model
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.training import HardenOptions
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.report.schema import Audited, Hardening

EPS = "0.1"
NAMES = ("digits_mlp", "digits_conv", "digits_resnet")
FOLDER = Path("sample_models")


def files(folder: Path) -> dict[str, Path]:
    """Write the training images, and two halves of those held out."""
    digits, found = _split(), {}
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


def _split() -> Any:
    """Return the split that the sample networks were trained on."""
    place = FOLDER / "train.py"
    spec = importlib.util.spec_from_file_location("sample_models_train", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.load_split()


def counted(audit: Audited | None) -> str:
    """Return certified / attacked / undecided / wrong."""
    if audit is None:
        return "-"
    c = audit.counts
    return f"{c.certified} / {c.falsified} / {c.unknown} / {c.clean_wrong}"


def row(name: str, given: dict[str, Path], folder: Path, minutes: float, keep: str) -> str:
    """Return one row of the table."""
    start = time.process_time()
    data = DataOptions(path=given["train"], preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    options = HardenOptions(
        out=folder / f"{name}.onnx",
        data=data,
        eps=EPS,
        minutes=minutes,
        keep_clean=keep,
        holdout=given["holdout"],
        audit=given["audit"],
        time_limit=10,
        force=True,
    )
    found = harden_model(FOLDER / f"{name}.onnx", options).hardening
    assert isinstance(found, Hardening)
    assert found.audited_before is not None
    n = found.audited_before.counts.n
    chosen = "none" if found.chosen is None else found.chosen
    before, after = counted(found.audited_before), counted(found.audited_after)
    seconds = time.process_time() - start
    return f"| {name} | {minutes:g} | {keep} | {chosen} | {n} | {before} | {after} | {seconds:.0f} |"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/hardening.md"))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--keep", default="0.5%")
    parser.add_argument("--names", default=",".join(NAMES))
    asked = parser.parse_args()
    lines = [
        "# Hardened sample networks",
        "",
        f"Made by `python -m benchmarks.harden_table --minutes {asked.minutes:g} --keep {asked.keep} "
        f"--names {asked.names}`.",
        "",
        machine(1, ("numpy", "torch")),
        "",
        f"eps {EPS} within [0, 1]; verdicts on images that neither training nor choice has seen, at most 10 s each:",
        "certified / attacked / undecided / wrong without any change. Seconds are of the processor, audits included.",
        "",
        "| network | minutes | clean accuracy may fall by | weights | images | before | after | s |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        given = files(folder)
        for name in asked.names.split(","):
            lines.append(row(name, given, folder, asked.minutes, asked.keep))
            print(lines[-1], flush=True)
            asked.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
