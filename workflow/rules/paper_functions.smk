# What paper.smk asks.

WATERMARK = next((chapter.scale.watermark for chapter in CHAPTERS.values() if chapter.scale.watermark), "")


STUDIES = list(CHAPTERS)


def runs_of_claims():
    """How many runs each claim of each study rests on."""
    return json.dumps(
        {
            study: {name: len(chapter.runs_of(claim.experiments)) for name, claim in chapter.claims.items()}
            for study, chapter in CHAPTERS.items()
        }
    )


def produced(float_):
    """The file that a float of the manuscript shows. Ends the workflow with a sentence where nothing makes it."""
    if (float_.study, float_.item) == (manuscript.FRAME, "overview"):
        return f"{BUILD}/{manuscript.FRAME}/overview.tex"
    known = FIGURES if float_.kind == "figure" else TABLES
    if (float_.study, float_.item) not in known:
        raise SystemExit(
            f"{float_.where}: nothing makes {float_.item}; paper/{float_.study}/contents.yaml has the {float_.kind}s "
            + ", ".join(name for study, name in known if study == float_.study)
        )
    return f"{BUILD}/{float_.study}/{float_.item}.{'pdf' if float_.kind == 'figure' else 'tex'}"
