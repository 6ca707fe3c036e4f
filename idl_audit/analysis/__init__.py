"""IMPLICIT MODEL -> NUMBERS: bounds, sensitivity, relaxations, attacks, verdicts; no files, no printing."""
