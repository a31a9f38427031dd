"""A browser without a window, driven as a person does it: Debian's Chromium, by the driver that comes with it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

from .processes import until

# A page that is drawn by a program, on a busy machine.
PAGE_SECONDS: Final = 60.0
WIDTH: Final = 1300
HEIGHT: Final = 1000
# The whole form: a picture shows what is in the window.
FORM_HEIGHT: Final = 3400
OPTIONAL: Final = " (Optional)"
CHOICES: Final = "//*[@role='option']"


def programs() -> tuple[str, str] | None:
    """Return the paths of browser and driver; None if they are not installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form.

    Attributes:
        name: what stands above it.
        is_optional: whether that says that it may be left out.
        description: what stands below the name.
        control: what is filled in, chosen or switched.
    """

    name: str
    is_optional: bool
    description: str
    control: WebElement

    @property
    def value(self) -> str:
        """Return what it holds."""
        if self.control.tag_name != "button":
            return str(self.control.get_property("value"))
        return self.control.get_attribute("aria-checked") or self.control.text

    def fill(self, text: str) -> None:
        """Replace what it holds."""
        self.control.clear()
        self.control.send_keys(text)


class Browser:
    """A window of a browser.

    Args:
        driver: drives it.
        pictures: the folder for pictures of what it shows.
    """

    def __init__(self, driver: WebDriver, pictures: Path) -> None:
        self._driver = driver
        self._pictures = pictures

    @property
    def url(self) -> str:
        """Return where it is."""
        return self._driver.current_url

    def open(self, url: str, *, height: int = HEIGHT) -> None:
        """Go somewhere, in a window so many pixels high."""
        self._driver.set_window_size(WIDTH, height)
        self._driver.get(url)

    def picture(self, name: str) -> None:
        """Keep what it shows."""
        self._driver.save_screenshot(str(self._pictures / f"{name}.png"))

    def find(self, what: str, xpath: str) -> WebElement:
        """Wait until something is to be seen, and return it."""
        return self.all(what, xpath)[0]

    def all(self, what: str, xpath: str) -> list[WebElement]:
        """Wait until there is at least one of something to be seen, and return all."""

        def look() -> list[WebElement]:
            try:
                return [one for one in self._driver.find_elements(By.XPATH, xpath) if one.is_displayed()]
            except StaleElementReferenceException:
                return []

        return until(f"{what} at {self.url}", look, seconds=PAGE_SECONDS, every=0.2)

    def choices(self, field: Field) -> list[str]:
        """Open the list of a field, and return what there is to choose from."""
        field.control.click()
        self.all("a list", CHOICES)
        # It unfolds: not all of it is to be seen from the first.
        return [str(option.get_property("textContent")) for option in self._driver.find_elements(By.XPATH, CHOICES)]

    def choose(self, text: str) -> None:
        """Choose from the list that is open, and wait until it has closed."""
        self.button(text).click()
        until("the list to close", lambda: not self._driver.find_elements(By.XPATH, CHOICES), seconds=PAGE_SECONDS)

    def button(self, text: str) -> WebElement:
        """Return a button, a tab or an entry of a menu by what stands on it."""
        roles = "self::button or @role='menuitem' or @role='option' or @role='tab'"
        return self.find(repr(text), f"//*[{roles}][normalize-space()='{text}']")

    def reads(self, text: str) -> WebElement:
        """Wait until a text is to be read, and return what holds it."""
        return self.find(repr(text), f'//body//*[contains(., "{text}")][not(*[contains(., "{text}")])]')

    def fields(self) -> dict[str, Field]:
        """Return the fields of the form that it shows, in their order."""
        found = {}
        for label in self.all("a form", "//label[@for][following-sibling::p]"):
            name = label.text.removesuffix(OPTIONAL)
            description = label.find_element(By.XPATH, "following-sibling::p").text
            control = self._driver.find_element(By.ID, str(label.get_attribute("for")))
            found[name] = Field(name, label.text.endswith(OPTIONAL), description, control)
        return found

    def complaint(self, field: Field) -> str:
        """Return what the browser has against the value of a field; nothing if it is valid."""
        return str(field.control.get_property("validationMessage"))


@contextmanager
def running_browser(paths: tuple[str, str], *, folder: Path, pictures: Path, env: dict[str, str]) -> Iterator[Browser]:
    """Run a browser that reaches this machine and nothing else.

    Args:
        paths: of browser and driver.
        folder: for its profile and its log.
        pictures: for pictures.
        env: all of its environment.
    """
    options = webdriver.ChromeOptions()
    options.binary_location, driver = paths
    arguments: list[Any] = [
        *("--headless=new", "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"),
        # Chromium refuses to run as root with its sandbox.
        "--no-sandbox",
        f"--user-data-dir={folder / 'chromium'}",
        # The UI counts its visitors elsewhere.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    for argument in arguments:
        options.add_argument(argument)
    service = Service(driver, log_output=str(folder / "browser.log"), env=env)
    window = webdriver.Chrome(options, service)
    try:
        yield Browser(window, pictures)
    finally:
        # It ends the browser, and the driver with it.
        window.quit()
