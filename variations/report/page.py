"""Put the page together: template, style and program inline, the rows as JSON, the small pictures in chunks of text.

A browser that reads a page from a disk may fetch nothing beside it, and one that was given a presigned link may fetch
nothing but that: so all is in one file. A chunk lies in a script element of no known type, which a browser keeps and
does not look into; the program takes it apart when one of its pictures comes into view.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, BinaryIO, Final

PICTURES_A_CHUNK: Final = 64
PROGRAM: Final = ("data.js", "pictures.js", "wall.js", "large.js", "figures.js", "leaks.js", "main.js")
_PAGE: Final = files(__package__) / "page"


def write_page(file: BinaryIO, data: dict[str, Any], pictures: Iterable[bytes]) -> None:
    """Write the page; the pictures are read one by one.

    Args:
        file: is written to, front to back.
        data: whatever the program shows. All of it is data: none becomes HTML or a program.
        pictures: in the order in which `data` counts them.
    """
    style = _text("report.css")
    program = "\n".join(_text(name) for name in PROGRAM)
    head = _text("report.html")
    for mark, content in {
        "STYLE_HASH": _hash(style),
        "PROGRAM_HASH": _hash(program),
        "STYLE": style,
        "DATA": _json({**data, "pictures_a_chunk": PICTURES_A_CHUNK}),
        "PROGRAM": program,
    }.items():
        before, _, head = head.partition(f"{{{{{mark}}}}}")
        file.write(before.encode() + content.encode())
    before, _, end = head.partition("{{PICTURES}}")
    file.write(before.encode())
    chunk: list[bytes] = []
    number = 0
    for picture in pictures:
        chunk.append(base64.b64encode(picture))
        if len(chunk) == PICTURES_A_CHUNK:
            file.write(_chunk(number, chunk))
            number, chunk = number + 1, []
    if chunk:
        file.write(_chunk(number, chunk))
    file.write(end.encode())


def _chunk(number: int, pictures: Sequence[bytes]) -> bytes:
    return b'<script type="text/plain" id="chunk-%d">' % number + b"\n".join(pictures) + b"</script>\n"


def _json(value: object) -> str:
    """Return JSON that ends no script element and opens no comment, whatever texts are in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text.encode("utf-8", "backslashreplace").decode()


def _hash(text: str) -> str:
    """Return what a Content-Security-Policy knows an inline text by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8").rstrip("\n")
