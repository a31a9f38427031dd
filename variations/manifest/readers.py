"""The reader of each format."""

from pathlib import Path

from variations.manifest.csv_table import CsvTable
from variations.manifest.formats import Format
from variations.manifest.json_lines_table import JsonLinesTable
from variations.manifest.parquet_table import ParquetTable
from variations.manifest.tables import Table
from variations.manifest.text_table import TextTable


def open_table(path: Path, form: Format, *, where: str, uri_column: str | None = None) -> Table:
    """Read a file's columns and types: the whole of it, but for parquet, which says so itself.

    Raises:
        ManifestError: it is not what its name says.
    """
    if form is Format.PARQUET:
        return ParquetTable(path, where=where)
    if form is Format.JSON_LINES:
        return JsonLinesTable(path, where=where)
    if form is Format.TEXT:
        return TextTable(path, where=where)
    return CsvTable(path, where=where, delimiter="\t" if form is Format.TSV else None, uri_column=uri_column)
