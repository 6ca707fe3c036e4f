"""Write reports/scale.md: what many samples cost, in memory, in the parent's time, in files and pages, and in all.

    IDL_AUDIT_DATA=... python -m benchmarks.scale [--images 2000] [--out DIR]

Processor seconds throughout: user and system time of a process and its children. The parent alone is measured with
processes that answer at once; verdicts are those of mnist_mlp_d3 at eps 0.01, with a certificate for each. Workers of
a Dask scheduler are processes of this machine on the loopback address.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fleet import fleet
from benchmarks.measuring import ROOT, machine, run_part
from idl_audit.commands import certify
from idl_audit.commands.options.common import Scheduler
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared import abroad, cluster, deciding
from idl_audit.commands.shared.sample_tasks import Batch, Decided, SampleTask, Setting
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, Result
from idl_audit.report.json_text import written
from idl_audit.report.render.extras import Extras
from idl_audit.report.render.html import to_html
from idl_audit.report.schema import Report
from idl_audit.values.verdicts import Verdict

PACKAGES = ("numpy", "torch", "onnxruntime", "pydantic", "distributed")
BOUNDS = (0.0, 1.0)


@dataclass
class AtOnce:
    """Certifies whatever it is asked about."""

    setting: Setting | None = None
    writes: bool = True
    """Whether it names a certificate."""

    def __call__(self, task: SampleTask | Batch) -> Decided | list[Decided]:
        """Answer a task."""
        return self.decided(task) if isinstance(task, SampleTask) else [self.decided(one) for one in task.left]

    def decided(self, task: SampleTask) -> Decided:
        """Return a sample as a certified one comes back."""
        lower = 1.0 + task.position / 7
        result = Result(Verdict.CERTIFIED, task.label, "linear", (lower,), seconds=0.00123, float_error=1.2e-5)
        names = [f"certificates/sample-{task.index}-eps-0.01.npz"] if self.writes else []
        return Decided(task.position, task.index, task.label, None, task.label, {0.01: result}, names)


def samples(n: int) -> Path:
    """Return the file of the first n MNIST images, written by another process: its memory is not the audit's."""
    path = Path(os.environ["SCALE_NETWORK"]).with_name(f"{n}.npz")
    if not path.exists():
        run_part("benchmarks.scale", "samples", 1, more=["--images", str(n)])
    return path


def write_samples(n: int) -> dict[str, float]:
    """Write the first n MNIST images, those of the test set first."""
    with np.load(Path(os.environ["IDL_AUDIT_DATA"]) / "mnist.npz") as file:
        pixels = np.concatenate([file["test_images"], file["train_images"]])[:n]
        labels = np.concatenate([file["test_labels"], file["train_labels"]])[:n]
    path = Path(os.environ["SCALE_NETWORK"]).with_name(f"{n}.npz")
    np.savez(path, inputs=(pixels.reshape(n, -1) / 255).astype(np.float32), labels=labels)
    return {}


def write_network(path: Path) -> None:
    """Write mnist_mlp_d3 as an ONNX file that reads normalised images."""
    import torch

    from benchmarks.architectures import mnist_mlp_d3

    module = mnist_mlp_d3()
    weights = Path(os.environ["IDL_AUDIT_DATA"]) / "models/mnist_mlp_d3.pt"
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    torch.onnx.export(module, (torch.zeros(1, 1, 28, 28),), path, input_names=["x"], output_names=["y"], dynamo=True)


def asked(folder: Path, data: Path, **more: Any) -> RobustnessOptions:
    """Return the options of an audit in a folder."""
    units = Preprocessing(mean=(0.1307,), std=(0.3081,), bounds=BOUNDS)
    verdicts = Options(record="certificates" in more)
    return RobustnessOptions(
        eps=parse_eps("0.01"),
        data=DataOptions(data, preprocessing=units),
        verdicts=verdicts,
        journal=folder / "journal",
        force=True,
        **more,
    )


