"""The generated parts of the documentation: `make docs` writes them, and a test compares them with their source.

README.md                           how many of the published claims have which verdict
docs/results.md                     these verdicts, and the targets with their cost
results/published/*/*.claims.json   the verdicts with all their numbers
config/<study>/README.md            every setting of a run of the study
environment.yml                     the pins of requirements.lock
"""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from effective_lr.document import manuscript
from effective_lr.engine import contents, grid
from effective_lr.engine.contents import Chapter, published_scales, published_table
from effective_lr.engine.inputs import Layout
from effective_lr.engine.storage import Provenance, read_json, read_provenance
from effective_lr.engine.study import Study, load, names
from effective_lr.evidence.published import write_claims
from effective_lr.evidence.verdicts import Claims, label_of, part_text, worst_part

ROOT = Path(__file__).parents[3]
TARGETS_SCALE = "laptop"
TARGETS_CORES = 2
PUBLISHED_SCALE = "study"
CENTRAL = ("normalization", "C2")  # the claim that the README names


def with_sections(page: Path, **contents: str) -> str:
    """The text of a page with these contents between the marks of its generated sections."""
    text = page.read_text(encoding="utf-8")
    for name, content in contents.items():
        begin, end = f"<!-- {name}: written by `make docs` -->\n", f"\n<!-- end of {name} -->"
        text = text.split(begin)[0] + begin + content + end + text.split(end)[1]
    return text


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


# The config


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema admits, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([schema["type"], ", ".join(limits)]).strip()


def settings_page(study: Study) -> str:
    """config/<study>/README.md: the scales of a study, and the settings of a run with the source of each."""
    folder = ROOT / "config" / study.name
    scales = "\n".join(
        f"- `{name}.yaml`: {grid.load_scale(folder, name, study)[0].about}" for name in grid.scales(folder)
    )
    rows = []
    for key, schema in study.run.model_json_schema()["properties"].items():
        source = schema.get("source", "ours")
        tags = source if isinstance(source, dict) else {"": source}
        sources = ", ".join(f"{value} [{tag}]".strip() for value, tag in tags.items())
        rows.append([f"`{key}`", schema.get("description", key), allowed(schema), sources, schema.get("change", "")])
    table = markdown(["key", "meaning", "values", "source", "when to change"], rows)
    return f"""<!-- Written by `make docs`. -->
# {study.title}

The study `{study.name}` follows {study.follows}. Its scales:

{scales}

The settings of a run, any of which `defaults`, `grid` and `cases` of a scale may set:

{table}
"""


def environment(path: Path) -> str:
    """environment.yml with the pins of the lock in it: conda and Snakemake copy this file alone."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.rstrip("\\ ") for line in lock if re.match(r"[\w.-]+(\[.*\])?==", line)]
    lines = [f'      - "{pin}"' if ";" in pin else f"      - {pin}" for pin in pins]
    before = path.read_text(encoding="utf-8").split("  - pip:\n")[0]
    return "\n".join([f"{before}  - pip:", *lines, ""])


# The documents


@cache
def records(study: str) -> dict[str, Provenance]:
    """The published runs of a study at the scale of the targets, by their names."""
    path = published_table(ROOT, study, TARGETS_SCALE)
    return {record.run_id: record for record in read_provenance(path)} if path.exists() else {}


def cost(chapter: Chapter, experiments: list[str]) -> str:
    """How many trainings experiments need from raw data, and the minutes that these took when they were published."""
    runs = [run.run_id for job in chapter.jobs_of(experiments) for run in chapter.jobs[job]]
    seconds = [records(chapter.name)[run].seconds for run in runs if run in records(chapter.name)]
    minutes = (round(sum(seconds) / 60 / TARGETS_CORES) or "<1") if seconds else "not measured"
    return f"{len(runs)}, {minutes}" if runs else "none"


def targets_table(chapters: dict[str, Chapter]) -> str:
    """The studies and figures: command, what each shows, what it costs from raw data, and how fast the cores are."""
    images = median(record.examples_per_second for record in records("normalization").values())
    speed = (
        f"Minutes are for {TARGETS_CORES} cores that train {images:,.0f} images/s each in the study `normalization`."
    )
    numbered = manuscript.scan(ROOT / "paper", list(chapters), ROOT).numbered("figure")
    numbers = {(one.study, one.item): f", `{name}`" for name, one in numbered.items()}
    targets = contents.target_names(chapters)
    rows = []
    for name, chapter in chapters.items():
        rows.append([f"`{name}`", f"**{chapter.study.title}**", cost(chapter, list(chapter.experiments))])
        for figure, item in chapter.contents.figures.items():
            command = f"`{targets[name, figure]}`{numbers.get((name, figure), '')}"
            rows.append([command, item.title, cost(chapter, chapter.experiments_of(item))])
    return speed + "\n\n" + markdown(["target", "shows", "trainings, minutes"], rows)


def deciding_test(study: str, claim: dict[str, Any]) -> str:
    """The test that decided a claim, with its value, interval and tolerance."""
    part = worst_part(claim)
    if part is None:
        return "no test"
    _, digits = label_of(load(study), part["statistic"])
    return part_text(part, ".2g" if digits is None else f".{digits}f").replace("_", " ")


def verdicts_table(claims: dict[str, Claims], chapters: dict[str, Chapter]) -> str:
    """The verdicts on the published studies, and what it costs to decide each claim again."""
    rows = []
    for study, decided in claims.items():
        for name, claim in decided.items():
            verdict, costs = f"**{claim['verdict']}**", cost(chapters[study], claim["experiments"])
            rows.append([f"`{name}` {claim['title']}", verdict, deciding_test(study, claim), costs])
    test = "the test that decided: value, 90 % interval, tolerance"
    return markdown(["claim", "verdict", test, "trainings, minutes"], rows)


def outcome(claims: dict[str, Claims]) -> str:
    """The published verdicts in two sentences: how many of each, and the central claim."""
    count = Counter(claim["verdict"] for decided in claims.values() for claim in decided.values())
    study, name = CENTRAL
    central = claims[study][name]
    return (
        f"Of {count.total()} claims, {count['reproduced']} are reproduced, {count['reproduced in part']} in part, "
        f"{count['not reproduced']} not; {count['undecided']} are undecided, and {count['shown']} has no test.\n"
        f"The central claim, {name} (*{central['title']}*), is **{central['verdict']}**. Its deciding test, with "
        f"90 % interval and tolerance: {deciding_test(study, central)}."
    )


def generated() -> dict[Path, str]:
    """Every generated file, whole, as it should be."""
    published = Layout.load(ROOT, metrics="published", scale=PUBLISHED_SCALE)
    claims = {study: read_json(published.published_claims(study)) for study in published.chapters}
    chapters = Layout.load(ROOT, scale=TARGETS_SCALE).chapters
    readme, results, pins = ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "environment.yml"
    tables = {"targets": targets_table(chapters), "verdicts": verdicts_table(claims, chapters)}
    return {
        readme: with_sections(readme, outcome=outcome(claims)),
        results: with_sections(results, **tables),
        pins: environment(pins),
        **{ROOT / "config" / name / "README.md": settings_page(load(name)) for name in names()},
    }


def write() -> None:
    """Write every generated file. The verdicts on all published tables come first: the others show them."""
    for scale in sorted({scale for study in names() for scale in published_scales(ROOT, study)}):
        layout = Layout.load(ROOT, metrics="published", scale=scale)
        for study in layout.chapters:
            write_claims(layout, study)
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
