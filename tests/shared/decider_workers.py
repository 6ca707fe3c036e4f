"""What processes do with samples in the tests of their faults; apart from them, so that a process loads little."""

from __future__ import annotations

import os
import signal
import time

from idl_audit.commands.shared.sample_tasks import Batch, Decided, SampleTask
from idl_audit.commands.shared.workers import begun, tell
from idl_audit.decide.ladder import Result
from idl_audit.values.verdicts import Verdict


def decided(task: SampleTask) -> Decided:
    """Certify every radius at once, the later samples first."""
    if task.position == 0:
        time.sleep(0.5)
    result = Result(Verdict.CERTIFIED, task.label, "interval", lowers=(1.0,))
    results = {0.01: result, 0.02: result}
    return Decided(task.position, task.index, task.label, None, task.label, results)


def die_after_one_radius(task: SampleTask) -> Decided:
    """End at the second sample as the system ends a process that takes too much memory, with one radius told."""
    if task.position == 1:
        tell((0.01, Result(Verdict.CERTIFIED, task.label, "interval", lowers=(1.0,))))
        os.kill(os.getpid(), signal.SIGKILL)
    return decided(task)


def run_out_of_memory(task: SampleTask) -> Decided:
    """Run out of memory at the second sample."""
    if task.position == 1:
        raise MemoryError
    return decided(task)


def hang(task: SampleTask) -> Decided:
    """Begin the second sample and never answer."""
    if task.position == 1:
        begun()
        time.sleep(1000)
    return decided(task)


def read_forever(task: SampleTask) -> Decided:
    """Never begin the second sample."""
    if task.position == 1:
        time.sleep(1000)
    return decided(task)


def die_on_batches(task: SampleTask | Batch) -> Decided:
    """End at a batch as the system ends a process, and decide single samples."""
    if isinstance(task, Batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return Decided(task.position, task.index, task.label)
