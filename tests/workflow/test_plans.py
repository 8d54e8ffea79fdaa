"""What Snakemake plans, before anything is made and after which change, in copies of the repository."""

import os
import re
import shutil
import sys
from pathlib import Path

from checkouts import Checkout, jobs_in, jobs_of, listed_jobs, plan_of, reasons_of
from effective_lr.document import manuscript
from effective_lr.engine import contents, grid, resources
from effective_lr.engine.contents import Chapter
from shared import ROOT

SCALES = sorted({scale for name in contents.names() for scale in grid.scales(ROOT / "config" / name)})
STUDIES = "workflow/effective_lr/studies"
LONGEST_COMMAND = 4000  # of the 131,072 bytes that Linux allows for one argument


def numbered(checkout: Checkout, kind: str, scale: str = "smoke") -> dict[str, manuscript.Float]:
    """figure_1, ... or table_1, ... as the paper prints them."""
    chapters = list(checkout.chapters(scale))
    return manuscript.scan(checkout.root / "paper", chapters, checkout.root).numbered(kind)


def placed_figures(checkout: Checkout, scale: str = "smoke") -> set[str]:
    """<study>/<name> of those that the chapters show."""
    placed = numbered(checkout, "figure", scale).values()
    return {f"{one.study}/{one.item}" for one in placed if one.study != manuscript.FRAME}


def of_study(plan: dict[str, set[str]], study: str) -> dict[str, set[str]]:
    """The jobs of a study alone, by rule."""
    found = {
        rule: {job for job in jobs if job.split("/")[0] == study} for rule, jobs in plan.items() if rule != "notebook"
    }
    return {rule: jobs for rule, jobs in found.items() if jobs}


def test_a_figure_plans_the_trainings_that_it_rests_on_and_no_others(untouched: Checkout) -> None:
    chapters = untouched.chapters()
    second = numbered(untouched, "figure")["figure_2"]
    for target, study, name in [("figure_2", second.study, second.item), ("plane", "normalization", "plane")]:
        chapter = chapters[study]
        jobs = chapter.jobs_of(chapter.contents.figures[name].experiments)
        assert untouched.planned(target) == {
            "data": {chapter.study.data(chapter.jobs[job][0]) for job in jobs} - {None},
            "train": {f"{study}/{job}" for job in jobs},
            "figure": {f"{study}/{name}"},
            target: {""},
        }


def test_the_trainings_of_the_first_two_figures_come_first(untouched: Checkout) -> None:
    """So that who waits for the paper has something to look at; figure 1 shows all verdicts."""
    [second, third] = [numbered(untouched, "figure", "laptop")[f"figure_{n}"] for n in (2, 3)]
    first: set[str] = set()
    for one in (second, third):
        chapter = untouched.chapters("laptop")[one.study]
        first |= {f"{one.study}/jobs/{job}" for job in chapter.jobs_of(chapter.contents.figures[one.item].experiments)}
    priorities: dict[bool, list[int]] = {True: [], False: []}
    for job in jobs_in(untouched.dry_run("--config", "scale=laptop")):
        if job.startswith("train:"):
            [name] = re.findall(r"output: results/laptop/(.*).parquet", job)
            priorities[name in first].append(int(re.findall(r"priority: (\d+)", job)[0]))
    assert len(priorities[True]) == len(first) and min(priorities[True]) > max(priorities[False])


def test_the_snakefile_is_read_without_libraries(untouched: Checkout) -> None:
    """Every job on a cluster reads it again."""
    words = ("-X", "importtime", "-m", "snakemake", "--dry-run", "--quiet", "--config", "scale=study")
    done = untouched.run(sys.executable, *words)
    modules = {name.split(".")[0] for name in re.findall(r"\| +(\S+)$", done.stderr, flags=re.MULTILINE)}
    assert done.returncode == 0 and "effective_lr" in modules
    slow = {"torch", "matplotlib", "seaborn", "statsmodels", "scipy", "sklearn", "pandas", "pyarrow"}
    assert slow.isdisjoint(modules)


