"""What limits hold: `python -m benchmarks.limits_table [--only start,clock,memory] [--networks resnet]`.

IDL_AUDIT_DATA adds the networks of its folder; --networks leaves those whose names have one of some parts.

Start-up: processor time of a command as a multiple of that of `python -c pass`. Clock: what one sample took, as a share
of --time-limit, by every method that fits; loading the model and libraries is no part of it. Memory: by how much a
command's process grew beyond one that holds the libraries and reads the network, as a share of --max-memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import ROOT, machine
from idl_audit.decide.ladder import METHODS

SAMPLES = ROOT / "sample_models"
ROUNDS = 5
TIME_LIMIT = 1.0
MEMORY_LIMIT = 200
"""MB (10^6)."""
EPS = "0.01"
NETWORKS = (
    "cifar10_resnet/resnet_4b.onnx",
    "mnist_fc/mnist-net_256x4.onnx",
    "oval21/cifar_base_kw.onnx",
    "sri_resnet_a/resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx",
    "verivital/Convnet_avgpool.onnx",
)
"""Below the data folder's vnncomp/."""
ALONE: tuple[tuple[str, ...], ...] = (
    ("inspect",),
    ("sensitivity",),
    ("convert", "--flat"),
    ("reduce",),
    ("compress", "--prune", "0.2"),
)
"""Commands that need nothing but a network."""
SHORT = ("-e", EPS, "--time-limit", "5")
WITH_SAMPLES: tuple[tuple[str, ...], ...] = (
    ("bounds", *SHORT),
    ("bounds", *SHORT, "--sparse", "5"),
    ("certify", *SHORT, "--method", "interval,linear"),
    ("certify", *SHORT),
    ("attack", *SHORT, "--sparse", "5"),
    ("sensitivity", "-e", EPS),
    ("predict",),
)
"""Commands that need samples as well."""


@dataclass(frozen=True)
class Ran:
    """What a process took, and how it ended."""

    seconds: float
    """Of the processor."""
    megabytes: float
    """Its greatest resident memory, 10^6 bytes."""
    code: int
    told: str
    """The last line on stderr."""


def run(*arguments: str) -> Ran:
    """Run Python in a process of its own, with compiled modules and one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    unit = 1 if sys.platform == "darwin" else 1024
    return Ran(used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6, process.returncode, "".join(lines[-1:]))


def audited(command: str, *options: str) -> Ran:
    """Run a command of idl-audit."""
    return run("-m", "idl_audit", command, *options)


# --- start-up ---------------------------------------------------------------------------------------------------------


def start_ups(chosen: Iterable[Subject], folder: Path) -> Iterator[str]:
    """Yield the table of start-ups."""
    mlp, conv = str(SAMPLES / "digits_mlp"), str(SAMPLES / "digits_conv")
    asked = ("-e", "0.02", "--bounds", "0,1", "--limit", "1")
    cases = {
        "python -c pass": ("-c", "pass"),
        "python -c 'import numpy'": ("-c", "import numpy"),
        "--version": ("-m", "idl_audit", "--version"),
        "--help": ("-m", "idl_audit", "--help"),
        "inspect, dense": ("-m", "idl_audit", "inspect", f"{mlp}.onnx"),
        "inspect, convolutions": ("-m", "idl_audit", "inspect", f"{conv}.onnx"),
        "first verdict, dense": ("-m", "idl_audit", "certify", f"{mlp}.onnx", "-d", f"{mlp}.npz", *asked),
        "first verdict, convolutions": ("-m", "idl_audit", "certify", f"{conv}.onnx", "-d", f"{conv}.npz", *asked),
    }
    found: dict[str, list[Ran]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, arguments in cases.items():
            found[name].append(run(*arguments))
    least = {name: min(one.seconds for one in runs) for name, runs in found.items()}
    yield from ("", "| start-up | processor s | times `pass` | MB |", "|---|---:|---:|---:|")
    for name, runs in found.items():
        ratio = least[name] / least["python -c pass"]
        yield f"| {name} | {least[name]:.2f} | {ratio:.0f} | {max(one.megabytes for one in runs):.0f} |"


# --- networks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A network with samples that it classifies as they are labelled."""

    model: Path
    data: Path

    @property
    def samples(self) -> tuple[str, ...]:
        """The options that name its first sample."""
        return ("-d", str(self.data), "--limit", "1")


def networks(folder: Path) -> dict[str, Path]:
    """Return our own networks and those of the data folder by name."""
    root = Path(os.environ.get("IDL_AUDIT_DATA", "")) / "vnncomp"
    own = {name: folder / f"{name}.onnx" for name in ("image_to_image", "resnet18_narrow")}
    return own | {Path(name).stem: root / name for name in NETWORKS if (root / name).is_file()}


