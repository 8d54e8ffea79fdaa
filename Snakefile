# From raw data to the paper. Settings: config/config.yaml and config/scales/. Targets: workflow/rules/targets.smk.

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/notebooks.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/report.smk"


# On a cluster only training is worth a place in the queue. Elsewhere this changes nothing.
localrules:
    data,
    checks,
    aggregate,
    claim,
    figure,
    table,
    benchmark_table,
    notebook,
    pdf,
    figure_view,
    table_view,
    claims_view,
    provenance_view,


onsuccess:
    tell_what_was_trained()


onerror:
    tell_what_was_trained()


require_experiments()
require_producers()


include: "workflow/rules/targets.smk"


rule all:
    """The paper and the executed notebooks: what plain `snakemake` makes"""
    default_target: True
    input:
        rules.paper.input,
        rules.notebooks.input,
