"""How runs are declared, found, trained and kept. Knows no study but by name, through `study.load`."""
