"""The generated parts of the documentation: `make docs` writes them, and a test compares them with their source.

docs/results.md                     the verdicts on the published studies, and the targets with their cost
results/published/*/*.claims.json   these verdicts with all their numbers
config/README.md                    the table of the keys of the config
config/<study>/README.md            every setting of a run of the study
docs/developers.md                  the graph of the rules
docs/artifact.md                    the tests that need what the reference machine lacks
environment.yml                     the pins of requirements.lock
"""

import ast
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from effective_lr.document import manuscript
from effective_lr.document.overview import Claims
from effective_lr.engine import contents, grid
from effective_lr.engine.contents import Chapter, load_chapter, published_scales, published_table
from effective_lr.engine.inputs import Layout
from effective_lr.engine.plan import group, seconds_per_operation
from effective_lr.engine.storage import read_provenance
from effective_lr.engine.study import Study, load, names
from effective_lr.evidence.published import read_claims, write_claims
from effective_lr.evidence.verdicts import worst_part

ROOT = Path(__file__).parents[3]
TARGETS_SCALE = "laptop"
TARGETS_CORES = 2
PUBLISHED_SCALE = "study"


def section(text: str, name: str, content: str) -> str:
    """The text with this content between the marks of a generated section."""
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


# The config


def as_yaml(value: Any) -> str:
    """A value as YAML has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema admits, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "boolean":
        return "true, false"
    if schema["type"] == "array":
        return "a list"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([schema["type"], ", ".join(limits)]).strip()


def keys_table() -> str:
    """The keys of the config."""
    rows = [
        [f"`{key}`", schema["description"], allowed(schema), as_yaml(schema["default"]), schema["change"]]
        for key, schema in grid.Config.model_json_schema()["properties"].items()
    ]
    return markdown(["key", "meaning", "values", "default", "when to change"], rows)


def settings_page(study: Study) -> str:
    """config/<study>/README.md: the settings of a run, with those of the default scale and the source of each."""
    folder = ROOT / "config" / study.name
    scale = TARGETS_SCALE if TARGETS_SCALE in grid.scales(folder) else grid.scales(folder)[0]
    defaults = grid.load_scale(folder, scale, study)[0].defaults
    rows = []
    for key, schema in study.run.model_json_schema()["properties"].items():
        value = defaults.get(key, schema.get("default", "by experiment"))
        source = schema.get("source", "ours")
        tags = source if isinstance(source, dict) else {"": source}
        tagged = ", ".join(f"{value} [{tag}]".strip() for value, tag in tags.items())
        about = schema.get("description", key)
        rows.append([f"`{key}`", about, allowed(schema), as_yaml(value), tagged, schema.get("change", "")])
    table = markdown(["key", "meaning", "values", scale, "source", "when to change"], rows)
    scales = [(name, grid.load_scale(folder, name, study)[0].about) for name in grid.scales(folder)]
    return "\n".join(
        [
            f"<!-- Written by `make docs`. -->\n# {study.title}\n",
            f"The study `{study.name}` follows {study.follows}. Its scales:\n",
            *[f"- `{name}.yaml`: {about}" for name, about in scales],
            "\nThe settings of a run, any of which `defaults`, `grid` and `cases` of a scale may set:\n",
            table,
            "",
        ]
    )


def environment() -> str:
    """environment.yml with the pins of the lock in it: conda and Snakemake copy this file alone."""
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([A-Za-z0-9_.\[\]-]+==[^\s\\;]+)( ; [^\\\n]*?)?\s*\\?$", lock, flags=re.MULTILINE)
    lines = [f'      - "{name}{marker.rstrip()}"' if marker else f"      - {name}" for name, marker in pins]
    path = ROOT / "environment.yml"
    before = path.read_text().split("  - pip:\n")[0]
    return "\n".join([f"{before}  - pip:", *lines, ""])


# The documents


def rule_graph() -> str:
    """Which rule uses what others make, as Mermaid, which code hosts draw."""
    command = [sys.executable, "-m", "snakemake", "report", "--rulegraph", "mermaid-js", "--forceall"]
    graph = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    known = dict(re.findall(r"(id\d+)\[(\w+)\]", graph))
    arrows = sorted({(known[start], known[end]) for start, end in re.findall(r"(id\d+) --> (id\d+)", graph)})
    lines = ["```mermaid", "flowchart LR", *(f"    {start} --> {end}" for start, end in arrows), "```"]
    return "\n".join(lines)


def not_run_table() -> str:
    """The tests that need another machine, by their marker `needs`: the resource, and what is not known until then."""
    rows = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.needs":
                    resource, what = (ast.literal_eval(argument) for argument in decorator.args)
                    rows.append([resource, what, f"`{node.name}`"])
    return markdown(["needs", "what is not known until then", "test"], rows)


def published_speeds(chapter: Chapter) -> dict[str, float]:
    """Seconds per operation by kind of run: what one core of the machine of the published study took."""
    path = published_table(ROOT, chapter.name, PUBLISHED_SCALE)
    records = read_provenance(path) if path.exists() else []
    on_cpu = [record for record in records if record.diverged is None and not record.gpu_seconds]
    return seconds_per_operation(
        chapter.study, [(chapter.study.run(**record.run), record.seconds) for record in on_cpu]
    )


def cost(chapter: Chapter, experiments: list[str]) -> str:
    """The time of the trainings of these experiments, by the speed of the published study."""
    runs = chapter.runs_of(experiments)
    speeds = published_speeds(chapter)
    if not runs or not speeds:
        return f"{len(runs)} trainings" if runs else "no training"
    seconds = sum(chapter.study.operations(run) * speeds.get(group(run), speeds[""]) for run in runs)
    return f"{max(round(seconds / 60 / TARGETS_CORES), 1)} min ({len(runs)} trainings)"


def targets_table() -> str:
    """The figures and tables: command, what each shows, what it costs from raw data."""
    chapters = Layout.load(ROOT, scale=TARGETS_SCALE).chapters
    placed = manuscript.scan(ROOT / "paper", list(chapters), ROOT)
    numbers = {
        (one.study, one.item): name for kind in ("figure", "table") for name, one in placed.numbered(kind).items()
    }
    targets = contents.target_names(chapters)
    rows = []
    for name, chapter in chapters.items():
        rows.append([f"`snakemake {name}`", f"**{chapter.study.title}**", cost(chapter, list(chapter.experiments))])
        for item_name, item in {**chapter.contents.figures, **chapter.contents.tables}.items():
            number = numbers.get((name, item_name))
            same = f", `{number}`" if number else ""
            command = f"`snakemake {targets[name, item_name]}`{same}"
            rows.append([command, item.title, cost(chapter, chapter.experiments_of(item))])
    return markdown(["command", "shows", "from raw data"], rows)


def up(value: float) -> str:
    """A bound with two digits, rounded up."""
    power = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / power, 6)) * power:.1e}"


def deciding_number(claim: dict[str, Any]) -> str:
    """The part of a claim that decided it: of those with its verdict, the one nearest to another verdict."""
    part = worst_part(claim)
    if part is None:
        return "no test: its numbers are shown"
    if part["value"] is None:
        return f"{part['statistic'].replace('_', ' ')}, {part['subject']}: {part['why'] or 'no value'}"
    low, high = ("" if bound is None else f"{bound:g}" for bound in part["within"])
    within = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"
    number = f"{part['value']:.2g}"
    if part["low"] is not None:
        is_exact = 0 <= part["low"] <= part["high"] < 1e-6
        number = (
            f"below {up(part['high'])}"
            if is_exact and part["high"]
            else f"{number} [{part['low']:.2g}, {part['high']:.2g}]"
        )
    return f"{part['statistic'].replace('_', ' ')}, {part['subject']}: {number} ({within})"


def verdicts_table(claims: Claims) -> str:
    """The verdicts on the published studies."""
    rows = [
        [f"{name} {claim['title']}", f"**{claim['verdict']}**", deciding_number(claim), f"`claim_{name}`"]
        for decided in claims.values()
        for name, claim in decided.items()
    ]
    return markdown(["claim", "verdict", "the test that decided: value, 90 % interval (tolerance)", "target"], rows)


def generated() -> dict[Path, str]:
    """Every generated file, whole, as it should be."""
    docs, config, studies = ROOT / "docs", ROOT / "config/README.md", [load(name) for name in names()]
    layout = Layout.load(ROOT, metrics="published", scale=PUBLISHED_SCALE)
    claims = {name: read_claims(ROOT, name, PUBLISHED_SCALE) for name in layout.chapters}
    results = section((docs / "results.md").read_text(), "targets", targets_table())
    return {
        docs / "results.md": section(results, "verdicts", verdicts_table(claims)),
        docs / "developers.md": section((docs / "developers.md").read_text(), "graph", rule_graph()),
        docs / "artifact.md": section((docs / "artifact.md").read_text(), "needs", not_run_table()),
        config: section(config.read_text(), "keys", keys_table()),
        ROOT / "environment.yml": environment(),
        **{ROOT / "config" / study.name / "README.md": settings_page(study) for study in studies},
    }


def decide_anew() -> None:
    """Decide on all published tables by the present rules."""
    for study in names():
        for scale in published_scales(ROOT, study):
            write_claims(ROOT, load_chapter(ROOT, study, scale), scale)


def write() -> None:
    """Write every generated file. The verdicts come first: the others show them."""
    decide_anew()
    for path, text in generated().items():
        path.write_text(text)
