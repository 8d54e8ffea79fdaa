"""A folder for each study. No study imports another, and the rest of the package knows them by name alone."""
