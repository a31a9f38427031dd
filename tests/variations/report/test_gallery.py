"""The gallery as a person meets it: in a browser, with real photographs."""

import shutil
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from variations.report import write_report
from variations.storage import Storage

from .browser import NARROW, PHONE, WIDE, Gallery
from .scene import HOSTILE, HOSTILE_NAME, KEPT, ROWS, furnish, furnish_flagged, furnish_outputs, photos


def test_each_source_stands_beside_its_variations(gallery: Gallery) -> None:
    """With alt texts that say what is varied; what failed says why in its place; nothing is asked for but the page."""
    alts = [image.get_attribute("alt") or "" for image in gallery.all("#wall img")]
    assert alts[0] == "Source 01_rocket_rgb"
    assert alts[1].startswith("Variation of 01_rocket_rgb: 1:1 · guidance 2, seed 1000, subject rocket")
    assert alts[7] == "Source 02_retina_1411_square"
    assert gallery.counts == f"{ROWS} rows of 13 sources"
    failed = gallery.find("[data-status=failed]")
    assert "content_policy" in failed.text
    assert len(gallery.requests()) == 1
    assert gallery.complaints() == []


def test_pictures_for_people(gallery: Gallery, dataset_uri: str) -> None:
    """Light and dark, wide and narrow: nothing lies beyond the right edge."""
    for width, size in (("wide", WIDE), ("narrow", NARROW)):
        for scheme in ("light", "dark"):
            gallery.open(f"{dataset_uri}/report.html", size=size, scheme=scheme)
            for view in ("images", "failures", "figures", "leaks"):
                gallery.click(f"[data-view={view}]")
                gallery.picture(f"{view}-{width}-{scheme}")
                overflow = gallery.run("return document.documentElement.scrollWidth - innerWidth")
                assert overflow <= 0, (view, width)
            gallery.click("[data-view=images]")
            gallery.click("#wall .tile:not(.source)")
            gallery.wait_for_the_image()
            gallery.picture(f"large-{width}-{scheme}")
            gallery.press(Keys.ESCAPE)
        light, dark = (_background(gallery, scheme, size) for scheme in ("light", "dark"))
        assert light > 200
        assert dark < 60
    gallery.click("#filters-button")
    gallery.picture("filters-narrow-dark")
    assert gallery.find("#filters").is_displayed()


def test_the_large_view_is_never_empty(browser: Gallery, dataset_uri: str, tmp_path: Path) -> None:
    """Its thumbnail stays until the image itself is decoded, which of a large one takes its time."""
    dataset = Path(shutil.copytree(dataset_uri.removeprefix("file://"), tmp_path / "dataset"))
    big = next(path for path in photos() if "big" in path.name).read_bytes()
    for image in dataset.glob("images/*/*.jpg"):
        image.write_bytes(big)
    browser.open(f"{dataset.as_uri()}/report.html")
    browser.click("#wall .tile:not(.source)")
    for _ in range(12):
        browser.wait_for_the_image()
        darkest, lightest = browser.seen("#large figure:not(.source) img").convert("L").getextrema()
        assert lightest - darkest > 20
        browser.press(Keys.ARROW_RIGHT)


def _background(gallery: Gallery, scheme: str, size: tuple[int, int]) -> int:
    gallery.appear(size=size, scheme=scheme)
    return int(gallery.run("return Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"))


def test_filters_count_and_combine(gallery: Gallery) -> None:
    """Within a filter either, between filters both; each choice says how many it would show; counts follow."""
    assert gallery.choices("status") == {"failed": 1, "kept": KEPT, "rejected": 1, "unknown": 1}
    gallery.choose("status", "kept")
    assert gallery.counts == f"{KEPT} of {ROWS} rows of 12 sources"
    gallery.choose("subject", "rocket")
    assert gallery.counts == f"6 of {ROWS} rows of 1 source"
    gallery.choose("subject", "retina")
    assert gallery.counts == f"12 of {ROWS} rows of 2 sources"
    assert gallery.choices("guidance") == {"2": 4, "3": 4, "4.5": 4, "–": 0}
    gallery.choose("guidance", "3")
    assert {tile.text.rpartition(" ")[2] for tile in gallery.all("#wall .tile:not(.source)")} == {"3"}
    gallery.choose("split", "test")
    assert gallery.counts == f"0 of {ROWS} rows of 0 sources"
    assert gallery.find("#nothing").is_displayed()
    gallery.click("#clear")
    assert gallery.counts == f"{ROWS} rows of 13 sources"
    assert gallery.complaints() == []


