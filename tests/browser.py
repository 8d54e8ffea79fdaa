"""A real browser without a network, for tests that open pages: Chromium, driven by Selenium."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver


def require_chromium() -> None:
    """Skip the test where Chromium is not installed."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no Chromium: install the Debian packages chromium and chromium-driver")


@contextmanager
def chromium(width: int = 1600, height: int = 1000, javascript: bool = True) -> Iterator[webdriver.Chrome]:
    """Chromium with a window of this size, which reaches no host."""
    require_chromium()
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--window-size={width},{height}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        yield browser


def problems(browser: webdriver.Chrome) -> list[str]:
    """The errors that the console shows."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def asked_for(browser: webdriver.Chrome) -> list[str]:
    """The addresses that pages have asked for."""
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"]
