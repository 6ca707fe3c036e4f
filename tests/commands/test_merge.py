"""Shards decide what the whole would, and their reports make its report; nothing else is put together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.commands import certify as robustness
from idl_audit.commands import merge as merging
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.merge import merge
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions, Shard
from idl_audit.commands.shared import decider
from idl_audit.commands.shared.journal import journal_beside
from idl_audit.commands.shared.tallies import joined, tally, told
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.report.json_text import to_json
from idl_audit.report.reading import read_report
from idl_audit.report.schema import Report
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.files import write_whole

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA = SAMPLES / "digits_mlp.onnx", SAMPLES / "digits_mlp.npz"
OTHER = SAMPLES / "digits_conv.onnx"
INDEX = (14, 0, 37, 10, 3, 25, 1, 2, 4, 5)
"""Every verdict is among them."""
FAST = ("interval", "sign", "pgd", "linear")


def audit(shard: str | None = None, *, model: Path = MODEL, **more: Any) -> Report:
    bounds, index = more.pop("bounds", (0.0, 1.0)), more.pop("index", INDEX)
    data = DataOptions(more.pop("data", DATA), index=index, preprocessing=Preprocessing(bounds=bounds))
    verdicts = Options(methods=more.pop("methods", FAST), seed=more.pop("seed", 0))
    part = None if shard is None else Shard(*map(int, shard.split("/")))
    eps = parse_eps(more.pop("eps", "0.02,0.05"))
    return audit_robustness(
        "certify", model, RobustnessOptions(eps=eps, data=data, verdicts=verdicts, shard=part, **more)
    )


def write(folder: Path, name: str, report: Report) -> Path:
    path = folder / f"{name}.json"
    path.write_text(to_json(report))
    return path


def without_times(report: Report) -> dict[str, Any]:
    document = report.model_dump(mode="json")
    for result in (result for sample in document["samples"] for result in sample["results"]):
        del result["seconds"]
    for part, name in (("conversion", "seconds"), ("conversion", "peak_mb")):
        del document[part][name]
    return {name: value for name, value in document.items() if name not in ("timing", "created", "command_line")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    return [write(folder, f"part-{i}", audit(f"{i}/3")) for i in (1, 2, 3)]


@given(st.integers(1, 300), st.data())
def test_parts_share_the_samples_out_and_differ_by_one(n: int, data: st.DataObject) -> None:
    of = data.draw(st.integers(1, n))
    places = [Shard(i, of).places(n) for i in range(1, of + 1)]
    assert [place for part in places for place in part] == list(range(n))
    assert max(map(len, places)) - min(map(len, places)) <= 1
    with pytest.raises(OptionError, match="take fewer"):
        Shard(1, n + 1).places(n)


def test_shards_make_the_report_of_the_whole(parts: list[Path]) -> None:
    whole, merged = audit(), merge([parts[2], parts[0], parts[1]])
    assert {one.verdict.value for sample in whole.samples for one in sample.results} >= {"certified", "falsified"}
    assert without_times(merged) == without_times(whole)


def test_a_shard_says_what_it_is_and_can_be_judged_alone(parts: list[Path]) -> None:
    report = read_report(parts[1])
    assert report.data is not None
    assert report.data.shard is not None
    assert (report.data.shard.number, report.data.shard.of, report.data.shard.n) == (2, 3, len(INDEX))
    assert report.data.indices == INDEX[3:6] == tuple(sample.index for sample in report.samples)
    (word,) = (one for one in report.diagnostics if one.code == "IDL219")
    assert word.message == "this is shard 2 of 3: 3 of 10 samples, from place 3 on"


def test_a_killed_shard_is_resumed_and_counts_once(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "again.json"
    journal = journal_beside(path)
    real = decider.Decider.decide

    def decide(self: Any, task: Any, heard: Callable[[Any], None]) -> Any:
        if task.position == 5:
            raise KeyboardInterrupt
        return real(self, task, heard)

    with monkeypatch.context() as patch:
        patch.setattr(decider.Decider, "decide", decide)
        broken = write(tmp_path, "broken", audit("2/3", journal=journal))
    with pytest.raises(DataError, match=r"broken.json is incomplete: 2 of its samples .* --resume"):
        merge([parts[0], broken, parts[2]])
    with pytest.raises(OptionError, match="another set of options"):
        audit("3/3", journal=journal, resume=True)
    resumed = audit("2/3", journal=journal, resume=True)
    assert [one.code for one in resumed.diagnostics].count("IDL207") == 1
    again = write(tmp_path, "again", resumed)
    assert without_times(merge([parts[0], again, parts[2]])) == without_times(merge(parts))


STRANGERS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": OTHER}, "another network"),
    "data": ({"index": (*INDEX[:-1], 6)}, "other data"),
    "eps": ({"eps": "0.02,0.04"}, "another threat model"),
    "bounds": ({"bounds": (0.0, 2.0)}, "another threat model"),
    "methods": ({"methods": ("interval", "sign", "linear")}, "other methods"),
    "seed": ({"seed": 3}, r"another seed \(3, not 0\)"),
}


@pytest.mark.parametrize(("change", "words"), STRANGERS.values(), ids=STRANGERS)
def test_what_speaks_of_something_else_is_refused_by_name(
    parts: list[Path], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    stranger = write(tmp_path, "stranger", audit("2/3", **change))
    with pytest.raises(DataError, match=rf"stranger\.json does not go with .*part-1\.json: .*{words}"):
        merge([parts[0], stranger, parts[2]])


def test_gaps_repetitions_and_wholes_are_refused(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of 3 shards, 2 is missing"):
        merge([parts[0], parts[2]])
    with pytest.raises(DataError, match=r"part-2\.json are both shard 2 of 3"):
        merge([*parts, parts[1]])
    with pytest.raises(DataError, match="is no report of a shard"):
        merge([write(tmp_path, "whole", audit()), *parts])
    halves = write(tmp_path, "half", audit("2/2"))
    with pytest.raises(DataError, match=r"half\.json does not go with .*: it is one of 2 shards, not of 3"):
        merge([parts[0], halves, parts[2]])


def test_samples_of_two_shards_are_refused(parts: list[Path], tmp_path: Path) -> None:
    text = parts[1].read_text().replace('"index":25', '"index":14').replace("10, 3, 25", "10, 3, 14")
    path = tmp_path / "changed.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"sample 14 is in both .*part-1\.json and .*changed\.json"):
        merge([parts[0], path, parts[2]])


def test_a_shard_of_another_version_is_refused(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.json"
    path.write_text(parts[1].read_text().replace('"version": "', '"version": "0.0.', 1))
    with pytest.raises(DataError, match=r"old\.json was made by version 0\.0\.\S+ of idl-audit"):
        merge([parts[0], path, parts[2]])
    path.write_text(parts[1].read_text().replace('"onnxruntime": "', '"onnxruntime": "9.', 1))
    with pytest.raises(DataError, match=r"another version of onnxruntime made it \(9\."):
        merge([parts[0], path, parts[2]])
    monkeypatch.setattr(merging, "__version__", "99.0")
    with pytest.raises(DataError, match=r"and this is 99\.0; merge with the version that made the shards"):
        merge(parts)


def test_counts_of_shards_make_one_sentence() -> None:
    rows = [(str(i), 1) for i in range(14)]
    whole = told(tally("close margins", rows, about="float32", largest=3e-6))
    split = [tally("close margins", rows[a:b], about="float32", largest=c) for a, b, c in ((0, 1, 1e-6), (1, 14, 3e-6))]
    assert [told(one) for one in joined(split)] == [whole]
    assert whole.message.startswith("14 certified margins are not above")
    assert told(split[0]).message.startswith("1 certified margin is not above what float32 arithmetic may change in it")
    open_ = [*split, tally("close margins", [("99", 1)], about="float32")]
    assert joined(open_)[0].largest is None
    assert len(joined([*split, tally("close margins", [("99", 1)], about="float64")])) == 2


def merging_command(parts: list[Path], out: Path) -> list[str]:
    return [sys.executable, "-m", "idl_audit", "merge", *map(str, parts), "-o", str(out), "-f", "json", "--force"]


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "whole.json"
    out.write_text('{"an": "earlier report"}')
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", *merging_command(parts, out)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {out} cannot be written (File too large)")
    assert len(done.stderr.splitlines()) == 1
    assert out.read_text() == '{"an": "earlier report"}'
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]


def test_two_merges_at_once_leave_one_whole_report(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "whole.json"
    both = [subprocess.Popen(merging_command(parts, out)) for _ in range(2)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    assert without_times(read_report(out)) == without_times(merge(parts))
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]


def test_of_two_reports_for_one_place_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "whole.json"
    out.touch()  # an empty file is nothing to lose
    write_whole(out, lambda file: file.write(b"first"), new=True)
    with pytest.raises(OptionError, match="was written by another run meanwhile, and is left as it is"):
        write_whole(out, lambda file: file.write(b"second"), new=True)
    assert out.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]

    def none(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", none)  # a file system without hard links
    write_whole(tmp_path / "other", lambda file: file.write(b"second"), new=True)
    assert (tmp_path / "other").read_bytes() == b"second"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_shard_reads_and_decides_no_more_than_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = []
    real = robustness.decide_all

    def watched(*arguments: Any, **more: Any) -> Any:
        for sample in real(*arguments, **more):
            decided.append(sample.index)
            yield sample

    monkeypatch.setattr(robustness, "decide_all", watched)
    seen: list[tuple[int, int]] = []
    data = DataOptions(DATA, index=INDEX, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    verdicts = Options(methods=FAST)
    chosen = RobustnessOptions(eps=parse_eps("0.02"), data=data, verdicts=verdicts, shard=Shard(3, 3))
    audit_robustness("certify", MODEL, chosen, watch=lambda progress: seen.append((progress.done, progress.total)))
    assert sorted(decided) == sorted(INDEX[6:])
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    assert np.all(np.diff([done for done, _ in seen]) >= 0)


def test_radii_in_another_order_are_counted_where_they_belong(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "1.json", audit("1/2", eps="0.02,0.2")),
        write(tmp_path, "2.json", audit("2/2", eps="0.2,0.02")),
    ]
    whole = audit(eps="0.02,0.2")
    found = merge(files)
    assert found.summary is not None
    assert whole.summary is not None
    assert {one.eps: one for one in found.summary.per_eps} == {one.eps: one for one in whole.summary.per_eps}


def test_counts_that_a_shard_lacks_are_refused(parts: list[Path], tmp_path: Path) -> None:
    report = read_report(parts[0])
    assert report.summary is not None
    summary = report.summary.model_copy(update={"per_eps": report.summary.per_eps[:1]})
    samples = tuple(one.model_copy(update={"results": one.results[:1]}) for one in report.samples)
    short = write(tmp_path, "short.json", report.model_copy(update={"summary": summary, "samples": samples}))
    with pytest.raises(DataError, match="different radii"):
        merge([short, *parts[1:]])
    with pytest.raises(DataError, match="different radii"):
        merge([*parts[1:], short])
