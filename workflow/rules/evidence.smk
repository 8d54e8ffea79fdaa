# Tables of jobs -> <study>/checks.parquet, exact statements in float64; -> claims.json, macros and tables of a chapter.

RULES = {study: LAYOUT.rules(study) for study in CHAPTERS}  # copied before Snakemake looks for inputs


rule checks:
    """Evaluate the exact statements of the theory in float64."""
    output:
        f"{RESULTS}/{{study}}/checks.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/checks.log",
    priority: 10_000  # they wait for nothing, and are the longest jobs of a small scale
    conda:
        "../../environment.yml"
    resources:
        mem_mb=resources.PROCESS_MEGABYTES,
    params:
        code=code_of("studies.{study}.checks"),
    shell:
        "python -m effective_lr checks --study {wildcards.study} --output {output:q} 2>&1 | tee -i {log:q}"


rule chapter:
    """Decide on the claims of a study, and write the tables and the numbers of its chapter."""
    input:
        tables=lambda wildcards: LAYOUT.tables(wildcards.study),
        checks=lambda wildcards: LAYOUT.checks(wildcards.study),
        rules=lambda wildcards: RULES[wildcards.study],
        contents=ROOT / "paper/{study}/contents.yaml",
        published=lambda wildcards: LAYOUT.all_published_claims(wildcards.study).values(),
        measured=lambda wildcards: [
            path for item in CHAPTERS[wildcards.study].contents.shown.values() for path in LAYOUT.measured(item)
        ],
        templates=[ROOT / f"workflow/effective_lr/document/{name}.html" for name in ("report", "evidence")],
    output:
        claims=f"{RESULTS}/{{study}}/claims.json",
        runs=f"{RESULTS}/{{study}}/runs.csv",
        pages=[
            report(
                f"{RESULTS}/{{study}}/{page}.html",
                caption="../report/page.rst",
                category="Claims and provenance",
                labels={"page": page, "study": "{study}"},
            )
            for page in ("verdicts", "provenance")
        ],
        macros=f"{BUILD}/{{study}}/numbers.tex",
        tables=directory(f"{BUILD}/{{study}}/tables"),
    log:
        f"{RESULTS}/{{study}}/logs/chapter.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=resources.PROCESS_MEGABYTES,
    params:
        code=code_of("document.chapter", "studies.{study}.{part}", part=["analysis", "statistics", "tables", "numbers"]),
    shell:
        command("chapter --study {wildcards.study}")


rule claim:
    """Decide on one claim by its own runs, and print the verdict."""
    input:
        tables=lambda wildcards: LAYOUT.tables(
            wildcards.study, CHAPTERS[wildcards.study].claims[wildcards.claim].experiments
        ),
        checks=lambda wildcards: LAYOUT.checks(wildcards.study),
        rules=lambda wildcards: RULES[wildcards.study],
    output:
        f"{RESULTS}/{{study}}/claims/{{claim}}.json",
    log:
        f"{RESULTS}/{{study}}/logs/claim-{{claim}}.log",
    conda:
        "../../environment.yml"
    params:
        code=rules.chapter.params.code,
    shell:
        command("claim --study {wildcards.study} --name {wildcards.claim} --output {output:q}")
