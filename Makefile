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

# VARIABLE=value reaches the parameter, quoted for the shell, only if it was given. TEMP and MODEL count on the command
# line only, because an environment may use them for something else.
PARAMETERS := CORPUS:corpus CORPORA_DIR:corpora_dir TOKENIZER:tokenizer SEED:seed SALT:salt CONTEXT:context \
  DIM:d_model HEADS:n_heads LR:lr SEED_BENCH:bench_seed QUANT_BITS:bits TOPK:top_k TOPP:top_p BEAM:beam_width \
  LENGTH_PENALTY:length_penalty TEMP:temperature DEVICE:device MODEL:model NANOGPT:nanogpt
variable = $(firstword $(subst :, ,$(1)))
parameter = $(lastword $(subst :, ,$(1)))
quote = '$(subst ','\'',$(1))'
given = $(if $(filter-out TEMP MODEL,$(1))$(findstring command,$(origin $(1))),$($(1)))
SETTINGS = $(foreach p,$(PARAMETERS),$(if $(call given,$(call variable,$p)),\
  --set $(call quote,$(call parameter,$p)=$($(call variable,$p)))))

# A variable of the command line that nothing reads is an error before anything runs. The environment is left alone.
KNOWN := $(foreach p,$(PARAMETERS),$(call variable,$p)) PROFILE JOBS PYTHON VENV TORCH_INDEX LAB_OPTIONS PYTEST_OPTIONS DEBUG \
  FORMAT EXPORT_OPTIONS PUBLISH_OPTIONS SOURCE_DATE_EPOCH GRID WORKERS SCHEDULER
ALSO := SHELL PWD TMPDIR MAKEFLAGS MAKEFILES GNUMAKEFLAGS UPGRADE PIP_% UV_% OMP_% MKL_% CUDA_% TQDM_% \
  PYTHONPATH PYTHONWARNINGS PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTEST_ADDOPTS# read by what is called
UNKNOWN := $(strip $(foreach v,$(.VARIABLES),$(if $(findstring command,$(origin $v)),$(filter-out $(KNOWN) $(ALSO),$v))))
ifneq ($(UNKNOWN),)
WORD := $(firstword $(UNKNOWN))
REMEDY := $(shell $(PYTHON) -c 'import difflib, sys; word, how, *known = sys.argv[1:]; \
  near = {name.lower(): pair.split(":")[0] for pair in known for name in pair.split(":")}; \
  found = difflib.get_close_matches(word.lower(), near, 1, 0.76); \
  print("did you mean " + near[found[0]] + "?" if found else "choose from " + " ".join(sorted({*near.values()})) \
    + ", or give a parameter as in $(PY) -m paper report --set " + how.replace(word, word.lower(), 1) + ":")' \
  $(call quote,$(WORD)) $(call quote,$(WORD)=$($(WORD))) $(PARAMETERS) $(KNOWN) 2>/dev/null)
$(error $(WORD) is unknown: $(or $(REMEDY),make help lists what is known:) nothing was run)
endif

ifneq ($(findstring command,$(origin MODEL)),)
OTHER := $(filter-out report export,$(or $(MAKECMDGOALS),$(.DEFAULT_GOAL)))
ifneq ($(OTHER),)
$(error MODEL is for make report and make export, not for make $(firstword $(OTHER)): nothing was run)
endif
endif

RUN = $(PY) -m paper
OPTIONS = --profile $(call quote,$(PROFILE)) --caller $(call quote,$(PWD)) $(SETTINGS) \
  $(if $(findstring command,$(origin JOBS)),--jobs $(call quote,$(JOBS)))
SWEEP = $(if $(GRID),--grid $(call quote,$(GRID))) $(if $(SCHEDULER),--scheduler $(call quote,$(SCHEDULER))) \
  $(if $(findstring command,$(origin WORKERS)),--workers $(call quote,$(WORKERS)))

.PHONY: help setup report publish test lab data tokenize train eval bench bench-quant ablations interop texts gpu plot plot-quant \
  verify-corpus test-idem export sweep pack verify clean clean-cache distclean notebooks picture wasm lock

help: ## this list
	@echo "make <target> [VARIABLE=value ...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "VARIABLES (README.md tells more)"
	@awk -F '^## ' '/^## / {print "  " $$2}' $(firstword $(MAKEFILE_LIST))

## PROFILE         quick (a first look), paper (the default: 20 minutes to an hour on 2 cores), seed, full (hours on a CPU)
## CORPUS          a text file, or a name that data/README.md lists; CORPORA_DIR: a folder that holds named ones already
## NANOGPT         a clone of nanoGPT, which make texts then runs beside ours
## TOKENIZER       word, character or bpe
## SEED SALT SEED_BENCH    of the language, of the benchmarks
## CONTEXT DIM HEADS LR    of the model and its training
## QUANT_BITS      32, 8 or 4
## DEVICE          where models are trained: cpu (the default but in full), cuda, mps, or auto, the best there is
## TEMP TOPK TOPP BEAM LENGTH_PENALTY    of sampling and beam search
## MODEL           a model's folder (Hugging Face or our own): make report judges it on CORPUS, make export writes it
## FORMAT EXPORT_OPTIONS    of make export: what to write, and the options of its command
## GRID WORKERS    of make sweep: a YAML file of name: [values] lines; runs at once (default: as JOBS, and what times runs alone)
## SCHEDULER       of make sweep: the address of a Dask cluster that makes its runs
## JOBS            chapters at once (default: as many as the cores allow; those that measure times run alone, except in quick)
## PYTHON VENV     the interpreter (python3); the environment's folder (.venv), or none: PYTHON as it is
## TORCH_INDEX     where setup takes torch from: an address; none: pip's own index (on Linux a CUDA build, +2.2 GB)
## DEBUG=1         a whole traceback instead of the one line

