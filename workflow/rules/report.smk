# What `snakemake report --report` shows: the paper's pieces in forms that a browser shows.


rule figure_view:
    """A figure of the paper as a picture."""
    input:
        f"{BUILD}/{{figure}}.pdf",
    output:
        report(
            f"{BUILD}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=figure_labels,
        ),
    log:
        f"{RESULTS}/logs/{{figure}}.view.log",
    conda:
        "../../environment.yml"
    params:
        code=sources("report", "notation"),
    shell:
        "python -m effective_lr.report figure --input {input} --output {output} 2>&1 | tee {log}"


rule table_view:
    """A table of the paper as a page."""
    input:
        f"{BUILD}/{{page}}.tex",
    output:
        report(
            f"{BUILD}/{{page}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels=table_labels,
        ),
    log:
        f"{RESULTS}/logs/{{page}}.view.log",
    wildcard_constraints:
        page=r"table_\d+",
    conda:
        "../../environment.yml"
    params:
        code=sources("report", "notation"),
    shell:
        "python -m effective_lr.report table --input {input} --output {output} 2>&1 | tee {log}"


rule claims_view:
    """The claims with their verdicts as a page."""
    input:
        expand(f"{RESULTS}/claims/{{claim}}.json", claim=CLAIMS),
    output:
        report(
            f"{BUILD}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"shows": "claims and verdicts"},
        ),
    log:
        f"{RESULTS}/logs/claims.view.log",
    conda:
        "../../environment.yml"
    params:
        code=sources("report", "notation"),
    shell:
        "python -m effective_lr.report claims --input {input} --output {output} 2>&1 | tee {log}"


rule provenance_view:
    """The provenance of all runs as a page."""
    input:
        tables_of(EXPERIMENTS),
    output:
        report(
            f"{BUILD}/provenance.html",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"shows": "code, versions, device, dates"},
        ),
    log:
        f"{RESULTS}/logs/provenance.view.log",
    conda:
        "../../environment.yml"
    params:
        code=sources("report", "notation", "analysis"),
    shell:
        "python -m effective_lr.report provenance --input {input} --output {output} 2>&1 | tee {log}"
