"""What Snakemake plans, before anything is made and after which change, in copies of the repository."""

import os
import re
import shutil
from pathlib import Path

import pytest

from checkouts import Checkout, Plan, jobs_of, plan_of
from effective_lr.document import manuscript
from effective_lr.engine import contents, grid, resources
from effective_lr.engine.contents import Chapter
from shared import ROOT

SCALES = sorted({scale for name in contents.names() for scale in grid.scales(ROOT / "config" / name)})
STUDIES = "workflow/effective_lr/studies"
LONGEST_COMMAND = 4000  # of the 131,072 bytes that Linux allows for one argument


def placed(checkout: Checkout, chapters: dict[str, Chapter], kind: str) -> dict[str, manuscript.Float]:
    """figure_1, ... or table_1, ... as the paper prints them."""
    return manuscript.scan(checkout.root / "paper", list(chapters), checkout.root).numbered(kind)


def everything(checkout: Checkout, scale: str = "smoke") -> Plan:
    """The jobs between data and paper."""
    chapters = checkout.chapters(scale)
    figures = placed(checkout, chapters, "figure").values()
    return {
        "train": jobs_of(chapters),
        "checks": set(chapters),
        "figure": {f"{one.study}/{one.item}" for one in figures if one.study != manuscript.FRAME},
        "chapter": set(chapters),
    }


def rests_on(chapters: dict[str, Chapter], study: str, name: str) -> set[str]:
    """The trainings of an item: a figure's are those that it shows, a table is made with its whole chapter."""
    figure = chapters[study].contents.figures.get(name)
    return jobs_of(chapters, study, chapters[study].experiments_of(figure) if figure else None)


def of_study(plan: Plan, study: str) -> Plan:
    """The jobs of a study alone, but for its notebooks."""
    own = {rule: {job for job in jobs if job.split("/")[0] == study} for rule, jobs in plan.items()}
    return {rule: jobs for rule, jobs in own.items() if jobs and rule != "notebook"}


def test_a_figure_plans_the_trainings_that_it_rests_on_and_no_others(untouched: Checkout) -> None:
    chapters = untouched.chapters()
    second = placed(untouched, chapters, "figure")["figure_2"]
    for target, study, name in [("figure_2", second.study, second.item), ("plane", "normalization", "plane")]:
        chapter, jobs = chapters[study], rests_on(chapters, study, name)
        assert untouched.planned(target) == {
            "data": {chapter.study.data(chapter.jobs[job.split("/")[1]][0]) for job in jobs} - {None},
            "train": jobs,
            "figure": {f"{study}/{name}"},
            target: {""},
        }


@pytest.mark.parametrize(("number", "scale"), [*enumerate(SCALES)])
def test_every_scale_plans_all_from_data_to_paper_by_short_commands_and_in_order(
    untouched: Checkout, number: int, scale: str
) -> None:
    """First data and checks; then the trainings of figures 2 and 3, so that who waits has something to look at (figure
    1 shows all verdicts); then the longest."""
    is_gpu, chapters = number % 2 == 1, untouched.chapters(scale)
    jobs = untouched.dry_run("--config", f"scale={scale}", f"device={'cuda' if is_gpu else 'cpu'}")
    assert plan_of(jobs) == {
        "data": {chapter.study.data(run) for chapter in chapters.values() for run in chapter.runs} - {None},
        **everything(untouched, scale),
        **{rule: {""} for rule in ("verdicts_figure", "pdf", "all")},
    }
    assert max(len(job["Shell command"]) for job in jobs) <= LONGEST_COMMAND
    figures = placed(untouched, chapters, "figure")
    first = {job for n in ("figure_2", "figure_3") for job in rests_on(chapters, figures[n].study, figures[n].item)}
    data = min(int(job["priority"]) for job in jobs if job["rule"] == "data")
    for job in jobs:
        if job["rule"] == "train":
            study, name = re.findall(r"=([^,]+)", job["wildcards"])
            of_job = chapters[study].study, chapters[study].jobs[name]
            minutes = resources.time_limit(*of_job, is_gpu=is_gpu)
            asked = f"gpu={int(is_gpu)}, runtime={minutes}, mem_mb={resources.memory_limit(*of_job)}"
            assert asked in job["resources"]
            comes_first, longer = divmod(int(job["priority"]), 5000)
            assert (comes_first, longer) == (int(f"{study}/{name}" in first), resources.time_limit(*of_job))
            assert int(job["priority"]) < data


def test_the_snakefile_is_read_without_libraries(untouched: Checkout) -> None:
    """Every job on a cluster reads it again."""
    found = untouched.imports("-m", "snakemake", "--dry-run", "--quiet", "--config", "scale=study")
    slow = {"torch", "matplotlib", "seaborn", "statsmodels", "scipy", "sklearn", "pandas", "pyarrow"}
    assert "effective_lr" in found and slow.isdisjoint(found)


