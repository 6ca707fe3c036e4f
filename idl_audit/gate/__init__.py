"""Rules over a report, baselines, and what changed from one report to the next: neither networks nor solvers."""
