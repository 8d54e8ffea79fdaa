"""Reproductions of van Laarhoven (2017) and of papers that cite it: one house, a room for each study."""
