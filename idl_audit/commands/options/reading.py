"""Which model and which samples, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from idl_audit.commands.options import common as c
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.values.errors import OptionError
from idl_audit.values.options import PATH, REQUIRED, TEXT, Declared, Reader, group, one_of, option, whole

if TYPE_CHECKING:
    from idl_audit.data.samples import Layout


def _index(text: str, flag: str) -> tuple[int, ...]:
    """Return the positions that `0,3,10-19` names, in that order."""
    positions: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not all(end.isascii() and end.isdecimal() for end in (first, last or first)) or (dash and not last):
            raise OptionError(f"{flag} must list positions such as 0,3,10-19, not {text!r}")
        stop = int(last) if dash else int(first)
        if not int(first) <= stop < int(first) + 10**7:
            raise OptionError(f"{flag} has the range {part.strip()}, which is empty or too long")
        positions.extend(range(int(first), stop + 1))
    return tuple(positions)


INDEX: Final = Reader(_index)


def _bytes(text: str, flag: str) -> int:
    """Return bytes for 1GB, 500MB, 2GiB, or a plain number of bytes."""
    units = {"GIB": 2**30, "MIB": 2**20, "KIB": 2**10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
    number = text.strip().upper().rstrip("BIKMG")
    try:
        size = float(number) * units[text.strip().upper()[len(number) :]]
    except (KeyError, ValueError):
        size = 0.0
    if not 1 <= size < 2**63:
        raise OptionError(f"{flag} must be a size such as 500MB or 1GB, not {text!r}")
    return int(size)


def _names(text: str, flag: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise OptionError(f"{flag} must list names of inputs such as a,b, not {text!r}")
    return names


@dataclass(frozen=True)
class NamedFile:
    """A name, of an input that is held fixed or of a network, and a file: NAME=FILE."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}={self.path}"


def named_file(what: str) -> Reader:
    """Return what reads NAME=FILE; `what` says of what."""

    def read(text: str, flag: str) -> NamedFile:
        name, mark, path = text.partition("=")
        if not (mark and name.strip() and path):
            raise OptionError(f"{flag} must be NAME=FILE, {what}, not {text!r}")
        return NamedFile(name.strip(), Path(path))

    return Reader(
        read,
        was_read=lambda value: isinstance(value, NamedFile),
        placed=lambda value, folder: replace(value, path=folder / value.path),
    )


@dataclass(frozen=True)
class ModelOptions(Declared):
    """How to read a model file."""

    output_name: str | None = option(
        None,
        TEXT,
        "Which output to audit, where there are several.",
        metavar="NAME",
        rank=8,
        panel=c.NETWORK,
    )
    input_name: tuple[str, ...] | None = option(
        None,
        Reader(_names),
        "Which inputs move, and in what order, where there are several: a,b. All that are not fixed, unless given.",
        metavar="LIST",
        rank=8,
        panel=c.NETWORK,
    )
    fix: tuple[NamedFile, ...] = option(
        (),
        named_file("an input and the file of its numbers"),
        "Hold an input fixed at the numbers in a file: .npy, .npz, .csv, .parquet, .safetensors or .pt. Again for "
        "others.",
        metavar="NAME=FILE",
        several=True,
        rank=8,
        panel=c.NETWORK,
    )
    max_bytes: int | None = option(
        None,
        Reader(_bytes),
        "What arrays may take beside libraries and model: 1GB, 500MB. What needs more is left out, or refused.",
        metavar="SIZE",
        panel=c.LIMITS,
        rank=7,
        name="max_memory",
    )
    threads: int | None = option(
        None,
        whole(1),
        "Threads of numerical libraries; 1 unless OMP_NUM_THREADS says more. With --jobs, all together no more than "
        "there are cores.",
        metavar="N",
        panel=c.LIMITS,
        rank=8,
    )
    runtime_optimisation: Literal["auto", "off", "basic", "all"] = option(
        "auto",
        one_of("auto", "off", "basic", "all"),
        "Graph optimisations of onnxruntime in the network that is judged: off, basic or all, as it is deployed. auto: "
        "all, where they keep its function, else off.",
        metavar="LEVEL",
        rank=8,
        panel=c.NETWORK,
    )
    torch: TorchOptions = group(TorchOptions)
    threshold: float | None = c.threshold()
    """Where classes are asked for; None: the usual one."""


@dataclass(frozen=True)
class SearchedModel(ModelOptions):
    """How to read a model file whose network is searched, and where that is done."""

    device: str = c.device()


ANY_OUTPUTS: Final = ("threshold",)
"""Not asked by commands to which classes are nothing."""


@dataclass(frozen=True)
class DataOptions(Declared):
    """Which samples, and how the network reads them."""

    path: Path = option(
        REQUIRED,
        PATH,
        "Samples: .npz (inputs, labels), .npy, .csv, .parquet, .arrow, .safetensors, .pt, .tar (WebDataset), a folder "
        "of images or of Hugging Face's datasets, or several files: a folder of them, or a pattern in quotes, such as "
        "'train-*.npz'.",
        "-d",
        name="data",
        rank=-9,
    )
    labels: Path | None = option(None, PATH, "Labels, where the data file has none.", "-y", panel=c.DATA)
    limit: int | None = option(None, whole(1), "Only the first N samples.", metavar="N", panel=c.DATA)
    index: tuple[int, ...] | None = option(
        None,
        INDEX,
        "Only these samples: numbers from 0 and ranges, such as 0,3,10-19.",
        metavar="LIST",
        panel=c.DATA,
    )
    preprocessing: Preprocessing = group(Preprocessing)
    layout: Layout = option(
        "native",
        one_of("native", "nchw", "nhwc", "flat"),
        "Order of the data's axes; native: the model's own.",
        panel=c.DATA,
    )


IDLE: Final = "says how to read samples, and there are none: give them with --data"
