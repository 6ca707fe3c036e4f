"""The options that several commands share, each with its help; one place, one wording."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idl_audit.values.errors import OptionError

if TYPE_CHECKING:  # commands that only read reports must not wait for networks and solvers
    from idl_audit.commands.shared.samples import DataOptions
    from idl_audit.commands.shared.subject import ModelOptions

DATA = "Data"
OUTPUT = "Output"
LIMITS = "Limits"
PYTORCH = "PyTorch files"


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


class LayoutName(StrEnum):
    """The order of the data's axes."""

    NATIVE = "native"
    NCHW = "nchw"
    NHWC = "nhwc"
    FLAT = "flat"


ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="An ONNX file, a PyTorch file, or an .npz with an implicit model, such as `convert` writes.",
        show_default=False,
    ),
]
_DATA_HELP = "Samples: .npz (inputs, labels), .npy, .csv, .safetensors, .pt, or a folder of images."
DataOption = Annotated[Path, typer.Option("-d", "--data", help=_DATA_HELP, show_default=False)]
OptionalDataOption = Annotated[Path | None, typer.Option("-d", "--data", help=_DATA_HELP, show_default=False)]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "-y", "--labels", help="Labels, where the data file has none.", show_default=False, rich_help_panel=DATA
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", help="Only the first N samples.", metavar="N", show_default=False, rich_help_panel=DATA),
]
IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="Only these samples: numbers from 0 and ranges, such as 0,3,10-19.",
        metavar="LIST",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="The network reads (data * SCALE - MEAN) / STD; 1/255 for bytes.",
        metavar="SCALE",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="One number, or one for each channel: 0.485,0.456,0.406.",
        metavar="MEAN",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option("--std", help="Like --mean.", metavar="STD", show_default=False, rich_help_panel=DATA),
]
LayoutOption = Annotated[
    LayoutName,
    typer.Option("--layout", help="Order of the data's axes; native: the model's own.", rich_help_panel=DATA),
]
BoundsOption = Annotated[
    str | None,
    typer.Option(
        "--bounds",
        help="Valid range of the data; perturbed inputs stay within it: 0,1.",
        metavar="LO,HI",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
EPS_HELP = "How far every input may move, in data units (before --scale): 8/255, 0.03, a list, or start:stop:count."
EpsOption = Annotated[
    str,
    typer.Option(
        "-e",
        "--eps",
        help=EPS_HELP,
        metavar="EPS",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option("-f", "--format", help="Print tables, or one JSON document.", rich_help_panel=OUTPUT),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Write the report (JSON) to this file; with -f json nothing else is printed.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.", rich_help_panel=OUTPUT)]
QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="No progress, notes or warnings on stderr.", rich_help_panel=OUTPUT)
]
NotesOption = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="No notes, and no word of what was written.", rich_help_panel=OUTPUT),
]
"""--quiet of the commands that write a file."""
AnswerOption = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        help="Print no tables, only errors: the exit code is the answer. -f json and -o are still done.",
        rich_help_panel=OUTPUT,
    ),
]
"""--quiet of the commands whose exit code says it all."""
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Print every row of long tables.", rich_help_panel=OUTPUT)
]
OutputNameOption = Annotated[
    str | None,
    typer.Option(
        "--output-name", help="Which output to audit, where there are several.", metavar="NAME", show_default=False
    ),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        help="Of a network with one output: class 1 is where it is above T, class 0 elsewhere. 0.5 after a sigmoid, "
        "else 0, unless given.",
        metavar="T",
        show_default=False,
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="For PyTorch weights: the function without arguments that returns the network.",
        metavar="MODULE:FACTORY",
        show_default=False,
        rich_help_panel=PYTORCH,
    ),
]
ImageShapeOption = Annotated[
    str | None,
    typer.Option(
        "--image-shape",
        help="Shape of an input as an image, where the model reads it flat: 28,28 or 3,32,32.",
        metavar="SHAPE",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]

InputShapeOption = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        help="For PyTorch files: the shape of one input, batch axis included: 1,3,32,32.",
        metavar="SHAPE",
        show_default=False,
        rich_help_panel=PYTORCH,
    ),
]
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code-execution",
        help="Run code from --arch or the file. Only if you trust it.",
        rich_help_panel=PYTORCH,
        allow_from_autoenv=False,
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of every random choice.", metavar="N", rich_help_panel=LIMITS)
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        help="Refuse what needs a larger matrix: 1GB, 500MB.",
        metavar="SIZE",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
