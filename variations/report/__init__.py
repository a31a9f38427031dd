"""The gallery: one page beside the data, each source beside its variations, that needs nothing from outside."""

from variations.report.writing import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
