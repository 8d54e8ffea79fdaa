"""What Snakemake plans, before anything is made and after which change, in copies of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from checkouts import Checkout, listed_shards
from effective_lr.document import manuscript
from effective_lr.engine import contents, grid, limits
from shared import ROOT

SCALES = sorted({scale for name in contents.names() for scale in grid.scales(ROOT / "config" / name)})
STUDY = "workflow/effective_lr/studies/normalization"


# Nothing made yet


def test_a_crate_and_what_codecheck_lists_are_made_by_rules(fresh: Checkout) -> None:
    manifest = yaml.safe_load((ROOT / "codecheck.yml").read_text())["manifest"]
    plan = fresh.planned("crate", *(one["file"] for one in manifest), "--config", "scale=study")
    assert "" in plan["bundle"]
    claims = {f"{name}/{claim}" for name, chapter in fresh.chapters("study").items() for claim in chapter.claims}
    assert plan["claim"] == claims


def test_plain_snakemake_plans_everything_from_the_data_to_the_paper(fresh: Checkout) -> None:
    chapters = fresh.chapters()
    floats = manuscript.scan(fresh.root / "paper", list(chapters), fresh.root).floats

    def of_all(kind: str) -> set[str]:
        """<study>/<name>"""
        found = {
            "experiments": lambda chapter: chapter.experiments,
            "claims": lambda chapter: chapter.claims,
            "notebooks": lambda chapter: chapter.contents.notebooks,
        }
        return {f"{name}/{one}" for name, chapter in chapters.items() for one in found[kind](chapter)}

    def placed(kind: str) -> set[str]:
        return {f"{one.study}/{one.item}" for one in floats if one.kind == kind and one.study != manuscript.FRAME}

    data = {one.study.data(run) for one in chapters.values() for run in one.runs_of(list(one.experiments))}
    assert fresh.planned() == {
        "data": data - {None},
        "train": fresh.shards(),
        "gather": of_all("experiments"),
        "checks": set(chapters),
        "claim": of_all("claims"),
        "figure": placed("figure"),
        "table": placed("table"),
        "numbers": set(chapters),
        "frame": {""},
        "pdf": {""},
        "notebook": of_all("notebooks"),
        "all": {""},
    }


def test_a_figure_plans_only_the_shards_of_its_experiments(fresh: Checkout) -> None:
    for chapter in fresh.chapters().values():
        trained = [one for one in chapter.contents.figures.items() if one[1].experiments]
        name, item = min(trained, key=lambda one: len(one[1].experiments))
        plan = fresh.planned(contents.target_names(fresh.chapters())[chapter.name, name])
        assert plan["train"] == fresh.shards(chapter.name, *item.experiments)
        assert plan["gather"] == {f"{chapter.name}/{experiment}" for experiment in item.experiments}
        assert plan["figure"] == {f"{chapter.name}/{name}"}
        assert {"table", "claim", "pdf", "notebook"}.isdisjoint(plan)


def test_targets_are_what_the_contents_name_with_their_titles(fresh: Checkout) -> None:
    listing = fresh.snakemake("--list-target-rules").stdout
    titles = dict(re.findall(r"^(\w+) \((.+)\)$", listing, flags=re.MULTILINE))
    chapters = fresh.chapters()
    floats = manuscript.scan(fresh.root / "paper", list(chapters), fresh.root)
    for (study, name), target in contents.target_names(chapters).items():
        shown = chapters[study].contents
        assert titles[target] == {**shown.figures, **shown.tables}[name].title
    for name, chapter in chapters.items():
        assert chapter.study.title in titles[name]
        assert all(claim.title in titles[f"claim_{key}"] for key, claim in chapter.claims.items())
    for kind in ("figure", "table"):
        for number, float_ in floats.numbered(kind).items():
            name = contents.target_names(chapters).get((float_.study, float_.item))
            assert name is None or f"`{name}`" in titles[number]
    assert {"all", "paper", "notebooks", "explore", "report"} <= titles.keys()


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_plans_its_own_runs(finished: Checkout, scale: str) -> None:
    plan = finished.planned("--config", f"scale={scale}")
    if scale == "smoke":
        assert plan == {}
    else:
        chapters = finished.chapters(scale)
        assert plan["train"] == {f"{name}/{shard}" for name, chapter in chapters.items() for shard in chapter.shards}


def test_the_longest_jobs_go_first(fresh: Checkout) -> None:
    told = fresh.snakemake("--dry-run", "--config", "scale=laptop", "--workflow-profile", "none").stdout
    jobs = re.findall(r"^rule train:\n((?:    .*\n)*)", told, flags=re.MULTILINE)
    found = {}
    for job in jobs:
        study, shard = re.findall(r"wildcards: study=(\w+), shard=(\S+)", job)[0]
        found[study, shard] = int(re.findall(r"priority: (\d+)", job)[0])
    assert found == {
        (name, shard): limits.time_limit(chapter.study, runs, is_gpu=False)
        for name, chapter in fresh.chapters("laptop").items()
        for shard, runs in chapter.shards.items()
    }
    assert len(set(found.values())) > 3
    data = re.findall(r"^(?:local)?rule data:\n(?:    .*\n)*?    priority: (\d+)", told, flags=re.MULTILINE)
    assert data and min(map(int, data)) > max(found.values())


def test_published_metrics_are_redrawn_without_training(finished: Checkout) -> None:
    chapters = finished.chapters("study", "published")
    published = [contents.published_table(finished.root, name, "study") for name in chapters]
    for table in published:
        for path in (table, table.with_name("checks.parquet")):
            path.write_text("published")
    plan = finished.planned("--config", "metrics=published", "scale=study")
    assert {"train", "checks"}.isdisjoint(plan)
    assert plan["claim"] == {f"{name}/{claim}" for name, chapter in chapters.items() for claim in chapter.claims}
    finished.build("--config", "metrics=published", "scale=study")
    assert (finished.root / "paper/build/published-study/main.pdf").exists()
    assert {table.read_text() for table in published} == {"published"}


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_the_whole_paper_needs_no_published_results(fresh: Checkout, scale: str) -> None:
    shutil.rmtree(fresh.root / "results/published")
    chapters = fresh.chapters(scale)
    words = ("all", "report", "--config", f"scale={scale}")
    plan = fresh.planned(*words)
    assert plan["claim"] == {f"{name}/{claim}" for name, chapter in chapters.items() for claim in chapter.claims}
    assert plan["pdf"] == {""}
    told = fresh.snakemake(*words, "--dry-run", "--printshellcmds", "--workflow-profile", "none").stdout
    assert "rule pdf" in told and "results/published" not in told


def test_published_files_are_inputs_of_the_tables_that_show_them_alone(fresh: Checkout) -> None:
    told = fresh.snakemake("all", "report", "--dry-run", "--workflow-profile", "none").stdout
    jobs = [job for job in re.split(r"^(?:local)?rule ", told, flags=re.MULTILINE) if "results/published" in job]
    made = {re.sub(r"(?s).*output: \S*/(\w+)\.tex.*", r"\1", job) for job in jobs}
    assert made == {"speed", "first_registration", "verdicts_by_scale"}
    [by_scale] = [job for job in jobs if "verdicts_by_scale.tex" in job]
    assert "results/published/normalization/study.claims.json" in by_scale


def test_what_is_measured_here_goes_before_what_is_published(fresh: Checkout) -> None:
    def file_of_speed(*words: str) -> str:
        told = fresh.snakemake("speed", "--dry-run", "--workflow-profile", "none", "--config", *words).stdout
        [name] = re.findall(r"\S*benchmark\.json", told)
        return name

    assert file_of_speed("scale=smoke") == "results/published/normalization/benchmark.json"
    (fresh.root / "results/benchmark.json").write_text("{}")
    assert file_of_speed("scale=smoke") == "results/benchmark.json"
    assert file_of_speed("metrics=published", "scale=study") == "results/published/normalization/benchmark.json"


def test_the_snakefile_loads_no_torch(fresh: Checkout) -> None:
    # Every cluster job reads the Snakefile again.
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "snakemake", "--dry-run", "--quiet"],
        cwd=fresh.root,
        capture_output=True,
        text=True,
    )
    imported = set(re.findall(r"\| +(\S+)$", result.stderr, flags=re.MULTILINE))
    assert result.returncode == 0
    assert "effective_lr.engine.grid" in imported
    assert {"torch", "seaborn", "matplotlib", "pandas"}.isdisjoint(imported)


# From elsewhere


def test_it_runs_in_another_folder(fresh: Checkout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(fresh.root / ".snakemake", ignore_errors=True)  # that of checkouts.py
    words = ("--snakefile", str(fresh.root / "Snakefile"), "--directory", "elsewhere")
    assert fresh.planned(*words, folder=tmp_path)["train"] == fresh.shards()
    assert not (fresh.root / ".snakemake").exists()


def test_the_catalog_finds_its_snakefile(fresh: Checkout) -> None:
    plan = fresh.planned("--snakefile", "workflow/Snakefile")
    assert plan["train"] == fresh.shards() and "pdf" in plan


def test_another_workflow_uses_it_as_a_module_with_its_own_config(fresh: Checkout, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (fresh.root / "config/config.yaml").write_text("{}\n")
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
    assert plan["theirs_train"] == fresh.shards()
    assert "theirs_pdf" in plan and "mine" in plan


# Changes after everything was made


def test_a_finished_paper_plans_nothing(finished: Checkout) -> None:
    assert finished.planned() == {}


def test_new_time_stamps_plan_nothing(finished: Checkout) -> None:
    for folder in ("config", "notebooks", "paper", "profiles", "workflow", "results/data", "Snakefile"):
        for path in [finished.root / folder, *(finished.root / folder).rglob("*")]:
            path.touch()
    assert finished.planned() == {}


# Rules, and those that follow from them.
FOLLOWS = {
    "train": {"gather"},
    "checks": {"claim", "table", "numbers"},
    "gather": {"claim", "figure", "table", "numbers", "notebook"},
    "claim": {"table", "numbers", "notebook", "frame"},
    "figure": {"pdf"},
    "table": {"pdf"},
    "numbers": {"pdf"},
    "frame": {"pdf"},
    "pdf": {"all"},
    "notebook": {"all"},
    "all": set(),
}


def with_followers(rules: set[str]) -> set[str]:
    return rules.union(*(with_followers(FOLLOWS[rule]) for rule in rules))


def test_edits_of_what_no_result_rests_on_rerun_nothing(finished: Checkout) -> None:
    training = f"{STUDY}/training.py"
    text = (finished.root / training).read_text()
    text = re.sub(r'"""', '"""Edited. ', text, count=1).replace("\n\n\n", "\n\n\n\n# Edited.\n")
    (finished.root / training).write_text(text)
    for module in (
        "engine/plan",
        "engine/certify",
        "engine/limits",
        "evidence/published",
        "evidence/comparison",
        "document/pages",
    ):
        finished.append(f"workflow/effective_lr/{module}.py", "EDITED = 1\n")
    comments = ("paper/normalization/claims.yaml", "paper/normalization/contents.yaml", f"{STUDY}/statistics.py")
    for source in (*comments, "config/normalization/smoke.yaml", "Snakefile", "workflow/rules/train.smk"):
        finished.append(source, "# edited\n")
    assert finished.planned() == {}


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        (f"{STUDY}/training.py", {"train", "checks"}),
        (f"{STUDY}/settings.py", {"train", "checks"}),
        (f"{STUDY}/checks.py", {"checks"}),
        (f"{STUDY}/analysis.py", {"gather"}),
        (f"{STUDY}/statistics.py", {"claim"}),
        (f"{STUDY}/figures.py", {"figure", "notebook"}),
        (f"{STUDY}/tables.py", {"table"}),
        (f"{STUDY}/numbers.py", {"numbers"}),
        ("workflow/effective_lr/engine/jobs.py", {"train"}),  # the job runs, and finds its runs finished
        ("workflow/effective_lr/evidence/tidy.py", {"gather"}),
        ("workflow/effective_lr/document/style.mplstyle", {"figure", "notebook"}),
        ("workflow/effective_lr/document/shared_tables.py", {"table"}),
        ("workflow/effective_lr/document/notebooks.py", {"notebook"}),
        ("paper/normalization/text.tex", {"pdf"}),
        ("paper/references.bib", {"pdf"}),
        ("notebooks/normalization/theory.py", {"notebook"}),
    ],
)
def test_an_edit_reruns_what_rests_on_it_and_nothing_else(finished: Checkout, source: str, rules: set[str]) -> None:
    edits = {".py": "EDITED = 1\n", ".mplstyle": "lines.linewidth: 9\n"}
    finished.append(source, edits.get(Path(source).suffix, "% edited\n"))
    plan = finished.planned()
    assert set(plan) == with_followers(rules)
    if "train" in plan:
        assert plan["train"] == finished.shards("normalization" if source.startswith(STUDY) else "")
    if source.startswith(STUDY):  # no other study
        own = {"train", "gather", "checks", "claim", "figure", "table", "numbers", "notebook"}
        assert {job.split("/")[0] for rule in own & set(plan) for job in plan[rule]} == {"normalization"}


def test_a_caption_is_typeset_anew_and_nothing_is_drawn(finished: Checkout) -> None:
    contents_yaml = "paper/normalization/contents.yaml"
    chapter = finished.chapters()["normalization"]
    figure, table = (next(iter(items.values())) for items in (chapter.contents.figures, chapter.contents.tables))
    name = next(iter(chapter.contents.tables))
    for item, redone in ((figure, {}), (table, {"table": {f"normalization/{name}"}})):
        first = item.caption[:60]
        finished.edit(contents_yaml, first, f"Edited. {first}")
        plan = finished.planned()
        assert plan == {"numbers": {"normalization"}, "pdf": {""}, "all": {""}, **redone}
        finished.edit(contents_yaml, f"Edited. {first}", first)


def test_a_tolerance_decides_on_its_claim_again(finished: Checkout) -> None:
    claim = finished.chapters()["normalization"].claims["C8"]
    finished.edit("paper/normalization/claims.yaml", claim.reason[:30], f"Edited. {claim.reason[:30]}")
    plan = finished.planned()
    assert plan["claim"] == {"normalization/C8"} and {"train", "gather", "checks", "figure"}.isdisjoint(plan)


def test_an_edit_with_an_old_time_stamp_is_seen(finished: Checkout) -> None:
    finished.append(f"{STUDY}/networks.py", "EDITED = 1\n")
    os.utime(finished.root / STUDY / "networks.py", (0, 0))
    assert finished.planned()["train"] == finished.shards("normalization")


def test_an_edit_undone_plans_nothing(finished: Checkout) -> None:
    finished.append(f"{STUDY}/networks.py", "EDITED = 1\n")
    finished.edit(f"{STUDY}/networks.py", "EDITED = 1\n", "")
    assert finished.planned() == {}


def test_how_jobs_are_run_is_no_reason_to_train_again(finished: Checkout) -> None:
    for settings in (["device=cpu", "gpu_slots=3"], ["device=cuda", "checkpoint_seconds=5"]):
        assert finished.planned("--config", *settings) == {}, settings


def test_retrain_with_forcerun_plans_every_shard(finished: Checkout) -> None:
    plan = finished.planned("--forcerun", "train", "--config", "retrain=true")
    assert plan["train"] == finished.shards()


SMOKE = "config/normalization/smoke.yaml"
RMSPROP = "{lr: 0.009, l2: [0.00081, 0.00729], seed: 200}"


def test_an_added_penalty_trains_one_shard(finished: Checkout) -> None:
    finished.edit(SMOKE, RMSPROP, RMSPROP.replace("0.00729]", "0.00729, 0.02]"))
    plan = finished.planned()
    assert plan["train"] == finished.shards("normalization", "plane_rmsprop")
    assert len(plan["train"]) == 1
    chapter = finished.chapters()["normalization"]
    resting = {name for name in chapter.experiments if plan["train"] & finished.shards("normalization", name)}
    assert resting == {"plane_rmsprop", "lost_units"}  # which has a shard of the same settings
    assert plan["gather"] == {f"normalization/{name}" for name in resting}
    figures = chapter.contents.figures.items()
    assert plan["figure"] == {f"normalization/{name}" for name, item in figures if resting & {*item.experiments}}


def test_an_added_seed_trains_its_new_shard_alone(finished: Checkout) -> None:
    before = finished.shards()
    finished.edit(SMOKE, RMSPROP, RMSPROP.replace("seed: 200", "seed: [200, 201]"))
    assert finished.planned()["train"] == finished.shards() - before
    assert len(finished.shards() - before) == 1


@pytest.mark.parametrize(
    "swapped",
    ["initial_norm: 1.024, lr: 0.000625, l2: 0.0625", "initial_norm: 0.0625, lr: 1.024, l2: 0.000625"],
    ids=["norm and penalty", "learning rate and penalty"],
)
def test_swapped_values_are_seen(finished: Checkout, swapped: str) -> None:
    # Snakemake compares params as a set of values: as params of their own, swapped numbers would look the same. The
    # shard does not tell them apart either: its name has neither the learning rate nor the penalty nor the first norm.
    before = finished.shards()
    finished.edit(SMOKE, "initial_norm: 0.0625, lr: 0.000625, l2: 1.024", swapped, times=5)
    assert finished.shards() == before
    assert len(finished.planned()["train"]) == 5


def test_the_order_in_a_scale_trains_nothing(finished: Checkout) -> None:
    finished.edit(SMOKE, RMSPROP, "{seed: 200, l2: [0.00729, 0.00081], lr: 0.009}")
    finished.edit(SMOKE, "initial_norm: [1, 4]", "initial_norm: [4, 1]")
    assert "train" not in finished.planned()


def test_after_a_failed_training_every_target_still_asks_for_it(finished: Checkout) -> None:
    # Snakemake removes the output of a failed job and forgets it; the old figures stay and look new.
    chapters = finished.chapters()
    for study in chapters:
        finished.append(f"workflow/effective_lr/studies/{study}/training.py", "EDITED = 1\n")
    assert finished.snakemake("--cores", "1", "--keep-going", broken="train").returncode == 1
    assert (finished.root / "paper/build/smoke/main.pdf").exists()
    expected = {name: finished.shards(name) for name in chapters}
    for (study, name), target in contents.target_names(chapters).items():
        shown = chapters[study].contents
        item = {**shown.figures, **shown.tables}[name]
        needed = chapters[study].experiments_of(item)
        expected[target] = finished.shards(study, *needed) if needed else set()
    for study, chapter in chapters.items():
        for name, claim in chapter.claims.items():
            expected[f"claim_{name}"] = finished.shards(study, *claim.experiments) if claim.experiments else set()
    floats = manuscript.scan(finished.root / "paper", list(chapters), finished.root)
    for kind in ("figure", "table"):
        for number, one in floats.numbered(kind).items():
            target = contents.target_names(chapters).get((one.study, one.item))
            expected[number] = expected[target] if target else finished.shards()
    expected |= dict.fromkeys(("paper", "notebooks", "explore", "report"), finished.shards())
    # One plan for all of them: what a target lists, and has not, is made.
    plan = finished.snakemake(*expected, "--dry-run", "--workflow-profile", "none").stdout
    for target, shards in expected.items():
        if shards:  # what rests on none is finished
            assert listed_shards(plan, target) == shards, target


def test_a_scale_without_a_watermark_passes_an_empty_one(fresh: Checkout) -> None:
    for path in (fresh.root / "config").glob("*/smoke.yaml"):
        path.write_text(re.sub(r"^watermark: .*\n", "", path.read_text(), flags=re.MULTILINE))
    result = fresh.snakemake("paper", "--dry-run", "--printshellcmds", "--quiet", "progress")
    [command] = [line for line in (result.stdout + result.stderr).splitlines() if "effective_lr frame" in line]
    assert "--watermark=''" in command or "--watermark= " in command
