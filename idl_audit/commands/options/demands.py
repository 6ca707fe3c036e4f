"""What certify and attack may demand of the outputs, beside the class of the largest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from idl_audit.commands.options import common as c
from idl_audit.commands.options.reading import INDEX
from idl_audit.values.errors import OptionError
from idl_audit.values.options import Declared, Reader, one_of, option, whole

TASKS: Final = ("classification", "regression", "multilabel", "segmentation")

Kind = Literal["class", "top", "limits", "labels", "pixels"]
"""What is demanded: one class, a class among the first, limits of outputs, each label, the class of each pixel."""


def _positive(text: str, flag: str) -> float:
    value: float = c.NUMBER.parse(text, flag)
    if not value > 0:
        raise OptionError(f"{flag} must be above zero, not {text}")
    return value


@dataclass(frozen=True)
class DemandOptions(Declared):
    """What is to hold of the outputs at every point of a sample's set."""

    task: str | None = option(
        None,
        one_of(*TASKS),
        "What the outputs are: scores of one class each, of which the largest counts; numbers (--within, --above, "
        "--below); scores of labels, each by itself above --threshold or not; or a class for each pixel. Without it, "
        "classes, or numbers where one of their options is given.",
        metavar="NAME",
        rank=5,
        panel=c.QUESTION,
    )
    top: int | None = option(
        None,
        whole(1),
        "The label only has to stay among the first K classes.",
        metavar="K",
        rank=5,
        panel=c.QUESTION,
    )
    within: float | None = option(
        None,
        Reader(_positive),
        "No output may move by more than DELTA from its value at the sample; no labels are needed.",
        metavar="DELTA",
        rank=6,
        panel=c.QUESTION,
    )
    above: float | None = option(None, c.NUMBER, "Outputs must stay above T.", metavar="T", rank=6, panel=c.QUESTION)
    below: float | None = option(None, c.NUMBER, "Outputs must stay below T.", metavar="T", rank=6, panel=c.QUESTION)
    of_outputs: tuple[int, ...] | None = option(
        None,
        INDEX,
        "Which outputs --within, --above and --below are about, by number; all unless given.",
        metavar="LIST",
        rank=6,
        panel=c.QUESTION,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = [f"--{name}" for name in ("within", "above", "below") if getattr(self, name) is not None]
        if limits and self.task not in (None, "regression"):
            raise OptionError(f"{limits[0]} is about numbers, and --task {self.task} is not; leave one of them out")
        if self.task == "regression" and not limits:
            raise OptionError("--task regression has no classes: say what is to hold with --within, --above or --below")
        if self.top is not None and (limits or self.task not in (None, "classification")):
            raise OptionError("--top is about one class among several; leave it out beside limits or another --task")
        if self.of_outputs is not None and not limits:
            raise OptionError("--of-outputs says what --within, --above and --below are about; give one of them")
        if self.above is not None and self.below is not None and not self.above < self.below:
            raise OptionError(f"--above {self.above:g} and --below {self.below:g} leave no value between them")

    @property
    def kind(self) -> Kind:
        """What is demanded."""
        if self.top is not None:
            return "top"
        kinds: dict[str | None, Kind] = {"multilabel": "labels", "segmentation": "pixels", "regression": "limits"}
        return "limits" if self.has_limits else kinds.get(self.task, "class")

    @property
    def has_limits(self) -> bool:
        """Whether outputs are given limits."""
        return any(value is not None for value in (self.within, self.above, self.below))

    @property
    def of_values(self) -> bool:
        """Whether the values of outputs count, and not their order alone."""
        return self.kind in ("limits", "labels")

    @property
    def beside_class(self) -> bool:
        """Whether something else is demanded than one class."""
        return self.kind != "class"
