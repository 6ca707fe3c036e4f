"""verify, for many proof files with one start: a folder of them, or several; one report, and a line for each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.commands.verify import verify
from idl_audit.graph.reader import sniff
from idl_audit.report.schema import CheckedFile, Diagnostic, ModelInfo, Report, Verification
from idl_audit.values.errors import InvalidInputError, OptionError


@dataclass(frozen=True)
class Asked:
    """What the files are checked against: as `verify` takes it for one."""

    model: Path | None
    options: ModelOptions
    vnnlib: Path | None = None
    second: Path | None = None
    networks: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class _Opened:
    """Models that were opened before, so that each is read and converted once."""

    known: dict[tuple[Path, str], Subject] = field(default_factory=dict)

    def __call__(self, path: Path, options: ModelOptions | None = None, *, whole: bool = False) -> Subject:
        key = path, repr((options, whole))
        if key not in self.known:
            self.known[key] = open_subject(path, options, whole=whole)
        return self.known[key]


@dataclass(frozen=True)
class _Found:
    checked: CheckedFile
    diagnostics: tuple[Diagnostic, ...] = ()
    model: ModelInfo | None = None


def proof_files(given: Sequence[Path]) -> list[Path]:
    """Return the files, and of each folder the .npz files in it, by name; each once.

    Raises:
        OptionError: where a folder has none.
    """
    found: dict[Path, None] = {}
    for path in given:
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not inside:
            raise OptionError(f"{path} has no .npz file; give the folder of --certificates")
        found |= dict.fromkeys(inside)
    return list(found)


def verify_many(given: Sequence[Path], asked: Asked, *, jobs: int = 1) -> Report:
    """Check files and folders of proof files, each as `verify` does, and report on all of them.

    A file that cannot be read is refused, and so is what it says; the others are checked all the same.

    Args:
        given: proof files, and folders of them.
        asked: the models, and what the files are to be about.
        jobs: processes that check files at the same time.

    Raises:
        InvalidInputError: where a folder has no proof file, or the model cannot be read.
    """
    clock = Clock()
    files = proof_files(given)
    if asked.model is not None:
        sniff(asked.model)
    with clock.step("check"):
        found = _all(files, asked, min(jobs, len(files)))
    checked = tuple(one.checked for one in found)
    told = {(one.code, one.message): one for each in found for one in each.diagnostics}
    return framed_report(
        "verify",
        clock,
        model=next((one.model for one in found if one.model is not None), None),
        diagnostics=tuple(told.values()),
        verification=Verification(
            file=", ".join(map(str, given)),
            accepted=all(one.accepted for one in checked),
            checked=sum(one.checked for one in checked),
            refused=tuple(f"{one.file}: {why}" for one in checked for why in one.refused),
            files=checked,
        ),
    )


def _all(files: Sequence[Path], asked: Asked, jobs: int) -> list[_Found]:
    """Return what came of each file, in their order; every process takes every jobs-th one."""
    if jobs == 1:
        return _some(files, asked)
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of numeric libraries
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        shares = [pool.submit(_some, files[start::jobs], asked) for start in range(jobs)]
        found: dict[int, _Found] = {}
        for start, share in enumerate(shares):
            found |= dict(zip(range(start, len(files), jobs), share.result(), strict=True))
    return [found[place] for place in range(len(files))]


def _some(files: Sequence[Path], asked: Asked) -> list[_Found]:
    opened = _Opened()
    return [_one(file, asked, opened) for file in files]


def _one(file: Path, asked: Asked, opened: _Opened) -> _Found:
    try:
        report = verify(
            file, asked.model, asked.options, asked.vnnlib, asked.second, dict(asked.networks), opened=opened
        )
    except InvalidInputError as error:
        return _Found(CheckedFile(file=str(file), accepted=False, checked=0, refused=(str(error),)))
    own = report.verification
    assert own is not None
    checked = CheckedFile(
        file=str(file), claim=own.claim, accepted=own.accepted, checked=own.checked, refused=own.refused
    )
    return _Found(checked, report.diagnostics, report.model)
