"""bench and certify with a property: the competition's words, witnesses that the network confirms, faults survived."""

from __future__ import annotations

import gzip
import io
import json
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from rich.console import Console

from idl_audit.commands import bench
from idl_audit.commands import certify_property as properties
from idl_audit.commands.bench import audit_bench, seconds_of
from idl_audit.commands.options.many import BenchOptions
from idl_audit.commands.shared.questions import rounded, scaled_row, to_query
from idl_audit.data.vnnlib import OutputRow, PropertyBox, parse_vnnlib
from idl_audit.report.json_text import from_json
from idl_audit.report.schema import Report
from idl_audit.report.terminal import render
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError
from idl_audit.values.verdicts import Reason
from tests.shared import bench_workers
from tests.shared.command_line import MODEL, Run, network, run, weights

CONDITIONS = {
    "holds": "(assert (<= Y_0 -1))",  # y = relu(...): never
    "fails": "(assert (or (and (<= Y_0 -1)) (and (>= Y_0 0) (<= Y_1 1000))))",
    "two_boxes": "(assert (or (<= X_0 0.25) (and (>= X_0 0.5) (<= X_1 0.5)))) (assert (<= Y_2 -0.5))",
}
"""Properties of small.onnx: y = relu(W u + b), four inputs, three outputs."""
TRUTHS = {"holds": "unsat", "fails": "sat", "two_boxes": "unsat"}


def declared(n_inputs: int, n_outputs: int) -> str:
    names = [*(f"X_{i}" for i in range(n_inputs)), *(f"Y_{j}" for j in range(n_outputs))]
    bounds = [f"(assert (>= X_{i} 0)) (assert (<= X_{i} 1))" for i in range(n_inputs)]
    return "\n".join([*(f"(declare-const {name} Real)" for name in names), *bounds]) + "\n"


def write_hard(folder: Path) -> None:
    """Write a property of the digits' network that is neither proved nor refuted for a long time."""
    rows = "".join(f"(assert (>= Y_{j} 1))" for j in (0, 1, 7))  # with 0.5 there are points, with 2 there is a proof
    (folder / "hard.vnnlib").write_text(declared(64, 10) + rows)


def write_properties(folder: Path) -> None:
    for name, condition in CONDITIONS.items():
        (folder / f"{name}.vnnlib").write_text(declared(4, 3) + condition)
    zipped = gzip.compress((folder / "holds.vnnlib").read_bytes())
    (folder / "zipped.vnnlib.gz").write_bytes(zipped)
    (folder / "broken.vnnlib").write_text("(assert")
    (folder / "other.vnnlib").write_text(declared(5, 3) + CONDITIONS["holds"])


@pytest.fixture
def folder(files: Path) -> Path:
    write_properties(files)
    return files


def listed(folder: Path, *rows: str, heading: str = "onnx,vnnlib,timeout_s,truth\n") -> Path:
    path = folder / "instances.csv"
    path.write_text(heading + "".join(f"{row}\n" for row in rows))
    return path


def outputs(path: Path, point: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: point[None].astype(np.float32)})[0][0]


