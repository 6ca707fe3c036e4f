"""Rules as users write them: `certified_accuracy@2/255 >= 0.90`, `drop(clean_accuracy) <= 1 %`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Final, Literal

from idl_audit.data.numbers import parse_fraction
from idl_audit.values.columns import CLASS
from idl_audit.values.errors import OptionError

Level = Literal["error", "warning"]


class Metric(StrEnum):
    """What a rule can speak of."""

    CLEAN_ACCURACY = "clean_accuracy"
    CERTIFIED_ACCURACY = "certified_accuracy"
    ATTACK_SUCCESS = "attack_success"
    CERTIFIED_SHARE = "certified_share"
    LARGEST_CERTIFIED_EPS = "largest_certified_eps"
    UNKNOWN = "unknown"
    TIMED_OUT = "timed_out"
    MAX_SENSITIVITY = "max_sensitivity"
    NORM_INF_S = "norm_inf_S"
    AGREEMENT = "agreement"
    DISAGREEMENT = "disagreement"
    MAX_DIFFERENCE = "max_difference"
    MONOTONE = "monotone"
    EVERYWHERE = "everywhere"
    CERTIFIED_GAIN = "certified_gain"


MEANINGS: Final[Mapping[Metric, str]] = MappingProxyType(
    {
        Metric.CLEAN_ACCURACY: "samples that are predicted right, of all",
        Metric.CERTIFIED_ACCURACY: "samples that are predicted right and certified, of all",
        Metric.CERTIFIED_SHARE: "outputs, labels or pixels that are certified, of those of all samples",
        Metric.LARGEST_CERTIFIED_EPS: "a quantile of the largest certified radii: at q10 all but a tenth have so much",
        Metric.ATTACK_SUCCESS: "samples that are falsified, of those that are predicted right",
        Metric.UNKNOWN: "samples that are undecided, of all",
        Metric.TIMED_OUT: "samples that are undecided because the time was over, of all",
        Metric.MAX_SENSITIVITY: "the largest entry of S",
        Metric.NORM_INF_S: "the largest row sum of S",
        Metric.AGREEMENT: "samples around which two networks provably have one class, of all",
        Metric.DISAGREEMENT: "samples around which two networks have two classes, of all",
        Metric.MONOTONE: "samples around which a score provably goes the asked way as an input rises, of all",
        Metric.EVERYWHERE: "statements that provably hold over the whole range of the inputs, of all",
        Metric.CERTIFIED_GAIN: "samples certified after harden minus those before, of all in --audit",
        Metric.MAX_DIFFERENCE: "the largest proved bound on how far outputs of two networks differ",
    }
)

COMPARED: Final = frozenset({Metric.AGREEMENT, Metric.DISAGREEMENT, Metric.MAX_DIFFERENCE})
"""Metrics of two networks."""

AT_EPS: Final = (
    frozenset(
        {
            Metric.CERTIFIED_ACCURACY,
            Metric.CERTIFIED_SHARE,
            Metric.ATTACK_SUCCESS,
            Metric.UNKNOWN,
            Metric.TIMED_OUT,
            Metric.MONOTONE,
            Metric.CERTIFIED_GAIN,
        }
    )
    | COMPARED
)
"""Metrics of one radius."""

QUANTILES: Final = frozenset({Metric.LARGEST_CERTIFIED_EPS})
"""Metrics of a quantile, q0 to q100, over the samples."""

SHARES: Final = (AT_EPS | {Metric.CLEAN_ACCURACY, Metric.EVERYWHERE}) - {Metric.MAX_DIFFERENCE}
"""Metrics that are k of n."""

BY_GROUP: Final = frozenset(
    {
        Metric.CLEAN_ACCURACY,
        Metric.CERTIFIED_ACCURACY,
        Metric.ATTACK_SUCCESS,
        Metric.UNKNOWN,
        Metric.TIMED_OUT,
    }
)
"""Metrics that may be asked of the samples of one group: of a class, or of one entry of a column (--group-by)."""

ACCURACIES: Final = frozenset({Metric.CLEAN_ACCURACY, Metric.CERTIFIED_ACCURACY, Metric.CERTIFIED_SHARE})
"""Metrics that `drop` can speak of: less of them is worse."""

OPERATORS: Final[Mapping[str, Callable[[Fraction, Fraction], bool]]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
)

EXAMPLE: Final = "certified_accuracy@2/255 >= 0.90"
_TARGET = r"(?P<{0}>[A-Za-z_]+)(?:\s*@\s*(?P<{0}_eps>[^\s<>=()@%\[\]]+))?"
_GROUP = r"(?:\s*\[\s*(?P<column>[^\[\]=]+?)\s*=\s*(?P<entry>[^\[\]]*?)\s*\])?"
_RULE = re.compile(
    rf"(?:(?P<drop>drop)(?:\s*\(\s*{_TARGET.format('dropped')}\s*\))?|{_TARGET.format('metric')}{_GROUP})"
    r"\s*(?P<operator>[<>=!~]+)\s*(?P<number>[^%\s<>=!~](?:[^%]*[^%\s])?)\s*(?P<percent>%)?",
    re.IGNORECASE,
)
_LONGEST = 200


@dataclass(frozen=True)
class Group:
    """The samples of one group: of a class, or those of which a column of the data says so."""

    column: str
    entry: str

    def __str__(self) -> str:
        return f"[{self.column}={self.entry}]"


@dataclass(frozen=True)
class Rule:
    """One rule.

    metric: None stands for every certified accuracy, in a bare `drop`.
    eps: the radius as it was written; None where none was.
    group: the samples that it is about; None for all.
    drop: whether the rule is about the baseline's value minus the report's.
    limit: the exact number on the right, a share in [0, 1] for shares.
    """

    text: str
    level: Level
    metric: Metric | None
    eps: str | None
    drop: bool
    operator: str
    limit: Fraction
    limit_text: str
    group: Group | None = None

    def holds(self, value: Fraction) -> bool:
        """Return whether the exact value fulfils the rule; nothing is rounded."""
        return OPERATORS[self.operator](value, self.limit)

    @property
    def expected(self) -> str:
        """What is asked for, as it was written."""
        return f"{self.operator} {self.limit_text}"


def parse_rule(text: str, *, level: Level = "error") -> Rule:
    """Return the rule that a text states.

    Raises:
        OptionError: where it is none; the message says how it would be written.
    """
    shown = repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")
    match = _RULE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise OptionError(f"{shown} is no rule; write for example '{EXAMPLE}' or 'drop <= 0.01'")
    drop = match["drop"] is not None
    name = match["dropped"] if drop else match["metric"]
    eps = match["dropped_eps"] if drop else match["metric_eps"]
    metric = None if name is None else _metric(name, shown)
    if eps is not None:
        if metric in QUANTILES:
            quantile(eps, shown)
        elif metric is not None and metric not in AT_EPS:
            raise OptionError(f"the rule {shown} gives {metric} a radius, and it has none; leave @{eps} out")
        if metric not in QUANTILES:
            parse_fraction(eps, option=f"the rule {shown}")
    elif metric in QUANTILES:
        raise OptionError(f"the rule {shown} needs a quantile: write {metric}@q10, which all but a tenth reach")
    group = _group(match["column"], match["entry"], metric, shown)
    sign = match["operator"]
    if sign not in OPERATORS:
        raise OptionError(f"the rule {shown} compares by {sign}; write one of {', '.join(OPERATORS)}")
    if drop and metric is not None and metric not in ACCURACIES:
        raise OptionError(f"the rule {shown}: drop is about accuracies; for {metric} give a limit of its own")
    if drop and sign not in ("<=", "<"):
        raise OptionError(f"the rule {shown} asks for a drop; write drop <= and how much is allowed")
    limit = parse_fraction(match["number"], option=f"the rule {shown}")
    share = metric is None or metric in SHARES
    if match["percent"]:
        limit = limit / 100
    _check_limit(limit, share=share, percent=bool(match["percent"]), number=match["number"], shown=shown)
    limit_text = f"{match['number']} %" if match["percent"] else match["number"]
    return Rule(text.strip(), level, metric, eps, drop, sign, limit, limit_text, group)


def _group(column: str | None, entry: str, metric: Metric | None, shown: str) -> Group | None:
    if column is None:
        return None
    if metric not in BY_GROUP:
        raise OptionError(
            f"the rule {shown} is about one group of samples, and {metric} is not counted by groups; leave [{column}] "
            "out"
        )
    if len(entry) > 1 and entry[0] == entry[-1] and entry[0] in "\"'":
        entry = entry[1:-1]
    if column.lower() != CLASS:
        return Group(column, entry)
    if not re.fullmatch("[0-9]{1,9}", entry):
        raise OptionError(f"the rule {shown} is about the class {entry!r}; classes are whole numbers: [class=3]")
    return Group(CLASS, str(int(entry)))


def quantile(text: str, shown: str) -> Fraction:
    """Return the share that q10 stands for. Raises OptionError where it is none."""
    if not re.fullmatch(r"q(?:100|[0-9]{1,2})", text, re.IGNORECASE):
        raise OptionError(f"the rule {shown} speaks of the quantile {text}; write q0 to q100")
    return Fraction(int(text[1:]), 100)


def _metric(name: str, shown: str) -> Metric:
    known = {metric.value.lower(): metric for metric in Metric}
    if name.lower() in known:
        return known[name.lower()]
    near = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {known[near[0]]}?" if near else f"known are {', '.join(Metric)} and drop"
    raise OptionError(f"the rule {shown} speaks of '{name}', which is not measured; {hint}")


def _check_limit(limit: Fraction, *, share: bool, percent: bool, number: str, shown: str) -> None:
    if limit < 0:
        raise OptionError(f"the rule {shown} has a limit below zero; write for example '{EXAMPLE}'")
    if not share and percent:
        raise OptionError(f"the rule {shown}: sensitivities and differences are no shares; leave % out")
    if share and limit > 1:
        if percent:
            raise OptionError(f"the rule {shown} asks for more than 100 %; give a share from 0 to 100 %")
        per_cent = f"; for {number} per cent write {float(limit / 100):g} or '{number} %'" if limit <= 100 else ""
        raise OptionError(f"the rule {shown} compares a share, 0 to 1, with {number}{per_cent}")
