"""Debian's chromium, driven by selenium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import REQUIRED


@contextmanager
def chromium(folder: Path) -> Iterator[object]:
    """A browser without a window, with a profile in a folder; skips the test without a browser."""
    browser, driver = os.environ.get("CHROMIUM") or shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        if REQUIRED:
            pytest.fail("no chromium or chromedriver: apt-get install chromium chromium-driver")
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # a container's root has none
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-proxy-server",
        "--disable-background-networking",
        "--force-color-profile=srgb",
        "--lang=en-GB",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        started.set_window_size(1280, 900)
        yield started
    finally:
        started.quit()
