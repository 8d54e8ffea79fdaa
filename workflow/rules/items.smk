# Tidy tables and verdicts -> the figures, tables and numbers of each study, in forms for the paper and for pages.

FIGURES = {(study, name): item for study, chapter in CHAPTERS.items() for name, item in chapter.contents.figures.items()}
TABLES = {(study, name): item for study, chapter in CHAPTERS.items() for name, item in chapter.contents.tables.items()}


wildcard_constraints:
    figure="|".join(name for _, name in FIGURES) or "none",
    table="|".join(name for _, name in TABLES) or "none",


def made_of(study, item):
    """What an item rests on: tables of experiments, claims and checks."""
    chapter = CHAPTERS[study]
    own = list(chapter.experiments) if item.experiments == "all" else item.experiments
    return {
        "tables": tables_of(study, own),
        "claims": claims_of(study, chapter.claim_names(item)),
        "checks": [checks_of(study)] if item.checks else [],
        "file": [ROOT / item.file] if item.file and (ROOT / item.file).exists() else [],
    }


def item_shards(study, item):
    return shards_of(study, CHAPTERS[study].experiments_of(item))


def labels(kinds):
    """What the report says beside an item: its number in the paper, where it is placed there, its name and its study."""

    def found(wildcards):
        kind, item = ("figure", wildcards.figure) if kinds is FIGURES else ("table", wildcards.table)
        placed = MANUSCRIPT.numbered(kind).items()
        number = [name for name, one in placed if (one.study, one.item) == (wildcards.study, item)]
        return {kind: item.replace("_", " "), "number": number[0].split("_")[1] if number else "–", "study": wildcards.study}

    return found


rule figure:
    """Draw a figure from the tables of its experiments."""
    input:
        tables=lambda wildcards: made_of(wildcards.study, FIGURES[wildcards.study, wildcards.figure])["tables"],
        style=ROOT / "workflow/effective_lr/document/style.mplstyle",
    output:
        pdf=f"{BUILD}/{{study}}/{{figure}}.pdf",
        png=report(
            f"{BUILD}/{{study}}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=labels(FIGURES),
        ),
    log:
        f"{RESULTS}/{{study}}/logs/figure-{{figure}}.log",
    params:
        caption=lambda wildcards: FIGURES[wildcards.study, wildcards.figure].title,
        code=with_study("document.figures", "{study}.figures"),
    shell:
        "python -m effective_lr figure --study {wildcards.study} --name {wildcards.figure} --tables {input.tables:q}"
        " --pdf {output.pdf:q} --png {output.png:q} 2>&1 | tee -i {log:q}"


rule table:
    """Write a table of the paper, and its page."""
    input:
        unpack(lambda wildcards: made_of(wildcards.study, TABLES[wildcards.study, wildcards.table])),
    output:
        latex=f"{BUILD}/{{study}}/{{table}}.tex",
        html=report(
            f"{BUILD}/{{study}}/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels=labels(TABLES),
        ),
    log:
        f"{RESULTS}/{{study}}/logs/table-{{table}}.log",
    params:
        title=lambda wildcards: TABLES[wildcards.study, wildcards.table].title,
        caption=lambda wildcards: TABLES[wildcards.study, wildcards.table].caption,
        code=with_study("document.shared_tables", "document.report", "{study}.tables", "{study}.statistics"),
    shell:
        "python -m effective_lr table --study {wildcards.study} --name {wildcards.table} --title {params.title:q}"
        " --caption {params.caption:q} --tables {input.tables:q} --claims {input.claims:q} --checks {input.checks:q}"
        " --file {input.file:q} --latex {output.latex:q} --html {output.html:q} 2>&1 | tee -i {log:q}"


def captions(wildcards):
    """The captions of a study, which the paper finds beside its numbers."""
    shown = CHAPTERS[wildcards.study].contents
    return json.dumps({name: item.caption for name, item in {**shown.figures, **shown.tables}.items()})


rule numbers:
    """Write every number that a sentence of a chapter states, and its captions."""
    input:
        tables=lambda wildcards: tables_of(wildcards.study, CHAPTERS[wildcards.study].experiments),
        claims=lambda wildcards: claims_of(wildcards.study, CHAPTERS[wildcards.study].claims),
        checks=lambda wildcards: checks_of(wildcards.study),
    output:
        f"{BUILD}/{{study}}/numbers.tex",
    log:
        f"{RESULTS}/{{study}}/logs/numbers.log",
    params:
        scale=CONFIG.scale_name,
        captions=captions,
        code=with_study("document.numbers", "{study}.numbers", "{study}.statistics"),
    shell:
        "python -m effective_lr numbers --study {wildcards.study} --scale {params.scale} --captions {params.captions:q}"
        " --tables {input.tables:q} --claims {input.claims:q} --checks {input.checks:q} --output {output:q}"
        " 2>&1 | tee -i {log:q}"


NOTEBOOKS = {(study, name): one for study, chapter in CHAPTERS.items() for name, one in chapter.contents.notebooks.items()}


wildcard_constraints:
    notebook="|".join(name for _, name in NOTEBOOKS) or "none",


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
    source = ROOT / "notebooks" / wildcards.study / f"{wildcards.notebook}.py"
    modules = {module.removeprefix("effective_lr.") for module in code.imports(source)}
    package = ROOT / "workflow/effective_lr"
    there = [module for module in modules if (package / f"{module.replace('.', '/')}.py").exists()]
    return code.sources(["document.notebooks", *sorted(there)])


rule notebook:
    """Execute a notebook and write it as a page. A cell that fails, fails the job; the logs keep what ran until then."""
    input:
        unpack(notebook_inputs),
        source=ROOT / "notebooks/{study}/{notebook}.py",
        style=ROOT / "workflow/effective_lr/document/style.mplstyle",
    output:
        notebook=f"{RESULTS}/{{study}}/notebooks/{{notebook}}.ipynb",
        page=report(
            f"{RESULTS}/{{study}}/notebooks/{{notebook}}.html",
            caption="../report/notebook.rst",
            category="Notebooks",
            labels={"notebook": "{notebook}", "study": "{study}"},
        ),
    log:
        text=f"{RESULTS}/{{study}}/logs/notebook-{{notebook}}.log",
        notebook=f"{RESULTS}/{{study}}/logs/notebook-{{notebook}}.ipynb",
    params:
        title=lambda wildcards: NOTEBOOKS[wildcards.study, wildcards.notebook].title,
        parameters=notebook_parameters,
        code=notebook_code,
    shell:
        "python -m effective_lr notebook --source {input.source:q} --parameters {params.parameters:q}"
        " --executed {log.notebook:q} --notebook {output.notebook:q} --page {output.page:q} > {log.text:q} 2>&1"
        " || (tail -n 1 {log.text:q} >&2; exit 1)"
