"""How many threads numerical libraries use: one, unless somebody asks for more.

Their threads wait by spinning: on processors that others use as well, two of them may take many times as long as one,
and a proof its time limit with it. What they read in the environment counts only before they are loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Where numerical libraries read how many threads they may use, when they are loaded."""

_SHARE: Final = "_IDL_AUDIT_MOST_THREADS"
"""Set for processes that work side by side: how many threads each of them may use."""


def one_unless_said() -> None:
    """Let libraries that are loaded from now on use one thread, where the environment does not say otherwise."""
    for name in VARIABLES:
        os.environ.setdefault(name, "1")


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Let processes that are started inside use their share of the processors at most."""
    share = str(max(1, (os.cpu_count() or 1) // processes))
    missing = [name for name in (*VARIABLES, _SHARE) if name not in os.environ]
    os.environ.update(dict.fromkeys(missing, share))
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def most(asked: int) -> int:
    """Return how many of the threads that are asked for this process may use."""
    return min(asked, int(os.environ.get(_SHARE, asked)))


def use(asked: int | None) -> int:
    """Let numerical libraries use so many threads from now on, and return how many they do.

    None leaves them as they are.
    """
    if asked is not None:
        threads = most(asked)
        for name in VARIABLES:
            os.environ[name] = str(threads)
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    return in_use()


def in_use() -> int:
    """Return the most threads that a numerical library that is loaded would use now."""
    from threadpoolctl import threadpool_info

    pools = [int(pool["num_threads"]) for pool in threadpool_info()]
    if "torch" in sys.modules:
        pools.append(int(sys.modules["torch"].get_num_threads()))
    return max(pools, default=1)
