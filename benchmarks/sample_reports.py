"""Write reports/: the audit of each sample network, as JSON and as it looks on a terminal.

    python -m benchmarks.sample_reports [--out DIR]

With IDL_AUDIT_DATA set, also the first 20 MNIST test images on mnist-net_256x2 at eps 0.02.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.report.json_text import to_json
from idl_audit.report.schema import Report
from idl_audit.report.terminal import render

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("digits_mlp", "digits_conv", "digits_resnet")
SECONDS = 5.0
"""For a sample and radius: what is undecided by then stays so in the report."""


def sample_report(name: str, limit: int = 100) -> Report:
    """Return the report of one sample network: held-out images, eps 0.02 and 0.05, inputs in [0, 1]."""
    folder = Path("sample_models")
    data = DataOptions(folder / f"{name}.npz", limit=limit, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    options = RobustnessOptions(eps=parse_eps("0.02,0.05"), data=data, verdicts=Options(time_limit=SECONDS))
    return audit_robustness("certify", folder / f"{name}.onnx", options)


def mnist_report(folder: Path) -> Report:
    """Return the report on the first 20 MNIST test images, eps 0.02."""
    with np.load(folder / "mnist.npz") as archive, tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "mnist_20.npz"
        np.savez(path, inputs=archive["test_images"][:20] / 255.0, labels=archive["test_labels"][:20])
        data = DataOptions(path, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
        options = RobustnessOptions(eps=parse_eps("0.02"), data=data, verdicts=Options(time_limit=SECONDS))
        report = audit_robustness("certify", folder / "vnncomp/mnist_fc/mnist-net_256x2.onnx", options)
    model = report.model and report.model.model_copy(update={"path": "mnist-net_256x2.onnx"})
    source = report.data and report.data.model_copy(update={"source": "mnist.npz, test images 0-19"})
    return report.model_copy(update={"model": model, "data": source})


def write(report: Report, name: str, out: Path) -> None:
    """Write NAME.json and NAME.txt."""
    (out / f"{name}.json").write_text(to_json(report), encoding="utf-8")
    text = io.StringIO()
    render(report, console=Console(file=text, width=120, highlight=False), verbose=True)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    (out / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write all reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    for name in NAMES:
        write(sample_report(name), name, out)
    if "IDL_AUDIT_DATA" in os.environ:
        write(mnist_report(Path(os.environ["IDL_AUDIT_DATA"])), "mnist-net_256x2", out)


if __name__ == "__main__":
    main()
