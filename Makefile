# `make` sets everything up, trains and builds the paper; `make help` lists the rest. In an activated environment,
# plain `snakemake --cores all` does the same: nothing here adds to what Snakemake needs.
#
# PYTHON   the Python, 3.11 or newer, that creates the virtual environment
# VENV     the virtual environment; several checkouts may share one by its absolute path
# SYSTEM   no: never install system packages (LaTeX, Fashion-MNIST)
# SCALE    smoke, laptop, study, cifar or paper (config/README.md)
# METRICS  published: train nothing, redraw from the committed results of SCALE (study where that is not given)
# STUDY    one study, where a command goes through all
# TARGET, NUMBER, WHERE, CSV, TENSORBOARD   what `make why`, `make trace` and `make runs` are asked
# CORES    how many cores Snakemake may use
# GPU_SPEED  of `make plan`: operations per second of a GPU to reckon by, in place of those measured
# JSON     of `make plan`: a file to write for benchmarks/gpu.py
# AGENT    who runs the workflow, as `make crate` names it; nobody where it is not given

PYTHON ?= python3
VENV ?= .venv
SYSTEM ?= yes
SCALE ?=
METRICS ?=
CORES ?= all

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

scale = $(or $(SCALE),$(if $(METRICS),study,laptop))
built = $(if $(METRICS),published-)$(scale)
pdf = paper/build/$(built)/main.pdf
jobs = $(if $(filter all,$(CORES)),$$(nproc),$(CORES))
settings = $(if $(SCALE),scale=$(SCALE)) $(if $(METRICS),metrics=$(METRICS))
activate = @source '$(VENV)/bin/activate'; export PYTHONPATH=workflow
whole = --scale '$(SCALE)' --study '$(STUDY)'

# The target precedes the options, because --cores and --config take every word that follows.
define snakemake
$(activate)
python -m effective_lr run $(1) --cores $(CORES) $(if $(strip $(settings)),--config $(settings)) $(force)
endef

.PHONY: all only paper report explore crate notebooks lab plan why trace runs watch bench bench-gpu retrain clean-runs compare \
    reuse-published push-runs pull-runs publish certify pages test test-slow archive capsule unlock lock clean setup help

all: setup ## Train what is missing and build the whole paper (the default)
	$(call snakemake)
	echo "The paper: $(pdf)"

paper: setup ## Build the PDF and what it rests on
	$(call snakemake,paper)
	echo "The paper: $(pdf)"

report: setup ## Write one self-contained HTML page with all figures, tables, verdicts, notebooks and provenance
	$(call snakemake,report)
	snakemake report --report '$(dir $(pdf))report.html' --cores 1 $(if $(strip $(settings)),--config $(settings))

explore: setup ## Write one HTML page, which opens from disk, with every run, its curves beside the theory, and every claim
	$(call snakemake,$@)
	echo 'The explorer: $(dir $(pdf))explorer.html'

crate: force = --forcerun bundle
crate: setup ## Bundle the run with its provenance as an RO-Crate; AGENT='your name' says who ran it
	$(call snakemake,$@)
	echo "The crate: $(dir $(pdf))crate.zip"

figure_%: setup ## Redraw one figure by its number; `make only ITEM=plane` by its name
	$(call snakemake,$@)

table_%: setup ## Redo one table, e.g. `make table_1`
	$(call snakemake,$@)

claim_%: setup ## Decide on one claim, e.g. `make claim_C5`
	$(call snakemake,$@)

only: setup ## Make one target of `snakemake --list-target-rules`: ITEM=plane, ITEM=normalization, ...
	$(call snakemake,$(ITEM))

notebooks: setup ## Execute the notebooks and write them as pages of HTML
	$(call snakemake,$@)
	echo "The notebooks: results/$(built)/*/notebooks/*.html"

lab: setup ## Open the notebooks in Jupyter
	$(activate)
	# Known to this environment alone: a click on a .py file opens it as a notebook.
	jupytext-config --settings-file '$(VENV)/etc/jupyter/labconfig/default_setting_overrides.json' \
	    set-default-viewer python
	PYTHONPATH="$$PWD/workflow" jupyter lab --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

plan: setup ## Print what is left to train and how long it takes, and train nothing
	$(activate)
	python -m effective_lr plan $(whole) --cores $(jobs) $(if $(GPU_SPEED),--gpu-speed $(GPU_SPEED)) \
	    $(if $(JSON),--json '$(JSON)')

retrain: settings += retrain=true
retrain: force = --forcerun train
retrain: setup ## Train every network anew, then build the paper
	$(call snakemake)
	echo "The paper: $(pdf)"

why: setup ## Print what would be made again, and which setting, function or file changed (TARGET=figure_2)
	$(activate)
	python -m effective_lr why $(whole) --metrics '$(METRICS)' --target '$(TARGET)'

