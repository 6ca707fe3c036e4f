"""Diagnostics that count verdicts: one sentence for all samples, also where these come from several reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from idl_audit.commands.shared.float_margins import IN_EXACT_ARITHMETIC, told_denied, told_exact, without_bound
from idl_audit.report.schema import Diagnostic, Tally, TallyOf

MOST: Final = 10
"""Samples that are named."""


def tally(of: TallyOf, rows: Sequence[tuple[str, int]], *, about: str = "", largest: float | None = None) -> Tally:
    """Return what rows of (sample, how many) make."""
    names = dict.fromkeys(name for name, _ in rows)
    count = sum(number for _, number in rows)
    return Tally(of=of, about=about, count=count, samples=len(names), first=tuple(names)[:MOST], largest=largest)


def told(found: Tally) -> Diagnostic:
    """Return the diagnostic that says it."""
    return _SENTENCES[found.of](found).model_copy(update={"tally": found})


def joined(parts: Iterable[Tally]) -> list[Tally]:
    """Return the tallies of several reports of different samples, those that say the same as one."""
    groups: dict[tuple[TallyOf, str], list[Tally]] = {}
    for one in parts:
        groups.setdefault((one.of, one.about), []).append(one)
    return [_sum(group) for group in groups.values()]


def _sum(parts: Sequence[Tally]) -> Tally:
    first = [name for one in parts for name in one.first][:MOST]
    sizes = [one.largest for one in parts]
    known = [size for size in sizes if size is not None]
    return parts[0].model_copy(
        update={
            "count": sum(one.count for one in parts),
            "samples": sum(one.samples for one in parts),
            "first": tuple(first),
            "largest": max(known) if len(known) == len(sizes) else None,
        }
    )


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _where(found: Tally) -> str:
    return f"samples {', '.join(found.first)}"


def _close(found: Tally) -> Diagnostic:
    be, them = ("is", "it") if found.count == 1 else ("are", "them")
    limit = "" if found.largest is None else f": up to {found.largest:.1e}"
    return Diagnostic(
        code="IDL202",
        level="warning",
        message=f"{found.count} certified margin{_s(found.count)} {be} not above what {found.about} arithmetic may "
        f"change in {them}{limit}, as far as is proved",
        hint=IN_EXACT_ARITHMETIC,
        where=_where(found),
    )


def _unbounded(found: Tally) -> Diagnostic:
    return told_exact(found.about, f"{found.count} certified verdict{_s(found.count)}")


def _denied(found: Tally) -> Diagnostic:
    return told_denied(found.count, f"{found.samples} sample{_s(found.samples)}", where=_where(found))


def _open(found: Tally) -> Diagnostic:
    return without_bound(f"{found.count} verdict{_s(found.count)}", found.about)


def _late(found: Tally) -> Diagnostic:
    few = ", ".join(found.first) + (", ..." if found.samples > len(found.first) else "")
    return Diagnostic(
        code="IDL220",
        level="warning",
        message=f"{found.count} verdict{_s(found.count)} ended by {found.about}: samples {few}",
        hint="raise --time-limit, or lower --max-nodes, so that every machine finds the same",
    )


def _uncertified(found: Tally) -> Diagnostic:
    message = f"certified, but no certificate that stands alone was found for the samples {', '.join(found.first)}"
    return Diagnostic(code="IDL205", level="warning", message=message)


_SENTENCES: Final[Mapping[TallyOf, Callable[[Tally], Diagnostic]]] = MappingProxyType(
    {
        "close margins": _close,
        "verdicts in exact arithmetic": _unbounded,
        "denied points": _denied,
        "verdicts without a rounding bound": _open,
        "verdicts out of time": _late,
        "verdicts without a certificate": _uncertified,
    }
)
