# What can be asked for by name, from the contents of each study: `snakemake plane --cores all`. Each target lists the shards
# that it rests on.

import time

START = time.time()


def tell_what_was_trained():
    shards = [path for path in map(Path, all_shards()) if path.exists() and path.stat().st_mtime >= START]
    if shards and not PUBLISHED:
        from effective_lr.engine import plan  # its reader of tables would slow down every other call

        print(plan.summary(shards, START))


# On a cluster only training is worth a place in the queue. Elsewhere this changes nothing.
localrules:
    data,
    gather,
    checks,
    claim,
    figure,
    table,
    numbers,
    notebook,
    frame,
    pdf,
    claims_page,
    provenance_page,
    bundle,
    explorer,


onsuccess:
    tell_what_was_trained()


onerror:
    tell_what_was_trained()


PAGES = [
    *[f"{BUILD}/{study}/{name}.png" for study, name in FIGURES],
    *[f"{BUILD}/{study}/{name}.html" for study, name in TABLES],
    *[f"{BUILD}/{study}/claims.html" for study in CHAPTERS],
]
EXECUTED = [f"{RESULTS}/{study}/notebooks/{name}.html" for study, name in NOTEBOOKS]
# By name: what it is, and its files with the shards that they rest on.
TARGETS = {
    "paper": ("The paper, from raw data to PDF", [*rules.pdf.output, *all_shards()]),
    "notebooks": ("The notebooks, executed", [*EXECUTED, *all_shards()]),
    "explore": ("The explorer of runs, curves and claims, one HTML page", [*rules.explorer.output, *all_shards()]),
    "report": (
        "All that the HTML report shows: `make report` writes it",
        [*rules.pdf.output, *PAGES, *rules.provenance_page.output, *rules.explorer.output, *EXECUTED, *all_shards()],
    ),
    "crate": ("The run with its provenance as an RO-Crate", [*rules.bundle.output, *all_shards()]),
}
for study, chapter in CHAPTERS.items():
    items = [
        *[f"{BUILD}/{study}/{name}.pdf" for name in chapter.contents.figures],
        *[f"{BUILD}/{study}/{name}.tex" for name in chapter.contents.tables],
    ]
    made = [*items, *claims_of(study, chapter.claims), *shards_of(study, chapter.experiments)]
    TARGETS[study] = (f"{chapter.study.title}: figures, tables and verdicts", made)
for (study, name), target in contents.target_names(CHAPTERS).items():
    item = FIGURES.get((study, name)) or TABLES[study, name]
    files = f"{BUILD}/{study}/{name}.pdf" if (study, name) in FIGURES else f"{BUILD}/{study}/{name}.tex"
    TARGETS[target] = (item.title, [files, *item_shards(study, item)])
for study, chapter in CHAPTERS.items():
    for name, claim in chapter.claims.items():
        verdict = [*claims_of(study, [name]), *shards_of(study, claim.experiments)]
        TARGETS[f"claim_{name}"] = (f"{claim.title}: the verdict and its statistics", verdict)
NAMES = contents.target_names(CHAPTERS)
for kind in ("figure", "table"):
    for number, one in MANUSCRIPT.numbered(kind).items():
        if (one.study, one.item) in NAMES:
            same = NAMES[one.study, one.item]
            TARGETS[number] = (f"{TARGETS[same][0]} (`{same}`)", TARGETS[same][1])
        else:
            TARGETS[number] = ("All verdicts at a glance", [produced(one), *all_shards()])

for target, (title, files) in TARGETS.items():

    rule:
        name:
            target
        input:
            files,

    list(workflow.rules)[-1].docstring = title  # a docstring in a loop would have to be a literal
