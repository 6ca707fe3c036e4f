"""bench --resume: a row is kept where it was judged on the same bytes, not for the same names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from idl_audit import __version__
from idl_audit.commands import bench
from idl_audit.commands.bench import Row, audit_bench
from idl_audit.commands.options.many import BenchOptions
from idl_audit.commands.shared.bench_resume import kept_rows
from idl_audit.data.instances import read_instances
from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Diagnostic, Report
from tests.shared import bench_workers
from tests.shared.command_line import gemm, network, run, weights


@pytest.fixture
def a_list(tmp_path: Path) -> Path:
    (tmp_path / "net.onnx").write_bytes(b"one network")
    (tmp_path / "net.onnx.data").write_bytes(b"its weights")
    (tmp_path / "ask.vnnlib").write_bytes(b"one property")
    path = tmp_path / "instances.csv"
    path.write_text("onnx,vnnlib,timeout,truth\nnet.onnx,ask.vnnlib,9,\n")
    return path


def kept(path: Path, earlier: Report, seconds: float = 9.0) -> tuple[list[int], list[str]]:
    """Return the rows that are kept, and what is said of the others."""
    rows, told = kept_rows(read_instances(path), path.parent, [seconds], earlier)
    return list(rows), [one.message for one in told]


@pytest.fixture(scope="module")
def known() -> dict[str, Report]:
    """What was found of the list, whichever folder it is in: its process is started once."""
    return {}


def decided(known: dict[str, Report], a_list: Path, **changes: object) -> Report:
    if "report" not in known:
        known["report"] = audit_bench(a_list, BenchOptions(), decide=bench_workers.decided_on_files)
    report = known["report"]
    return report.model_copy(update={"properties": (report.properties[0].model_copy(update=changes),)})


CHANGED = "1 of 1 rows of the earlier report are decided again: their files changed since, or may have"


@pytest.mark.parametrize("name", ["net.onnx", "net.onnx.data", "ask.vnnlib"])
def test_rows_of_files_that_changed_are_decided_anew(known: dict[str, Report], a_list: Path, name: str) -> None:
    first = decided(known, a_list)
    assert kept(a_list, first) == ([0], [])
    file = a_list.parent / name
    before = file.read_bytes()
    file.write_bytes(b"another one")
    assert kept(a_list, first) == ([], [CHANGED])
    file.write_bytes(before)
    assert kept(a_list, first) == ([0], [])
    file.unlink()
    assert kept(a_list, first) == ([], [CHANGED])


def test_rows_of_another_version_are_decided_anew_and_that_is_told(known: dict[str, Report], a_list: Path) -> None:
    first = decided(known, a_list)
    assert first.tool.version == __version__
    other = first.model_copy(update={"tool": first.tool.model_copy(update={"version": "0.0.9"})})
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
    assert [(one.code, one.level) for one in told] == [("IDL506", "warning")]


@pytest.mark.parametrize(
    ("changes", "seconds", "why"),
    [
        ({"sha256": None}, 9.0, "their files changed since, or may have"),
        ({"problem": "its process died"}, 9.0, "they could not be judged"),
        ({"result": "timeout"}, 9.5, "they were undecided and have more time now"),
        ({"result": "unknown"}, 9.5, "they were undecided and have more time now"),
        ({"result": "timeout"}, 9.0, None),
        ({"result": "unsat"}, 9.5, None),
    ],
)
def test_what_was_not_judged_or_had_less_time_is_decided_again(
    known: dict[str, Report], a_list: Path, changes: dict[str, object], seconds: float, why: str | None
) -> None:
    rows, told = kept(a_list, decided(known, a_list, **changes), seconds)
    assert rows == ([0] if why is None else [])
    assert told == ([] if why is None else [f"1 of 1 rows of the earlier report are decided again: {why}"])


def test_a_row_that_took_too_long_is_kept_for_its_files(a_list: Path) -> None:
    (instance,) = read_instances(a_list)
    row = Row(0, instance, a_list.parent, 9.0, 0)
    lost = bench.Lost("it took much longer", overtime=True)
    files = bench.Files("0" * 64, ("net.onnx.data",))
    for known in (files, None):
        entry = bench._decided(bench.Done(row, lost, 40.0), known).report
        assert (entry.result, entry.problem, entry.time_limit) == ("timeout", None, 9.0)
        assert (entry.sha256, entry.external_files) == (
            (known.sha256, known.external_files) if known is not None else (None, ())
        )


@pytest.mark.slow
def test_weights_beside_the_network_belong_to_it(files: Path) -> None:
    """The same names and the same skeleton, and other numbers: another answer."""
    (files / "net").mkdir()
    path = network(files / "net/n.onnx", [gemm()], {**weights(), "w": np.zeros((4, 3)), "b": np.zeros(3)})

    def save(bias: float) -> None:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            filled = np.full(tuple(tensor.dims), bias if tensor.name == "b" else 0.0, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(filled, tensor.name))
        (files / "net/n.data").unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location="n.data", size_threshold=0)

    names = [*(f"X_{i}" for i in range(4)), *(f"Y_{j}" for j in range(3))]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (>= X_{i} 0)) (assert (<= X_{i} 1))" for i in range(4)]
    (files / "net/p.vnnlib").write_text("\n".join([*lines, "(assert (>= Y_0 1))"]))
    (files / "net/i.csv").write_text("onnx,vnnlib,timeout\nn.onnx,p.vnnlib,20\n")

    def bench_it() -> tuple[str, str]:
        found = run("bench", "net/i.csv", "-o", "out/r.json", "--resume", "-f", "json")
        assert found.code == 0
        (entry,) = from_json((files / "out/r.json").read_text()).properties
        assert entry.external_files == ("n.data",)
        progress = re.compile(r"bench: \d+ of \d+ after .*\n")  # told where a machine is busy
        return entry.result, progress.sub("", found.err)

    save(0.0)
    skeleton = path.read_bytes()
    assert bench_it() == ("unsat", "")
    assert bench_it() == ("unsat", "")
    save(2.0)
    assert path.read_bytes() == skeleton
    result, told = bench_it()
    assert result == "sat"
    assert "their files changed since" in told