def test_targets_are_what_the_contents_name_with_their_titles(untouched: Checkout) -> None:
    listing = untouched.snakemake("--list-target-rules").stdout
    titles = dict(re.findall(r"^(\w+) \((.+)\)$", listing, flags=re.MULTILINE))
    chapters = untouched.chapters()
    names = contents.target_names(chapters)
    for (study, name), target in names.items():
        shown = chapters[study].contents
        assert titles[target] == {**shown.figures, **shown.tables}[name].title
    for name, chapter in chapters.items():
        assert chapter.study.title in titles[name]
        assert all(claim.title in titles[f"claim_{key}"] for key, claim in chapter.claims.items())
    for kind in ("figure", "table"):
        for number, float_ in numbered(untouched, kind).items():
            target = names.get((float_.study, float_.item), "")
            assert not target or f"`{target}`" in titles[number]
    assert {"all", "paper", "notebooks", "explore", "report"} <= titles.keys()


def test_every_scale_plans_all_from_data_to_paper_by_short_commands_and_in_order(untouched: Checkout) -> None:
    for number, scale in enumerate(SCALES):
        is_gpu, chapters = number % 2 == 1, untouched.chapters(scale)
        text = untouched.dry_run("--config", f"scale={scale}", f"device={'cuda' if is_gpu else 'cpu'}")
        assert plan_of(text) == {
            "data": {chapter.study.data(run) for chapter in chapters.values() for run in chapter.runs} - {None},
            "train": jobs_of(chapters),
            "checks": set(chapters),
            "figure": placed_figures(untouched, scale),
            "chapter": set(chapters),
            "verdicts_figure": {""},
            "pdf": {""},
            "all": {""},
        }
        lowest = min(
            int(number)
            for number in re.findall(r"^(?:local)?rule data:\n(?:    .*\n)*?    priority: (\d+)", text, re.M)
        )
        for job in jobs_in(text):
            [command] = re.findall(r"^Shell command: (.*)$", job, flags=re.MULTILINE)
            assert len(command) <= LONGEST_COMMAND
            if job.startswith("train:"):
                study, name = re.findall(r"wildcards: study=(\w+), job=(\S+)", job)[0]
                runs, known = chapters[study].jobs[name], chapters[study].study
                minutes = resources.time_limit(known, runs, is_gpu=is_gpu)
                megabytes, first = resources.memory_limit(known, runs), resources.time_limit(known, runs)
                [priority] = map(int, re.findall(r"^    priority: (\d+)$", job, re.M))
                assert priority % 5000 == first and priority < lowest
                assert f"gpu={int(is_gpu)}, runtime={minutes}, mem_mb={megabytes}" in job


def test_published_runs_are_redrawn_without_training(untouched: Checkout) -> None:
    layout = untouched.layout(scale="study", metrics="published")
    text = untouched.dry_run("all", "report", "--config", "metrics=published", "scale=study")
    plan = plan_of(text)
    assert {"data", "train", "checks"}.isdisjoint(plan.keys() - {"data"})
    assert plan["chapter"] == set(layout.chapters) and plan["pdf"] == {""}
    for job in jobs_in(text):  # what is published is an input alone
        outputs = re.findall(r"^    output: (.*)$", job, flags=re.MULTILINE)
        assert "results/published/" not in "".join(outputs)


def test_the_whole_paper_needs_no_published_results(fresh: Checkout) -> None:
    shutil.rmtree(fresh.root / "results/published")
    text = fresh.dry_run("all", "report", "--config", "scale=laptop")
    assert plan_of(text)["pdf"] == {""} and "results/published/" not in text


def test_a_mistake_in_the_text_ends_snakemake_with_one_sentence(fresh: Checkout) -> None:
    source = fresh.root / "paper/normalization/text.tex"
    text, made = source.read_text(), sorted((fresh.root / "results").rglob("*"))
    for line, named in [(r"\widefigure{missing}", "contents.yaml"), (r"\input{missing}", "paper/missing.tex")]:
        source.write_text(f"{text}{line}\n")
        result = fresh.snakemake("--cores", "1")
        assert result.returncode == 1
        assert sorted((fresh.root / "results").rglob("*")) == made
        [sentence] = [one for one in result.stderr.splitlines() if not re.match("Using workflow|Config file", one)]
        place = f"paper/normalization/text.tex:{len(text.splitlines()) + 1}: {line}: "
        assert sentence.startswith(place) and named in sentence