def test_a_verdict_is_filtered_by_each_of_its_reasons(gallery: Gallery) -> None:
    """`flagged: copy, twin` is found under either."""
    numbers = gallery.choices("verdict")
    assert set(numbers) == {"flagged: copy", "flagged: twin", "passed", "–"}
    assert sum(numbers.values()) >= ROWS
    gallery.choose("verdict", "flagged: copy")
    assert {tile.text for tile in gallery.all("#wall .flag")} <= {"copy", "copy, twin"}
    assert gallery.counts.startswith(f"{numbers['flagged: copy']} of ")


def test_a_range_filters_numbers_of_which_there_are_many(gallery: Gallery) -> None:
    """Such as a perceptual distance, below the labels and the parameters."""
    legends = [legend.text for legend in gallery.all("#filters legend")]
    order = ["status", "verdict", "subject", "aspect ratio", "guidance", "source distance", "total seconds"]
    assert [legend for legend in legends if legend in order] == order
    gallery.find("[aria-label='source_distance at most']").send_keys("9")
    gallery.click("#grouped")
    gallery.run("document.getElementById('sort').value = 'source_distance'")
    gallery.run("document.getElementById('sort').dispatchEvent(new Event('change'))")
    distances = [int(tile.text.split("\n")[-1].split(" ")[0]) for tile in gallery.all("#wall .tile")]
    assert distances
    assert distances == sorted(distances)
    assert max(distances) <= 9


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_shows_what_it_sorts_by(gallery: Gallery, descending: bool) -> None:
    """Without groups the tiles stand in order; those without a value come last either way."""
    gallery.click("#grouped")
    gallery.click("#sort option[value=total_seconds]")
    if descending:
        gallery.click("#direction")
    shown = [tile.text.split("\n")[-1] for tile in gallery.all("#wall .tile")]
    seconds = [float(text.split(" s")[0]) for text in shown if " s" in text]
    assert len(seconds) > 20
    assert seconds == sorted(seconds, reverse=descending)


def test_search_finds_words_of_labels_ids_and_errors(gallery: Gallery) -> None:
    """All words have to be there, in any order; `/` leads to it."""
    gallery.press("/")
    gallery.press(*"policy coffee")
    assert gallery.counts == f"1 of {ROWS} rows of 1 source"
    assert "q=policy+coffee" in gallery.fragment


def test_the_large_view_shows_the_image_and_all_its_metadata(gallery: Gallery) -> None:
    """The image itself, from beside the page; its source beside it; each column of the metadata."""
    gallery.click("#wall .tile:not(.source)")
    gallery.wait_for_the_image()
    assert gallery.is_large
    image = gallery.find("#large figure:not(.source) img")
    file_name = gallery.fact("file_name")
    assert str(image.get_attribute("src")).endswith(file_name)
    assert gallery.run("return arguments[0].naturalWidth", image) == int(gallery.fact("width")) == 512
    assert gallery.find("#large figure.source img").get_attribute("alt") == "Source 01_rocket_rgb"
    names = {name.text for name in gallery.all("#large-facts dt")}
    assert {"variation_id", "sha256", "run_id", "cost_usd", "verdict", "split", "subject", "seed"} <= names
    assert gallery.fact("status") == "kept"
    assert [url.rpartition("/")[2] for url in gallery.requests()] == ["report.html", file_name.rpartition("/")[2]]
    assert gallery.complaints() == []


def test_the_keyboard_reaches_everything(gallery: Gallery) -> None:
    """Arrows move, Enter opens, arrows go on, Escape closes and leads back to the tile."""
    gallery.press(Keys.ARROW_RIGHT)
    assert gallery.focused == "Source 01_rocket_rgb"
    gallery.press(Keys.ARROW_RIGHT)
    assert gallery.focused.startswith("Variation of 01_rocket_rgb: 1:1 · guidance 2")
    gallery.press(Keys.ARROW_DOWN)
    assert gallery.focused.startswith("Variation of 02_retina_1411_square")
    gallery.press(Keys.ARROW_UP, Keys.ENTER)
    assert (gallery.is_large, gallery.fact("seed")) == (True, "1000")
    gallery.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert gallery.fact("guidance") == "4.5"
    gallery.press(Keys.ARROW_DOWN)
    assert (gallery.fact("source_id"), gallery.fact("guidance")) == ("02_retina_1411_square", "2")
    gallery.press(Keys.ARROW_UP)
    assert (gallery.fact("source_id"), gallery.fact("guidance")) == ("01_rocket_rgb", "2")
    gallery.press(Keys.ESCAPE)
    assert not gallery.is_large
    assert gallery.focused.startswith("Variation of 01_rocket_rgb: 1:1 · guidance 2")
    gallery.press(Keys.END)
    assert "rejected" in gallery.focused
    assert gallery.run("return scrollY") > 500
    assert gallery.complaints() == []


