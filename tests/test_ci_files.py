"""What CI takes from here: the page on it as written, the GitHub Action, the pre-commit hook, assert_robust."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import idl_audit
from idl_audit.cli.app import app
from idl_audit.gate.rules import MEANINGS
from idl_audit.testing import assert_robust
from idl_audit.values.errors import DataError, IdlAuditError, OptionError

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
ACTION = (ROOT / ".github/actions/idl-audit/action.yml").read_text(encoding="utf-8")
GITLAB = (ROOT / ".gitlab/idl-audit.yml").read_text(encoding="utf-8")
DOCKER = (ROOT / ".docker/Dockerfile").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
MODEL = ROOT / "sample_models/digits_mlp.onnx"


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    with np.load(MODEL.with_suffix(".npz")) as archive:
        return archive["inputs"][:20], archive["labels"][:20]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx and data.npz, as the page has them."""
    for source, name in (("onnx", "model.onnx"), ("npz", "data.npz"), ("onnx.data", "digits_mlp.onnx.data")):
        (tmp_path / name).write_bytes(MODEL.with_name(f"digits_mlp.{source}").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*arguments: str) -> int:
    result = CliRunner().invoke(app, list(arguments), prog_name="idl-audit")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code


def test_the_page_s_commands_work_as_written(project, monkeypatch):
    monkeypatch.setenv("IDL_AUDIT_RUN_LIMIT", "15")  # a hundred samples would take too long here
    lines = re.findall(r"^    (idl-audit .*)$", PAGE, flags=re.MULTILINE)
    assert [shlex.split(line)[1] for line in lines] == ["init", "run", "gate", "gate", "diff"]
    assert [called(*shlex.split(line)[1:]) for line in lines] == [0] * len(lines)
    assert {path.name for path in project.iterdir()} >= {"idl-audit.toml", "report.json", "baseline.json"}


def test_the_page_s_python_works_as_written(project):
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    with np.load("data.npz") as archive:
        names = {"x": archive["inputs"][:20], "y": archive["labels"][:20]}
    exec(block, names)
    with pytest.raises(AssertionError, match="at_least"):
        exec(block.replace("0.9", "1"), names)


