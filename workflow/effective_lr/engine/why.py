"""Why something is made again: which setting, function or data file changed since a run was trained last, old → new.

A run that is missing is compared with the nearest run that was ever finished at its scale: first the one with the
fewest other settings, then one with the present code and data, then the latest. The provenance of a run has the key of
its code and the commit, so the functions that changed are found in the files of that commit. What is no training is
asked of Snakemake, which knows that the code of a figure changed, but not where.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from effective_lr.engine import code
from effective_lr.engine.certify import studies_at
from effective_lr.engine.contents import Chapter, target_names
from effective_lr.engine.explain import meant
from effective_lr.engine.jobs import recorded
from effective_lr.engine.plan import data_files, left_out, unfinished
from effective_lr.engine.storage import Provenance, read_provenance
from effective_lr.engine.study import STUDIES, BaseRun, Study, load
from effective_lr.errors import UserError

WHOLE = ("", "all", "paper", "notebooks", "report")  # targets that rest on every run
LIKE = 3  # settings in which a run may differ from another one and still be like it
SHOWN = 6  # names that a line lists; the others are counted
Changes = dict[str, tuple[Any, Any]]  # settings, old and new


# The runs of a target


def experiments_of(
    chapters: Mapping[str, Chapter], numbered: Mapping[str, tuple[str, str]], target: str
) -> dict[str, list[str]]:
    """The experiments of each study that a target rests on; `numbered` has study and item of figure_1, table_1, ...

    Raises UserError for a target that there is not.
    """
    by_target: dict[str, dict[str, list[str]]] = {}
    names = target_names(dict(chapters))
    for name, chapter in chapters.items():
        by_target[name] = {name: list(chapter.experiments)}
        by_target |= {f"claim_{key}": {name: claim.experiments} for key, claim in chapter.claims.items()}
    for (name, item), target_name in names.items():
        shown = {**chapters[name].contents.figures, **chapters[name].contents.tables}[item]
        by_target[target_name] = {name: chapters[name].experiments_of(shown)}
    everything = {name: list(chapter.experiments) for name, chapter in chapters.items()}
    by_target |= dict.fromkeys(WHOLE, everything)
    by_target |= {number: by_target.get(names.get(place, ""), everything) for number, place in numbered.items()}
    if target not in by_target:
        raise UserError(f"TARGET = '{target}': no such target{meant(target, filter(None, by_target))}")
    return by_target[target]


# Runs


class Reason(NamedTuple):
    """Why a run trains, in words that many runs share, and the settings whose values are told beside."""

    text: str
    keys: tuple[str, ...] = ()
    is_skipped: bool = False


def tell_runs(root: Path, chapter: Chapter, runs: list[BaseRun], results: Path, data: Path) -> tuple[int, list[str]]:
    """How many of these runs train, and a line for each reason."""
    wanted = {run.run_id for run in runs}
    missing = [run for run in unfinished(chapter, results, data) if run.run_id in wanted]
    past = Past(root, chapter, finished_before(results / "runs") if missing else [], data)
    groups: dict[Reason, list[Changes]] = defaultdict(list)
    for run in missing:
        reason, changes = past.reason(run)
        groups[reason].append(changes)
    count = sum(len(found) for reason, found in groups.items() if not reason.is_skipped)
    return count, [f"{len(found):6} {reason.text}{values(reason.keys, found)}" for reason, found in groups.items()]


def finished_before(folder: Path) -> list[Provenance]:
    """The provenance of every run in a run cache, whatever code and data it was trained with; the latest first."""
    found = []
    for path in folder.glob("[!.]*.parquet"):
        try:
            found += read_provenance(path)
        except UserError as error:
            print(error, file=sys.stderr)
    return sorted(found, key=lambda record: record.finished, reverse=True)


class Past:
    """What was trained before, of one study at one scale."""

    def __init__(self, root: Path, chapter: Chapter, records: list[Provenance], data: Path) -> None:
        self.root, self.study, self.records, self.data = root, chapter.study, records, data
        self.planned = {run.run_id for runs in chapter.shards.values() for run in runs}
        self.code = code.training_key(chapter.study)

    def reason(self, run: BaseRun) -> tuple[Reason, Changes]:
        """Why a run trains that is not finished, and the settings in which it differs from the nearest finished one."""
        needed = self.study.data(run)
        record = data_files(self.data, needed)[1] if needed else None
        if missing := left_out(self.study, run, self.data):
            return Reason(f"skipped: {missing}", is_skipped=True), {}
        sha256 = recorded(record, "sha256") if record else ""
        if record and not sha256:
            return Reason(f"{record} is missing: once the data are prepared, runs on the same data are found"), {}
        if not self.records:
            return Reason("never trained here"), {}
        nearest, changes = self.nearest(run, sha256)
        if len(changes) > LIKE:
            return Reason(f"new: every finished run differs in {len(changes)} settings or more"), {}
        parts = []
        if nearest.code != self.code:
            parts.append(code_change(self.root, self.study.name, nearest.code, nearest.commit))
        if nearest.data != sha256:
            parts.append(f"changed data {needed}: sha256 {nearest.data[:8]} → {sha256[:8]}")
        if changes:  # last, since their values follow
            parts.append("new beside finished runs" if nearest.run_id in self.planned else "changed settings")
        return Reason("; ".join(parts) or "its file is gone", tuple(changes)), changes

    def nearest(self, run: BaseRun, sha256: str) -> tuple[Provenance, Changes]:
        """The finished run that a run is compared with, and the settings in which they differ."""
        new, fields = json.loads(run.model_dump_json()), type(run).model_fields
        candidates = [record for record in self.records if record.run_id == run.run_id] or self.records
        compared = [(record, differences(new, record.run, fields)) for record in candidates]
        return min(
            compared,
            key=lambda pair: (
                len(pair[1]),
                pair[0].run_id in self.planned,
                pair[0].code != self.code,
                pair[0].data != sha256,
            ),
        )


def differences(new: dict[str, Any], old: dict[str, Any], fields: Mapping[str, Any]) -> Changes:
    """The settings in which a run differs from a finished one. One that is newer had its default there."""
    missing = {key: None if field.is_required() else field.default for key, field in fields.items() if key not in old}
    both = {**missing, **old}
    return {key: (value, new.get(key, "gone")) for key, value in both.items() if value != new.get(key, "gone")}


def values(keys: Iterable[str], found: list[Changes]) -> str:
    """The old and the new values of settings that changed, each pair once."""
    told = [f"{key} {listed(unique(f'{old} → {new}' for old, new in (one[key] for one in found)))}" for key in keys]
    return f": {'; '.join(told)}" if told else ""


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


# Code


@cache  # many runs were trained at one commit
def code_change(root: Path, name: str, old: str, commit: str) -> str:
    """Which functions of the training code of a study changed since a commit that trained it with the key `old`."""
    study = load(name)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            studies = studies_at(root, commit.removesuffix("-dirty"), study, Path(scratch))
            if not (studies / study.name / "training.py").exists():
                raise UserError(f"{commit} has no training code of {study.name}")
            before = definitions(study, studies)
            tree = code.tree_hash(code.training_files(study, studies), studies / study.name)
    except UserError:
        return f"changed code: key {old} → {code.training_key(study)}; commit {commit} is not at hand to say where"
    after = definitions(study, STUDIES)
    known = code.read_lock(STUDIES / study.name / "code.lock")
    changed = [name for name in after if name in before and after[name] != before[name]]
    changed += [f"{name} (new)" for name in after if name not in before]
    changed += [f"{name} (gone)" for name in before if name not in after]
    where = listed(changed) if changed else "nothing in what is committed"
    dirty = "" if known.get(tree, tree) == old else ", when there were changes that nobody committed"
    return f"changed code since {commit.removesuffix('-dirty')}{dirty}: {where}"


def definitions(study: Study, studies: Path) -> dict[str, str]:
    """The functions, methods and other top-level names of the training code with their canonical syntax trees."""
    found: dict[str, str] = defaultdict(str)
    for path in code.training_files(study, studies):
        file = path.relative_to(studies / study.name)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    found[f"{file}: {node.name}.{name_of(part)}"] += code.canonical(part)
                node.body = []
            found[f"{file}: {name_of(node)}"] += code.canonical(node)
    return {name: tree for name, tree in found.items() if not name.endswith((": ", "."))}


def name_of(node: ast.stmt) -> str:
    """What a statement defines; nothing for a docstring."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign():
            return ast.unparse(node.targets[0])
        case ast.AnnAssign():
            return ast.unparse(node.target)
        case ast.Import() | ast.ImportFrom():
            return "imports"
        case ast.Expr(value=ast.Constant(value=str())):
            return ""
    return "other statements"


