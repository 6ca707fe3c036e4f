"""What the project's own house keeps beside the code: workflows, issue forms, hooks, license, changelog."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import idl_audit

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
FORMS = {
    path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
}
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
CI = (ROOT / ".ci/run").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the text at https://www.apache.org/licenses/LICENSE-2.0.txt."""


def scripts(workflow: str) -> Iterator[str]:
    """Yield the shell scripts of a workflow: one line, or what stands deeper than `run: |`."""
    for indent, line, block in re.findall(r"^( +)(?:- )?run: (?:\|\n|(.+)\n)((?:\1 +.*\n|\n)*)", workflow, flags=re.M):
        yield line or "\n".join(text.removeprefix(indent) for text in block.splitlines())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_read_alone_where_they_ask_for_nothing_else(name):
    assert re.search(r"^permissions:\n  contents: read\n\n", WORKFLOWS[name], flags=re.M)
    assert ("id-token: write" in WORKFLOWS[name]) == (name == "release")
    assert "secrets." not in WORKFLOWS[name]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_at_least_by_their_major_version(name):
    used = re.findall(r"uses: (\S+)", WORKFLOWS[name])
    assert used
    assert [
        u for u in used if not re.fullmatch(r"\./\S+|[\w-]+/[\w-]+@(?:release/)?v\d+(?:\.\d+)*|.*@[0-9a-f]{40}", u)
    ] == []
    assert all((ROOT / u).is_file() for u in used if u.startswith("./"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_workflows_scripts_are_shell_and_take_what_they_are_given_from_the_environment(name):
    found = list(scripts(WORKFLOWS[name]))
    assert len(found) == len(re.findall(r"\brun:", WORKFLOWS[name])) > 0
    for script in found:
        assert "${{" not in script  # what the runner puts into a script could be code
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0


def test_the_project_s_tests_are_those_of_ci_on_every_python_that_it_names():
    assert list(scripts(WORKFLOWS["tests"])) == [".ci/run"]
    tested = re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", WORKFLOWS["tests"])[1])
    named = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert tested == named
    assert PROJECT["requires-python"] == f">={tested[0]}"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_a_release_waits_for_the_tests():
    assert re.search(r"^  publish:\n    needs: \[tests, build\]\n", WORKFLOWS["release"], flags=re.M)


@pytest.mark.parametrize(("tag", "code"), [(f"v{idl_audit.__version__}", 0), ("v99.0", 1), (idl_audit.__version__, 1)])
def test_a_tag_that_is_not_the_version_releases_nothing(tag, code, tmp_path):
    (script,) = (script for script in scripts(WORKFLOWS["release"]) if "$TAG" in script)
    (tmp_path / "python").symlink_to(sys.executable)
    environment = {"TAG": tag, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    answer = subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=environment, check=False, capture_output=True)
    assert answer.returncode == code


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"config"}))
def test_an_issue_form_has_a_name_and_its_fields_have_labels(name):
    form = FORMS[name]
    assert re.findall(r"^(\w+):", form, flags=re.M)[:2] == ["name", "description"]
    fields = re.findall(r"^  - type: (\w+)\n((?:    .*\n|\n)*)", form, flags=re.M)
    asked = [body for kind, body in fields if kind != "markdown"]
    identities = [re.search(r"^    id: (\w+)$", body, flags=re.M)[1] for body in asked]
    assert len(set(identities)) == len(asked) > 0
    assert all(re.search(r"^      label: \S", body, flags=re.M) for body in asked)


@pytest.mark.parametrize("path", [".pre-commit-config.yaml", *(f".github/ISSUE_TEMPLATE/{name}.yml" for name in FORMS)])
def test_files_for_machines_hold_no_tabs(path):
    assert "\t" not in (ROOT / path).read_text(encoding="utf-8")


def test_the_hooks_run_what_ci_checks():
    checks = {
        tuple(line.split("/")[-1].split()[:2]) for line in CI.splitlines() if re.match(r"\.venv/bin/(ruff|mypy)", line)
    }
    hooked = {tuple(entry.split()[:2]) for entry in re.findall(r"^        entry: (.*)$", HOOKS, flags=re.M)}
    assert hooked == {("ruff", "check"), ("ruff", "format"), ("mypy",)} == checks


def test_the_license_is_apache_2_word_for_word():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert not [c for c in PROJECT["classifiers"] if c.startswith("License")]  # PEP 639: the expression stands alone


def test_the_changelog_has_what_is_unreleased_and_every_version_newest_first():
    versions = re.findall(r"^## (.*)$", CHANGELOG, flags=re.M)
    assert versions[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - \d{4}-\d{2}-\d{2}", version) for version in versions[1:]]
    assert all(released)
    numbers = [tuple(map(int, match.groups())) for match in released]
    assert numbers == sorted(set(numbers), reverse=True)
    assert ".".join(map(str, numbers[0])) == PROJECT["version"] == idl_audit.__version__
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, flags=re.M)) <= kinds


def test_a_release_s_description_has_no_links_that_only_the_repository_follows(tmp_path):
    page = tmp_path / "README.md"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page.write_text(readme, encoding="utf-8")
    line = [sys.executable, ROOT / ".ci/absolute_links.py", page, "who/idl-audit", "v1.2.3"]
    subprocess.run(line, check=True)
    told = page.read_text(encoding="utf-8")
    places = (
        "https://github.com/who/idl-audit/blob/v1.2.3/",
        "https://raw.githubusercontent.com/who/idl-audit/v1.2.3/",
    )
    assert told.count(places[1]) == readme.count("![") == 1
    for place in places:
        paths = re.findall(rf"\({re.escape(place)}([^)#]+)", told)
        assert paths
        assert [path for path in paths if not (ROOT / path).exists()] == []
        told = told.replace(place, "")
    assert told == readme
    assert re.findall(r"\]\((?!https?:|#)[^)]+\)", page.read_text(encoding="utf-8")) == []
    assert 'absolute_links.py README.md "$GITHUB_REPOSITORY" "$GITHUB_REF_NAME"' in WORKFLOWS["release"]
