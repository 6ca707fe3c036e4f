"""What the commands that only read reports are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idl_audit.commands.options import common as c
from idl_audit.gate.rules import EXAMPLE, MEANINGS
from idl_audit.values.errors import OptionError
from idl_audit.values.options import PATH, REQUIRED, SWITCH, TEXT, Declared, group, one_of, option


@dataclass(frozen=True)
class Gate(Declared):
    """Judge a report by rules.

    An incomplete report fails. Counts are compared exactly: 899 of 1000 are
    less than 0.90. drop(clean_accuracy) and drop(certified_accuracy@2/255)
    compare with --baseline.
    """

    report: Path = c.model(help="A report.json of certify, attack, sensitivity or run.", in_file=False)
    require: tuple[str, ...] = option(
        (),
        TEXT,
        f"A rule that must hold, such as '{EXAMPLE}', or with '90 %'; may be given several times. It is about "
        f"{', '.join(MEANINGS)}; 'drop <= 0.01' compares every certified accuracy with --baseline.",
        metavar="RULE",
        several=True,
    )
    warn: tuple[str, ...] = option((), TEXT, "A rule that only warns.", metavar="RULE", several=True)
    baseline: Path | None = option(
        None, PATH, "An earlier report on the same data under the same threat model.", metavar="FILE"
    )
    known: Path | None = option(
        None,
        PATH,
        "A list of samples that may fail, with reasons: no rule counts them until the entry's last day.",
        metavar="FILE.toml",
    )
    update_baseline: bool = option(
        False, SWITCH, "Where the gate passes, make the report the new baseline.", in_file=False
    )
    config: Path | None = option(None, PATH, c.CONFIG, "-c", in_file=False)
    printing: c.Printing = group(c.Answer)


@dataclass(frozen=True)
class Diff(Declared):
    """Tell what changed from one report to the next: counts, and each sample with another verdict.

    The models may differ; data and threat model must not. Worse are: a sample
    with a worse verdict (certified, unknown, falsified, clean_wrong, from best
    to worst), a lower clean accuracy, an incomplete report.
    """

    old: Path = c.model(help="The earlier report.json.")
    new: Path = c.model(help="The later report.json, on the same data.")
    more: tuple[Path, ...] = option(
        (),
        PATH,
        "Further reports: all become rows of one table, and each is compared with the first where it can be.",
        metavar="REPORT...",
        positional=True,
        several=True,
    )
    exit_code: bool = option(False, SWITCH, "Exit with 1 where the network got worse.")
    printing: c.Printing = group(c.Printing, without=("output", "quiet", "force"))
    quiet: bool = option(
        False,
        SWITCH,
        "Print no tables, only errors: the exit code is the answer, as with --exit-code. -f json is still done.",
        "-q",
        panel=c.OUTPUT,
        rank=8,
    )


@dataclass(frozen=True)
class Merge(Declared):
    """Make one report of those of all shards of an audit: what one run would have written, but for its times.

    certify and attack with --shard I/N write the shards, anywhere and in any
    order. What does not belong together is refused by name: another model,
    data, threat model or version, a shard that is missing, there twice, or
    incomplete.
    """

    reports: tuple[Path, ...] = option(
        (), PATH, "The report.json of every shard.", metavar="REPORT...", positional=True, several=True, in_file=False
    )
    printing: c.Printing = group(c.Printing)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reports:
            raise OptionError("give the reports of all shards: idl-audit merge part-*.json -o whole.json")


@dataclass(frozen=True)
class Rendering(Declared):
    """Make a page or a summary of a report: HTML, Markdown, JUnit XML, GitHub annotations, SARIF. It computes nothing.

    html: one self-contained file. markdown: for the summary of a job. junit: gate rules and samples as tests; where
    the report has a gate, only its rules can fail. github: ::error and ::warning lines for a workflow's log. sarif:
    the same for views of code scanning.
    """

    report: Path = c.model(help="A report.json that a command wrote with -o.")
    more: tuple[Path, ...] = option(
        (),
        PATH,
        "Further reports of the same model and samples, for one page: of sensitivity, bounds, attack --objective ...",
        positional=True,
        several=True,
    )
    format: str | None = option(
        None,
        one_of(*c.FORMS, noun="form"),
        f"What to make of it: {', '.join(c.FORMS)}; by default what the name of -o ends in (.html, .md, .xml, .sarif, "
        ".txt), else tables.",
        "-f",
        metavar="FORM",
    )
    output: Path | None = option(None, PATH, "Write to this file.", "-o")
    adversarial: Path | None = option(
        None,
        PATH,
        "HTML: the .npz that --save wrote, for pictures of adversarial inputs. Found by itself beside the report.",
        metavar="ADV.npz",
    )
    matrix: Path | None = option(
        None,
        PATH,
        "HTML: the .npz that sensitivity --save wrote, for a heat map of each output. Found by itself, too.",
        metavar="S.npz",
    )
    image_shape: tuple[int, ...] | None = c.image_shape()
    force: bool = c.force()
    quiet: bool = c.notes()
    verbose: bool = option(False, SWITCH, "Print every row of long tables.", "-v", panel=c.OUTPUT, rank=9)


@dataclass(frozen=True)
class History(Declared):
    """Keep reports of many commits in one file, and tell how a model's figures moved: add, show, plot.

    add REPORT... --commit HASH keeps reports; show prints what moved; plot -o
    history.html (or .png) draws it. Reports on other samples or threat models
    are told apart. Several processes may add at once.
    """

    action: str = option(
        REQUIRED, one_of("add", "show", "plot"), "add, show or plot.", positional=True, metavar="ACTION", in_file=False
    )
    reports: tuple[Path, ...] = option(
        (), PATH, "For add: reports to keep.", metavar="[REPORT]...", positional=True, several=True, in_file=False
    )
    commit: str | None = option(None, TEXT, "For add: the commit that the reports are of.", metavar="HASH")
    database: Path = option(Path("idl-audit-history.sqlite"), PATH, "The file that keeps them.", metavar="FILE")
    model: str | None = option(None, TEXT, "Only reports of the model file with this name.", metavar="NAME")
    output: Path | None = c.file("For plot: the page (.html) or picture (.png) to write.", "-o")
    format: str = option("table", one_of("table", "json"), "For show: tables, or JSON.", "-f", panel=c.OUTPUT, rank=-2)
    force: bool = c.force()
    quiet: bool = c.notes()
    verbose: bool = option(
        False, SWITCH, "For show: all figures, of the last commits side by side.", "-v", panel=c.OUTPUT, rank=9
    )


@dataclass(frozen=True)
class Explain(Declared):
    """Say what a diagnostic code, a verdict or the reason of one means, and what to do about it."""

    code: str | None = option(
        None, TEXT, "IDLnnn, unknown, time_limit, ...: as reports have it; without it, all are listed.", positional=True
    )


@dataclass(frozen=True)
class Schema(Declared):
    """Print the JSON Schema of the reports, or of the configuration."""

    of: str = option(
        "report", one_of("report", "config"), "The reports, or the configuration.", positional=True, metavar="WHAT"
    )
