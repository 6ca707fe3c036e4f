"""The steps of each command in order: files in, Report out. One module a command; nothing is printed here."""
