"""What bench's processes do in the tests of its faults; apart from them, so that a process loads little."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping

from idl_audit.commands.bench import Decided, Files, Row
from idl_audit.commands.shared.bench_resume import row_sha256
from idl_audit.commands.shared.workers import begun
from idl_audit.graph.files import combined_sha256, hashed
from idl_audit.report.schema import PropertyReport


def decided(row: Row) -> Decided:
    """Answer unsat at once."""
    return Decided(
        PropertyReport(onnx=row.instance.onnx, vnnlib=row.instance.vnnlib, result="unsat", truth=row.instance.truth)
    )


def decided_on_files(row: Row) -> Decided:
    """Answer unsat of the files that are there, the weights beside the network among them."""
    network = row.folder / row.instance.onnx
    beside = f"{row.instance.onnx}.data"
    own = combined_sha256(hashed(network).sha256, [hashed(row.folder / beside).sha256])
    files = Files(row_sha256(own, hashed(row.folder / row.instance.vnnlib).sha256), (beside,))
    report = decided(row).report.model_copy(update={"time_limit": row.seconds})
    return Decided(files.named(report))


def die() -> None:
    """End as the system ends a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    """End the process in an orderly way, without an answer."""
    os._exit(7)


def err() -> None:
    """Raise what nobody expects."""
    raise ZeroDivisionError("one over nothing")


def run_out_of_memory() -> None:
    """Run out of memory."""
    raise MemoryError


FAULTS: Mapping[str, tuple[Callable[[], None], str]] = {
    "die": (die, "signal 9"),
    "leave": (leave, "exit code 7"),
    "err": (err, "ZeroDivisionError: one over nothing"),
    "run_out_of_memory": (run_out_of_memory, "ran out of memory"),
}
"""Name -> what happens to a process, and words of what is said of its row."""


def end_as_the_property_says(row: Row) -> Decided:
    """Have the fault that the property is called by; answer unsat where it is called otherwise."""
    fault = FAULTS.get(row.instance.vnnlib.removesuffix(".vnnlib"))
    if fault is not None:
        fault[0]()
    return decided(row)


def hang_at_the_second(row: Row) -> Decided:
    """Begin and never answer."""
    if row.number == 1:
        begun()
        time.sleep(1000)
    return decided(row)
