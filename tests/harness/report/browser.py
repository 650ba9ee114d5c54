"""Debian's chromium, driven by selenium through Debian's chromium-driver."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.programs import program

# Root has no sandbox in chromium, a container little shared memory; and it asks the network for nothing of its own.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",  # the browser ends with its driver
)
PATIENCE = 120.0  # seconds for what a page does by itself, on a busy machine
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LOCAL = ("file:", "about:", "data:")


def _end_with_us() -> None:
    """Have the driver killed when we are: a killed test run leaves no browser. Ctrl-C is ours, not the driver's."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Browser(webdriver.Chrome):
    """One headless chromium with one window and a profile of its own; leaving the ``with`` ends it."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._folder = tempfile.TemporaryDirectory(prefix="kvmirror-chromium-", ignore_cleanup_errors=True)
        service = webdriver.ChromeService(
            program("chromedriver"),
            env=os.environ | {"TMPDIR": self._folder.name},
            popen_kw={"start_new_session": True, "preexec_fn": _end_with_us},
        )
        super().__init__(options, service)

    def quit(self) -> None:
        """End the browser; its profile goes with it, and what chromium leaves among the temporary files."""
        super().quit()
        self._folder.cleanup()

    def open(self, page: Path, width: int, height: int, dark: bool = False) -> None:
        """Load a page at a width and height in CSS pixels, and wait until its script has filled it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.get(page.resolve().as_uri())
        self.until("document.documentElement.dataset.ready === '1'")

    def js(self, expression: str) -> Any:
        """An expression's value."""
        return self.execute_script(f"return {expression}")

    def until(self, expression: str) -> None:
        """Wait until an expression is true; TimeoutException, with the expression, when it does not become so."""
        WebDriverWait(self, PATIENCE, poll_frequency=0.05).until(lambda _: self.js(expression), expression)

    def id(self, name: str) -> WebElement:
        """The element of an id."""
        return self.find_element(By.ID, name)

    def css(self, selector: str) -> WebElement:
        """The first element of a selector."""
        return self.find_element(By.CSS_SELECTOR, selector)

    def choose(self, name: str, value: str) -> None:
        """Choose a value of a list as a person does."""
        Select(self.id(name)).select_by_value(value)

    def press(self, *keys: str) -> None:
        """Keys for what has the focus: letters, and those of selenium's Keys."""
        ActionChains(self).send_keys(*keys).perform()

    def problems(self) -> list[str]:
        """What came since the last call: lines on the console, the script's errors, requests for what is not local."""
        found = [entry["message"] for entry in self.get_log("browser")]
        for entry in self.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith(LOCAL):
                    found.append(f"asked for {url}")
        return found
