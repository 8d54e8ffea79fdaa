"""Where a number of the paper comes from: its definition, value, tolerance and verdict; where it stands; the runs that
it rests on; and the commands that make it again.
"""

import inspect
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from effective_lr.document.manuscript import defined_numbers, scan, used_numbers
from effective_lr.engine.code import PACKAGE
from effective_lr.engine.contents import Chapter, published_table
from effective_lr.engine.explain import meant
from effective_lr.engine.grid import Config
from effective_lr.engine.storage import Provenance, read_provenance
from effective_lr.engine.study import STUDIES, BaseRun
from effective_lr.errors import UserError
from effective_lr.evidence.published import read_claims
from effective_lr.evidence.verdicts import in_brackets, statistics_of, tell_value, tell_within

DEFAULT_SCALE = Config().scale_name
Line = tuple[str, str]  # a word for it, and what there is to say


def trace(root: Path, chapters: dict[str, Chapter], asked: list[str], config: Config, number: str) -> str:
    r"""All about a number of \num in the studies `asked`: contour_slope/sgd, or contour_slope for all its subjects.

    Raises UserError for a number that there is not, or that nothing has decided yet.
    """
    name = number.strip().removesuffix("/interval")
    known: list[str] = []
    texts = []
    for chapter in (chapters[study] for study in asked):
        claims = claims_by_number(chapter)
        others = {key: value for key, value in written(chapter, config).items() if key not in claims}
        known += [*claims, *others]
        for key in [key for key in [*claims, *others] if key == name or key.startswith(f"{name}/")]:
            lines = (
                of_claims(root, chapter, config, key, claims[key])
                if key in claims
                else of_text(root, chapter, config, key, others[key])
            )
            lines.insert(2, ("stands in", ", ".join(places(root, chapters, chapter, key, claims.get(key, [])))))
            texts.append(f"{key} ({chapter.name})\n" + "\n".join(f"  {word:10}{text}" for word, text in lines))
    if not name:
        raise UserError(f"NUMBER: name a number of the paper, such as NUMBER='{known[0]}'")
    if not texts:
        raise UserError(f"NUMBER = '{number}': no such number{meant(name, known)}")
    return "\n\n".join(texts)


def claims_by_number(chapter: Chapter) -> dict[str, list[str]]:
    """The claims that have each statistic/subject."""
    found: dict[str, list[str]] = {}
    for name, claim in chapter.claims.items():
        for what in [*claim.parts, *claim.explored]:
            found.setdefault(f"{what.statistic}/{what.subject}", []).append(name)
    return found


def written(chapter: Chapter, config: Config) -> dict[str, str]:
    """The numbers of the built paper by name, as LaTeX; none where it was not built."""
    path = Path("paper/build") / config.results / chapter.name / "numbers.tex"
    found = defined_numbers(path) if path.exists() else {}
    named = {name.removeprefix(f"{chapter.name}/"): value for name, value in found.items()}
    return {name: value for name, value in named.items() if not name.endswith("/interval")}


def of_claims(root: Path, chapter: Chapter, config: Config, key: str, claims: list[str]) -> list[Line]:
    """What there is to say of a statistic for one subject."""
    statistic, subject = key.split("/", maxsplit=1)
    known = statistics_of(chapter.study)[statistic]
    about = " ".join(inspect.cleandoc(known.measure.__doc__ or "").split()).rstrip(".")
    path, line = STUDIES / chapter.name / "statistics.py", inspect.getsourcelines(known.measure)[1]
    lines = [("is", f"{known.label}{in_brackets(about)}; {path.relative_to(PACKAGE.parents[1])}:{line}")]
    for claim in claims:
        found = decided(root, chapter, config, claim)
        [part] = [
            part
            for part in [*found["parts"], *found["explored"]]
            if (part["statistic"], part["subject"]) == (statistic, subject)
        ]
        verdict = f"{tell_within(part)}: {part['verdict']}" if "within" in part else "explored, no part of the verdict"
        value = tell_value(part).removeprefix(f"{subject}, {statistic}: ")
        lines.append(("value", f"{value}, {verdict}{in_brackets(part.get('why', ''))}; {claim} {found['title']}"))
    experiments = list(dict.fromkeys(name for claim in claims for name in chapter.claims[claim].experiments))
    lines += rests_on(root, chapter, config, experiments)
    lines += [("again", command) for claim in claims for command in commands(config, f"make claim_{claim}")]
    return [*lines, *retraining(chapter, config, experiments)]


def of_text(root: Path, chapter: Chapter, config: Config, key: str, value: str) -> list[Line]:
    """What there is to say of a number that no claim has."""
    own = STUDIES / chapter.name / "numbers.py"
    is_own = own.exists() and f'"{key.split("/")[0]}/' in own.read_text()
    path = own if is_own else Path(__file__).with_name("numbers.py")
    lines = [("is", f"a number of the text; {path.relative_to(PACKAGE.parents[1])}"), ("value", value)]
    lines += rests_on(root, chapter, config, list(chapter.experiments))
    return [*lines, *(("again", command) for command in commands(config, "make paper"))]


