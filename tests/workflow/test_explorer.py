"""The explorer in a browser, built from the published results."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
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
from effective_lr.engine.storage import read_provenance, read_table
from effective_lr.engine.study import names
from shared import ROOT

OVERLAPPING = """
    const cross = (a, b) =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
    return [...document.querySelectorAll('section.open svg')].flatMap((picture) => {
        const texts = [...picture.querySelectorAll(':scope > text')];
        const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
        return boxes.flatMap(([one, a], k) => boxes.slice(k + 1)
            .filter(([, b]) => cross(a, b)).map(([other]) => `${one} / ${other}`));
    })"""
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
LINES = """return [...document.querySelectorAll('section.open .runs tbody tr')].filter((line) => !line.hidden)
           .map((line) => [...line.cells].map((cell) => cell.textContent))"""
SETTINGS = {record.run_id: record.run for record in read_provenance(published_table(ROOT, "normalization", "study"))}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_chromium()
    checkout = Checkout.new(tmp_path_factory.mktemp("explorer") / "copy")
    checkout.build("explore", "--config", "metrics=published", "scale=study", cores=2)
    return checkout.root / "paper/build/published-study/explorer.html"


@pytest.fixture
def browser(page: Path) -> Iterator[webdriver.Chrome]:
    """The page, opened from disk in the window of a small laptop."""
    with chromium(1280, 800) as opened:
        opened.get(page.as_uri())
        wait_for(opened, "html[data-ready=normalization]")
        yield opened
        assert problems(opened) == []


def wait_for(browser: webdriver.Chrome, selector: str) -> WebElement:
    return WebDriverWait(browser, 20).until(lambda _: browser.find_elements(By.CSS_SELECTOR, selector))[0]


def find(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    """The elements of the open study."""
    return browser.find_elements(By.CSS_SELECTOR, f"section.open {selector}")


def cell(browser: webdriver.Chrome, panel: str, start: str) -> WebElement:
    """The mark of a panel whose label begins so."""
    [mark] = find(browser, f"svg[aria-label='{panel}'] .mark[aria-label^='{start}']")
    return mark


def shown_run(browser: webdriver.Chrome, place: str) -> str:
    """The run_id of run a or b."""
    return wait_for(browser, f"section.open .run-{place} h4").text.partition(": ")[2]


def numbers(browser: webdriver.Chrome) -> dict[tuple[str, str], list[float]]:
    """What the table of values holds, by quantity and line."""
    return {
        (str(row.get_attribute("data-quantity")), str(row.get_attribute("data-line"))): [
            float(one.get_attribute("data-value") or "nan") for one in row.find_elements(By.CSS_SELECTOR, ".number")
        ]
        for row in find(browser, ".values tbody tr")
    }


@pytest.mark.slow
def test_a_click_shows_the_curves_and_a_second_one_the_difference(browser: webdriver.Chrome, page: Path) -> None:
    assert page.stat().st_size <= 10e6
    cell(browser, "Batch, SGD", "λ = 0.001, η = 0.16:").click()
    run = shown_run(browser, "a")
    assert SETTINGS[run] | {"l2": 0.001, "lr": 0.16, "optimizer": "sgd"} == SETTINGS[run]
    table = read_table(published_table(ROOT, "normalization", "study"))[0].to_pandas()
    measured = table[table["run_id"] == run].sort_values("step").set_index(["quantity", "layer"])["value"]
    shown = numbers(browser)
    layers = {layer for quantity, layer in shown if quantity == "norm"}
    assert len(layers) >= 3
    for layer in layers:
        last = measured["norm_squared", layer].iloc[-1]
        assert shown["norm", layer][0] == pytest.approx(last**0.5, rel=1e-6)
        assert shown["effective_lr", layer][0] == pytest.approx(0.16 / last, rel=1e-6)
        assert np.isfinite(shown["norm", layer][1])  # predicted: this cell is at equilibrium
    find(browser, "input[type=range]")[0].send_keys(Keys.HOME)
    assert numbers(browser)["train_loss", ""][0] == pytest.approx(measured["train_loss", ""].iloc[0], rel=1e-6)

    other = cell(browser, "Batch, Adam", "λ = 0.00081, η = 0.009:")
    ActionChains(browser).key_down(Keys.SHIFT).click(other).key_up(Keys.SHIFT).perform()
    first, then = SETTINGS[run], SETTINGS[shown_run(browser, "b")]
    assert shown_run(browser, "a") == run
    differing = {str(row.get_attribute("data-setting")) for row in find(browser, ".differences tbody tr")}
    assert differing == {name for name in first if first[name] != then[name]} >= {"optimizer", "lr", "l2"}
    assert all(len(values) == 4 for values in numbers(browser).values())
    assert not [url for url in asked_for(browser) if not url.startswith(("file:", "data:", "blob:", "chrome"))]


@pytest.mark.slow
def test_the_keyboard_reaches_every_mark(browser: webdriver.Chrome) -> None:
    browser.execute_script("arguments[0].focus()", cell(browser, "Batch, SGD", "λ = 0, η = 0.01:"))
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ENTER).perform()
    run = shown_run(browser, "a")
    assert SETTINGS[run] | {"lr": 0.04, "l2": 6.25e-05} == SETTINGS[run]
    keys = ActionChains(browser).send_keys(Keys.TAB).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT)
    keys.perform()
    assert SETTINGS[shown_run(browser, "b")]["optimizer"] == "nesterov" and shown_run(browser, "a") == run


@pytest.mark.slow
def test_the_table_of_runs_is_filtered_and_sorted(browser: webdriver.Chrome) -> None:
    find(browser, "[data-tab=runs]")[0].click()
    whole = browser.execute_script(LINES)
    diverged = ["diverged" in line[1] for line in whole]
    assert diverged == sorted(diverged, reverse=True)
    [search] = find(browser, "input[type=search]")
    search.send_keys("optimizer=adam lr=0.009 l2=0.00081")
    chosen = browser.execute_script(LINES)
    assert 0 < len(chosen) < 10 and str(len(chosen)) in find(browser, ".count")[0].text
    assert all(SETTINGS[line[0]]["lr"] == 0.009 for line in chosen)
    search.clear()
    search.send_keys(" ")
    find(browser, "th button")[-1].click()
    lines = browser.execute_script(LINES)
    seconds = [float(line[7]) for line in lines]
    assert seconds == sorted(seconds) and len(seconds) == len(whole)
    find(browser, "tbody tr a")[0].click()
    assert shown_run(browser, "a") == lines[0][0]


@pytest.mark.slow
def test_every_chapter_has_its_view_whose_labels_do_not_overlap_in_a_small_tab(browser: webdriver.Chrome) -> None:
    for study in names():
        browser.find_element(By.CSS_SELECTOR, f"header nav a[href='#{study}']").click()
        wait_for(browser, f"html[data-ready={study}]")
        marks = find(browser, ".mark")
        assert len(marks) >= 20, study
        browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", marks[0])
        assert shown_run(browser, "a") and numbers(browser), study
        fewest = 1 if study == "norms" else 2  # a tuned run has one measurement over strengths, its held-out loss
        assert len(find(browser, ".charts figure")) >= fewest, study
        assert browser.execute_script(OVERLAPPING) == [] and browser.execute_script(WIDER) <= 0, study
        find(browser, "[data-tab=claims]")[0].click()
        last = find(browser, ".claims details")[-1]
        last.find_element(By.TAG_NAME, "summary").click()
        assert "Decided again by" in last.text
    driver = psutil.Process(browser.service.process.pid)
    tabs = [child for child in driver.children(recursive=True) if "--type=renderer" in child.cmdline()]
    assert tabs and max(tab.memory_full_info().uss for tab in tabs) <= 300e6


@pytest.mark.slow
def test_without_javascript_there_is_the_table(page: Path) -> None:
    with chromium(1280, 800, javascript=False) as opened:
        opened.get(page.as_uri())
        for study in names():
            section = opened.find_element(By.ID, study)
            lines = section.find_elements(By.CSS_SELECTOR, ".runs tbody tr")
            assert len(lines) == len(read_provenance(published_table(ROOT, study, "study")))
            assert lines[0].is_displayed() and not section.find_element(By.CSS_SELECTOR, ".detail").is_displayed()
            assert section.find_element(By.CSS_SELECTOR, ".claims details").is_displayed()
