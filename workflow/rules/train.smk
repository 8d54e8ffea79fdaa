# Prepared data -> <study>/jobs/<job>.parquet: what the runs of one job measured, with their provenance. Finished runs and
# checkpoints lie beside them in <study>/runs, which no rule declares: what a killed job had finished stays.

KEYS = {} if LAYOUT.is_published else {study: code.training_key(chapter.study) for study, chapter in CHAPTERS.items()}

# The longest first, in minutes; before all others the jobs of the first two figures, so that who waits for the paper has
# something to look at.
FIRST = [one for one in MANUSCRIPT.floats if one.kind == "figure" and one.study in CHAPTERS][:2]
FIRST_TABLES = {
    path for one in FIRST for path in LAYOUT.tables_of(one.study, CHAPTERS[one.study].contents.figures[one.item])
}
PRIORITIES = {
    (study, job): LAYOUT.minutes(study, job) + 5000 * (RESULTS / study / "jobs" / f"{job}.parquet" in FIRST_TABLES)
    for study, chapter in CHAPTERS.items()
    for job in chapter.jobs
}


rule train:
    """Train the runs of one job, except those in the run cache, from their checkpoints where they have one."""
    input:
        unpack(lambda wildcards: prepared(LAYOUT.data_of_job(wildcards.study, wildcards.job))),
    output:
        f"{RESULTS}/{{study}}/jobs/{{job}}.parquet",
    log:
        f"{RESULTS}/{{study}}/logs/{{job}}.log",
    priority: lambda wildcards: PRIORITIES[wildcards.study, wildcards.job]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=int(CONFIG.device == "cuda"),
        runtime=lambda wildcards, attempt: LAYOUT.minutes(wildcards.study, wildcards.job, attempt),
        mem_mb=lambda wildcards, attempt: LAYOUT.megabytes(wildcards.study, wildcards.job, attempt),
    params:
        runs=lambda wildcards: grid.runs_hash(CHAPTERS[wildcards.study].jobs[wildcards.job]),
        key=lambda wildcards: KEYS[wildcards.study],
        code=code.sources(["engine.jobs"]),
        scale=SCALE,
    shell:
        "python -m effective_lr train --study {wildcards.study} {params.scale} --job {wildcards.job} --code {params.key}"
        " --runs-hash {params.runs} --output {output:q} 2>&1 | tee -i {log:q}"
