"""What can go wrong, in one tree.

    IdlAuditError
      InvalidInputError            the user can mend it: exit code 2
        OptionError                an option's value (eps <= 0, an unknown method)
        DataError                  samples or labels
        ModelFileError             a model file that cannot be read, or must not be
        UnsupportedModelError      a model that was read but has no implicit form here
          TooManyDigitsError       a query that was read, and computes numbers that are too long: unknown
        MissingTorchError          it needs torch, which is not installed
        MemoryLimitError           it would need more memory than allowed
      IncompleteError              the work could not be finished: exit code 3
        AgreementError             the implicit model is not the network in the file
        SolverError                an outside solver failed
        BudgetError                the time that a step was given is over
        ClusterError               the machines that did the work were lost
        ProcessError               processes that were started could not take work
        DeviceError                an accelerator computes with fewer digits than it should

Every message is a sentence that names the thing, where it is, and what would work. The library raises; the command
line prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_OF_A_NODE: Final = re.compile(r"(\w+) node '(.*?)' (.*)", re.DOTALL)
_MOST_NAMED: Final = 8


def folded(problems: Iterable[str]) -> tuple[str, ...]:
    """Return the sentences with those that say the same of several nodes of one operator as one, the nodes named."""
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in dict.fromkeys(problems):
        match = _OF_A_NODE.fullmatch(problem)
        op, name, why = match.groups() if match else ("", "", problem)
        groups.setdefault((op, why), []).append(name)
    return tuple(_told(op, names, why) for (op, why), names in groups.items())


def _told(op: str, names: list[str], why: str) -> str:
    first, *others = names
    if not op:
        return why
    if not others:
        return f"{op} node '{first}' {why}"
    listed = ", ".join(f"'{name}'" for name in others[:_MOST_NAMED]) + (", ..." if len(others) > _MOST_NAMED else "")
    return f"{op} node '{first}' {why} (and {len(others)} more {op} node{'s' * (len(others) > 1)}: {listed})"


class IdlAuditError(Exception):
    """The family of every error that idl-audit raises on purpose."""

    def __init__(self, message: object = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """IDLnnn, where `codes.CODES` says more about it."""


class InvalidInputError(IdlAuditError):
    """The input or an option is wrong and the user can mend it."""


class OptionError(InvalidInputError):
    """An option has a value that makes no sense."""


class DataError(InvalidInputError):
    """The samples or their labels do not fit the model, or are no numbers."""


class ModelFileError(InvalidInputError):
    """A model file is missing, truncated, or asks for something that is not safe to do."""


class UnsupportedModelError(InvalidInputError):
    """The model has parts that no implicit form is known for; `problems` lists all of them, each sentence once."""

    def __init__(self, problems: Iterable[str], *, code: str | None = None) -> None:
        self.problems = folded(problems)
        super().__init__("; ".join(self.problems), code=code)


class MissingTorchError(InvalidInputError):
    """torch is not installed, and what is asked needs it: searches, attacks, training, PyTorch's own files."""

    def __init__(
        self,
        message: str = "this needs torch, which is not installed here: pip install torch; gate, report, diff, verify, "
        "inspect, convert, and certify with --method interval,linear do without",
    ) -> None:
        super().__init__(message)


class TooManyDigitsError(UnsupportedModelError):
    """A query is right and computes numbers that are too long to be worked with: its answer is unknown."""


class MemoryLimitError(InvalidInputError):
    """The estimate of what is needed exceeds what was allowed."""


class IncompleteError(IdlAuditError):
    """The work started but could not be brought to its end."""


class AgreementError(IncompleteError):
    """The implicit model and the original network give different outputs."""


class SolverError(IncompleteError):
    """A solver reported a failure where an answer was needed."""


class BudgetError(IncompleteError):
    """The time that a step was given is over before it is done; whoever gave it goes on without."""


class ClusterError(IncompleteError):
    """The scheduler was lost, or its workers cannot do the work; what is decided is kept."""


class ProcessError(IncompleteError):
    """No process that was started could take work."""


class DeviceError(IncompleteError):
    """An accelerator gave numbers that rounding does not explain: nothing that it computes is to be used."""
