# What evidence.smk asks, and the code that a job of a study runs.


def gathered_runs(wildcards):
    return json.dumps([run.run_id for run in CHAPTERS[wildcards.study].experiments[wildcards.experiment]])


def with_study(*names):
    """The code of a job: modules of the package, those of its study as `{study}`."""

    by_study = {study: code.sources([name.format(study=f"studies.{study}") for name in names]) for study in CHAPTERS}
    return lambda wildcards: by_study[wildcards.study]


def stated_claim(wildcards):
    return CHAPTERS[wildcards.study].claims[wildcards.claim]
