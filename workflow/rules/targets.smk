# What can be asked for by name: `snakemake figure_2 --cores all`. Each lists the shards that it rests on.


rule paper:
    """The paper, from raw data to PDF"""
    input:
        rules.pdf.output,
        shards_of(EXPERIMENTS),


rule notebooks:
    """The notebooks, executed: theory, a tour of one run, and the results to be reviewed"""
    input:
        expand(rules.notebook.output, notebook=NOTEBOOKS),
        shards_of(EXPERIMENTS),


rule report:
    """All that the HTML report shows: `make report` writes it"""
    input:
        rules.pdf.output,
        expand(f"{BUILD}/{{figure}}.png", figure=FIGURES),
        [f"{BUILD}/{name.replace('.tex', '.html')}" for name in MANUSCRIPT.generated if name.startswith("table_")],
        rules.claims_view.output,
        rules.provenance_view.output,
        expand(rules.notebook.output, notebook=NOTEBOOKS),
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


rule figure_4:
    """Norm and effective learning rate at equilibrium, measured and predicted"""
    input:
        f"{BUILD}/figure_4.pdf",
        shards_of(FIGURES["figure_4"]),


rule figure_5:
    """Angle per step, measured and predicted, by layer"""
    input:
        f"{BUILD}/figure_5.pdf",
        shards_of(FIGURES["figure_5"]),


rule figure_6:
    """Test error against the penalty by normalization, and along one function"""
    input:
        f"{BUILD}/figure_6.pdf",
        shards_of(FIGURES["figure_6"]),


rule figure_7:
    """Growth of the norm without a penalty"""
    input:
        f"{BUILD}/figure_7.pdf",
        shards_of(FIGURES["figure_7"]),


rule figure_8:
    """What a drop of the learning rate does, with and without rescaled weights"""
    input:
        f"{BUILD}/figure_8.pdf",
        shards_of(FIGURES["figure_8"]),


rule table_1:
    """Effective learning rate by optimizer, predicted and measured"""
    input:
        f"{BUILD}/table_1.tex",
        table_shards("table_1"),


rule table_2:
    """Best test error by normalization and optimizer"""
    input:
        f"{BUILD}/table_2.tex",
        table_shards("table_2"),


rule table_3:
    """Claims and verdicts"""
    input:
        f"{BUILD}/table_3.tex",
        table_shards("table_3"),


rule table_4:
    """Exact statements, tried in float64"""
    input:
        f"{BUILD}/table_4.tex",
        table_shards("table_4"),


rule table_5:
    """Angle and norm at equilibrium by layer"""
    input:
        f"{BUILD}/table_5.tex",
        table_shards("table_5"),


rule table_6:
    """Training speed against usual scripts (of the published measurement)"""
    input:
        f"{BUILD}/table_6.tex",


rule table_7:
    """What the trainings cost, and what was reused"""
    input:
        f"{BUILD}/table_7.tex",
        table_shards("table_7"),


rule table_8:
    """Settings, with the source of each"""
    input:
        f"{BUILD}/table_8.tex",
        table_shards("table_8"),


rule table_9:
    """Choices of this study, one changed at a time"""
    input:
        f"{BUILD}/table_9.tex",
        table_shards("table_9"),


rule claim_C1:
    """Invariance: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C1.json",
        shards_of(CLAIMS["C1"].experiments),


rule claim_C2:
    """No regularizing effect: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C2.json",
        shards_of(CLAIMS["C2"].experiments),


rule claim_C3:
    """Effective learning rate: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C3.json",
        shards_of(CLAIMS["C3"].experiments),


rule claim_C4:
    """Equilibrium: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C4.json",
        shards_of(CLAIMS["C4"].experiments),


rule claim_C5:
    """Diagonals: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C5.json",
        shards_of(CLAIMS["C5"].experiments),


rule claim_C6:
    """Decay without a penalty: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C6.json",
        shards_of(CLAIMS["C6"].experiments),


rule claim_C7:
    """Adam and RMSProp help only in part: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C7.json",
        shards_of(CLAIMS["C7"].experiments),


rule claim_C8:
    """Normalized weights: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C8.json",
        shards_of(CLAIMS["C8"].experiments),


rule claim_C9:
    """γ and β: the verdict and its statistics"""
    input:
        f"{RESULTS}/claims/C9.json",
        shards_of(CLAIMS["C9"].experiments),
