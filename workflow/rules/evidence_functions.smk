# What the rules of evidence.smk ask, and the code that a rule of a study runs.


def gathered_runs(wildcards):
    return json.dumps([run.run_id for run in CHAPTERS[wildcards.study].experiments[wildcards.experiment]])


def with_study(*modules):
    """The code of a rule: modules of the package, among them those of the study, as `{study}`."""

    def sources(wildcards):
        own = [module.format(study=f"studies.{wildcards.study}") for module in modules]
        there = [
            module for module in own if (ROOT / "workflow/effective_lr" / f"{module.replace('.', '/')}.py").exists()
        ]
        return code.sources(there)

    return sources


def stated_claim(wildcards):
    return CHAPTERS[wildcards.study].claims[wildcards.claim]
