"""Pictures of a report for README.md: ``python docs/_ext/pictures.py runs/demo/fa/report.html`` after ``make demo``."""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parents[1] / "pictures"
COLOURS = 64  # enough for text and charts, and a third of the bytes


def main(report: Path) -> None:
    """Write the head of a report, and the section on where its error signal turns, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        picture(browser, report, "report.png", "", 612)
        picture(browser, report, "error-signal.png", "Where the error signal turns", 560)
        browser.close()


def picture(browser: Browser, report: Path, name: str, heading: str, height: int) -> None:
    """Write ``height`` pixels of a report from a heading on, without the bar at the bottom of the window."""
    page = browser.new_page(viewport={"width": 1100, "height": height}, device_scale_factor=1.5)
    page.goto(report.resolve().as_uri())
    page.add_style_tag(content=".bar { display: none !important; }")
    if heading:
        page.get_by_role("heading", name=heading).first.evaluate("each => each.scrollIntoView()")
    page.wait_for_timeout(500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS)
    image.save(FOLDER / name, optimize=True)
    page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
