"""LOWERINGS: which operators become linear maps or blocks of states, and how; one file per family."""
