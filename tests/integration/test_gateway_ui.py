"""The page in a real browser: Debian's chromium, light and dark, wide and narrow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium (the dev extra)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip(
        "needs chromium and chromedriver (apt-get install chromium chromium-driver)",
        allow_module_level=True,
    )

HERE = Path(__file__).parent
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip

Server = tuple[str, str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """(address, an admin's key, another key)."""
    folder = tmp_path_factory.mktemp("ui") / "store"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ui_server.py"), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        port, admin, other = process.stdout.readline().split()
        yield f"http://127.0.0.1:{port}/ui", admin, other
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser: Any, server: Server) -> Callable[..., Any]:
    """Opens the page, logged in as asked, in a window as asked."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def visit(*, dark: bool = False, width: int = 1280, admin: bool = True) -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
        browser.get(server[0])
        browser.find_element(By.ID, "key").send_keys(server[1] if admin else server[2])
        browser.find_element(By.CSS_SELECTOR, "button").click()
        WebDriverWait(browser, 20).until(
            lambda b: b.find_elements(By.CSS_SELECTOR, "#recent table")
        )
        return browser

    return visit


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script(f"return document.querySelector({selector!r}).textContent"))


def test_the_page_draws_everything(visit: Callable[..., Any]) -> None:
    page = visit()
    tiles = text(page, "#tiles")
    for words in ("Spent$", "Requests240", "Calls saved", "Private values", "Latency"):
        assert words in tiles
    assert "email address" in text(page, "#kinds")
    assert "closed: answering" in text(page, "#upstreams")
    assert "cascade" in text(page, "#points")
    assert "gpt-large → spare → small" in text(page, "#points")
    rows = page.execute_script(
        "return [...document.querySelectorAll('#points tbody tr')].map((row) => row.innerText)"
    )
    (small,) = (row for row in rows if row.startswith("small"))
    assert "gpt-large" not in small  # its plan has one, and it asks nobody
    assert "not looked for" not in small
    # These points have no defence: that nothing was found says nothing of what left.
    assert "not looked for" in text(page, "#points")
    count = page.execute_script("return document.querySelectorAll('#recent tbody tr').length")
    assert count == 50
    drawn = "return document.querySelectorAll('#hours rect').length"
    assert page.execute_script(drawn) > 25


def test_the_served_points_are_marked_on_the_front(visit: Callable[..., Any]) -> None:
    page = visit()
    chosen = page.execute_script(
        "return [...document.querySelectorAll('#front .dot.chosen')]"
        ".map((dot) => dot.parentNode.querySelector('title').textContent.split(':')[0]).sort()"
    )
    assert chosen == ["private", "small"]
    assert page.execute_script("return document.querySelectorAll('#front .dot').length") == 8


def test_a_name_is_text_and_never_markup(visit: Callable[..., Any]) -> None:
    page = visit()
    assert "<img src=x onerror=alert(1)> & ward" in text(page, "#keys")
    assert page.execute_script("return document.querySelectorAll('img').length") == 0


def test_others_see_only_their_own(visit: Callable[..., Any]) -> None:
    page = visit(admin=False)
    assert "operations" not in text(page, "body")
    assert page.execute_script("return document.querySelectorAll('#keys tbody tr').length") == 1
    assert page.execute_script("return document.getElementById('front-card').hidden")


def complaints(page: Any) -> list[str]:
    """What the browser complains of. Where the focus was taken before the page came, it says that it
    did not move it to the field that asks for it, which depends on the machine's pace and is no fault.
    """
    said = [line["message"] for line in page.get_log("browser")]
    return [text for text in said if "Autofocus processing was blocked" not in text]


def test_the_policy_stops_what_is_not_the_pages_own(visit: Callable[..., Any]) -> None:
    page = visit()
    assert complaints(page) == []  # nothing of ours is stopped
    page.execute_script(
        "window.stopped = [];"
        "document.addEventListener('securitypolicyviolation',"
        "  (event) => window.stopped.push(event.effectiveDirective));"
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = true'; document.body.append(script);"
        "const style = document.createElement('style');"
        "style.textContent = 'body { opacity: .5 }'; document.body.append(style);"
        "fetch('http://127.0.0.1:1/').catch(() => {});"
        "const image = document.createElement('img');"
        "image.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw='; document.body.append(image);"
    )
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 20).until(lambda b: len(b.execute_script("return window.stopped")) >= 4)
    assert set(page.execute_script("return window.stopped")) == {
        "script-src-elem", "style-src-elem", "connect-src", "img-src",
    }  # fmt: skip
    assert page.execute_script("return window.ran") is None
    assert page.execute_script("return document.cookie") == ""  # HttpOnly
    page.get_log("browser")


def test_it_asks_nobody_but_its_own_server(visit: Callable[..., Any], server: Server) -> None:
    import json

    page = visit()
    page.get_log("performance")
    page.refresh()
    asked = set()
    for line in page.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert asked
    assert all(url.startswith(server[0]) for url in asked)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_it_fits_and_can_be_read(
    visit: Callable[..., Any], tmp_path: Path, width: int, dark: bool
) -> None:
    page = visit(dark=dark, width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    outside = page.execute_script(
        "return [...document.querySelectorAll('svg text')].filter((t) => {"
        "  const box = t.closest('svg').getBoundingClientRect(), r = t.getBoundingClientRect();"
        "  return r.left < box.left - 2 || r.right > box.right + 2"
        "    || r.top < box.top - 2 || r.bottom > box.bottom + 2;"
        "}).map((t) => t.textContent)"
    )
    assert outside == []
    assert _contrast(page) == []
    if folder := os.environ.get("COSILO_SCREENSHOTS"):
        page.save_screenshot(f"{folder}/ui-{width}-{'dark' if dark else 'light'}.png")


def _contrast(page: Any) -> list[str]:
    """Texts below WCAG's contrast of 4.5 against the nearest background behind them."""
    found: list[str] = page.execute_script("""
        const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = (rgb) => 0.2126 * part(rgb[0]) + 0.7152 * part(rgb[1]) + 0.0722 * part(rgb[2]);
        const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
        const behind = (node) => {
          for (; node; node = node.parentElement) {
            const rgb = numbers(getComputedStyle(node).backgroundColor);
            if (rgb.length < 4 || rgb[3] > 0) return rgb;
          }
          return [255, 255, 255];
        };
        const bad = [];
        for (const node of document.querySelectorAll("body *")) {
          const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
          if (!own || !node.getClientRects().length || node.tagName === "TITLE") continue;
          const style = getComputedStyle(node);
          const ink = numbers(node.closest("svg") ? style.fill : style.color);
          const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
          if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${node.className}: ${node.textContent}`);
        }
        return bad;
    """)
    return found


def test_another_span_is_fetched_and_marked(visit: Callable[..., Any]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    page = visit()
    page.find_element(By.CSS_SELECTOR, "[data-span='30d']").click()
    pressed = "return document.querySelector('[aria-pressed=true]').dataset.span"
    WebDriverWait(page, 20).until(lambda b: b.execute_script(pressed) == "30d")
    assert text(page, "#hours").count("request") >= 30
    assert "Requests by day" in text(page, "main")


def test_logging_out_shows_the_form_again(visit: Callable[..., Any], server: Server) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    page = visit()
    page.find_element(By.CSS_SELECTOR, "form button").click()
    # A click may return before the page that answers the form is there.
    WebDriverWait(page, 20).until(lambda b: b.find_elements(By.ID, "key"))
    page.get(server[0])
    assert page.find_elements(By.ID, "key")
