"""The whole workflow at the smoke scale, from raw data to a PDF and a report that are opened and looked at."""

import contextlib
import json
import re
import shutil
import sys
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
from effective_lr.engine.storage import read_provenance
from effective_lr.engine.study import names
from effective_lr.evidence.tidy import Experiment, Tables


def build(smoke: Checkout) -> Path:
    return smoke.root / "paper" / "build" / "smoke"


def made(smoke: Checkout, study: str) -> Path:
    return smoke.root / "results" / "smoke" / study


def verdicts(smoke: Checkout, study: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made(smoke, study) / "claims.json").read_text())
    return found


def render(pdf: Path, scale: float = 2.0) -> list[np.ndarray]:
    """The pages of a PDF as grey images, 0 black to 255 white."""
    return [page.render(scale=scale, grayscale=True).to_numpy().squeeze() for page in pdfium.PdfDocument(pdf)]


def floats(smoke: Checkout) -> manuscript.Manuscript:
    return manuscript.scan(smoke.root / "paper", list(smoke.chapters()), smoke.root)


@cache
def results_at(root: Path, study: str) -> Results:
    """What the figures, tables and numbers of a chapter are made of."""
    layout = Checkout(root).layout()
    with contextlib.chdir(root):
        return chapters.results_of(layout, study)


def test_second_run_does_nothing(smoke: Checkout) -> None:
    assert smoke.planned() == {}


def test_every_run_was_trained_and_carries_its_provenance(smoke: Checkout) -> None:
    for name, chapter in smoke.chapters().items():
        runs = {run.run_id: run for run in chapter.runs}
        records = [record for path in made(smoke, name).glob("jobs/*.parquet") for record in read_provenance(path)]
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


def test_tables_have_their_rows(smoke: Checkout) -> None:
    for study, chapter in smoke.chapters().items():
        latex = {name: (build(smoke) / study / f"tables/{name}.tex").read_text() for name in chapter.contents.tables}
        for name, text in latex.items():
            assert text.split(r"\midrule", 1)[1].count(r"\\") > 0, name
        if costs := latex.get("costs"):
            [total] = [line for line in costs.splitlines() if line.startswith("All")]
            runs = sum(len(read_provenance(path)) for path in made(smoke, study).glob("jobs/*.parquet"))
            assert total.split(" & ")[1:3] == [f"{runs:,}".replace(",", r"\,"), "0"]  # none was there to be reused
        if settings := latex.get("settings"):
            assert settings.count(r"\\") > len(chapter.study.run.model_fields)
        decided = "".join(text for name, text in latex.items() if "verdicts" in name and "scale" not in name)
        found = re.findall(r"^\\textbf\{([A-Z]+\d+)\}", decided, flags=re.MULTILINE)
        assert sorted(found) == sorted(chapter.claims)


def test_verdicts_at_the_smoke_scale(smoke: Checkout) -> None:
    """What is exact holds at any scale; one seed and forty steps decide nothing else."""
    for study, chapter in smoke.chapters().items():
        assert verdicts(smoke, study).keys() == chapter.claims.keys()
    found = verdicts(smoke, "normalization")
    assert (found["C1"]["verdict"], found["C2"]["verdict"]) == ("reproduced", "undecided")


