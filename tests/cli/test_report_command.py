"""idl-audit report: forms, files found beside the report, and files that are refused."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from idl_audit.report.adversarial_file import read_triples
from idl_audit.report.json_text import from_json, to_json
from idl_audit.values.errors import DataError
from tests.shared.command_line import DATA, MODEL, run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the report of an attack, its adversarial inputs, and the report of a sensitivity with its S."""
    folder = tmp_path_factory.mktemp("made")
    line = ("attack", MODEL, "-d", DATA, "-e", "0.05,0.08", "--bounds", "0,1", "--index", "10,3,25,26,14")
    line = (*line, "--method", "sign,pgd")
    assert run(*line, "--save", folder / "adv.npz", "-o", folder / "report.json", "-f", "json").code == 0
    assert run("sensitivity", MODEL, "--save", folder / "S.npz", "-o", folder / "s.json", "-f", "json").code == 0
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(path):
    return path.read_text().count('class="pixels"')


def test_the_page_shows_the_files_beside_the_report(folder):
    found = run("report", "report.json", "-o", "r.html", "--image-shape", "8,8")
    assert (found.code, found.out, found.err) == (0, "r.html is written\n", "")
    falsified = sum(
        any(r.adversarial for r in s.results) for s in from_json((folder / "report.json").read_text()).samples
    )
    assert falsified >= 2
    assert pictures(folder / "r.html") == 3 * falsified
    assert run("report", "s.json", "-o", "s.html", "--image-shape", "8,8").code == 0
    assert pictures(folder / "s.html") >= 10


def test_the_report_says_the_exact_command(folder):
    report = from_json((folder / "report.json").read_text())
    assert report.command_line.startswith(f"idl-audit attack {MODEL} -d {DATA} -e 0.05,0.08 --bounds 0,1")
    assert run("report", "report.json", "-f", "markdown").out.count("--index 10,3,25,26,14") == 1


def test_the_name_of_the_file_decides_the_form_and_ours_are_replaced(folder):
    begins = {"r.html": "<!doctype html>", "r.md": "<!-- idl-audit", "r.xml": "<?xml", "r.txt": "From eps"}
    for name, start in begins.items():
        assert run("report", "report.json", "-o", name).code == 0
        assert (folder / name).read_text().startswith(start)
        again = run("report", "report.json", "-o", name).code
        assert again == (2 if name == "r.txt" else 0)
    (folder / "mine.md").write_text("# mine")
    refused = run("report", "report.json", "-o", "mine.md")
    assert (refused.code, (folder / "mine.md").read_text()) == (2, "# mine")
    assert "--force" in refused.err
    assert run("report", "report.json", "-o", "mine.md", "--force").code == 0


def test_quietly_a_report_is_written_without_a_word(folder):
    (folder / "adv.npz").write_bytes(b"no archive")
    assert run("report", "report.json", "-o", "told.html").err.startswith("note: ")
    for name in ("r.html", "r.md", "r.xml", "r.txt"):
        found = run("report", "report.json", "-o", name, "-q")
        assert (found.code, found.out, found.err) == (0, "", "")
        assert (folder / name).stat().st_size > 100
    assert run("report", "report.json", "-q").out.startswith("From eps 0.05 to 0.08:")
    refused = run("report", "report.json", "-o", "r.txt", "-q")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)


def test_without_options_it_prints_the_tables(folder):
    assert run("report", "report.json").out.startswith("From eps 0.05 to 0.08:")
    assert run("report", "report.json", "-f", "github").out.startswith("::warning title=falsified::")


