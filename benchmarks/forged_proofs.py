"""Changed proof files against two checkers: `python -m benchmarks.forged_proofs --count 100000 --state forged.json`.

Small proofs of every kind are drawn from seeds, changed with structure (`tests.shared.proof_mutations`) and shown to
the tool's own checker and to the independent ones. What is accepted must be true: its claim is decided without a look
at the proof (`tests.shared.decided_claims`). A false one is kept beside the state file, and ends the run with exit
code 1. The state file is written after every batch, and a run goes on where it says; `--table` writes the report.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np
import onnx
import scipy

import idl_audit
from idl_audit.commands import verify as verification
from idl_audit.commands.shared.subject import ModelOptions, Subject, open_subject
from idl_audit.values.errors import IdlAuditError
from idl_audit.values.npz import Header
from tests import independent_checker, independent_curves, independent_float32
from tests.independent_files import Refused
from tests.shared import group_proofs, mutated_proofs, proof_sources, small_proofs
from tests.shared.decided_claims import ByHalving, InFractions, Undecided, slopes
from tests.shared.proof_sources import Source

Arrays = dict[str, np.ndarray]
Accepts = Callable[[Source, Arrays, str], bool]
BATCH = 500
SEEDS = range(3)
"""Of the networks."""
OF_GROUPS = frozenset({*group_proofs.PROVED, *group_proofs.MORE})
"""Proofs about products, contractions, norms, softmax and curves, which have an independent checker of their own."""


class Held:
    """Arrays in memory, read as `idl_audit.values.npz.NpzFile` reads those of a file."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self.stored = arrays, sum(array.nbytes for array in arrays.values())
        self.headers = {name: Header(array.shape, array.dtype) for name, array in arrays.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]


@cache
def opened(path: Path, options: ModelOptions, **more: object) -> Subject:
    """Return a model file's contents, read once."""
    return open_subject(path, options)


def by_the_tool(source: Source, arrays: Arrays, text: str) -> bool:
    """Return whether `verify` accepts a file."""
    held = Held({**arrays, "meta": np.asarray(text)})
    with mock.patch.multiple(verification, NpzFile=lambda _: held, open_subject=opened):
        try:
            report = verification.verify(Path("changed.npz"), source.model, ModelOptions())
        except IdlAuditError:
            return False
    assert report.verification is not None
    return report.verification.accepted


def independently(source: Source, arrays: Arrays, text: str) -> bool:
    """Return whether an independent checker accepts a file, that of the arithmetic which the source is about."""
    checker = independent_checker if source.meta["arithmetic"] == "real" else independent_float32
    if source.name in OF_GROUPS:
        checker = independent_curves
    try:
        checker.check(source.model, {**arrays, "meta": np.asarray(text)})
    except Refused:
        return False
    return True


CHECKERS: dict[str, Accepts] = {"product": by_the_tool, "independent": independently}


@dataclass
class Tally:
    """What came of the changed files that one checker was shown."""

    count: int = 0
    seconds: float = 0.0
    fields: Counter[str] = field(default_factory=Counter)
    """"FIELD|OUTCOME" -> files in which such an array was changed."""
    changes: Counter[str] = field(default_factory=Counter)
    """"CHANGE|OUTCOME" -> files."""
    sources: Counter[str] = field(default_factory=Counter)
    """"KIND OF PROOF|OUTCOME" -> files."""

    def told(self) -> dict[str, Any]:
        return {**self.__dict__}

    @classmethod
    def of(cls, told: dict[str, Any]) -> Tally:
        counters = {name: Counter(told[name]) for name in ("fields", "changes", "sources")}
        return cls(told["count"], told["seconds"], **counters)

    def total(self, outcome: str) -> int:
        return sum(n for key, n in self.changes.items() if key.endswith(f"|{outcome}"))


OUTCOMES = ("refused", "same claim", "another true claim", "false")


