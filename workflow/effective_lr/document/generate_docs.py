"""The generated parts of the documentation: `make docs` writes them, and a test compares them with their source.

README.md                           how many of the published claims have which verdict
docs/results.md                     these verdicts, and the targets with their cost
results/published/*/*.claims.json   the verdicts with all their numbers
config/<study>/README.md            every setting of a run of the study
environment.yml                     the pins of requirements.lock
"""

import re
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from effective_lr.document import manuscript
from effective_lr.document.macros import count_verdicts
from effective_lr.engine import contents, grid
from effective_lr.engine.contents import Chapter, published_scales, published_table
from effective_lr.engine.inputs import Layout
from effective_lr.engine.resources import CPU_SPEED
from effective_lr.engine.storage import Provenance, read_json, read_provenance
from effective_lr.engine.study import Study, load, names
from effective_lr.evidence.published import write_claims
from effective_lr.evidence.verdicts import Claims, label_of, part_text, worst_part

ROOT = Path(__file__).parents[3]
TARGETS_SCALE = "laptop"
TARGETS_CORES = 2
PUBLISHED_SCALE = "study"
CENTRAL = ("normalization", "C2")  # the claim that the README names


def section(text: str, name: str, content: str) -> str:
    """The text with this content between the marks of a generated section."""
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


# The config


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema admits, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "boolean":
        return "true, false"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([schema["type"], ", ".join(limits)]).strip()


def settings_page(study: Study) -> str:
    """config/<study>/README.md: the scales of a study, and the settings of a run with the source of each."""
    folder = ROOT / "config" / study.name
    scales = [f"- `{name}.yaml`: {grid.load_scale(folder, name, study)[0].about}" for name in grid.scales(folder)]
    rows = []
    for key, schema in study.run.model_json_schema()["properties"].items():
        source = schema.get("source", "ours")
        tags = source if isinstance(source, dict) else {"": source}
        sources = ", ".join(f"{value} [{tag}]".strip() for value, tag in tags.items())
        rows.append([f"`{key}`", schema.get("description", key), allowed(schema), sources, schema.get("change", "")])
    return "\n".join(
        [
            f"<!-- Written by `make docs`. -->\n# {study.title}\n",
            f"The study `{study.name}` follows {study.follows}. Its scales:\n",
            *scales,
            "\nThe settings of a run, any of which `defaults`, `grid` and `cases` of a scale may set:\n",
            markdown(["key", "meaning", "values", "source", "when to change"], rows),
            "",
        ]
    )


