# Figures, tables and numbers of all studies -> paper/build/<scale>/main.pdf.

STUDIES = list(CHAPTERS)
WATERMARK = next((chapter.scale.watermark for chapter in CHAPTERS.values() if chapter.scale.watermark), "")


def produced(float_):
    """The file that a float of the manuscript shows. Ends the workflow with a sentence where no rule makes it."""
    if (float_.study, float_.item) == (manuscript.FRAME, "overview"):
        return f"{BUILD}/{manuscript.FRAME}/overview.tex"
    known = FIGURES if float_.kind == "figure" else TABLES
    if (float_.study, float_.item) not in known:
        raise SystemExit(
            f"{float_.where}: no rule makes {float_.item}; paper/{float_.study}/contents.yaml has the {float_.kind}s "
            + ", ".join(name for study, name in known if study == float_.study)
        )
    return f"{BUILD}/{float_.study}/{float_.item}.{'pdf' if float_.kind == 'figure' else 'tex'}"


rule frame:
    """Write what the frame of the paper shows of its chapters: their list, and all verdicts at a glance."""
    input:
        [path for study, chapter in CHAPTERS.items() for path in claims_of(study, chapter.claims)],
    output:
        f"{BUILD}/chapters.tex",
        f"{BUILD}/{manuscript.FRAME}/numbers.tex",
        f"{BUILD}/{manuscript.FRAME}/overview.tex",
    log:
        f"{RESULTS}/frame.log",
    params:
        build=BUILD,
        scale=CONFIG.scale_name,
        watermark=WATERMARK,
        studies=STUDIES,
        code=code.sources(["document.frame"]),
    shell:
        "python -m effective_lr frame --scale {params.scale} --watermark={params.watermark:q} --studies {params.studies}"
        " --claims {input:q} --build {params.build:q} 2>&1 | tee -i {log:q}"


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
    params:
        build=BUILD,
        studies=STUDIES,
        code=code.sources(["document.manuscript"]),
    shell:
        "python -m effective_lr pdf --studies {params.studies} --build {params.build:q} > {log:q} 2>&1"
        " || (tail -n 3 {log:q} >&2; exit 1)"
