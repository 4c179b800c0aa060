# Environments, checks, the demo and pack training of nnmeter_nas. `make` alone lists the targets.

# The first interpreter that is new enough, unless PYTHON=... names one.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo $$p; break; }; done)
endif

comma := ,
EXTRAS := search$(comma)bench$(comma)onnx$(comma)tensorflow$(comma)download$(comma)test
# Runtimes to measure with; one environment is enough.
RUNTIMES := build$(comma)litert$(comma)onnxruntime$(comma)openvino
# The documentation site and the notebooks, and what makes wheels.
PAGES := docs$(comma)release
# TVM pins another release of what it stands on than pip would choose, so it has an environment of its own.
TVM := build$(comma)tvm$(comma)test
# Tests at once; those with real experiments mostly wait.
WORKERS := 3
PIP_INSTALL = -m pip --disable-pip-version-check install

# $(call create_env,FOLDER,CONSTRAINTS,EXTRAS): a virtual environment with the package in editable mode.
# torch comes first and by its exact version: it is by far the largest download.
define create_env
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed, and none was found; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is not Python 3.10 or newer; name another with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot create virtual environments; install its venv package (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(1) from $(2) (minutes, mostly downloads)"
	$(PYTHON) -m venv $(1)
	$(1)/bin/python $(PIP_INSTALL) -c $(2) torch==2.13.0
	$(1)/bin/python $(PIP_INSTALL) -q -c $(2) -e ".[$(3)]"
	@touch $(1)/.stamp
endef

# $(call import_nni,FOLDER): NNI writes a module of its package when it is first imported. Processes that first
# import it at the same time read that file half-written.
define import_nni
	$(1)/bin/python -W ignore -c "import nni.nas.nn.pytorch"
endef

# The core is tested on these Pythons too, where they are installed; in small environments without torch and NNI.
CORE_PYTHONS := 3.10 3.13
# `make test` takes the oldest of them.
OLDEST := $(firstword $(CORE_PYTHONS))
CORE_TESTS = $(wildcard tests/ops tests/graph tests/kernels tests/readers tests/packs tests/costs tests/solve) \
  tests/cli/test_cli.py tests/cli/test_cli_predict.py tests/predictor tests/test_metrics.py

TVM_TESTS = tests/backends/test_tvm.py tests/backends/test_tvm_tuning.py tests/benchmarks/test_cost_models.py tests/cli/test_cli_tune.py

# One process, as TVM and its tuner take long to import.
run_tvm_tests = .venv-tvm/bin/python -m pytest -m tvm $(PYTEST_ARGS) $(TVM_TESTS)

# An environment whose setup failed is not taken for a whole one.
.DELETE_ON_ERROR:

.PHONY: help env env-tvm demo test test-core test-tvm $(CORE_PYTHONS:%=test-core-%) lint docs dist bench compare procedure rivals packs luts parity clean

help:
	@echo "make env                      set up the environment of development, on NNI 2.10.1 (.venv)"
	@echo "make env-tvm                  set up one with TVM (.venv-tvm)"
	@echo "make demo [ARGS=...]          search SPOS networks that meet a latency limit (ARGS=--help lists the options)"
	@echo "make test [PYTEST_ARGS=...]   lint, then the tests on NNI 2.10.1 (.venv), on NNI 3.0 (.venv-nni3) and with TVM (.venv-tvm)"
	@echo "make test-tvm [PYTEST_ARGS=...]  tests with TVM (.venv-tvm)"
	@echo "make test-core [PYTEST_ARGS=...]  tests of the core alone on Python $(CORE_PYTHONS), where installed"
	@echo "make lint                     ruff and mypy"
	@echo "make docs                     build the documentation site, and check its links: build/site/index.html"
	@echo "make dist [ARGS=...]          build wheel and source distribution, and try both on Python 3.10 to 3.13, where installed"
	@echo "make compare [ARGS=...]       compare the search strategies with NNI's and Optuna's (hours); writes docs/search_comparison.md"
	@echo "make procedure [ARGS=...]     compare a build with nn-Meter's procedure; writes a table of docs/builder.md"
	@echo "make rivals [BENCH=DIR] [ARGS=...]  nn-Meter, NNI's profiler and counters of FLOPs beside this package; writes docs/comparison.md"
	@echo "make bench [BENCH=DIR]        measure speed and size beside nn-Meter and NNI; writes the README's table"
	@echo "make packs BENCH=DIR          train the four predictor packs from a bench dataset in the official schema"
	@echo "make luts                     build the lookup tables that ship with the package"
	@echo "make parity [BENCH=DIR]        compare version 1.0 with nn-Meter 2.0, run side by side (about 15 minutes)"
	@echo "make clean                    remove the environments, build outputs and caches"
	@echo "PYTHON=/path/to/python3       the interpreter (3.10 or newer) that the environments are made from"

env: .venv/.stamp

env-tvm: .venv-tvm/.stamp

demo: .venv/.stamp
	.venv/bin/nnmeter-nas demo $(ARGS)

test: lint .venv/.stamp .venv-nni3/.stamp .venv-nnmeter/.stamp .venv-tvm/.stamp test-core-$(OLDEST)
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)
	.venv-nni3/bin/python -m pytest -n $(WORKERS) --dist worksteal -m nni3 $(PYTEST_ARGS)
	$(run_tvm_tests)

