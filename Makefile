# make install | demo | demo-lm | test | test-fast | triton | fuzz | sanitize | chaos | mutants | lint |
# types | docs | bench: each creates what it needs from nothing.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed

INTERPRETER := build/triton
SANITIZED := build/sanitized
SANITIZERS := -g -fsanitize=address,undefined -fno-sanitize=vptr -fno-omit-frame-pointer

# What a first import compiles is kept; without it every command takes eight seconds more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo demo-lm test test-fast triton fuzz sanitize chaos mutants lint types docs bench \
	clean

install: $(INSTALLED)

# The extension, and fairseq where it has no wheel, build against the installed torch, hence no build
# isolation, and torch named again, or fairseq's torchaudio would bring its own; with CUDA_HOME set,
# fairseq's own build fails. Modules compile when first imported.
PIP := env -u CUDA_HOME $(BIN)/pip install --quiet --no-compile
$(INSTALLED): setup.py pyproject.toml Makefile $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)" numpy cython "setuptools>=64" wheel ninja
	$(PIP) --no-build-isolation "$(TORCH)" -e ".[plot,recipes]"
	$(BIN)/python -W ignore -c "import fairseq_sru; fairseq_sru.register()" # its bytecode, and no word later
	touch $@

# what tests, pages and checks need besides; checks need Python 3.10
$(VENV)/.group-%: $(INSTALLED)
	$(PIP) "pip>=25.1"
	$(PIP) --group $*
	touch $@

demo: install
	PYTHON=$(BIN)/python bash examples/demo/run.sh

demo-lm: install
	PYTHON=$(BIN)/python bash examples/demo_lm/run.sh

# two files at a time, each process on one thread
test: $(VENV)/.group-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 2 --dist loadfile

# no command, no recipe, nothing that takes more than a few seconds
test-fast: $(VENV)/.group-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not command and not slow" -n 2 --dist loadfile

# the Triton kernels without a GPU: Triton, 200 MB, in a folder of its own, since a PyTorch without
# CUDA has no use for it, with the last NumPy that its interpreter takes
triton: $(VENV)/.group-test
	test -d $(INTERPRETER) || $(PIP) --no-deps --target $(INTERPRETER) triton==3.6.0 "numpy<2.4"
	TRITON_INTERPRET=1 PYTHONPATH=$(INTERPRETER) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests/test_triton.py

# 10,000 new cases of the property tests
fuzz: $(VENV)/.group-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_properties.py --hypothesis-profile fuzz -n 2

# the tests of csrc with an extension that watches its memory and undefined behaviour, which lies
# first on the path: `python -m pytest` would put the checkout's own before it
sanitize: $(VENV)/.group-test
	FAIRSEQ_SRU_CUDA=0 CFLAGS="$(SANITIZERS)" LDFLAGS="$(SANITIZERS)" $(BIN)/python setup.py build_ext \
		--build-temp $(SANITIZED)/objects --build-lib $(SANITIZED)
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		OMP_NUM_THREADS=1 PYTHONPATH=$(SANITIZED):. $(BIN)/pytest --capture=no -m "not command" \
		$(addprefix tests/test_, $(addsuffix .py, recurrence tanh promises cross_entropy dropout linear few_rows \
		varlen step_attention packed engine search derivatives properties))

# mistakes planted in a copy of the tree, which the tests must find: most of an hour on one core
mutants: $(VENV)/.group-test
	$(BIN)/python tests/mutants

# trainings that are killed, also while they write, and full disks
chaos: $(VENV)/.group-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos.py

lint: $(VENV)/.group-dev
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror csrc/* tests/emulator/*

types: $(VENV)/.group-dev
	$(BIN)/mypy

# README, guides, recipes and what the docstrings say, as pages in build/site
docs: $(VENV)/.group-docs
	rm -rf build/docs && mkdir -p build/docs
	cp -r --parents *.md CITATION.cff docs examples/*/*.md examples/*/*.py examples/*/results \
		benchmarks/results build/docs
	mv build/docs/README.md build/docs/index.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: install
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf build runs *.egg-info *.so .mypy_cache .pytest_cache .ruff_cache