def witness(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and outputs of a witness in the competition's format."""
    assert re.fullmatch(r"\((\([XY]_\d+ \S+\)\s*)+\)", text)
    pairs = re.findall(r"\(([XY])_(\d+) (\S+?)\)", text)
    x, y = ([(int(i), float(value)) for kind, i, value in pairs if kind == wanted] for wanted in "XY")
    assert [i for i, _ in x] == list(range(len(x)))
    assert [j for j, _ in y] == list(range(len(y)))
    return np.array([value for _, value in x]), np.array([value for _, value in y])


# ---- certify with a property -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CONDITIONS, "zipped"])
def test_the_first_line_is_the_result(folder: Path, name: str) -> None:
    suffix = ".vnnlib.gz" if name == "zipped" else ".vnnlib"
    found = run("certify", "small.onnx", name + suffix)
    assert (found.code, found.err) == (0, "")
    first, *rest = found.out.splitlines()
    assert first == TRUTHS.get(name, "unsat")
    assert bool(rest) == (first == "sat")


def test_the_witness_is_a_counterexample(folder: Path) -> None:
    x, y = witness("\n".join(run("certify", "small.onnx", "fails.vnnlib").out.splitlines()[1:]))
    assert len(x) == 4
    assert (x.astype(np.float32) == x).all()
    assert ((x >= 0) & (x <= 1)).all()
    np.testing.assert_array_equal(outputs(folder / "small.onnx", x), y.astype(np.float32))
    assert y[0] >= 0
    assert y[1] <= 1000


def test_an_undecided_property_is_a_timeout(folder: Path) -> None:
    write_hard(folder)
    found = run("certify", MODEL, "hard.vnnlib", "--time-limit", "0.02")
    assert (found.code, found.out) == (0, "timeout\n")


def test_a_property_for_which_the_memory_does_not_suffice_is_not_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(*_: object, **__: object) -> properties.Decision:
        return properties.Decision("unknown", reason=Reason.MEMORY_LIMIT)

    monkeypatch.setattr(properties, "decide_property", decide)
    found = run("certify", "small.onnx", "holds.vnnlib", "-o", "out/r.json")
    assert (found.code, found.out) == (3, "unknown\n")
    assert found.err == "error: holds.vnnlib could not be judged: it ran out of memory\n"
    report = from_json((folder / "out/r.json").read_text())
    assert report.why_incomplete == "not_judged"
    assert report.properties[0].problem == "it ran out of memory"


def test_the_report_has_the_property(folder: Path) -> None:
    found = run("certify", "small.onnx", "fails.vnnlib", "-f", "json").report
    (entry,) = found.properties
    assert (entry.onnx, entry.vnnlib, entry.result) == ("small.onnx", "fails.vnnlib", "sat")
    assert found.model is not None
    assert found.conversion is not None
    assert witness(entry.witness or "")[0].size == 4
    quiet = run("certify", "small.onnx", "holds.vnnlib", "-f", "json", "-o", "out/r.json")
    assert (quiet.code, quiet.out) == (0, "")
    assert from_json((folder / "out/r.json").read_text()).properties[0].result == "unsat"
    both = run("certify", "small.onnx", "holds.vnnlib", "-o", "out/r.json", "--force")
    assert both.out == "unsat\n"


def test_an_unsat_property_has_a_certificate(folder: Path) -> None:
    for name in ("holds", "two_boxes", "zipped"):
        suffix = ".vnnlib.gz" if name == "zipped" else ".vnnlib"
        found = run("certify", "small.onnx", name + suffix, "--certificates", "out/c", "--force")
        assert (found.code, found.out) == (0, "unsat\n")
        for more in ([], [name + suffix]):
            assert run("verify", f"out/c/{name}.npz", "small.onnx", *more).code == 0
    other = run("verify", "out/c/holds.npz", "small.onnx", "two_boxes.vnnlib")
    assert other.code == 1
    assert "another property" in other.out
    assert run("certify", "small.onnx", "fails.vnnlib", "--certificates", "out/c", "--force").out.startswith("sat\n")
    assert not (folder / "out/c/fails.npz").exists()
    refused = run("certify", "small.onnx", "holds.vnnlib", "--certificates", "out/c")
    assert refused.code == 2
    assert "not empty" in refused.err


def test_a_softmax_is_only_compared(folder: Path) -> None:
    """The implicit model leaves it out, which changes no comparison; values of probabilities are refused."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Softmax", ["h"], ["y"], axis=1),
    ]
    network(folder / "softmax.onnx", nodes, weights())
    (folder / "order.vnnlib").write_text(declared(4, 3) + "(assert (or (<= Y_0 Y_1) (<= Y_1 Y_0)))")
    (folder / "value.vnnlib").write_text(declared(4, 3) + "(assert (>= Y_0 2))")
    found = run("certify", "softmax.onnx", "order.vnnlib")
    assert found.out.startswith("sat\n")
    assert "Softmax, is left out" in found.err
    refused = run("certify", "softmax.onnx", "value.vnnlib")
    assert (refused.code, refused.out) == (2, "")
    assert "Softmax" in refused.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("small.onnx missing.vnnlib", ("missing.vnnlib", "no such file")),
        ("small.onnx broken.vnnlib", ("broken.vnnlib", "line 1", "truncated")),
        ("small.onnx other.vnnlib", ("other.vnnlib", "5 inputs", "small.onnx has 4")),
        ("small.onnx small.onnx", ("small.onnx", "text")),
        ("missing.onnx holds.vnnlib", ("missing.onnx", "no such file")),
        ("small.onnx holds.vnnlib -d small.npz", ("--data", "beside a property")),
        ("small.onnx holds.vnnlib -e 0.1 --bounds 0,1", ("--eps", "--bounds", "beside a property")),
        ("small.onnx holds.vnnlib --layout nhwc --method lp", ("--layout", "--method")),
        ("small.onnx holds.vnnlib --time-limit 0", ("--time-limit", "positive")),
        ("small.onnx holds.vnnlib -o holds.vnnlib", ("holds.vnnlib", "twice")),
        ("small.onnx holds.vnnlib more", ("unexpected", "more")),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, line: str, words: tuple[str, ...]) -> None:
    found = run("certify", *line.split())
    assert (found.code, found.out) == (2, "")
    (told,) = found.err.splitlines()
    assert told.startswith("error: ")
    for word in words:
        assert word in told


# ---- exact numbers become rounded ones -------------------------------------------------------------------------------


def test_boxes_are_rounded_outward_and_inward() -> None:
    tenth = Fraction(1, 10)
    box = PropertyBox((tenth, Fraction(1)), (tenth, Fraction(3, 2)), ((OutputRow(((1, Fraction(1)),), -tenth),),))
    query = to_query(box, 2, "p")
    assert Fraction(query.box.lo[0]) < tenth < Fraction(query.box.hi[0])
    assert query.box.lo[0] == query.box.inner_hi[0]
    assert query.box.hi[0] == query.box.inner_lo[0]
    assert (query.box.lo[1], query.box.hi[1]) == (query.box.inner_lo[1], query.box.inner_hi[1]) == (1.0, 1.5)
    (row,) = query.alternatives
    assert row.rows.tolist() == [[0.0, 1.0]]
    assert Fraction(row.offsets[0]) < -tenth
    assert row.exact_offsets == (-tenth,)
    assert isinstance(query.box, Box)


def test_rounding_is_to_the_next_number() -> None:
    for text in ("0.1", "-0.1", "1e-300", "123456789.123456789", "0", "2"):
        value = Fraction(text)
        low, high = rounded(value, up=False), rounded(value, up=True)
        assert Fraction(low) <= value <= Fraction(high)
        assert high in (low, np.nextafter(low, np.inf))


def test_coefficients_are_multiplied_until_float64_holds_them() -> None:
    def row(*numbers: str, offset: str = "0.5") -> OutputRow:
        return OutputRow(tuple(enumerate(map(Fraction, numbers))), Fraction(offset))

    assert scaled_row(row("0.5", "3"), "p") == row("0.5", "3")
    assert scaled_row(row("0.1", "-0.3"), "p") == row("1", "-3", offset="5")
    assert scaled_row(row("0.2", "0.6"), "p") == row("1", "3", offset="2.5")
    with pytest.raises(DataError, match=r"p: .*too many digits"):
        scaled_row(row("0.1234567890123456789", "1"), "p")


def test_nothing_is_lost_on_the_way_from_text_to_query() -> None:
    found = parse_vnnlib(declared(2, 2) + "(assert (<= (* 0.1 Y_0) (- Y_1 0.3)))")
    query = to_query(found.boxes[0], 2, "p")
    holds = query.holds(np.array([[10.0, 1.3], [10.0, 1.25], [10.0, 1.31]]))
    assert holds.tolist() == [Fraction("1.3") <= 1.3, False, True]


# ---- bench -----------------------------------------------------------------------------------------------------------

ROWS = [f"small.onnx,{name}.vnnlib,20,{truth}" for name, truth in TRUTHS.items()]


def result(found: Report) -> list[tuple[str, str, str | None]]:
    return [(entry.vnnlib, entry.result, entry.truth) for entry in found.properties]


def test_every_row_is_decided(folder: Path) -> None:
    found = run("bench", listed(folder, *ROWS), "-f", "json")
    assert (found.code, found.err) == (0, "")
    assert found.report.command == "bench"
    assert found.report.status == "complete"
    assert result(found.report) == [(f"{name}.vnnlib", truth, truth) for name, truth in TRUTHS.items()]
    assert not found.report.diagnostics
    for entry in found.report.properties:
        assert entry.method is not None
        assert entry.seconds is not None
        assert (entry.witness is not None) == (entry.result == "sat")


def test_the_table_fits_the_screen(folder: Path) -> None:
    path = listed(folder, *ROWS[:2], "small.onnx,broken.vnnlib,1,sat")
    found = run("bench", path, "-o", "out/r.json", COLUMNS="80")
    assert found.code == 3
    wide = io.StringIO()
    render(from_json((folder / "out/r.json").read_text()), console=Console(file=wide, width=160, highlight=False))
    for columns, out in ((80, found.out), (160, wide.getvalue())):
        lines = out.splitlines()
        assert max(map(len, lines)) <= columns
        assert " ".join(out.split("\n\n")[0].split()) == (
            "Incomplete, not all could be judged. "
            "1 of 3 properties hold (unsat), 1 violated (sat), 0 undecided, 1 not judged."
        )
        (heading,) = (line for line in lines if line.split()[:2] == ["network", "property"])
        assert heading.split() == ["network", "property", "truth", "ours", "seconds", "method"]
        for name, truth in (("holds", "unsat"), ("fails", "sat")):
            (row,) = (line.split() for line in lines if f"{name}.vnnlib" in line)
            assert row[:4] == ["small.onnx", f"{name}.vnnlib", truth, truth]
            assert re.fullmatch(r"\d+\.\d\d", row[4])
        assert "truncated" in " ".join(out.split())


def test_help_fits_the_screen() -> None:
    for columns in (80, 160):
        assert max(map(len, run("bench", "--help", COLUMNS=str(columns)).out.splitlines())) <= columns


@pytest.mark.slow
def test_the_competition_s_lists_are_read(folder: Path) -> None:
    """No heading, three columns, paths with a dot, names without .gz or with one that is not there."""
    path = listed(folder, "./small.onnx,./zipped.vnnlib,20", "small.onnx,fails.vnnlib.gz,20", heading="")
    assert result(run("bench", path, "-f", "json").report) == [
        ("./zipped.vnnlib", "unsat", None),
        ("fails.vnnlib.gz", "sat", None),
    ]


@pytest.mark.slow
def test_a_refused_row_is_unknown_and_the_run_goes_on(folder: Path) -> None:
    rows = ["missing.onnx,holds.vnnlib,9,sat", "small.onnx,broken.vnnlib,9,sat", "text.onnx,holds.vnnlib,9,", ROWS[0]]
    found = run("bench", listed(folder, *rows), "-f", "json")
    assert found.code == 3
    assert (found.report.status, found.report.why_incomplete) == ("incomplete", "not_judged")
    assert [entry.problem is None for entry in found.report.properties] == [False, False, False, True]
    assert found.err.count("[IDL503]") == 3
    assert "3 of 4 properties could not be judged" in found.err.splitlines()[-1]
    assert [entry.result for entry in found.report.properties] == ["unknown", "unknown", "unknown", "unsat"]
    assert [told.code for told in found.report.diagnostics] == ["IDL503"] * 3
    assert "no such file" in found.report.diagnostics[0].message
    assert "truncated" in found.report.diagnostics[1].message
    assert found.report.diagnostics[1].where == "small.onnx, broken.vnnlib"


@pytest.mark.slow
def test_a_wrong_result_is_shouted(folder: Path) -> None:
    found = run("bench", listed(folder, "small.onnx,holds.vnnlib,9,sat", ROWS[1]), "-o", "out/r.json")
    assert found.code == 3
    assert "WRONG" in found.out
    (told,) = from_json((folder / "out/r.json").read_text()).diagnostics
    assert (told.code, told.level) == ("IDL502", "error")
    assert told.message.startswith("WRONG: unsat by interval, and the truth is sat")
    undecided = run("bench", listed(folder, "small.onnx,holds.vnnlib,9,unknown"), "-f", "json")
    assert (undecided.code, undecided.report.diagnostics) == (0, ())


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_row_whose_process_dies_is_unknown(tmp_path: Path, jobs: int) -> None:
    names = [name for fault in bench_workers.FAULTS for name in (f"before_{fault}", fault)] + ["last"]
    path = listed(tmp_path, *(f"n.onnx,{name}.vnnlib,9,unsat" for name in names))
    found = audit_bench(path, BenchOptions(jobs=jobs), decide=bench_workers.end_as_the_property_says)
    faulty = [name in bench_workers.FAULTS for name in names]
    assert result(found) == [
        (f"{name}.vnnlib", "unknown" if wrong else "unsat", "unsat") for name, wrong in zip(names, faulty, strict=True)
    ]
    assert (found.status, found.why_incomplete) == ("incomplete", "not_judged")
    assert [entry.problem is not None for entry in found.properties] == faulty
    assert [told.code for told in found.diagnostics] == ["IDL504"] * len(bench_workers.FAULTS)
    for told, (name, (_, words)) in zip(found.diagnostics, bench_workers.FAULTS.items(), strict=True):
        assert words in told.message
        assert told.where == f"n.onnx, {name}.vnnlib"


@pytest.mark.slow
def test_a_row_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "GRACE", 0.5)
    path = listed(tmp_path, *(f"n.onnx,{i}.vnnlib,0.1,unsat" for i in range(3)))
    found = audit_bench(path, BenchOptions(), decide=bench_workers.hang_at_the_second)
    assert [entry.result for entry in found.properties] == ["unsat", "timeout", "unsat"]
    assert found.status == "complete"
    (told,) = found.diagnostics
    assert "much longer" in told.message


@pytest.mark.slow
def test_rows_are_saved_as_they_come_and_resumed_from(folder: Path) -> None:
    first = run("bench", listed(folder, ROWS[1], "small.onnx,broken.vnnlib,9,"), "-o", "out/r.json", "-f", "json")
    assert (first.code, first.out) == (3, "")
    before = from_json((folder / "out/r.json").read_text())
    path = listed(folder, ROWS[0], "small.onnx,fails.vnnlib,9,unsat", "small.onnx,broken.vnnlib,9,")
    found = run("bench", path, "-o", "out/r.json", "--resume", "-f", "json")
    after = from_json((folder / "out/r.json").read_text())
    assert found.code == 3  # the list now says that a kept row is wrong
    assert [entry.result for entry in after.properties] == ["unsat", "sat", "unknown"]
    kept = before.properties[0]
    assert after.properties[1] == kept.model_copy(update={"truth": "unsat"})
    assert [told.code for told in after.diagnostics] == ["IDL502", "IDL506", "IDL503"]
    again = run("bench", listed(folder, *ROWS[:2]), "-o", "out/r.json", "--resume", "-f", "json")
    assert again.code == 0
    last = from_json((folder / "out/r.json").read_text())
    assert (last.properties[0], last.properties[1]) == (after.properties[0], kept)


def test_the_incomplete_report_is_saved_after_each_row(tmp_path: Path) -> None:
    saved: list[Report] = []
    path = listed(tmp_path, *(f"n.onnx,{i}.vnnlib,9,unsat" for i in range(3)))
    last = audit_bench(path, BenchOptions(), save=saved.append, decide=bench_workers.decided)
    assert [(len(report.properties), report.status) for report in saved] == [(i, "incomplete") for i in (1, 2, 3)]
    assert last.status == "complete"


def test_a_cap_is_a_cap() -> None:
    from idl_audit.data.instances import Instance

    def seconds(timeout: float | None, cap: float | None) -> float:
        return seconds_of(Instance("a", "b", timeout, None), cap)

    assert [seconds(9, None), seconds(9, 5), seconds(3, 5), seconds(None, 5), seconds(None, None)] == [9, 5, 3, 5, 60]


@pytest.mark.slow
def test_an_interrupted_run_leaves_a_valid_report(folder: Path) -> None:
    write_hard(folder)
    path = listed(folder, ROWS[0], f"{MODEL},hard.vnnlib,500,", ROWS[1])
    command = [sys.executable, "-m", "idl_audit", "bench", str(path), "-o", "out/r.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (folder / "out/r.json").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    progress = re.compile(r"bench: \d+ of \d+ after .*\n")  # told where a machine is busy
    assert (process.returncode, progress.sub("", err)) == (130, "")
    report = from_json((folder / "out/r.json").read_text())
    assert report.status == "incomplete"
    assert result(report) == [("holds.vnnlib", "unsat", "unsat")]
    assert out.startswith("Incomplete")
    finished = run("bench", listed(folder, *ROWS[:2]), "-o", "out/r.json", "--resume", "-f", "json")
    assert finished.code == 0
    assert from_json((folder / "out/r.json").read_text()).status == "complete"


def refused(found: Run) -> str:
    assert (found.code, found.out) == (2, "")
    (told,) = found.err.splitlines()
    assert told.startswith("error: ")
    return told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("no rows",)),
        ("onnx,vnnlib,timeout\n", ("heading and no rows",)),
        ("a.onnx\n", ("line 1", "onnx, vnnlib, timeout")),
        ("a,b,c,d,e\n", ("line 1",)),
        ("onnx,vnnlib\n,b\n", ("line 2", "no network")),
        ("a.onnx,b.vnnlib,soon\n", ("line 1", "'soon'", "positive")),
        ("a.onnx,b.vnnlib,-1\n", ("'-1'",)),
        ("a.onnx,b.vnnlib,nan\n", ("'nan'",)),
        ("a.onnx,b.vnnlib,9,maybe\n", ("'maybe'", "sat, unsat")),
        ('"a\n', ("line 1", "quotation marks")),
        ("\x00\n", ("no text",)),
    ],
)
def test_a_broken_list_is_refused(folder: Path, content: str, words: tuple[str, ...]) -> None:
    (folder / "instances.csv").write_text(content)
    told = refused(run("bench", "instances.csv"))
    for word in ("instances.csv", *words):
        assert word in told


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("missing.csv", ("missing.csv", "no such file")),
        ("out", ("out", "regular file")),
        ("small.onnx", ("small.onnx", "CSV")),
        ("instances.csv --cap 0", ("--cap", "positive")),
        ("instances.csv --jobs 0", ("--jobs", "1 or more")),
        ("instances.csv --resume", ("--resume", "-o")),
        ("instances.csv -o instances.csv", ("instances.csv", "twice")),
        ("instances.csv -o other.json --resume", ("other.json", "certify")),
        ("instances.csv -o damaged.json --resume", ("damaged.json", "cannot be resumed from")),
        ("", ("instances",)),
    ],
)
def test_wrong_usage_is_refused(folder: Path, line: str, words: tuple[str, ...]) -> None:
    listed(folder, ROWS[0])
    assert run("certify", "small.onnx", "holds.vnnlib", "-o", "other.json", "-f", "json").code == 0
    (folder / "damaged.json").write_text(json.dumps({"schema_version": "1.0"}))
    told = refused(run("bench", *line.split()))
    for word in words:
        assert word in told.lower() if word.islower() else word in told
