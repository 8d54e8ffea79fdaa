"""The generated pages of the documentation: `make pages` writes them, and a test holds them to their source.

config/config.yaml              every key of the config at its default (grid.Config)
config/README.md                tables of the keys and of the settings of a run (config.Run)
workflow/schemas/*.json         by which editors complete and check the files of config/
README.md                       targets with their cost, and the verdicts on the published study
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from effective_lr import grid
from effective_lr.config import Run
from effective_lr.costs import FORWARD_SHARE, run_seconds
from effective_lr.published import decide_published
from effective_lr.storage import read_table

README_SCALE = "laptop"
README_CORES = 2


def section(text: str, name: str, content: str) -> str:
    """The text with this content between the marks of a generated section."""
    begin, end = f"<!-- {name}: written by `make pages` -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


# The config


def plain(value: Any) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def allowed(schema: dict[str, Any]) -> str:
    """The values that a JSON schema admits, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(schema.get("enum", [schema.get("const")]))
    if schema["type"] == "boolean":
        return "true, false"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([schema["type"], ", ".join(limits)]).strip()


def keys_table() -> str:
    """The keys of config.yaml."""
    properties = grid.Config.model_json_schema()["properties"]
    rows = [
        [f"`{key}`", schema["description"], allowed(schema), plain(schema["default"]), schema["change"]]
        for key, schema in properties.items()
    ]
    return markdown(["key", "meaning", "values", "default", "when to change"], rows)


def advice() -> dict[str, str]:
    """When to change each setting of a run, from the docstring of `Run`."""
    return dict(re.findall(r"^    (\w+) {2,}(.+)$", Run.__doc__ or "", flags=re.MULTILINE))


def settings_table() -> str:
    """The settings of a run, with those of the default scale and the source of each."""
    defaults = grid.load_scale(Path("config/scales"), README_SCALE).defaults
    change = advice()
    rows = []
    for key, schema in Run.model_json_schema()["properties"].items():
        value = defaults.get(key, schema.get("default", "by experiment"))
        source = schema["source"]
        tags = source if isinstance(source, dict) else {"": source}
        tagged = ", ".join(f"{value} [{tag}]".strip() for value, tag in tags.items())
        rows.append([f"`{key}`", schema["description"], allowed(schema), plain(value), tagged, change[key]])
    return markdown(["key", "meaning", "values", README_SCALE, "source", "when to change"], rows)


def config_file() -> str:
    """config/config.yaml: every key at its default, with what it means."""
    lines = [
        "# yaml-language-server: $schema=../workflow/schemas/config.json",
        "# What to make. Any key can be given on the command line: snakemake all --cores all --config scale=smoke",
        "# Written by `make pages`; what is edited here is yours.",
    ]
    for key, schema in grid.Config.model_json_schema()["properties"].items():
        lines += ["", f"# {schema['description']}", f"# values: {allowed(schema)}; when to change: {schema['change']}"]
        lines.append(f"{key}: {plain(schema['default'])}")
    return "\n".join(lines) + "\n"


def as_json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def scale_schema() -> dict[str, Any]:
    """The JSON schema of a file of config/scales. One that is based on another may leave out anything."""
    settings = Run.model_json_schema()["properties"]
    for schema in settings.values():
        del schema["source"]
        schema.pop("default", None)
    scale = grid.Scale.model_json_schema()
    experiment = scale["$defs"]["Experiment"]
    one = {"type": "object", "additionalProperties": False, "properties": settings}
    several = {key: {"anyOf": [{"$ref": f"#/$defs/settings/properties/{key}"},
                               {"type": "array", "items": {"$ref": f"#/$defs/settings/properties/{key}"}}],
                     "description": schema["description"]} for key, schema in settings.items()}  # fmt: skip
    many = {"type": "object", "additionalProperties": False, "properties": several}
    experiment["properties"]["grid"] |= {"$ref": "#/$defs/grid"}
    experiment["properties"]["cases"]["items"] = {"$ref": "#/$defs/grid"}
    del experiment["required"], scale["required"]
    scale["properties"]["defaults"] |= {"$ref": "#/$defs/settings"}
    scale["properties"]["based_on"] = {"type": "string", "description": "the scale that this one changes, key by key"}
    for part in (scale["properties"]["defaults"], experiment["properties"]["grid"]):
        part.pop("additionalProperties", None)
        part.pop("type", None)
    return {**scale, "$defs": {"settings": one, "grid": many, "Experiment": experiment}}


# The documents


def rule_graph() -> str:
    """Which rule uses what others make, as Mermaid, which code hosts draw."""
    command = [sys.executable, "-m", "snakemake", "report", "--rulegraph", "mermaid-js", "--forceall"]
    graph = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", graph))
    arrows = sorted({(names[start], names[end]) for start, end in re.findall(r"(id\d+) --> (id\d+)", graph)})
    lines = ["```mermaid", "flowchart LR", *(f"    {start} --> {end}" for start, end in arrows), "```"]
    return "\n".join(lines)


