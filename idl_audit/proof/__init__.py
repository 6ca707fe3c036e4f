"""The trusted base: bounds, the one inequality, proofs as data and the one checker that reads all of them.

What searches record (`chain`, `lp_chain`, `split_tree`) is made a proof by `convert`; `files` reads and writes the
format that docs/proof-format.md describes, `format_1` reads what came before it. Nothing here looks at a clock, asks a
solver, or imports torch; nothing in a file is believed.
"""