def test_published_runs_are_redrawn_without_training(untouched: Checkout) -> None:
    jobs = untouched.dry_run("all", "report", "--config", "metrics=published", "scale=study")
    plan = plan_of(jobs)
    assert {"train", "checks"}.isdisjoint(plan)
    assert plan["chapter"] == set(untouched.layout(scale="study", metrics="published").chapters)
    assert plan["pdf"] == {""}
    assert not [job for job in jobs if "results/published/" in job.get("output", "")]  # it is an input alone


def test_the_whole_paper_needs_no_published_results(fresh: Checkout) -> None:
    shutil.rmtree(fresh.root / "results/published")
    jobs = fresh.dry_run("all", "report", "--config", "scale=laptop")
    assert "pdf" in plan_of(jobs) and "results/published/" not in str(jobs)


def test_a_mistake_in_the_text_ends_snakemake_with_one_sentence(fresh: Checkout) -> None:
    source = fresh.root / "paper/normalization/text.tex"
    text, made = source.read_text(), sorted((fresh.root / "results").rglob("*"))
    for line, named in [(r"\widefigure{missing}", "contents.yaml"), (r"\input{missing}", "paper/missing.tex")]:
        source.write_text(f"{text}{line}\n")
        result = fresh.snakemake("--cores", "1")
        assert result.returncode == 1 and sorted((fresh.root / "results").rglob("*")) == made
        [sentence] = [one for one in result.stdout.splitlines() if not re.match("Using workflow|Config file", one)]
        place = f"paper/normalization/text.tex:{len(text.splitlines()) + 1}: {line}: "
        assert sentence.startswith(place) and named in sentence


