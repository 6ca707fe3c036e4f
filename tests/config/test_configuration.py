"""Configurations: what is read, what is refused and which key was meant, and who has precedence."""

from __future__ import annotations

from pathlib import Path

import pytest

from idl_audit.config.files import TABLES, keys_of, read_configuration, schema
from idl_audit.config.finding import FILE, find_configuration
from idl_audit.data.numbers import Eps
from idl_audit.values.errors import OptionError


def configuration(folder: Path, text: str, name: str = FILE):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_configuration(path)


@pytest.mark.parametrize(
    ("value", "texts"),
    [('"8/255"', ["8/255"]), ("0.03", ["0.03"]), ('[0.01, "2/255", 1]', ["0.01", "2/255", "1"]), ("1e-3", ["0.001"])],
)
def test_numbers_and_lists_are_what_would_be_typed(tmp_path, value, texts):
    found = configuration(tmp_path, f"[defaults]\neps = {value}\n")
    assert [radius.text for radius in found.options("certify")["eps"]] == texts


def test_a_command_gets_the_shared_options_and_its_own(tmp_path):
    text = """
        [defaults]
        model = "m.onnx"
        data = "d.npz"
        bounds = [0, 1]
        [certify]
        method = ["interval", "pgd"]
        [bounds]
        method = "linear"
        [gate]
        require = "drop <= 0.01"
        baseline = "b.json"
    """
    found = configuration(tmp_path, text)
    shared = {"model": tmp_path / "m.onnx", "data": tmp_path / "d.npz", "bounds": (0.0, 1.0)}
    assert found.options("certify") == shared | {"method": ("interval", "pgd")}
    assert found.options("bounds") == shared | {"method": ("linear",)}
    assert found.options("attack") == shared
    assert found.options("sensitivity") == {"model": tmp_path / "m.onnx"}
    assert found.options("gate") == {"require": ("drop <= 0.01",), "baseline": tmp_path / "b.json"}
    assert found.options("verify") == {}


def test_sensitivity_has_a_radius_of_its_own(tmp_path):
    found = configuration(tmp_path, '[defaults]\neps = [0.01, 0.02]\ndata = "d.npz"\nscale = "1/255"\n')
    assert found.options("sensitivity") == found.options("convert") == {"scale": 1 / 255}


def test_sensitivity_on_boxes_takes_the_samples(tmp_path):
    found = configuration(tmp_path, '[defaults]\ndata = "d.npz"\nbounds = "0,1"\n[sensitivity]\neps = 0.02\n')
    assert found.options("sensitivity") == {"data": tmp_path / "d.npz", "bounds": (0.0, 1.0), "eps": Eps(0.02, "0.02")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[defaults]\nepss = 3", ("[defaults]", "'epss'", "did you mean 'eps'?")),
        ("[defaults]\ntime_limit = 3", ("'time_limit'", "did you mean 'time-limit'?")),
        ("[gatee]", ("'gatee'", "did you mean 'gate'?")),
        ("eps = 3", ("the file", "'eps'", "[defaults]")),
        ("[certify]\nbounds = '0,1'", ("[certify]", "'bounds'", "[defaults]")),
        ("[gate]\nrequires = []", ("did you mean 'require'?",)),
        ("[gate]\nzzz = 1", ("'zzz'", "require, warn, baseline")),
        ("[defaults]\nallow-code-execution = true", ("--allow-code-execution", "command line")),
        ("[run]\nallow_code_execution = true", ("--allow-code-execution", "command line")),
        ("allow-code-execution = true", ("--allow-code-execution", "command line")),
        ("[defaults]\nlimit = 'ten'", ("defaults.limit", "whole number")),
        ("[defaults]\nlimit = true", ("defaults.limit", "whole number")),
        ("[defaults]\neps = true", ("defaults.eps", "number")),
        ("[defaults]\neps = nan", ("defaults.eps", "number")),
        ("[defaults]\neps = 1979-05-27", ("defaults.eps", "text, a number or a list")),
        ("[defaults.eps]\nlo = 1", ("defaults.eps", "text, a number or a list")),
        ("[defaults]\nmodel = ''", ("defaults.model", "must name a file")),
        ("[defaults]\ntime-limit = 0", ("defaults.time-limit", "positive")),
        ("[attack]\nfraction = 2", ("attack.fraction", "at most 1")),
        ("[gate]\nrequire = ['']", ("gate.require", "empty")),
        ("defaults = 3", ("defaults",)),
        ("[defaults", ("no TOML",)),
        ("a = " + "[" * 5000, (FILE,)),
    ],
)
def test_what_makes_no_sense_is_named_with_the_file(tmp_path, text, words):
    with pytest.raises(OptionError) as caught:
        configuration(tmp_path, text)
    for word in (FILE, *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("table", ["bounds", "sensitivity", "attack"])
def test_few_changes_have_one_name_and_an_older_one(tmp_path, table):
    for key in ("sparse", "cardinality"):
        assert configuration(tmp_path, f"[{table}]\n{key} = 3").table(table) == {"sparse": 3}
        assert configuration(tmp_path, f"[{table}]\n{key} = 3").options(table) == {"sparse": 3}
    with pytest.raises(OptionError, match=f"{table} is refused .sparse and cardinality are two names") as caught:
        configuration(tmp_path, f"[{table}]\nsparse = 3\ncardinality = 3")
    assert str(caught.value).count(";") == 0


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(OptionError, match=r"epss.*limit.*gatee|limit.*epss.*gatee"):
        configuration(tmp_path, "[defaults]\nepss = 3\nlimit = 'ten'\n[gatee]")


def test_no_file_and_no_table_are_told(tmp_path):
    with pytest.raises(OptionError, match="no such file"):
        read_configuration(tmp_path / FILE)
    with pytest.raises(OptionError, match="no regular file"):
        read_configuration(tmp_path)
    (tmp_path / FILE).write_bytes(b"\xe9")
    with pytest.raises(OptionError, match="UTF-8"):
        read_configuration(tmp_path / FILE)
    with pytest.raises(OptionError, match=r"\[tool.idl-audit\]"):
        configuration(tmp_path, "[tool.ruff]\n", "pyproject.toml")


def test_its_own_file_stands_before_pyproject(tmp_path):
    assert find_configuration(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert find_configuration(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.idl-audit.defaults]\nseed = 3\n")
    assert find_configuration(tmp_path) == tmp_path / "pyproject.toml"
    assert read_configuration(tmp_path / "pyproject.toml").options("certify") == {"seed": 3}
    (tmp_path / FILE).write_text("")
    assert find_configuration(tmp_path) == tmp_path / FILE


def test_another_tool_s_broken_file_is_not_ours_to_complain_of(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool")
    assert find_configuration(tmp_path) is None


def test_no_table_has_a_key_for_running_code():
    assert not [key for table in TABLES for key in keys_of(table) if "allow" in key or "force" in key]


def test_the_schema_has_every_key():
    document = schema()
    audit = document["properties"].pop("audit")["items"]
    assert {name: set(part["properties"]) for name, part in document["properties"].items()} == {
        name: set(keys_of(name)) for name in TABLES
    }
    assert document["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in (audit, *document["properties"].values()))
    assert set(audit["properties"]) == {"name", *TABLES, *keys_of("defaults"), *keys_of("run")}
    assert document["properties"]["defaults"]["properties"]["jobs"]["minimum"] == 1
    assert document["properties"]["attack"]["properties"]["draws"]["default"] == 100
