"""Many samples: what each one costs in the memory of an audit, in its journal, its report and its page."""

from __future__ import annotations

import errno
import tracemalloc
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands import certify as robustness
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared import kept_points
from idl_audit.commands.shared.journal import entry_of
from idl_audit.commands.shared.kept_points import KeptPoints
from idl_audit.commands.shared.sample_tasks import Decided
from idl_audit.commands.shared.workers import next_tasks
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, Result
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.render.extras import Extras
from idl_audit.report.render.html import MOST_CARRIED, to_html
from idl_audit.report.render.verdicts import MOST_SAMPLES
from idl_audit.report.schema import Report
from idl_audit.search.judge import Found
from idl_audit.values.errors import OptionError
from idl_audit.values.verdicts import Reason, Verdict

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
P = 64


def decided_at_once(setting, subject, tasks, **_) -> Iterator[Decided]:
    """Say of most samples that they are certified, of every tenth that nothing is known."""
    for at in range(0, len(tasks), 50):
        for task in tasks[at : at + 50]:
            result = Result(
                Verdict.CERTIFIED,
                task.label,
                "linear",
                (1.0 + task.position / 3,),
                seconds=0.001234567,
                float_error=1.2345678901234567e-05,
                nearest=3.3333333333333335,
            )
            if task.position % 10 == 9:
                result = replace(result, verdict=Verdict.UNKNOWN, lowers=(-0.1,), reason=Reason.RELAXATION_GAP)
            yield Decided(task.position, task.index, task.label, None, task.label, {0.01: result})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "decide_all", decided_at_once)


def audit(folder: Path, n: int, journal: Path | None = None) -> Report:
    path = folder / f"{n}.npz"
    rows = np.random.default_rng(n).random((n, P)).astype(np.float32)
    np.savez(path, inputs=rows, labels=np.arange(n) % 10)
    del rows
    data = DataOptions(path, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    chosen = RobustnessOptions(eps=parse_eps("0.01"), data=data, verdicts=Options(), journal=journal)
    return audit_robustness("certify", SAMPLES / "digits_mlp.onnx", chosen)


def peak(folder: Path, n: int) -> int:
    tracemalloc.start()
    audit(folder, n)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.usefixtures("at_once")
def test_a_sample_costs_an_audit_its_line_in_the_report_and_not_its_numbers(tmp_path: Path) -> None:
    audit(tmp_path, 10)
    few, many = peak(tmp_path, 500), peak(tmp_path, 2000)
    assert (many - few) / 1500 < 3300  # bytes; 30 MB for 9,000


@pytest.mark.usefixtures("at_once")
def test_a_certified_sample_costs_little_in_journal_and_report(tmp_path: Path) -> None:
    report = audit(tmp_path, 1000, tmp_path / "j")
    lines = (tmp_path / "j").read_bytes().splitlines()[1:]
    assert len(lines) == 1000
    assert max(map(len, lines)) < 500
    text = to_json(report)
    assert from_json(text) == report
    assert len(text) - len(to_json(report.model_copy(update={"samples": ()}))) < 300 * 1000
    assert len(text.splitlines()) < 1500


@pytest.mark.usefixtures("at_once")
def test_a_page_of_many_samples_shows_the_worst_and_stays_small(tmp_path: Path) -> None:
    report = audit(tmp_path, MOST_SAMPLES + 1000)
    page = to_html(report, Extras())
    assert len(page) < 3_000_000
    assert f"The worst {MOST_SAMPLES:,} of {MOST_SAMPLES + 1000:,}" in page
    assert "<summary>rows 21 to 520</summary>" in page
    assert "Download report.json" not in page
    assert page.count("relaxation_gap") >= (MOST_SAMPLES + 1000) // 10
    few = to_html(report.model_copy(update={"samples": report.samples[:MOST_CARRIED]}), Extras())
    assert "Download report.json" in few


def falsified(position: int) -> Decided:
    rng = np.random.default_rng(position)
    centre = rng.random(P)
    found = [Found(rng.random(P).astype(np.float32), np.arange(3.0), -1.0, True) for _ in range(2)]
    results = {eps: Result(Verdict.FALSIFIED, 0, found=one) for eps, one in zip((0.1, 0.2), found, strict=True)}
    results[0.05] = Result(Verdict.UNKNOWN, 0, reason=Reason.RELAXATION_GAP)
    return Decided(position, position, 0, centre, 0, results)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_points_come_back_as_they_were(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_points, "IN_MEMORY", limit)
    with KeptPoints(P) as kept:
        given = [falsified(i) for i in range(5)]
        for sample in given:
            kept.put(sample)
            assert sample.centre is None
        for i in (3, 0, 4, 1, 2):
            found, wanted = kept.get(given[i]), falsified(i)
            assert entry_of(found) == entry_of(wanted)
            np.testing.assert_array_equal(found.centre, wanted.centre)
        plain = Decided(9, 9, 0)
        kept.put(plain)
        assert kept.get(plain) is plain


def test_no_room_for_points_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with KeptPoints(P) as kept:

        def write(content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(kept._file, "write", write)
        with pytest.raises(OptionError, match=r"cannot be kept .* \(No space left on device\); .* TMPDIR"):
            kept.put(falsified(0))


def test_tasks_are_taken_as_they_are_needed_and_what_is_left_over_first() -> None:
    tasks, left = count(), deque([-1, -2, -3])
    assert next_tasks(left, tasks, 2) == [-1, -2]
    assert next_tasks(left, tasks, 2) == [-3, 0]
    assert next_tasks(left, tasks, 0) == []
    assert next_tasks(left, tasks, 3) == [1, 2, 3]
    assert next(tasks) == 4
