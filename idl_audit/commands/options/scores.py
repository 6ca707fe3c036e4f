"""What is asked of a score: which way it may not go while an input rises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from idl_audit.commands.options.common import QUESTION
from idl_audit.values.errors import OptionError
from idl_audit.values.options import Reader, option, whole

OF_FEATURES: Final = "features"
"""In place of an input and its sign: those that the file of features has."""


@dataclass(frozen=True)
class Direction:
    """An input, and which way a score may not go while it rises."""

    name: str
    direction: Literal["+", "-"]
    of_features: bool = False
    """Whether both are those that the file of features tells: what else it says does not count then."""

    def __str__(self) -> str:
        return OF_FEATURES if self.of_features else f"{self.name}{self.direction}"


def _direction(text: str, flag: str) -> Direction:
    if text.strip() == OF_FEATURES:
        return Direction("", "+", of_features=True)
    name, sign = text.strip()[:-1].strip(), text.strip()[-1:]
    for known in ("+", "-"):
        if sign == known and name:
            return Direction(name, known)
    raise OptionError(f"{flag} must be an input and + or -, such as 3+ or age-, not {text!r}")


def monotone(default: Any = None) -> Any:
    return option(
        default,
        Reader(_direction, was_read=lambda value: isinstance(value, Direction)),
        "Does the score never fall (3+) or never rise (3-) while input 3 alone rises within --bounds, whatever the "
        "others do within EPS, or anywhere with --everywhere? The score is the output or, of several, that of --class. "
        "With --features FILE inputs have its names and ranges, others move as valid rows do, and 'features' stands "
        "for the input that FILE calls monotone.",
        metavar="INPUT+|-",
        panel=QUESTION,
        in_file=False,
    )


def class_of_score() -> Any:
    return option(
        None,
        whole(0),
        "With --monotone, where there are several outputs: the class whose score it is.",
        metavar="K",
        panel=QUESTION,
        name="class",
    )
