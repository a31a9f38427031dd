"""The page's text: what is data in it, and that nothing else is."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from variations.report.page import PICTURES_A_CHUNK, write_page

TEXT = st.text(st.characters(codec=None), max_size=60)


class Elements(HTMLParser):
    """Collects the scripts and the policy of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.texts: dict[str, str] = {}
        self.policy = ""
        self.tags: list[str] = []
        self._open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what begins."""
        found = dict(attrs)
        self.tags.append(tag)
        if found.get("http-equiv"):
            self.policy = found["content"] or ""
        self._open = (found.get("id") or "program") if tag == "script" else tag if tag == "style" else None

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the parser's own signature
        """Note what ends."""
        self._open = None

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data


def read(data: dict[str, Any], pictures: list[bytes]) -> Elements:
    """Write a page and read it."""
    file = io.BytesIO()
    write_page(file, data, iter(pictures))
    elements = Elements()
    elements.feed(file.getvalue().decode())
    return elements


@given(st.dictionaries(TEXT, TEXT))
@example({"a": "</script><script>alert(1)</script>", "b": "<!--<script>", "c": "]]>", "{{PROGRAM}}": "{{PICTURES}}"})
@example({"half a surrogate pair": "\ud800"})
def test_texts_come_back_as_they_are(texts: dict[str, str]) -> None:
    """None ends its element, opens another, or takes the place of a part of the page."""
    usual = read({}, [])
    elements = read(texts, [])
    told = json.loads(elements.texts["data"])
    assert {name: told[name] for name in texts} == texts
    assert elements.tags == usual.tags
    assert elements.texts["program"] == usual.texts["program"]


@pytest.mark.parametrize("number", [0, 1, PICTURES_A_CHUNK, 2 * PICTURES_A_CHUNK + 3])
def test_pictures_lie_in_chunks_in_their_order(number: int) -> None:
    """Each is a line of its chunk."""
    pictures = [f"picture {at}".encode() for at in range(number)]
    texts = read({}, pictures).texts
    chunks = [texts[f"chunk-{at}"].split("\n") for at in range(-(-number // PICTURES_A_CHUNK))]
    assert [base64.b64decode(line) for chunk in chunks for line in chunk] == pictures
    assert f"chunk-{len(chunks)}" not in texts


def test_only_its_own_program_and_style_may_run() -> None:
    """The policy names their hashes, and no host."""
    elements = read({"a": 1}, [])
    for name, kind in (("program", "script-src"), ("style", "style-src")):
        digest = base64.b64encode(hashlib.sha256(elements.texts[name].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in elements.policy
    assert elements.policy.startswith("default-src 'none'; img-src 'self' file: data:;")
    assert not re.search(r"https?:|unsafe|\*", elements.policy)


def test_the_program_makes_no_html_of_texts() -> None:
    """And asks for nothing but images."""
    program = read({}, []).texts["program"]
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttp",
        "http://w",
    ):
        assert program.count(word) == (word == "http://w"), word
