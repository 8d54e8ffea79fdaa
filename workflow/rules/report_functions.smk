# What report.smk asks.

FIRST_VIEWS = {
    study: f"{BUILD}/{study}/{chapter.contents.first_view}.png"
    for study, chapter in CHAPTERS.items()
    if chapter.contents.first_view
}
