"""run does several audits of one configuration: a report each as alone, an index, a page; diff takes many reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from idl_audit.cli import run_several
from idl_audit.config.files import read_configuration, schema
from idl_audit.report.json_text import from_json
from tests.shared.command_line import DATA, MODEL, run

BASE = f"""
[defaults]
model = "{MODEL}"
data = "{DATA}"
bounds = "0,1"
eps = 0.01
limit = 2

[run]
steps = "certify"
output = "out/index.json"
"""
THREE = (
    BASE
    + """
[gate]
require = ["certified_accuracy@0.01 >= 0"]

[[audit]]
name = "first"

[[audit]]
name = "wider"
eps = [0.01, 0.02]
limit = 3
certify.method = "interval"
gate.require = ["certified_accuracy@0.02 > 100 %"]

[[audit]]
name = "gone"
model = "nothing.onnx"
"""
)


def configured(folder: Path, text: str) -> None:
    (folder / "idl-audit.toml").write_text(text, encoding="utf-8")


def report(place: Path):
    return from_json(place.read_text(encoding="utf-8"))


def test_each_audit_has_the_report_that_it_has_alone(files):
    configured(files, THREE)
    found = run("run")
    assert found.code == 2  # the worst: gone is refused, wider fails its gate
    assert "nothing.onnx" in found.err
    assert {path.name for path in (files / "out").iterdir() if path.suffix != ".journal"} >= {
        "index.json",
        "index.html",
        "first.json",
        "wider.json",
    }
    first, wider = report(files / "out/first.json"), report(files / "out/wider.json")
    assert (first.gate.passed, wider.gate.passed) == (True, False)
    assert [one.text for one in wider.threat_model.eps] == ["0.01", "0.02"]
    assert wider.summary.methods == ("interval",)
    configured(files, BASE)
    assert run("run", "-o", "out/alone.json").code == 0
    alone = report(files / "out/alone.json")
    assert (alone.summary, alone.data, alone.threat_model) == (first.summary, first.data, first.threat_model)
    index = json.loads((files / "out/index.json").read_text())
    assert [(one["name"], one["status"]) for one in index["audits"]] == [
        ("first", "complete"),
        ("wider", "complete"),
        ("gone", "refused"),
    ]
    assert index["audits"][1]["report"] == "wider.json"
    assert index["audits"][0]["clean"] == {"k": first.summary.clean.k, "n": 2}
    page = (files / "out/index.html").read_text()
    assert "<script" not in page
    assert 'href="wider.json"' in page
    assert "nothing.onnx" in page


def test_one_of_them_is_done_and_the_page_keeps_the_others(files):
    configured(files, THREE.replace('model = "nothing.onnx"', "limit = 1"))
    assert run("run", "--only", "first").code == 0
    index = json.loads((files / "out/index.json").read_text())
    assert [one["status"] for one in index["audits"]] == ["complete", "not run", "not run"]
    assert run("run", "--only", "gone", "--only", "wider").code == 1
    index = json.loads((files / "out/index.json").read_text())
    assert [one["status"] for one in index["audits"]] == ["complete"] * 3
    again = run("run", "--only", "first")
    assert again.code == 2
    assert "--force" in again.err
    assert run("run", "--only", "first", "--force", "-f", "json").code == 0


def test_what_was_done_is_kept_when_an_interrupted_run_goes_on(files, monkeypatch):
    configured(files, BASE + "[[audit]]\nname = 'a'\n[[audit]]\nname = 'b'\neps = 0.02\n")
    real = run_several.carried_out

    def stopped(job, **more):
        if more["title"] == "b: ":
            raise KeyboardInterrupt
        return real(job, **more)

    monkeypatch.setattr(run_several, "carried_out", stopped)
    assert run("run").code == 130
    assert json.loads((files / "out/index.json").read_text())["status"] == "incomplete"
    before = report(files / "out/a.json")
    monkeypatch.setattr(run_several, "carried_out", real)
    assert run("run").code == 2  # neither --resume nor --force
    assert run("run", "--resume").code == 0
    after = report(files / "out/a.json")
    assert [one.results for one in after.samples] == [one.results for one in before.samples]  # times included
    assert report(files / "out/b.json").status == "complete"
    assert not list((files / "out").glob("*.journal"))
    assert "exists already" in run("run", "--resume").err


REFUSED = {
    "no name": ("[[audit]]\nlimit = 1\n", (), "number 1 needs a name"),
    "a path for a name": ("[[audit]]\nname = '../x'\n", (), "number 1 needs a name"),
    "a name twice": ("[[audit]]\nname = 'a'\n[[audit]]\nname = 'A'\n", (), "'A' twice"),
    "an unknown key": ("[[audit]]\nname = 'a'\nlimits = 1\n", (), "audit 'a': [defaults] has the unknown key 'limits'"),
    "an unknown table": ("[[audit]]\nname = 'a'\ncertif.method = 'x'\n", (), "did you mean 'certify'"),
    "audits in an audit": ("[[audit]]\nname = 'a'\n[audit.audit]\nname = 'b'\n", (), "unknown key 'audit'"),
    "no list": ("[audit]\nname = 'a'\n", (), "write [[audit]]"),
    "a radius that is none": ("[[audit]]\nname = 'a'\neps = 'x'\n", (), "audit 'a'"),
    "an audit that is missing": ("[[audit]]\nname = 'a'\n", ("--only", "b"), "--only names the audit 'b'"),
    "nothing to choose of": ("", ("--only", "b"), "has no tables [[audit]]"),
    "the same report": (
        "[[audit]]\nname = 'a'\noutput = 'out/b.json'\n[[audit]]\nname = 'b'\n",
        (),
        "a and the audit 'b' would both write",
    ),
    "the same certificates": (
        "[certify]\ncertificates = 'c'\n[[audit]]\nname = 'a'\n[[audit]]\nname = 'b'\n",
        (),
        "would both write",
    ),
    "the index": ("[[audit]]\nname = 'index'\n", (), "the index and the audit 'index' would both write"),
    "no folder": ("[[audit]]\nname = 'a'\n", ("-o", "nowhere/index.json"), "does not exist"),
    "no index": ("[[audit]]\nname = 'a'\n", ("-o", "idl-audit.toml.json"), "is no index of audits"),
    "no JSON": ("[[audit]]\nname = 'a'\n", ("-o", "index.html"), "is a .json file"),
    "a model that is none": ("[[audit]]\nname = 'a'\nsteps = 'bounds'\n[audit.bounds]\nnorm = 3\n", (), "audit 'a'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_told_before_any_work(files, name, monkeypatch):
    text, arguments, words = REFUSED[name]
    configured(files, BASE + text)
    (files / "idl-audit.toml.json").write_text("{}")
    monkeypatch.setattr(run_several, "carried_out", lambda *_, **__: pytest.fail("an audit was done"))
    found = run("run", *arguments)
    assert found.code == 2
    assert words in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert not (files / "out/index.json").exists()


def test_the_files_reports_are_not_written_by_each(files):
    configured(files, BASE + "reports = 'out/r.html'\n[[audit]]\nname = 'a'\n")
    assert "give them under [[audit]]" in run("run").err


def test_the_schema_has_what_is_read(files):
    configured(files, THREE)
    told = schema()["properties"]["audit"]["items"]
    assert {"name", "eps", "output", "certify", "gate"} <= set(told["properties"])
    assert told["required"] == ["name"]
    found = read_configuration(files / "idl-audit.toml")
    assert [audit.name for audit in found.audits] == ["first", "wider", "gone"]
    assert found.of(found.audits[1]).table("run")["output"] == found.table("run")["output"]
    assert found.of(found.audits[1]).table("defaults")["limit"] == 3


def test_more_than_two_reports_are_a_table_and_each_is_compared_with_the_first(files):
    configured(files, BASE)
    for name, more in (("a", ()), ("b", ("--method", "interval")), ("c", ("--limit", "1"))):
        assert run("certify", "-e", "0.02", "-q", "-o", f"out/{name}.json", *more).code == 0
    found = run("diff", "out/a.json", "out/b.json", "out/c.json")
    assert found.code == 0
    assert "@0.02" in found.out
    assert "Not compared" in found.out
    told = json.loads(run("diff", "out/a.json", "out/b.json", "out/c.json", "-f", "json").out)
    assert [one["name"] for one in told["audits"]] == ["a", "b", "c"]
    assert "not_compared" in told["compared"]["c"]
    worse = bool(told["compared"]["b"]["regressions"])
    assert run("diff", "out/a.json", "out/b.json", "out/a.json", "--exit-code").code == worse
    assert run("diff", "out/a.json", "out/b.json", "out/c.json", "--exit-code").code == 2
