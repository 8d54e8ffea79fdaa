"""The explorer in a browser, built from the published results."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from browser import asked_for, chromium, problems, require_chromium
from checkouts import Checkout
from effective_lr.engine.contents import published_table
from effective_lr.engine.storage import Provenance, read_table
from effective_lr.engine.study import names
from shared import ROOT


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explorer of the published results."""
    require_chromium()
    checkout = Checkout.new(tmp_path_factory.mktemp("explorer") / "copy")
    checkout.build("explore", "--config", "metrics=published", "scale=study", cores=2)
    return checkout.root / "paper/build/published-study/explorer.html"


@pytest.fixture
def browser(page: Path) -> Iterator[webdriver.Chrome]:
    """The page, opened from disk in the window of a small laptop."""
    with chromium(1280, 800) as opened:
        opened.get(page.as_uri())
        wait_for(opened, "normalization")
        yield opened
        assert problems(opened) == []


def wait_for(browser: webdriver.Chrome, study: str) -> None:
    WebDriverWait(browser, 20).until(lambda _: browser.find_elements(By.CSS_SELECTOR, f"html[data-ready={study}]"))


def open_study(browser: webdriver.Chrome, study: str) -> None:
    """Open its chapter, and the run of its first mark."""
    browser.find_element(By.CSS_SELECTOR, f"header nav a[href='#{study}']").click()
    wait_for(browser, study)
    mark = browser.find_element(By.CSS_SELECTOR, "section.open .mark")
    browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", mark)
    assert shown_run(browser, "a")


def marks(browser: webdriver.Chrome, title: str) -> dict[str, WebElement]:
    """The marks of a panel by what they say."""
    panel = browser.find_element(By.CSS_SELECTOR, f"section.open svg[aria-label='{title}']")
    found = panel.find_elements(By.CSS_SELECTOR, ".mark")
    return {str(mark.get_attribute("aria-label")): mark for mark in found}


def one(found: dict[str, WebElement], start: str) -> WebElement:
    [mark] = [mark for label, mark in found.items() if label.startswith(start)]
    return mark


def shown_run(browser: webdriver.Chrome, place: str) -> str:
    """The run_id of run a or b."""
    text = WebDriverWait(browser, 10).until(
        lambda _: browser.find_elements(By.CSS_SELECTOR, f"section.open .run-{place} h4")
    )[0]
    return text.text.partition(": ")[2]


def numbers(browser: webdriver.Chrome) -> dict[tuple[str, str], list[float]]:
    """What the table of values holds, by quantity and line."""
    rows = browser.find_elements(By.CSS_SELECTOR, "section.open .values tbody tr")
    return {
        (str(row.get_attribute("data-quantity")), str(row.get_attribute("data-line"))): [
            float(cell.get_attribute("data-value") or "nan") for cell in row.find_elements(By.CSS_SELECTOR, ".number")
        ]
        for row in rows
    }


@cache
def published(study: str) -> tuple[pa.Table, list[Provenance]]:
    return read_table(published_table(ROOT, study, "study"))


def curve_of(run: str, quantity: str, layer: str) -> dict[int, float]:
    """A curve of the published table of normalization, by step."""
    table, _ = published("normalization")
    of = {"run_id": run, "quantity": quantity, "layer": layer}
    for column, wanted in of.items():
        table = table.filter(pc.equal(table[column], wanted))
    return dict(zip(table["step"].to_pylist(), table["value"].to_pylist(), strict=True))


def settings_of(run: str) -> dict[str, object]:
    return next(record.run for record in published("normalization")[1] if record.run_id == run)


@pytest.mark.slow
def test_a_click_shows_the_curves_and_a_second_one_the_difference(browser: webdriver.Chrome, page: Path) -> None:
    assert page.stat().st_size <= 10e6
    paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert browser.execute_script(paint) <= 3000

    one(marks(browser, "Batch, SGD"), "λ = 0.001, η = 0.16:").click()
    run = shown_run(browser, "a")
    assert settings_of(run) | {"l2": 0.001, "lr": 0.16, "optimizer": "sgd"} == settings_of(run)
    shown = numbers(browser)
    layers = {layer for quantity, layer in shown if quantity == "norm"}
    assert len(layers) >= 3
    for layer in layers:
        curve = curve_of(run, "norm_squared", layer)
        last = curve[max(curve)]
        assert shown["norm", layer][0] == pytest.approx(last**0.5, rel=1e-6)
        assert shown["effective_lr", layer][0] == pytest.approx(0.16 / last, rel=1e-6)
    predicted = [values[1] for (quantity, _), values in shown.items() if quantity == "norm"]
    assert np.isfinite(predicted).all()  # this cell is at equilibrium

    browser.find_element(By.CSS_SELECTOR, "section.open input[type=range]").send_keys(Keys.HOME)
    earlier = numbers(browser)["train_loss", ""][0]
    curve = curve_of(run, "train_loss", "")
    assert earlier == pytest.approx(curve[min(curve)], rel=1e-6)

    other = one(marks(browser, "Batch, Adam"), "λ = 0.00081, η = 0.009:")
    ActionChains(browser).key_down(Keys.SHIFT).click(other).key_up(Keys.SHIFT).perform()
    second = shown_run(browser, "b")
    assert shown_run(browser, "a") == run
    rows = browser.find_elements(By.CSS_SELECTOR, "section.open .differences tbody tr")
    shown_settings = {str(row.get_attribute("data-setting")) for row in rows}
    first, then = settings_of(run), settings_of(second)
    assert shown_settings == {name for name in first if first[name] != then[name]} >= {"optimizer", "lr", "l2"}
    assert all(len(values) == 4 for values in numbers(browser).values())

    assert not [url for url in asked_for(browser) if not url.startswith(("file:", "data:", "blob:", "chrome"))]