def make(folder: Path) -> None:
    """Write our own networks, and random samples in [0, 1] for all, labelled by their own predictions.

    In a process of its own: what torch takes would count as the memory of every process that is started after it.
    """
    import numpy as np
    import onnxruntime
    import torch

    from benchmarks.architectures import image_to_image, resnet18

    files = networks(folder)
    own = {"image_to_image": (image_to_image(), (1, 1, 28, 28)), "resnet18_narrow": (resnet18(4), (1, 3, 32, 32))}
    for name, (module, shape) in own.items():
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (torch.zeros(shape),), str(files[name]), dynamo=False)
    for name, path in files.items():
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0]
        shape = tuple(size if isinstance(size, int) else 1 for size in entry.shape)
        points = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
        labels = [int(np.asarray(session.run(None, {entry.name: point})[0]).argmax()) for point in points]
        np.savez(folder / f"{name}.npz", inputs=points.reshape(3, -1), labels=labels)


def subjects(folder: Path) -> Iterator[Subject]:
    """Yield the sample models and the networks that `make` wrote samples for."""
    for name in ("mlp", "conv", "resnet"):
        yield Subject(SAMPLES / f"digits_{name}.onnx", SAMPLES / f"digits_{name}.npz")
    yield Subject(SAMPLES / "digits_mondeq.npz", SAMPLES / "digits_mlp.npz")
    yield from (Subject(path, folder / f"{name}.npz") for name, path in networks(folder).items())


# --- clock ------------------------------------------------------------------------------------------------------------


def clocks(chosen: Iterable[Subject], folder: Path) -> Iterator[str]:
    """Yield the table of what one sample takes."""
    yield from ("", f"| network | command | method | verdict | share of {TIME_LIMIT:g} s |", "|---|---|---|---|---:|")
    for subject in chosen:
        for command in (("certify",), ("attack", "--sparse", "5")):
            for method in ("", *METHODS):
                row = clock_row(subject, command, method, folder / "report.json")
                if row:
                    yield row


def clock_row(subject: Subject, command: tuple[str, ...], method: str, report: Path) -> str:
    """Return the row of one sample; empty where the method does not fit."""
    chosen = ("--method", method) if method else ()
    limits = ("-e", EPS, "--bounds", "0,1", "--time-limit", str(TIME_LIMIT), "-q", "-f", "json", "-o", str(report))
    report.unlink(missing_ok=True)
    ran = audited(*command, str(subject.model), *subject.samples, *chosen, *limits)
    if not report.is_file():
        return "" if ran.code == 2 else f"| {subject.model.stem} | {' '.join(command)} | {method} | {ran.told} | |"
    (result,) = json.loads(report.read_text(encoding="utf-8"))["samples"][0]["results"]
    name, share = method or "as usual", result["seconds"] / TIME_LIMIT
    return f"| {subject.model.stem} | {' '.join(command)} | {name} | {result['verdict']} | {share:.2f} |"


# --- memory -----------------------------------------------------------------------------------------------------------


READ = "sys.argv = ['idl-audit', 'inspect', {!r}]; runpy.run_module('idl_audit', run_name='__main__')"
"""What reads a network in a process that has loaded more libraries."""


def memories(chosen: Iterable[Subject], folder: Path) -> Iterator[str]:
    """Yield the table of what commands take."""
    yield from ("", f"| network | command | MB | beyond libraries | of {MEMORY_LIMIT} MB |", "|---|---|---:|---:|---:|")
    limit = ("--max-memory", f"{MEMORY_LIMIT}MB")
    for subject in chosen:
        base = audited("inspect", str(subject.model))
        searching = run("-c", f"import torch, highspy, runpy, sys\n{READ.format(str(subject.model))}")
        for command in ALONE:
            writes = () if command[0] in ("inspect", "sensitivity") else ("-o", str(folder / "made.npz"), "--force")
            yield memory_row(subject, command, audited(*command, str(subject.model), *writes, *limit), base)
        for command in WITH_SAMPLES:
            bounds = () if command[0] == "predict" else ("--bounds", "0,1")
            ran = audited(*command, str(subject.model), *subject.samples, *bounds, *limit)
            yield memory_row(subject, command, ran, searching if command[0] in ("certify", "attack") else base)


def memory_row(subject: Subject, command: tuple[str, ...], ran: Ran, base: Ran) -> str:
    """Return the row of one command; a refusal is told in its own words."""
    more = ran.megabytes - base.megabytes
    told = f" ({ran.told})" if ran.code == 2 else ""
    figures = f"{ran.megabytes:.0f} | {more:.0f} | {more / MEMORY_LIMIT:.2f}"
    return f"| {subject.model.stem} | {' '.join(command)}{told} | {figures} |"


TABLES = {"start": start_ups, "clock": clocks, "memory": memories}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TABLES))
    parser.add_argument("--networks", default="")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make is not None:
        make(given.make)
        return
    print(machine(1, ("numpy", "scipy", "onnxruntime", "torch")))
    with tempfile.TemporaryDirectory() as scratch:
        run("-m", "benchmarks.limits_table", "--make", scratch)
        parts = given.networks.split(",")
        chosen = [one for one in subjects(Path(scratch)) if any(part in one.model.stem for part in parts)]
        for name in given.only.split(","):
            for line in TABLES[name](chosen, Path(scratch)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
