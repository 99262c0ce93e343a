"""A headless Chromium for tests of the page, driven with Selenium.

Run as a program it makes sure that there is one: `make test` does so before its first test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DRIVERS = ("chromedriver", "/usr/lib/chromium-browser/chromedriver")
DEBIAN = ("chromium", "chromium-driver")
QUIET = (  # nothing of its own goes out, and no window but the page's comes up
    "--headless=new",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
WAIT_S = 15  # for what should take a fraction of a second on an idle machine


@contextlib.contextmanager
def open_browser() -> Iterator[Chrome]:
    """A browser that ends with the block. Its console and network logs are kept; it reaches nothing but this machine.

    Takes the Chromium or Chrome that is installed; without one, or without its driver, Selenium downloads them.

    Raises: WebDriverException when there is none to be had.
    """
    options = ChromeOptions()
    for argument in QUIET:
        options.add_argument(argument)
    if os.geteuid() == 0:  # Chromium's sandbox refuses to work for root; what is opened here is our own page
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    os.environ.setdefault("SE_AVOID_STATS", "true")  # Selenium would report its use
    browser, driver = _first(BROWSERS), _first(DRIVERS)
    if browser and driver:
        options.binary_location = browser
        service = Service(driver)
    else:
        service = Service()
    chrome = Chrome(options, service)
    try:
        chrome.set_script_timeout(WAIT_S)
        yield chrome
    finally:
        chrome.quit()


def wait_for(chrome: Chrome, script: str, *arguments: object, timeout_s: float = WAIT_S) -> Any:
    """The first truthy value of the JavaScript expression; `arguments[0]`, … are its arguments."""
    done = WebDriverWait(chrome, timeout_s, poll_frequency=0.03)
    return done.until(lambda _: chrome.execute_script(f"return {script}", *arguments), f"never true: {script}")


def devtools(chrome: Chrome, command: str, **parameters: object) -> dict[str, Any]:
    """Runs a command of the Chrome DevTools protocol."""
    answer: dict[str, Any] = chrome.execute_cdp_cmd(command, parameters)
    return answer


def _first(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


def _problem() -> str | None:
    """Why no browser starts here, in a line."""
    try:
        with open_browser() as chrome:
            chrome.get("data:text/html,<p>ready")
    except (WebDriverException, OSError) as error:
        return str(error).removeprefix("Message: ").partition("\n")[0].partition(";")[0]
    return None


def _install() -> None:
    """Installs Debian's or Ubuntu's packages where that needs no password."""
    apt = shutil.which("apt-get")
    sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if apt is None or (sudo and shutil.which("sudo") is None):
        return
    print(f"Installing {' and '.join(DEBIAN)} for the tests of the page.", flush=True)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    for arguments in (["update", "-qq"], ["install", "-qq", "--yes", "--no-install-recommends", *DEBIAN]):
        done = subprocess.run([*sudo, *environment, apt, *arguments], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)


def main() -> int:
    problem = _problem()
    if problem is not None:
        _install()
        problem = _problem()
    if problem is not None:
        print(
            f"error: The tests of the page need a browser, and none starts here ({problem}). "
            "Install Chromium or Chrome with its chromedriver, on Debian: apt-get install chromium chromium-driver",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
