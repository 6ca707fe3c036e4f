"""Proof files: claims, strict JSON, and the one door for arrays."""
