"""Verdicts: the ladders that search and prove, and the proofs that they leave in files."""