def test_a_report_brings_no_other_file_into_a_page(folder, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (folder / "adv.npz").rename(outside / "adv.npz")
    document = json.loads((folder / "report.json").read_text())
    document["artifacts"] = [str(outside / "adv.npz"), "elsewhere/adv.npz", "../x.npz", "report.json", "/dev/zero"]
    (folder / "report.json").write_text(json.dumps(document))
    assert run("report", "report.json", "-o", "r.html", "--image-shape", "8,8").code == 0
    assert pictures(folder / "r.html") == 0
    (folder / "adv.npz").symlink_to(outside / "adv.npz")
    assert run("report", "report.json", "-o", "r.html", "--image-shape", "8,8").code == 0
    assert pictures(folder / "r.html") == 0
    assert run("report", "report.json", "-o", "r.html", "--adversarial", outside / "adv.npz").code == 0


CHANGES = {
    "another point": lambda a: a | {"inputs": a["inputs"] + np.float32(1e-4)},
    "another sample": lambda a: a | {"indices": a["indices"] + 1},
    "another radius": lambda a: a | {"eps": a["eps"] * 2},
    "another class": lambda a: a | {"predictions": a["predictions"] + 1},
    "another label": lambda a: a | {"labels": a["labels"] + 1},
    "another original": lambda a: a | {"originals": a["originals"] + 1e-3},
    "no originals": lambda a: {name: value for name, value in a.items() if name != "originals"},
    "fewer originals": lambda a: a | {"originals": a["originals"][:1]},
    "fewer labels": lambda a: a | {"labels": a["labels"][:1]},
    "words": lambda a: a | {"labels": a["labels"].astype(str)},
    "not a number": lambda a: a | {"inputs": a["inputs"] * np.float32("nan")},
}


def saved(name):
    with np.load(name) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_adversarial_inputs_of_another_run_are_refused(folder, change):
    report = from_json((folder / "report.json").read_text())
    assert read_triples(report, saved("adv.npz"), source="adv.npz")
    with pytest.raises(DataError, match=r"^adv\.npz (has|was)"):
        read_triples(report, change(saved("adv.npz")), source="adv.npz")


def test_a_file_of_another_run_is_left_out_where_found_and_refused_where_named(folder):
    np.savez("adv.npz", **CHANGES["another point"](saved("adv.npz")))
    found = run("report", "report.json", "-o", "r.html", "--image-shape", "8,8")
    assert found.code == 0
    assert found.err.startswith("note: not drawn: ")
    assert pictures(folder / "r.html") == 0
    named = run("report", "report.json", "-o", "r2.html", "--adversarial", "adv.npz")
    assert named.code == 2
    assert re.fullmatch(r"error: adv.npz [^\n]*\n", named.err)
    assert not (folder / "r2.html").exists()


def test_triples_are_the_samples_and_the_attacks_on_them(folder):
    report = from_json((folder / "report.json").read_text())
    with np.load(DATA) as data:
        inputs = data["inputs"]
    found = read_triples(report, saved("adv.npz"), source="adv.npz")
    assert [one.eps for one in found] == sorted(one.eps for one in found)
    assert len({one.index for one in found}) == len(found)
    for one in found:
        assert (one.original == inputs[one.index].reshape(-1)).all()
        assert (one.adversarial != one.original).sum() == one.found.l0
        assert np.abs(one.adversarial - one.original).max() == pytest.approx(one.found.linf)
    with pytest.raises(DataError, match="no array 'inputs'"):
        read_triples(report, {}, source="adv.npz")


def test_another_matrix_is_refused(folder):
    matrix = saved("S.npz")["S"]
    np.savez("S.npz", S=matrix * 2)
    assert "row sums" in run("report", "s.json", "-o", "r.html").err
    assert run("report", "s.json", "-o", "r3.html", "--matrix", "S.npz").code == 2
    np.savez("S.npz", S=-matrix)
    assert run("report", "s.json", "-o", "r3.html", "--matrix", "S.npz").code == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("report nothing.json", "no such file"),
        ("report adv.npz", "no UTF-8 text"),
        ("report . -f html", "no regular file"),
        ("report report.json -f pdf", "pdf"),
        ("report report.json --adversarial adv.npz", "for -f html only"),
        ("report report.json -o report.json -f html", "named twice"),
        ("report report.json -o r.html --image-shape 3,3", "has 9 numbers, and an input 64"),
        ("report report.json -o r.html --matrix adv.npz", "has no matrix S"),
        ("report report.json -o no/r.html", "does not exist"),
    ],
)
def test_bad_input_is_told_in_one_sentence(folder, line, message):
    found = run(*line.split())
    assert found.code == 2
    assert message in found.err
    assert found.err.count("\n") == 1
    assert not (folder / "r.html").exists()


def test_the_page_holds_the_report(folder):
    run("report", "report.json", "-o", "r.html")
    (link,) = re.findall(r'href="data:application/json;base64,([^"]*)"', (folder / "r.html").read_text())
    assert base64.b64decode(link) == (folder / "report.json").read_bytes()


def test_an_ending_that_says_nothing_is_refused(folder):
    found = run("report", "report.json", "-o", "r.pdf")
    assert (found.code, found.out) == (2, "")
    assert ".html" in found.err
    assert not (folder / "r.pdf").exists()
    assert run("report", "report.json", "-f", "table", "-o", "r.pdf").code == 0


def test_files_of_other_steps_are_passed_over_in_silence(folder):
    np.savez("S2.npz", S=np.ones((2, 3)))
    text = (folder / "report.json").read_text()
    report = from_json(text)
    (folder / "more.json").write_text(to_json(report.model_copy(update={"artifacts": ("S2.npz", *report.artifacts)})))
    found = run("report", "more.json", "-o", "more.html", "--image-shape", "8,8")
    assert (found.code, found.err) == (0, "")
    assert pictures(folder / "more.html") > 0


def test_several_reports_of_a_model_are_one_page(folder):
    assert run("bounds", MODEL, "-d", DATA, "-e", "0.05", "--bounds", "0,1", "--limit", "2", "-o", "b.json").code == 0
    found = run("report", "report.json", "s.json", "-o", "both.html", "--image-shape", "8,8")
    assert (found.code, found.out) == (0, "both.html is written\n")
    page = (folder / "both.html").read_text()
    assert pictures(folder / "both.html") == pictures_of_each(folder, "report.json", "s.json")
    assert "Samples, worst first" in page
    assert "ensitivity" in page
    told = run("report", "s.json", "report.json", "-f", "table").out
    assert "attacked ones from 3 to 4" in told.splitlines()[0]
    assert "row sum" in told


def pictures_of_each(folder, *names):
    total = 0
    for name in names:
        run("report", name, "-o", "one.html", "--image-shape", "8,8", "--force")
        total += pictures(folder / "one.html")
    return total


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("report.json report.json", "have samples"),
        ("report.json other.json", "have samples"),
        ("s.json wider.json", "several models"),
        ("report.json b.json", "several sets of inputs"),
        ("s.json missing.json", "missing.json"),
    ],
)
def test_what_is_not_of_one_model_and_set_is_no_page(folder, line, told):
    (folder / "other.json").write_bytes((folder / "report.json").read_bytes())
    text = (folder / "s.json").read_text()
    own = from_json(text).model.sha256
    (folder / "wider.json").write_text(text.replace(own, "ab" * 32))
    line_of_bounds = ("bounds", MODEL, "-d", DATA, "-e", "0.01", "--bounds", "0,1", "--index", "10,3,25,26,14")
    assert run(*line_of_bounds, "-o", "b.json").code == 0
    found = run("report", *line.split(), "-o", "x.html")
    assert (found.code, found.out) == (2, "")
    assert told in found.err
    assert not (folder / "x.html").exists()
