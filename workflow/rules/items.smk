# Tidy tables and verdicts -> the figures, tables and numbers of each study, in forms for the paper and for pages.


include: "items_functions.smk"


wildcard_constraints:
    figure="|".join(name for _, name in FIGURES) or "none",
    table="|".join(name for _, name in TABLES) or "none",


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
    conda:
        "../../environment.yml"
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
    conda:
        "../../environment.yml"
    params:
        title=lambda wildcards: TABLES[wildcards.study, wildcards.table].title,
        caption=lambda wildcards: TABLES[wildcards.study, wildcards.table].caption,
        scale="" if PUBLISHED else CONFIG.scale_name,  # of one's own run
        code=with_study("document.shared_tables", "document.report", "{study}.tables", "{study}.statistics"),
    shell:
        "python -m effective_lr table --study {wildcards.study} --name {wildcards.table} --title {params.title:q}"
        " --caption {params.caption:q} --scale={params.scale:q} --tables {input.tables:q} --claims {input.claims:q}"
        " --checks {input.checks:q} --published {input.published:q} --file {input.file:q} --latex {output.latex:q}"
        " --html {output.html:q} 2>&1 | tee -i {log:q}"


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
    conda:
        "../../environment.yml"
    params:
        scale=CONFIG.scale_name,
        captions=captions,
        code=with_study("document.numbers", "{study}.numbers", "{study}.statistics"),
    shell:
        "python -m effective_lr numbers --study {wildcards.study} --scale {params.scale} --captions {params.captions:q}"
        " --tables {input.tables:q} --claims {input.claims:q} --checks {input.checks:q} --output {output:q}"
        " 2>&1 | tee -i {log:q}"


wildcard_constraints:
    notebook="|".join(name for _, name in NOTEBOOKS) or "none",


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
    conda:
        "../../environment.yml"
    params:
        title=lambda wildcards: NOTEBOOKS[wildcards.study, wildcards.notebook].title,
        parameters=notebook_parameters,
        code=notebook_code,
    shell:
        "python -m effective_lr notebook --source {input.source:q} --parameters {params.parameters:q}"
        " --executed {log.notebook:q} --notebook {output.notebook:q} --page {output.page:q} > {log.text:q} 2>&1"
        " || (tail -n 1 {log.text:q} >&2; exit 1)"
