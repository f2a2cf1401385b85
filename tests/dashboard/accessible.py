"""What every page must be, whoever looks at it and on what: read by axe, no wider than the screen."""

import os
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WIDTHS = (1280, 390, 320)
PICTURES = os.environ.get("TACIT_LOOK", "")
"""A folder for pictures of every page that is looked at, in light, dark and on phones; empty: none are taken."""


def look_at(page: Page, name: str) -> None:
    """Fails for what axe finds, in light and dark, and for a page that is wider than a narrow screen."""
    size = page.viewport_size
    found: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            wide = page.evaluate("document.documentElement.scrollWidth")
            found += [f"{name}: {wide} pixels wide on {width}"] if wide > width else []
            if PICTURES:
                page.screenshot(path=Path(PICTURES) / f"{name}-{scheme}-{width}.png", full_page=True)
            if (scheme, width) in (("light", 1280), ("dark", 320)):
                found += _violations(page, f"{name}, {scheme}, {width}")
    page.emulate_media(color_scheme="light")
    assert size is not None
    page.set_viewport_size(size)
    assert found == []


def _violations(page: Page, where: str) -> list[str]:
    answer = Axe().run(page).response
    return [f"{where}: {rule['id']}: {node['html'][:200]}" for rule in answer["violations"] for node in rule["nodes"]]
