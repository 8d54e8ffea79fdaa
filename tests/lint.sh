#!/usr/bin/env bash
# The linters and the type checker, as CI runs them.
set -euo pipefail
ruff check
ruff format --check
mypy
snakefmt --check Snakefile workflow/rules
snakemake --lint