def shown() -> dict[str, tuple[str, list[str] | None]]:
    """What each target is, and the experiments that it rests on; None where it rests on no training."""
    rules = Path("workflow/rules")
    experiments = grid.load_scale(Path("config/scales"), README_SCALE).experiments
    claims = grid.load_claims(Path("paper/claims.yaml"))
    known: dict[str, Any] = {"EXPERIMENTS": experiments, "CLAIMS": claims}
    for name in ("figures", "tables"):  # Snakemake's language is Python up to the first directive
        exec((rules / f"{name}.smk").read_text().partition("\nwildcard_constraints")[0], known)
    needs: dict[str, list[str]] = {**known["FIGURES"], **known["TABLES"]}
    needs |= {name: list(experiments) for name in ("paper", "notebooks", "report")}
    for table, names in known["TABLE_CLAIMS"].items():
        needs[table] = [*needs[table], *(name for claim in names for name in claims[claim].experiments)]
    needs |= {f"claim_{name}": claim.experiments for name, claim in claims.items()}
    titles = re.findall(r'^rule (\w+):\n    """(.+)"""', (rules / "targets.smk").read_text(), flags=re.MULTILINE)
    return {name: (title, needs.get(name)) for name, title in titles}


def speeds() -> pd.Series:
    """Seconds for a training step by normalization and optimizer, from the published runs; Fashion-MNIST at 14×14."""
    rows = []
    for record in read_table(grid.PUBLISHED_TABLE)[1]:
        run = Run(**record["run"])
        if record["diverged"] is None:
            images = run_seconds(run, (run.batch_size, FORWARD_SHARE))  # of training, those evaluated in proportion
            rows.append((run.normalization, run.optimizer, run.batch_size * record["seconds"] / images))
    table = pd.DataFrame(rows, columns=["normalization", "optimizer", "seconds"])
    return table.groupby(["normalization", "optimizer"])["seconds"].median()


def targets_table() -> str:
    """The targets: command, what it shows, cost from raw data and redrawn."""
    runs = grid.load_scale(Path("config/scales"), README_SCALE).runs()
    measured = json.loads(Path("results/published/benchmark.json").read_text())
    redrawn = measured["workflow"]["published_seconds"]
    seconds = speeds()
    rows = []
    for name, (title, experiments) in shown().items():
        if name.startswith("claim_"):  # in the table of verdicts
            continue
        needed = {run.run_id: run for experiment in experiments or [] for run in runs[experiment]}
        cost = 0.0
        for run in needed.values():
            step = seconds[run.normalization, run.optimizer]
            cost += run_seconds(run, (step, step / run.batch_size * FORWARD_SHARE))
        minutes = round(cost / 60 / README_CORES)
        raw = f"{max(minutes, 1)} min ({len(needed)} trainings)" if needed else "no training"
        rows.append([f"`make {name}`", title, raw, f"{redrawn[name]:.0f} s"])
    return markdown(["command", "shows", "from raw data", "from published metrics"], rows)


def interval(*estimate: float) -> str:
    """A value and its ends, in brackets, with two decimals; one where they are large."""
    digits = 2 if max(map(abs, estimate)) < 10 else 1
    value, low, high = (f"{round(number, digits) + 0.0:.{digits}f}" for number in estimate)  # + 0.0: no -0.00
    return f"{value} [{low}, {high}]"


def verdicts_table(decided: dict[str, Any]) -> str:
    """The verdicts on the published study, with each statistic that has digits to show."""
    rows = []
    for name, claim in decided.items():
        found: dict[str, list[str]] = {}
        for part in claim["parts"] + claim["explored"]:
            if "invariance" in part["statistic"]:
                continue
            value = "no value" if part["low"] is None else interval(part["value"], part["low"], part["high"])
            explored = " (explored afterwards)" * ("verdict" not in part)
            found.setdefault(part["statistic"].replace("_", " ") + explored, []).append(f"{part['subject']} {value}")
        measured = "; ".join(f"{what}: {', '.join(values)}" for what, values in found.items()) or "exact in float64"
        commands = f"`make claim_{name}`, `make {claim['shown']}`"
        rows.append([f"{name} {claim['title']}", f"**{claim['verdict']}**", measured, commands])
    return markdown(["claim", "verdict", "measured, with 90 % interval", "see"], rows)


def generated() -> dict[Path, str]:
    """Every generated file, whole, as it should be."""
    readme, config, developers = Path("README.md"), Path("config/README.md"), Path("docs/developers.md")
    text = section(readme.read_text(), "targets", targets_table())
    described = section(config.read_text(), "keys", keys_table())
    return {
        readme: section(text, "verdicts", verdicts_table(decide_published()[1])),
        developers: section(developers.read_text(), "graph", rule_graph()),
        config: section(described, "settings", settings_table()),
        Path("config/config.yaml"): config_file(),
        Path("workflow/schemas/config.json"): as_json(grid.Config.model_json_schema()),
        Path("workflow/schemas/scale.json"): as_json(scale_schema()),
    }


def main() -> int:
    argparse.ArgumentParser(description="Write the generated pages of the documentation.").parse_args()
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