setup: $(READY) ## create .venv from requirements.lock (on Linux torch for CPUs), and compile the C engine

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1): give one, as in PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) install.py --venv $(call quote,$(VENV)) $(if $(TORCH_INDEX),--torch-index $(call quote,$(TORCH_INDEX)))
	@$(PY) -m minitransformer.native

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

interop: $(READY) ## chapter 7: the model in other runtimes, and in a browser
	@$(RUN) interop $(OPTIONS)

texts: $(READY) ## appendix A5: named texts within budgets of seconds; PROFILE=full also keeps what it found in reports/long/
	@$(RUN) texts $(OPTIONS)

gpu: $(READY) ## appendix A6: layers, decoding and training on a GPU; DEVICE=cuda measures, else what reports/long/ has kept
	@$(RUN) gpu $(OPTIONS)

plot: $(READY) ## figures/latency.png, with chapter 4
	@$(RUN) plot $(OPTIONS)

plot-quant: $(READY) ## figures/quant.png, with chapter 5
	@$(RUN) plot-quant $(OPTIONS)

verify-corpus: $(READY) ## make the corpus again and compare it with the run's
	@$(RUN) verify-corpus $(OPTIONS)

# CC decides what the engine multiplies by in all of them: CC="cc -DPORTABLE" make test has no intrinsics,
# CC="cc -U__AVX512VNNI__ -U__AVXVNNI__" make test no more than AVX2, and CC=/bin/false make test no engine.
test: $(READY) ## style, unit tests, notebooks, the quick pipeline end to end, coverage
	@$(PY) check.py $(PYTEST_OPTIONS)

test-idem: $(READY) ## run the quick pipeline twice and compare every artefact that should be equal
	@$(RUN) test-idem $(OPTIONS)

# A model that is not there, or a format that cannot express it, is told in one line.
export: $(READY) ## a model for other runtimes: FORMAT=hf, gguf, onnx or all, of MODEL= (reports/PROFILE/model) to dist/export/
	@$(PY) -m minitransformer.export $(call quote,$(or $(MODEL),reports/$(PROFILE)/model)) \
	  --format $(call quote,$(or $(FORMAT),all)) --out dist/export $(EXPORT_OPTIONS)

sweep: $(READY) ## a run for every point of GRID=file.yaml, and one table of all: reports/sweep-<grid>/index.html
	@$(RUN) sweep $(OPTIONS) $(SWEEP)

pack: $(READY) ## dist/mini-transformer-<run>-v<version>.tar.gz, the same bytes from the same run
	@$(RUN) pack $(OPTIONS)

verify: $(READY) ## check that pack: one changed byte fails
	@$(RUN) verify $(OPTIONS)

publish: $(READY) ## run what is lacking of tests and checks, render, copy the page to reports/reference/ (PUBLISH_OPTIONS=--anyway: failing ones too)
	@$(RUN) publish $(OPTIONS) $(PUBLISH_OPTIONS)

lab: $(READY) ## open JupyterLab at notebooks/, with reports/ beside it (LAB_OPTIONS=... are passed on)
	@$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(LAB_OPTIONS)

clean-cache: $(READY) ## delete what was trained for changed parameters (.cache/), and say how much it was
	@$(RUN) cache --clear

clean: ## delete runs and caches; the environment, downloads, reports/reference/ and reports/long/ stay
	rm -rf .cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find reports -mindepth 1 -maxdepth 1 ! -name template ! -name reference ! -name long -exec rm -rf {} +
	find lib tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# Of data/, only what was downloaded: a text of one's own may lie there too.
CATALOGUE := $(firstword $(wildcard lib/minitransformer/corpus/corpora.toml data/corpora.toml) /dev/null)
distclean: clean ## clean, and delete the environment and the downloaded corpora
	rm -rf .venv lib/*.egg-info
	sed -n 's/^path *= *"\(.*\)"$$/\1/p' $(CATALOGUE) | while read -r path; do \
	  rm -f "data/$$path" "data/$$path".*part; rmdir "data/$${path%/*}" 2>/dev/null || :; done

notebooks: $(READY) ## maintainers: execute notebooks/ at the quick size and keep their outputs
	@$(RUN) notebooks --profile quick

picture: $(READY) ## maintainers: docs/page.png, README's picture of the committed page, where publish found no chromium
	@$(RUN) picture $(OPTIONS)

wasm: $(READY) ## maintainers: engine.c as WebAssembly again, for the page (needs pip install of the ziglang that it names)
	@$(PY) -m minitransformer.native --wasm

lock: ## maintainers: pin the closure of pyproject.toml again, for pip and for conda (needs uv; UPGRADE=1 moves the pins)
	uv pip compile pyproject.toml --extra ort --extra export --extra paper --group test --universal --python-version 3.11 \
	  --excludes requirements.excludes --no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	  -o requirements.lock
	sed '/^  - pip:/q' environment.yml > environment.part
	sed -n '/==/s/^/      - /p' requirements.lock >> environment.part
	mv environment.part environment.yml