def peak() -> float:
    """Return the peak memory of this process alone, in MB (10^6 bytes); Linux counts that of its parent elsewhere."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def parent(n: int) -> dict[str, float]:
    """Measure the parent of n samples, whose processes answer at once."""
    real = deciding.Decider
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = Path(os.environ["SCALE_NETWORK"])
        deciding.Decider = lambda setting: AtOnce()  # type: ignore[misc,assignment]
        try:
            start = time.process_time()
            report = certify.audit_robustness("certify", network, asked(folder, samples(n), jobs=2))
            pieces = sum(map(len, written(report)))
            seconds = time.process_time() - start
        finally:
            deciding.Decider = real  # type: ignore[misc]
        journal = (folder / "journal").stat().st_size
    return {"seconds": seconds, "peak_mb": peak(), "journal": journal / n, "report": pieces / n}


def verdicts(n: int) -> dict[str, Any]:
    """Decide n samples with certificates in one process."""
    spent: dict[str, float] = {}
    real = certify.decide_all

    def timed(*arguments: Any, **named: Any) -> Iterator[Decided]:
        start = time.process_time()
        yield from real(*arguments, **named)
        spent["seconds"] = time.process_time() - start

    certify.decide_all = timed  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = Path(os.environ["SCALE_NETWORK"])
        start = time.process_time()
        chosen = asked(folder, samples(n), certificates=folder / "certificates")
        report = certify.audit_robustness("certify", network, chosen)
        whole = time.process_time() - start
        files = list((folder / "certificates").iterdir())
        size = sum(file.stat().st_size for file in files)
    counts = Counter(sample.results[0].verdict.value for sample in report.samples)
    return {**spent, "whole": whole, "counts": counts, "files": len(files), "bytes": size / max(1, len(files))}


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far, its threads included."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def handed_out(n: int, *, alone: bool = False) -> dict[str, float]:
    """Measure parent and scheduler of n samples, which two workers answer at once; each alone, or in batches."""
    from benchmarks import scale as itself  # so that pickles name a module that workers can import

    sent: list[Any] = []
    send = cluster._Sender.send

    def counted(self: Any, task: Any, *more: Any) -> Any:
        sent.append(task)
        return send(self, task, *more)

    abroad.Decider = lambda setting: itself.AtOnce(setting, writes=False)  # type: ignore[misc,assignment]
    cluster._Sender.send = counted  # type: ignore[method-assign]
    if alone:
        deciding.samples_at_once = lambda *_: 1
    with tempfile.TemporaryDirectory() as name, fleet(Path(name) / "fleet", 2) as there:
        network, scheduler = Path(os.environ["SCALE_NETWORK"]), there.scheduler.pid
        chosen = asked(Path(name), samples(n), scheduler=Scheduler(there.address))
        before, start = processor_seconds(scheduler), time.process_time()
        certify.audit_robustness("certify", network, chosen)
        found = {"seconds": time.process_time() - start, "scheduler": processor_seconds(scheduler) - before}
    return {**found, "tasks": len(sent), "bytes": len(pickle.dumps(sent[0]))}


def one_by_one(n: int) -> dict[str, float]:
    """Measure parent and scheduler of n samples that are tasks of their own."""
    return handed_out(n, alone=True)


def seconds_of_session(leader: int) -> float:
    """Return the processor time so far of a process and all that it has started, those that have ended included."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            words = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(words[3]) == leader:
                found += sum(map(int, words[11:15]))
    return found / os.sysconf("SC_CLK_TCK")


FIRST = 64
"""Samples of one task: what they take is mostly the start of a worker's process."""


def workers(n: int) -> dict[str, Any]:
    """Measure n verdicts with certificates by one worker and by two: of two runs each the one of less wall time."""
    return {
        "one": min((_by_workers(n, 1) for _ in range(2)), key=lambda one: float(one["wall"])),
        "two": min((_by_workers(n, 2) for _ in range(2)), key=lambda one: float(one["wall"])),
        "start": _by_workers(FIRST, 1)["workers"][0],
        "load": os.getloadavg()[0],
    }


def _by_workers(n: int, count: int) -> dict[str, Any]:
    """Return the wall time of n verdicts by so many workers, and the processor time of each process."""
    with tempfile.TemporaryDirectory() as name, fleet(Path(name) / "fleet", count) as there:
        network = Path(os.environ["SCALE_NETWORK"])
        chosen = asked(
            Path(name),
            samples(n),
            certificates=Path(name) / "certificates",
            scheduler=Scheduler(there.address),
        )
        others = [there.scheduler.pid, *(one.pid for one in there.workers)]
        before, start = [seconds_of_session(pid) for pid in others], time.process_time()
        report = certify.audit_robustness("certify", network, chosen)
        parent = time.process_time() - start
        scheduler, *each = (seconds_of_session(pid) - old for pid, old in zip(others, before, strict=True))
    assert report.timing is not None
    return {"wall": report.timing.steps["verdicts"], "parent": parent, "scheduler": scheduler, "workers": each}