@dataclass
class Subjects:
    """The proofs that are changed, and who decides their claims."""

    sources: list[Source]
    decide: list[Callable[[Arrays, Any], bool]]

    @classmethod
    def drawn(cls, folder: Path) -> dict[str, Subjects]:
        """Return them for each checker: those of loops, of S, of few changes and of tanh for the tool's own alone."""
        small = list(small_proofs.sources(folder, SEEDS))
        ours = [each for each in proof_sources.sources(folder) if each.meta["schema_version"] == "2.0"]
        fractions: list[Callable[[Arrays, Any], bool]] = [
            InFractions(each.model, each.meta["arithmetic"] != "real") for each in small
        ]
        groups = list(group_proofs.sources(folder))
        small, fractions = [*small, *groups], [*fractions, *map(group_proofs.AtPoints, groups)]
        halving = [ByHalving(each, _slopes(each)) for each in ours]
        both = {"independent": cls(small, fractions), "product": cls([*small, *ours], [*fractions, *halving])}
        for subjects in both.values():
            for source, decide in zip(subjects.sources, subjects.decide, strict=True):
                assert decide(source.arrays, source.meta), f"the claim of {source.name} is false"
        return both


def _slopes(source: Source) -> np.ndarray:
    return slopes(source.model) if source.model.suffix == ".npz" else np.ones((3, 2))[: len(_some(source)[0])]


def _some(source: Source) -> np.ndarray:
    return next(iter(source.networks.values()))(np.zeros((1, 2)))


def pattern(name: str) -> str:
    """Return the kind of an array: its name without numbers and parts."""
    words = [word for word in name.split(".") if not word.isdigit() and word not in ("part", "stage", "goals", "lemma")]
    return ".".join(words) or "stage"


def fields(source: Source, arrays: Arrays, meta: Any) -> set[str]:
    """Return the kinds of arrays that were changed."""
    names = {n for n in {*source.arrays, *arrays} if arrays.get(n) is not source.arrays.get(n)}
    known = {pattern(name) for name in source.arrays}
    found = {pattern(name) if pattern(name) in known else "(no such array)" for name in names}
    changed = {key for key in {*meta, *source.meta} if meta.get(key) != source.meta.get(key)}
    return found | {f"meta: {key}" if key in source.meta else "meta: (no such key)" for key in changed}


def cases(subjects: Subjects, rng: np.random.Generator) -> Iterator[tuple[int, str, Arrays, Any]]:
    """Yield (number of the source, change, arrays, meta) without end."""
    while True:
        number = int(rng.integers(len(subjects.sources)))
        found = mutated_proofs.changed(subjects.sources[number], rng)
        if found is not None:
            yield number, found[0], found[2].arrays, found[2].meta


def tried(name: str, subjects: Subjects, tally: Tally, count: int, seed: int, beside: Path) -> list[str]:
    """Show a checker some changed files; return what is wrong with those that it accepts."""
    rng = np.random.default_rng([seed, list(CHECKERS).index(name), tally.count])
    stream, wrong, start, left_out = cases(subjects, rng), [], time.process_time(), 0
    for n in range(count):
        number, change, arrays, meta = next(stream)
        source, outcome = subjects.sources[number], "refused"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accepted = CHECKERS[name](source, arrays, json.dumps(meta))
        if accepted:
            try:
                true = subjects.decide[number](arrays, meta)
            except Undecided:  # numbers beyond floats: nothing is said of it, and it is not counted
                left_out += 1
                continue
            outcome = "false" if not true else "same claim" if _same(source, arrays, meta) else "another true claim"
        if outcome == "false":
            place = beside.with_name(f"false-{name}-{seed}-{tally.count + n}.pickle")
            place.write_bytes(pickle.dumps((source.name, source.model.read_bytes(), arrays, meta)))
            wrong.append(f"{name}: {source.name}, {change}: accepted, and false; kept as {place}")
        tally.fields.update(f"{one}|{outcome}" for one in fields(source, arrays, meta))
        tally.changes.update(f"{one}|{outcome}" for one in [change])
        tally.sources.update([f"{source.name}|{outcome}"])
    tally.count, tally.seconds = tally.count + count - left_out, tally.seconds + time.process_time() - start
    return wrong


