# Figures, tables and numbers of all studies -> paper/build/<scale>/main.pdf.


include: "paper_functions.smk"


rule frame:
    """Write what the frame of the paper shows of its chapters: their list, all verdicts at a glance, origins of numbers."""
    input:
        [path for study, chapter in CHAPTERS.items() for path in claims_of(study, chapter.claims)],
    output:
        f"{BUILD}/chapters.tex",
        f"{BUILD}/{manuscript.FRAME}/numbers.tex",
        f"{BUILD}/{manuscript.FRAME}/overview.tex",
        f"{BUILD}/{manuscript.FRAME}/origins.tex",
    log:
        f"{RESULTS}/frame.log",
    conda:
        "../../environment.yml"
    params:
        build=subpath(output[0], parent=True),
        scale=CONFIG.scale_name,
        watermark=WATERMARK,
        studies=STUDIES,
        runs=runs_of_claims(),
        code=code.sources(["document.frame"]),
    shell:
        "python -m effective_lr frame --scale {params.scale} --watermark={params.watermark:q} --studies {params.studies}"
        " --runs {params.runs:q} --claims {input:q} --build {params.build:q} 2>&1 | tee -i {log:q}"


rule pdf:
    """Typeset the paper with latexmk, or with tectonic where that is what the environment has."""
    input:
        MANUSCRIPT.sources,
        rules.frame.output,
        expand(f"{BUILD}/{{study}}/numbers.tex", study=STUDIES),
        floats=[produced(one) for one in MANUSCRIPT.floats],
    output:
        report(
            f"{BUILD}/main.pdf",
            caption="../report/paper.rst",
            category="Paper",
            labels={"shows": "the whole paper"},
        ),
    log:
        f"{RESULTS}/pdf.log",
    conda:
        "../../environment.yml"
    params:
        build=subpath(output[0], parent=True),
        studies=STUDIES,
        code=code.sources(["document.manuscript"]),
    shell:
        "python -m effective_lr pdf --studies {params.studies} --build {params.build:q} > {log:q} 2>&1"
        " || (tail -n 3 {log:q} >&2; exit 1)"
