# `make` sets everything up, trains and builds the paper; `make help` lists the rest. In an activated environment,
# plain `snakemake --cores all` does the same: nothing here adds to what Snakemake needs.
#
# PYTHON   the Python, 3.11 or newer, that creates the virtual environment
# VENV     the virtual environment; several checkouts may share one by its absolute path
# SYSTEM   no: never install system packages (LaTeX, Fashion-MNIST)
# SCALE    smoke, laptop, study, cifar or paper (config/README.md); without it, that of config/config.yaml, else laptop
# METRICS  published: train nothing, redraw from the committed results of SCALE (study where that is not given)
# STUDY    one study, where a command goes through all
# ITEM     of `make only`: a target of `snakemake --list-target-rules`
# CORES    how many cores Snakemake may use

PYTHON ?= python3
VENV ?= .venv
SYSTEM ?= yes
CORES ?= all
export PYTHON VENV SYSTEM SCALE METRICS STUDY ITEM CORES

# What the user set for other programs decides nothing here: neither where packages go, nor which code runs, nor how it is read.
# Of pip's variables those stay by which it reaches an index.
OF_INDEX := %_URL %_CERT %_HOST %_PROXY %_LINKS %_INDEX %_FILE %_DIR %_TIMEOUT %_RETRIES %_PROVIDER
unexport $(filter-out PYTHON,$(filter PYTHON%,$(.VARIABLES)))
unexport $(filter-out $(OF_INDEX),$(filter PIP_%,$(.VARIABLES)))
unexport SNAKEMAKE_PROFILE BASH_ENV CDPATH SHELLOPTS BASHOPTS $(filter BASH_FUNC_%,$(.VARIABLES))
export PYTHONUTF8 := 1
export PYTHONSAFEPATH := 1
export PYTHONNOUSERSITE := 1

# Programs keep fonts and packages in HOME, or in this folder if HOME is not writable. Snakemake needs a LOGNAME.
export LOGNAME ?= nobody
ifneq (yes,$(shell [ -w "$${HOME:-}" ] && echo yes))
$(shell mkdir -p .snakemake/home)
export HOME := $(CURDIR)/.snakemake/home
endif

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

# Recipes read variables from their environment, so that any character may be in them. The file `lock` is held by every process
# of a run; the file `running` outlives a run that was killed: where it exists and the lock is free, Snakemake's own locks
# are left over.
define activate
@export PATH="$$(cd "$$VENV" && pwd)/bin:$$PATH" PYTHONPATH=workflow EFFECTIVE_LR_BUILD=.snakemake/build
settings=(); [ -z "$$SCALE" ] || settings+=("scale=$$SCALE"); [ -z "$$METRICS" ] || settings+=("metrics=$$METRICS")
config=(); [ "$${#settings[@]}" = 0 ] || config=(--config "$${settings[@]}")
run() { # [TARGET]: Snakemake, one at a time in this folder
    mkdir -p .snakemake; exec 9>>.snakemake/lock
    locked=0; flock --nonblock --conflict-exit-code 75 9 2>/dev/null || locked=$$?
    [ "$$locked" != 75 ] || { echo "$$PWD: another run is active in this folder; wait for it or stop it, then try again" >&2; exit 1; }
    [ "$$locked" = 0 ] || echo "$$PWD: this folder cannot be locked (no flock, or no locks on this disk); do not start a second run" >&2
    [ ! -e .snakemake/running ] || python -m snakemake --unlock >/dev/null 2>&1 || true
    touch .snakemake/running
    code=0; python -m snakemake "$$@" --cores "$$CORES" $$([ ! -t 2 ] || echo --logger rich) "$${config[@]}" || code=$$?
    [ "$$code" -ge 128 ] || rm -f .snakemake/running
    return "$$code"
}
tool() { python -m effective_lr "$$@" --scale "$$SCALE" --metrics recompute --study "$$STUDY"; }
build() { cat .snakemake/build; } # the folder of the paper, as the last run of Snakemake noted it
endef