def _same(source: Source, arrays: Arrays, meta: Any) -> bool:
    own, given = (proof_sources.claim_of(*each) for each in ((source.arrays, source.meta), (arrays, meta)))
    return pickle.dumps(own) == pickle.dumps(given)


def table(state: dict[str, Any]) -> str:
    """Return the report."""
    tallies = {name: Tally.of(state[name]) for name in CHECKERS if name in state}
    lines = ["# Changed proofs", ""]
    lines += [state["about"], _summary(tallies), ""]
    for title, counters in (
        ("What was changed", "fields"),
        ("How", "changes"),
        ("In proofs of which kind", "sources"),
    ):
        lines += [f"## {title}", "", *_rows(title, {name: getattr(t, counters) for name, t in tallies.items()}), ""]
    return "\n".join(lines).rstrip() + "\n"


def _summary(tallies: dict[str, Tally]) -> str:
    head = "| checker | files | refused | same claim | another claim, true | **false** | CPU seconds |"
    rows = [
        f"| {name} | {t.count:,} | " + " | ".join(f"{t.total(o):,}" for o in OUTCOMES) + f" | {t.seconds:,.0f} |"
        for name, t in tallies.items()
    ]
    return "\n".join([head, "|---|" + "---:|" * 6, *rows])


def _rows(title: str, counters: dict[str, Counter[str]]) -> list[str]:
    names = sorted({key.rsplit("|", 1)[0] for counter in counters.values() for key in counter})
    names = [name for name in names if " and " not in name or title != "How"]
    columns = [f"{checker}: {outcome}" for checker in counters for outcome in ("refused", "accepted, true", "false")]
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name in names:
        cells = []
        for counter in counters.values():
            refused, same, other, false = (counter[f"{name}|{outcome}"] for outcome in OUTCOMES)
            cells += [refused, same + other, false]
        lines.append(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return lines


def main() -> None:
    """Go on with a campaign; exit with 1 where a false claim was accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="files for each checker, those of earlier runs too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True, help="where the run goes on")
    parser.add_argument("--checker", choices=CHECKERS, action="append", help="this one alone")
    parser.add_argument("--table", type=Path, help="write the report here")
    given = parser.parse_args()
    state = json.loads(given.state.read_text()) if given.state.exists() else {"seed": given.seed}
    if state["seed"] != given.seed:
        parser.error(f"{given.state} is of the seed {state['seed']}")
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        subjects = Subjects.drawn(Path(folder))
        state["about"] = _about(given.seed, subjects)
        for name in given.checker or CHECKERS:
            tally = Tally.of(state[name]) if name in state else Tally()
            while tally.count < given.count and not problems:
                problems = tried(
                    name, subjects[name], tally, min(BATCH, given.count - tally.count), given.seed, given.state
                )
                state[name] = tally.told()
                given.state.write_text(json.dumps(state))
                print(f"{name}: {tally.count:,} files, {tally.seconds:.0f} s", file=sys.stderr, flush=True)
    if given.table:
        given.table.write_text(table(state))
    print("\n".join(problems) or "no false claim was accepted")
    sys.exit(1 if problems else 0)


ABOUT = """By `python -m benchmarks.forged_proofs`, seed {seed}; {versions}. Valid proofs of small networks ({counts})
were changed, most of them once, some twice; each changed file was shown to one checker. *Same claim*: accepted, and
what it claims is what it claimed before the change, which is true. *Another claim, true*: it claims something else,
which was decided without its proof: in rational arithmetic over all phases, by halving the box with a bound of the
slopes, (for S) by the slopes of all patterns, or (about products, norms, softmax and curves) at 1,681 points. A file in
which several arrays were changed counts for each of them.
"""


def _about(seed: int, subjects: dict[str, Subjects]) -> str:
    modules = {"idl-audit": idl_audit, "numpy": np, "scipy": scipy, "onnx": onnx}
    versions = ", ".join(f"{name} {module.__version__}" for name, module in modules.items())
    counts = " and ".join(f"{len(each.sources)} for the {name} checker" for name, each in subjects.items())
    return ABOUT.format(seed=seed, versions=versions, counts=counts)


if __name__ == "__main__":
    main()