test-tvm: .venv-tvm/.stamp
	$(run_tvm_tests)

test-core: $(CORE_PYTHONS:%=test-core-%)

# A shim of pyenv is there for every version that pyenv has, and runs only those that are switched on.
$(CORE_PYTHONS:%=test-core-%): test-core-%:
	@shims=$$(dirname "$$(command -v python$*)"); python=; \
	for p in python$* "$$shims"/../versions/$*.*/bin/python$*; do \
	  "$$p" -c 'import ensurepip, venv' >/dev/null 2>&1 && { python=$$p; break; }; done; \
	if [ -z "$$python" ]; then echo "Python $* is not installed: the core is not tested on it"; exit 0; fi; \
	$(MAKE) --no-print-directory CORE_PYTHON="$$python" .venv-core-$*/.stamp && \
	.venv-core-$*/bin/python -m pytest --core -m "not slow" -n $(WORKERS) $(PYTEST_ARGS) $(CORE_TESTS)

# mypy reads the package as it installs, the plugin folders below it, through a tree of links.
lint: .venv/.stamp
	.venv/bin/ruff check .
	@rm -rf build/typed && mkdir -p build/typed/nnmeter_nas
	@for part in nnmeter_nas/* benchmarks estimators search_spaces strategies; do \
	  ln -s "../../../$$part" build/typed/nnmeter_nas/; done
	cd build/typed && ../../.venv/bin/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p nnmeter_nas
	cd build/typed && ../../.venv/bin/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache ../../tools/site/*.py ../../tools/dist.py

docs: .venv/.stamp
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet
	.venv/bin/python tools/site/links.py build/site

dist: .venv/.stamp
	.venv/bin/python tools/dist.py $(ARGS)

# One thread each: matrices are small, and rivals' threads would wait for each other on few cores.
bench: .venv/.stamp .venv-nnmeter/.stamp .venv-nni3/.stamp
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv/bin/python -W ignore -m nnmeter_nas.benchmarks speed \
	  --readme README.md --page docs/speed.md $(if $(BENCH),--bench "$(BENCH)") $(ARGS)

# One thread each, as in bench; the processes of --jobs are to ignore NNI's warnings too.
compare: .venv/.stamp .venv-nni3/.stamp .venv-optuna/.stamp
	OMP_NUM_THREADS=1 .venv/bin/python -W ignore -m nnmeter_nas.benchmarks one-shot
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONWARNINGS=ignore .venv-nni3/bin/python -m nnmeter_nas.benchmarks search --page docs/search_comparison.md $(ARGS)

procedure: .venv/.stamp .venv-nnmeter/.stamp
	.venv/bin/python -W ignore -m nnmeter_nas.benchmarks procedure --page docs/builder.md $(ARGS)

# One thread each, as in bench.
rivals: .venv/.stamp .venv-nni3/.stamp .venv-nnmeter/.stamp .venv-flops/.stamp
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv/bin/python -W ignore -m nnmeter_nas.benchmarks comparison \
	  --page docs/comparison.md $(if $(BENCH),--bench "$(BENCH)") $(ARGS)

packs: .venv/.stamp
	@test -n "$(BENCH)" || { echo "name the folder of the bench dataset: make packs BENCH=DIR" >&2; exit 1; }
	.venv/bin/python -m nnmeter_nas.benchmarks train "$(BENCH)" $(ARGS)

luts: .venv/.stamp
	.venv/bin/nnmeter-nas lut build --space spos proxylessnas nasbench201 nasbench201-small --predictor all -o nnmeter_nas/data/luts $(ARGS)

parity: .venv/.stamp .venv-nnmeter/.stamp
	.venv/bin/python -m nnmeter_nas.benchmarks parity $(if $(BENCH),--bench "$(BENCH)") $(ARGS)

clean:
	rm -rf .venv .venv-nni3 .venv-nnmeter .venv-flops .venv-optuna .venv-tvm .venv-core-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp: pyproject.toml constraints.txt
	$(call create_env,.venv,constraints.txt,$(EXTRAS)$(comma)$(RUNTIMES)$(comma)dask$(comma)ray$(comma)$(PAGES))
	$(call import_nni,.venv)

.venv-nni3/.stamp: pyproject.toml constraints-nni3.txt
	$(call create_env,.venv-nni3,constraints-nni3.txt,$(EXTRAS))
	$(call import_nni,.venv-nni3)

.venv-tvm/.stamp: pyproject.toml constraints-tvm.txt
	$(call create_env,.venv-tvm,constraints-tvm.txt,$(TVM))

.venv-core-%/.stamp: pyproject.toml constraints.txt
	@echo "Setting up .venv-core-$* from constraints.txt"
	$(CORE_PYTHON) -m venv .venv-core-$*
	.venv-core-$*/bin/python $(PIP_INSTALL) -q -c constraints.txt -e ".[onnx,tensorflow,download,bulk]" \
	  hypothesis pytest pytest-timeout pytest-xdist scikit-learn trustme
	@touch $@

