# On demand: notebooks and the explorer.


rule notebook:
    """Execute a notebook and write it as a page. A cell that fails, fails the job; the logs keep what ran until then."""
    input:
        unpack(lambda wildcards: prepared(LAYOUT.notebook_data(wildcards.study, wildcards.notebook))),
        tables=lambda wildcards: LAYOUT.tables(wildcards.study),
        claims=rules.chapter.output.claims,
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
        title=lambda wildcards: CHAPTERS[wildcards.study].contents.notebooks[wildcards.notebook].title,
        parameters=lambda wildcards: LAYOUT.notebook_parameters(wildcards.study, wildcards.notebook),
        code=lambda wildcards: LAYOUT.notebook_code(wildcards.study, wildcards.notebook),
    shell:
        "python -m effective_lr notebook --source {input.source:q} --parameters {params.parameters:q}"
        " --executed {log.notebook:q} --notebook {output.notebook:q} --page {output.page:q} > {log.text:q} 2>&1"
        " || (tail -n 1 {log.text:q} >&2; exit 1)"


rule explorer:
    """Write every run with its curves beside the theory, and every claim, into one page that needs no network."""
    input:
        tables=LAYOUT.all_tables(),
        claims=expand(rules.chapter.output.claims, study=CHAPTERS),
        templates=[ROOT / f"workflow/effective_lr/document/{name}.html" for name in ("explorer", "evidence")],
    output:
        f"{BUILD}/explorer.html",  # too large to be one of many items of the report, which links to it
    log:
        RESULTS / "explorer.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("document.explorer", "studies.{study}.{part}", part=["explorer", "figures"]),
    shell:
        command("explore --output {output:q}")
