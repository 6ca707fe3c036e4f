"""idl-audit: how robust is the neural network in a file, with proofs that can be checked."""

__version__ = "0.1.0"