def decided(root: Path, chapter: Chapter, config: Config, claim: str) -> dict[str, Any]:
    """A claim with its verdict and numbers. Raises UserError where nothing has decided it."""
    if config.metrics == "published":
        found: dict[str, Any] = read_claims(root, chapter.name, config.scale_name)
        if claim not in found:
            raise UserError(f"{claim}: not decided by what is published at the scale {config.scale_name}")
        return found[claim]
    path = Path("results") / config.results / chapter.name / "claims" / f"{claim}.json"
    if not path.exists():
        raise UserError(
            f"{path}: missing, so this number has no value yet; type `{commands(config, f'make claim_{claim}')[0]}`, "
            "or add METRICS=published to see the published one"
        )
    return dict(json.loads(path.read_text()))


def places(root: Path, chapters: dict[str, Chapter], chapter: Chapter, key: str, claims: Iterable[str]) -> list[str]:
    """The figures and tables of the paper that show a number, and the lines of the text that state it."""
    placed = scan(root / "paper", list(chapters), root)
    numbered = [pair for kind in ("figure", "table") for pair in placed.numbered(kind).items()]
    shown = {chapter.claims[claim].shown for claim in claims}
    for name, item in {**chapter.contents.figures, **chapter.contents.tables}.items():
        if set(chapter.claim_names(item)) & set(claims):
            shown.add(name)
    items = [f"{number} ({one.item})" for number, one in numbered if one.study == chapter.name and one.item in shown]
    text = used_numbers(root / "paper", list(chapters), root)
    stated = [where for where, _, study, name in text if (study, name.removesuffix("/interval")) == (chapter.name, key)]
    return [*items, *dict.fromkeys(stated)] or ["no place of the paper"]


# The runs


def rests_on(root: Path, chapter: Chapter, config: Config, experiments: list[str]) -> list[Line]:
    """The runs of experiments: how many, with which seeds, and where they were trained."""
    runs = chapter.runs_of(experiments)
    if not runs:
        return [("rests on", "no runs: on statements tried in float64 (checks.parquet)")]
    seeds = sorted({run.seed for run in runs})
    range_of_seeds = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    about = f"{len(runs)} runs, seeds {range_of_seeds} ({len(seeds)}), of {', '.join(experiments)}"
    wanted = {run.run_id for run in runs}
    records = [record for record in provenance(root, chapter, config, runs) if record.run_id in wanted]
    if not records:
        return [("rests on", about), ("trained", "not here any more")]
    found = [
        counted(record.commit for record in records),
        f"{min(record.finished for record in records)[:10]} to {max(record.finished for record in records)[:10]}",
        counted(f"{record.device}{' of ' + record.host if record.host else ''}" for record in records),
        counted(f"Python {record.versions['python']}, PyTorch {record.versions['torch']}" for record in records),
    ]
    lines = [("rests on", about), ("trained", f"at commit {found[0]}, {found[1]}, on {found[2]}, with {found[3]}")]
    if len(records) < len(runs):
        lines.append(("", f"{len(runs) - len(records)} of the runs are not there"))
    return lines


def provenance(root: Path, chapter: Chapter, config: Config, runs: list[BaseRun]) -> list[Provenance]:
    """Of the published runs, or of the shards here that carry these runs."""
    if config.metrics == "published":
        return read_provenance(published_table(root, chapter.name, config.scale_name))
    shards = [shard_path(chapter, config, name) for name in sorted({run.shard_id for run in runs})]
    return [record for path in shards if path.exists() for record in read_provenance(path)]


def shard_path(chapter: Chapter, config: Config, shard: str) -> Path:
    return Path("results") / config.scale_name / chapter.name / "shards" / f"{shard}.parquet"


def counted(names: Iterable[str]) -> str:
    """Each name once, the most frequent first, with its count where there are several."""
    counts = Counter(names).most_common()
    return ", ".join(f"{name} ({count})" for name, count in counts) if len(counts) > 1 else counts[0][0]


# The commands


def commands(config: Config, command: str) -> list[str]:
    """The command that makes it again from one's own runs; before it, from the published ones where these are read."""
    scale = "" if config.scale_name == DEFAULT_SCALE else f" SCALE={config.scale_name}"
    own = f"{command}{scale}"
    return [f"{own} METRICS=published", f"{own}, which trains"] if config.metrics == "published" else [own]


def retraining(chapter: Chapter, config: Config, experiments: list[str]) -> list[Line]:
    """How to train one of the runs anew, with those that share its job."""
    runs = chapter.runs_of(experiments)
    if not runs:
        return []
    mates = chapter.shards[runs[0].shard_id]
    command = f"snakemake {shard_path(chapter, config, runs[0].shard_id)} --cores 1 --forcerun train"
    how = f"{command} --config scale={config.scale_name} retrain=true"
    return [("one run", f"{runs[0].run_id}, by a job of {len(mates)}:"), ("", how)]
