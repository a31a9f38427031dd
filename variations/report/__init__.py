"""The gallery: one page beside the data, each source beside its variations, that needs nothing from outside."""

from variations.report.after_run import write_after_run
from variations.report.writing import WrittenReport, write_report

__all__ = ["WrittenReport", "write_after_run", "write_report"]
