"""Reproductions of van Laarhoven (2017) and of papers that cite it: a folder of `studies` for each."""
