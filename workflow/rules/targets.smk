# Targets by name, from the contents of each study: `snakemake plane --cores all`. Each target lists the tables that it rests on:
# without that, a failed training would leave an old figure that Snakemake takes for new.


# On a cluster only training is worth a place in the queue. Elsewhere this changes nothing.
localrules:
    data,
    checks,
    figure,
    chapter,
    claim,
    pdf,
    verdicts_figure,
    notebook,
    explorer,


NOTEBOOKS = [
    RESULTS / study / "notebooks" / f"{name}.html"
    for study, chapter in CHAPTERS.items()
    for name in chapter.contents.notebooks
]
EVERYTHING = LAYOUT.all_tables()
# By name: what it is, and its files with the tables that they rest on.
TARGETS = {
    "paper": ("The paper, from raw data to PDF", [*rules.pdf.output, *EVERYTHING]),
    "verdicts": ("Every test, scaled by its tolerance", [*rules.verdicts_figure.output, *EVERYTHING]),
    "notebooks": ("The notebooks, executed", [*NOTEBOOKS, *EVERYTHING]),
    "explore": ("The explorer of runs, curves and claims, one HTML page", [*rules.explorer.output, *EVERYTHING]),
}
SHOWN = [path for _, files in TARGETS.values() for path in files]
NAMES = contents.target_names(CHAPTERS)
for study, chapter in CHAPTERS.items():
    drawn = {name: BUILD / study / f"{name}.pdf" for name in chapter.contents.figures}
    written = [*expand(rules.chapter.output, study=study), *LAYOUT.tables(study)]
    SHOWN += drawn.values()
    TARGETS[study] = (f"{chapter.study.title}: figures, tables and verdicts", [*drawn.values(), *written])
    for name, item in chapter.contents.shown.items():
        files = [drawn[name], *LAYOUT.tables_of(study, item)] if name in drawn else written
        TARGETS[NAMES[study, name]] = (item.title, files)
    for name, claim in chapter.claims.items():
        verdict = [RESULTS / study / "claims" / f"{name}.json", *LAYOUT.tables(study, claim.experiments)]
        TARGETS[f"claim_{name}"] = (f"{claim.title}: the verdict and its statistics", verdict)
TARGETS["report"] = ("All that the HTML report shows: `make report` writes it", SHOWN)
for number, one in {**MANUSCRIPT.numbered("figure"), **MANUSCRIPT.numbered("table")}.items():
    name = NAMES.get((one.study, one.item), "paper")  # which makes what belongs to no study
    TARGETS[number] = (f"{TARGETS[name][0]} (`{name}`)", TARGETS[name][1])

for target, (title, files) in TARGETS.items():

    rule:
        name:
            target
        input:
            files,

    list(workflow.rules)[-1].docstring = title  # a docstring in a loop would have to be a literal
