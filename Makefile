# Two commands: `make report` and `make test`. Each first makes .venv from requirements.lock; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv# VENV=none uses $(PYTHON) as it is (a conda environment made from environment.yml)
PROFILE ?= paper

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# Kernels, coverage and JupyterLab read no settings and write no files outside the project.
export PYTHONHASHSEED := 0
export IPYTHONDIR := $(CURDIR)/.cache/ipython
export JUPYTER_CONFIG_DIR := $(CURDIR)/.cache/jupyter
export JUPYTER_DATA_DIR := $(CURDIR)/.cache/jupyter-data
export JUPYTER_RUNTIME_DIR := $(CURDIR)/.cache/runtime
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export DEBUG
export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),1700000000)

ifeq ($(VENV),none)
PY := $(PYTHON)
READY :=
else
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
endif

# VARIABLE=value reaches the parameter, quoted for the shell, only if it was given. TEMP counts on the command line
# only, because some systems set it for temporary files.
quote = '$(subst ','\'',$(1))'
set = $(if $($(1)),--set $(call quote,$(2)=$($(1))))
SETTINGS = $(call set,CORPUS,corpus) $(call set,CORPORA_DIR,corpora_dir) $(call set,TOKENIZER,tokenizer) \
  $(call set,SEED,seed) $(call set,SALT,salt) $(call set,CONTEXT,context) $(call set,DIM,d_model) $(call set,HEADS,n_heads) $(call set,LR,lr) \
  $(call set,SEED_BENCH,bench_seed) $(call set,QUANT_BITS,bits) $(call set,TOPK,top_k) $(call set,TOPP,top_p) \
  $(call set,BEAM,beam_width) $(call set,LENGTH_PENALTY,length_penalty) \
  $(if $(findstring command,$(origin TEMP)),$(call set,TEMP,temperature))
RUN = $(PY) -m paper
PIP = $(PY) -m pip install --quiet --disable-pip-version-check
OPTIONS = --profile $(call quote,$(PROFILE)) --caller $(call quote,$(PWD)) $(SETTINGS)

.PHONY: help setup report publish test lab data tokenize train eval bench bench-quant ablations plot plot-quant \
  verify-corpus test-idem pack verify clean distclean notebooks lock

help: ## this list
	@echo "make <target> [PROFILE=paper|quick|seed|full] [CORPUS=file or name] [SEED= SALT= DIM= HEADS= LR= ...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## create .venv from requirements.lock (TORCH_INDEX=url adds an index, such as one with CPU wheels)

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1): give one, as in PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

report: $(READY) ## run every chapter and render reports/<run>/index.html
	@$(RUN) report $(OPTIONS)

data: $(READY) ## chapter 1: the corpus (text, tokens, vocabulary, hashes)
	@$(RUN) data $(OPTIONS)

tokenize: $(READY) ## chapter 1, as data: the tokens are made with the corpus
	@$(RUN) tokenize $(OPTIONS)

train: $(READY) ## chapter 2: train, and pack dist/model.tar.gz
	@$(RUN) train $(OPTIONS)

eval: $(READY) ## chapter 3: perplexity beside its limits
	@$(RUN) eval $(OPTIONS)

bench: $(READY) ## chapter 4: decoding with and without a KV-cache
	@$(RUN) bench $(OPTIONS)

bench-quant: $(READY) ## chapter 5: quantization
	@$(RUN) bench-quant $(OPTIONS)

ablations: $(READY) ## chapter 6: ablations
	@$(RUN) ablations $(OPTIONS)

plot: $(READY) ## figures/latency.png, with chapter 4
	@$(RUN) plot $(OPTIONS)

plot-quant: $(READY) ## figures/quant.png, with chapter 5
	@$(RUN) plot-quant $(OPTIONS)

verify-corpus: $(READY) ## make the corpus again and compare it with the run's
	@$(RUN) verify-corpus $(OPTIONS)

test: $(READY) ## unit tests, notebooks, the quick pipeline end to end, coverage
	@mkdir -p .cache reports/evidence
	@$(RUN) report --profile quick # first: then the notebooks read its run, and the pipeline's tests find it done
	@export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive TQDM_DISABLE=1; status=0; \
	$(PY) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=600 --ignore-glob='*checkpoint*' -p no:cov \
	  --junitxml=.cache/nbval.xml -p no:cacheprovider -q $(PYTEST_OPTIONS) notebooks > .cache/nbval.log 2>&1 & \
	notebooks=$$!; trap 'kill $$notebooks 2>/dev/null' EXIT; \
	$(PY) -m pytest --cov --cov-report=term --cov-report=json:.cache/coverage.json --junitxml=.cache/junit.xml \
	  -p no:cacheprovider -q $(PYTEST_OPTIONS) tests || status=$$?; \
	wait $$notebooks || status=$$?; trap - EXIT; cat .cache/nbval.log; \
	$(RUN) evidence --profile quick --junit .cache/nbval.xml .cache/junit.xml --coverage .cache/coverage.json || status=1; exit $$status

test-idem: $(READY) ## run the quick pipeline twice and compare every artefact that should be equal
	@$(RUN) test-idem $(OPTIONS)

pack: $(READY) ## dist/mini-transformer-<run>-v<version>.tar.gz, the same bytes from the same run
	@$(RUN) pack $(OPTIONS)

verify: $(READY) ## check that pack: one changed byte fails
	@$(RUN) verify $(OPTIONS)

publish: $(READY) ## copy the run's page, claims, provenance and CSVs to reports/reference/
	@$(RUN) publish $(OPTIONS)

lab: $(READY) ## open JupyterLab in notebooks/ (LAB_OPTIONS=... are passed on)
	@$(PY) -m jupyterlab --notebook-dir=notebooks $(LAB_OPTIONS)

clean: ## delete runs and caches; the environment, downloads and reports/reference/ stay
	rm -rf .cache .pytest_cache .hypothesis .coverage dist
	find reports -mindepth 1 -maxdepth 1 ! -name template ! -name reference -exec rm -rf {} +
	find lib tests notebooks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and delete the environment and downloaded or generated corpora
	rm -rf .venv lib/*.egg-info
	find data -mindepth 1 ! -name README.md ! -name corpora.toml -delete

notebooks: $(READY) ## maintainers: execute notebooks/ at the quick size and keep their outputs
	@$(RUN) notebooks --profile quick

lock: ## maintainers: pin the closure of pyproject.toml again (needs uv)
	uv pip compile pyproject.toml --group test --universal --python-version 3.11 --excludes requirements.excludes \
	  --no-annotate --custom-compile-command "make lock" -o requirements.lock