def test_it_runs_in_another_folder(fresh: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(fresh.root / ".snakemake", ignore_errors=True)  # that of checkouts.py
    (tmp_path / "elsewhere").mkdir()
    words = ("--snakefile", str(fresh.root / "Snakefile"), "--directory", "elsewhere")
    plan = fresh.planned(*words, folder=tmp_path)
    assert plan["train"] == jobs_of(fresh.chapters()) and "pdf" in plan
    assert not (fresh.root / ".snakemake").exists()


def test_another_workflow_uses_it_as_a_module_with_its_own_config(fresh: Checkout, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    expected = jobs_of(fresh.chapters())
    (fresh.root / "config/config.yaml").write_text("{}")
    (tmp_path / "other/Snakefile").write_text(
        f"""
module effective_lr:
    snakefile: "{fresh.root}/Snakefile"
    config: {{"scale": "smoke"}}

use rule * from effective_lr as theirs_*

rule mine:
    default_target: True
    input: rules.theirs_all.input
"""
    )
    plan = fresh.planned(folder=tmp_path / "other")
    assert plan["theirs_train"] == expected and {"theirs_pdf", "mine"} <= plan.keys()


MADE = ("all", "notebooks", "explore")
SMOKE = "config/normalization/smoke.yaml"
RMSPROP = "{lr: 0.009, l2: [0.00081, 0.00729], seed: 600}"


def test_edits_of_what_no_result_rests_on_plan_nothing(finished: Checkout) -> None:
    training = finished.root / f"{STUDIES}/norms/training.py"
    text = re.sub(r'"""', '"""Edited. ', training.read_text(), count=1)
    training.write_text(text.replace("\n\n\n", "\n\n\n\n# Edited.\n"))
    for module in ("engine/certify", "evidence/published", "document/generate_docs"):
        finished.append(f"workflow/effective_lr/{module}.py", "EDITED = 1\n")
    for source in (SMOKE, "Snakefile", "workflow/rules/train.smk"):
        finished.append(source, "# edited\n")
    finished.edit(SMOKE, RMSPROP, "{seed: 600, l2: [0.00729, 0.00081], lr: 0.009}")
    finished.edit(SMOKE, "lr: [0.003, 0.009]", "lr: [0.009, 0.003]")
    build = finished.root / "paper/build"  # outputs: a folder of tables newer than the PDF reruns it
    for folder in ("config", "notebooks", "paper", "profiles", "workflow", "results/data"):
        for path in (finished.root / folder).rglob("*"):
            if not path.is_relative_to(build):
                path.touch()
    how = ("device=cuda", "gpu_slots=3", "checkpoint_seconds=5")  # jobs run is no reason to run them again
    assert finished.planned(*MADE, "--config", *how) == {}


def test_an_edit_reruns_what_rests_on_it_and_nothing_else(finished: Checkout) -> None:
    """Of each study another part; then of what all of them share."""
    whole, added = everything(finished), {".py": "EDITED = 1\n", ".mplstyle": "lines.linewidth: 9\n", ".yaml": ""}

    def planned_after(*sources: str) -> Plan:
        texts = {finished.root / source: (finished.root / source).read_text() for source in sources}
        for path, text in texts.items():
            words = re.sub(r"(title: (?=\w)|caption: >-\n +)", r"\1Edited ", text) if path.suffix == ".yaml" else text
            path.write_text(words + added.get(path.suffix, "% edited\n"))
            if STUDIES in str(path):
                os.utime(path, (0, 0))  # an old time stamp hides no edit of code
        plan = finished.planned(*MADE)
        for path, text in texts.items():
            path.write_text(text)
        return plan

    plan = planned_after(
        f"{STUDIES}/normalization/training.py",
        f"{STUDIES}/stability/tables.py",
        f"{STUDIES}/norms/figures.py",
        f"{STUDIES}/manifold/checks.py",
    )
    reran = {
        "normalization": set(whole),
        "stability": {"chapter"},
        "norms": {"figure"},
        "manifold": {"checks", "chapter"},
    }
    for study, rules in reran.items():
        own = of_study(whole, study)
        assert of_study(plan, study) == {rule: own[rule] for rule in rules}, study
    assert plan["pdf"] == plan["all"] == plan["explorer"] == {""}

    plan = planned_after(
        f"{STUDIES}/normalization/analysis.py",
        "paper/stability/contents.yaml",  # titles and captions
        "paper/norms/claims.yaml",
        f"{STUDIES}/manifold/statistics.py",
    )
    assert plan["chapter"] == whole["chapter"] and {"train", "checks"}.isdisjoint(plan)
    assert plan["figure"] == of_study(whole, "normalization")["figure"]

    jobs = planned_after("workflow/effective_lr/engine/jobs.py")  # they run, and find their runs finished
    assert jobs["train"] == whole["train"] and {"data", "checks"}.isdisjoint(jobs)
    style = planned_after("workflow/effective_lr/document/style.mplstyle")
    assert style.keys() == {"figure", "notebook", "pdf", *MADE} - {"explore"} and style["figure"] == whole["figure"]
    text = planned_after("paper/normalization/text.tex", "paper/references.bib", "notebooks/normalization/theory.py")
    assert text == {"notebook": {"normalization/theory"}, "pdf": {""}, "all": {""}, "notebooks": {""}}
    assert finished.planned(*MADE) == {}  # each edit was undone


def test_added_runs_and_swapped_values_train_their_jobs_alone(finished: Checkout) -> None:
    # Snakemake compares params as a set of values: as params of their own, swapped numbers would look the same.
    before = finished.chapters()["normalization"]
    finished.edit(SMOKE, RMSPROP, RMSPROP.replace("0.00729]", "0.00729, 0.02]"))
    finished.edit(SMOKE, "lr: 1.44, l2: 0.000444444444444", "lr: 0.000444444444444, l2: 1.44", times=2)
    after = finished.chapters()["normalization"]
    changed = {name for name, runs in after.jobs.items() if runs != before.jobs.get(name)}
    assert all(changed & {*after.jobs_of([experiment])} for experiment in ("plane_rmsprop", "symmetry"))
    plan = finished.planned()
    assert plan["train"] == {f"normalization/{name}" for name in changed}
    figures = after.contents.figures.items()
    drawn = {f"normalization/{name}" for name, one in figures if changed & {*after.jobs_of(one.experiments)}}
    assert plan["figure"] == drawn & everything(finished)["figure"] and len(drawn) < len(figures)


def test_after_a_failed_training_every_target_still_asks_for_it(finished: Checkout) -> None:
    """Snakemake removes the output of a failed job and forgets it; the old figures stay and look new."""
    chapters = finished.chapters()
    for study in chapters:
        finished.append(f"{STUDIES}/{study}/training.py", "EDITED = 1\n")
    assert finished.snakemake("--cores", "2", "--keep-going", broken="train").returncode == 1
    assert (finished.root / "paper/build/smoke/main.pdf").exists()
    names, titles = contents.target_names(chapters), {}
    expected = dict.fromkeys(("paper", "verdicts", "notebooks", "explore", "report"), jobs_of(chapters))
    for study, chapter in chapters.items():
        expected[study], titles[study] = jobs_of(chapters, study), chapter.study.title
        for name, item in chapter.contents.shown.items():
            target = names[study, name]
            expected[target], titles[target] = rests_on(chapters, study, name), item.title
        for name, claim in chapter.claims.items():
            target = f"claim_{name}"
            expected[target], titles[target] = jobs_of(chapters, study, claim.experiments), claim.title
    for number, one in {**placed(finished, chapters, "figure"), **placed(finished, chapters, "table")}.items():
        same = names.get((one.study, one.item), "paper")
        expected[number], titles[number] = expected[same], f"`{same}`"

    listing = finished.snakemake("--list-target-rules").stdout
    shown = dict(re.findall(r"^(\w+) \((.+)\)$", listing, flags=re.MULTILINE))
    assert shown.keys() == expected.keys() | {"all", "pdf", "verdicts_figure", "explorer"}  # of which targets are made
    assert not [target for target, title in titles.items() if title not in shown[target]]
    # One plan for all of them: what a target lists, and has not, is made.
    listed = {job["rule"]: job.get("input", "") for job in finished.dry_run(*expected)}
    for target, jobs in expected.items():
        if jobs:  # what rests on none is finished
            found = re.findall(r"(\w+)/jobs/([^,\s]+)\.parquet", listed[target])
            assert {f"{study}/{job}" for study, job in found} == jobs, target
