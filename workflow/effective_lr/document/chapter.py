"""A chapter in one process: the verdicts, macros and tables of a study, and two pages for the report."""

from collections.abc import Iterator
from pathlib import Path

from effective_lr.document import common_tables, report
from effective_lr.document.macros import macros_of, to_latex
from effective_lr.document.table import Results, Table
from effective_lr.engine.inputs import Layout
from effective_lr.engine.storage import read_json, write_json
from effective_lr.errors import UserError
from effective_lr.evidence import tidy
from effective_lr.evidence.verdicts import as_text, decide_all


def results_of(layout: Layout, study: str) -> Results:
    """What the tables and macros of a chapter are made of."""
    chapter = layout.chapters[study]
    tables, checks = tidy.read(chapter, layout.tables(study)), tidy.read_checks(layout.checks(study))
    return Results(
        study=chapter.study,
        tables=tables,
        claims=decide_all(chapter, tables, checks, layout.options),
        checks=checks,
        scale="" if layout.is_published else layout.config.scale_name,
        published={scale: read_json(path) for scale, path in layout.all_published_claims(study).items()},
    )


def write_chapter(layout: Layout, study: str) -> None:
    """Write claims.json, runs.csv and pages among the results, numbers.tex and tables/*.tex beside the paper."""
    chapter, build, results = layout.chapters[study], layout.build / study, results_of(layout, study)
    folder, runs = layout.results(study), results.tables.runs()
    (build / "tables").mkdir(parents=True, exist_ok=True)
    write_json(results.claims, layout.claims(study))
    runs.to_csv(folder / "runs.csv", index=False)
    (folder / "verdicts.html").write_text(report.claims_to_html(results.claims), encoding="utf-8")
    (folder / "provenance.html").write_text(report.provenance_to_html(runs), encoding="utf-8")
    captions = {name: item.caption for name, item in chapter.contents.shown.items()}
    macros = to_latex(study, macros_of(results, layout.config.scale_name), captions)
    (build / "numbers.tex").write_text(macros, encoding="utf-8")
    for name, table in tables_of(layout, study, results):
        (build / "tables" / f"{name}.tex").write_text(table.latex(), encoding="utf-8")


def write_claim(layout: Layout, study: str, name: str, output: Path) -> str:
    """Decide on one claim by its own runs; returns the verdict as text."""
    chapter = layout.chapters[study]
    experiments = chapter.claims[name].experiments
    tables = tidy.read(chapter, layout.tables(study, experiments), experiments)
    decided = decide_all(chapter, tables, tidy.read_checks(layout.checks(study)), layout.options)[name]
    write_json(decided, output)
    return as_text(decided)


def tables_of(layout: Layout, study: str, results: Results) -> Iterator[tuple[str, Table]]:
    """The tables of the study's tables.py, or those that all studies have. Raises UserError where neither has one."""
    chapter = layout.chapters[study]
    for name, item in chapter.contents.tables.items():
        make = chapter.study.find("tables", name) or getattr(common_tables, name, None)
        if make is None:
            raise UserError(f"{name}: no function of that name in the tables.py of {study}; add it")
        own = list(chapter.experiments) if item.experiments == ["all"] else item.experiments
        measured = [read_json(path) for path in layout.measured(item)]
        shown = results._replace(
            tables=results.tables.only(own),
            claims={claim: results.claims[claim] for claim in chapter.claims_of(item)},
            measured=measured[0] if measured else None,
        )
        yield name, make(shown)
