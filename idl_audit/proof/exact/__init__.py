"""Exact answers: what a network's outputs are at one point, and small queries decided, in rational arithmetic."""
