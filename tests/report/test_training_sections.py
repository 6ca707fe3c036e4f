"""Pages of harden and train: what was tried, what was chosen, verdicts before and after, which inputs act."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from idl_audit.report.render import render
from idl_audit.report.schema import (
    Audited,
    Environment,
    EpsSummary,
    Fit,
    Hardening,
    Report,
    Tool,
    TradeOff,
    Training,
)


def framed(command: str, **parts: object) -> Report:
    return Report(
        tool=Tool(version="1.0"),
        command=command,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        status="complete",
        environment=Environment(python="3.11", platform="Linux"),
        **parts,
    )


def trade_off(name: str, clean: int, lines: int) -> TradeOff:
    counts = {"by_intervals": 1, "by_lines": lines, "branched": 2, "by_branching": 1}
    return TradeOff(name=name, steps=5, clean=clean, certified=lines + 3.5, **counts)


def audited(certified: int) -> Audited:
    counts = EpsSummary(eps=0.1, n=20, clean_wrong=1, certified=certified, falsified=19 - certified, unknown=0)
    return Audited(model_sha256="0" * 64, counts=counts)


HARDENED = Hardening(
    method="mtl",
    eps=0.1,
    minutes=1,
    seconds=61.5,
    trained_on=100,
    held_out=40,
    judged=40,
    least_clean=38,
    weights=("v", "w"),
    before=trade_off("before", 39, 4),
    front=(trade_off("mtl, a = 0.1", 38, 20), trade_off("mtl, a = <b>0.3</b>", 35, 25)),
    chosen="mtl, a = 0.1",
    audited_before=audited(5),
    audited_after=audited(15),
)
TRAINED = Training(
    solver="bcd",
    loss="squared",
    penalties={"columns": 8.0},
    states=10,
    structure="free",
    kappa=0.95,
    norm_inf_A=0.9,
    units="each",
    minutes=1,
    seconds=1.25,
    steps=30,
    train=Fit(n=80, rmse=0.5, r2=0.75),
    holdout=Fit(n=20, rmse=0.625, r2=0.7),
    select=2,
    kept_inputs=(2, 0),
    column_norms=(1.5, 0.0, 3.0),
)


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_a_page_of_harden_has_the_front_and_both_audits(form: str) -> None:
    text = render(framed("harden", hardening=HARDENED), form)  # type: ignore[arg-type]
    for words in ("Hardening", "mtl, a = 0.1", "written", "38 of 40", "before", "after", "61.5 s"):
        assert words in text
    assert "<b>0.3</b>" not in text


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_a_page_of_train_has_the_fit_and_the_inputs_that_act(form: str) -> None:
    text = render(framed("train", training=TRAINED), form)  # type: ignore[arg-type]
    for words in ("Inputs that act: 2 of 3", "RMSE 0.625 on 20, R2 0.700", "bcd, squared loss", "exactly zero"):
        assert words in text
