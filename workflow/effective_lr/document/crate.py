"""A finished run as a Workflow Run RO-Crate: one archive of what it was given and what it made, with its provenance.

ro-crate-metadata.json in it is a flat list of entities that name each other by their @id. It follows the profile
https://w3id.org/ro/wfrun/workflow/0.5. The sources lie in the archive too, and everything at its place in a checkout,
so that an unpacked crate is a folder in which the workflow can go on.
"""

import json
import mimetypes
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pandas as pd

from effective_lr.document import records
from effective_lr.engine.grid import Config
from effective_lr.engine.storage import whole_file

METADATA = "ro-crate-metadata.json"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
# What of the repository a run needs: Snakefile, these files, these folders.
FILES = ["README.md", "LICENSE", "CITATION.cff", "codemeta.json", "codecheck.yml", "Makefile", "pyproject.toml"]
FILES += ["requirements.lock", "environment.yml"]
FOLDERS = {
    "workflow": "the rules, and the package that they call",
    "config": "the scales: data, networks and grids",
    "paper": "the text, the claims with their tolerances, the lists of figures and tables",
    "notebooks": "the notebooks",
    "profiles": "how Snakemake runs, here and on a cluster",
}
MADE = {"__pycache__", ".ipynb_checkpoints", "build"}  # folders in these that are no sources
# Columns of the tables of runs, which agree for the runs of a study that one code has trained on one machine.
ORIGIN = ["study", "commit", "code_key", "data_sha256", "device", "host", "python", "torch"]
Reference = dict[str, str]
Files = dict[str, Path]  # by their names in the archive


class Graph(dict[str, dict[str, Any]]):
    """The entities of a crate by their @id."""

    def add(self, identifier: str, kind: str, /, **properties: Any) -> Reference:
        """Add an entity, without properties that have no value and without lists of one; returns what others refer to
        it by."""
        single = {key: v[0] if isinstance(v, list) and len(v) == 1 else v for key, v in properties.items() if v}
        self[identifier] = {"@id": identifier, "@type": kind, **single}
        return {"@id": identifier}

    def file(self, name: str, path: Path, /, **properties: Any) -> Reference:
        """Add a file of the archive."""
        is_table = path.suffix == ".parquet"
        form = "application/vnd.apache.parquet" if is_table else mimetypes.guess_type(path)[0] or "text/plain"
        about = {"name": name, "contentSize": str(path.stat().st_size), "encodingFormat": form}
        return self.add(name, "File", **{**about, **properties})

    def software(self, name: str, url: str, number: str, /, **properties: Any) -> Reference:
        """Add a program in the version of this number."""
        identifier = f"#{name.lower()}-{number}"
        return self.add(identifier, "SoftwareApplication", name=name, url=url, softwareVersion=number, **properties)

    def value(self, identifier: str, name: str, value: Any, /, **properties: Any) -> Reference:
        """Add a number or a text that has a name."""
        return self.add(identifier, "PropertyValue", name=name, value=str(value), **properties)


def write(root: Path, config: Config, agent: str, given: list[Path], made: list[Path], output: Path) -> str:
    """Write the archive; returns one line that says what it holds.

    `given` are the files that decide what is made, `made` the paper, the verdicts and the tables; `agent` is the name
    of the person who ran the workflow, or empty. Raises UserError when the disk refuses the archive.
    """
    inputs, results = ({place(root, path): path for path in paths} for paths in (given, made))
    archived = {**sources(root), **inputs, **results}
    graph = describe(root, config, agent, inputs, results)
    content = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": list(graph.values())}
    with whole_file(output) as partial, ZipFile(partial, "w", ZIP_DEFLATED) as archive:
        archive.writestr(METADATA, json.dumps(content, indent=1, ensure_ascii=False))
        for folder in FOLDERS:
            archive.mkdir(folder)
        for name, path in archived.items():
            archive.write(path, name)
    return f"{output}: {len(archived)} files, {output.stat().st_size / 1e6:.1f} MB"


def sources(root: Path) -> Files:
    """The files of the repository that a run needs."""
    paths = [root / name for name in ("Snakefile", *FILES)]
    for folder in FOLDERS:
        paths += [path for path in sorted((root / folder).rglob("*")) if path.is_file()]
    named = {path.relative_to(root): path for path in paths}
    return {name.as_posix(): path for name, path in named.items() if MADE.isdisjoint(name.parts)}


def place(root: Path, path: Path) -> str:
    """Where a file lies in the archive: as in the repository, or else as in the working directory."""
    whole, top = path.resolve(), root.resolve()
    return whole.relative_to(top if whole.is_relative_to(top) else Path.cwd()).as_posix()


