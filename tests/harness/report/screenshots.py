"""Pictures of a page for docs/screenshots: python -m tests.harness.report.screenshots report.html docs/screenshots"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness.report.browser import Browser

SHOTS = (
    ("wide-light", 1280, 1000, False, "matrix-head"),
    ("wide-dark", 1280, 1000, True, ""),
    ("phone-light", 390, 844, False, "findings"),
    ("phone-dark", 390, 844, True, "matrix-head"),
)
# The field a reader would open first: one that holds a livelock, else any finding.
OPEN = """(() => {
  const all = [...document.querySelectorAll('#matrix button')];
  const has = (sign) => all.filter((b) => b.textContent.includes(sign));
  (has('▲').find((b) => b.textContent.includes('L')) || has('▲')[0] || all[0]).click();
  document.activeElement.blur();
})()"""


def take(page: Path, folder: Path) -> list[str]:
    """The four pictures; what the browser complained of."""
    folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for name, width, height, dark, part in SHOTS:
            browser.open(page, width, height, dark)
            if part == "matrix-head":
                browser.js(OPEN)
            if part:
                browser.js(f"document.getElementById('{part}').scrollIntoView()")
            browser.save_screenshot(folder / f"report-{name}.png")
        return browser.problems()


if __name__ == "__main__":
    if problems := take(Path(sys.argv[1]), Path(sys.argv[2])):
        sys.exit("\n".join(problems))
