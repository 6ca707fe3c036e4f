"""VNN-LIB 2: queries about one or several networks, as text and as values."""