def describe(root: Path, config: Config, agent: str, inputs: Files, results: Files) -> Graph:
    """The entities of the crate."""
    graph, cited, scale = Graph(), records.citation(root), config.scale_name
    license = graph.add(f"https://spdx.org/licenses/{cited['license']}", "CreativeWork", name=cited["license"])
    authors = [
        graph.add(one.get("@id", f"#author-{number}"), one["@type"], name=one["name"])
        for number, one in enumerate(records.authors(cited), start=1)
    ]
    person = graph.add("#agent", "Person", name=agent) if agent else None
    profiles = [
        graph.add(address, "CreativeWork", name=name, version=address.rsplit("/", 1)[1])
        for address, name in PROFILES.items()
    ]

    parts = [graph.file(name, root / name) for name in FILES]
    graph["README.md"]["about"] = {"@id": "./"}
    parts += [graph.add(f"{name}/", "Dataset", name=name, description=about) for name, about in FOLDERS.items()]
    given = [graph.file(name, path) for name, path in inputs.items()]
    made = [graph.file(name, path, name=title(path)) for name, path in results.items()]
    parameters, values = settings(graph, config)
    workflow = graph.file(
        "Snakefile",
        root / "Snakefile",
        name=cited["title"],
        version=cited["version"],
        author=authors,
        license=license,
        input=parameters,
        programmingLanguage=graph.add(
            "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
            "ComputerLanguage",
            name="Snakemake",
            url="https://snakemake.readthedocs.io",
            version=version("snakemake"),
        ),
    )
    graph["Snakefile"]["@type"] = ["File", "SoftwareSourceCode", "ComputationalWorkflow"]

    runs = runs_of(results)
    trained_here = runs[~runs["reused"]] if config.metrics == "recompute" else runs[:0]
    times = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in results.values()]
    run = graph.add(
        "#run",
        "CreateAction",
        name=f"Run of the workflow at the scale {scale}",
        description=f"snakemake --cores all --config scale={scale} metrics={config.metrics}",
        startTime=iso(min([*times, *trained_here["started"]])),
        endTime=iso(max(times)),
        agent=person,
        instrument=workflow,
        object=[*given, *values],
        result=made,
    )
    all_parts = {one["@id"]: one for one in [workflow, *parts, *given, *made]}
    root_entity = graph.add(
        "./",
        "Dataset",
        name=f"{cited['title']}: run at the scale {scale}",
        description=f"{cited['abstract']} This is one run of it: what it was given, what it made, and how.",
        datePublished=iso(datetime.now(UTC)),
        license=license,
        author=authors,
        conformsTo=profiles,
        mainEntity=workflow,
        hasPart=list(all_parts.values()),
        mentions=[run, *trainings(graph, runs, results, person)],
    )
    conforms = [{"@id": "https://w3id.org/ro/crate/1.1"}, profiles[-1]]
    graph.add(METADATA, "CreativeWork", about=root_entity, conformsTo=conforms)
    return graph


def title(path: Path) -> str:
    """What a result is, for a person who looks at the list."""
    if path.parent.name == "claims":
        claim = json.loads(path.read_text())
        return f"{claim['id']} {claim['title']}: {claim['verdict']}"
    experiment = path.name.split(".")[0]
    known = {
        "main.pdf": "The paper",
        "checks.parquet": "Exact statements, tried in float64",
        f"{experiment}.runs.parquet": f"{experiment}: one line for each run",
        f"{experiment}.metrics.parquet": f"{experiment}: all that was measured",
    }
    return known[path.name]


def settings(graph: Graph, config: Config) -> tuple[list[Reference], list[Reference]]:
    """The keys of the config as parameters of the workflow, and the values that this run gave them."""
    parameters, values = [], []
    for key, schema in Config.model_json_schema()["properties"].items():
        kind = {"integer": "Integer", "number": "Number", "boolean": "Boolean"}.get(schema.get("type"), "Text")
        about = {"description": schema["description"], "additionalType": kind, "valueRequired": "False"}
        parameters.append(graph.add(f"#parameter-{key}", "FormalParameter", name=key, **about))
        value = config.scale_name if key == "scale" else getattr(config, key)
        values.append(graph.value(f"#value-{key}", key, value, exampleOfWork=parameters[-1]))
    return parameters, values


def runs_of(results: Files) -> pd.DataFrame:
    """One line for each run, from the tables of runs among the results, with the time at which it started."""
    tables = [pd.read_parquet(path) for name, path in results.items() if name.endswith(".runs.parquet")]
    runs = pd.concat([table for table in tables if len(table)]).drop_duplicates(["study", "run_id"])
    finished = pd.to_datetime(runs["finished"], utc=True)
    return runs.assign(finished=finished, started=finished - pd.to_timedelta(runs["seconds"], unit="s"))


def trainings(graph: Graph, runs: pd.DataFrame, results: Files, person: Reference | None) -> list[Reference]:
    """An action for the runs of each study, code, data and machine, with what they took. Runs that another person
    published name no host."""
    actions = []
    for number, (values, group) in enumerate(runs.groupby(ORIGIN, dropna=False, sort=False), start=1):
        origin = dict(zip(ORIGIN, values, strict=True))
        python = graph.software("Python", "https://www.python.org", origin["python"])
        torch = graph.software("PyTorch", "https://pytorch.org", origin["torch"], softwareRequirements=python)
        hours = group["seconds"].sum() / 3600
        facts = {
            **{key.replace("_", " "): value for key, value in origin.items() if value},
            "runs": len(group),
            "diverged runs": group["diverged"].notna().sum(),
            "reused runs": group["reused"].sum(),
            "hours summed over processes": round(hours, 4),
            "GPU hours": round(group["gpu_seconds"].sum() / 3600, 4),
            "peak memory in MB": group["peak_memory_mb"].max(),
        }
        action = graph.add(
            f"#trainings-{number}",
            "CreateAction",
            name=f"{len(group)} trainings of the study {origin['study']}",
            description=f"{hours:.2f} hours on {origin['device']}, at commit {origin['commit'] or 'unknown'}",
            startTime=iso(group["started"].min()),
            endTime=iso(group["finished"].max()),
            agent=person if origin["host"] else None,
            instrument=torch,
            result=[{"@id": name} for name in results if f"/{origin['study']}/experiments/" in name],
            additionalProperty=[
                graph.value(f"#trainings-{number}-{name.replace(' ', '-')}", name, value)
                for name, value in facts.items()
            ],
        )
        actions.append(action)
    return actions


def iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
