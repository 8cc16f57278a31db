"""The report: one self-contained page, and PNG and CSV beside it."""
