"""bench --resume: a row is kept for the same files only, not for the same names."""

from __future__ import annotations

from pathlib import Path

import bench_workers
import pytest

from idl_audit import __version__
from idl_audit.audit import bench
from idl_audit.audit.bench import BenchOptions, Row, audit_bench
from idl_audit.data.instances import read_instances
from idl_audit.report.schema import Diagnostic, Report


@pytest.fixture
def a_list(tmp_path: Path) -> Path:
    (tmp_path / "net.onnx").write_bytes(b"one network")
    (tmp_path / "ask.vnnlib").write_bytes(b"one property")
    path = tmp_path / "instances.csv"
    path.write_text("onnx,vnnlib,timeout,truth\nnet.onnx,ask.vnnlib,9,\n")
    return path


def kept(path: Path, earlier: Report) -> list[int]:
    instances = read_instances(path)
    return [number for number, _ in bench._kept(instances, [bench._hash(path.parent, instances[0])], earlier)]


def test_rows_of_files_that_changed_are_decided_anew(a_list: Path) -> None:
    folder = a_list.parent
    first = audit_bench(a_list, BenchOptions(), decide=bench_workers.decided)
    assert kept(a_list, first) == [0]
    for name in ("net.onnx", "ask.vnnlib"):
        before = (folder / name).read_bytes()
        bench._file_hash.cache_clear()
        (folder / name).write_bytes(b"another one")
        assert kept(a_list, first) == []
        bench._file_hash.cache_clear()
        (folder / name).write_bytes(before)
        assert kept(a_list, first) == [0]


def test_rows_of_another_version_are_decided_anew_and_that_is_told(a_list: Path) -> None:
    first = audit_bench(a_list, BenchOptions(), decide=bench_workers.decided)
    assert first.tool.version == __version__
    other = first.model_copy(update={"tool": first.tool.model_copy(update={"version": "0.0.9"})})
    assert (kept(a_list, first), kept(a_list, other)) == ([0], [])
    told: list[Diagnostic] = []
    saved: list[Report] = []
    options = BenchOptions(earlier=other)
    found = audit_bench(a_list, options, decide=bench_workers.decided, save=saved.append, tell=told.append)
    assert len(saved) == 1
    assert found.tool.version == __version__
    assert list(found.diagnostics) == told
    assert [one.message for one in told] == [
        "1 of 1 rows of the earlier report are decided again: version 0.0.9 of idl-audit decided them, and this is "
        f"{__version__}"
    ]


def test_rows_whose_files_changed_are_told(a_list: Path) -> None:
    (instance,) = read_instances(a_list)
    done = bench_workers.decided(Row(0, instance, a_list.parent, 9.0, 0))
    first = audit_bench(a_list, BenchOptions(), decide=bench_workers.decided)
    assert list(bench._decided_again((instance,), {0: done}, first)) == []
    (told,) = bench._decided_again((instance,), {}, first)
    assert (told.code, told.level) == ("IDL506", "warning")
    assert told.message == "1 of 1 rows of the earlier report are decided again: their files changed since, or may have"


def test_rows_that_do_not_say_what_they_were_decided_on_are_not_kept(a_list: Path) -> None:
    first = audit_bench(a_list, BenchOptions(), decide=bench_workers.decided)
    nameless = first.properties[0].model_copy(update={"sha256": None})
    assert kept(a_list, first.model_copy(update={"properties": (nameless,)})) == []
    (a_list.parent / "net.onnx").unlink()
    bench._file_hash.cache_clear()
    assert kept(a_list, first.model_copy(update={"properties": (nameless,)})) == []


def test_networks_whose_weights_lie_elsewhere_are_not_kept(a_list: Path) -> None:
    (instance,) = read_instances(a_list)
    row = Row(0, instance, a_list.parent, 9.0, 0, "0" * 64)
    plain = bench_workers.decided(row)
    for has_other_files, wanted in ((False, "0" * 64), (True, None)):
        answer = bench.Decided(plain.report, (), has_other_files)
        assert bench._decided(bench.Done(row, answer, 0.0)).report.sha256 == wanted