@pytest.mark.slow
def test_the_keyboard_reaches_every_mark(browser: webdriver.Chrome) -> None:
    first = next(iter(marks(browser, "Batch, SGD").values()))
    browser.execute_script("arguments[0].focus()", first)

    def focused() -> str:
        return str(browser.switch_to.active_element.get_attribute("aria-label"))

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    assert first.get_attribute("tabindex") == "0" and focused().startswith("λ = 0, η = 0.01:")
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert focused().startswith("λ = 6.25e-05, η = 0.04:")
    press(Keys.ENTER)
    run = shown_run(browser, "a")
    assert settings_of(run) | {"lr": 0.04, "l2": 6.25e-05} == settings_of(run)
    press(Keys.TAB)
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    assert settings_of(shown_run(browser, "b"))["optimizer"] == "nesterov"
    assert shown_run(browser, "a") == run


@pytest.mark.slow
def test_the_table_of_runs_is_filtered_and_sorted(browser: webdriver.Chrome) -> None:
    browser.find_element(By.CSS_SELECTOR, "section.open [data-tab=runs]").click()
    section = browser.find_element(By.CSS_SELECTOR, "section.open")

    def lines() -> list[list[str]]:
        script = """return [...document.querySelectorAll('section.open .runs tbody tr')].filter((line) => !line.hidden)
                    .map((line) => [...line.cells].map((cell) => cell.textContent))"""
        found: list[list[str]] = browser.execute_script(script)
        return found

    whole = lines()
    diverged = ["diverged" in line[1] for line in whole]
    assert diverged == sorted(diverged, reverse=True)
    search = section.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("optimizer=adam lr=0.009 l2=0.00081")
    chosen = lines()
    assert 0 < len(chosen) < 10 and str(len(chosen)) in section.find_element(By.CSS_SELECTOR, ".count").text
    assert all(settings_of(line[0])["lr"] == 0.009 for line in chosen)
    search.clear()
    search.send_keys(" ")
    [head] = [head for head in section.find_elements(By.CSS_SELECTOR, "th button") if head.text == "seconds"]
    head.click()
    seconds = [float(line[7]) for line in lines()]
    assert seconds == sorted(seconds) and len(seconds) == len(whole)
    section.find_element(By.CSS_SELECTOR, "tbody tr a").click()
    assert shown_run(browser, "a") == lines()[0][0]


@pytest.mark.slow
def test_every_chapter_has_its_view_and_the_tab_stays_small(browser: webdriver.Chrome) -> None:
    for study in names():
        open_study(browser, study)
        assert len(browser.find_elements(By.CSS_SELECTOR, "section.open .mark")) >= 20, study
        fewest = 1 if study == "norms" else 2  # a tuned run has one measurement over strengths, its held-out loss
        assert len(browser.find_elements(By.CSS_SELECTOR, "section.open .charts figure")) >= fewest, study
        assert numbers(browser), study
        claims = browser.find_elements(By.CSS_SELECTOR, "section.open .claims details")
        browser.find_element(By.CSS_SELECTOR, "section.open [data-tab=claims]").click()
        claims[-1].find_element(By.TAG_NAME, "summary").click()
        assert "Decided again by" in claims[-1].text
    driver = psutil.Process(browser.service.process.pid)
    tabs = [child for child in driver.children(recursive=True) if "--type=renderer" in child.cmdline()]
    assert tabs and max(tab.memory_full_info().uss for tab in tabs) <= 300e6


@pytest.mark.slow
def test_labels_do_not_overlap(browser: webdriver.Chrome) -> None:
    overlapping = """
        const cross = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 3 && b.top < a.bottom - 3;
        return [...document.querySelectorAll('section.open svg')].flatMap((picture) => {
            const texts = [...picture.querySelectorAll(':scope > text')];
            const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
            return boxes.flatMap(([one, a], k) => boxes.slice(k + 1)
                .filter(([, b]) => cross(a, b)).map(([other]) => `${one} / ${other}`));
        })"""
    for study in names():
        open_study(browser, study)
        assert browser.execute_script(overlapping) == [], study
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(wide) <= 0, study


@pytest.mark.slow
def test_without_javascript_there_is_the_table(page: Path) -> None:
    with chromium(1280, 800, javascript=False) as opened:
        opened.get(page.as_uri())
        for study in names():
            section = opened.find_element(By.ID, study)
            lines = section.find_elements(By.CSS_SELECTOR, ".runs tbody tr")
            assert len(lines) == len(published(study)[1])
            assert lines[0].is_displayed() and not section.find_element(By.CSS_SELECTOR, ".detail").is_displayed()
            assert section.find_element(By.CSS_SELECTOR, ".claims details").is_displayed()
