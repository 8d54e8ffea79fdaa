wildcard_constraints:
    claim="|".join(CLAIMS),


rule checks:
    """Try the exact statements of the theory in float64, on synthetic images."""
    output:
        "results/checks.parquet",
    log:
        "results/logs/checks.log",
    conda:
        "../../environment.yml"
    params:
        code=sources("checks", "config", "networks", "optimizers", "training"),
    shell:
        "python -m effective_lr.checks --output {output} 2>&1 | tee {log}"


rule claim:
    """Decide whether a claim is reproduced, by the statistics and tolerances of paper/claims.yaml."""
    input:
        # An edit of another claim changes nothing here: what counts is the param.
        claims=ancient("paper/claims.yaml"),
        checks=CHECKS,
        tables=claim_tables,
    output:
        f"{RESULTS}/claims/{{claim}}.json",
    log:
        f"{RESULTS}/logs/claim_{{claim}}.log",
    conda:
        "../../environment.yml"
    params:
        claim=claim_text,
        code=sources("claims", "analysis", "theory"),
    shell:
        "python -m effective_lr.claims {wildcards.claim} --claims {input.claims} --checks {input.checks}"
        " --tables {input.tables} --output {output} 2>&1 | tee {log}"
