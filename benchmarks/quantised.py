"""Quantise a network statically, then audit both: how much of what is certified does int8 keep?

    python -m benchmarks.quantised MODEL.onnx DATA.npz EPS FOLDER [--limit N] [--time-limit SECONDS]

Writes FOLDER/int8.onnx and FOLDER/int8_per_channel.onnx (QDQ format, calibrated on the first samples), certifies both
and the float network, checks every certificate again, and prints one row for each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.verify import verify
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from tests.shared.quantised import quantised

CALIBRATION = 100
"""Samples that ranges are taken from."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("eps")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--time-limit", type=float, default=20.0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    inputs = np.load(asked.data)["inputs"][-CALIBRATION:]
    models = {"float32": asked.model}
    for name, per_channel in (("int8", False), ("int8_per_channel", True)):
        models[name] = quantised(asked.model, asked.folder / f"{name}.onnx", inputs, per_channel=per_channel)
    print("| network | certified | falsified | unknown | clean wrong | certificates accepted | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, path in models.items():
        print(_row(name, path, asked))


def _row(name: str, path: Path, asked: argparse.Namespace) -> str:
    proofs = asked.folder / f"proofs_{name}"
    options = RobustnessOptions(
        eps=parse_eps(asked.eps),
        data=DataOptions(asked.data, limit=asked.limit, preprocessing=Preprocessing(bounds=(0.0, 1.0))),
        verdicts=Options(time_limit=asked.time_limit),
        certificates=proofs,
        force=True,
    )
    report = audit_robustness("certify", path, options)
    assert report.summary is not None
    (counts,) = report.summary.per_eps
    made = [Path(file) for file in report.artifacts if file.endswith(".npz")]
    accepted = sum(_is_accepted(file, path) for file in made)
    cells = (counts.certified, counts.falsified, counts.unknown, counts.clean_wrong)
    return f"| {name} | " + " | ".join(map(str, cells)) + f" | {accepted} of {len(made)} | {report.timing.total:.0f} |"


def _is_accepted(proof: Path, model: Path) -> bool:
    found = verify(proof, model, ModelOptions()).verification
    return found is not None and found.accepted


if __name__ == "__main__":
    main()
