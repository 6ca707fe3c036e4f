"""What can go wrong, in one tree.

    IdlAuditError
      InvalidInputError            the user can mend it: exit code 2
        OptionError                an option's value (eps <= 0, an unknown method)
        DataError                  samples or labels
        ModelFileError             a model file that cannot be read, or must not be
        UnsupportedModelError      a model that was read but has no implicit form here
        MemoryLimitError           it would need more memory than allowed
      IncompleteError              the work could not be finished: exit code 3
        AgreementError             the implicit model is not the network in the file
        SolverError                an outside solver failed
        BudgetError                the time that a step was given is over

Every message is a sentence that names the thing, where it is, and what would work. The library raises; the command
line prints.
"""

from __future__ import annotations

from collections.abc import Iterable


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
    """The model has parts that no implicit form is known for; `problems` lists all of them."""

    def __init__(self, problems: Iterable[str], *, code: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems), code=code)


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
