# From raw data to the paper. Settings: config/config.yaml and config/<study>/. Figures, tables and claims: paper/<study>/, from
# which workflow/rules/targets.smk takes its targets; `snakemake --list-target-rules` lists them.

from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evidence.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/targets.smk"


rule all:
    """The paper: what plain `snakemake` makes"""
    default_target: True
    input:
        rules.paper.input,
