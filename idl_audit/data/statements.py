"""Statements about a network that are to hold everywhere, as users write them: `2 where age < 30 and sex = male`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from idl_audit.values.errors import OptionError

Sign: TypeAlias = Literal["<", "<=", ">", ">=", "="]

LONGEST: Final = 500
"""Characters of one statement."""
_CONDITION: Final = re.compile(r"\s*(?P<name>[^<>=]*[^<>=\s])\s*(?P<sign><=|>=|<|>|=)\s*(?P<value>[^<>=\s][^<>=]*?)\s*")
_NEVER: Final = re.compile(r"\s*(?P<label>[0-9]{1,9})\s*(?:\swhere\s(?P<where>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """Where a statement is about: a feature on one side of a number, or in one category."""

    name: str
    sign: Sign
    value: str
    """A number or a category, as it was written."""

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.value}"


@dataclass(frozen=True)
class Never:
    """A class is predicted nowhere where some conditions hold, all at once."""

    label: int
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        where = " and ".join(map(str, self.conditions))
        return f"{self.label} where {where}" if where else f"{self.label}"


def parse_never(text: str, flag: str) -> Never:
    """Return the statement of `2`, `2 where age < 30` or `2 where age < 30 and sex = male`.

    Raises:
        OptionError: where it is none; `flag` is named.
    """
    found = _NEVER.fullmatch(text) if len(text) <= LONGEST else None
    parts = [] if found is None or found["where"] is None else re.split(r"\sand\s", found["where"])
    conditions = [_CONDITION.fullmatch(part) for part in parts]
    if found is None or not all(conditions):
        raise OptionError(
            f"{flag} must be a class and where it is never to be predicted, such as '2 where age < 30 and sex = male', "
            f"not {text[:60]!r}"
        )
    signs: dict[str, Sign] = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "=": "="}
    made = (Condition(one["name"], signs[one["sign"]], one["value"]) for one in conditions if one is not None)
    return Never(int(found["label"]), tuple(made))