def test_it_runs_in_another_folder_by_the_snakefile_of_the_catalog(fresh: Checkout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(fresh.root / ".snakemake", ignore_errors=True)  # that of checkouts.py
    words = ("--snakefile", str(fresh.root / "workflow/Snakefile"), "--directory", "elsewhere")
    plan = fresh.planned(*words, folder=tmp_path)
    assert plan["train"] == jobs_of(fresh.chapters()) and "pdf" in plan
    assert not (fresh.root / ".snakemake").exists()


def test_another_workflow_uses_it_as_a_module_with_its_own_config(fresh: Checkout, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    expected = jobs_of(fresh.chapters())
    fresh.config()
    (tmp_path / "other/Snakefile").write_text(
        f"""
module effective_lr:
    snakefile: "{fresh.root}/workflow/Snakefile"
    config: {{"scale": "smoke"}}

use rule * from effective_lr as theirs_*

rule mine:
    default_target: True
    input: rules.theirs_all.input
"""
    )
    plan = fresh.planned(folder=tmp_path / "other")
    assert plan["theirs_train"] == expected
    assert "theirs_pdf" in plan and "mine" in plan


MADE = ("all", "notebooks", "explore")


def test_edits_of_what_no_result_rests_on_plan_nothing(finished: Checkout) -> None:
    training = f"{STUDIES}/norms/training.py"
    text = (finished.root / training).read_text()
    text = re.sub(r'"""', '"""Edited. ', text, count=1).replace("\n\n\n", "\n\n\n\n# Edited.\n")
    (finished.root / training).write_text(text)
    for module in ("engine/certify", "evidence/published", "document/generate_docs"):
        finished.append(f"workflow/effective_lr/{module}.py", "EDITED = 1\n")
    for source in ("config/normalization/smoke.yaml", "Snakefile", "workflow/rules/train.smk"):
        finished.append(source, "# edited\n")
    finished.edit("config/normalization/smoke.yaml", RMSPROP, "{seed: 600, l2: [0.00729, 0.00081], lr: 0.009}")
    finished.edit("config/normalization/smoke.yaml", "lr: [0.003, 0.009]", "lr: [0.009, 0.003]")
    build = finished.root / "paper/build"  # outputs: a folder of tables newer than the PDF reruns it
    for folder in ("config", "notebooks", "paper", "profiles", "workflow", "results/data", "Snakefile"):
        for path in [finished.root / folder, *(finished.root / folder).rglob("*")]:
            if not path.is_relative_to(build):
                path.touch()
    how = ["device=cuda", "gpu_slots=3", "checkpoint_seconds=5"]  # jobs run is no reason to run them again
    assert reasons_of(finished.dry_run(*MADE, "--config", *how)) == {}


def test_an_edit_reruns_what_rests_on_it_and_nothing_else(finished: Checkout) -> None:
    """Of each study another part; then of what all of them share."""
    chapters = finished.chapters()
    notebooks = {f"{study}/{name}" for study, chapter in chapters.items() for name in chapter.contents.notebooks}
    everything = {
        "train": jobs_of(chapters),
        "checks": set(chapters),
        "figure": placed_figures(finished),
        "chapter": set(chapters),
    }

    def planned_after(*sources: str) -> dict[str, set[str]]:
        texts = {source: (finished.root / source).read_text() for source in sources}
        for source, text in texts.items():
            added = {".py": "EDITED = 1\n", ".mplstyle": "lines.linewidth: 9\n", ".yaml": ""}
            words = re.sub(r"(title: (?=\w)|caption: >-\n +)", r"\1Edited ", text) if source.endswith("yaml") else text
            (finished.root / source).write_text(words + added.get(Path(source).suffix, "% edited\n"))
            if source.startswith(STUDIES):
                os.utime(finished.root / source, (0, 0))  # an old time stamp hides no edit of code
        plan = finished.planned(*MADE)
        for source, text in texts.items():
            (finished.root / source).write_text(text)
        return plan

    def only(study: str, *rules: str) -> dict[str, set[str]]:
        return {rule: jobs for rule, jobs in of_study(everything, study).items() if rule in rules}

    plan = planned_after(
        f"{STUDIES}/normalization/training.py",
        f"{STUDIES}/stability/tables.py",
        f"{STUDIES}/norms/figures.py",
        f"{STUDIES}/manifold/checks.py",
    )
    assert of_study(plan, "normalization") == only("normalization", *everything)
    assert of_study(plan, "stability") == only("stability", "chapter")
    assert of_study(plan, "norms") == only("norms", "figure")
    assert of_study(plan, "manifold") == only("manifold", "checks", "chapter")
    assert plan["pdf"] == plan["all"] == plan["explorer"] == {""}

    plan = planned_after(
        f"{STUDIES}/normalization/analysis.py",
        "paper/stability/contents.yaml",  # titles and captions
        "paper/norms/claims.yaml",
        f"{STUDIES}/manifold/statistics.py",
    )
    assert of_study(plan, "normalization") == only("normalization", "figure", "chapter")
    for study in ("stability", "norms", "manifold"):  # nothing is drawn
        assert of_study(plan, study) == only(study, "chapter")

    jobs = planned_after("workflow/effective_lr/engine/jobs.py")  # they run, and find their runs finished
    assert jobs["train"] == everything["train"] and {"data", "checks"}.isdisjoint(jobs)
    style = planned_after("workflow/effective_lr/document/style.mplstyle")
    assert style.keys() == {"figure", "notebook", "pdf", *MADE} - {"explore"}
    assert style["figure"] == everything["figure"] and style["notebook"] == notebooks
    text = planned_after("paper/normalization/text.tex", "paper/references.bib", "notebooks/normalization/theory.py")
    assert text == {"notebook": {"normalization/theory"}, "pdf": {""}, "all": {""}, "notebooks": {""}}
    assert reasons_of(finished.dry_run(*MADE)) == {}  # each edit was undone


SMOKE = "config/normalization/smoke.yaml"
RMSPROP = "{lr: 0.009, l2: [0.00081, 0.00729], seed: 600}"


def test_added_runs_and_swapped_values_train_their_jobs_alone(finished: Checkout) -> None:
    # Snakemake compares params as a set of values: as params of their own, swapped numbers would look the same.
    def hashes(chapter: Chapter) -> dict[str, str]:
        return {name: grid.runs_hash(runs) for name, runs in chapter.jobs.items()}

    before = finished.chapters()["normalization"]
    finished.edit(SMOKE, RMSPROP, RMSPROP.replace("0.00729]", "0.00729, 0.02]"))
    old, new = "lr: 1.44, l2: 0.000444444444444", "lr: 0.000444444444444, l2: 1.44"
    finished.edit(SMOKE, old, new, times=2)
    after = finished.chapters()["normalization"]
    changed = {name for name, found in hashes(after).items() if hashes(before).get(name) != found}
    for experiment in ("plane_rmsprop", "symmetry"):
        assert changed & {*after.jobs_of([experiment])}
    plan = finished.planned()
    assert plan["train"] == {f"normalization/{name}" for name in changed}
    figures = after.contents.figures.items()
    drawn = {f"normalization/{name}" for name, one in figures if changed & {*after.jobs_of(one.experiments)}}
    assert plan["figure"] == drawn & placed_figures(finished) and len(drawn) < len(figures)


def test_after_a_failed_training_every_target_still_asks_for_it(finished: Checkout) -> None:
    # Snakemake removes the output of a failed job and forgets it; the old figures stay and look new.
    chapters = finished.chapters()
    for study in chapters:
        finished.append(f"{STUDIES}/{study}/training.py", "EDITED = 1\n")
    assert finished.snakemake("--cores", "2", "--keep-going", broken="train").returncode == 1
    assert (finished.root / "paper/build/smoke/main.pdf").exists()
    everything, names = jobs_of(chapters), contents.target_names(chapters)
    expected = {name: jobs_of(chapters, name) for name in chapters}
    for (study, name), target in names.items():
        figure = chapters[study].contents.figures.get(name)
        expected[target] = jobs_of(chapters, study, figure and chapters[study].experiments_of(figure))
    for study, chapter in chapters.items():
        for name, claim in chapter.claims.items():
            expected[f"claim_{name}"] = jobs_of(chapters, study, claim.experiments)
    for kind in ("figure", "table"):
        for number, one in numbered(finished, kind).items():
            target = names.get((one.study, one.item))
            expected[number] = expected[target] if target else everything
    expected |= dict.fromkeys(("paper", "verdicts", "notebooks", "explore", "report"), everything)
    listing = finished.snakemake("--list-target-rules").stdout
    rules = {
        "all",
        "pdf",
        "verdicts_figure",
        "explorer",
    }  # of which targets are made
    assert expected.keys() | rules == {*re.findall(r"^(\w+)", listing, flags=re.MULTILINE)}
    # One plan for all of them: what a target lists, and has not, is made.
    text = finished.dry_run(*expected)
    for target, jobs in expected.items():
        if jobs:  # what rests on none is finished
            assert listed_jobs(text, target) == jobs, target
