"""Training: networks whose weights are changed until more of their samples can be proved."""
