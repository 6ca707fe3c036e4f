"""Proofs as data, and the one checker that reads all of them: the format that docs/proof-format.md describes.

Searches still record chains, trees of linear programs and trees of boxes, and `verify` checks those; `convert` makes
proofs of them. Nothing here looks at a clock or asks a solver.
"""
