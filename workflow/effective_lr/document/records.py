"""The records by which others find, check and review the artifact: CodeMeta, CODECHECK, and the facts of checklists.

`make pages` writes them from CITATION.cff, pyproject.toml, the contents of the studies and their published results, so
that none of them states what another file contradicts.
"""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from effective_lr.document.frame import Claims
from effective_lr.document.manuscript import FRAME, scan
from effective_lr.document.numbers import count_verdicts
from effective_lr.engine.contents import Chapter, published_table
from effective_lr.engine.explain import read_yaml
from effective_lr.engine.storage import Provenance, read_table
from effective_lr.errors import UserError
from effective_lr.evidence.estimates import CONFIDENCE

# What a person adds to codecheck.yml stands below this line, and stays when the rest is written anew.
BY_HAND = "# ---- To be filled in by hand ----"
TO_FILL_IN = """
# By the authors, once the paper has an address: `reference` under `paper`, in CITATION.cff as `doi`.
# By the codechecker, after the check (https://codecheck.org.uk/spec/config/1.0/):
#
# codechecker:
#   - name:
#     ORCID:
# report:
# summary:
# repository:
# check_time:
# certificate:
"""


def citation(root: Path) -> dict[str, Any]:
    return read_yaml(root / "CITATION.cff", "the keys of the Citation File Format")


def authors(cited: dict[str, Any]) -> list[dict[str, str]]:
    """The authors of CITATION.cff as schema.org has them, each with an @id where there is an ORCID."""
    return [
        {
            "@type": "Organization" if "name" in one else "Person",
            **({"@id": one["orcid"]} if "orcid" in one else {}),
            "name": one.get("name") or f"{one['given-names']} {one['family-names']}",
        }
        for one in cited["authors"]
    ]


def codemeta(root: Path) -> str:
    """codemeta.json: the software as CodeMeta 3.0 describes it."""
    cited, project = citation(root), tomllib.loads((root / "pyproject.toml").read_text())["project"]
    needed = [re.split(r"(?=[<>=~!])", requirement, maxsplit=1) for requirement in project["dependencies"]]
    content = {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": cited["title"],
        "alternateName": project["name"],
        "description": cited["abstract"],
        "version": cited["version"],
        "datePublished": str(cited["date-released"]),
        "license": f"https://spdx.org/licenses/{cited['license']}",
        "author": authors(cited),
        "keywords": cited["keywords"],
        "programmingLanguage": ["Python", "Snakemake"],
        "operatingSystem": "Linux",
        "runtimePlatform": f"Python {project['requires-python']}",
        "softwareRequirements": [
            {"@type": "SoftwareApplication", "name": name, "version": versions} for name, versions in needed
        ],
        "readme": "README.md",
        "referencePublication": [
            {"@type": "ScholarlyArticle", "name": one["title"], "url": one["url"]} for one in cited["references"]
        ],
    }
    for key, term in {"doi": "identifier", "repository-code": "codeRepository"}.items():
        if key in cited:
            content[term] = cited[key]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def codecheck(root: Path, scale: str, chapters: dict[str, Chapter], claims: Claims) -> str:
    """codecheck.yml: what a codechecker recreates, each file with what it should show. What was added by hand stays."""
    cited = citation(root)
    paper = {
        "title": cited["title"],
        "authors": [
            {"name": one["name"], **({"ORCID": one["@id"].rsplit("/", 1)[1]} if "@id" in one else {})}
            for one in authors(cited)
        ],
        **({"reference": f"https://doi.org/{cited['doi']}"} if "doi" in cited else {}),
    }
    files = {f"paper/build/{scale}/main.pdf": "The paper"}
    titles = {(FRAME, "overview"): "All verdicts at a glance"}
    for study, chapter in chapters.items():
        shown = {**chapter.contents.figures, **chapter.contents.tables}
        titles |= {(study, name): item.title for name, item in shown.items()}
    placed = scan(root / "paper", list(chapters), root)
    for kind, form in (("figure", "pdf"), ("table", "tex")):
        for number, one in placed.numbered(kind).items():
            comment = f"{number.replace('_', ' ').title()}: {titles[one.study, one.item]}"
            files[f"paper/build/{scale}/{one.study}/{one.item}.{form}"] = comment
    for study, decided in claims.items():
        for name, claim in decided.items():
            comment = f"Claim {name}, {claim['title']}: published as {claim['verdict']}"
            files[f"results/{scale}/{study}/claims/{name}.json"] = comment
    content = {
        "version": "https://codecheck.org.uk/spec/config/1.0/",
        "paper": paper,
        "manifest": [{"file": file, "comment": comment} for file, comment in files.items()],
    }
    about = (
        f"# Written by `make pages`, manifest included. `make SCALE={scale}` recreates its files from raw data, and\n"
        f"# `make compare SCALE={scale}` puts them beside the published ones. `make METRICS=published` redraws them\n"
        f"# without training, into paper/build/published-{scale} and results/published-{scale}.\n"
    )
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    path = root / "codecheck.yml"
    added = path.read_text().partition(BY_HAND)[2] if path.exists() else TO_FILL_IN
    return f"%YAML 1.1\n---\n{about}\n{body}\n{BY_HAND}{added}"


