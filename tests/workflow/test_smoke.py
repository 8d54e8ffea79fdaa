"""The whole workflow at the smoke scale, from raw data to a PDF and a report that are opened and looked at."""

import contextlib
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pytest
from matplotlib import pyplot as plt
from pypdf import PdfReader
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from browser import asked_for, chromium, problems, require_chromium
from checkouts import Checkout
from effective_lr.document import chapter as chapters
from effective_lr.document import macros, manuscript
from effective_lr.document.figures import draw
from effective_lr.document.table import Results
from effective_lr.engine.storage import Provenance, read_provenance
from effective_lr.engine.study import names
from effective_lr.evidence.tidy import Experiment, Tables

BUILD, RESULTS = "paper/build/smoke", "results/smoke"


def verdicts(checkout: Checkout, study: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkout.root / RESULTS / study / "claims.json").read_text())
    return found


def records_of(checkout: Checkout, study: str) -> list[Provenance]:
    tables = (checkout.root / RESULTS / study / "jobs").glob("*.parquet")
    return [record for table in tables for record in read_provenance(table)]


def render(pdf: Path, scale: float = 2.0) -> list[np.ndarray]:
    """The pages of a PDF as grey images, 0 black to 255 white."""
    return [page.render(scale=scale, grayscale=True).to_numpy().squeeze() for page in pdfium.PdfDocument(pdf)]


def text_of(checkout: Checkout) -> str:
    return " ".join(page.extract_text() for page in PdfReader(checkout.root / BUILD / "main.pdf").pages)


def placed(checkout: Checkout) -> dict[str, str]:
    """figure_1, ... and table_1, ... as <study>/<name>."""
    floats = manuscript.scan(checkout.root / "paper", list(checkout.chapters()), checkout.root)
    numbered = {**floats.numbered("figure"), **floats.numbered("table")}
    return {number: f"{one.study}/{one.item}" for number, one in numbered.items()}


@cache
def results_at(root: Path, study: str) -> Results:
    """What the figures, tables and numbers of a chapter are made of."""
    with contextlib.chdir(root):
        return chapters.results_of(Checkout(root).layout(), study)


def test_second_run_does_nothing(smoke: Checkout) -> None:
    assert smoke.planned() == {}


def test_every_run_was_trained_and_carries_its_provenance(smoke: Checkout) -> None:
    for name, chapter in smoke.chapters().items():
        runs, records = {run.run_id: run for run in chapter.runs}, records_of(smoke, name)
        trained = {record.run_id for record in records}
        missing = {chapter.study.data(runs[run_id]) for run_id in runs.keys() - trained}
        assert missing <= chapter.study.optional_data  # data that a study can do without
        assert trained and trained <= runs.keys()
        for record in records:
            assert chapter.study.run(**record.run) == runs[record.run_id]
            assert record.study == name and record.seconds > 0
            assert record.versions["torch"] and record.device and record.code_key


@pytest.mark.parametrize("study", names())
def test_figures_have_ink_in_every_panel(smoke: Checkout, study: str) -> None:
    chapter, tables = smoke.chapters()[study], results_at(smoke.root, study).tables
    for name, item in chapter.contents.figures.items():
        shown = Tables({experiment: tables[experiment] for experiment in chapter.experiments_of(item)})
        if shown and not len(shown.runs()):
            continue
        figure = draw(chapter.study, name, shown)
        figure.canvas.draw()
        [page] = render(smoke.root / BUILD / study / f"{name}.pdf")
        height, width = page.shape
        for axes in figure.axes:
            if axes.get_visible() and axes.axison:
                box, edge = axes.get_position(), 0.04  # without the frame
                x0, x1 = box.x0 + edge * box.width, box.x1 - edge * box.width
                y0, y1 = 1 - box.y1 + edge * box.height, 1 - box.y0 - edge * box.height
                inside = page[int(y0 * height) : int(y1 * height) + 1, int(x0 * width) : int(x1 * width) + 1]
                assert (inside < 200).mean() > 0.002, f"{name}: a panel is empty"
        plt.close(figure)


@pytest.mark.parametrize("study", names())
def test_tables_have_their_rows(smoke: Checkout, study: str) -> None:
    chapter, folder = smoke.chapters()[study], smoke.root / BUILD / study / "tables"
    latex = {name: (folder / f"{name}.tex").read_text() for name in chapter.contents.tables}
    for name, text in latex.items():
        assert text.split(r"\midrule", 1)[1].count(r"\\") > 0, name
    if costs := latex.get("costs"):
        [total] = [line for line in costs.splitlines() if line.startswith("All")]
        runs = f"{len(records_of(smoke, study)):,}".replace(",", r"\,")
        assert total.split(" & ")[1:3] == [runs, "0"]  # none was there to be reused
    if settings := latex.get("settings"):
        assert settings.count(r"\\") > len(chapter.study.run.model_fields)
    decided = "".join(text for name, text in latex.items() if "verdicts" in name and "scale" not in name)
    assert sorted(re.findall(r"^\\textbf\{([A-Z]+\d+)\}", decided, flags=re.MULTILINE)) == sorted(chapter.claims)


