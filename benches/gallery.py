"""How long the gallery of 10,000 images takes to be made, and to open from disk in a browser.

Its images are cut out of the sample photographs, so that its small pictures are of the usual size. Counted from when
the page is asked for: until all pictures in view are to be seen, and until the whole page is read. A filter is counted
from the click until the pictures that it leaves are drawn.
"""

import asyncio
import hashlib
import io
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

from benches.options import Options, say
from benches.report import Aim, Report
from variations.dataset import METADATA_KEY, outcomes_table, parquet_bytes
from variations.models import Metrics, Outcome, Source, StoredImage
from variations.planning.expansion import expand
from variations.planning.recipe import Recipe
from variations.report import WrittenReport, write_report
from variations.sandbox import sample_photos
from variations.storage import Storage, open_storage

IMAGES: Final = 10_000
VARIATIONS: Final = 4
SIDE_PIXELS: Final = 256
OPENED: Final = 5
AIM_SECONDS: Final = 2.0
BEGAN: Final = datetime(2026, 11, 23, tzinfo=UTC)

# Notes when all pictures in view are there; looks at each frame, as an eye would.
WATCH: Final = """
addEventListener("DOMContentLoaded", () => { window.read = performance.now(); });
requestAnimationFrame(function look() {
  const inView = [...document.querySelectorAll("#wall img")].filter((image) => {
    const { top, bottom } = image.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  });
  const isThere = (image) => image.complete && image.naturalWidth;
  if (inView.length > 10 && inView.every(isThere)) window.seen = performance.now();
  else requestAnimationFrame(look);
});
"""
CLICK: Final = """
const [done] = arguments;
const began = performance.now();
document.querySelector("#filters input[type=checkbox]").click();
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
"""


def bench(options: Options) -> Report:
    """Make it, and open it a few times."""
    with tempfile.TemporaryDirectory(prefix="variations-bench-") as place:
        folder = Path(place)
        say(f"cutting {IMAGES:,} images out of photographs")
        written, made_seconds, again_seconds = asyncio.run(_make(folder, options.seed))
        say("opening the gallery")
        with _browser(folder) as driver:
            opened = [_open(driver, written.uri) for _ in range(OPENED)]
    seen, read, click = (statistics.median(one[name] for one in opened) for name in ("seen", "read", "click"))
    return Report(
        name="gallery",
        title=f"The gallery of {IMAGES:,} images and {IMAGES // VARIATIONS:,} sources, {written.bytes / 1e6:.0f} MB",
        columns=["", "seconds"],
        rows=[
            ["made, from files on disk", made_seconds],
            ["made again, of what is known", again_seconds],
            ["opened: the pictures in view are seen", seen],
            ["opened: all of it is read", read],
            ["a filter is set", click],
        ],
        aims=[Aim(f"usable under {AIM_SECONDS:g} s", f"{seen:.2f} s", seen < AIM_SECONDS)],
        facts={"seed": options.seed, "written": written.as_dict(), "opened": opened},
    )


async def _make(folder: Path, seed: int) -> tuple[WrittenReport, float, float]:
    storage = open_storage((folder / "dataset").as_uri(), missing_ok=True)
    outcomes = await asyncio.to_thread(_outcomes, folder, seed)
    table = outcomes_table(outcomes, labels=pa.schema([("subject", pa.string())]), run_id="bench", model="none")
    await storage.put(METADATA_KEY, parquet_bytes(table))
    written, seconds = await _timed(storage)
    _, again = await _timed(storage)
    return written, seconds, again


async def _timed(storage: Storage) -> tuple[WrittenReport, float]:
    began = time.monotonic()
    written = await write_report(storage)
    return written, time.monotonic() - began


def _outcomes(folder: Path, seed: int) -> list[Outcome]:
    """Write images, and sources, and return what the metadata says of them."""
    chances = random.Random(seed)  # noqa: S311 - they are pictures
    photos = [(photo, Image.open(photo).convert("RGB")) for photo in sample_photos()]
    outcomes: list[Outcome] = []
    for number in range(IMAGES // VARIATIONS):
        photo, image = photos[number % len(photos)]
        path = folder / "sources" / f"{number}.jpg"
        _cut(image, path, chances)
        subject = photo.stem.partition("-")[0]
        uri = path.as_uri()
        source = Source(number + 1, f"{subject}-{number}", uri, uri, has_id=True, labels={"subject": subject})
        for variation in expand(source, Recipe(variations_per_source=VARIATIONS)):
            name = f"images/{variation.variation_id[:2]}/{variation.variation_id}.jpg"
            content = _cut(image, folder / "dataset" / name, chances)
            seconds = chances.gauss(15.8, 1.2)
            end = BEGAN + timedelta(seconds=len(outcomes) * 0.4)
            digest = hashlib.sha256(content).hexdigest()
            outcomes.append(
                Outcome(
                    variation=variation,
                    output_index=0,
                    status="kept",
                    image=StoredImage(name, SIDE_PIXELS, SIDE_PIXELS, len(content), "jpg", digest),
                    request_id=f"{number:032x}",
                    submitted_at=end - timedelta(seconds=seconds),
                    completed_at=end,
                    metrics=Metrics(total_seconds=seconds, inference_seconds=seconds - 1, queue_seconds=1.0),
                    polls=chances.choice((2, 2, 2, 3, 3, 4)),
                    cost_usd=0.031,
                )
            )
    return outcomes


def _cut(image: Image.Image, path: Path, chances: random.Random) -> bytes:
    """Write a piece of an image, and return the file."""
    left, top = (chances.randrange(max(1, length - SIDE_PIXELS)) for length in image.size)
    file = io.BytesIO()
    image.crop((left, top, left + SIDE_PIXELS, top + SIDE_PIXELS)).save(file, "JPEG", quality=85)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
    return file.getvalue()


@contextmanager
def _browser(folder: Path) -> Iterator[WebDriver]:
    """Run Chromium without a window, where it and its driver are installed, as Debian does it."""
    paths = shutil.which("chromium"), shutil.which("chromedriver")
    if paths[0] is None or paths[1] is None:
        raise RuntimeError("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    # Chromium refuses to run as root with its sandbox.
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'browser'}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(paths[1]))
    try:
        driver.set_window_size(1440, 900)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        yield driver
    finally:
        driver.quit()


def _open(driver: WebDriver, uri: str) -> dict[str, Any]:
    """Open the page, and return seconds."""
    driver.get("about:blank")
    driver.get(uri)
    click = driver.execute_async_script(CLICK)
    times = driver.execute_script("return [window.seen, window.read]")
    return {name: ms / 1000 for name, ms in zip(("seen", "read", "click"), [*times, click], strict=True)}
