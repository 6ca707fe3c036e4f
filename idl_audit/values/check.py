"""Check: what work asks between its small units whether it may go on; whoever hands it in has the clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from idl_audit.values.errors import MemoryLimitError

Check: TypeAlias = Callable[[], None]
"""Called between units of work; raises BudgetError where there is no time for another one."""


def unchecked() -> None:
    """Let work go on: nothing limits it."""


def allow(needed: int, max_bytes: int | None, what: str) -> None:
    """Raise MemoryLimitError where `what` would take more bytes than are allowed; asked before it is made."""
    if max_bytes is not None and needed > max_bytes:
        raise MemoryLimitError(
            f"{what} would take {needed / 1e6:,.0f} MB, above the limit of {max_bytes / 1e6:,.0f} MB; "
            f"raise --max-memory to {enough(needed)}"
        )


def enough(needed: int) -> str:
    """Return the least limit that so many bytes fit into, as it is typed."""
    return f"{math.ceil(needed / 1e6)}MB"
