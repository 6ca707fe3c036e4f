"""Numbers, sets and files: what every layer uses, and what imports nothing of this package."""
