# What can be asked for by name: `snakemake figure_2 --cores all`. Each lists the shards that it rests on.


rule paper:
    """The paper, from raw data to PDF"""
    input:
        rules.pdf.output,
        shards_of(EXPERIMENTS),


rule figure_1:
    """Norm and effective learning rate over training"""
    input:
        f"{BUILD}/figure_1.pdf",
        shards_of(FIGURES["figure_1"]),


rule figure_2:
    """Test error over the plane of learning rate and penalty"""
    input:
        f"{BUILD}/figure_2.pdf",
        shards_of(FIGURES["figure_2"]),


rule figure_3:
    """Test error against the penalty, with and without ‖w‖ = 1"""
    input:
        f"{BUILD}/figure_3.pdf",
        shards_of(FIGURES["figure_3"]),


rule table_1:
    """Effective learning rate by optimizer, predicted and measured"""
    input:
        f"{BUILD}/table_1.tex",
        shards_of(TABLES["table_1"]),


rule table_2:
    """Best test error by normalization and optimizer"""
    input:
        f"{BUILD}/table_2.tex",
        shards_of(TABLES["table_2"]),


rule table_3:
    """Training speed against usual scripts (of the published measurement)"""
    input:
        f"{BUILD}/table_3.tex",


rule table_4:
    """What the trainings cost, and what was reused"""
    input:
        f"{BUILD}/table_4.tex",
        shards_of(TABLES["table_4"]),
