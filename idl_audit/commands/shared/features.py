"""Inputs as users name them: by number, or by the names of a network's inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from idl_audit.commands.shared.subject import Subject
from idl_audit.values.errors import OptionError

MOST_NAMED = 10
"""Names that a sentence lists."""


def named_inputs(subject: Subject, names: Sequence[str], option: str) -> tuple[int, ...]:
    """Return the places of some inputs in the input vector, ascending.

    A number counts from 0; a name is that of an input of the network with one number, or `name[k]` of one with more.

    Raises:
        OptionError: where there is no such input, or one is named twice.
    """
    known: dict[str, int] = {}
    p, start = subject.n_inputs, 0
    for name, shape in subject.parts:
        size = math.prod(shape)
        known |= {f"{name}[{k}]": start + k for k in range(size)} | ({name: start} if size == 1 else {})
        start += size
    found = []
    for name in names:
        place = int(name) if name.isascii() and name.isdecimal() and len(name) < MOST_NAMED else known.get(name, -1)
        if not 0 <= place < p:
            listed = [one for one in known if not one.endswith("]")][:MOST_NAMED]
            more = f", or one of {', '.join(listed)}" if listed else ""
            raise OptionError(f"{option} speaks of the input '{name}'; give a number from 0 to {p - 1}{more}")
        found.append(place)
    if len(set(found)) < len(found):
        raise OptionError(f"{option} names an input twice; give each once")
    return tuple(sorted(found))
