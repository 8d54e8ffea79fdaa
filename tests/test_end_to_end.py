"""The whole workflow at the smoke scale, from raw data to a PDF that is opened and looked at."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pytest
from effective_lr.config import Run
from pypdf import PdfReader

from effective_lr import analysis, grid, tables

ROOT = Path(__file__).parents[1]
FOLDERS = ["config", "notebooks", "paper", "profiles", "workflow", "results/published"]
PANELS = {  # rows and columns of each figure, and how many of these places are taken
    "figure_1": (2, 1, 2),
    "figure_2": (2, 4, 7),
    "figure_3": (1, 3, 3),
    "figure_6": (1, 2, 2),
    **{f"figure_{number}": (1, 2, 2) for number in (4, 5, 7, 8)},
}


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--config", "scale=smoke"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the repository in which the smoke scale was made."""
    if not (shutil.which("latexmk") or shutil.which("tectonic")):
        pytest.skip("no LaTeX: install latexmk or tectonic")
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    folder = tmp_path_factory.mktemp("repository")
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    result = snakemake(folder, "all")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    yield folder


def build(folder: Path) -> Path:
    return folder / "paper" / "build" / "smoke"


def render(pdf: Path, scale: float = 2.0) -> list[np.ndarray]:
    """The pages of a PDF as grey images, 0 black to 255 white."""
    return [page.render(scale=scale, grayscale=True).to_numpy().squeeze() for page in pdfium.PdfDocument(pdf)]


def test_second_run_does_nothing(finished: Path) -> None:
    assert "Nothing to be done" in (result := snakemake(finished, "all")).stdout + result.stderr


def test_every_run_was_trained_and_carries_its_provenance(finished: Path) -> None:
    runs = {
        run.run_id: run for runs in grid.load_scale(ROOT / "config/scales", "smoke").runs().values() for run in runs
    }
    found = {}
    for path in (finished / "results/smoke/shards").glob("*.parquet"):
        for record in json.loads(pq.read_schema(path).metadata[b"provenance"]):
            found[record["run_id"]] = record
    assert found.keys() == runs.keys()
    for run_id, record in found.items():
        assert Run(**record["run"]) == runs[run_id]
        assert record["versions"]["torch"] and record["device"] and record["seconds"] > 0 and len(record["data"]) == 64


