"""What the user says about a PyTorch file; needs neither torch nor ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idl_audit.values.errors import OptionError
from idl_audit.values.options import SWITCH, TEXT, Declared, Reader, option

PANEL: Final = "PyTorch files"


def shape_like(example: str) -> Reader:
    """Return how the shape that `1,3,32,32` (or 1x3x32x32) names is read."""

    def parse(text: str, flag: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.replace("x", ",").split(",")]
        if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
            raise OptionError(f"{flag} must be positive numbers such as {example}, not {text!r}")
        return tuple(map(int, parts))

    return Reader(parse)


def _shapes_like(example: str, several: str) -> Reader:
    """Return how the shapes of one input, or of several with / between them, are read."""
    one = shape_like(f"{example}, or {several} for several inputs")

    def parse(text: str, flag: str) -> tuple[tuple[int, ...], ...]:
        return tuple(one.parse(part, flag) for part in text.split("/"))

    return Reader(parse, was_read=lambda value: isinstance(value, tuple) and all(isinstance(s, tuple) for s in value))


@dataclass(frozen=True)
class TorchOptions(Declared):
    """What the user says about a PyTorch file."""

    arch: str | None = option(
        None,
        TEXT,
        "For PyTorch weights: the function without arguments that returns the network.",
        metavar="MODULE:FACTORY",
        panel=PANEL,
    )
    input_shape: tuple[tuple[int, ...], ...] | None = option(
        None,
        _shapes_like("1,3,32,32", "1,3,32,32/1,5"),
        "For PyTorch files: the shape of one input, batch axis included: 1,3,32,32; of several, 1,3,32,32/1,5.",
        metavar="SHAPE",
        panel=PANEL,
    )
    allow_code_execution: bool = option(
        False,
        SWITCH,
        "Run code from --arch or the file. Only if you trust it.",
        panel=PANEL,
        in_file=False,
        in_environment=False,
    )
