# Figures and chapters of all studies -> paper/build/<scale>/main.pdf.


FLOATS = [one for one in MANUSCRIPT.floats if one.study != manuscript.FRAME]  # the others are made with the PDF
for one in FLOATS:
    known = getattr(CHAPTERS[one.study].contents, f"{one.kind}s")
    if one.item not in known:
        raise SystemExit(
            f"{one.where}: nothing makes {one.item}; paper/{one.study}/contents.yaml has the {one.kind}s {', '.join(known)}"
        )


rule verdicts_figure:
    """Draw every test of every claim, scaled by its tolerance."""
    input:
        CHAPTER_FILES["claims"],
    output:
        BUILD / manuscript.FRAME / "verdicts.pdf",
    log:
        RESULTS / "verdicts.log",
    conda:
        "../../environment.yml"
    params:
        scale=SCALE,
        code=code.sources(["document.overview_figures", *(f"studies.{study}.statistics" for study in CHAPTERS)]),
    shell:
        "python -m effective_lr verdicts {params.scale} --output {output:q} 2>&1 | tee -i {log:q}"


rule pdf:
    """Write the overview of all verdicts, and typeset the paper with latexmk or tectonic."""
    input:
        sources=MANUSCRIPT.sources,
        claims=CHAPTER_FILES["claims"],
        macros=CHAPTER_FILES["macros"],
        tables=CHAPTER_FILES["tables"],
        figures=[BUILD / one.study / f"{one.item}.pdf" for one in MANUSCRIPT.floats if one.kind == "figure"],
    output:
        report(
            f"{BUILD}/main.pdf",
            caption="../report/paper.rst",
            category="Paper",
            labels={"shows": "the whole paper"},
        ),
    log:
        RESULTS / "pdf.log",
    conda:
        "../../environment.yml"
    params:
        scale=SCALE,
        watermarks=[chapter.scale.watermark for chapter in CHAPTERS.values()],
        code=code.sources(["document.overview"]),
    shell:
        "python -m effective_lr paper {params.scale} > {log:q} 2>&1 || (tail -n 3 {log:q} >&2; exit 1)"
