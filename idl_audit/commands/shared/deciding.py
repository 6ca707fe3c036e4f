"""Deciding samples, one after the other or in several processes: one that fails is unknown, and the others go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from idl_audit.commands.shared.decider import Decider
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.sample_tasks import (
    Answer,
    Batch,
    Decided,
    Message,
    SampleTask,
    Setting,
    Task,
    Tasks,
)
from idl_audit.commands.shared.subject import Subject
from idl_audit.commands.shared.workers import Done, Lost, work_through
from idl_audit.decide.ladder import Result, samples_at_once
from idl_audit.values.arrays import BoolArray
from idl_audit.values.errors import DeviceError, InvalidInputError
from idl_audit.values.margins import predictions
from idl_audit.values.verdicts import Reason, Verdict

GRACE: Final = 10.0
"""Seconds beyond its time after which a process is ended: it does not look at the clock, or hangs."""


@dataclass(eq=False)
class _Score:
    """What is decided, and what is known of the samples that are being decided."""

    total: int
    watch: Watcher
    verdicts: Counter[str]
    begun: dict[int, dict[float, Result]] = field(default_factory=dict)
    """Position -> results of a sample that is being decided."""
    shares: dict[int, float] = field(default_factory=dict)
    """Position -> share of its tree that is proved."""

    def hear(self, task: Task, message: Message) -> None:
        """Take what is said of a sample; of a batch nothing is said."""
        assert isinstance(task, SampleTask)
        if isinstance(message, float):
            self.shares[task.position] = message
        else:
            radius, result = message
            self.begun.setdefault(task.position, {})[radius] = result
            self.shares.pop(task.position, None)
            self.verdicts[result.verdict.value] += 1
        self.tell()

    def finish(self, sample: Decided) -> Decided:
        """Count what was not heard of, where the sample was lost."""
        known = self.begun.pop(sample.position, {})
        self.shares.pop(sample.position, None)
        missing = [result for radius, result in sample.results.items() if radius not in known]
        self.verdicts.update(result.verdict.value for result in missing)
        if missing:
            self.tell()
        return sample

    def tell(self) -> None:
        """Say how far the work has come."""
        self.watch(Progress(self.verdicts.total(), self.total, self.verdicts, tuple(self.shares.values())))


class Hands(Protocol):
    """Whoever decides tasks in place of processes of this machine."""

    def __call__(
        self,
        tasks: Iterable[Task],
        /,
        *,
        allowed: Callable[[Task], float],
        heard: Callable[[Task, Message], None],
        follow: Callable[[Done[Task, Answer]], Iterable[Task]],
    ) -> Generator[Done[Task, Answer], None, None]:
        """Yield every task with its answer, as `work_through` does."""
        ...


def decide_all(
    setting: Setting,
    subject: Subject,
    tasks: Tasks,
    *,
    jobs: int,
    earlier: Iterable[Decided] = (),
    begun: Mapping[int, Decided] = MappingProxyType({}),
    watch: Watcher = lambda progress: None,
    among: range | None = None,
    decider: Callable[[Task], Answer] | None = None,
    hands: Hands | None = None,
) -> Generator[Decided, None, None]:
    """Yield the samples as they are decided, all radii of one at a time.

    Args:
        setting: what is the same for all samples.
        subject: the model.
        tasks: all samples of the audit.
        jobs: how many processes; 1 works in this one.
        earlier: what was decided before, and is not decided again; iterated once.
        begun: position -> what was decided before at some of the radii, and is known to the tasks.
        watch: told how far the work has come.
        among: the positions that are to be decided; all of them, unless given. The others take part in batches.
        decider: what decides a sample in another process; where it is None, a `Decider`, which takes batches as well.
        hands: who decides, where it is not this machine.
    """
    among = range(len(tasks)) if among is None else among
    score = _Score(len(among) * len(setting.eps), watch, Counter())
    known = np.ones(len(tasks), bool)
    known[among.start : among.stop] = False
    for sample in earlier:
        known[sample.position] = True
        score.verdicts.update(result.verdict.value for result in sample.results.values())
    for position, sample in begun.items():
        score.verdicts.update(result.verdict.value for result in sample.results.values())
        score.begun[position] = dict(sample.results)
    score.tell()
    size = 1 if subject.no_form is not None else samples_at_once(subject.model, setting.verdicts.methods)
    batches = _batches(tasks, known, size)
    if jobs == 1 and decider is None and hands is None:
        decide_here = Decider(setting, subject)
        for batch in batches:
            decide_here.decide_first(batch)
            for task in batch.left:
                answer = _guarded(decide_here, task, score)
                yield score.finish(_or_unknown(answer, task, setting, subject, score))
        return
    certificates = setting.certificates is not None
    seconds = setting.verdicts.time_limit * len(setting.eps) * (2 if certificates else 1) + GRACE
    handed_out: Iterable[Task] = batches
    if decider is not None or size == 1:
        handed_out = (task for batch in batches for task in batch.left)
    told: Mapping[str, Any] = {"allowed": lambda _: seconds, "heard": score.hear, "follow": _left_alone}
    if hands is None:
        work = work_through(handed_out, decider or Decider(setting), jobs=jobs, **told)
    else:
        work = hands(handed_out, **told)
    with closing(work):
        for done in work:
            if isinstance(done.task, SampleTask):
                assert not isinstance(done.answer, list)
                yield score.finish(_or_unknown(done.answer, done.task, setting, subject, score))
            elif isinstance(done.answer, list):
                yield from map(score.finish, done.answer)


def _batches(tasks: Tasks, known: BoolArray, size: int) -> Iterator[Batch]:
    """Yield the batches in which samples are left; the others take part, so that the numbers stay the same."""
    for at in range(0, len(tasks), size):
        if not known[at : at + size].all():
            mates = tuple(tasks[at : at + size])
            yield Batch(mates, tuple(task for task in mates if not known[task.position]))


def _left_alone(done: Done[Task, Answer]) -> Iterator[SampleTask]:
    """Yield the samples of a batch that are still to be decided: all of them where it was lost."""
    if isinstance(done.task, Batch):
        decided = done.answer if isinstance(done.answer, list) else []
        positions = {sample.position for sample in decided}
        yield from (task for task in done.task.left if task.position not in positions)


def _guarded(decider: Decider, task: SampleTask, score: _Score) -> Decided | Lost:
    """Decide a sample; what nobody expects is an answer, too, so that the samples decided so far are not lost."""
    try:
        return decider.decide(task, lambda message: score.hear(task, message))
    except (InvalidInputError, DeviceError):
        raise
    except Exception as error:
        return Lost.by(error)


def _or_unknown(answer: Decided | Lost, task: SampleTask, setting: Setting, subject: Subject, score: _Score) -> Decided:
    """Return the sample; where it was lost, with the radii that were decided before, the others unknown."""
    if isinstance(answer, Decided):
        return answer
    known = score.begun.get(task.position, {})
    network = subject.network(setting.preprocessing)
    said = network(task.centre[None].astype(np.float32))
    predicted = -1 if task.label < 0 else int(predictions(said)[0])
    reason = Reason.WORKER_FAILED
    if answer.overtime or answer.memory:
        reason = Reason.TIME_LIMIT if answer.overtime else Reason.MEMORY_LIMIT
    unknown = (
        Result(Verdict.UNKNOWN, predicted, reason=reason)
        if not task.errs(said)[0]
        else Result(Verdict.CLEAN_WRONG, predicted)
    )
    results = {radius.value: known.get(radius.value, unknown) for radius in setting.eps}
    centre = task.centre if any(one.verdict is Verdict.FALSIFIED for one in results.values()) else None
    return replace(Decided.of(task), centre=centre, predicted=predicted, results=results, lost=answer.why)
