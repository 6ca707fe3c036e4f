"""What a newcomer sees: what to do next, and examples below the help of every command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from idl_audit import __version__

SAMPLE: Final = "sample_models/digits_mlp"

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "certify": (
            f"idl-audit certify {SAMPLE}.onnx -d {SAMPLE}.npz -e 0.02 --bounds 0,1",
            "idl-audit certify model.onnx -d images/ -e 1,2,4,8 --scale 1/255 --bounds 0,255 -o report.json",
            "idl-audit certify model.onnx property.vnnlib --time-limit 60",
        ),
        "attack": (
            f"idl-audit attack {SAMPLE}.onnx -d {SAMPLE}.npz -e 0.05 --bounds 0,1 --save adv.npz",
            "idl-audit attack model.onnx -d data.npz -e 8/255 --bounds 0,1 --sparse 10 --images pictures",
        ),
        "sensitivity": (
            f"idl-audit sensitivity {SAMPLE}.onnx --top 3 --save S.npz",
            "idl-audit sensitivity model.onnx -d data.npz -e 8/255 --bounds 0,1 --class 3",
        ),
        "bounds": (f"idl-audit bounds {SAMPLE}.onnx -d {SAMPLE}.npz -e 0.02 --bounds 0,1 --limit 5",),
        "compare": (
            f"idl-audit compare {SAMPLE}.onnx smaller.npz -d {SAMPLE}.npz -e 0.02 --bounds 0,1 --limit 20",
            "idl-audit compare old.onnx new.onnx -d data.npz -e 8/255 --bounds 0,1 --certificates proofs",
        ),
        "bench": ("idl-audit bench instances.csv --cap 60 --jobs 2 -o report.json --resume",),
        "convert": (
            f"idl-audit convert {SAMPLE}.onnx -o implicit.npz --spy structure.png",
            "idl-audit convert model.onnx -o implicit.npz --flat -d data.npz --json report.json",
        ),
        "convert-property": (
            "idl-audit convert-property prop_3.vnnlib.gz -o prop_3_v2.vnnlib --onnx model.onnx",
            "idl-audit convert-property property.vnnlib --element float32",
        ),
        "predict": (f"idl-audit predict {SAMPLE}.onnx -d {SAMPLE}.npz --limit 5 --save states.npz",),
        "reduce": (
            f"idl-audit reduce {SAMPLE}.onnx -o smaller.npz",
            "idl-audit reduce model.onnx -o smaller.npz --bounds 0,1 -d data.npz",
        ),
        "compress": (
            f"idl-audit compress {SAMPLE}.onnx --quantize 8 -d {SAMPLE}.npz -o smaller.npz",
            f"idl-audit compress {SAMPLE}.onnx --prune 0.05 -d {SAMPLE}.npz --report",
        ),
        "compose": (
            "idl-audit compose cascade features.npz classifier.npz -o both.npz",
            "idl-audit compose feedback plant.npz controller.onnx -o closed_loop.npz",
        ),
        "train": (
            f"idl-audit train {SAMPLE}.npz -o trained.npz --states 40 --bounds 0,1",
            "idl-audit train table.csv -o selected.npz --states 20 --select 8 --solver bcd",
        ),
        "harden": (
            "idl-audit harden model.onnx -d train.npz -e 0.1 --bounds 0,1 -o hardened.onnx --audit test.npz",
            "idl-audit harden model.onnx -d train.npz --holdout validation.npz -e 8/255 --bounds 0,1 -o hardened.onnx",
        ),
        "inspect": (f"idl-audit inspect {SAMPLE}.onnx",),
        "verify": ("idl-audit verify certificates/sample-0-eps-0.02.npz model.onnx",),
        "demo": ("idl-audit demo",),
        "init": (f"idl-audit init {SAMPLE}.onnx {SAMPLE}.npz",),
        "run": ("idl-audit run -o report.json",),
        "gate": ("idl-audit gate report.json --require 'certified_accuracy@0.02 >= 0.90'",),
        "diff": ("idl-audit diff old.json new.json --exit-code",),
        "merge": ("idl-audit merge part-*.json -o report.json",),
        "report": ("idl-audit report report.json -f html -o report.html",),
        "history": (
            "idl-audit history add report.json --commit $GITHUB_SHA",
            "idl-audit history plot -o history.html",
        ),
        "explain": ("idl-audit explain IDL101",),
        "schema": ("idl-audit schema > report.schema.json",),
    }
)
"""Command -> lines that work as they stand, or with your own files."""


def examples_of(command: str) -> str | None:
    """Return the text below a command's help; None where there are no examples."""
    lines = EXAMPLES.get(command)
    if lines is None:
        return None
    heading = "[bold]Example[/]" if len(lines) == 1 else "[bold]Examples[/]"
    return "\n\n".join([heading, *(f"  {line}".replace("[", r"\[") for line in lines)])


def what_next() -> str:
    """Return what to do first, with commands that work on the samples where these are at hand."""
    own = (
        "Your own network:\n"
        '  1. in Python   torch.onnx.export(model.eval(), (example,), "model.onnx")\n'
        '                 numpy.savez("data.npz", inputs=x, labels=y)\n'
        "  2. look        idl-audit inspect model.onnx\n"
        "  3. ask         idl-audit certify model.onnx -d data.npz -e 8/255 --bounds 0,1"
    )
    if Path(f"{SAMPLE}.onnx").is_file():
        sample = (
            "A network that comes with the code, 20 samples, some seconds:\n"
            f"  idl-audit certify {SAMPLE}.onnx -d {SAMPLE}.npz -e 0.02 --bounds 0,1 --limit 20"
        )
    else:
        sample = "No network at hand? One comes with the package, with samples; some seconds:\n  idl-audit demo"
    return (
        f"idl-audit {__version__}: how robust is the neural network in a file?\n\n{sample}\n\n{own}\n\n"
        "More: idl-audit --help (all commands), idl-audit certify --help (options and examples), docs/start.md"
    )
