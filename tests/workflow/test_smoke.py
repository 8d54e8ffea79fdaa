"""The whole workflow at the smoke scale, from raw data to a PDF and a report that are opened and looked at."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from pypdf import PdfReader
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from browser import asked_for, chromium, problems, require_chromium
from checkouts import Checkout
from effective_lr.document import manuscript, numbers, style
from effective_lr.document.table import Results
from effective_lr.engine.storage import read_table
from effective_lr.engine.study import names
from effective_lr.evidence.tidy import Experiment, Tables


def build(smoke: Checkout) -> Path:
    return smoke.root / "paper" / "build" / "smoke"


def found(smoke: Checkout, study: str) -> Path:
    return smoke.root / "results" / "smoke" / study


def render(pdf: Path, scale: float = 2.0) -> list[np.ndarray]:
    """The pages of a PDF as grey images, 0 black to 255 white."""
    return [page.render(scale=scale, grayscale=True).to_numpy().squeeze() for page in pdfium.PdfDocument(pdf)]


def floats(smoke: Checkout) -> manuscript.Manuscript:
    return manuscript.scan(smoke.root / "paper", list(smoke.chapters()), smoke.root)


def tables_of(smoke: Checkout, study: str, experiments: list[str]) -> Tables:
    return Tables([path for name in experiments for path in found(smoke, study).glob(f"experiments/{name}.*.parquet")])


def test_second_run_does_nothing(smoke: Checkout) -> None:
    assert smoke.planned() == {}


def test_every_run_was_trained_and_carries_its_provenance(smoke: Checkout) -> None:
    for name, chapter in smoke.chapters().items():
        runs = {run.run_id: run for run in chapter.runs_of(list(chapter.experiments))}
        records = [record for path in found(smoke, name).glob("shards/*.parquet") for record in read_table(path)[1]]
        trained = {record.run_id for record in records}
        missing = {chapter.study.data(runs[run_id]) for run_id in runs.keys() - trained}
        assert missing <= chapter.study.optional_data  # data that a study can do without
        assert trained and trained <= runs.keys()
        for record in records:
            assert chapter.study.run(**record.run) == runs[record.run_id]
            assert record.study == name and record.seconds > 0
            assert record.versions["torch"] and record.device and record.code


@pytest.mark.parametrize("study", names())
def test_figures_have_ink_in_every_panel(smoke: Checkout, study: str) -> None:
    chapter = smoke.chapters()[study]
    style.use()
    for name, item in chapter.contents.figures.items():
        tables = tables_of(smoke, study, chapter.experiments_of(item))
        if tables and not len(tables.runs()):
            continue
        figure = getattr(chapter.study.module("figures"), name)(tables)
        figure.canvas.draw()
        [page] = render(build(smoke) / study / f"{name}.pdf")
        height, width = page.shape
        for axes in figure.axes:
            if axes.get_visible() and axes.axison:
                box, edge = axes.get_position(), 0.04  # without the frame
                x0, x1 = box.x0 + edge * box.width, box.x1 - edge * box.width
                y0, y1 = 1 - box.y1 + edge * box.height, 1 - box.y0 - edge * box.height
                inside = page[int(y0 * height) : int(y1 * height) + 1, int(x0 * width) : int(x1 * width) + 1]
                assert (inside < 200).mean() > 0.002, f"{name}: a panel is empty"
        plt.close(figure)
        picture = np.asarray(Image.open(build(smoke) / study / f"{name}.png").convert("L"))
        assert picture.shape[1] > 600 and (picture < 200).mean() > 0.002, f"{name}: an empty picture"


def test_tables_have_their_rows_in_both_forms(smoke: Checkout) -> None:
    for study, chapter in smoke.chapters().items():
        for name in chapter.contents.tables:
            latex, html = ((build(smoke) / study / f"{name}.{form}").read_text() for form in ("tex", "html"))
            rows = latex.split(r"\midrule", 1)[1].count(r"\\")
            assert rows > 0 and html.count("<tr") >= rows, name
        runs = tables_of(smoke, study, list(chapter.experiments)).runs()
        if (costs := build(smoke) / study / "costs.tex").exists():
            [total] = [line for line in costs.read_text().splitlines() if line.startswith("All")]
            count, reused = total.split(" & ")[1:3]
            assert (count, reused) == (f"{len(runs):,}".replace(",", r"\,"), "0")  # nothing was there to be reused
        if (settings := build(smoke) / study / "settings.tex").exists():
            assert settings.read_text().count(r"\\") > len(chapter.study.run.model_fields)
        tables = [name for name in chapter.contents.tables if name in ("verdicts", "further_verdicts")]
        verdicts = "".join((build(smoke) / study / f"{name}.tex").read_text() for name in tables)
        assert re.findall(r"^\\textbf\{([A-Z]+\d+)\}", verdicts, flags=re.MULTILINE) == list(chapter.claims)


def test_verdicts_at_the_smoke_scale(smoke: Checkout) -> None:
    """What is exact holds at any scale; one seed and forty steps decide nothing else."""
    for study, chapter in smoke.chapters().items():
        decided = {path.stem: json.loads(path.read_text()) for path in found(smoke, study).glob("claims/*.json")}
        assert decided.keys() == chapter.claims.keys()
    folder = found(smoke, "normalization") / "claims"
    verdict = {name: json.loads((folder / f"{name}.json").read_text())["verdict"] for name in ("C1", "C2")}
    assert verdict == {"C1": "reproduced", "C2": "undecided"}


def test_pdf_is_whole(smoke: Checkout) -> None:
    text = "\n".join(page.extract_text() for page in PdfReader(build(smoke) / "main.pdf").pages)
    assert "??" not in text and "References" in text
    assert smoke.chapters()["normalization"].scale.watermark in text
    for kind in ("figure", "table"):
        assert not [name for name in floats(smoke).numbered(kind) if name.replace("_", " ").title() not in text]
    log = (build(smoke) / "main.log").read_text(errors="replace")
    assert not re.findall(r"(?:Reference|Citation) `[^']*' .*undefined", log)
    overfull = [float(size) for size in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too", log)]
    assert not [size for size in overfull if size > 2], overfull
    ink = [(page < 128).mean() for page in render(build(smoke) / "main.pdf", scale=1.0)]
    assert min(ink[:-1]) > 0.01 and ink[-1] > 0.002, ink  # the last page holds what is left of the references


def test_figure_2_is_the_one_that_the_pdf_numbers_so(smoke: Checkout) -> None:
    labels = re.findall(r"\\newlabel\{(figure|table):([^}]*)\}\{\{(\d+)\}", (build(smoke) / "main.aux").read_text())
    printed = {f"{kind}_{number}": item for kind, item, number in labels}
    scanned = {**floats(smoke).numbered("figure"), **floats(smoke).numbered("table")}
    assert printed == {number: f"{one.study}/{one.item}" for number, one in scanned.items()}


def test_notebooks_ran_without_an_error_and_show_something(smoke: Checkout) -> None:
    for study, chapter in smoke.chapters().items():
        for name in chapter.contents.notebooks:
            cells = json.loads((found(smoke, study) / "notebooks" / f"{name}.ipynb").read_text())["cells"]
            outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
            assert "error" not in {output["output_type"] for output in outputs}
            page = (found(smoke, study) / "notebooks" / f"{name}.html").read_text()
            assert "data:image/png;base64" in page and "<math" in page
            assert not re.search(r"(?:src|href)=[\"']?https?:|@import", page)  # it needs nothing from the net


def results(smoke: Checkout, study: str, factor: float) -> Results:
    """All that tables and numbers are made of, with every measured number multiplied."""
    chapter = smoke.chapters()[study]
    tables = tables_of(smoke, study, list(chapter.experiments))
    for name, (metrics, runs) in tables.items():
        measured = [*chapter.study.summarized, "seconds", "examples_per_second", "peak_memory_mb"]
        counted = metrics["quantity"] == "group_size"
        values = metrics["value"].where(counted, metrics["value"] * factor)
        tables[name] = Experiment(metrics.assign(value=values), runs.assign(**(runs[measured] * factor)))
    claims = {path.stem: json.loads(path.read_text()) for path in sorted(found(smoke, study).glob("claims/*.json"))}
    for part in (part for claim in claims.values() for part in claim["parts"] + claim["explored"]):
        for key in ("value", "low", "high"):
            part[key] = None if part[key] is None else factor * part[key]
    return Results(chapter.study, tables, claims, pd.read_parquet(found(smoke, study) / "checks.parquet"))


@pytest.mark.parametrize("study", names())
def test_results_are_not_typed_by_hand(smoke: Checkout, study: str) -> None:
    """With every measured number 1.37 times as large, every statistic and every table of results is another one."""
    plain, scaled = (results(smoke, study, factor) for factor in (1.0, 1.37))
    if not len(plain.tables.runs()):
        pytest.skip("its optional data are not here")
    first, second = (numbers.all_numbers(one, "smoke") for one in (plain, scaled))
    statistics = {
        f"{part['statistic']}/{part['subject']}" for claim in plain.claims.values() for part in claim["parts"]
    }
    has_digits = re.compile(r"[1-9]\D?\d")  # two that count
    same = [
        name for name in statistics & first.keys() if has_digits.search(first[name]) and first[name] == second[name]
    ]
    assert same == []
    own = plain.study.module("tables")
    chapter = smoke.chapters()[study]
    for name, item in chapter.contents.tables.items():
        if hasattr(own, name) and (item.experiments or item.claims):
            latex = getattr(own, name)(plain).latex()
            is_measured = len(re.findall(r"\d\.\d", latex)) > 3  # not a list of sources, say
            assert not is_measured or latex != getattr(own, name)(scaled).latex(), name


@pytest.mark.parametrize("study", names())
def test_the_text_types_no_measured_percentage(smoke: Checkout, study: str) -> None:
    text = (smoke.root / "paper" / study / "text.tex").read_text()
    assert re.findall(r"\d\.\d+\$?(?:\\,|~| )?\\%", text) == []


@pytest.mark.slow
def test_verdicts_and_paper_need_no_published_results(smoke: Checkout, tmp_path: Path) -> None:
    """Everything but the trainings, which read nothing that is published, made again without results/published."""
    checkout = Checkout.new(tmp_path / "alone")
    shutil.rmtree(checkout.root / "results/published")
    shutil.copytree(smoke.root / "results/data", checkout.root / "results/data")
    for name in smoke.chapters():
        shutil.copytree(found(smoke, name) / "runs", found(checkout, name) / "runs")
    checkout.build("paper", cores=2)
    for name, chapter in checkout.chapters().items():
        for claim in chapter.claims:
            mine, before = (
                json.loads((found(one, name) / f"claims/{claim}.json").read_text()) for one in (checkout, smoke)
            )
            assert mine == before
    text = " ".join(page.extract_text() for page in PdfReader(build(checkout) / "main.pdf").pages)
    assert "not measured here: make bench" in text and "nothing is published here" in text
    assert not (checkout.root / "results/published").exists()


@pytest.mark.slow
def test_the_report_in_a_browser(smoke: Checkout, tmp_path: Path) -> None:
    """The report, opened by Chromium without a network: every figure, every table, the verdicts, nothing amiss."""
    require_chromium()
    checkout = smoke.copy(tmp_path / "copy")
    report = tmp_path / "report.html"
    checkout.build("report")
    checkout.build("report", "--report", str(report))
    contents = [chapter.contents for chapter in checkout.chapters().values()]
    figures = [item for one in contents for item in one.figures.values()]
    tables = [item for one in contents for item in one.tables.values()]
    titles = [item.title for item in figures + tables] + [
        item.title for one in contents for item in one.notebooks.values()
    ]
    text = report.read_text()
    assert not [title for title in titles if json.dumps(title)[1:-1] not in text and title not in text]

    with chromium() as browser:
        wait = WebDriverWait(browser, 20)

        def show(category: str) -> list[Any]:
            """Open a category; the buttons that show its items."""
            browser.get(report.as_uri())
            wait.until(lambda _: browser.find_elements(By.XPATH, f"//*[normalize-space(text())='{category}']"))[
                0
            ].click()
            return wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a.inline-block"))[::2]

        assert len(show("Figures")) == len(figures)
        for number in range(len(figures)):
            show("Figures")[number].click()
            image = wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "img[src*='image/png']"))[0]
            wait.until(lambda _, image=image: image.get_property("naturalWidth") > 500)

        def text_of(item: Any) -> str:
            item.click()
            frame = wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "iframe[src*='text/html']"))[0]
            browser.switch_to.frame(frame)
            text: str = wait.until(lambda _: browser.find_element(By.TAG_NAME, "body").text)
            browser.switch_to.default_content()
            return text

        shown = [text_of(show("Tables")[number]) for number in range(len(tables))]
        assert all(any(item.title in text for text in shown) for item in tables)
        stated = [text_of(show("Claims")[number]) for number in range(len(contents))]
        for chapter in checkout.chapters().values():
            assert any(all(f"{name} " in text for name in chapter.claims) for text in stated)
        assert "torch" in text_of(show("Provenance")[0])
        assert len(show("Paper")) == 1
        browser.get(report.as_uri())
        assert wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a[href='explorer.html']"))

        assert problems(browser) == []
        asked = asked_for(browser)
        assert asked and not [url for url in asked if url.startswith("http")]
