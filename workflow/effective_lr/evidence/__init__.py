"""From rows that runs measured to tables, estimates and verdicts."""
