# Tables of the jobs of its experiments -> one figure.


rule figure:
    """Draw a figure."""
    input:
        tables=lambda wildcards: LAYOUT.tables_of(
            wildcards.study, CHAPTERS[wildcards.study].contents.figures[wildcards.figure]
        ),
        style=ROOT / "workflow/effective_lr/document/style.mplstyle",
    output:
        report(
            f"{BUILD}/{{study}}/{{figure}}.pdf",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "study": "{study}"},
        ),
    log:
        f"{RESULTS}/{{study}}/logs/figure-{{figure}}.log",
    priority: 9000  # as soon as its trainings are done
    conda:
        "../../environment.yml"
    params:
        experiments=lambda wildcards: CHAPTERS[wildcards.study].contents.figures[wildcards.figure].experiments,
        code=lambda wildcards: CODE[wildcards.study]["figure"],
        scale=SCALE,
    shell:
        "python -m effective_lr figure --study {wildcards.study} --name {wildcards.figure} {params.scale}"
        " --output {output:q} 2>&1 | tee -i {log:q}"