MACHINES = 1000
"""Cores of the model of the cost."""


def dask_lines(each: float, images: int) -> Iterator[str]:
    """Measure work that a scheduler hands out, and yield the tables; `each` is what a verdict takes, in ms."""
    few, many = 1000, 10_000
    batches = [run_part("benchmarks.scale", "batches", 1, more=["--images", str(n)]) for n in (few, many)]
    single = [run_part("benchmarks.scale", "single", 1, more=["--images", str(n)]) for n in (few // 10, few)]
    speed = run_part("benchmarks.scale", "workers", 1, more=["--images", str(images)])
    costs = {
        "in batches": _cost(*batches, more=many - few),
        "each alone": _cost(*single, more=few - few // 10),
    }
    yield "## Dask: samples that two workers decide at once"
    yield ""
    yield "| samples | tasks for 1,000 | bytes a task | parent, a sample | scheduler, a sample |"
    yield "|---|---:|---:|---:|---:|"
    for name, cost in costs.items():
        yield (
            f"| {name} | {1000 * cost['tasks']:.0f} | {cost['bytes']:,.0f} | {cost['parent']:.3f} ms | "
            f"{cost['scheduler']:.3f} ms |"
        )
    yield ""
    yield from _speed_lines(speed, images)
    yield ""
    yield f"## What {MACHINES:,} cores would do"
    yield ""
    yield (
        "Parent and scheduler work on one sample after the other: whichever takes longer for one bounds how many cores "
        "have work, and how many samples a second there are. Easy samples go in batches, others alone. A model, from "
        "the figures above; networks and disks are not in it."
    )
    yield ""
    yield f"| a sample takes | cores with work | samples a second, {MACHINES:,} cores | their bytes |"
    yield "|---|---:|---:|---:|"
    for name, ms, kind in (
        (f"{each:.1f} ms", each, "in batches"),
        ("1 s", 1e3, "each alone"),
        ("60 s", 6e4, "each alone"),
    ):
        cost = costs[kind]
        slowest = max(cost["parent"], cost["scheduler"])
        rate = 1e3 * min(MACHINES / ms, 1 / slowest)
        size = rate * cost["tasks"] * cost["bytes"]
        yield f"| {name} | {ms / slowest:,.0f} | {rate:,.0f} | {size / 1e6:,.1f} MB/s |"


def _speed_lines(speed: dict[str, Any], images: int) -> Iterator[str]:
    """Yield what two workers make of it, process by process."""
    one, two, start = speed["one"], speed["two"], speed["start"]
    yield f"{images:,} images with certificates, seconds of processor time of each process:"
    yield ""
    yield "| | one worker | two workers |"
    yield "|---|---:|---:|"
    for name in ("parent", "scheduler"):
        yield f"| {name} | {one[name]:.1f} | {two[name]:.1f} |"
    each = [" + ".join(f"{seconds:.1f}" for seconds in found["workers"]) for found in (one, two)]
    yield f"| workers, with the processes that decide | {each[0]} | {each[1]} |"
    every = [found["parent"] + found["scheduler"] + sum(found["workers"]) for found in (one, two)]
    yield f"| all | {every[0]:.1f} | {every[1]:.1f} |"
    yield f"| wall time of the verdicts | {one['wall']:.1f} | {two['wall']:.1f} |"
    yield ""
    apart, left = max(two["parent"], two["scheduler"], *two["workers"]), [seconds - start for seconds in two["workers"]]
    yield (
        f"Two workers are {one['wall'] / two['wall']:.2f} times as fast as one here, where four processes share two "
        f"cores (load {speed['load']:.1f}): on two cores all of their work takes {every[1] / 2:.1f} s at best. With a "
        f"core for each process the longest of them bounds it: {apart:.1f} s, {one['workers'][0] / apart:.2f} times as "
        f"fast. Of each worker {start:.1f} s are the start of its process and a first task of {FIRST} images; beside "
        f"these, one worker takes {one['workers'][0] - start:.1f} s, two take {left[0]:.1f} and {left[1]:.1f}."
    )


def _put_in(report: Path, table: list[str]) -> None:
    """Replace what a report says of two workers: all between the table of costs and the next heading."""
    text = report.read_text(encoding="utf-8").split("\n")
    first = max(number for number, line in enumerate(text) if line.startswith("| each alone |")) + 1
    last = next(number for number, line in enumerate(text) if line.startswith("## What"))
    report.write_text("\n".join([*text[:first], "", *table, "", *text[last:]]), encoding="utf-8")


def _cost(small: dict[str, float], large: dict[str, float], *, more: int) -> dict[str, float]:
    """Return what each of the samples costs that one run has more than another: tasks, and ms."""
    return {
        "parent": (large["seconds"] - small["seconds"]) / more * 1e3,
        "scheduler": (large["scheduler"] - small["scheduler"]) / more * 1e3,
        "tasks": (large["tasks"] - small["tasks"]) / more,
        "bytes": large["bytes"],
    }


def page(n: int) -> dict[str, float]:
    """Draw a page of n samples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = Path(os.environ["SCALE_NETWORK"])
        few = certify.audit_robustness("certify", network, asked(folder, samples(10)))
    start = time.process_time()
    made = to_html(_of_many(few, n), Extras())
    return {"seconds": time.process_time() - start, "bytes": len(made.encode())}


def _of_many(few: Report, n: int) -> Report:
    samples = tuple(few.samples[i % len(few.samples)].model_copy(update={"index": i}) for i in range(n))
    return few.model_copy(update={"samples": samples})


def lines(images: int) -> Iterator[str]:
    """Measure, each part in a process of its own, and yield the report."""
    found = run_part("benchmarks.scale", "verdicts", 1, more=["--images", str(images)])
    small, large = (run_part("benchmarks.scale", "parent", 1, more=["--images", str(n)]) for n in (1000, 10_000))
    yield "## The parent: MNIST images that processes decide at once"
    yield ""
    yield "| | 1,000 images | 10,000 images | each of the 9,000 more |"
    yield "|---|---:|---:|---:|"
    per = (large["seconds"] - small["seconds"]) / 9
    yield f"| processor time of the parent | {small['seconds']:.2f} s | {large['seconds']:.2f} s | {per:.3f} ms |"
    more = large["peak_mb"] - small["peak_mb"]
    yield f"| peak memory | {small['peak_mb']:.0f} MB | {large['peak_mb']:.0f} MB | {more / 9:.1f} kB |"
    yield f"| journal, a certified sample | {small['journal']:.0f} bytes | {large['journal']:.0f} bytes | |"
    yield f"| report.json, a certified sample | {small['report']:.0f} bytes | {large['report']:.0f} bytes | |"
    drawn = run_part("benchmarks.scale", "page", 1, more=["--images", "100000"])
    yield ""
    yield f"A page of 100,000 samples: {drawn['bytes'] / 1e6:.2f} MB in {drawn['seconds']:.1f} s of processor time."
    each = found["seconds"] / images * 1e3
    yield ""
    yield f"## Verdicts: mnist_mlp_d3 at eps 0.01, {images:,} images, a certificate each"
    yield ""
    yield "| verdict | images |"
    yield "|---|---:|"
    yield from (f"| {verdict} | {count} |" for verdict, count in sorted(found["counts"].items()))
    yield ""
    yield (
        f"{each:.2f} ms of processor time an image, certificates ({found['bytes'] / 1e3:.1f} kB each) and journal "
        f"included; {found['whole']:.1f} s in all, with reading and converting. At that pace 10,000 images take "
        f"{each * 10:.0f} s of processor time, {each * 5:.0f} s on two cores, beside what the processes need to start."
    )
    yield ""
    yield from dask_lines(each, images)


PARTS: dict[str, Any] = {
    "samples": write_samples,
    "parent": parent,
    "verdicts": verdicts,
    "page": page,
    "batches": handed_out,
    "single": one_by_one,
    "workers": workers,
}


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--only", choices=("workers",), help="measure this table alone, and put it into the report")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(PARTS[given.part](given.images)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SCALE_NETWORK"] = str(Path(folder) / "mnist_mlp_d3.onnx")
        write_network(Path(folder) / "mnist_mlp_d3.onnx")
        if given.only is not None:
            speed = run_part("benchmarks.scale", "workers", 1, more=["--images", str(given.images)])
            _put_in(given.out / "scale.md", list(_speed_lines(speed, given.images)))
            return
        head = ["# Many samples", "", f"Made by `python -m benchmarks.scale --images {given.images}`.", ""]
        text = [*head, machine(1, PACKAGES), "", *lines(given.images), ""]
    (given.out / "scale.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
