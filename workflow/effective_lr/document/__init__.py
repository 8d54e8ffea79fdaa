"""What a reader sees: figures and tables in one style, the paper, the report, the notebooks and the generated pages."""
