"""What holds whatever the rows are."""

import csv
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from variations.errors import ManifestError

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
numbers = st.one_of(st.integers(-(2**63), 2**63 - 1).map(str), st.just(""))
floats = st.one_of(st.floats(allow_nan=False, allow_infinity=False).map(repr), st.just(""))
rows = st.lists(st.tuples(cells, cells, numbers, floats), min_size=1, max_size=8)


@given(rows=rows, delimiter=st.sampled_from([",", ";", "\t"]), end=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
async def test_csv_round_trips(read: Any, rows: list[tuple[str, ...]], delimiter: str, end: str, bom: bool) -> None:
    """Whatever a cell holds, it comes back: texts as they were, numbers as numbers, the empty one as null."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.csv"
        with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
            writer.writerow(["url", "id", "text", "whole", "real"])
            writer.writerows(
                [f"https://h/{at}.jpg", name, f"~{text}", whole, real]
                for at, (name, text, whole, real) in enumerate(rows)
            )
        found = await read(path)
    assert found.rejected == []
    for at, (source, (name, text, whole, real)) in enumerate(zip(found.sources, rows, strict=True)):
        assert source.uri == f"https://h/{at}.jpg"
        assert source.has_id == bool(name.strip())
        assert source.source_id == (name.strip() or source.uri)
        assert source.labels["text"] == f"~{text}"
        assert source.labels["whole"] == (int(whole) if whole else None)
        assert source.labels["real"] == (float(real) if real else None)


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
async def test_any_bytes_are_rows_or_one_line(read: Any, content: bytes) -> None:
    """A file of any bytes is read or refused with ManifestError, whatever its name says it is."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("m.csv", "m.tsv", "m.jsonl", "m.txt", "m.parquet", "m.csv.gz"):
            for data in (content, b"url,x\n" + content, b'{"url": "https://h/a.jpg"}\n' + content):
                path = Path(folder) / name
                path.write_bytes(data)
                lines = 0
                try:
                    await read(path)
                except ManifestError as error:
                    lines = len(str(error).splitlines())
                assert lines <= 1
