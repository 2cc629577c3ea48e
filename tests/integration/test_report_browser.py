"""The report in a real browser: it loads without a complaint, and every control does what it says.

Needs Debian's chromium and chromium-driver (or any pair that Selenium can start).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import made_up
from cosilo.report.html import write_html

selenium = pytest.importorskip(
    "selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'"
)
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs a browser: apt-get install chromium chromium-driver",
    ),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    limits = ((made_up.UTILITY, 0.85, None), (made_up.PRIVACY, 0.15, None))
    write_html(made_up.report(limits=limits), folder / "report.html")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = selenium.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(
        options=options, service=selenium.ChromeService(executable_path=DRIVER)
    )
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(browser: WebDriver, folder: Path) -> Iterator[WebDriver]:
    """The report, freshly loaded at 1200 × 900; whatever the browser complains of fails the test."""
    look(browser, 1200, "light")
    browser.get((folder / "report.html").as_uri())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def look(browser: WebDriver, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # a click need not wait for a scroll
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def one(page: WebDriver, css: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, css)


def every(page: WebDriver, css: str) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, css)


def mark(page: WebDriver, at: int) -> WebElement:
    return one(page, f'.mark[data-at="{at}"]')


def place(page: WebDriver, at: int) -> tuple[float, float]:
    script = "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y]"
    x, y = page.execute_script(script, one(page, f'.mark[data-at="{at}"] .ring'))
    return x, y


def order(page: WebDriver) -> list[int]:
    rows = every(page, "#points-table tbody tr")
    return [int(row.get_attribute("data-at") or -1) for row in rows if row.is_displayed()]


def choose(page: WebDriver, id: str, value: str) -> None:
    page.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))",
        one(page, f"#{id}"),
        value,
    )


def test_it_loads_without_a_complaint_and_draws_every_point(page: WebDriver) -> None:
    assert len(every(page, ".mark")) == len(made_up.POINTS)
    assert one(page, ".verdict h2").text == "Certified"
    assert len(every(page, ".mark .chosen")) == 1


def test_nothing_but_the_file_is_fetched(page: WebDriver) -> None:
    names = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert names == []


def test_the_policy_holds_against_what_is_added_later(browser: WebDriver, folder: Path) -> None:
    browser.get((folder / "report.html").as_uri())
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.broken = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'"
    )
    assert browser.execute_script("return window.broken === undefined")
    messages = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "Content Security Policy" in messages


def test_axes_can_be_chosen_and_swapped(page: WebDriver) -> None:
    before = place(page, 1)
    choose(page, "axis-x", "privacy")
    after = place(page, 1)
    assert "privacy" in one(page, "#chart svg").get_attribute("aria-label")
    assert before[0] != after[0]
    assert before[1] == pytest.approx(after[1])
    assert "privacy ≤ 15 %" in one(page, "#chart").text
    one(page, "#swap").click()
    assert one(page, "#axis-y").get_attribute("value") == "privacy"
    assert one(page, "#axis-x").get_attribute("value") == "utility"
    # Better at utility now stands further right, more leaks higher up.
    assert place(page, 1)[0] > place(page, 0)[0]
    assert place(page, 1)[1] < place(page, 0)[1]


def test_hovering_and_focus_show_the_numbers_with_their_intervals(page: WebDriver) -> None:
    tip = one(page, "#tip")
    assert not tip.is_displayed()
    ActionChains(page).move_to_element(one(page, '.mark[data-at="5"] .ring')).perform()
    assert tip.is_displayed()
    assert "cascade calls=0.4 + pseudonym" in tip.text
    assert "utility (%) 92.3 [89.3 – 94.5]" in tip.text
    assert "n = 400, base rate 11.8" in tip.text
    ActionChains(page).move_to_element(one(page, "h1")).perform()
    assert not tip.is_displayed()


def test_the_chart_is_one_tab_stop_with_arrow_keys_inside(page: WebDriver) -> None:
    stops = every(page, '.mark[tabindex="0"]')
    assert len(stops) == 1
    page.execute_script("arguments[0].focus()", stops[0])
    first = page.switch_to.active_element.get_attribute("data-at")
    assert one(page, "#tip").is_displayed()
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    second = page.switch_to.active_element
    assert second.get_attribute("data-at") != first
    second.send_keys(Keys.ENTER)
    row = one(page, '#points-table tr[aria-selected="true"]')
    assert row.get_attribute("data-at") == page.switch_to.active_element.get_attribute("data-at")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert every(page, '#points-table tr[aria-selected="true"]') == []


def test_a_point_and_its_row_are_picked_together(page: WebDriver) -> None:
    panel = one(page, "#picked")
    assert not panel.is_displayed()
    one(page, '#points-table tr[data-at="4"] td').click()
    assert mark(page, 4).get_attribute("aria-pressed") == "true"
    assert panel.is_displayed()
    assert "calls = 0.4" in panel.text
    assert "strongest attack: fuzzy" in panel.text
    ActionChains(page).move_to_element(one(page, '.mark[data-at="0"] .ring')).click().perform()
    assert one(page, '#points-table tr[aria-selected="true"]').get_attribute("data-at") == "0"
    one(page, "#picked a").click()
    assert one(page, "#left-0").get_attribute("open") is not None


def test_the_table_sorts_by_number_and_by_name(page: WebDriver) -> None:
    start = order(page)
    head = one(page, "#points-table thead th:nth-child(2)")
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    assert head.get_attribute("aria-sort") == "descending"  # more utility is better: best first
    report = made_up.report()
    utilities = [report.points[at].test["utility"].value for at in order(page)]
    assert utilities == sorted(utilities, reverse=True)
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert order(page) != start
    one(page, "#points-table thead th:first-child button").click()
    names = [report.points[at].name for at in order(page)]
    assert names[0].startswith("cascade")
    assert names[-1].startswith("supericl")


def test_strategies_can_be_hidden_in_chart_and_table(page: WebDriver) -> None:
    one(page, "#keys label:nth-of-type(3)").click()  # cascade
    hidden = [at for at, row in enumerate(made_up.POINTS) if row[1] == "cascade"]
    assert len(every(page, ".mark")) == len(made_up.POINTS) - len(hidden)
    assert not set(hidden) & set(order(page))
    one(page, "#keys label:nth-of-type(3)").click()
    assert len(every(page, ".mark")) == len(made_up.POINTS)
    one(page, "#only-front").click()
    assert set(order(page)) == {
        at for at, p in enumerate(made_up.report().points) if p.name in made_up.report().front
    }


def test_validation_numbers_are_shown_on_demand(page: WebDriver) -> None:
    before = mark(page, 1).get_attribute("aria-label")
    one(page, ".switch label:nth-child(2)").click()
    value = made_up.report().points[1].validation["utility"].value
    after = mark(page, 1).get_attribute("aria-label")
    assert before != after
    assert f"{100 * value:.1f}" in after


def test_all_columns_can_be_shown(page: WebDriver) -> None:
    def shown() -> int:
        return sum(th.is_displayed() for th in every(page, "#points-table thead th"))

    few = shown()
    one(page, "#all-columns").click()
    assert shown() == 9 > few


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_the_page_never_scrolls_sideways(browser: WebDriver, folder: Path, width: int) -> None:
    long = "a name that somebody generated from each and every setting it has, " + "x" * 90
    rows = [(f"{name} {long}", *rest) for name, *rest in made_up.POINTS]
    write_html(made_up.report(rows, limits=()), folder / "long.html")
    look(browser, width, "light")
    for name in ("report.html", "long.html"):
        browser.get((folder / name).as_uri())
        browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = 1 })")
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, name


def test_dark_and_light_follow_the_reader(page: WebDriver) -> None:
    def colours() -> tuple[str, str]:
        body = one(page, "body")
        return body.value_of_css_property("background-color"), body.value_of_css_property("color")

    light = colours()
    look(page, 1200, "dark")
    dark = colours()
    assert light != dark
    for background, ink in (light, dark):
        assert contrast(background, ink) > 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_print_can_be_read(page: WebDriver, scheme: str) -> None:
    look(page, 1200, scheme)
    card = one(page, "section").value_of_css_property("background-color")
    for css in (".note", ".facts small", ".verdict h2", ".missed", ".tag"):
        for element in every(page, css):
            assert contrast(card, element.value_of_css_property("color")) > 4.5, css


def contrast(first: str, second: str) -> float:
    """WCAG 2.1's contrast ratio of two `rgb(…)` colours."""

    def luminance(colour: str) -> float:
        parts = colour[colour.index("(") + 1 : -1].split(",")[:3]
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (float(part) / 255 for part in parts)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    a, b = sorted((luminance(first), luminance(second)))
    return (b + 0.05) / (a + 0.05)


def test_without_script_the_front_is_a_picture(browser: WebDriver, folder: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((folder / "report.html").as_uri())
        assert one(browser, "noscript svg").is_displayed()
        assert not one(browser, "#front-live").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
