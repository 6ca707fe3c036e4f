"""What certify --everywhere is asked for: statements over the whole range of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from idl_audit.commands.options import common as c
from idl_audit.commands.options.demands import DemandOptions
from idl_audit.commands.options.reading import SearchedModel
from idl_audit.commands.options.scores import Direction, class_of_score, monotone
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.statements import Never, parse_never
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_file, check_new_folder
from idl_audit.values.options import SWITCH, Declared, Reader, group, option
from idl_audit.values.verdicts import ArithmeticName

NEVER: Final = Reader(parse_never, was_read=lambda value: isinstance(value, Never))


NOTHING_ASKED: Final = (
    "--everywhere needs what is to hold: --above T, --below T, --never '2 where age < 30', --monotone 3+, or features "
    "with monotone in --features FILE"
)
NO_SCORE: Final = "--class names the score of --monotone; give both, or leave it out"
PLOT: Final = (
    "Draw the shares of samples that are certified and not falsified, over EPS, as a PNG; with --everywhere, where "
    "statements are open and where they fail, over two inputs."
)


def is_asked(given: Mapping[str, Any]) -> bool:
    """Return whether --everywhere is given."""
    return str(given.get("everywhere", "")).strip().lower() in {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class EverywhereOptions(Declared):
    """What certify --everywhere is asked for."""

    everywhere: bool = option(
        False,
        SWITCH,
        "Not around samples, but for all inputs within --bounds, or the ranges of --features: do outputs stay --above "
        "or --below T, is a class predicted --never where conditions hold, is a score --monotone? Tells the share of "
        "the range in which it is proved, where it fails, and what is open.",
        rank=7,
        in_file=False,
        panel=c.QUESTION,
    )
    never: tuple[Never, ...] = option(
        (),
        NEVER,
        "With --everywhere: class 2 is never predicted where these hold: '2 where age < 30 and sex = male'. Again for "
        "others.",
        metavar="STATEMENT",
        several=True,
        rank=7,
        panel=c.QUESTION,
    )
    monotone: Direction | None = monotone()
    label: int | None = class_of_score()
    limits: DemandOptions = group(DemandOptions, without=("task", "top", "within"))
    features: Path | None = c.features()
    axes: tuple[str, ...] | None = option(
        None,
        c.FEATURES,
        "With --everywhere: the two inputs that the picture of what is open is drawn over; those that parts were cut "
        "along most, unless given.",
        metavar="X,Y",
        rank=7,
        panel=c.QUESTION,
    )
    plot: Path | None = c.file(PLOT, metavar="FILE")
    certificates: Path | None = c.file("Folder for what proves each certified statement.", metavar="DIR")
    preprocessing: Preprocessing = group(Preprocessing)
    arithmetic: ArithmeticName = c.arithmetic()
    time_limit: float = c.time_limit()
    """Seconds for each statement."""
    max_nodes: int | None = c.max_nodes()
    seed: int = c.seed()
    model: SearchedModel = group(SearchedModel)
    force: bool = c.force()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.never or self.monotone or self.limits.has_limits or self.features):
            raise OptionError(NOTHING_ASKED)
        if self.arithmetic != "real":
            raise OptionError("--everywhere is proved in real arithmetic alone; leave --arithmetic out")
        if self.preprocessing.bounds is None and self.features is None:
            raise OptionError(
                "--everywhere needs the range of the inputs: give --bounds LO,HI, or --features FILE with ranges"
            )
        if self.monotone is not None and self.monotone.of_features and self.features is None:
            raise OptionError("--monotone features is what a file says of its features; give it with --features FILE")
        if self.label is not None and self.monotone is None and self.features is None:
            raise OptionError(NO_SCORE)
        if self.axes is not None and len(self.axes) != 2:
            raise OptionError("--axes must name two inputs, such as age,income or 0,3")
        if self.plot is not None:
            check_new_file(self.plot, force=self.force, ending=".png")
        if self.certificates is not None:
            check_new_folder(self.certificates, force=self.force)
