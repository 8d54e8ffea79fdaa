# Shards -> <study>/experiments/*.parquet, tidy tables; -> <study>/claims/*.json, verdicts. <study>/checks.parquet: exact
# statements, tried in float64.


include: "evidence_functions.smk"


wildcard_constraints:
    experiment="[a-z0-9_]+",
    claim="[A-Z]+[0-9]+",


rule gather:
    """Gather an experiment: all that its runs measured, and one summary line for each run."""
    input:
        lambda wildcards: shards_of(wildcards.study, [wildcards.experiment]),
    output:
        metrics=f"{RESULTS}/{{study}}/experiments/{{experiment}}.metrics.parquet",
        runs=f"{RESULTS}/{{study}}/experiments/{{experiment}}.runs.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/gather-{{experiment}}.log",
    conda:
        "../../environment.yml"
    params:
        runs=gathered_runs,
        code=with_study("evidence.tidy", "{study}.analysis"),
    shell:
        "python -m effective_lr gather --study {wildcards.study} --run-ids {params.runs:q} --metrics {output.metrics:q}"
        " --runs {output.runs:q} --shards {input:q} 2>&1 | tee -i {log:q}"


rule checks:
    """Try the exact statements of the theory in float64."""
    output:
        f"{RESULTS}/{{study}}/checks.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/checks.log",
    conda:
        "../../environment.yml"
    params:
        code=with_study("{study}.checks"),
    shell:
        "python -m effective_lr checks --study {wildcards.study} --output {output:q} 2>&1 | tee -i {log:q}"


rule claim:
    """Decide whether a claim is reproduced, by the statistics and tolerances of the study's claims.yaml."""
    input:
        checks=lambda wildcards: checks_of(wildcards.study),
        tables=lambda wildcards: tables_of(wildcards.study, stated_claim(wildcards).experiments),
    output:
        f"{RESULTS}/{{study}}/claims/{{claim}}.json",
    log:
        f"{RESULTS}/{{study}}/logs/claim-{{claim}}.log",
    conda:
        "../../environment.yml"
    params:
        # An edit of another claim changes nothing here.
        claim=lambda wildcards: stated_claim(wildcards).model_dump_json(),
        code=with_study("evidence.verdicts", "{study}.statistics"),
    shell:
        "python -m effective_lr claim --study {wildcards.study} --name {wildcards.claim} --claim {params.claim:q}"
        " --checks {input.checks:q} --tables {input.tables:q} --output {output:q} 2>&1 | tee -i {log:q}"
