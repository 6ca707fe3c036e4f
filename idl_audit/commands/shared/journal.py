"""The journal of an audit: samples are written to it as they are decided, so that a run that was killed can go on.

A journal is a text file beside the report: a first line that says what it belongs to (hashes of model, data and
options), then one line of JSON a sample, flushed. A last line that was cut short is ignored.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.commands.shared.sample_tasks import Decided, Largest, SampleTasks
from idl_audit.data.samples import SampleStream
from idl_audit.decide.ladder import Parts, Result
from idl_audit.proof.files.strict_json import Entry
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain
from idl_audit.search.judge import Found
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_place
from idl_audit.values.verdicts import Reason, Verdict

VERSION: Final = 2
TOOL: Final = "version of idl-audit"
"""The word of a key for what decided the samples."""
HEAD: Final = b'{"idl_audit_journal"'
DATA: Final = "data file"
"""The word of a key for the samples."""
COUNT: Final = "number of samples"
"""The word of a key for how many there are, as text."""
RADII: Final = "set of radii"
"""The word of a key for them, as text: numbers apart by commas."""
_GROWN: Final = "goes_on"
"""The word of a line with the key of a run that went on with more samples or radii."""
_GROWN_LINE: Final = b'{"goes_on"'


def journal_beside(report: Path | None) -> Path | None:
    """Return the place of the journal of the run that writes this report; None where none is written."""
    return None if report is None else report.with_name(f"{report.name}.journal")


def drop_journal(path: Path | None, report: Report) -> None:
    """Remove the journal of a report that is complete and written; that of an incomplete one is kept for a resume."""
    if path is not None and report.status == "complete":
        path.unlink(missing_ok=True)


@contextmanager
def kept_journal(path: Path | None) -> Iterator[None]:
    """While a report is written: where that fails, say in the error's sentence what goes on from the samples decided.

    Raises:
        OptionError: in place of the one that is raised within.
    """
    try:
        yield
    except OptionError as error:
        if path is None or not path.is_file():
            raise
        raise OptionError(
            f"{error}; the samples decided are kept in {path}, and the same command with --resume goes on from there"
        ) from error


def digest(*parts: bytes) -> str:
    """Return a hash of some bytes, for the key of a journal."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


