"""The README's tour and the first tutorial as a newcomer walks through them, in an environment of its own.

    .venv/bin/python tests/first_hour.py .venv

The environment is the one that the README's first command makes; nothing but Python's own library is imported here.
Each command must exit with 0, print something or write a file, and leave every file that it names behind.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/tutorials/first-audit.md")

WRITES = {"-o": "file", "--output": "file", "--save": "file", "--certificates": "folder"}
"""Option -> what it names; `demo`, `init` and `run` write a file without being told its name."""
UNNAMED = {"demo": "idl-audit-demo/report.html", "init": "idl-audit.toml", "run": "report.json"}


def commands(page: str) -> list[str]:
    """Return the commands of a page, in its order."""
    return re.findall(r"^\$ (idl-audit .+)$", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)


def installation(readme: str) -> str:
    """Return the part of the README's first command that makes the environment."""
    block = re.search(r"^```sh\n(.*?)\n```$", readme, flags=re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].split(" && for ")[0]


def written(line: str) -> list[tuple[str, str]]:
    """Return what a command must leave behind: file or folder, and its name."""
    words = shlex.split(line)
    named = [(WRITES[word], words[place + 1]) for place, word in enumerate(words) if word in WRITES]
    if words[1] in UNNAMED and not {"-o", "--output"}.intersection(words):
        named.append(("file", UNNAMED[words[1]]))
    return named


def fault_of(kind: str, path: Path) -> str | None:
    """Return what is wrong with a file or folder that a command should have written; None where nothing is."""
    if kind == "folder":
        return None if path.is_dir() and any(path.iterdir()) else f"{path.name} is no folder with files"
    if not path.is_file() or not path.stat().st_size:
        return f"{path.name} was not written"
    if path.suffix == ".npz" and not zipfile.is_zipfile(path):
        return f"{path.name} is no .npz file"
    if path.suffix == ".html" and not path.read_bytes().startswith(b"<!doctype html>"):
        return f"{path.name} is no page"
    if path.suffix == ".json" and json.loads(path.read_bytes())["status"] != "complete":
        return f"{path.name} is incomplete"
    return None


def walk(programs: Path, folder: Path, lines: list[str]) -> list[str]:
    """Run the commands with these programs in this folder; return what went wrong, in a sentence each."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "IDL_AUDIT"))}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    faults = []
    for line in lines:
        for kind, name in written(line):
            if kind == "file":
                (folder / name).unlink(missing_ok=True)  # an earlier command's file is no proof of this one's
        start = time.monotonic()
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        print(f"{time.monotonic() - start:6.1f} s  exit code {done.returncode}  {line}", flush=True)
        if done.returncode:
            faults.append(f"{line}: exit code {done.returncode}: {done.stderr.strip()}")
            continue
        if not done.stdout.strip():
            faults.append(f"{line}: nothing was printed")
        found = [fault_of(kind, folder / name) for kind, name in written(line)]
        faults += [f"{line}: {fault}" for fault in found if fault is not None]
    return faults


def main() -> int:
    """Walk through the pages, each in a folder of its own; return the exit code."""
    programs = Path(sys.argv[1]).absolute() / "bin"
    faults = []
    for lines in (["idl-audit demo"], *map(commands, PAGES)):
        with tempfile.TemporaryDirectory() as name:
            shutil.copytree(ROOT / "sample_models", Path(name) / "sample_models")
            faults += walk(programs, Path(name), lines)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