@pytest.mark.parametrize("figure", PANELS)
def test_figure_has_ink_inside_every_panel(finished: Path, figure: str) -> None:
    [page] = render(build(finished) / f"{figure}.pdf")
    rows, columns, taken = PANELS[figure]
    # The plotting areas are the equal shares of the page without the margins of the labels.
    height, width = page.shape
    inner = page[int(0.1 * height) : int(0.85 * height), int(0.12 * width) : int(0.9 * width)]
    panels = [panel for row in np.array_split(inner, rows, axis=0) for panel in np.array_split(row, columns, axis=1)]
    for panel in panels[:taken]:
        middle = panel[panel.shape[0] // 6 : -panel.shape[0] // 6, panel.shape[1] // 6 : -panel.shape[1] // 6]
        assert (middle < 200).mean() > 0.002, f"{figure}: a panel is empty"


def test_tables_have_their_rows(finished: Path) -> None:
    def rows(name: str) -> list[str]:
        text = (build(finished) / f"{name}.tex").read_text()
        body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
        return [line for line in body.splitlines() if line.endswith(r"\\")]

    assert [row.split(" & ")[0] for row in rows("table_1")] == [
        "SGD",
        "Heavy ball",
        "Nesterov",
        "Adam",
        "RMSProp",
        r"SGD, $\|w\|=1$",
    ]
    assert [tuple(row.split(" & ")[:2]) for row in rows("table_2")] == [
        ("Batch", "SGD"),
        ("Batch", "Nesterov"),
        ("Batch", "Adam"),
        ("Batch", "RMSProp"),
        ("Weight", "SGD"),
        ("Layer", "SGD"),
        ("None", "SGD"),
    ]
    assert len(rows("table_6")) >= 6
    costs = [row.removesuffix(r" \\").split(" & ") for row in rows("table_7")]
    assert [row[0] for row in costs] == ["Batch"] * 5 + ["Weight", "Layer", "None", "All"]
    assert sum(int(row[2]) for row in costs[:-1]) == int(costs[-1][2]) == 102
    assert {row[3] for row in costs} == {"0"}  # nothing was there to be reused
    assert [row for row in rows("table_3") if row.startswith(r"\textbf{C")] and len(rows("table_3")) > 9
    assert len(rows("table_4")) == 7
    assert len(rows("table_5")) >= 4
    assert len(rows("table_8")) >= len(Run.model_fields)
    assert len(rows("table_9")) == 2 + 2 + 4 + 2 + 4


def test_verdicts_at_the_smoke_scale(finished: Path) -> None:
    """What is exact holds at any scale; one seed and forty steps decide nothing else."""
    verdicts = {
        path.stem: json.loads(path.read_text())["verdict"]
        for path in (finished / "results/smoke/claims").glob("*.json")
    }
    assert sorted(verdicts) == [f"C{number}" for number in range(1, 10)]
    assert verdicts["C1"] == verdicts["C3"] == "reproduced"
    assert verdicts["C2"] == verdicts["C5"] == "undecided"


def test_pdf_is_whole(finished: Path) -> None:
    reader = PdfReader(build(finished) / "main.pdf")
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert "??" not in text
    assert "not a result" in text  # the watermark of the smoke scale
    for name in (*(f"Figure {n}" for n in range(1, 9)), *(f"Table {n}" for n in range(1, 10)), "References"):
        assert name in text, name
    log = (build(finished) / "main.log").read_text(errors="replace")
    assert not re.findall(r"(?:Reference|Citation) `[^']*' .*undefined", log)
    overfull = [float(size) for size in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too", log)]
    assert not [size for size in overfull if size > 2], overfull
    for page in render(build(finished) / "main.pdf", scale=1.0):
        assert (page < 128).mean() > 0.01, "a page is empty"


@pytest.mark.parametrize("notebook", ["1_theory", "2_one_run", "3_results"])
def test_notebooks_ran_without_an_error_and_show_something(finished: Path, notebook: str) -> None:
    folder = finished / "results/smoke/notebooks"
    cells = json.loads((folder / f"{notebook}.ipynb").read_text())["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert "data:image/png;base64" in (folder / f"{notebook}.html").read_text()


def test_every_number_is_defined(finished: Path) -> None:
    defined = set(re.findall(r"\\newcommand\{\\(\w+)\}", (build(finished) / "macros.tex").read_text()))
    used = set(re.findall(r"\\val\{\\(\w+)\}", (ROOT / "paper/main.tex").read_text()))
    assert used and used <= defined


# Macros that state settings, sums of settings or dates, not results.
SETTINGS = {
    "Watermark", "ScaleName", "DatasetName", "Resolution", "TrainSize", "ValidationSize", "TestSize", "Width",
    "BatchSize", "Steps", "Evaluations", "StatisticsSize", "RunCount", "DivergedCount", "FirstTrained",
    "LastTrained", "DeviceName", "TorchVersion", "SymmetryRuns", "SymmetryLambdaMin", "SymmetryLambdaMax",
    "SymmetryDecades", "SymmetryEps", "DefaultEps", "DynamicsCount", "ProjectedLr", "CriticalLambda",
    "PlainBestLambda", "DiagonalCellsSgd", "DiagonalCellsNesterov", "DiagonalCellsAdam", "DiagonalCellsRmsprop",
    "DropFactor", "ClaimCount",
    *(f"{what}{name}" for what in ("Layers", "WithoutGradient")
      for name in ("Sgd", "Nesterov", "Adam", "Rmsprop", "Adamw")),
}  # fmt: skip
RESULTS = ["test_error", "test_loss", "validation_error", "validation_loss", "late_train_loss", "seconds"]
# The columns of each table that hold results; table 7 also counts runs.
RESULT_COLUMNS = {
    "table_1": [3, 6],
    "table_2": [4, 5],
    "table_7": [5, 6, 8],
    "table_3": [3],
    "table_5": [2, 3],
    "table_9": [4, 5],
}


def results(finished: Path, factor: float) -> tables.Results:
    """All that the tables are made of at the smoke scale, with every measured number multiplied."""
    root = finished / "results"
    found = analysis.Tables(sorted((root / "smoke/experiments").glob("*.parquet")))
    for name, (metrics, runs) in found.items():
        measured = runs[[*RESULTS, "samples_per_second", "peak_memory_mb"]] * factor
        found[name] = analysis.Experiment(
            metrics.assign(
                value=metrics["value"].where(metrics["quantity"] == "group_size", metrics["value"] * factor)
            ),
            runs.assign(**{key: measured[key] for key in measured}),
        )
    claims = {path.stem: json.loads(path.read_text()) for path in sorted((root / "smoke/claims").glob("*.json"))}
    for part in (part for claim in claims.values() for part in claim["parts"] + claim["explored"]):
        for key in ("value", "low", "high"):
            part[key] = None if part[key] is None else factor * part[key]
    return tables.Results(found, claims, pd.read_parquet(root / "checks.parquet"))


def test_no_result_is_typed_by_hand(finished: Path) -> None:
    """With every measured number 1.37 times as large, every result of two or more digits is another one."""
    plain, scaled = (results(finished, factor) for factor in (1.0, 1.37))
    has_digits = re.compile(r"[1-9]\D?\d")  # two that count
    first, second = (
        dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", tables.macros(r, "smoke", ""))) for r in (plain, scaled)
    )
    compared = 0
    for name in first.keys() - SETTINGS:
        if has_digits.search(first[name]):
            assert first[name] != second[name], name
            compared += 1
    assert compared > 15
    for name, columns in RESULT_COLUMNS.items():
        rows = [
            [line.split(" & ") for line in tables.TABLES[name](r).splitlines() if " & " in line]
            for r in (plain, scaled)
        ]
        cells = [(a[k], b[k]) for a, b in zip(*rows, strict=True) for k in columns if len(a) > k]
        cells = [(a, b) for a, b in cells if has_digits.search(a) and not re.search(r"0\.000|[a-z]{3}", a)]
        assert len(cells) > 3, name
        for a, b in cells:
            assert a != b or "10^" in a, (name, a)


def test_the_text_types_no_decimals_among_its_results() -> None:
    text = (ROOT / "paper/main.tex").read_text()
    section = text[text.index(r"\section{Results}") : text.index(r"\section{What differs")]
    # The rules of the study: the width of the masks, and fractions of λc.
    allowed = {"0.003", "0.1", "0.25", "1.2"}
    assert set(re.findall(r"\d+\.\d+", section)) <= allowed


@pytest.mark.slow
def test_the_report_in_a_browser(finished: Path, tmp_path: Path) -> None:
    """`make report`, opened by Chromium without a network: every figure, every table, the verdicts, nothing amiss."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no Chromium: install the Debian packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    assert snakemake(finished, "report").returncode == 0
    report = tmp_path / "report.html"
    assert snakemake(finished, "report", "--report", str(report)).returncode == 0
    content = report.read_text()
    for kind in ("figure", "table", "notebook"):
        captions = re.findall(r'^"\w+": "([\w ,]+)', (ROOT / f"workflow/report/{kind}.rst").read_text(), re.MULTILINE)
        escaped = [json.dumps(caption)[1:-1] for caption in captions]
        assert captions and not [caption for caption in escaped if f'"caption": "<p>{caption}' not in content]

    options = webdriver.ChromeOptions()
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        "window-size=1600,1000",
    ):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        wait = WebDriverWait(browser, 20)

        def show(category: str) -> list[Any]:
            """Open a category; the buttons that show its items."""
            browser.get(report.as_uri())
            wait.until(lambda _: browser.find_elements(By.XPATH, f"//*[normalize-space(text())='{category}']"))[
                0
            ].click()
            return wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "a.inline-block"))[::2]

        assert len(show("Figures")) == len(PANELS)
        for number in range(len(PANELS)):
            show("Figures")[number].click()
            image = wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "img[src*='image/png']"))[0]
            wait.until(lambda _, image=image: image.get_property("naturalWidth") > 500)
        browser.save_screenshot(str(report.with_name("figures.png")))

        def text_of(item: Any) -> str:
            item.click()
            frame = wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "iframe[src*='text/html']"))[0]
            browser.switch_to.frame(frame)
            text: str = wait.until(lambda _: browser.find_element(By.TAG_NAME, "body").text)
            browser.switch_to.default_content()
            return text

        assert len(show("Tables")) == 9
        assert "Effective learning rate" in text_of(show("Tables")[2])
        browser.save_screenshot(str(report.with_name("verdicts.png")))
        claims = text_of(show("Claims")[0])
        assert all(f"C{number} " in claims for number in range(1, 10)) and "reproduced" in claims
        assert "torch" in text_of(show("Provenance")[0])
        assert len(show("Paper")) == 1

        problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert problems == []
        sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"]
        assert asked and not [url for url in asked if url.startswith("http")]