# What Snakemake makes again


def tell_jobs(target: str, config: Iterable[str]) -> list[str]:
    """A line for each rule and reason of the jobs that Snakemake would run, and how many follow from those."""
    command = [sys.executable, "-m", "snakemake", *filter(None, [target]), "--dry-run", "--workflow-profile", "none"]
    settings = ["--config", *config] if config else []
    result = subprocess.run([*command, *settings], capture_output=True, text=True)
    if result.returncode:
        told = (result.stderr.strip() or result.stdout.strip()).splitlines()  # where it writes depends on the mistake
        raise UserError(f"snakemake --dry-run failed: {told[-1].strip() if told else 'it said nothing'}")
    return grouped(jobs_in(result.stdout))


def jobs_in(printed: str) -> list[tuple[str, str, str]]:
    """Rule, wildcards and reason of each job of a dry run; targets, which make nothing, are left out."""
    jobs = []
    for block in re.split(r"^(?:local)?rule ", printed, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^    (\w+): (.*)$", block, flags=re.MULTILINE))
        if "output" in fields:
            wildcards = re.findall(r"=([^,]+)", fields.get("wildcards", ""))
            jobs.append((block.partition(":")[0], "/".join(wildcards), fields.get("reason", "")))
    return jobs


def grouped(jobs: list[tuple[str, str, str]]) -> list[str]:
    """The jobs with a reason of their own by rule and reason; those that only follow from others are counted."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    followers = 0
    for rule, name, text in jobs:
        reason = in_words(text)
        if reason:
            groups[rule, reason].append(name)
        followers += not reason
    lines = [f"{len(names):6} {rule}{told(names)}: {reason}" for (rule, reason), names in groups.items()]
    return [*lines, *([f"{followers:6} jobs follow from these"] if followers else [])]


def told(names: list[str]) -> str:
    named = [name for name in names if name]
    return f" {listed(named)}" if named else ""


def in_words(reason: str) -> str:
    """Why Snakemake runs a job, short; nothing where that only follows from other jobs."""
    found = []
    for part in reason.split("; "):
        what, _, rest = part.partition(": ")
        match what:
            case "Missing output files":
                found.append("not made yet")
            case "Incomplete output files":
                found.append("its last job was interrupted")
            case "Updated input files":
                found.append(f"changed {listed(rest.split(', '))}")
            case "Params have changed since last execution":
                changes = re.search(r"before: (.*?) now: (.*)$", rest)
                values = [value for side in changes.groups() for value in side.split(",")] if changes else []
                is_code = all(re.fullmatch(r"\s*'[0-9a-f]{16}'\s*", value) for value in values)
                found.append("its code changed" if is_code else "its settings changed (runs, titles, tolerances, ...)")
            case "Set of input files has changed since last execution":
                found.append("it rests on other files")
            case "Code has changed since last execution":
                found.append("its rule changed")
            case "Forced execution":
                found.append("forced")
    return ", ".join(found)


def listed(names: list[str]) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
