rule pdf:
    """Typeset the paper with latexmk, or with tectonic where that is what the environment has."""
    input:
        MANUSCRIPT.sources,
        # The paper names its generated files without a folder; they lie in BUILD.
        [f"{BUILD}/{name}" for name in MANUSCRIPT.generated],
    output:
        report(
            f"{BUILD}/main.pdf",
            caption="../report/paper.rst",
            category="Paper",
            labels={"shows": "the whole paper"},
        ),
    log:
        f"{RESULTS}/logs/pdf.log",
    conda:
        "../../environment.yml"
    params:
        build=subpath(output[0], parent=True),
        code=sources("manuscript"),
    shell:
        "python -m effective_lr.manuscript paper/main.tex --build {params.build} > {log} 2>&1"
        " || (tail -n 3 {log} >&2; exit 1)"
