"""The RO-Crate of a run: what it names is in it, its provenance is that of the runs, the public validator takes it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from effective_lr.document import crate
from effective_lr.engine.grid import Config
from shared import ROOT

Entities = dict[str, dict[str, Any]]
RUN = {
    "study": "normalization",
    "commit": "abc",
    "code_key": "c0de",
    "data_sha256": "da7a",
    "device": "CPU x86_64",
    "host": "desk",
    "python": "3.11.7",
    "torch": "2.14.1",
    "diverged": None,
    "reused": False,
    "seconds": 1800.0,
    "gpu_seconds": 0.0,
    "peak_memory_mb": 700,
    "finished": "2026-01-02T10:00:00+00:00",
}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the crate of a run whose table has these lines; returns its archive."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results" / "smoke" / "normalization"
    names = ["experiments/plane.runs.parquet", "experiments/plane.metrics.parquet", "checks.parquet", "claims/C1.json"]
    made = [tmp_path / "paper" / "build" / "smoke" / "main.pdf", *(results / name for name in names)]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    made[-1].write_text(json.dumps({"id": "C1", "title": "Invariance", "verdict": "reproduced"}))
    given = [ROOT / "config" / "config.yaml", ROOT / "config" / "normalization" / "smoke.yaml"]

    def write(*lines: dict[str, Any], agent: str = "Ada Lovelace", **config: Any) -> Path:
        runs = [{**RUN, "run_id": str(number), **line} for number, line in enumerate(lines or [{}])]
        pd.DataFrame(runs).to_parquet(made[1])
        output = tmp_path / "crate.zip"
        crate.write(ROOT, Config(**{"scale": "smoke", **config}), agent, given, made, output)
        return output

    return write


def entities(archive: Path) -> Entities:
    with zipfile.ZipFile(archive) as opened:
        return {one["@id"]: one for one in json.loads(opened.read(crate.METADATA))["@graph"]}


def references(value: Any) -> list[str]:
    """The entities that a value names."""
    if isinstance(value, list):
        return [name for one in value for name in references(one)]
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else [name for one in value.values() for name in references(one)]
    return []


def test_what_is_named_is_there(bundle: Callable[..., Path]) -> None:
    archive = bundle()
    found = entities(archive)
    named = {name for one in found.values() for name in references(one)}
    assert named - found.keys() == {"https://w3id.org/ro/crate/1.1"}  # the one thing that RO-Crate itself describes
    with zipfile.ZipFile(archive) as opened:
        files = {name for name in opened.namelist() if not name.endswith("/")} - {crate.METADATA}
    listed = {name for name, one in found.items() if "File" in one["@type"]}
    folders = tuple(name for name, one in found.items() if one["@type"] == "Dataset" and name != "./")
    assert listed <= files and all(name in listed or name.startswith(folders) for name in files)
    assert set(references(found["./"]["hasPart"])) == listed | set(folders)
    assert {"workflow/effective_lr/__main__.py", "paper/main.tex"} <= files
    assert not [name for name in files if "__pycache__" in name]


def test_the_run_names_its_workflow_inputs_outputs_and_person(bundle: Callable[..., Path]) -> None:
    found = entities(bundle())
    run = found["#run"]
    assert references(run["instrument"]) == references(found["./"]["mainEntity"]) == ["Snakefile"]
    assert "config/normalization/smoke.yaml" in references(run["object"])
    assert found["#value-scale"]["value"] == "smoke" and "#value-scale" in references(run["object"])
    assert found["results/smoke/normalization/claims/C1.json"]["name"] == "C1 Invariance: reproduced"
    results = {"paper/build/smoke/main.pdf", "results/smoke/normalization/claims/C1.json"}
    assert results <= set(references(run["result"]))
    assert found[references(run["agent"])[0]]["name"] == "Ada Lovelace"
    assert not [one for one in entities(bundle(agent="")).values() if "Person" in one["@type"]]


def trainings(found: Entities) -> list[dict[str, Any]]:
    """The actions that trained, with their facts by name."""
    actions = [one for name, one in found.items() if name.startswith("#trainings") and one["@type"] == "CreateAction"]
    values = [[found[name] for name in references(one["additionalProperty"])] for one in actions]
    facts = [{value["name"]: value["value"] for value in some} for some in values]
    return [{**one, **some} for one, some in zip(actions, facts, strict=True)]


def test_trainings_tell_machine_versions_times_and_costs(bundle: Callable[..., Path]) -> None:
    late = {"finished": "2026-01-02T12:00:00+00:00", "diverged": 7.0}
    other = {"device": "NVIDIA H100", "gpu_seconds": 1800.0}
    found = entities(bundle({}, late, other))
    first, second = trainings(found)
    assert (first["runs"], first["diverged runs"], first["hours summed over processes"]) == ("2", "1", "1.0")
    assert (first["device"], first["host"], first["commit"]) == ("CPU x86_64", "desk", "abc")
    assert (first["startTime"], first["endTime"]) == ("2026-01-02T09:30:00+00:00", "2026-01-02T12:00:00+00:00")
    assert (second["device"], second["runs"], second["GPU hours"]) == ("NVIDIA H100", "1", "0.5")
    [torch] = references(first["instrument"])
    [python] = references(found[torch]["softwareRequirements"])
    assert (found[torch]["softwareVersion"], found[python]["softwareVersion"]) == ("2.14.1", "3.11.7")


def test_a_run_starts_with_the_trainings_that_are_its_own(bundle: Callable[..., Path]) -> None:
    started = "2026-01-02T09:30:00+00:00"
    assert entities(bundle())["#run"]["startTime"] == started
    for archive in (bundle({"reused": True}), bundle(metrics="published")):
        assert entities(archive)["#run"]["startTime"] > started


def test_nobody_is_said_to_have_trained_what_others_published(bundle: Callable[..., Path]) -> None:
    [mine, published] = trainings(entities(bundle({}, {"host": ""})))
    assert "agent" in mine and "agent" not in published


# The context of RO-Crate 1.1, as far as the crate uses it: the validator would fetch it from the network.
SCHEMA_ORG = """
about additionalProperty additionalType agent author contentSize datePublished description encodingFormat endTime
exampleOfWork hasPart instrument license mainEntity mentions name object programmingLanguage result
softwareRequirements softwareVersion startTime url value valueRequired version
ComputerLanguage CreateAction CreativeWork Dataset Organization Person PropertyValue SoftwareApplication
SoftwareSourceCode
"""
CONTEXT = {
    **{term: f"http://schema.org/{term}" for term in SCHEMA_ORG.split()},
    "File": "http://schema.org/MediaObject",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
}


def test_the_terms_are_those_of_the_context(bundle: Callable[..., Path]) -> None:
    used = {key for one in entities(bundle()).values() for key in one}
    assert used - {"@id", "@type"} <= CONTEXT.keys()


def complaints(archive: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the public validator finds missing of what Workflow Run Crate requires."""
    services = pytest.importorskip("rocrate_validator.services", reason="needs the dependency group crate")
    import requests
    from rocrate_validator.utils.http import HttpRequester

    def answer(_: Any, url: str, **how: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200 if url == "https://w3id.org/ro/crate/1.1/context" else 504
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps({"@context": CONTEXT}).encode()
        return response

    monkeypatch.setattr(HttpRequester, "get", answer, raising=False)
    cache = archive.with_suffix(".cache")
    settings = {
        "rocrate_uri": archive,
        "profile_identifier": "workflow-run-crate",
        "offline": True,
        "cache_path": cache,
    }
    return [issue.message for issue in services.validate(settings).get_issues()]


def changed(archive: Path, change: Callable[[Entities], Any], without: str = "") -> Path:
    """The crate with other metadata, or without a file."""
    found = entities(archive)
    change(found)
    output = archive.with_name("changed.zip")
    content = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": list(found.values())}
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(output, "w") as after:
        after.writestr(crate.METADATA, json.dumps(content))
        for name in set(before.namelist()) - {crate.METADATA, without}:
            after.writestr(name, before.read(name))
    return output


def test_the_public_validator_takes_the_crate_and_refuses_broken_ones(
    bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = bundle()
    assert complaints(archive, monkeypatch) == []
    no_tool = changed(archive, lambda found: found["#run"].pop("instrument"))
    assert any("instrument" in text for text in complaints(no_tool, monkeypatch))
    no_paper = changed(archive, lambda found: None, without="paper/build/smoke/main.pdf")
    assert any("main.pdf" in text for text in complaints(no_paper, monkeypatch))
    no_profile = changed(archive, lambda found: found["./"].pop("conformsTo"))
    assert any("profile" in text for text in complaints(no_profile, monkeypatch))