TimeLimitOption = Annotated[
    float,
    typer.Option(
        "--time-limit",
        help="Seconds for one sample at one radius: search and proof, after the model was read. A certificate "
        "gets as much again.",
        metavar="SECONDS",
        rich_help_panel=LIMITS,
    ),
]
MaxNodesOption = Annotated[
    int | None,
    typer.Option(
        "--max-nodes",
        min=1,
        help="Leaves of trees, parts of boxes and linear programs, at most, where --time-limit is for seconds: with "
        "enough of those, every machine finds the same.",
        metavar="N",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]


def data_options(
    data: Path,
    *,
    labels: Path | None,
    limit: int | None,
    index: str | None,
    layout: LayoutName,
    scale: str | None,
    mean: str | None,
    std: str | None,
    bounds: str | None,
) -> DataOptions:
    """Return the data options that these texts describe. Raises OptionError where one makes no sense."""
    from idl_audit.commands.shared.samples import DataOptions
    from idl_audit.data.preprocessing import parse_preprocessing

    return DataOptions(
        path=data,
        labels=labels,
        limit=limit,
        index=None if index is None else parse_index(index),
        layout=layout.value,
        preprocessing=parse_preprocessing(scale=scale, mean=mean, std=std, bounds=bounds),
    )


def refuse_without_data(*, labels: Path | None, limit: int | None, index: str | None, layout: LayoutName) -> None:
    """Refuse options that say which samples where there are none: they would silently do nothing."""
    given = {
        "--labels": labels,
        "--limit": limit,
        "--index": index,
        "--layout": None if layout is LayoutName.NATIVE else layout,
    }
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise OptionError(f"{named[0]} says how to read samples, and there are none: give them with --data")


def model_options(
    output_name: str | None,
    max_memory: str | None,
    *,
    arch: str | None,
    input_shape: str | None,
    allow_code_execution: bool,
    threshold: str | None = None,
) -> ModelOptions:
    """Return how to read the model. Raises OptionError where a text makes no sense."""
    from idl_audit.commands.shared.subject import ModelOptions
    from idl_audit.data.numbers import parse_number
    from idl_audit.graph.torch_reader import TorchOptions

    shape = None if input_shape is None else parse_shape(input_shape)
    given = TorchOptions(arch=arch, input_shape=shape, allow_code_execution=allow_code_execution)
    above = None if threshold is None else parse_number(threshold, option="--threshold")
    return ModelOptions(output_name, parse_memory(max_memory), torch=given, threshold=above)


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape that `1,3,32,32` (or 1x3x32x32) names. Raises OptionError."""
    parts = text.replace("x", ",").split(",")
    if not all(_is_number(part.strip()) and int(part) > 0 for part in parts):
        raise OptionError(f"--input-shape must be positive numbers such as 1,3,32,32, not {text!r}")
    return tuple(int(part) for part in parts)


def parse_index(text: str) -> tuple[int, ...]:
    """Return the positions that `0,3,10-19` names, in that order. Raises OptionError."""
    positions: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise OptionError(f"--index must list positions such as 0,3,10-19, not {text!r}")
        stop = int(last) if dash else int(first)
        if not int(first) <= stop < int(first) + 10**7:
            raise OptionError(f"--index has the range {part.strip()}, which is empty or too long")
        positions.extend(range(int(first), stop + 1))
    return tuple(positions)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def parse_memory(text: str | None) -> int | None:
    """Return bytes for 1GB, 500MB, 2GiB, or a plain number of bytes. Raises OptionError."""
    if text is None:
        return None
    units = {"GIB": 2**30, "MIB": 2**20, "KIB": 2**10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
    number = text.strip().upper().rstrip("BIKMG")
    unit = text.strip().upper()[len(number) :]
    try:
        size = float(number) * units[unit]
    except (KeyError, ValueError):
        size = 0.0
    if not 1 <= size < 2**63:
        raise OptionError(f"--max-memory must be a size such as 500MB or 1GB, not {text!r}")
    return int(size)


def parse_image_shape(text: str | None) -> tuple[int, ...] | None:
    """Return the shape that --image-shape gives; None where it is left out. Raises OptionError."""
    if text is None:
        return None
    try:
        return parse_shape(text)
    except OptionError:
        raise OptionError(f"--image-shape must be positive numbers such as 28,28 or 3,32,32, not {text!r}") from None