# nn-Meter itself, to compare with: setuptools carries pkg_resources, which it imports; onnxsim simplifies its ONNX.
.venv-nnmeter/.stamp: constraints-nnmeter.txt
	@echo "Setting up .venv-nnmeter from constraints-nnmeter.txt"
	$(PYTHON) -m venv .venv-nnmeter
	.venv-nnmeter/bin/python $(PIP_INSTALL) -q -c constraints-nnmeter.txt nn-meter onnx onnxsim setuptools
	@touch $@

# Optuna itself, to compare with: its GPSampler wants SciPy and torch.
.venv-optuna/.stamp: constraints-optuna.txt
	@echo "Setting up .venv-optuna from constraints-optuna.txt"
	$(PYTHON) -m venv .venv-optuna
	.venv-optuna/bin/python $(PIP_INSTALL) -q -c constraints-optuna.txt torch==2.13.0 optuna scipy
	@touch $@

# Counters of FLOPs, to compare with; they count modules of the torch that is in .venv.
.venv-flops/.stamp: constraints-flops.txt
	@echo "Setting up .venv-flops from constraints-flops.txt"
	$(PYTHON) -m venv .venv-flops
	.venv-flops/bin/python $(PIP_INSTALL) -q -c constraints-flops.txt fvcore torchinfo
	@touch $@
