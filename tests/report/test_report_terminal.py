"""What people see: the sentence on top, tables that fit, and hostile strings made harmless."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from idl_audit.report.schema import (
    BlockInfo,
    Compression,
    Diagnostic,
    Drift,
    EpsSummary,
    Gate,
    InputGroups,
    InputMap,
    NonzeroChange,
    PropertyReport,
    Reason,
    RuleResult,
    SmallestScalar,
    Summary,
    TopGroup,
    Verification,
)
from idl_audit.report.terminal import render
from idl_audit.report.terminal.layout import COLOURS
from idl_audit.report.wording import REASONS, percent, plain, verdict_sentence
from tests.shared import report_examples as examples

HOSTILE = "[red]evil[/red] [link=http://x]\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2J\u202egnp :smile:\r\n[/]"
HARMLESS = "[red]evil[/red] [link=http://x]red gnp :smile:  [/]"


def rendered(report, width=80, *, verbose=False, colour=False):
    system = "standard" if colour else None
    console = Console(file=io.StringIO(), width=width, force_terminal=colour, color_system=system)
    render(report, console=console, verbose=verbose)
    return console.file.getvalue()


def hostile():
    block = BlockInfo(name=HOSTILE, op=HOSTILE, activation=HOSTILE, shape=(3,) * 40, size=10**12)
    return examples.everything().model_copy(
        update={
            "model": examples.model(
                path=HOSTILE, format=HOSTILE, producer=HOSTILE, unsupported=(HOSTILE,), stripped_output=HOSTILE
            ),
            "conversion": examples.conversion(blocks=(block,)),
            "sensitivity": examples.local_sensitivity(
                matrix_file=HOSTILE,
                method=HOSTILE,
                groups=InputGroups(
                    source=HOSTILE, names=(HOSTILE,), top=(TopGroup(output=0, group=HOSTILE, value=1.0),)
                ),
            ),
            "diagnostics": (Diagnostic(code="IDL001", level="error", message=HOSTILE, hint=HOSTILE, where=HOSTILE),),
            "artifacts": (HOSTILE, "x" * 1000),
            "gate": None,
        }
    )


REPORTS = {
    "bare": examples.report(),
    "convert": examples.report("convert", model=examples.model(), conversion=examples.conversion()),
    "sensitivity": examples.report("sensitivity", model=examples.model(), sensitivity=examples.sensitivity()),
    "certify": examples.certify(),
    "range": examples.certify_range(),
    "everything": examples.everything(),
    "hostile": hostile(),
}


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_no_line_is_longer_than_the_console(report, width, verbose):
    lines = rendered(report, width, verbose=verbose).splitlines()
    assert max(cell_len(line) for line in lines) <= width


def test_markup_in_a_model_name_is_shown_literally():
    text = rendered(examples.certify(model=examples.model(path="[bold red]m[/].onnx")))
    assert "[bold red]m[/].onnx" in text


def test_hostile_strings_lose_escape_sequences_and_keep_their_letters():
    assert plain(HOSTILE) == HARMLESS
    text = rendered(hostile(), 160, verbose=True)
    assert "\x1b" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "[red]evil[/red]" in text
    assert ":smile:" in text


@given(st.text())
def test_plain_leaves_one_line_without_control_characters(text):
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]*", plain(text))


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=500))
def test_plain_leaves_printable_text_alone(text):
    assert plain(text) == text


def test_plain_takes_short_time_over_endless_escapes():
    assert plain("\x1b]" * 10**6) == ""
    assert len(plain("a" * 10**6)) == 500


def test_verdicts_have_their_colours_and_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = rendered(examples.certify(), colour=True)
    for code, word in (("32", "71 (71.0 %)"), ("31", "12 (12.0 %)"), ("33", "14 (14.0 %)"), ("35", "3 (3.0 %)")):
        assert re.search(rf"\x1b\[{code}m *{re.escape(word)}", text)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", rendered(examples.certify(), colour=True))


def test_every_verdict_has_a_colour_and_every_reason_an_explanation():
    assert set(REASONS) == set(Reason)
    assert {verdict.value: colour for verdict, colour in COLOURS.items()} == {
        "certified": "green",
        "falsified": "red",
        "unknown": "yellow",
        "clean_wrong": "magenta",
    }


# ---- what the sections say -------------------------------------------------------------------------------------------


def test_convert_shows_model_blocks_scaling_and_agreement():
    text = " ".join(rendered(REPORTS["convert"]).split())
    for part in (
        "40 (strictly block triangular)",
        "A 0, B 31,360, C 400, D 0",
        "3.5; after scaling 0.5 (kappa 0.5)",
        "relative error 3e-07, 20 of 20 classes equal, against onnxruntime 1.31",
        "/net/relu",
    ):
        assert part in text


def test_blocks_are_shown_to_who_asks():
    assert "/net/relu" not in rendered(examples.certify())
    assert "/net/relu" in rendered(examples.certify(), verbose=True)


def test_sensitivity_shows_norm_rho_and_the_largest_inputs_first():
    text = rendered(REPORTS["sensitivity"])
    assert "12.35 (method paper, all inputs)" in text
    assert "1234 (the bound by norms alone, all inputs)" in text
    assert "12 (2.5), 345 (1.1)" in text


def local_sensitivity(**changes):
    return examples.report("sensitivity", sensitivity=examples.local_sensitivity(**changes))


def test_local_sensitivity_shows_the_scalars_and_the_worst_samples_first():
    text = " ".join(rendered(local_sensitivity(), 160).split())
    for part in (
        "12.35 (method best of paper and centre-radius, within the samples' boxes)",
        "for all inputs 123.5 (10 times as large)",
        "spectral 20 (sqrt(p) times spectral norms, all inputs)",
        "smallest 12.35, the largest row sum of S",
        "0.5 is the most that an output moves when 3 inputs change by 0.02 at most",
        "17 pairs of an output and an input",
    ):
        assert part in text
    assert text.index("9 12.35 10") < text.index("4 6.173 20")


def test_pairs_of_classes_and_groups_are_listed_the_largest_first():
    text = " ".join(rendered(local_sensitivity(), 160).split())
    assert "Differences of output 1 to the others, the most sensitive first" in text
    assert "0 10 15.35 12 (2.5), 345 (1.1)" in text
    assert "Groups of inputs (rows)" in text
    assert "0 row 1 (4), row 0 (1)" in text


def test_a_map_is_characters_without_colour_and_half_blocks_with_it(monkeypatch):
    report = local_sensitivity(input_map=InputMap(height=3, width=2, values=(0.0, 1.0, 2.0, 4.0, 3.0, 0.5)))
    lines = [line.rstrip() for line in rendered(report).splitlines()]
    start = lines.index("Inputs, summed over outputs")
    assert lines[start + 1 : start + 5] == ["    ::", "  ++@@", "  ##..", "  one scale from 0 to 4"]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = in_truecolor(report)
    assert coloured.count("▀") == 20 * 15  # 2 x 3 pixels of 10 x 10: 20 characters wide, 30 half lines high
    assert "38;2;0;0;4;48;2;0;0;4" in coloured  # 0 is the darkest, in both halves
    assert "38;2;252;253;191" in coloured  # 4 the brightest
    monkeypatch.setenv("NO_COLOR", "1")
    assert "▀" not in in_truecolor(report)


def in_truecolor(report):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor")
    render(report, console=console)
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [40, 80, 160])
@pytest.mark.parametrize("colour", [False, True])
def test_large_maps_are_reduced_to_the_width(monkeypatch, columns, colour):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    wide = InputMap(height=4, width=64, values=(0.0,) * 255 + (1.0,))
    text = rendered(local_sensitivity(input_map=wide, samples=(), margins=(), groups=None), columns, colour=colour)
    plain_text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain_text.splitlines())) <= columns
    if not colour:
        assert "@@" in plain_text  # the one bright pixel survives


def test_samples_are_limited_and_the_worst_come_first():
    text = rendered(examples.certify())
    assert "Samples, worst first (20 of 100; -v shows all)" in text
    rows = [line.split() for line in text.split("Samples, worst first")[1].splitlines() if "7" in line]
    assert [row[3] for row in rows] == ["falsified"] * 12 + ["unknown"] * 8
    assert text.count("falsified") == 13
    assert rendered(examples.certify(), verbose=True).count("clean wrong") == 4


def test_a_wide_console_shows_more_columns():
    assert "confirmed by" not in rendered(examples.certify(), 80)
    assert "onnxruntime, onnx2torch" in rendered(examples.certify(), 160)


def test_several_radii_give_one_row_per_sample_the_frailest_first():
    rows = [line.split() for line in rendered(examples.certify_range()).splitlines()]
    frail = rows.index(["9", "7", "7", "0.01", "0.02", "-"])
    assert rows.index(["4", "7", "7", "0.02", "-", "-"]) == frail + 1


def test_reasons_are_counted_and_explained():
    text = " ".join(rendered(examples.certify(), 160).split())
    assert "relaxation_gap 14 no attack was found, and the bounds are too loose" in text


def test_many_files_of_a_folder_are_counted_and_listed_to_who_asks():
    names = ("adv.npz", *(f"proofs/sample-{i}.npz" for i in range(40)), "x/a.png", "x/b.png")
    report = examples.report("certify", artifacts=names)
    out = rendered(report)
    assert "adv.npz" in out
    assert "proofs: 40 files, sample-0.npz and others" in out
    assert "sample-7" not in out
    assert "x/b.png" in out
    assert all(name in rendered(report, verbose=True) for name in names)


def test_diagnostics_show_code_level_message_and_hint():
    text = rendered(examples.everything())
    for part in ("IDL101", "warning", "Clean accuracy is poor", "try --scale 1/255"):
        assert part in text


# ---- the sentence on top ---------------------------------------------------------------------------------------------

ONE = EpsSummary(eps=0.03, n=1, clean_wrong=0, certified=1, falsified=0, unknown=0)
ATTACKED = EpsSummary(eps=0.03, n=9, clean_wrong=1, certified=0, falsified=3, unknown=5)
CERTIFIED_100 = (
    "At eps 0.03: 71 of 100 images are certified, 12 can be attacked, 14 undecided, 3 misclassified to begin with."
)
SENTENCES = {
    "certify": (examples.certify(), CERTIFIED_100),
    "incomplete": (examples.certify(status="incomplete"), f"Incomplete, the work was cut short. {CERTIFIED_100}"),
    "one": (
        examples.certify(summary=Summary(per_eps=(ONE,)), samples=()),
        "At eps 0.03: 1 of 1 image is certified, 0 can be attacked, 0 undecided, 0 misclassified to begin with.",
    ),
    "sparse": (
        examples.certify(threat_model=examples.threat(0.03, k=1), model=examples.model(input_shape=(1, 5))),
        "At eps 0.03 on at most 1 input: 71 of 100 samples are certified, 12 can be attacked, 14 undecided, "
        "3 misclassified to begin with.",
    ),
    "range": (
        examples.certify_range(),
        "From eps 0.01 to 0.02: certified images go from 2 to 1 of 2, attacked ones from 0 to 1; "
        "0 misclassified to begin with.",
    ),
    "attack": (
        examples.certify(command="attack", summary=Summary(per_eps=(ATTACKED,)), samples=()),
        "At eps 0.03: 3 of 9 images can be attacked, 5 withstood these attacks (which is no proof), "
        "1 misclassified to begin with.",
    ),
    "attacks": (
        examples.certify_range().model_copy(update={"command": "attack"}),
        "From eps 0.01 to 0.02: images that can be attacked go from 0 to 1 of 2; 0 misclassified to begin with.",
    ),
    "convert": (
        REPORTS["convert"],
        "mnist.onnx is one implicit model with 40 states, 784 inputs and 10 outputs; on 20 inputs it differs from the "
        "original network by at most 3e-07 of the largest output, and 20 of 20 classes agree.",
    ),
    "unchecked": (
        examples.report(model=examples.model(), conversion=examples.conversion(check=None)),
        "mnist.onnx is one implicit model with 40 states, 784 inputs and 10 outputs; "
        "it was not compared with the original network.",
    ),
    "global": (
        REPORTS["sensitivity"],
        "No output moves by more than 12.35 times the largest change of an input, whatever the input.",
    ),
    "local": (
        examples.report(sensitivity=examples.sensitivity(kind="local")),
        "No output moves by more than 12.35 times the largest change of an input, within the boxes around the samples.",
    ),
    "local beside global": (
        examples.report(sensitivity=examples.local_sensitivity()),
        "No output moves by more than 12.35 times the largest change of an input, within the boxes around the samples "
        "(20 for all inputs).",
    ),
    "smaller by spectral norms": (
        examples.report(
            sensitivity=examples.sensitivity(spectral_inf=5.0, smallest=SmallestScalar(name="spectral_inf", value=5.0))
        ),
        "No output moves by more than 5 times the largest change of an input, whatever the input.",
    ),
    "no bound": (
        examples.report(sensitivity=examples.sensitivity(norm_inf=None)),
        "No bound on the sensitivity was found.",
    ),
    "gate": (
        examples.report(gate=Gate(passed=True, rules=(RuleResult(rule="r", passed=True),))),
        "The gate passed: 1 of 1 rules hold.",
    ),
    "verify": (
        examples.report(verification=Verification(file="w.npz", accepted=True, checked=4)),
        "w.npz is accepted: 4 claims were checked, 0 refused.",
    ),
    "smaller, without a bound over the box": (
        examples.report(
            compression=Compression(
                kind="prune",
                setting="0.01",
                nonzeros=NonzeroChange(before=100, after=90),
                drift=Drift(measured=0.5, at_samples=0.25),
            )
        ),
        "90.0 % of the coefficients are left (prune 0.01); no output moves by more than 0.25 at the samples, and 0.5 "
        "was measured there and in the box around them, where nothing is proved.",
    ),
    "verify, one claim": (
        examples.report(verification=Verification(file="w.npz", accepted=True, checked=1)),
        "w.npz is accepted: 1 claim was checked, 0 refused.",
    ),
    "properties": (
        examples.report(
            properties=tuple(
                PropertyReport(onnx="a", vnnlib="b", result=result) for result in ("sat", "unsat", "unsat", "timeout")
            )
        ),
        "2 of 4 properties hold (unsat), 1 violated (sat), 1 undecided.",
    ),
    "inspect": (examples.report(model=examples.model()), "mnist.onnx was read; every part is supported."),
    "refused": (
        examples.report(model=examples.model(unsupported=("a: Foo", "b: Bar"))),
        "mnist.onnx was read; 2 of its parts have no implicit form here.",
    ),
    "bare": (examples.report(), "Nothing was measured."),
}


@pytest.mark.parametrize(("report", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_the_sentence_on_top(report, sentence):
    assert verdict_sentence(report) == sentence
    assert " ".join(rendered(report, 500).splitlines()[0].split()) == sentence


@pytest.mark.parametrize(
    ("k", "n", "text"),
    [(0, 0, "-"), (0, 9, "0 %"), (9, 9, "100 %"), (1, 3, "33.3 %"), (99_999, 100_000, "99.9 %"), (1, 100_000, "0.1 %")],
)
def test_percentages_are_100_or_0_only_where_exact(k, n, text):
    assert percent(k, n) == text


def test_inputs_of_a_network_with_several_are_called_by_their_names():
    from idl_audit.report.schema import ModelInfo
    from idl_audit.report.wording import input_name

    inputs = [{"name": "image", "shape": (1, 2, 2)}, {"name": "age", "shape": (1, 1)}]
    model = ModelInfo(
        path="m", format="onnx", sha256="0" * 64, input_shape=(1, 5), inputs=inputs, n_outputs=1, n_parameters=0
    )
    assert [input_name(model, k) for k in (0, 3, 4)] == ["image[0]", "image[3]", "age"]
    assert input_name(model.model_copy(update={"inputs": ()}), 3) == input_name(None, 3) == "3"
