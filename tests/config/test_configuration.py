"""Configurations: what is read, what is refused and which key was meant, and who has precedence."""

from __future__ import annotations

from pathlib import Path

import pytest

from idl_audit.config.files import read_configuration
from idl_audit.config.finding import FILE, find_configuration
from idl_audit.config.settings import Settings, Table
from idl_audit.values.errors import OptionError


def configuration(folder: Path, text: str, name: str = FILE):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_configuration(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [('"8/255"', "8/255"), ("0.03", "0.03"), ('[0.01, "2/255", 1]', "0.01,2/255,1"), ("4", "4"), ("1e-3", "0.001")],
)
def test_numbers_and_lists_are_what_would_be_typed(tmp_path, value, text):
    found = configuration(tmp_path, f"[defaults]\neps = {value}\n")
    assert found.options("certify") == {"eps": text}


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
    shared = {"model": str(tmp_path / "m.onnx"), "data": str(tmp_path / "d.npz"), "bounds": "0,1"}
    assert found.options("certify") == shared | {"method": "interval,pgd"}
    assert found.options("bounds") == shared | {"method": "linear"}
    assert found.options("attack") == shared
    assert found.options("sensitivity") == {"model": str(tmp_path / "m.onnx")}
    assert found.options("gate") == {"require": ("drop <= 0.01",), "baseline": str(tmp_path / "b.json")}
    assert found.options("verify") == {}


def test_sensitivity_on_boxes_takes_the_samples(tmp_path):
    found = configuration(tmp_path, '[defaults]\ndata = "d.npz"\nbounds = "0,1"\n[sensitivity]\neps = 0.02\n')
    assert found.options("sensitivity") == {"data": str(tmp_path / "d.npz"), "bounds": "0,1", "eps": "0.02"}


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
        ("[defaults]\nlimit = 'ten'", ("defaults.limit", "integer")),
        ("[defaults]\nlimit = true", ("defaults.limit", "integer")),
        ("[defaults]\neps = true", ("defaults.eps", "number")),
        ("[defaults]\neps = nan", ("defaults.eps", "finite")),
        ("[defaults]\nmodel = 3", ("defaults.model", "string")),
        ("[defaults]\ntime-limit = 0", ("defaults.time-limit", "greater than 0")),
        ("[gate]\nrequire = ['']", ("gate.require", "empty")),
        ("[gate]\nrequire = [3]", ("gate.require", "string")),
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


@pytest.mark.parametrize("table", ["bounds", "sensitivity"])
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


def tables() -> list[tuple[str, Table]]:
    return [(name, getattr(Settings(), name)) for name in Settings.model_fields]


def test_no_table_has_a_key_for_running_code():
    for _, table in tables():
        assert not any("allow" in name or "force" in name for name in type(table).model_fields)


def test_every_key_is_an_option_of_the_commands_that_read_it():
    import typer

    from idl_audit.cli.app import OTHER_NAMES, app

    commands = typer.main.get_command(app).commands
    options = {name: {opt[2:] for p in command.params for opt in p.opts} for name, command in commands.items()}
    for name, table in tables():
        keys = {field.alias for field in type(table).model_fields.values()}
        if name == "defaults":
            assert keys - {"model"} <= options["run"]
        elif name == "run":
            assert keys - {"reports"} <= options["run"]
        else:
            assert {OTHER_NAMES.get(key, key) for key in keys} <= options[name], name


def test_the_schema_has_every_key():
    document = Settings.model_json_schema()
    assert set(document["properties"]) == {name for name, _ in tables()}
    assert document["additionalProperties"] is False
    assert "time-limit" in document["$defs"]["Defaults"]["properties"]
    assert all(part["additionalProperties"] is False for part in document["$defs"].values())
