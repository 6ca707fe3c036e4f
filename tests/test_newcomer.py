"""What a newcomer types is what the README says, and leads to a gate."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests import newcomer

TEXT = newcomer.readme()
STEPS = newcomer.protocol(TEXT, "https://example.org/idl-audit")


def test_the_way_leads_from_a_clone_over_the_tour_to_a_gate():
    asked = [step.typed.split()[1] for step in STEPS if step.typed.startswith("idl-audit ")]
    assert asked == ["certify", "verify", "gate", "report", "certify", "init", "run", "gate"]
    assert STEPS[0].typed.startswith("git clone ")
    assert STEPS[-1].typed.endswith(newcomer.own_commands(TEXT)[-1])


def test_what_the_reader_writes_is_what_the_readme_says():
    section = newcomer.until_own(TEXT)
    assert 'torch.onnx.export(model.eval(), (example,), "model.onnx")' in section
    assert 'torch.onnx.export(model.eval(), (example,), "model.onnx")' in newcomer.NETWORK
    assert 'np.savez("data.npz", inputs=..., labels=...)' in section


def test_reading_and_typing_take_ten_minutes_where_commands_are_copied():
    taken = [newcomer.Taken(1.0, 1.0, 20, 100, step.code, "") for step in STEPS]
    told = newcomer.page(TEXT, STEPS, taken, others=0.0, processes=2)
    (line,) = (line for line in told.splitlines() if line.startswith("- reading and typing: "))
    by_hand, copied = map(float, re.findall(r"\d+\.\d", line))
    assert 0 < copied <= 10 < by_hand <= 15
    assert told.count("| ") > len(STEPS)


@pytest.mark.slow
def test_the_part_about_a_network_of_one_s_own_holds(tmp_path):
    (tmp_path / "idl-audit").mkdir()
    first = next(place for place, step in enumerate(STEPS) if step.typed.startswith("mkdir own"))
    taken = newcomer.walk(STEPS[first:], tmp_path, f"export PATH={Path(sys.executable).parent}:$PATH")
    assert [one.code for one in taken] == [step.code for step in STEPS[first:]]
