# The paper names its generated files without a folder; they lie in BUILD, where each must have a rule.
try:
    MANUSCRIPT = manuscript.scan(Path("paper/main.tex"))
except UserError as error:
    raise SystemExit(str(error))


def require_producers():
    """Refuse a paper that includes a file that no rule makes."""
    for name, where in MANUSCRIPT.generated.items():
        if Path(name).stem not in {**FIGURES, **TABLES}:
            raise SystemExit(f"{where}: no rule makes {name}; see workflow/rules/figures.smk and tables.smk")


rule pdf:
    """Typeset the paper with latexmk, or with tectonic where that is what the environment has."""
    input:
        MANUSCRIPT.sources,
        [f"{BUILD}/{name}" for name in MANUSCRIPT.generated],
    output:
        f"{BUILD}/main.pdf",
    log:
        f"{RESULTS}/logs/pdf.log",
    params:
        code=sources("manuscript"),
    shell:
        "{PYTHON} -m effective_lr.manuscript paper/main.tex --build {BUILD} > {log} 2>&1 || (tail -n 5 {log} >&2; exit 1)"
