"""What bench and run are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idl_audit.commands.options import common as c
from idl_audit.commands.options.reading import IDLE, DataOptions, SearchedModel
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.columns import GroupColumn
from idl_audit.values.errors import OptionError
from idl_audit.values.options import PATH, SECONDS, TEXT, Declared, Reader, group, option, several_of
from idl_audit.values.verdicts import ArithmeticName

if TYPE_CHECKING:
    from idl_audit.report.schema import Report


@dataclass(frozen=True)
class BenchOptions(Declared):
    """How the properties of a list are to be decided."""

    arithmetic: ArithmeticName = c.arithmetic()
    cap: float | None = option(
        None,
        SECONDS,
        "Seconds for a property at most; less where the row's timeout is. Without it, rows that have no timeout get "
        "60. It is for everything but reading the network, which neighbouring rows share; a process that has no answer "
        "5 seconds later is ended.",
        metavar="SECONDS",
        panel=c.LIMITS,
    )
    max_nodes: int | None = c.max_nodes()
    """For a property, at most."""
    jobs: int = c.jobs("Properties decided at the same time.")
    scheduler: c.Scheduler | None = c.scheduler()
    worker_timeout: float | None = c.worker_timeout()
    device: str = c.device()
    seed: int = c.seed()
    earlier: Report | None = None
    """A report whose rows are kept and not decided again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        c.check_hands(self.jobs, self.scheduler, self.device, self.worker_timeout)


@dataclass(frozen=True)
class Bench(Declared):
    """Decide every VNN-LIB property of a list, each in a process of its own, and compare with the truth.

    The report at -o is written after each row. A row that cannot be judged - files that are missing or refused, a
    process that dies, too little memory - does not end the run, but makes the report incomplete.
    """

    instances: Path = c.model(
        help="CSV file with the columns onnx, vnnlib, timeout and perhaps truth; files relative to its folder."
    )
    options: BenchOptions = group(BenchOptions)
    printing: c.Printing = group(c.Printing)
    watching: c.Watching = group(c.Watching)
    resume: bool = c.resume(
        "Keep the rows that the report at -o has, by this version and on these files; decide the others."
    )


def _steps(text: str, flag: str) -> tuple[str, ...]:
    names: tuple[str, ...] = several_of(c.STEPS, "step").parse(text, flag)
    if {"certify", "attack"} <= set(names):
        raise OptionError(
            "one report has one set of verdicts: certify attacks as well, by the attacks in its method; "
            "leave certify or attack out of the steps"
        )
    return names


@dataclass(frozen=True)
class Run(Declared):
    """Do everything in the configuration and write one report: for CI.

    `idl-audit init MODEL DATA` writes a configuration. Options given here
    replace what it says. With tables [[audit]], each with a name and keys of
    its own, it does so for each, writes a report for each, and a page that
    compares them beside the index at -o.
    """

    model: Path | None = c.model(None, help="The model file, where the configuration has none.")
    config: Path | None = option(None, PATH, c.CONFIG, "-c", rank=-10, in_file=False)
    data: DataOptions | None = group(DataOptions, when=c.given("data"), otherwise=IDLE)
    eps: tuple[Eps, ...] | None = c.eps(None)
    steps: tuple[str, ...] = option(
        "sensitivity,certify", Reader(_steps), f"What to do, a list of: {', '.join(c.STEPS)}.", metavar="LIST", own=True
    )
    reading: SearchedModel = group(SearchedModel)
    preprocessing: Preprocessing = group(Preprocessing)
    group_by: tuple[GroupColumn, ...] = c.group_by()
    printing: c.Printing = group(c.Printing, without=("output",))
    watching: c.Watching = group(c.Watching)
    output: Path | None = c.file(
        "Write the report (JSON) to this file; with -f json nothing else is printed.", "-o", own=True, rank=-1
    )
    only: tuple[str, ...] = option(
        (),
        TEXT,
        "Of several audits ([[audit]] in the configuration) do only the one with this name. Again for others.",
        metavar="NAME",
        several=True,
        in_file=False,
        in_environment=False,
    )
    reports: tuple[Path, ...] = option(
        (),
        PATH,
        "Further files: .html, .md (Markdown), .xml (JUnit), .sarif.",
        several=True,
        own=True,
        typed=False,
        in_environment=False,
    )
    force: bool = c.force()
    arithmetic: ArithmeticName = c.arithmetic()
    time_limit: float = c.time_limit()
    max_nodes: int | None = c.max_nodes()
    jobs: int = c.jobs()
    scheduler: c.Scheduler | None = c.scheduler()
    worker_timeout: float | None = c.worker_timeout()
    resume: bool = c.resume(
        "Go on from the samples that an interrupted run with the same -o has decided (OUTPUT.journal)."
    )
    seed: int = c.seed()
