# The commands of this project. Each first brings .venv to the pinned state, a moment when nothing changed.
# Needed beforehand: make and Python 3.10 to 3.13 (`make PYTHON=python3.12 ...` names another than python3).

PYTHON ?= python3
PY := .venv/bin/python
BUILD := $(CURDIR)/build
# Runs and executed notebooks go below build/, which git ignores. The user's own settings of IPython and
# matplotlib stay out: they could change a result or the bytes of a figure.
CLEAN_ENV = CLKIT_RUNS="$(BUILD)/runs" IPYTHONDIR="$(BUILD)/ipython" MPLCONFIGDIR="$(BUILD)/matplotlib" \
	JUPYTER_PREFER_ENV_PATH=1 PYDEVD_DISABLE_FILE_VALIDATION=1
# An IPython profile in which a deprecation warning raised by clkit or by a notebook's own cell is an error.
STRICT := $(BUILD)/ipython-strict
# Each file's tests stay in one process, because they share what is slow to make.
ON_ALL_CORES := -n auto --dist loadfile
NBVAL_OPTIONS := -p no:python --nbval-lax --nbval-current-env --nbval-cell-timeout 120 \
	--nbval-sanitize-with tests/nbval.cfg

.DEFAULT_GOAL := help
.PHONY: help setup workbook test lint format lab golden bench soak figures notebooks clean

help:
	@echo "make workbook   run the book on the embedded data, into build/notebooks and figures/"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make test       lint, then unit, contract and layer tests, then the notebooks (CLKIT_DEVICE=cuda make test: GPU)"
	@echo "make lint       ruff: rules and format of the source, in seconds, changing nothing"
	@echo "make format     let ruff mend what it can and format the source"
	@echo "make golden     compare what every smoke experiment gives with what it gave  (ARGS='er spacenet --kind smoke')"
	@echo "make bench      speed, side by side with the obvious implementations         (ARGS='NAME ... --json')"
	@echo "make soak       kill runs at random instants and resume them                 (ARGS='--kills 100')"
	@echo "make figures    write figures/ from the committed records                    (ARGS='NAME ... --format pdf,png')"
	@echo "make notebooks  execute the committed notebooks anew, in place, at CLKIT_PRESET=teach"
	@echo "make setup      only make or mend .venv"
	@echo "make clean      remove build/ and caches (.venv, runs/ and figures/ stay)"

setup:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "setup: no command '$(PYTHON)'; install Python 3.10 to 3.13 or name one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) tools/environment.py
	@mkdir -p "$(BUILD)"

workbook: setup
	@CLKIT_PRESET=teach $(CLEAN_ENV) $(PY) tools/notebooks.py execute --out build/notebooks
	@$(CLEAN_ENV) $(PY) -m clkit figures
	@echo "made: executed notebooks in build/notebooks, pictures in figures/"
	@echo "open: make lab"

test: lint
	OMP_NUM_THREADS=1 $(CLEAN_ENV) $(PY) -m pytest $(ON_ALL_CORES) tests
	@mkdir -p "$(STRICT)/profile_default/startup"
	@cp tests/strict_warnings.py "$(STRICT)/profile_default/startup/"
	CLKIT_PRESET=smoke $(CLEAN_ENV) IPYTHONDIR="$(STRICT)" $(PY) -m pytest $(NBVAL_OPTIONS) $(ON_ALL_CORES) notebooks

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lab: setup
	@$(PY) -m jupyterlab notebooks

golden: setup
	@$(CLEAN_ENV) $(PY) -m tests.golden $(ARGS)

bench: setup
	@$(PY) -m tests.bench $(ARGS)

soak: setup
	@$(PY) -m tests.soak $(ARGS)

figures: setup
	@$(CLEAN_ENV) $(PY) -m clkit figures $(ARGS)

notebooks: setup
	@rm -rf "$(BUILD)/runs-committed"
	@CLKIT_PRESET=teach $(CLEAN_ENV) CLKIT_RUNS="$(BUILD)/runs-committed" $(PY) tools/notebooks.py execute --out build/notebooks
	@$(PY) tools/notebooks.py normalise build/notebooks/*.ipynb
	@cp build/notebooks/*.ipynb notebooks/

clean:
	@rm -rf build .pytest_cache .ruff_cache clkit.egg-info
	@find . -name .venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
