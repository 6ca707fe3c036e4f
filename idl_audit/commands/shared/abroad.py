"""Samples decided on the machines of a scheduler: the model's files go along, certificates come back with the answers.

Nothing that a worker sees has a name of the user's: its processes work in a folder of their own, in which the model's
files lie as they lie here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from idl_audit.commands.shared.cluster import Cluster, Pack
from idl_audit.commands.shared.decider import Decider
from idl_audit.commands.shared.deciding import Hands
from idl_audit.commands.shared.sample_tasks import Answer, Decided, Setting, Task
from idl_audit.commands.shared.subject import Subject
from idl_audit.commands.shared.workers import Done, Lost
from idl_audit.graph.files import open_model
from idl_audit.values.errors import ModelFileError, UnsupportedModelError
from idl_audit.values.files import check_new_file, write_whole

MODEL: Final = Path("model")
FIXED: Final = Path("fixed")
CERTIFICATES: Final = Path("certificates")


@dataclass(frozen=True, eq=False)
class Returned:
    """An answer, and the certificates that were written with it."""

    answer: Answer
    certificates: Mapping[str, bytes]
    """Name within the folder -> contents."""


@dataclass(eq=False)
class Abroad:
    """Decides as a `Decider` does, and gives its certificates away."""

    decider: Decider

    def __call__(self, task: Task) -> Returned:
        """Decide a task. What the `Decider` raises is raised."""
        folder = self.decider.setting.certificates
        if folder is not None:
            folder.mkdir(exist_ok=True)
        answer = self.decider(task)
        written: dict[str, bytes] = {}
        for sample in [answer] if isinstance(answer, Decided) else answer:
            for name in sample.certificates:
                written[Path(name).name] = Path(name).read_bytes()
                Path(name).unlink()
        return Returned(answer, written)


def hands_of(cluster: Cluster, setting: Setting, subject: Subject) -> Hands:
    """Return what lets the workers of a cluster decide samples.

    Raises:
        ModelFileError: where a file of the model cannot be read any more, or holds something else by now.
        UnsupportedModelError: where the model is in no file.
    """
    fixed = tuple(replace(one, path=_place(number, one.path)) for number, one in _fixed(setting))
    there = replace(
        setting,
        path=MODEL / setting.path.name,
        reading=replace(setting.reading, fix=fixed),
        certificates=None if setting.certificates is None else CERTIFICATES,
        overwrite=True,
    )
    files = Pack(_files(setting, subject), "model")

    def decide(
        tasks: Iterable[Task],
        *,
        allowed: Callable[[Task], float],
        heard: Callable[[Task, Any], None],
        follow: Callable[[Done[Task, Answer]], Iterable[Task]],
    ) -> Generator[Done[Task, Answer], None, None]:
        work = cluster.work_through(
            tasks,
            Abroad(Decider(there)),
            allowed=allowed,
            heard=heard,
            follow=lambda done: follow(_answered(done)),
            files=lambda task: (files,),
        )
        with closing(work):
            for done in work:
                if not isinstance(done.answer, Lost):
                    _bring_home(done.answer, setting)
                yield _answered(done)

    return decide


def _answered(done: Done[Task, Returned]) -> Done[Task, Answer]:
    return Done(done.task, done.answer if isinstance(done.answer, Lost) else done.answer.answer, done.seconds)


def _bring_home(returned: Returned, setting: Setting) -> None:
    """Write the certificates where they belong. Raises OptionError where that cannot be."""
    folder = setting.certificates
    if folder is None:
        return
    for name, contents in returned.certificates.items():
        check_new_file(folder / name, force=setting.overwrite)
        write_whole(folder / name, lambda file, contents=contents: file.write(contents))  # type: ignore[misc]
    for sample in [returned.answer] if isinstance(returned.answer, Decided) else returned.answer:
        sample.certificates = [str(folder / Path(name).name) for name in sample.certificates]


def _fixed(setting: Setting) -> list[tuple[int, Any]]:
    return list(enumerate(setting.reading.fix))


def _place(number: int, path: Path) -> Path:
    return FIXED / str(number) / path.name


def _files(setting: Setting, subject: Subject) -> dict[str, bytes]:
    """Return the contents of all files that the model is read from."""
    if not subject.files:
        raise UnsupportedModelError([f"{setting.path} is in no file that could be sent to workers; use --jobs"])
    found = {}
    for file in subject.files:
        with open_model(file.path) as stream:
            contents = stream.read()
        if hashlib.sha256(contents).hexdigest() != file.sha256:
            raise ModelFileError(f"{file.path} was changed while it was being audited; start again")
        found[str(MODEL / os.path.relpath(file.path, setting.path.parent))] = contents
    for number, one in _fixed(setting):
        found[str(_place(number, one.path))] = one.path.read_bytes()
    return found
