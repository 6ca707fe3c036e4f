"""Linear programs: whole sparse arrays in, our values out. The only door to HiGHS.

What comes out of here is a suggestion: points to try on the original network, multipliers to put into a proof. No
objective, bound or status of the solver is ever part of a verdict. What goes in is checked and scaled (`program_data`),
every call's status is looked at, and a solve that does not end in time is not waited for.
"""

from __future__ import annotations

from idl_audit.search.linprog.mixed import MixedIntegerProgram, SignSearch
from idl_audit.search.linprog.outcomes import OUTCOMES, Outcome, outcome_of
from idl_audit.search.linprog.program import LinearProgram, Solution

__all__ = [
    "OUTCOMES",
    "LinearProgram",
    "MixedIntegerProgram",
    "Outcome",
    "SignSearch",
    "Solution",
    "outcome_of",
]
