"""Exact verdicts by branch and bound (BaB) on the LP relaxation: feed-forward models and models with loops alike.

`program` is the LP of a box and a set of phases, `tree` the search, `chain` the proof that is left of it.
"""