@dataclass(eq=False)
class Journal:
    """An open journal, to be used as a context; one without samples is removed at its end."""

    path: Path
    _file: FileIO
    lines: list[bytes] = field(default_factory=list)
    """What an earlier run wrote, a sample each."""
    outdated: tuple[int, str] | None = None
    """How many samples of an earlier run are not taken over, and the version of idl-audit that decided them."""
    failure: str | None = None
    """Why nothing more is written to it."""
    _appended: bool = False

    @classmethod
    def open(
        cls,
        path: Path,
        key: Mapping[str, str],
        *,
        resume: bool,
        force: bool = False,
        of_the_first: Callable[[int], str] | None = None,
    ) -> Journal:
        """Open the journal of the run with this key: the earlier one with `resume`, else a new one.

        A journal that differs by the version of idl-audit alone is begun anew: `outdated` says so.

        Args:
            path: the file.
            key: what must be the same in the run that goes on, as words -> hash: "model" -> ...
            resume: whether to go on from what the file has; where there is none, everything is still to be done.
            force: whether samples that an earlier run has decided may be lost, where it is not resumed.
            of_the_first: (n) -> what the key would say of the data if the first n samples were all: a run that had
                just these is gone on from. None where none is. One that had fewer radii is gone on from in any case.

        Raises:
            OptionError: where the file belongs to another run, is no journal, holds samples that would be lost, or
                cannot be written.
        """
        check_place(path)
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise OptionError(
                f"the journal {path} cannot be written ({error.strerror}); choose another place"
            ) from error
        try:
            _lock(path, file)
            file.seek(0)
            whole, newline, rest = file.read().rpartition(b"\n")
            if not newline and not rest.startswith(HEAD[: len(rest)]):
                raise OptionError(f"{path} is no journal; move it away to start anew")
            lines, known = _apart(_lines(path, whole))
            if len(lines) > 1 and not (resume or force):
                raise OptionError(
                    f"{path} holds {len(lines) - 1} samples that an earlier run has decided; go on from there with "
                    "--resume, or lose them with --force"
                )
            grown = bool(resume and lines) and _is_grown(known, key, of_the_first)
            is_part = of_the_first is None
            outdated = _compare(path, known, key, is_part=is_part) if resume and lines and not grown else None
            if resume and lines and outdated is None:
                file.truncate(len(whole) + 1)
                if not _ends_well(whole):  # its last line was damaged
                    file.truncate(whole.rfind(b"\n") + 1)
                found = cls(path, file, lines[1:])
                if grown:
                    found.append({_GROWN: dict(key)})
                return found
            file.truncate(0)
            journal = cls(
                path, file, outdated=None if outdated is None or len(lines) < 2 else (len(lines) - 1, outdated)
            )
            journal.append({"idl_audit_journal": VERSION, "key": dict(key)})
            journal._appended = False
        except BaseException:
            file.close()
            raise
        return journal

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line. Where the disk refuses, the run goes on without, and `failure` says so."""
        if self.failure is not None:
            return
        try:
            line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
            if self._file.write(line) != len(line):
                self.failure = "no space left"
            else:
                self._appended = True
        except OSError as error:
            self.failure = error.strerror or str(error)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not (self.lines or self._appended):
                self.path.unlink(missing_ok=True)
            self._file.close()
        except OSError as error:
            self.failure = self.failure or error.strerror


def _lock(path: Path, file: FileIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise OptionError(f"another run is writing the journal {path}; wait for it, or name another -o") from error
        # a file system without locks


def _lines(path: Path, whole: bytes) -> list[bytes]:
    """Return the lines of a journal, the last one only where it is whole. Raises OptionError."""
    if not whole:
        return []
    lines = whole.split(b"\n")
    if _head(lines).get("idl_audit_journal") != VERSION:
        raise OptionError(f"{path} is no journal of this version of idl-audit; move it away to start anew")
    return lines if _parsed(lines[-1]) is not None else lines[:-1]


def _apart(lines: list[bytes]) -> tuple[list[bytes], object]:
    """Return the head and the samples, and the key that holds now: that of the last run that had more samples."""
    grown = [line for line in lines[1:] if line.startswith(_GROWN_LINE)]
    if not grown:
        return lines, _head(lines).get("key") if lines else None
    samples = [line for line in lines[1:] if not line.startswith(_GROWN_LINE)]
    return [lines[0], *samples], (_parsed(grown[-1]) or {}).get(_GROWN)


def _is_grown(found: object, key: Mapping[str, str], of_the_first: Callable[[int], str] | None) -> bool:
    """Return whether a key is that of a run with the first few of the samples, or of the radii; all else alike."""
    known = found if isinstance(found, dict) else {}
    count, now = str(known.get(COUNT)), key.get(COUNT, "")
    if any(known.get(word) != key[word] for word in key if word not in (DATA, COUNT, RADII)):
        return False
    before, radii = (set(str(one.get(RADII, "")).split(",")) for one in (known, key))
    if not before <= radii:
        return False
    if count == now and known.get(DATA) == key.get(DATA):
        return before < radii
    if of_the_first is None:
        return False
    if not (count.isascii() and count.isdecimal() and len(count) <= len(now) and 0 < int(count) < int(now)):
        return False
    return known.get(DATA) == of_the_first(int(count))


def _head(lines: Sequence[bytes]) -> dict[str, Any]:
    return _parsed(lines[0]) or {}


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _ends_well(whole: bytes) -> bool:
    return _parsed(whole.rpartition(b"\n")[2]) is not None


def _compare(path: Path, found: object, key: Mapping[str, str], *, is_part: bool) -> str | None:
    """Return the version of a journal that differs by that alone; None where nothing differs. Raises OptionError.

    Which samples a part of an audit has follows from how many there are in all.
    """
    known = found if isinstance(found, dict) else {}
    other = [word for word in key if known.get(word) != key[word]]
    if other == [TOOL]:
        return str(known.get(TOOL))
    if is_part and other and {*other} <= {DATA, COUNT} and COUNT in other:
        raise OptionError(
            f"{path} is the journal of the same part of {plain(str(known.get(COUNT)))} samples, and now there are "
            f"{key[COUNT]}: other ones belong to each part; give that run's --limit and --index, or give --force in "
            "place of --resume to start anew"
        )
    if other:
        raise OptionError(
            f"{path} is the journal of a run with another {' and another '.join(other)}; give what that run was "
            "given, or give --force in place of --resume to start anew"
        )
    return None


# --- samples ---------------------------------------------------------------------------------------------------------


def entry_of(sample: Decided) -> dict[str, Any]:
    """Return a decided sample as a line of the journal: what is usual, or can be read again, is left out."""
    entry: dict[str, Any] = {
        "position": sample.position,
        "index": sample.index,
        "predicted": sample.predicted,
        "results": [{"eps": eps, **_result_entry(result)} for eps, result in sample.results.items()],
    }
    if sample.certificates:
        entry["certificates"] = sample.certificates
    if sample.uncertified:
        entry["uncertified"] = sample.uncertified
    if sample.largest is not None:
        entry["largest"] = asdict(sample.largest)
    return entry


def _result_entry(result: Result) -> dict[str, Any]:
    found = result.found
    told: dict[str, Any] = {
        "method": result.method,
        "lower": result.lower,
        "float_error": result.float_error,
        "reason": None if result.reason is None else result.reason.value,
        "detail": result.detail or None,
        "nearest": result.nearest,
        "denied": result.denied or None,
        "queries": result.queries or None,
        "worst": result.worst or None,
        "found": None
        if found is None
        else {
            "point": base64.b64encode(np.asarray(found.point, "<f4").tobytes()).decode(),
            "outputs": base64.b64encode(np.asarray(found.outputs, "<f8").tobytes()).decode(),
            "margin": found.margin,
            "holds": found.holds,
            "confirmed_by": found.confirmed_by,
            **({"parameters": found.parameters} if found.parameters else {}),
        },
    }
    told["parts"] = None if result.parts is None else _parts_entry(result.parts)
    told["beaten"] = list(result.beaten) or None
    named = {key: value for key, value in told.items() if value is not None}
    return {"verdict": result.verdict.value, "seconds": round(result.seconds, 6), **named}


def _parts_entry(parts: Parts) -> dict[str, Any]:
    """Return what is known of parts: bounds as numbers or, where there is none, null."""
    ends = {"least": parts.least, "greatest": parts.greatest}
    return {
        "numbers": parts.numbers.tolist(),
        "verdicts": [verdict.value for verdict in parts.verdicts],
        **{name: [value if math.isfinite(value) else None for value in own.tolist()] for name, own in ends.items()},
    }


def samples_of(journal: Journal, tasks: SampleTasks, eps: Sequence[float]) -> Iterator[Decided]:
    """Yield what an earlier run decided, each sample once, those that were falsified last and in order.

    One that was decided at some of the radii, and at all of them by a later run, is yielded as it was decided then.

    Raises:
        OptionError: where it is not of these samples.
    """
    seen: set[int] = set()
    falsified: dict[int, Decided] = {}
    lines = [*enumerate(journal.lines)]
    if len(eps) > 1:
        lines.sort(key=lambda pair: -pair[1].count(b'"eps":'))  # those of the most radii first, else in order
    for number, line in lines:
        try:
            sample = _decided(_parsed(line), tasks.samples, eps)
        except (LookupError, TypeError, ValueError) as error:
            raise OptionError(f"{journal.path} is damaged in line {number + 2}; move it away to start anew") from error
        if sample.position in seen:
            continue
        seen.add(sample.position)
        if any(result.verdict is Verdict.FALSIFIED for result in sample.results.values()):
            falsified[sample.position] = sample
        else:
            yield sample
    for position in sorted(falsified):  # what a file holds is read forward
        (task,) = tasks[position : position + 1]
        sample = falsified.pop(position)
        found = [one.found for one in sample.results.values() if one.found is not None]
        if not all(bool(task.errs(one.outputs[None])[0]) for one in found):
            raise OptionError(f"{journal.path} is damaged: sample {sample.index} has a point that breaks nothing")
        yield replace(sample, centre=task.centre, demand=task.demand)


_SAMPLE: Final = ("position", "index", "predicted", "results")
_RESULT: Final = ("eps", "verdict", "seconds")
_MORE: Final = (
    *("method", "lower", "float_error", "reason", "detail", "nearest", "denied", "queries", "found"),
    *("worst", "parts", "beaten"),
)


def _decided(line: object, samples: SampleStream, eps: Sequence[float]) -> Decided:
    entry = Entry(line, "a line", _SAMPLE, ("certificates", "uncertified", "largest"))
    position, predicted = entry.whole("position"), _class(entry.get("predicted"))
    index, label = int(samples.indices[position]), _label(samples, position)
    told = [Entry(one, "a result", _RESULT, _MORE) for one in entry.items("results")]
    results = {one.number("eps"): _result(one, predicted, label, samples.p) for one in told}
    if not 0 < len(told) == len(results) or not set(results) <= set(eps) or entry.whole("index") != index:
        raise ValueError("another sample")
    names = entry.items("certificates") if "certificates" in entry else []
    if not all(isinstance(name, str) for name in names):
        raise TypeError("a name that is no text")
    uncertified = list(entry.numbers("uncertified")) if "uncertified" in entry else []
    largest = _largest(entry.get("largest")) if "largest" in entry else None
    return Decided(position, index, label, None, predicted, results, names, uncertified, largest=largest)


def _largest(value: object) -> Largest:
    entry = Entry(value, "largest", ("certified", "falsified", "tried"))
    found = Largest(entry.number_or_none("certified"), entry.number_or_none("falsified"), entry.whole("tried"))
    if not (found.certified or 0.0) < (math.inf if found.falsified is None else found.falsified):
        raise ValueError("certified beyond what is falsified")
    return found


def _label(samples: SampleStream, position: int) -> int:
    """Return the one label of a sample; -1 where it has none, or several."""
    labels = samples.labels
    return -1 if labels is None or labels.ndim > 1 else int(labels[position])


def _class(value: object) -> int:
    """Return a class, or -1 where an output is no number."""
    if not isinstance(value, int) or isinstance(value, bool) or not value >= -1:
        raise TypeError("no class")
    return value


def _result(entry: Entry, predicted: int, label: int, p: int) -> Result:
    """Return the result of one radius. Raises ValueError or TypeError where no run wrote it."""
    reason = entry.get("reason")
    result = Result(
        Verdict(entry.text("verdict")),
        predicted,
        entry.text("method") if "method" in entry else None,
        (entry.number("lower"),) if "lower" in entry else (),
        _found(entry.get("found"), p),
        None if reason is None else Reason(reason),
        entry.number("seconds"),
        float_error=entry.number_or_none("float_error"),
        detail=entry.text("detail") if "detail" in entry else "",
        nearest=_margin(entry.get("nearest")),
        denied=entry.whole("denied") if "denied" in entry else 0,
        queries=entry.whole("queries") if "queries" in entry else 0,
        parts=_parts(entry.get("parts")) if "parts" in entry else None,
        beaten=tuple(entry.members("beaten", 2**31, "class")),
        worst=entry.numbers("worst") if "worst" in entry else (),
    )
    if not (result.seconds >= 0 and (result.float_error is None or result.float_error >= 0)):
        raise ValueError("a negative time or error")
    if (result.reason is not None) != (result.verdict is Verdict.UNKNOWN):
        raise ValueError("a reason for what is known, or none for what is not")
    if result.verdict is Verdict.CERTIFIED and not (result.lower is not None and result.lower > 0):
        raise ValueError("certified without a bound above 0")
    if (result.verdict is Verdict.FALSIFIED) != (result.found is not None):
        raise ValueError("falsified without a point, or a point without being so")
    if result.found is not None and not (result.found.holds and (label < 0 or result.found.outputs.size > 1)):
        raise ValueError("falsified without a point of another class")
    return result


_ENDS: Final = (("least", -math.inf), ("greatest", math.inf))


def _parts(value: object) -> Parts:
    """Return what is known of parts. Raises ValueError or TypeError where no run wrote it."""
    entry = Entry(value, "parts", ("numbers", "verdicts", "least", "greatest"))
    numbers = np.asarray(entry.members("numbers", 2**31, "part"), np.int64)
    verdicts = tuple(Verdict(word) for word in entry.items("verdicts"))
    least, greatest = (np.array(_bounds(entry.items(name), none)) for name, none in _ENDS)
    if len(verdicts) != numbers.size or not {least.size, greatest.size} <= {0, numbers.size}:
        raise ValueError("parts without a verdict")
    return Parts(numbers, verdicts, least, greatest)


def _bounds(values: list[Any], none: float) -> list[float]:
    if not all(value is None or isinstance(value, float) for value in values):
        raise TypeError("a bound that is no number")
    return [none if value is None else value for value in values]


def _margin(value: object) -> float | None:
    if value is not None and not isinstance(value, float):
        raise TypeError("a margin that is no number")
    return value  # perhaps NaN


def _found(value: object, p: int) -> Found | None:
    if value is None:
        return None
    entry = Entry(value, "a point", ("point", "outputs", "margin", "holds", "confirmed_by"), ("parameters",))
    point = np.frombuffer(base64.b64decode(entry.text("point"), validate=True), "<f4").astype(np.float32)
    if point.shape != (p,) or not np.isfinite(point).all():
        raise ValueError("a point of another size")
    margin, holds = _margin(entry.get("margin")), entry.flag("holds")
    if margin is None:
        raise TypeError("a margin that is no number")
    outputs = np.frombuffer(base64.b64decode(entry.text("outputs"), validate=True), "<f8").astype(np.float64)
    if not outputs.size:
        raise ValueError("no outputs")
    parameters = entry.numbers("parameters") if "parameters" in entry else ()
    return Found(point, outputs, margin, holds, entry.text("confirmed_by"), parameters=parameters)
