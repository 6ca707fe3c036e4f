"""How the C library keeps memory that is freed."""

from __future__ import annotations

from typing import Final

import numpy as np

LARGEST: Final = 2**25 - 2**20
"""glibc learns from blocks of up to 32 MB."""


def keep_freed_memory() -> None:
    """Let freed blocks of up to 31 MB stay with the process: each page that is asked for anew costs a fault.

    glibc maps blocks above a threshold one by one, and gives back what lies free at the top of its heap beyond twice
    that. The threshold grows to the size of the largest mapped block that was freed so far, so that one such block
    that nobody writes to is enough. Elsewhere this does nothing.
    """
    np.empty(LARGEST, np.uint8)
