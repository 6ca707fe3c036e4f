"""Small reports for the gate: counts follow from the verdicts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from idl_audit.report.json_text import to_json
from idl_audit.report.schema import (
    Adversarial,
    CleanAccuracy,
    DataInfo,
    Environment,
    EpsPoint,
    EpsSummary,
    Reason,
    Report,
    SampleReport,
    SampleResult,
    Sensitivity,
    Summary,
    ThreatModel,
    Tool,
    TopInput,
    Verdict,
)

LETTERS = {
    "c": Verdict.CERTIFIED,
    "f": Verdict.FALSIFIED,
    "u": Verdict.UNKNOWN,
    "t": Verdict.UNKNOWN,
    "w": Verdict.CLEAN_WRONG,
}
REASONS = {"u": Reason.RELAXATION_GAP, "t": Reason.TIME_LIMIT}
POINTS = {"1/255": 1 / 255, "2/255": 2 / 255, "0.03": 0.03}


def result(letter: str, eps: float) -> SampleResult:
    verdict = LETTERS[letter]
    attack = Adversarial(class_=3, linf=eps, l0=2, margin=-0.5)
    return SampleResult(
        eps=eps,
        verdict=verdict,
        lower_bound=0.5 if letter == "c" else None,
        adversarial=attack if letter == "f" else None,
        reason=REASONS.get(letter),
    )


def audited(verdicts: dict[str, str] | str = "cccccccfuw", **changes: object) -> Report:
    """Return a report; `verdicts` has a letter a sample: certified, falsified, unknown, timed out, wrong."""
    by_eps = {"2/255": verdicts} if isinstance(verdicts, str) else verdicts
    n = max(map(len, by_eps.values()))
    samples = []
    for index in range(n):
        letters = {eps: word[index] for eps, word in by_eps.items() if index < len(word)}
        predicted = 4 if "w" in letters.values() else 1
        results = tuple(result(letter, POINTS[eps]) for eps, letter in letters.items())
        samples.append(SampleReport(index=index, label=1, predicted=predicted, results=results))
    counts = []
    for eps, word in by_eps.items():
        found = Counter(LETTERS[letter].value for letter in word)
        named = {v.value: found[v.value] for v in Verdict}
        counts.append(EpsSummary(eps=POINTS[eps], n=len(word), timed_out=word.count("t"), **named))
    right = sum(sample.predicted == 1 for sample in samples)
    sections: dict[str, object] = {
        "tool": Tool(version="0.1.0"),
        "command": "certify",
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "status": "complete",
        "environment": Environment(python="3.12", platform="Linux"),
        "data": DataInfo(source="d.npz", sha256="cd" * 32, n=n, indices=tuple(range(n)), bounds=(0.0, 1.0)),
        "threat_model": ThreatModel(
            set="box", eps=tuple(EpsPoint(value=POINTS[eps], text=eps) for eps in by_eps), clip=(0.0, 1.0)
        ),
        "summary": Summary(clean=CleanAccuracy(k=right, n=n), per_eps=tuple(counts)),
        "samples": tuple(samples),
        "sensitivity": Sensitivity(
            kind="global",
            method="paper",
            norm_inf=12.5,
            row_sums=(12.5,),
            top_inputs=(TopInput(output=0, input=1, value=2.5),),
        ),
    }
    return Report(**(sections | changes))


def written(path: Path, report: Report) -> Path:
    path.write_text(to_json(report), encoding="utf-8")
    return path
