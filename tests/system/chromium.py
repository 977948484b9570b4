"""A real browser for tests: Debian's Chromium without a display, drawing WebGL in software."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from system_parts import do_without, find_program, install

_FLAGS = [
    "--no-sandbox",  # root has no sandbox; the page comes from this machine
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def require_chromium() -> str:
    """The path of a Chromium, installed first where root may; without one the test is skipped, and fails in CI."""
    names = "chromium", "chromium-browser", "google-chrome"
    if find_program(*names) is None:
        install("chromium")
    return find_program(*names) or do_without("no Chromium (install the package `chromium`)")


@dataclass
class Page:
    """An open page and what it asked the network for.

    Attributes:
        page: playwright's page.
        requests: Every URL that the page requested.
        errors: Exceptions of the page's scripts.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def outside_requests(self) -> list[str]:
        """Requests to anything but this machine."""
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).hostname not in _LOOPBACK
        ]

    def picture(self, file: Path) -> NDArray[np.uint8]:
        """What the window shows, `(height, width, 3)`; also kept in `file`."""
        self.page.screenshot(path=str(file))
        return np.asarray(Image.open(file).convert("RGB"))

    def picture_when(
        self, file: Path, ready: Callable[[NDArray[np.uint8]], bool], seconds: float = 60.0
    ) -> NDArray[np.uint8]:
        """The first picture for which `ready` holds; the last one when time is over."""
        end = time.monotonic() + seconds
        while True:
            picture = self.picture(file)
            if ready(picture) or time.monotonic() > end:
                return picture
            self.page.wait_for_timeout(300)


@contextlib.contextmanager
def open_page(url: str, width: int = 600, height: int = 600) -> Iterator[Page]:
    """Open a URL in a headless Chromium of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_chromium(), headless=True, args=_FLAGS)
        try:
            opened = Page(browser.new_page(viewport={"width": width, "height": height}))
            opened.page.on("request", lambda request: opened.requests.append(request.url))
            opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
            opened.page.goto(url)
            yield opened
        finally:
            browser.close()
