"""Samples and their preprocessing: what the user's numbers mean."""
