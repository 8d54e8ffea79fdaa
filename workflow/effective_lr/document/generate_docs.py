"""The generated pages of the documentation: `make pages` writes them, and a test holds them to their source.

README.md                           targets with their cost, and the verdicts on the published studies
results/published/*/*.claims.json   these verdicts with all their numbers
config/config.default.yaml          every key of the config at its default
config/README.md                    the table of these keys
config/<study>/README.md            every setting of a run of the study
docs/developers.md                  the graph of the rules
docs/not_run.md                     the tests that need what the reference machine lacks
docs/checklists.md                  checklists of reviewers: answers from docs/checklists.yaml and the published results
codemeta.json, codecheck.yml        the software and the outputs to check, for machines
environment.yml                     the pins of requirements.lock
workflow/schemas/*.json             by which editors complete and check YAML files
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from effective_lr.document import manuscript, records
from effective_lr.document.frame import Claims
from effective_lr.engine import contents, grid
from effective_lr.engine.contents import Chapter, load_chapter, load_chapters, published_scales, published_table
from effective_lr.engine.plan import group, seconds_per_operation
from effective_lr.engine.storage import read_provenance
from effective_lr.engine.study import BaseRun, Study, load, names
from effective_lr.evidence.published import read_claims, write_claims

ROOT = Path(__file__).parents[3]
README_SCALE = "laptop"
README_CORES = 2
PUBLISHED_SCALE = "study"


def section(text: str, name: str, content: str) -> str:
    """The text with this content between the marks of a generated section."""
    begin, end = f"<!-- {name}: written by `make pages` -->", f"<!-- end of {name} -->"
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


def default_config() -> str:
    """config/config.default.yaml: every key at its default, with what it means."""
    lines = ["# Every key at its default. Written by `make pages`: what you want otherwise, write into config.yaml."]
    for key, schema in grid.Config.model_json_schema()["properties"].items():
        lines += ["", f"# {schema['description']}", f"# values: {allowed(schema)}; when to change: {schema['change']}"]
        lines.append(f"{key}: {as_yaml(schema['default'])}")
    return "\n".join(lines) + "\n"


def settings_page(study: Study) -> str:
    """config/<study>/README.md: the settings of a run, with those of the default scale and the source of each."""
    folder = ROOT / "config" / study.name
    scale = README_SCALE if README_SCALE in grid.scales(folder) else grid.scales(folder)[0]
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
            f"<!-- Written by `make pages`. -->\n# {study.title}\n",
            f"The study `{study.name}` follows {study.follows}. Its scales:\n",
            *[f"- `{name}.yaml`: {about}" for name, about in scales],
            "\nThe settings of a run, any of which `defaults`, `grid` and `cases` of a scale may set:\n",
            table,
            "",
        ]
    )


def as_json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def scale_schema(model: type[BaseRun]) -> dict[str, Any]:
    """The JSON schema of a scale of a study. One that is based on another may leave out anything."""
    run = model.model_json_schema()
    settings = run["properties"]
    for schema in settings.values():
        for key in ("source", "change", "default"):
            schema.pop(key, None)
    scale = grid.Scale.model_json_schema()
    experiment = scale["$defs"]["Experiment"]
    several = {
        key: {"anyOf": [schema, {"type": "array", "items": schema}], "description": schema.get("description", key)}
        for key, schema in settings.items()
    }
    many = {"type": "object", "additionalProperties": False, "properties": several}
    experiment["properties"]["grid"] |= {"$ref": "#/$defs/grid"}
    experiment["properties"]["cases"]["items"] = {"$ref": "#/$defs/grid"}
    del experiment["required"], scale["required"]
    scale["properties"]["defaults"] |= {"$ref": "#/$defs/grid"}
    scale["properties"]["based_on"] = {"type": "string", "description": "the scale that this one changes, key by key"}
    for part in (scale["properties"]["defaults"], experiment["properties"]["grid"]):
        part.pop("additionalProperties", None)
        part.pop("type", None)
    return {**scale, "$defs": {"grid": many, "Experiment": experiment, **run.get("$defs", {})}}


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
    """What the trainings of these experiments take, where a published study tells the speed."""
    runs = chapter.runs_of(experiments)
    speeds = published_speeds(chapter)
    if not runs or not speeds:
        return f"{len(runs)} trainings" if runs else "no training"
    seconds = sum(chapter.study.operations(run) * speeds.get(group(run), speeds[""]) for run in runs)
    return f"{max(round(seconds / 60 / README_CORES), 1)} min ({len(runs)} trainings)"


def targets_table() -> str:
    """The figures and tables: command, what each shows, what it costs from raw data."""
    chapters = load_chapters(ROOT, grid.load_config({"scale": README_SCALE}))
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


def one_number(claim: dict[str, Any]) -> str:
    """The first statistic of a claim that has an interval, or that there is none."""
    for part in claim["parts"]:
        if part["low"] is not None:
            value, low, high = (f"{part[key]:.2g}" for key in ("value", "low", "high"))
            is_exact = abs(part["high"]) < 1e-6
            interval = f"below {part['high']:.0e}" if is_exact else f"{value} [{low}, {high}]"
            return f"{part['statistic'].replace('_', ' ')}, {part['subject']}: {interval}"
    return "no interval"


def verdicts_table(claims: Claims) -> str:
    """The verdicts on the published studies."""
    rows = []
    for decided in claims.values():
        for name, claim in decided.items():
            verdict = f"**{claim['verdict']}**"
            rows.append([f"{name} {claim['title']}", verdict, one_number(claim), f"`make claim_{name}`"])
    return markdown(["claim", "verdict", "first statistic, with 90 % interval", "all of it"], rows)


def checklists(chapters: dict[str, Chapter], claims: Claims) -> str:
    """docs/checklists.md: a table for each checklist, that marks each answer with where it comes from."""
    known = records.facts(ROOT, PUBLISHED_SCALE, chapters, claims)
    about = (
        "Each answer is marked: *from data*, filled from the published results, or *by hand*. "
        "[checklists.yaml](checklists.yaml) holds the answers."
    )
    lines = ["<!-- Written by `make pages`. -->", "# Checklists", "", about]
    for title, introduction, rows in records.checklists(ROOT / "docs" / "checklists.yaml", known):
        lines += ["", f"## {title}", "", introduction, "", markdown(["item", "answer", "source"], rows)]
    return "\n".join([*lines, ""])


def generated() -> dict[Path, str]:
    """Every generated file, whole, as it should be."""
    readme, config, developers = ROOT / "README.md", ROOT / "config/README.md", ROOT / "docs/developers.md"
    not_run = ROOT / "docs/not_run.md"
    schemas, studies = ROOT / "workflow/schemas", [load(name) for name in names()]
    chapters = load_chapters(ROOT, grid.load_config({"metrics": "published", "scale": PUBLISHED_SCALE}))
    claims = {name: read_claims(ROOT, name, PUBLISHED_SCALE) for name in chapters}
    text = section(readme.read_text(), "targets", targets_table())
    return {
        readme: section(text, "verdicts", verdicts_table(claims)),
        developers: section(developers.read_text(), "graph", rule_graph()),
        not_run: section(not_run.read_text(), "needs", not_run_table()),
        config: section(config.read_text(), "keys", keys_table()),
        ROOT / "config/config.default.yaml": default_config(),
        ROOT / "environment.yml": environment(),
        ROOT / "codemeta.json": records.codemeta(ROOT),
        ROOT / "codecheck.yml": records.codecheck(ROOT, PUBLISHED_SCALE, chapters, claims),
        ROOT / "docs/checklists.md": checklists(chapters, claims),
        schemas / "config.json": as_json(grid.Config.model_json_schema()),
        schemas / "contents.json": as_json(contents.Contents.model_json_schema()),
        **{schemas / f"{study.name}.json": as_json(scale_schema(study.run)) for study in studies},
        **{ROOT / "config" / study.name / "README.md": settings_page(study) for study in studies},
    }


def decide_anew() -> None:
    """Decide on all published tables by the present rules."""
    for study in names():
        for scale in published_scales(ROOT, study):
            write_claims(ROOT, load_chapter(ROOT, study, scale), scale)


def write() -> None:
    """Write every generated file. The verdicts come first: the README shows them."""
    decide_anew()
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
