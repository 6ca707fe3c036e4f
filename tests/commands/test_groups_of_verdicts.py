"""--group-by: reports know the group of each sample, from the command line, the configuration and Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import idl_audit
from idl_audit.report.json_text import from_json
from tests.shared.command_line import Run, gemm, network, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1 where x > 0.5; the samples of `day` are far from it, those of `night` near."""
    made = tmp_path_factory.mktemp("groups")
    network(
        made / "m.onnx",
        [gemm()],
        {"w": [[0, 1]], "b": [0, -0.5]},
        inputs=(("x", (1, 1)),),
        outputs=(("y", (1, 2)),),
    )
    rows = np.array([[0.1], [0.45], [0.9], [0.55], [0.4]], np.float32)
    light = np.array(["day", "night", "day", "night", "day"])
    np.savez(made / "d.npz", inputs=rows, labels=[0, 0, 1, 1, 1], light=light)
    lines = [f"{x[0]},{name},{label}" for x, name, label in zip(rows, light, [0, 0, 1, 1, 1], strict=True)]
    (made / "d.csv").write_text("\n".join(["x,light,label", *lines]) + "\n")
    return made


def certified(folder: Path, data: str, *more: object) -> Run:
    return run("certify", folder / "m.onnx", "-d", folder / data, "-e", 0.07, "-q", "-f", "json", *more)


@pytest.mark.parametrize("data", ["d.npz", "d.csv"])
def test_a_report_knows_the_group_of_each_sample_and_rules_speak_of_it(folder: Path, tmp_path: Path, data: str) -> None:
    made = certified(folder, data, "--group-by", "light", "-o", tmp_path / "r.json")
    assert made.code == 0
    report = from_json((tmp_path / "r.json").read_text())
    assert [one.groups["light"] for one in report.samples] == ["day", "night", "day", "night", "day"]
    held = run("gate", tmp_path / "r.json", "--require", "certified_accuracy@0.07[light=day] >= 60 %")
    assert (held.code, "2 of 3" in held.out) == (0, True)
    failed = run("gate", tmp_path / "r.json", "--require", "attack_success[light=night] <= 0.5")
    assert (failed.code, "2 of 2" in failed.out) == (1, True)
    assert run("gate", tmp_path / "r.json", "--require", "clean_accuracy[ light = day ] >= 0.6").code == 0
    unknown = run("gate", tmp_path / "r.json", "--require", "certified_accuracy[place=north] >= 0")
    assert (unknown.code, "write one with --group-by place" in unknown.err) == (2, True)
    assert run("gate", tmp_path / "r.json", "--require", "certified_accuracy[light=dawn] >= 0").code == 1


def test_groups_change_no_verdict_and_no_journal(folder: Path) -> None:
    with_groups = certified(folder, "d.npz", "--group-by", "light").report
    without = certified(folder, "d.npz").report
    kept = [one.model_copy(update={"groups": {}}) for one in with_groups.samples]
    for one, other in zip(kept, without.samples, strict=True):
        assert [r.verdict for r in one.results] == [r.verdict for r in other.results]
        assert (one.index, one.label, one.groups) == (other.index, other.label, other.groups)
    assert with_groups.data == without.data


def test_a_table_beside_the_data_and_python_do_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("place\n" + "north\nsouth\n" * 2 + "north\n")
    report = idl_audit.audit(
        folder / "m.onnx", folder / "d.npz", eps=0.07, group_by=["light", f"place={tmp_path / 'more.csv'}"]
    )
    assert report.samples[1].groups == {"light": "night", "place": "south"}
    assert idl_audit.to_rows(report)[1]["light"] == "night"


def test_a_configuration_has_columns_and_rules_of_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("place\n" + "north\nsouth\n" * 2 + "north\n")
    (tmp_path / "idl-audit.toml").write_text(
        f"""
[defaults]
model = '{folder / "m.onnx"}'
data = '{folder / "d.npz"}'
eps = 0.07
group-by = ["light", "place=more.csv"]
[run]
steps = "certify"
[gate]
require = "certified_accuracy[place=south] >= 0.9"
""".replace("model =", "# model =")
    )
    made = run("run", folder / "m.onnx", "-c", tmp_path / "idl-audit.toml", "-q", "-f", "json")
    assert made.code == 1
    assert made.report.samples[3].groups == {"light": "night", "place": "south"}
    assert (made.report.gate.rules[1].k, made.report.gate.rules[1].n) == (0, 2)
    text = (tmp_path / "idl-audit.toml").read_text().replace("[place=south]", "[sex=1]")
    (tmp_path / "idl-audit.toml").write_text(text)
    early = run("run", folder / "m.onnx", "-c", tmp_path / "idl-audit.toml", "-q")
    assert (early.code, "say --group-by sex" in early.err) == (2, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["class"], "counted by class anyway"),
        (["a[b]"], "within brackets"),
        (["=x.csv"], "COLUMN=FILE"),
        (["light", "light"], "names light twice"),
        (["nothing"], "no array named 'nothing'"),
    ],
)
def test_what_is_no_column_is_refused_in_one_sentence(folder: Path, given: list[str], message: str) -> None:
    found = certified(folder, "d.npz", *[word for one in given for word in ("--group-by", one)])
    assert (found.code, message in found.err) == (2, True)
    assert found.err.count("\n") == 1


def test_shards_keep_their_groups(folder: Path, tmp_path: Path) -> None:
    for k in (1, 2):
        asked = ("--group-by", "light", "--shard", f"{k}/2", "-o", tmp_path / f"{k}.json")
        assert certified(folder, "d.npz", *asked).code == 0
    merged = run("merge", tmp_path / "1.json", tmp_path / "2.json", "-f", "json", "-q").report
    assert [one.groups["light"] for one in merged.samples] == ["day", "night", "day", "night", "day"]