def environment() -> str:
    """environment.yml with the pins of the lock in it: conda and Snakemake copy this file alone."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([A-Za-z0-9_.\[\]-]+==[^\s\\;]+)( ; [^\\\n]*?)?\s*\\?$", lock, flags=re.MULTILINE)
    lines = [f'      - "{name}{marker.rstrip()}"' if marker else f"      - {name}" for name, marker in pins]
    path = ROOT / "environment.yml"
    before = path.read_text(encoding="utf-8").split("  - pip:\n")[0]
    return "\n".join([f"{before}  - pip:", *lines, ""])


# The documents


def records(study: str) -> list[Provenance]:
    """The published runs of a study."""
    path = published_table(ROOT, study, PUBLISHED_SCALE)
    return read_provenance(path) if path.exists() else []


@cache
def seconds_per_operation(name: str) -> float:
    """By the published study; by the speed that is assumed of a core where a study has none."""
    study, found = load(name), records(name)
    operations = sum(study.operations(study.run(**record.run)) for record in found if not record.diverged)
    return sum(record.seconds for record in found if not record.diverged) / operations if found else 1 / CPU_SPEED


def cost(chapter: Chapter, experiments: list[str]) -> str:
    """How many trainings experiments need from raw data, and their minutes."""
    runs = [run for job in chapter.jobs_of(experiments) for run in chapter.jobs[job]]
    if not runs:
        return "none"
    seconds = sum(map(chapter.study.operations, runs)) * seconds_per_operation(chapter.name)
    return f"{len(runs)}, {round(seconds / 60 / TARGETS_CORES) or '<1'}"


def speed() -> str:
    """The machine that the costs are for, by what its users see in the log of a training."""
    images = median(record.examples_per_second for record in records("normalization"))
    return f"Minutes are for {TARGETS_CORES} cores that train {images:,.0f} images/s each in the study `normalization`."


def targets_table(chapters: dict[str, Chapter]) -> str:
    """The studies and figures: command, what each shows, what it costs from raw data."""
    numbered = manuscript.scan(ROOT / "paper", list(chapters), ROOT).numbered("figure")
    numbers = {(one.study, one.item): f", `{name}`" for name, one in numbered.items()}
    targets = contents.target_names(chapters)
    rows = []
    for name, chapter in chapters.items():
        rows.append([f"`{name}`", f"**{chapter.study.title}**", cost(chapter, list(chapter.experiments))])
        for figure, item in chapter.contents.figures.items():
            command = f"`{targets[name, figure]}`{numbers.get((name, figure), '')}"
            rows.append([command, item.title, cost(chapter, chapter.experiments_of(item))])
    return markdown(["target", "shows", "trainings, minutes"], rows)


def deciding_test(study: str, claim: dict[str, Any]) -> str:
    """The test that decided a claim, with its value, interval and tolerance."""
    part = worst_part(claim)
    if part is None:
        return "no test"
    _, digits = label_of(load(study), part["statistic"])
    return part_text(part, ".2g" if digits is None else f".{digits}f").replace("_", " ")


def verdicts_table(claims: dict[str, Claims], chapters: dict[str, Chapter]) -> str:
    """The verdicts on the published studies, and what it costs to decide each claim again."""
    rows = [
        [
            f"`{name}` {claim['title']}",
            f"**{claim['verdict']}**",
            deciding_test(study, claim),
            cost(chapters[study], claim["experiments"]),
        ]
        for study, decided in claims.items()
        for name, claim in decided.items()
    ]
    test = "the test that decided: value, 90 % interval, tolerance"
    return markdown(["claim", "verdict", test, "trainings, minutes"], rows)


def outcome(claims: dict[str, Claims]) -> str:
    """The published verdicts in two sentences: how many of each, and the central claim."""
    count = {key.removeprefix("claims/"): number for key, number in count_verdicts(*claims.values()).items()}
    study, name = CENTRAL
    central = claims[study][name]
    return (
        f"Of {count['count']} claims, {count['reproduced']} are reproduced, {count['reproduced_in_part']} in part, "
        f"{count['not_reproduced']} not; {count['undecided']} are undecided, and {count['shown']} has no test.\n"
        f"The central claim, {name} (*{central['title']}*), is **{central['verdict']}**. Its deciding test, with "
        f"90 % interval and tolerance: {deciding_test(study, central)}."
    )


def generated() -> dict[Path, str]:
    """Every generated file, whole, as it should be."""
    published = Layout.load(ROOT, metrics="published", scale=PUBLISHED_SCALE)
    claims = {study: read_json(published.published_claims(study)) for study in published.chapters}
    chapters = Layout.load(ROOT, scale=TARGETS_SCALE).chapters
    sections = {
        "README.md": {"outcome": outcome(claims)},
        "docs/results.md": {
            "targets": targets_table(chapters),
            "verdicts": verdicts_table(claims, chapters),
            "speed": speed(),
        },
    }
    found = {ROOT / "environment.yml": environment()}
    for name, contents_of in sections.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for mark, content in contents_of.items():
            text = section(text, mark, content)
        found[ROOT / name] = text
    return found | {ROOT / "config" / name / "README.md": settings_page(load(name)) for name in names()}


def write() -> None:
    """Write every generated file. The verdicts on all published tables come first: the others show them."""
    for scale in sorted({scale for study in names() for scale in published_scales(ROOT, study)}):
        layout = Layout.load(ROOT, metrics="published", scale=scale)
        for study in layout.chapters:
            write_claims(layout, study)
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
