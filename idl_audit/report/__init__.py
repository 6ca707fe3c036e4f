"""NUMBERS -> REPORT -> TEXT: the schema of report.json and what is drawn from it."""
