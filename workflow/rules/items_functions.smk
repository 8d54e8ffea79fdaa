# What items.smk asks: the items of all chapters, and what each rests on.

TABLES = {(study, name): item for study, chapter in CHAPTERS.items() for name, item in chapter.contents.tables.items()}


NOTEBOOKS = {
    (study, name): one for study, chapter in CHAPTERS.items() for name, one in chapter.contents.notebooks.items()
}


FIGURES = {
    (study, name): item for study, chapter in CHAPTERS.items() for name, item in chapter.contents.figures.items()
}


def made_of(study, item):
    """What an item rests on: tables of experiments, claims and checks; and what is published, as far as it is there."""
    chapter = CHAPTERS[study]
    own = list(chapter.experiments) if item.experiments == "all" else item.experiments
    return {
        "tables": tables_of(study, own),
        "claims": claims_of(study, chapter.claim_names(item)),
        "checks": [checks_of(study)] if item.checks else [],
        "published": published_verdicts(study) if item.published else [],
        "file": file_of(item),
    }


def published_verdicts(study):
    paths = [contents.published_claims(ROOT, study, scale) for scale in contents.published_scales(ROOT, study)]
    return [path for path in paths if path.exists()]


def file_of(item):
    """The first file of an item that is there. Committed ones are in the repository; measured here, in the working
    directory, and left out of what is published."""
    committed = {name: name.startswith("results/published/") for name in item.files}
    places = [ROOT / name if committed[name] else Path(name) for name in item.files if committed[name] or not PUBLISHED]
    return [path for path in places if path.exists()][:1]


def item_shards(study, item):
    return shards_of(study, CHAPTERS[study].experiments_of(item))


def labels(kinds):
    """What the report says beside an item: its number in the paper, where it is placed there, its name and its study."""

    def found(wildcards):
        kind, item = ("figure", wildcards.figure) if kinds is FIGURES else ("table", wildcards.table)
        placed = MANUSCRIPT.numbered(kind).items()
        number = [name for name, one in placed if (one.study, one.item) == (wildcards.study, item)]
        return {
            kind: item.replace("_", " "),
            "number": number[0].split("_")[1] if number else "–",
            "study": wildcards.study,
        }

    return found


def captions(wildcards):
    """The captions of a study, which the paper finds beside its numbers."""
    shown = CHAPTERS[wildcards.study].contents
    return json.dumps({name: item.caption for name, item in {**shown.figures, **shown.tables}.items()})


def notebook_inputs(wildcards):
    """What a notebook reads: prepared data, and the tables and claims of its experiments."""
    chapter, one = CHAPTERS[wildcards.study], NOTEBOOKS[wildcards.study, wildcards.notebook]
    data = prepared_data(chapter.study.data(chapter.experiments[one.data_of][0])) if one.data_of else {}
    experiments = chapter.experiments_of(one)
    claims = [name for name, claim in chapter.claims.items() if set(claim.experiments) <= set(experiments)]
    read = {"tables": tables_of(chapter.name, experiments), "claims": claims_of(chapter.name, claims)}
    return {**data, **(read if experiments else {})}


def notebook_parameters(wildcards, input):
    """The values for its cell of parameters."""
    found = {"scale": CONFIG.scale_name, "results": f"{RESULTS}/{wildcards.study}"}
    keys = input.keys()
    return json.dumps({**found, **{key: str(input[key]) for key in ("record", "tensors") if key in keys}})


def notebook_code(wildcards):
    """What a notebook imports of the package."""
    imported = code.imports(ROOT / "notebooks" / wildcards.study / f"{wildcards.notebook}.py")
    return code.sources_of(["effective_lr.document.notebooks", *imported])
