"""The README's tour and the tutorials against what their commands print today."""

from __future__ import annotations

import shlex

import pytest

from benchmarks import readme_tour
from benchmarks.readme_tour import Step, chosen, commands, same, words


@pytest.mark.slow
@pytest.mark.parametrize("page", readme_tour.PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_its_commands_print(page):
    text = page.read_text(encoding="utf-8")
    shown, today = words(readme_tour.shown(text)), words(readme_tour.shown(readme_tour.today(text)))
    assert [pair for pair in zip(shown, today, strict=False) if not same(*pair)] == []
    assert len(shown) == len(today)


@pytest.mark.parametrize("page", readme_tour.PAGES, ids=lambda page: page.stem)
def test_every_command_is_followed_by_what_it_prints(page):
    text = page.read_text(encoding="utf-8")
    assert commands(text)
    blocks = [found["body"] for found in readme_tour.BLOCK.finditer(text) if found["kind"] == "console"]
    assert sum(len(readme_tour.steps(body)) for body in blocks) == text.count("\n$ ")
    assert all(step.shown.strip() for body in blocks for step in readme_tour.steps(body))
    assert {shlex.split(line)[0] for line in commands(text)} <= {"idl-audit", "python"}


def test_a_page_is_made_of_its_files_and_commands():
    page = """```text title="note.txt"
of the first
```
and then
```console
$ python -c "print(open('note.txt').read())"
anything
$ python -c "raise SystemExit(1)" || echo "exit code $?"
```
```python
>>> 1 + 1
```
"""
    made = readme_tour.today(page)
    changed = page.replace("anything\n", "of the first\n\n").replace('$?"\n', '$?"\nexit code 1\n')
    assert made == changed
    assert readme_tour.today(made) == made


def test_a_command_that_fails_is_no_page():
    with pytest.raises(RuntimeError, match="exit code 2"):
        readme_tour.printed(Step("idl-audit explain nothing", ""))
    with pytest.raises(RuntimeError, match="exit code 2"):
        readme_tour.printed(Step('idl-audit explain nothing || echo "exit code $?"', ""))
    with pytest.raises(RuntimeError, match="exit code 3"):
        readme_tour.printed(Step("python -c 'raise SystemExit(3)'", ""))


def test_sections_that_stand_in_the_block_are_shown_and_dots_for_the_others():
    sections = ["first", "A\n1", "B\n2", "C\n3"]
    assert chosen(sections, {"B"}) == ["first", "...", "B\n2", "..."]
    assert chosen(sections, set()) == ["first", "..."]
    assert chosen(sections, {"A", "B", "C"}) == sections


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [("1.000", "1.001", True), ("1.0", "1.1", False), ("1.5e-07,", "3e-07,", True), ("yes", "no", False)],
)
def test_figures_are_compared_with_a_tolerance(ours, theirs, expected):
    assert same(ours, theirs) is expected
