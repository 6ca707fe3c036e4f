"""Settings of the whole test run."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

import pytest

# Tables are as wide as in a pipe, whatever the terminal that the tests are started from.
os.environ.pop("COLUMNS", None)

# Two processes run the tests; more threads in each would only wait for one another. Read when numpy is first imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A shell's background jobs ignore Ctrl-C, and so would their children; tests of interruptions need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Collecting makes hundreds of thousands of objects that stay: half of its time would go into looking for garbage.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage again."""
    gc.enable()


_BEGINNINGS: dict[str, Any] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test the same numbers of its module's RNG, whatever tests ran before it in this process."""
    rng = getattr(getattr(item, "module", None), "RNG", None)
    if rng is not None:
        rng.bit_generator.state = _BEGINNINGS.setdefault(item.module.__name__, rng.bit_generator.state)  # type: ignore[attr-defined]