def test_the_address_holds_what_is_shown(gallery: Gallery, dataset_uri: str) -> None:
    """A filtered view can be handed on, the image that is open included."""
    gallery.choose("subject", "retina")
    gallery.click("#sort option[value=guidance]")
    gallery.click("#direction")
    gallery.click("#wall .tile:not(.source)")
    fragment, seed = gallery.fragment, gallery.fact("seed")
    gallery.open(f"{dataset_uri}/report.html#{fragment}")
    assert gallery.is_large
    assert (gallery.fact("seed"), gallery.fact("guidance")) == (seed, "4.5")
    gallery.press(Keys.ESCAPE)
    assert gallery.counts == f"6 of {ROWS} rows of 1 source"
    assert gallery.fragment == fragment.partition("&item=")[0]


def test_only_what_is_in_view_is_in_the_page(gallery: Gallery) -> None:
    """The rest comes as one scrolls, and goes."""
    gallery.click("[data-size='260']")
    first = {tile.get_attribute("data-cell") for tile in gallery.all("#wall .tile")}
    assert len(first) < ROWS
    gallery.scroll_to_the_end()
    gallery.wait_for_pictures()
    last = {tile.get_attribute("data-cell") for tile in gallery.all("#wall .tile")}
    assert str(ROWS + 13 - 1) in last
    assert first - last


def test_hostile_texts_are_texts(gallery: Gallery) -> None:
    """A label that is a program is shown as it is written, and does not run."""
    gallery.click("#wall .tile:not(.source)")
    assert gallery.fact(HOSTILE_NAME) == HOSTILE
    gallery.press(Keys.ESCAPE)
    gallery.press("/")
    gallery.press(*"onerror=")
    assert gallery.counts == f"6 of {ROWS} rows of 1 source"
    assert gallery.run("return window.ran ?? null") is None
    assert gallery.run("return document.querySelectorAll('[onerror], [onclick], i').length") == 0
    assert gallery.complaints() == []


