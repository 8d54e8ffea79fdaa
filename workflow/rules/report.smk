# What `snakemake report --report` shows beside the figures, tables and notebooks: claims and provenance as pages. And the
# explorer, to which it links.


include: "report_functions.smk"


rule claims_page:
    """The claims of a study with their verdicts as a page."""
    input:
        lambda wildcards: claims_of(wildcards.study, CHAPTERS[wildcards.study].claims),
    output:
        report(
            f"{BUILD}/{{study}}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"study": "{study}"},
        ),
    log:
        f"{RESULTS}/{{study}}/logs/claims-page.log",
    conda:
        "../../environment.yml"
    params:
        code=code.sources(["document.report"]),
    shell:
        "python -m effective_lr page --kind claims --input {input:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule provenance_page:
    """The provenance of all runs as a page."""
    input:
        [path for study, chapter in CHAPTERS.items() for path in tables_of(study, chapter.experiments)],
    output:
        report(
            f"{BUILD}/provenance.html",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"shows": "code, versions, device, dates"},
        ),
    log:
        f"{RESULTS}/provenance-page.log",
    conda:
        "../../environment.yml"
    params:
        code=code.sources(["document.report"]),
    shell:
        "python -m effective_lr page --kind provenance --input {input:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule explorer:
    """The explorer: every run with its curves beside the theory, and every claim, in one page that needs no network."""
    input:
        tables=[path for study, chapter in CHAPTERS.items() for path in tables_of(study, chapter.experiments)],
        claims=[path for study, chapter in CHAPTERS.items() for path in claims_of(study, chapter.claims)],
        pictures=list(FIRST_VIEWS.values()),
        template=ROOT / "workflow/effective_lr/document/explorer.html",
    output:
        f"{BUILD}/explorer.html",  # too large to be one of many items of the report, which links to it
    log:
        f"{RESULTS}/explorer.log",
    conda:
        "../../environment.yml"
    params:
        scale=CONFIG.scale_name,
        metrics=CONFIG.metrics,
        # A run names the data and the code that train it again.
        code=code.sources(["document.explorer", *(f"studies.{study}.explorer" for study in CHAPTERS)]),
        trainings=list(KEYS.values()),
    shell:
        "python -m effective_lr explore --scale {params.scale} --metrics {params.metrics} --tables {input.tables:q}"
        " --claims {input.claims:q} --pictures {input.pictures:q} --output {output:q} 2>&1 | tee -i {log:q}"