def test_the_page_has_every_metric():
    cells = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`([A-Za-z_]+)", cells)) == {*MEANINGS, "drop"}


def scripts() -> list[str]:
    """Return the action's shell scripts: what stands deeper than `run: |`."""
    return [
        "\n".join(line.strip() for line in block.splitlines())
        for block in re.findall(r"^      run: \|\n((?:        .*\n)+)", ACTION, flags=re.MULTILINE)
    ]


def test_the_action_s_scripts_are_shell_and_take_their_inputs_from_the_environment():
    assert len(scripts()) == ACTION.count("run: |") == 3
    for script in scripts():
        assert "${{" not in script  # what is put into a script by the runner could be code
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert ACTION.count("shell: bash") == 3


def test_the_action_s_audit_passes_and_fails_as_the_gate_does(project):
    (audit,) = (script for script in scripts() if "idl-audit run" in script)
    arguments = shlex.split(audit.replace("$CONFIG", "my config.toml").replace("$REPORT", "my report.json"))[1:]
    text = "[defaults]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = 0.01\nlimit = 2\n[run]\nsteps = 'certify'\n"
    for limit, code in (("0.5", 0), ("> 1", 1)):
        rule = f"clean_accuracy {limit if limit.startswith('>') else '>= ' + limit}"
        (project / "my config.toml").write_text(f"{text}[gate]\nrequire = '{rule}'\n")
        assert called(*arguments) == code
        assert (project / "my report.json").is_file()


def gitlab(key: str) -> list[str]:
    """Return the lines of a list of the GitLab job."""
    (block,) = re.findall(rf"^  {key}:\n((?:    - .*\n)+)", GITLAB, flags=re.MULTILINE)
    return [line.removeprefix("    - ") for line in block.splitlines()]


def test_gitlab_s_job_audits_and_makes_its_artifacts(project, monkeypatch):
    config(project, "clean_accuracy >= 0.5")
    names = dict(re.findall(r"^    (IDL_AUDIT_(?:CONFIG|REPORT)): (\S+)$", GITLAB, flags=re.MULTILINE))
    assert len(names) == 2
    for line in (*gitlab("script"), *gitlab("after_script")):
        for name, value in names.items():
            line = line.replace(f'"${name}"', value)
        assert called(*shlex.split(line)[1:]) == 0, line
    assert {"report.json", "report.html", "junit.xml"} <= {path.name for path in project.iterdir()}
    assert called(*shlex.split(gitlab("script")[0].replace('"$IDL_AUDIT_CONFIG"', "idl-audit.toml"))[1:]) == 0  # again


def test_the_image_copies_what_a_build_needs():
    copied = {
        Path(name).name for line in re.findall(r"^COPY (.*)$", DOCKER, flags=re.MULTILINE) for name in line.split()[:-1]
    }
    assert copied == {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "idl_audit"}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= copied


def test_the_hook_judges_the_report_alone(project):
    (name,) = re.findall(r"^- id: (.*)$", HOOKS, flags=re.MULTILINE)
    (entry,) = re.findall(r"^  entry: idl-audit (.*)$", HOOKS, flags=re.MULTILINE)
    (arguments,) = re.findall(r"^  args: \[(.*)\]$", HOOKS, flags=re.MULTILINE)
    assert name == "idl-audit-gate"
    assert called("run", "-c", str(config(project, "clean_accuracy >= 0.5")), "-o", "report.json") == 0
    (project / "model.onnx").unlink()
    assert called(entry, arguments) == 0
    config(project, "clean_accuracy > 1")
    assert called(entry, arguments) == 1
    (pattern,) = re.findall(r"^  files: (.*)$", HOOKS, flags=re.MULTILINE)
    assert re.search(pattern, "report.json")
    assert not re.search(pattern, "model.onnx")


def config(folder: Path, rule: str) -> Path:
    text = "[defaults]\nmodel = 'model.onnx'\ndata = 'data.npz'\neps = 0.01\nlimit = 2\n[run]\nsteps = 'certify'\n"
    path = folder / "idl-audit.toml"
    path.write_text(f"{text}[gate]\nrequire = '{rule}'\n")
    return path


def test_enough_certified_samples_pass(samples):
    x, y = samples
    assert_robust(MODEL, x, y, eps=0.01, at_least=0.95, bounds=(0, 1))
    assert_robust(str(MODEL), x, y, eps="1/255", at_least="95 %")
    assert_robust(idl_audit.load(MODEL), x, y, eps=0.01, at_least=19 / 20)


def test_one_certified_sample_too_few_fails_with_counts_and_samples(samples):
    x, y = samples
    with pytest.raises(AssertionError) as caught:
        assert_robust(MODEL, x, y, eps=0.01, at_least=0.96, bounds=(0, 1))
    message = str(caught.value)
    assert "19 of 20 samples are certified at eps 0.01" in message
    assert "asks for 20 (19 certified, 0 falsified, 0 unknown, 1 clean_wrong)" in message
    assert "sample 14, label 8: clean_wrong, class 1 without any change" in message


def test_attacked_samples_come_first(samples):
    x, y = samples
    with pytest.raises(AssertionError) as caught:
        assert_robust(MODEL, x, y, eps=0.3, at_least=0.9, bounds=(0, 1), methods=["interval", "sign"])
    assert re.search(r"sample \d+, label \d: falsified, class \d within eps", str(caught.value).splitlines()[1])


@pytest.mark.slow  # torch's exporter takes seconds to import
def test_a_torch_module_is_audited_as_it_is():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    y = net(x).argmax(1)
    assert_robust(net, x, y, eps=1e-5)
    with pytest.raises(AssertionError, match="0 of 6"):
        assert_robust(net, x, (y + 1) % 3, eps=1e-5, at_least=0.01)


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"at_least": 90}, OptionError, "'90 %'"),
        ({"at_least": "101 %"}, OptionError, "0 to 1"),
        ({"at_least": float("nan")}, OptionError, "nan"),
        ({"eps": 0}, OptionError, "above zero"),
        ({"eps": 8}, OptionError, "8/255"),
        ({"eps": "0.1,0.2"}, OptionError, "one radius"),
        ({"x": np.zeros((20, 63))}, DataError, "63"),
        ({"x": np.full((20, 64), np.nan)}, DataError, "NaN"),
        ({"x": np.zeros((0, 64))}, DataError, "samples"),
        ({"y": np.full(20, 10)}, DataError, "0 to 9"),
        ({"y": np.zeros(19, int)}, DataError, "20 samples"),
        ({"bounds": (0.5, 1)}, DataError, "below"),
        ({"methods": ["foo"]}, OptionError, "foo"),
        ({"model": "missing.onnx"}, IdlAuditError, "missing.onnx"),
    ],
)
def test_what_makes_no_sense_is_an_error_of_ours(samples, change, kind, word):
    given = {"model": MODEL, "x": samples[0], "y": samples[1], "eps": 0.01, "at_least": 0.5} | change
    with pytest.raises(kind, match=re.escape(word)):
        assert_robust(given.pop("model"), given.pop("x"), given.pop("y"), **given)