def test_verdicts_at_the_smoke_scale_together_and_alone(smoke: Checkout, tmp_path: Path) -> None:
    """What is exact holds at any scale; one seed and forty steps decide nothing else."""
    for study, chapter in smoke.chapters().items():
        assert verdicts(smoke, study).keys() == chapter.claims.keys()
    found = verdicts(smoke, "normalization")
    assert (found["C1"]["verdict"], found["C2"]["verdict"]) == ("reproduced", "undecided")
    checkout = smoke.copy(tmp_path / "copy")
    checkout.build("claim_C2")
    alone = json.loads((checkout.root / RESULTS / "normalization/claims/C2.json").read_text())
    assert alone["verdict"] == found["C2"]["verdict"]
    for one, other in zip(alone["parts"], found["C2"]["parts"], strict=True):
        assert {**other, **one} == other  # which has a definition, too


def test_pdf_is_whole(smoke: Checkout) -> None:
    text, build = text_of(smoke), smoke.root / BUILD
    assert "??" not in text and "References" in text
    assert smoke.chapters()["normalization"].scale.watermark in text
    assert not [number for number in placed(smoke) if number.replace("_", " ").title() not in text]
    log = (build / "main.log").read_text(errors="replace")
    assert not re.findall(r"(?:Reference|Citation) `[^']*' .*undefined", log)
    overfull = [float(size) for size in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too", log)]
    assert not [size for size in overfull if size > 2], overfull
    ink = [(page < 128).mean() for page in render(build / "main.pdf", scale=1.0)]
    assert min(ink) > 0.002, ink  # no page is empty
    labels = re.findall(r"\\newlabel\{(figure|table):([^}]*)\}\{\{(\d+)\}", (build / "main.aux").read_text())
    assert {f"{kind}_{number}": item for kind, item, number in labels} == placed(
        smoke
    )  # `make figure_2` makes figure 2


def scaled(results: Results, factor: float) -> Results:
    """The same with every measured number multiplied."""
    tables = Tables()
    for name, (metrics, runs) in results.tables.items():
        measured = [*results.study.summarized, "seconds", "examples_per_second", "peak_memory_mb"]
        values = metrics["value"].where(metrics["quantity"] == "group_size", metrics["value"] * factor)
        tables[name] = Experiment(metrics.assign(value=values), runs.assign(**(runs[measured] * factor)))
    claims = json.loads(json.dumps(results.claims))
    for part in (part for claim in claims.values() for part in claim["parts"] + claim["explored"]):
        part |= {key: None if part[key] is None else factor * part[key] for key in ("value", "low", "high")}
    return results._replace(tables=tables, claims=claims)


@pytest.mark.parametrize("study", names())
def test_results_are_not_typed_by_hand(smoke: Checkout, study: str) -> None:
    """With every measured number 1.37 times as large, every statistic and every table of results is another one."""
    layout, plain = smoke.layout(), results_at(smoke.root, study)
    if not len(plain.tables.runs()):
        pytest.skip("its optional data are not here")
    other = scaled(plain, 1.37)
    first, second = (macros.macros_of(one, "smoke") for one in (plain, other))
    parts = [part for claim in plain.claims.values() for part in claim["parts"]]
    statistics = {f"{part['statistic']}/{part['subject']}" for part in parts} & first.keys()
    has_digits = re.compile(r"[1-9]\D?\d")  # two that count
    assert not [name for name in statistics if has_digits.search(first[name]) and first[name] == second[name]]
    chapter = layout.chapters[study]
    both = [dict(chapters.tables_of(layout, study, one)) for one in (plain, other)]
    for name, item in chapter.contents.tables.items():
        if chapter.study.find("tables", name) and (item.experiments or item.claims):
            latex, changed = (one[name].latex() for one in both)
            is_measured = len(re.findall(r"\d\.\d", latex)) > 3  # not a list of sources, say
            assert not is_measured or latex != changed, name
    text = (smoke.root / "paper" / study / "text.tex").read_text()
    assert re.findall(r"\d\.\d+\$?(?:\\,|~| )?\\%", text) == []  # a measured percentage


def test_every_command_reads_the_config(smoke: Checkout, tmp_path: Path) -> None:
    """`scale: smoke` in config/config.yaml, and no scale on the command line."""
    checkout, output = smoke.copy(tmp_path / "copy"), tmp_path / "job.parquet"
    studies = checkout.chapters()
    plan = checkout.command("plan").stdout
    assert "smoke: about " in plan
    count = sum(len(chapter.runs) for chapter in studies.values())
    assert sum(map(int, re.findall(r"^\w+: 0 of (\d+) runs", plan, flags=re.MULTILINE))) == count
    job = next(iter(studies["normalization"].jobs))
    trained = checkout.command("train", "--study", "normalization", "--job", job, "--output", str(output))
    assert trained.returncode == 0 and all(record.reused for record in read_provenance(output))
    compared = checkout.command("compare").stdout  # which names what is not published at the scale
    assert all(f"{name}: not compared" in compared for name in studies)
    built = checkout.run(*checkout.make(), METRICS="")
    assert "The paper: paper/build/smoke/main.pdf" in built.stdout.splitlines(), built.stdout


@pytest.mark.parametrize("study", names())
def test_jobs_import_what_they_need(smoke: Checkout, tmp_path: Path, study: str) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    chapter = checkout.chapters()[study]
    figure, job = next(iter(chapter.contents.figures)), next(iter(chapter.jobs))
    slow = {"matplotlib", "scipy.stats", "seaborn", "sklearn", "statsmodels", "torch"}
    for command, needed in [
        (["train", "--study", study, "--job", job, "--output", "x.parquet"], set()),  # finished before
        (["chapter", "--study", study], set()),
        (["paper"], set()),
        (["figure", "--study", study, "--name", figure, "--output", "x.pdf"], {"matplotlib", "seaborn"}),
        (["verdicts", "--output", "x.pdf"], {"matplotlib", "seaborn"}),
    ]:
        assert checkout.imports("-m", "effective_lr", *command) & slow <= needed, command


def test_an_unknown_number_ends_the_paper_with_its_place(smoke: Checkout, tmp_path: Path) -> None:
    checkout, text = smoke.copy(tmp_path / "copy"), "paper/normalization/text.tex"
    line = len((checkout.root / text).read_text().splitlines()) + 1
    checkout.append(text, "\\num{contour_slope/nobody}\n")
    result = checkout.command("paper")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith(f"{text}:{line}: \\num{{contour_slope/nobody}}: ")


@pytest.mark.slow
def test_notebooks_run_without_an_error_and_show_something(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    checkout.build("notebooks", cores=2)
    for study, chapter in checkout.chapters().items():
        for name in chapter.contents.notebooks:
            notebook = checkout.root / RESULTS / study / "notebooks" / f"{name}.ipynb"
            outputs = [
                output for cell in json.loads(notebook.read_text())["cells"] for output in cell.get("outputs", [])
            ]
            assert "error" not in {output["output_type"] for output in outputs}
            page = notebook.with_suffix(".html").read_text()
            assert "data:image/png;base64" in page and "<math" in page
            assert not re.search(r"(?:src|href)=[\"']?https?:|@import", page)  # it needs nothing from the net


@pytest.mark.slow
def test_verdicts_and_paper_need_no_published_results(smoke: Checkout, tmp_path: Path) -> None:
    """Everything but the trainings, which read nothing that is published, made again without results/published."""
    checkout = Checkout.new(tmp_path / "alone")
    shutil.rmtree(checkout.root / "results/published")
    shutil.copytree(smoke.root / "results/data", checkout.root / "results/data")
    for study in smoke.chapters():
        runs = f"{RESULTS}/{study}/runs"
        shutil.copytree(smoke.root / runs, checkout.root / runs)
    checkout.build(cores=2)
    assert all(verdicts(checkout, study) == verdicts(smoke, study) for study in smoke.chapters())
    assert "not measured here: make bench" in text_of(checkout) and "nothing is published here" in text_of(checkout)
    assert not (checkout.root / "results/published").exists()


@pytest.mark.slow
def test_the_report_in_a_browser(smoke: Checkout, tmp_path: Path) -> None:
    """The report, opened by Chromium without a network: every figure, the verdicts, nothing amiss."""
    require_chromium()
    checkout, report = smoke.copy(tmp_path / "copy"), tmp_path / "report.html"
    checkout.build("report")
    checkout.build("report", "--report", str(report))
    contents = [chapter.contents for chapter in checkout.chapters().values()]
    text, titles = report.read_text(), [item.title for one in contents for item in one.notebooks.values()]
    assert not [title for title in titles if json.dumps(title)[1:-1] not in text and title not in text]
    with chromium() as browser:
        wait = WebDriverWait(browser, 20)

        def show(category: str) -> list[Any]:
            """Open a category; the buttons that show its items."""
            browser.get(report.as_uri())
            place = f"//*[normalize-space(text())='{category}']"
            wait.until(lambda _: browser.find_elements(By.XPATH, place))[0].click()
            return wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a.inline-block"))[::2]

        for category, count, kind in [
            ("Figures", sum(len(one.figures) for one in contents), "application/pdf"),
            ("Claims and provenance", 2 * len(contents), "text/html"),
            ("Paper", 1, "application/pdf"),
        ]:
            buttons = show(category)
            assert len(buttons) == count
            buttons[0].click()
            frame = f"iframe[src*='{kind}']"
            assert wait.until(lambda _, frame=frame: browser.find_elements(By.CSS_SELECTOR, frame))
        browser.get(report.as_uri())
        assert wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a[href='explorer.html']"))
        asked = asked_for(browser)
        assert problems(browser) == [] and asked and not [url for url in asked if url.startswith("http")]