def test_a_claim_alone_has_the_verdict_of_its_chapter(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    checkout.build("claim_C2")
    alone = json.loads((made(checkout, "normalization") / "claims/C2.json").read_text())
    together = verdicts(smoke, "normalization")["C2"]
    assert alone["verdict"] == together["verdict"]
    for one, other in zip(alone["parts"], together["parts"], strict=True):
        assert {**other, **one} == other  # which has a definition, too


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
    assert min(ink) > 0.002, ink  # no page is empty


def test_figure_2_is_the_one_that_the_pdf_numbers_so(smoke: Checkout) -> None:
    labels = re.findall(r"\\newlabel\{(figure|table):([^}]*)\}\{\{(\d+)\}", (build(smoke) / "main.aux").read_text())
    printed = {f"{kind}_{number}": item for kind, item, number in labels}
    scanned = {**floats(smoke).numbered("figure"), **floats(smoke).numbered("table")}
    assert printed == {number: f"{one.study}/{one.item}" for number, one in scanned.items()}


def scaled(results: Results, factor: float) -> Results:
    """The same with every measured number multiplied."""
    tables = Tables()
    for name, (metrics, runs) in results.tables.items():
        measured = [*results.study.summarized, "seconds", "examples_per_second", "peak_memory_mb"]
        values = metrics["value"].where(metrics["quantity"] == "group_size", metrics["value"] * factor)
        tables[name] = Experiment(metrics.assign(value=values), runs.assign(**(runs[measured] * factor)))
    claims = json.loads(json.dumps(results.claims))
    for part in (part for claim in claims.values() for part in claim["parts"] + claim["explored"]):
        for key in ("value", "low", "high"):
            part[key] = None if part[key] is None else factor * part[key]
    return results._replace(tables=tables, claims=claims)


@pytest.mark.parametrize("study", names())
def test_results_are_not_typed_by_hand(smoke: Checkout, study: str) -> None:
    """With every measured number 1.37 times as large, every statistic and every table of results is another one."""
    layout, plain = smoke.layout(), results_at(smoke.root, study)
    if not len(plain.tables.runs()):
        pytest.skip("its optional data are not here")
    other = scaled(plain, 1.37)
    first, second = (macros.macros_of(one, "smoke") for one in (plain, other))
    statistics = {
        f"{part['statistic']}/{part['subject']}" for claim in plain.claims.values() for part in claim["parts"]
    }
    has_digits = re.compile(r"[1-9]\D?\d")  # two that count
    same = [
        name for name in statistics & first.keys() if has_digits.search(first[name]) and first[name] == second[name]
    ]
    assert same == []
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
    checkout = smoke.copy(tmp_path / "copy")
    plan = checkout.command("plan")
    assert "smoke: about " in plan.stdout, plan.stderr
    count = sum(len(chapter.runs) for chapter in checkout.chapters().values())
    assert sum(map(int, re.findall(r"^\w+: 0 of (\d+) runs", plan.stdout, flags=re.MULTILINE))) == count
    study, job = "normalization", next(iter(checkout.chapters()["normalization"].jobs))
    output = tmp_path / "job.parquet"
    trained = checkout.command("train", "--study", study, "--job", job, "--output", str(output))
    assert trained.returncode == 0 and all(record.reused for record in read_provenance(output))
    compared = checkout.command("compare")  # which names what is not published at the scale
    assert all(f"{name}: not compared" in compared.stdout for name in checkout.chapters())
    (checkout.root / "workflow/setup.sh").write_text("")  # the environment is there
    built = checkout.run("make", f"VENV={sys.prefix}", SCALE="", METRICS="")
    assert "The paper: paper/build/smoke/main.pdf" in built.stdout.splitlines(), built.stderr


# Runs commands in one process, and prints which of the libraries that take seconds each of them imported first.
PROGRAM = """
import sys
from effective_lr.__main__ import main
for words in sys.argv[1:]:
    before = set(sys.modules)
    if main(words.split()):
        sys.exit(1)
    heavy = {"matplotlib", "pandas", "scipy.stats", "seaborn", "sklearn", "statsmodels", "torch"}
    print("imported:", *(set(sys.modules) - before) & heavy)
"""


def test_jobs_import_what_they_need(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    studies = checkout.chapters().items()
    figures = [
        f"figure --study {study} --name {name} --output x.pdf"
        for study, chapter in studies
        for name in chapter.contents.figures
    ]
    finished = [f"train --study {study} --job {next(iter(one.jobs))} --output x.parquet" for study, one in studies]
    for allowed, commands in [
        ({"pandas"}, [*(f"chapter --study {study}" for study, _ in studies), "paper"]),
        ({"pandas", "matplotlib", "seaborn"}, ["verdicts --output x.pdf", *figures]),
        ({"pandas"}, finished),
    ]:
        path = str(checkout.root / "workflow")
        done = checkout.run(sys.executable, "-c", PROGRAM, *commands, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
        libraries = re.findall(r"^imported:(.*)$", done.stdout, flags=re.MULTILINE)
        for words, names_of in zip(commands, libraries, strict=True):
            assert set(names_of.split()) <= allowed, words


def test_an_unknown_number_ends_the_paper_with_its_place(smoke: Checkout, tmp_path: Path) -> None:
    checkout, text = smoke.copy(tmp_path / "copy"), "paper/normalization/text.tex"
    line = len((checkout.root / text).read_text().splitlines()) + 1
    checkout.append(text, "\\num{contour_slope/nobody}\n")
    result = checkout.command("paper")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"{text}:{line}: \\num{{contour_slope/nobody}}: ")


@pytest.mark.slow
def test_notebooks_run_without_an_error_and_show_something(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    checkout.build("notebooks", cores=2)
    for study, chapter in checkout.chapters().items():
        for name in chapter.contents.notebooks:
            notebook = made(checkout, study) / "notebooks" / f"{name}.ipynb"
            cells = json.loads(notebook.read_text())["cells"]
            outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
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
    for name in smoke.chapters():
        shutil.copytree(made(smoke, name) / "runs", made(checkout, name) / "runs")
    checkout.build(cores=2)
    for name in smoke.chapters():
        assert verdicts(checkout, name) == verdicts(smoke, name)
    text = " ".join(page.extract_text() for page in PdfReader(build(checkout) / "main.pdf").pages)
    assert "not measured here: make bench" in text and "nothing is published here" in text
    assert not (checkout.root / "results/published").exists()


@pytest.mark.slow
def test_the_report_in_a_browser(smoke: Checkout, tmp_path: Path) -> None:
    """The report, opened by Chromium without a network: every figure, the verdicts, nothing amiss."""
    require_chromium()
    checkout = smoke.copy(tmp_path / "copy")
    report = tmp_path / "report.html"
    checkout.build("report")
    checkout.build("report", "--report", str(report))
    contents = [chapter.contents for chapter in checkout.chapters().values()]
    figures = [item for one in contents for item in one.figures.values()]
    notebooks = [item for one in contents for item in one.notebooks.values()]
    text = report.read_text()
    titles = [item.title for item in notebooks]
    assert not [title for title in titles if json.dumps(title)[1:-1] not in text and title not in text]
    with chromium() as browser:
        wait = WebDriverWait(browser, 20)

        def show(category: str) -> list[Any]:
            """Open a category; the buttons that show its items."""
            browser.get(report.as_uri())
            place = f"//*[normalize-space(text())='{category}']"
            wait.until(lambda _: browser.find_elements(By.XPATH, place))[0].click()
            return wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a.inline-block"))[::2]

        kinds = {"Figures": len(figures), "Claims and provenance": 2 * len(contents), "Paper": 1}
        assert {category: len(show(category)) for category in kinds} == kinds
        for category, what in [("Figures", "application/pdf"), ("Claims and provenance", "text/html")]:
            show(category)[0].click()
            frame = f"iframe[src*='{what}']"
            assert wait.until(lambda _, frame=frame: browser.find_elements(By.CSS_SELECTOR, frame))
        browser.get(report.as_uri())
        assert wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a[href='explorer.html']"))
        asked = asked_for(browser)
        assert problems(browser) == [] and asked and not [url for url in asked if url.startswith("http")]