def test_the_policy_lets_nothing_out(gallery: Gallery) -> None:
    """Whatever would run in it: no image from elsewhere, no connection, no HTML made of text."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        outside.setblocking(False)
        url = f"http://127.0.0.1:{outside.getsockname()[1]}/"
        gallery.run("document.body.append(Object.assign(new Image(), { src: arguments[0] }))", url)
        failure = gallery.run("return fetch(arguments[0]).then(() => 'went out', (error) => String(error))", url)
        assert failure.startswith("TypeError")
        assert gallery.run("try { document.body.innerHTML = '<p>' } catch (error) { return error.name }") == "TypeError"
        refused = " ".join(gallery.complaints())
        assert "img-src" in refused
        assert "connect-src" in refused
        with pytest.raises(BlockingIOError):
            outside.accept()


def test_failures_lead_to_their_images(gallery: Gallery) -> None:
    """By reason, with what some of them say."""
    gallery.click("[data-view=failures]")
    rows = [row.text.replace("\n", " ") for row in gallery.all("#failures tbody tr")]
    assert len(rows) == 3
    assert rows[0].startswith("failed content_policy 1 – the content policy refused the image")
    gallery.click("#failures tbody button")
    assert gallery.counts == f"1 of {ROWS} rows of 1 source"
    assert "content_policy" in gallery.find("#wall [data-status=failed]").text


@pytest.fixture
async def outputs(browser: Gallery, dataset: Storage) -> Gallery:
    """Open a gallery of requests for several images, some of them flagged and dropped."""
    await furnish_outputs(dataset)
    browser.open((await write_report(dataset)).uri)
    return browser


def test_what_was_flagged_is_told_by_why(outputs: Gallery) -> None:
    """A row for each reason, with its number, and what some of them say; each leads to as many."""
    outputs.click("[data-view=failures]")
    rows = [row.text.replace("\n", " ") for row in outputs.all("#failures tbody tr")]
    assert sorted(row.partition(" USD ")[0] for row in rows) == [
        "rejected flagged: blank 2 0.062",
        "rejected flagged: copy 2 0.062",
        "rejected flagged: twin 1 0.031",
    ]
    (blank,) = [row for row in rows if "blank" in row]
    assert "its contrast is 0, 9:16" in blank
    assert "its contrast is 0, 16:9" in blank
    assert "counted under each" in outputs.find("#failures").text
    for at, row in enumerate(rows):
        outputs.click("[data-view=failures]")
        outputs.click(f"#failures tbody tr:nth-child({at + 1}) button")
        number = 1 if "twin" in row.partition(" USD ")[0] else 2
        assert outputs.counts == f"{number} of 6 rows of 1 source"


def test_outputs_of_a_request_are_told_apart(outputs: Gallery) -> None:
    """In caption, alt text and large view."""
    tiles = outputs.all("#wall .tile:not(.source)")
    captions = [tile.find_element(By.CSS_SELECTOR, ".caption").text.split("\n") for tile in tiles]
    assert captions == [[shape, f"{at} of 3"] for shape in ("9:16", "16:9") for at in (1, 2, 3)]
    alts = [tile.get_attribute("aria-label") or "" for tile in tiles]
    for alt, at in zip(alts, [1, 2, 3] * 2, strict=True):
        assert f"seed 7, output {at} of 3, subject rocket" in alt
    tiles[1].click()
    assert outputs.find("#large figure:not(.source) figcaption").text == "Variation 2 of 6 · output 2 of 3"


def test_measures_are_ranges_below_labels_and_parameters(outputs: Gallery) -> None:
    """However few values there are."""
    legends = [legend.text for legend in outputs.all("#filters legend")]
    assert legends[3:] == ["error code", "aspect ratio", "source distance", "contrast", "format"]
    outputs.find("[aria-label='source_distance at least']").send_keys("2")
    assert outputs.counts == "4 of 6 rows of 1 source"


def test_a_picture_has_round_corners_whatever_its_shape(outputs: Gallery) -> None:
    """Its box, which is rounded, is no larger than what is seen of it."""
    for width, height in outputs.run(
        "return [...document.querySelectorAll('#wall img')].map((image) => "
        "[image.width / image.naturalWidth, image.height / image.naturalHeight])"
    ):
        assert width == pytest.approx(height, rel=0.02)


def test_a_phone_shows_the_tools_whole(gallery: Gallery) -> None:
    """Tabs on one line, however much was not kept; the order not cut; the sizes beside the count."""
    gallery.appear(size=PHONE, scheme="light")
    gallery.run("document.getElementById('failed-count').textContent = '1,234'")
    assert [tab.rect["height"] for tab in gallery.all("nav button")] == [34] * 4
    needed = gallery.run(
        "const select = document.getElementById('sort').cloneNode(true);"
        "select.style.cssText = 'position: absolute; width: auto; max-width: none';"
        "select.replaceChildren(new Option('as in the dataset')); document.getElementById('tools').append(select);"
        "const { width } = select.getBoundingClientRect(); select.remove(); return width"
    )
    assert gallery.find("#sort").rect["width"] >= needed
    counts, sizes = gallery.find("#counts").rect, gallery.find(".sizes").rect
    assert counts["x"] + counts["width"] <= sizes["x"]
    assert sizes["y"] < counts["y"] + counts["height"] < sizes["y"] + sizes["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_goes_on_has_a_shade_at_its_edge(gallery: Gallery, scheme: str) -> None:
    """On the side to which it goes on, and on no other."""
    width, _ = PHONE
    gallery.appear(size=(width, 5000), scheme=scheme)
    gallery.click("[data-view=figures]")

    def is_shaded() -> tuple[bool, bool]:
        # Above the names of the columns.
        shown = gallery.seen("#figures .table").convert("L")
        left, middle, right = (shown.getpixel((x, 5)) for x in (4, shown.width // 2, shown.width - 5))
        return left != middle, right != middle

    assert is_shaded() == (False, True)
    gallery.run("document.querySelector('#figures .table').scrollLeft = 10000")
    assert is_shaded() == (True, False)


def test_the_runs_are_shown_in_figures(gallery: Gallery) -> None:
    """Histograms whose bars say what they count, and each run's receipt."""
    gallery.click("[data-view=figures]")
    titles = [title.text for title in gallery.all("#figures h3")]
    assert titles == [
        *("Latency", "Images over time", "Cost an image", "Requests an image", "Distance to the source"),
    ]
    requests = gallery.all("#figures figure")[3].find_elements("css selector", "rect title")
    counted = [title.get_property("textContent") for title in requests]
    assert counted == ["3 requests: 54 images", "4 requests: 16 images"]
    assert gallery.find("#figures .most").text.endswith(" images")
    assert gallery.find("#figures tbody").text.split()[-2:] == ["3.36", "–"]


