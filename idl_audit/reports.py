"""What can be done with a report in Python: a page, a table of pandas, rules.

>>> import idl_audit
>>> report = idl_audit.audit("sample_models/digits_mlp.onnx", "sample_models/digits_mlp.npz", eps=0.01, limit=10)
>>> idl_audit.to_html(report).startswith("<!doctype html>")
True
>>> idl_audit.check_rules(report, ["certified_accuracy@0.01 >= 0.9"]).passed
True
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from idl_audit.gate.judge import judge, parse_rules
from idl_audit.report.render import Format, render
from idl_audit.report.schema import Gate, Report
from idl_audit.values.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd


def to_html(report: Report) -> str:
    """Return the report as one self-contained page."""
    return render(report, Format.HTML)


def to_rows(report: Report) -> list[dict[str, Any]]:
    """Return the verdicts of samples as rows: index, label, predicted, eps, verdict, method, lower_bound, ...

    One row for each sample and radius, in the order of the report; bounds are in units of the outputs, eps in units of
    the data, seconds of wall time.

    >>> import idl_audit
    >>> report = idl_audit.audit("sample_models/digits_mlp.onnx", "sample_models/digits_mlp.npz", eps=0.01, limit=2)
    >>> [(row["index"], row["eps"], row["verdict"]) for row in idl_audit.to_rows(report)]
    [(0, 0.01, 'certified'), (1, 0.01, 'certified')]
    """
    return [
        {
            "index": sample.index,
            "label": sample.label,
            "predicted": sample.predicted,
            "eps": result.eps,
            "verdict": result.verdict.value,
            "method": result.method,
            "lower_bound": result.lower_bound,
            "margin_found": result.margin_found,
            "becomes": None if result.adversarial is None else result.adversarial.class_,
            "reason": None if result.reason is None else result.reason.value,
            "seconds": result.seconds,
            **sample.groups,
        }
        for sample in report.samples
        for result in sample.results
    ]


def to_dataframe(report: Report) -> pd.DataFrame:
    """Return `to_rows` as a table of pandas.

    Raises:
        OptionError: where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise OptionError("a table needs pandas: pip install pandas; to_rows gives the same without it") from error
    return pd.DataFrame(to_rows(report))


def check_rules(
    report: Report, require: Iterable[str], warn: Iterable[str] = (), *, baseline: Report | None = None
) -> Gate:
    """Return how a report does by rules such as "certified_accuracy@2/255 >= 0.9": what `idl-audit gate` tells.

    Args:
        report: what was found.
        require: rules that must hold.
        warn: rules that only warn.
        baseline: an earlier report on the same data and threat model, for rules such as "drop <= 0.01".

    Raises:
        OptionError: where a rule cannot be read, or speaks of what the report does not say.
    """
    rules = parse_rules(tuple(require), tuple(warn), has_baseline=baseline is not None)
    return judge(report, rules, baseline=baseline)
