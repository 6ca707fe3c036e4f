"""The steps of each command in order: files in, Report out. Nothing is printed here."""