def test_what_leaks_stands_side_by_side(gallery: Gallery) -> None:
    """Sources that look alike, each with its split; one that could not be had says so; names are texts."""
    assert gallery.find("[data-view=leaks]").text == "Leaks !"
    gallery.click("[data-view=leaks]")
    gallery.wait_for_pictures()
    assert "1 group is in two splits or more; 4 sources look like one in another split" in gallery.find("#leaks").text
    pairs = gallery.all("#leaks .pair")
    assert [pair.text.split("\n")[-1] for pair in pairs] == ["alike", "2 bits apart", "6 bits apart"]
    alts = [image.get_attribute("alt") for image in gallery.all("#leaks .pair:first-child img")]
    assert alts == ["Source 09_chelsea_exif_rot6 in train", "Source 10_chelsea in test"]
    assert gallery.run("return [...document.querySelectorAll('#leaks img')].every((image) => image.naturalWidth)")
    assert "no picture of the source" in pairs[2].text
    assert HOSTILE in pairs[2].text
    assert gallery.all("#leaks li")[0].text == f"{HOSTILE}: train (row 1), test (row 4)"
    assert gallery.run("return window.ran ?? 0") == 0
    assert gallery.run("return location.hash") == "#view=leaks"


@pytest.fixture
def slow(dataset_uri: str) -> Iterator[tuple[str, Event]]:
    """Serve the page up to the middle of its second chunk of pictures, and the rest when that is set."""
    page = Path(dataset_uri.removeprefix("file://"), "report.html").read_bytes()
    half = page.index(b'id="chunk-1">') + 1000
    go_on = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page[:half])
            go_on.wait()
            self.wfile.write(page[half:])

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the server's own signature
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/report.html", go_on
    go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_that_is_still_coming_is_used(browser: Gallery, slow: tuple[str, Event]) -> None:
    """Filters work and pictures that have come are seen; the others follow."""
    url, go_on = slow
    browser.appear(size=WIDE, scheme="light")
    browser.leave()
    browser.go(url)
    browser.wait_for_pictures()
    browser.choose("subject", "rocket")
    assert browser.counts == f"6 of {ROWS} rows of 1 source"
    browser.choose("subject", "rocket")
    browser.scroll_to_the_end()
    assert browser.run("return [...document.querySelectorAll('#wall img')].some((image) => !image.naturalWidth)")
    go_on.set()
    browser.wait_for_pictures()
    assert browser.run("return document.readyState") != "loading"


async def test_a_presigned_link_opens_it_from_s3(browser: Gallery, s3_dataset: Storage) -> None:
    """Nothing but the page is asked for, for nothing else could be had: the large view shows the thumbnail."""
    await furnish(s3_dataset)
    written = await write_report(s3_dataset, local_sources=True)
    assert written.uri.startswith("s3://")
    browser.open(await s3_dataset.presigned_url(written.key, expires_seconds=600))
    assert browser.counts == f"{ROWS} rows of 13 sources"
    browser.click("#wall .tile:not(.source)")
    browser.wait_for_pictures()
    assert "a presigned link opens this page alone" in browser.find("#large figure:not(.source)").text
    assert len(browser.requests()) == 1
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_was_dropped_says_so_readably_on_a_phone(browser: Gallery, dataset: Storage, scheme: str) -> None:
    """The verdict covers no text, where there is no picture; and that all are in one split is told by its filter."""
    await furnish_flagged(dataset)
    written = await write_report(dataset)
    browser.open(written.uri, size=PHONE, scheme=scheme)
    browser.picture(f"flagged-phone-{scheme}")
    dropped, lost = browser.all("#wall .tile:not(.source) .picture.none")
    assert dropped.text.split("\n")[0] == "rejected: blank"
    assert lost.text.split("\n")[:2] == ["copy", "no picture"]
    for picture in (dropped, lost):
        boxes = [part.rect for part in picture.find_elements(By.CSS_SELECTOR, ":scope > *")]
        for above, below in pairwise(boxes):
            assert above["y"] + above["height"] <= below["y"] + 1
        assert boxes[0]["y"] >= picture.rect["y"]
        assert boxes[-1]["y"] + boxes[-1]["height"] <= picture.rect["y"] + picture.rect["height"]
    (flag,) = browser.all("#wall .picture:not(.none) .flag")
    assert flag.text == "copy"
    browser.click("#filters-button")
    assert browser.choices("split") == {"train": 3}
