# What `snakemake report --report` shows beside the figures, tables and notebooks: claims and provenance as pages.


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
