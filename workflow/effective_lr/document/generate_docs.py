"""The generated parts of the documentation: `make docs` writes them, and a test compares them with their source.

README.md                           how many of the published claims have which verdict, and the scales
docs/results.md                     these verdicts, and the targets with their cost
results/published/*/*.claims.json   the verdicts with all their numbers
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
from statistics import median
from typing import Any

from effective_lr.document import manuscript
from effective_lr.document.macros import count_verdicts
from effective_lr.document.overview import Claims
from effective_lr.engine import contents, grid
from effective_lr.engine.contents import Chapter, load_chapter, published_scales, published_table
from effective_lr.engine.inputs import Layout
from effective_lr.engine.plan import group, seconds_per_operation
from effective_lr.engine.storage import Provenance, read_provenance
from effective_lr.engine.study import Study, load, names
from effective_lr.evidence.published import read_claims, write_claims
from effective_lr.evidence.verdicts import label_of, worst_part

ROOT = Path(__file__).parents[3]
TARGETS_SCALE = "laptop"
TARGETS_CORES = 2
PUBLISHED_SCALE = "study"
SCALES = {
    "smoke": "every step, tiny; its PDF is watermarked",
    "laptop": "the default",
    "study": "more data, steps and seeds",
    "cifar": "`normalization` on a lossy copy of CIFAR-10",
    "paper": "the original's data, on GPUs; not run",
}
CENTRAL = "C2"  # the claim that the README names
EXACT = 1e-6  # an interval below it is printed as a bound


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
    known = {key: re.sub(r"^\w+_pages$", "pages", rule) for key, rule in re.findall(r"(id\d+)\[(\w+)\]", graph)}
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


def published_records(chapter: Chapter) -> list[Provenance]:
    """The runs on a CPU of the published study, from which the speeds of the documentation come."""
    path = published_table(ROOT, chapter.name, PUBLISHED_SCALE)
    records = read_provenance(path) if path.exists() else []
    return [record for record in records if record.diverged is None and not record.gpu_seconds]


class Cost:
    """What the trainings of experiments of a study take on two cores, by the speed of its published runs."""

    def __init__(self, chapter: Chapter) -> None:
        self.chapter, study = chapter, chapter.study
        taken = [(study.run(**record.run), record.seconds) for record in published_records(chapter)]
        self.speeds = seconds_per_operation(study, taken)

    def of(self, experiments: list[str]) -> str:
        runs = [run for job in self.chapter.jobs_of(experiments) for run in self.chapter.jobs[job]]
        if not runs or not self.speeds:
            return f"{len(runs)} trainings" if runs else "no training"
        operations = self.chapter.study.operations
        seconds = sum(operations(run) * self.speeds.get(group(run), self.speeds[""]) for run in runs)
        minutes = round(seconds / 60 / TARGETS_CORES)
        return f"{len(runs)} trainings, {minutes or 'under 1'} min"


def costs() -> dict[str, Cost]:
    """By study, at the default scale."""
    return {name: Cost(chapter) for name, chapter in Layout.load(ROOT, scale=TARGETS_SCALE).chapters.items()}


def speed() -> str:
    """The machine that the costs are for, by what its users see in the log of a training."""
    records = published_records(load_chapter(ROOT, "normalization", PUBLISHED_SCALE))
    images = median(record.examples_per_second for record in records)
    return f"Minutes are for {TARGETS_CORES} cores that train {images:,.0f} images/s each in the study `normalization`."


def targets_table(costs: dict[str, Cost]) -> str:
    """The studies and figures: command, what each shows, what it costs from raw data."""
    chapters = {name: cost.chapter for name, cost in costs.items()}
    numbered = manuscript.scan(ROOT / "paper", list(chapters), ROOT).numbered("figure")
    numbers = {(one.study, one.item): f", `{name}`" for name, one in numbered.items()}
    targets = contents.target_names(chapters)
    rows = []
    for name, chapter in chapters.items():
        rows.append([f"`{name}`", f"**{chapter.study.title}**", costs[name].of(list(chapter.experiments))])
        for figure, item in chapter.contents.figures.items():
            command = f"`{targets[name, figure]}`{numbers.get((name, figure), '')}"
            rows.append([command, item.title, costs[name].of(chapter.experiments_of(item))])
    return markdown(["target", "shows", "from raw data"], rows)


def up(value: float) -> str:
    """A bound with two digits, rounded up."""
    power = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / power, 6)) * power:.1e}"


def deciding_test(study: str, claim: dict[str, Any]) -> str:
    """The part of a claim that decided it, with its value, interval and tolerance."""
    part = worst_part(claim)
    if part is None:
        return "no test: its numbers are shown"
    name = f"{part['statistic'].replace('_', ' ')}, {part['subject']}"
    value, low, high = part["value"], part["low"], part["high"]
    if value is None:
        return f"{name}: {part['why'] or 'no value'}"
    _, digits = label_of(load(study), part["statistic"])
    form = ".2g" if digits is None else f".{digits}f"
    if low is None:
        number = f"{value:{form}} (no interval)"
    elif low >= 0 and 0 < high < EXACT:
        number = f"at most {up(high)}"
    else:
        number = f"{value:{form}} [{low:{form}}, {high:{form}}]"
    least, most = ("" if bound is None else f"{bound:g}" for bound in part["within"])
    within = f"{least} to {most}" if least and most else f"at least {least}" if least else f"at most {most}"
    return " ".join(filter(None, [f"{name}: {number}", part["unit"], f"({within})"]))


def verdicts_table(claims: Claims, costs: dict[str, Cost]) -> str:
    """The verdicts on the published studies, and what it costs to decide each claim again."""
    rows = [
        [
            f"`{name}` {claim['title']}",
            f"**{claim['verdict']}**",
            deciding_test(study, claim),
            costs[study].of(claim["experiments"]),
        ]
        for study, decided in claims.items()
        for name, claim in decided.items()
    ]
    test = "the test that decided: value, 90 % interval (tolerance)"
    return markdown(["claim", "verdict", test, "from raw data"], rows)


def scales_table() -> str:
    """The scales: how many runs, and what those that are published took."""
    rows = []
    for name, about in SCALES.items():
        chapters = Layout.load(ROOT, scale=name).chapters.values()
        tables = [published_table(ROOT, chapter.name, name) for chapter in chapters]
        published = [read_provenance(path) for path in tables if path.exists()]
        seconds = sum(record.seconds for records in published for record in records)
        took = f"{seconds / 3600:.1f} h of one core" if len(published) == len(tables) else ""
        rows.append([f"`{name}`", about, f"{sum(len(chapter.runs) for chapter in chapters):,}", took])
    return markdown(["scale", "", "runs", "published runs took"], rows)


def outcome(claims: Claims) -> str:
    """The published verdicts in two sentences: how many of each, and the central claim."""
    verdicts = [claim["verdict"] for decided in claims.values() for claim in decided.values()]
    count = {key.removeprefix("claims/"): number for key, number in count_verdicts(verdicts).items()}
    central = claims["normalization"][CENTRAL]
    return (
        f"Of {count['count']} claims {count['reproduced']} are reproduced, {count['reproduced_in_part']} in part, "
        f"{count['not_reproduced']} not, and {count['undecided']} are undecided.\n"
        f"The central claim, {CENTRAL} (*{central['title']}*), is **{central['verdict']}**; the test that decided it: "
        f"{deciding_test('normalization', central)}."
    )


def generated() -> dict[Path, str]:
    """Every generated file, whole, as it should be."""
    docs, config, studies = ROOT / "docs", ROOT / "config/README.md", [load(name) for name in names()]
    layout = Layout.load(ROOT, metrics="published", scale=PUBLISHED_SCALE)
    claims = {name: read_claims(ROOT, name, PUBLISHED_SCALE) for name in layout.chapters}
    at_scale, readme = costs(), (ROOT / "README.md").read_text()
    results = section((docs / "results.md").read_text(), "targets", targets_table(at_scale))
    results = section(results, "verdicts", verdicts_table(claims, at_scale))
    return {
        ROOT / "README.md": section(section(readme, "outcome", outcome(claims)), "scales", scales_table()),
        docs / "results.md": section(results, "speed", speed()),
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
