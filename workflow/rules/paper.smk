# Tables of jobs -> figures; with the chapters of all studies -> paper/build/<scale>/main.pdf.


rule figure:
    """Draw a figure."""
    input:
        tables=lambda wildcards: LAYOUT.tables_of(
            wildcards.study, CHAPTERS[wildcards.study].contents.figures[wildcards.figure]
        ),
        style=ROOT / "workflow/effective_lr/document/style.mplstyle",
    output:
        report(
            f"{BUILD}/{{study}}/{{figure}}.pdf", category="Figures", labels={"figure": "{figure}", "study": "{study}"}
        ),
    log:
        f"{RESULTS}/{{study}}/logs/figure-{{figure}}.log",
    priority: 9000  # as soon as its trainings are done
    conda:
        "../../environment.yml"
    resources:
        mem_mb=600,
    params:
        experiments=lambda wildcards: CHAPTERS[wildcards.study].contents.figures[wildcards.figure].experiments,
        code=code_of("document.figures", "studies.{study}.{part}", part=["figures", "analysis"]),
    shell:
        command("figure --study {wildcards.study} --name {wildcards.figure} --output {output:q}")


rule verdicts_figure:
    """Draw every test of every claim, scaled by its tolerance."""
    input:
        expand(rules.chapter.output.claims, study=CHAPTERS),
    output:
        BUILD / manuscript.FRAME / "verdicts.pdf",
    log:
        RESULTS / "verdicts.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("document.overview_figures", "studies.{study}.statistics"),
    shell:
        command("verdicts --output {output:q}")


rule pdf:
    """Write the overview of all verdicts, and typeset the paper with latexmk or tectonic."""
    input:
        sources=MANUSCRIPT.sources,
        claims=expand(rules.chapter.output.claims, study=CHAPTERS),
        macros=expand(rules.chapter.output.macros, study=CHAPTERS),
        tables=expand(rules.chapter.output.tables, study=CHAPTERS),
        figures=[BUILD / one.study / f"{one.item}.pdf" for one in MANUSCRIPT.floats if one.kind == "figure"],
    output:
        report(f"{BUILD}/main.pdf", category="Paper", labels={"shows": "the whole paper"}),
    log:
        RESULTS / "pdf.log",
    conda:
        "../../environment.yml"
    params:
        watermarks=[chapter.scale.watermark for chapter in CHAPTERS.values()],
        code=code_of("document.overview"),
    shell:
        command("paper", log="> {log:q} 2>&1 || (tail -n 3 {log:q} >&2; exit 1)")
