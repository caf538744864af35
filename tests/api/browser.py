"""A real browser for the tests of pages: Chromium, watched for errors and for what it asks."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, expect

# Drawn by the processor, since machines that run tests seldom have a graphics card; and nothing
# that Chromium would ask for of its own accord.
_ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FAILED = re.compile(r"Failed to load resource: (?:net::|.*status of (\d{3}))")

PHONE = (360, 740)
DESKTOP = (1360, 860)


def launch(playwright: Playwright) -> Browser:
    """Chromium of this machine, or a skip where there is none that can draw a map."""
    path = next((found for found in map(shutil.which, _NAMES) if found), None)
    if path is None:
        pytest.skip(f"a browser: none of {', '.join(_NAMES)} is installed")
    # The drawing takes its time where others work on the same machine.
    expect.set_options(timeout=20_000)
    browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
    page = browser.new_page()
    draws = page.evaluate("document.createElement('canvas').getContext('webgl2') !== null")
    page.close()
    if not draws:
        browser.close()
        pytest.skip(f"a browser with WebGL: {path} has none")
    return browser


@dataclass
class Watch:
    """What a page asked for and what went wrong in it."""

    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Statuses that the browser itself reports as errors; 0 where there was no answer."""

    def on(self, page: Page) -> None:
        """Begin."""
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type not in {"error", "warning"}:
            return
        failed = _FAILED.match(message.text)
        if failed:
            self.refused.append(int(failed[1] or 0))
        else:
            self.errors.append(message.text)

    def elsewhere(self, *addresses: str) -> list[str]:
        """What was asked of any server but these."""
        known = {urlsplit(address).netloc for address in addresses}
        return [
            url
            for url in self.asked
            if urlsplit(url).scheme not in {"blob", "data"} and urlsplit(url).netloc not in known
        ]


@contextmanager
def opened(
    browser: Browser,
    address: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
    refused: Sequence[int] = (),
    others: Sequence[str] = (),
    prepare: Callable[[Page], None] | None = None,
) -> Iterator[Page]:
    """A page at an address, which in the end has asked nobody else and reported no error.

    Args:
        browser: From ``launch``.
        address: With or without a fragment.
        size: Width and height of the window in CSS pixels.
        scheme: Which of the two the user prefers.
        refused: Statuses that the test means to provoke.
        others: Addresses of servers that may be asked as well.
        prepare: Done to the page before it is opened.
    """
    watch = Watch()
    width, height = size
    surroundings = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        has_touch=size == PHONE,
        device_scale_factor=2 if size == PHONE else 1,
    )
    page = surroundings.new_page()
    watch.on(page)
    if prepare is not None:
        prepare(page)
    try:
        page.goto(address)
        yield page
    finally:
        surroundings.close()
    # Spelled out, since pytest explains assertions of test modules only.
    assert not watch.errors, watch.errors
    assert set(watch.refused) == set(refused), watch.refused
    assert not watch.elsewhere(address, *others), watch.elsewhere(address, *others)


def pictures_folder(fallback: Path) -> Path:
    """Where screenshots are kept: ``PARCELLE_TEST_OUTPUT``, or a temporary folder."""
    folder = Path(os.environ.get("PARCELLE_TEST_OUTPUT") or fallback)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
