# The commands of this project. Each first brings .venv to the pinned state, which takes a moment if nothing
# has changed. Requirements: make and Python 3.10 to 3.13 (`make PYTHON=python3.12 ...` replaces python3).

PYTHON ?= python3
PY := .venv/bin/python
BUILD := $(CURDIR)/build
# Runs and executed notebooks go below build/, which git ignores. The user's own settings of IPython and
# matplotlib are not used: they could change a result or the bytes of a figure.
CLEAN_ENV = CLKIT_RUNS="$(BUILD)/runs" IPYTHONDIR="$(BUILD)/ipython" MPLCONFIGDIR="$(BUILD)/matplotlib" \
	JUPYTER_PREFER_ENV_PATH=1 PYDEVD_DISABLE_FILE_VALIDATION=1
# An IPython profile in which a deprecation warning raised by clkit or by a notebook's own cell is an error.
STRICT := $(BUILD)/ipython-strict
# The tests of a file stay in one process, because they share what is slow to make. There is a process for each
# core, so each has one thread: more threads than cores wait for one another by spinning, many times slower.
ON_ALL_CORES := -n auto --dist loadfile
ONE_THREAD := OMP_NUM_THREADS=1
NBVAL_OPTIONS := -p no:python --nbval-lax --nbval-current-env --nbval-cell-timeout 120 \
	--nbval-sanitize-with tests/nbval.cfg

.DEFAULT_GOAL := help
.PHONY: help setup workbook test browser lint format lab golden bench soak fuzz figures notebooks clean

help:
	@echo "make workbook   run the book on the embedded data, into build/notebooks and figures/"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make test       run lint, unit, contract and layer tests, notebooks and browser tests (CLKIT_DEVICE=cuda: on a GPU)"
	@echo "make browser    run the tests in a real browser; needs chromium and npm          (ARGS='-k contrast')"
	@echo "make lint       check rules and format of the source with ruff, in seconds"
	@echo "make format     let ruff fix what it can and format the source"
	@echo "make golden     compare the results of every smoke experiment with stored ones   (ARGS='er spacenet --kind smoke')"
	@echo "make bench      measure speed side by side with straightforward implementations  (ARGS='NAME ... --json')"
	@echo "make soak       disturb runs at random instants and resume them                  (ARGS='--trials 300')"
	@echo "make fuzz       give every setting and option values that cannot be meant        (ARGS='er gfr --learn')"
	@echo "make figures    draw figures/ from the committed records                         (ARGS='NAME ... --format pdf,png')"
	@echo "make notebooks  execute the committed notebooks again, in place, at CLKIT_PRESET=teach"
	@echo "make setup      only create or repair .venv"
	@echo "make clean      remove build/ and caches (keeps .venv, runs/ and figures/)"

setup:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "setup: no command '$(PYTHON)'; install Python 3.10 to 3.13 or name one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) tools/environment.py
	@mkdir -p "$(BUILD)"

workbook: setup
	@CLKIT_PRESET=teach $(CLEAN_ENV) $(PY) tools/notebooks.py execute --out build/notebooks
	@$(CLEAN_ENV) $(PY) -m clkit figures
	@echo "done: executed notebooks are in build/notebooks, figures in figures/"
	@echo "next: make lab"

test: lint
	$(ONE_THREAD) $(CLEAN_ENV) $(PY) -m pytest $(ON_ALL_CORES) tests
	@mkdir -p "$(STRICT)/profile_default/startup"
	@cp tests/strict_warnings.py "$(STRICT)/profile_default/startup/"
	CLKIT_PRESET=smoke $(ONE_THREAD) $(CLEAN_ENV) IPYTHONDIR="$(STRICT)" $(PY) -m pytest $(NBVAL_OPTIONS) $(ON_ALL_CORES) notebooks
	@$(CLEAN_ENV) $(PY) tools/browser.py --if-present

browser: setup
	@$(CLEAN_ENV) $(PY) tools/browser.py $(ARGS)

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lab: setup
	@$(PY) -m jupyterlab --LabApp.app_settings_dir=tools/jupyterlab notebooks

golden: setup
	@$(CLEAN_ENV) $(PY) -m tests.golden $(ARGS)

bench: setup
	@$(PY) -m tests.bench $(ARGS)

soak: setup
	@$(PY) -m tests.soak $(ARGS)

fuzz: setup
	@$(PY) -m tests.soak.fuzz $(ARGS)

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
