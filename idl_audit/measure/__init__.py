"""IMPLICIT MODEL -> NUMBERS: sensitivity, norms, reachability, drift, bounds of all states; no files, no printing."""