trace: setup ## Print where a number of the paper comes from: NUMBER=contour_slope/sgd
	$(activate)
	python -m effective_lr trace $(whole) --metrics '$(METRICS)' --number '$(NUMBER)'

runs: setup ## List finished runs: WHERE="optimizer=adam lr<0.01", exported by CSV=file or TENSORBOARD=folder
	$(activate)
	python -m effective_lr runs $(whole) --metrics '$(METRICS)' --where "$${WHERE:-}" --csv '$(CSV)' --tensorboard '$(TENSORBOARD)'

watch: setup ## Show what is training now, until Ctrl-C
	$(activate)
	python -m effective_lr watch $(whole)

clean-runs: setup ## Remove trained runs that the present config and code cannot use
	$(activate)
	python -m effective_lr clean $(whole)

compare: setup ## Put a finished scale (SCALE=study) beside its published results; fails when a verdict differs
	$(activate)
	python -m effective_lr compare --scale '$(or $(SCALE),study)' --study '$(STUDY)'

reuse-published: setup ## Put the published runs into the run cache of their scale: only what differs is trained then
	$(activate)
	python -m effective_lr reuse --scale '$(or $(SCALE),study)' --study '$(STUDY)'

push-runs: setup ## Copy finished runs to TO=, a folder, host:folder or URL, from which other machines take them
	$(activate)
	python -m effective_lr push $(whole) --to '$(TO)'

pull-runs: setup ## Take finished runs from FROM=, a folder, host:folder or URL: only what is missing is trained then
	$(activate)
	python -m effective_lr pull $(whole) --from '$(FROM)'

publish: setup ## Write results/published from a finished scale (SCALE=study)
	$(activate)
	python -m effective_lr publish --scale '$(or $(SCALE),study)' --study '$(STUDY)'

certify: setup ## Prove that changed training code (STUDY=normalization) gives the same results, so that trained runs keep
	$(activate)
	python -m effective_lr certify --study '$(or $(STUDY),normalization)'

bench: setup ## Measure speed against usual scripts, and what the workflow adds (16 minutes on an idle machine)
	$(activate)
	python benchmarks/normalization.py measure --output results/benchmark.json
	python benchmarks/normalization.py figure --input results/benchmark.json --output results/benchmark.png
	python benchmarks/norms.py > results/benchmark_norms.json
	echo 'Written: results/benchmark.json, .png, benchmark_norms.json, which the next paper shows;'
	echo 'docs/performance.md shows results/published/normalization/benchmark.json.'

bench-gpu: setup ## Measure a GPU: agreement with the CPU, speed by several ways, what SCALE=paper costs (8 minutes)
	$(activate)
	python -m effective_lr plan --scale '$(or $(SCALE),paper)' --study normalization --json results/plan.json
	python benchmarks/gpu.py --plan results/plan.json --output results/gpu.json

pages: setup ## Write the generated pages and sections of the documentation anew
	$(activate)
	python -m effective_lr pages
	python benchmarks/normalization.py page --input results/published/normalization/benchmark.json --output docs/performance.md
	python benchmarks/normalization.py figure --input results/published/normalization/benchmark.json --output docs/performance.png

test: setup ## Run all that CI runs: linters, types, tests
	$(activate)
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	snakemake --lint
	pytest -n 2 -m 'not slow'

test-slow: setup ## Run the slow tests, which train and build for real
	$(activate)
	pytest -m slow

archive: ## Bundle the last commit, published results included, for an archive that gives it a DOI
	@name=effective-lr-$$(sed -n 's/^version: //p' CITATION.cff)
	mkdir -p dist
	git archive --prefix="$$name/" --output="dist/$$name.tar.gz" HEAD
	echo "dist/$$name.tar.gz: $$(git describe --always --dirty), $$(du -h "dist/$$name.tar.gz" | cut -f1)"

capsule: setup ## Bundle the last commit, the Python packages and the raw data: the paper without a network (4 GB)
	$(activate)
	bash workflow/capsule.sh

unlock: setup ## Free the folder after a run on another machine was killed; on this one `make` does so by itself
	$(activate)
	snakemake --unlock

lock: ## Write requirements.lock anew after a change of pyproject.toml (needs uv)
	@uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --quiet --output-file requirements.lock

clean: ## Remove built papers and caches; keep trained results, data and the environment
	@rm -rf paper/build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	echo "Removed paper/build and caches; results, data and $(VENV) are kept."

setup: ## Install what is missing, and stop there
	@PYTHON='$(PYTHON)' VENV='$(VENV)' SYSTEM='$(SYSTEM)' bash workflow/setup.sh

help: ## List the targets
	@sed -n 's/^\([a-z_%-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do
	    printf 'make %-16s %s\n' "$$target" "$$what"
	done
