"""A gallery in a browser without a window, as a person sees it and drives it."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

from tests.e2e.browser import programs
from tests.e2e.processes import until

__all__ = ["NARROW", "PHONE", "WIDE", "Gallery", "programs", "running_browser"]

SECONDS: Final = 30.0
WIDE: Final = (1440, 900)
NARROW: Final = (400, 860)
PHONE: Final = (375, 760)
# All pictures that are in the page are decoded.
ALL_SEEN: Final = """
const images = [...document.querySelectorAll("#wall img, #large[open] img")];
return images.length > 0 && images.every((image) => image.complete && image.naturalWidth > 0);
"""

IMAGE_SEEN: Final = """
const image = document.querySelector("#large[open] figure:not(.source) img");
return image && !image.src.startsWith("data:") && image.complete && image.naturalWidth > 0;
"""


class Gallery:
    """A gallery in a window of a browser.

    Args:
        driver: drives it.
        pictures: the folder for pictures of what it shows, if they are wanted.
    """

    def __init__(self, driver: WebDriver, pictures: Path | None) -> None:
        self._driver = driver
        self._pictures = pictures

    def open(self, url: str, *, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        """Open one, and wait until its pictures are seen."""
        self.appear(size=size, scheme=scheme)
        self.leave()
        self.go(url)
        self._wait("the whole page", "return document.readyState === 'complete'")
        self.wait_for_pictures()

    def leave(self) -> None:
        """Show nothing, and forget what was asked for."""
        self.go("about:blank")
        self._logs("browser")
        self._logs("performance")

    def go(self, url: str) -> None:
        """Go somewhere, and do not wait until all of it has come."""
        self._driver.get(url)
        # The page writes what it shows behind the #.
        self._wait(url, "return location.href.split('#')[0] === arguments[0]", url.partition("#")[0])

    def appear(self, *, size: tuple[int, int], scheme: str) -> None:
        """Make the window so large in pixels, and `light` or `dark`."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._command("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._command("Emulation.setEmulatedMedia", {"features": features})

    def wait_for_pictures(self) -> None:
        """Wait until all pictures that are in view are seen."""
        self._wait("pictures", ALL_SEEN)

    def wait_for_the_image(self) -> None:
        """Wait until the large view shows the image itself, no longer its thumbnail."""
        self._wait("the image", IMAGE_SEEN)

    def scroll_to_the_end(self) -> None:
        """Scroll, and wait until the wall has followed."""
        self.run("scrollTo(0, document.body.scrollHeight)")
        self.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, name: str) -> None:
        """Keep what it shows, if pictures are wanted."""
        if self._pictures is not None:
            self._pictures.mkdir(parents=True, exist_ok=True)
            self._driver.save_screenshot(str(self._pictures / f"gallery-{name}.png"))

    def seen(self, selector: str) -> Image.Image:
        """Return what is to be seen of an element at this moment."""
        box = self.find(selector).rect
        shown = Image.open(io.BytesIO(self._driver.get_screenshot_as_png()))
        return shown.crop((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]))

    def run(self, program: str, *arguments: Any) -> Any:
        """Run a program in the page, and return what it returns."""
        return self._driver.execute_script(program, *arguments)

    def find(self, selector: str) -> WebElement:
        """Return the first element that fits a CSS selector."""
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all of them."""
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Click the first of them."""
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            self._driver.switch_to.active_element.send_keys(key)

    def choose(self, column: str, choice: str) -> None:
        """Set, or unset, one choice of a filter."""
        fieldset = f"//fieldset[legend[normalize-space()='{column}']]"
        self._driver.find_element(By.XPATH, f"{fieldset}//label[span[normalize-space()='{choice}']]").click()

    def choices(self, column: str) -> dict[str, int]:
        """Return the choices of a filter, each with its number."""
        labels = self._driver.find_elements(By.XPATH, f"//fieldset[legend[normalize-space()='{column}']]//label")
        texts = [label.text.split("\n") for label in labels]
        return {name: int(number.replace(",", "")) for name, number in texts}

    @property
    def counts(self) -> str:
        """What it says of how much it shows."""
        return self.find("#counts").text

    @property
    def fragment(self) -> str:
        """What stands in the address behind the `#`."""
        # By the page's own word: the driver hears of a replaced address only some time later.
        return str(self.run("return location.hash.slice(1)"))

    @property
    def is_large(self) -> bool:
        """Whether the large view is open."""
        return bool(self.run("return document.getElementById('large').open"))

    def fact(self, name: str) -> str:
        """Return what the large view says of a column."""
        path = f"//*[@id='large-facts']//dt[normalize-space()='{name}']/following-sibling::dd[1]"
        return str(self._driver.find_element(By.XPATH, path).get_property("textContent"))

    @property
    def focused(self) -> str:
        """What a screen reader says of the element that has the focus."""
        return self._driver.switch_to.active_element.get_attribute("aria-label") or ""

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since it was opened, those of inline data aside."""
        urls = []
        for entry in self._logs("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        return [url for url in urls if not url.startswith(("data:", "about:"))]

    def complaints(self) -> list[str]:
        """Return what stands in the console: errors, and what the policy has refused."""
        return [entry["message"] for entry in self._logs("browser")]

    def _wait(self, what: str, program: str, *arguments: str) -> None:
        def look() -> bool:
            try:
                return bool(self.run(program, *arguments))
            except JavascriptException:
                # One page goes, another comes.
                return False

        until(what, look, seconds=SECONDS)

    def _command(self, name: str, parameters: dict[str, Any]) -> None:
        self._driver.execute_cdp_cmd(name, parameters)  # type: ignore[attr-defined]

    def _logs(self, kind: str) -> list[dict[str, Any]]:
        return self._driver.get_log(kind)  # type: ignore[attr-defined, no-any-return]


@contextmanager
def running_browser(paths: tuple[str, str], folder: Path, pictures: Path | None) -> Iterator[Gallery]:
    """Run a browser that reaches this machine and nothing else, and keeps a log of what it asks for.

    Args:
        paths: of browser and driver.
        folder: for its profile.
        pictures: for pictures.
    """
    options = webdriver.ChromeOptions()
    options.binary_location, driver = paths
    for argument in (
        *("--headless=new", "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"),
        # Chromium refuses to run as root with its sandbox.
        *("--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder / 'chromium'}"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    # A page is used while it is still coming.
    options.page_load_strategy = "none"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options, Service(driver))
    try:
        yield Gallery(window, pictures)
    finally:
        window.quit()