.PHONY: all report explore notebooks lab only plan compare reuse-published publish certify bench docs test \
    test-slow capsule clean setup setup-dev help

all: setup ## Train what is missing and build the paper (the default)
	$(activate)
	run
	echo "The paper: $$(build)/main.pdf"

figure_% table_% claim_%: setup ## Make one figure or table by its number, or decide one claim: `make figure_2`, `make claim_C5`
	$(activate)
	run '$@'
	# A verdict that was decided before is printed, too; and on a terminal the progress bars write over what jobs print.
	$(if $(filter claim_%,$@),cat results/"$$(basename "$$(build)")"/*/logs/$(@:claim_%=claim-%).log)

only: setup ## Make any target of `snakemake --list-target-rules`: ITEM=plane, ITEM=normalization, ...
	$(activate)
	run "$$ITEM"

report: setup-dev ## Write one self-contained HTML page with all figures, tables, verdicts, notebooks and provenance
	$(activate)
	run report
	python -m snakemake report --report "$$(build)/report.html" --cores 1 "$${config[@]}"

explore: setup ## Write one HTML page, which opens from disk, with every run, its curves beside the theory, and every claim
	$(activate)
	run explore
	echo "The explorer: $$(build)/explorer.html"

notebooks: setup-dev ## Execute the notebooks and write them as pages of HTML
	$(activate)
	run notebooks
	echo "The notebooks: results/$$(basename "$$(build)")/*/notebooks/*.html"

lab: setup-dev ## Open the notebooks in Jupyter
	$(activate)
	# Known to this environment alone: a click on a .py file opens it as a notebook.
	jupytext-config --settings-file "$$VENV/etc/jupyter/labconfig/default_setting_overrides.json" \
	    set-default-viewer python
	PYTHONPATH="$$PWD/workflow" jupyter lab --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

plan: override SYSTEM := no
plan: setup ## Print what is left to train and how long it takes, and train nothing
	$(activate)
	tool plan --cores "$$([ "$$CORES" = all ] && env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc || echo "$$CORES")"

compare: setup ## Compare a finished scale (SCALE=study) with its published results; fails when a verdict differs
	$(activate)
	tool compare

reuse-published: setup ## Copy the published runs into the run cache, so that only other runs are trained
	$(activate)
	tool reuse

publish: setup ## Write results/published from a finished scale (SCALE=study)
	$(activate)
	tool publish

certify: setup ## Check that changed training code (STUDY=norms SCALE=smoke) gives the same results, so that trained runs keep their key
	$(activate)
	tool certify

bench: setup-dev ## Measure speed against usual scripts, and what the workflow adds (on an idle machine)
	$(activate)
	python benchmarks/normalization.py --output results/benchmark.json
	python benchmarks/norms.py > results/benchmark_norms.json
	echo 'Written: results/benchmark.json and benchmark_norms.json, which the next paper shows.'

docs: setup-dev ## Write the generated parts of the documentation anew
	$(activate)
	python -m effective_lr docs

test: setup-dev ## Run all that CI runs: linters, types, tests
	$(activate)
	tests/lint.sh & lint=$$!
	pytest -n 2 -m 'not slow'
	wait "$$lint"

test-slow: setup-dev ## Run the slow tests, which train and build for real
	$(activate)
	pytest -m slow

capsule: setup ## Bundle the last commit, the Python packages and the raw data: the paper without a network (4 GB)
	$(activate)
	bash workflow/capsule.sh

clean: ## Remove built papers and caches; keep trained results, data and the environment
	@rm -rf paper/build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	echo 'Removed paper/build and caches; results, data and the environment are kept.'

setup: ## Install what the paper needs and is missing
	@bash workflow/setup.sh

setup-dev:
	@bash workflow/setup.sh requirements-dev.lock

help: ## List the targets
	@sed -n 's/^\([a-z_% -]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target what; do
	    printf 'make %-28s %s\n' "$$target" "$$what"
	done