# Checklists

SOURCES = ("from data", "by hand")
SLOT = re.compile(r"\{(\w+)\}")


def facts(root: Path, scale: str, chapters: dict[str, Chapter], claims: Claims) -> dict[str, str]:
    """What the published results say of themselves, for the slots of the checklists."""
    tables = {name: published_table(root, name, scale) for name in chapters}
    records = {name: read_table(path)[1] for name, path in tables.items()}
    every = [record for found in records.values() for record in found]
    decided = [claim for found in claims.values() for claim in found.values()]
    parts = [part for claim in decided for part in claim["parts"]]
    trained = [claim["seeds"] for claim in decided if claim["experiments"]]
    data = {chapters[record.study].study.data(chapters[record.study].study.run(**record.run)) for record in every}
    pins = re.findall(r"^[\w.\[\],-]+==", (root / "requirements.lock").read_text(), flags=re.MULTILINE)
    cited, verdicts = citation(root), count_verdicts([claim["verdict"] for claim in decided])
    published = [path for table in tables.values() for path in table.parent.iterdir()]
    return {
        **{name.removeprefix("claims/"): count for name, count in verdicts.items() if name != "claims/count"},
        "claims": str(len(decided)),
        "parts": str(len(parts)),
        "intervals": str(sum(part["low"] is not None for part in parts)),
        "explored": str(sum(len(claim["explored"]) for claim in decided)),
        "confidence": f"{100 * CONFIDENCE:.0f} %",
        "studies": ", ".join(chapters),
        "runs": f"{len(every):,}",
        "runs_by_study": ", ".join(f"{len(found):,} of {name}" for name, found in records.items()),
        "diverged": str(sum(record.diverged is not None for record in every)),
        "resumed": str(sum(record.resumed for record in every)),
        "seeds": f"{min(trained)} to {max(trained)}",
        "hours": f"{sum(record.seconds for record in every) / 3600:.1f}",
        "hours_by_study": ", ".join(
            f"{sum(record.seconds for record in found) / 3600:.1f} for {name}" for name, found in records.items()
        ),
        "gpu_hours": f"{sum(record.gpu_seconds for record in every) / 3600:.1f}",
        "memory": f"{max(record.peak_memory_mb for record in every):,} MB",
        "devices": distinct(every, lambda record: record.device),
        "versions": distinct(every, lambda record: ", ".join(map(" ".join, record.versions.items()))),
        "commits": str(len({record.commit for record in every})),
        "uncommitted": str(sum("dirty" in record.commit for record in every)),
        "first": min(record.finished for record in every)[:10],
        "last": max(record.finished for record in every)[:10],
        "data": ", ".join(sorted(filter(None, data))),
        "packages": str(len(pins)),
        "settings": str(sum(len(chapter.study.run.model_fields) for chapter in chapters.values())),
        "published_size": f"{sum(path.stat().st_size for path in published) / 1e6:.0f} MB",
        "scale": scale,
        "version": str(cited["version"]),
        "license": cited["license"],
    }


def distinct(records: list[Provenance], what: Any) -> str:
    """The values that the runs have, the most frequent first."""
    return "; ".join(value for value, _ in Counter(map(what, records)).most_common())


def checklists(path: Path, known: dict[str, str]) -> list[tuple[str, str, list[list[str]]]]:
    """Title, introduction and rows (item, answer, source) of each checklist.

    Raises UserError for an answer whose mark is not true: one from data has a slot, one by hand has none.
    """
    found = []
    for title, content in read_yaml(path, "checklists by their names").items():
        rows = []
        for item, answers in content["items"].items():
            for number, (source, text) in enumerate(answers.items()):
                where, slots = f"{path.name}: {title}: {item}: {source}", SLOT.findall(text)
                if source not in SOURCES:
                    raise UserError(f"{where}: expected one of {', '.join(SOURCES)}")
                if (source == "from data") != bool(slots):
                    raise UserError(f"{where}: '{text}': expected slots, {{like_this}}, from data, and none by hand")
                for slot in slots:
                    if slot not in known:
                        raise UserError(f"{where}: {{{slot}}}: no such fact; expected one of {', '.join(known)}")
                rows.append(["" if number else item, text.format_map(known), source])
        found.append((title, content["about"], rows))
    return found
