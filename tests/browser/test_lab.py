"""The notebooks in JupyterLab: explorers inside their cells, readable listings, no error on the console.

Each notebook is opened as committed. A copy with the cells that explorers and listings need is run, looked at
in two widths and both themes, saved, and opened anew with a new kernel.
"""

import ast
import contextlib
import copy
import shutil
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.lab import ROOT, THEMES, Lab
from tools.notebooks import KERNEL

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDTHS = (1400, 1100)  # of the window, in pixels, with JupyterLab's file browser open
LEAST_CONTRAST = 4.5
LEAST_SCALE = 0.85  # of a picture: its labels stay readable


def is_explorer(cell):
    return cell.cell_type == "code" and "_explorer(" in cell.source


WITH_EXPLORERS = [p for p in NOTEBOOKS if any(map(is_explorer, nbformat.read(p, as_version=4).cells))]
# A progress bar, and an explorer that no notebook shows.
OTHER = """from clkit.engine.trace import Trace
for _ in Trace().epochs("loop", 3):
    pass
from clkit.book import explore
from clkit.data import load
explore.images_explorer(load("shapes", families=2, train_per_class=2, test_per_class=8)[1])"""


def short(notebook):
    """A copy with the cells that explorers and listings need, found by the names that cells set and use."""
    kept, wanted = [], set()
    for cell in reversed(notebook.cells):
        if cell.cell_type != "code":
            continue
        uses, sets, changes = names(cell.source)
        if is_explorer(cell) or "show.source(" in cell.source or sets & wanted:
            kept.append(cell)
            wanted |= (uses - sets) | changes
    notebook = copy.deepcopy(notebook)
    notebook.cells = kept[::-1]
    return notebook


def names(source):
    """Names that a cell uses, sets, and sets from their own value (`x += 1`, `x[0] = 1`)."""
    uses, sets, changes = set(), set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (uses if isinstance(node.ctx, ast.Load) else sets).add(node.id)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            changes.add(node.target.id)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            changes.add(getattr(node.value, "id", ""))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            sets |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.FunctionDef):
            sets.add(node.name)
    return uses, sets | changes, changes


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    shutil.copytree(ROOT / "notebooks", folder / "book", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (folder / "short").mkdir()
    for path in WITH_EXPLORERS:
        nbformat.write(short(nbformat.read(path, as_version=4)), folder / "short" / path.name)
    other = new_notebook(cells=[new_code_cell(OTHER)], metadata=copy.deepcopy(KERNEL))
    nbformat.write(other, folder / "short" / "other.ipynb")
    running = Lab(folder, tmp_path_factory.mktemp("jupyter"))
    yield running
    running.stop()


def test_errors_of_a_page_are_seen(lab, chromium):
    with lab.opened(chromium, "short/other.ipynb") as notebook:
        notebook.page.evaluate(
            "() => { console.error('logged');"
            " return new Promise(done => setTimeout(() => { setTimeout(done); throw Error('thrown'); })); }"
        )
        assert notebook.errors == ["logged", "thrown"]
    lab.stop_kernels()


# ---- before the first run


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def unrun(request, lab, chromium):
    """What a reader sees who opens a committed notebook."""
    with lab.opened(chromium, f"book/{request.param.name}") as notebook:
        notebook.settled(".jp-OutputArea-output img")
        seen = SimpleNamespace(
            contrast={theme: notebook.contrast(theme) for theme in THEMES},
            explorers=notebook.page.locator(".jp-CodeCell:has-text('_explorer(') img").count(),
            errors=notebook.errors,
        )
    lab.stop_kernels()
    cells = nbformat.read(request.param, as_version=4).cells
    seen.listings = sum("show.source(" in cell.source for cell in cells if cell.cell_type == "code")
    seen.wanted = sum(map(is_explorer, cells))
    return seen


def test_before_the_first_run_listings_are_readable(unrun):
    for faintest in unrun.contrast.values():
        assert bool(faintest) == bool(unrun.listings)
        assert [(c, text) for c, text in faintest if c < LEAST_CONTRAST] == []


def test_before_the_first_run_explorers_show_a_picture(unrun):
    assert unrun.explorers == unrun.wanted


def test_opening_a_notebook_logs_no_error(unrun):
    assert unrun.errors == []


# ---- run, saved, opened anew


PICTURES = "document.querySelectorAll('.widget-vbox .widget-html img').length"
LOST = """[...document.querySelectorAll('.jp-OutputArea-output')]
  .filter(o => o.textContent.includes('model not found')).length"""


@pytest.fixture(scope="module", params=[*(p.name for p in WITH_EXPLORERS), "other.ipynb"])
def ran(request, lab, chromium):
    """What a reader sees who runs a notebook, saves it, and comes back another day."""
    path, seen = f"short/{request.param}", SimpleNamespace()
    with lab.opened(chromium, path) as notebook:
        notebook.run()
        seen.failed = notebook.errors_in_cells()
        seen.explorers = notebook.page.locator(".jp-OutputArea-output .widget-vbox").count()
        seen.fit = {width: notebook.fit(width) for width in WIDTHS}
        seen.contrast = {theme: notebook.contrast(theme) for theme in THEMES}
        seen.moved = moved(notebook.page)
        seen.fit["moved"] = notebook.fit(WIDTHS[-1])
        notebook.save()
        seen.errors = list(notebook.errors)
    lab.stop_kernels()
    with lab.opened(chromium, path) as notebook:
        notebook.page.wait_for_function(f"n => ({PICTURES}) + ({LOST}) === n", arg=seen.explorers)
        notebook.settled(".widget-html img")
        seen.reopened = SimpleNamespace(
            pictures=notebook.page.evaluate(PICTURES),
            lost=notebook.page.evaluate(LOST),
            errors=notebook.errors,
        )
    lab.stop_kernels()
    return seen


def moved(page):
    """Move the first slider of each explorer by one; how many pictures changed."""
    from playwright.sync_api import TimeoutError as Unchanged

    explorers, count = page.locator(".jp-OutputArea-output:has(.widget-vbox)"), 0
    for n in range(explorers.count()):
        one = explorers.nth(n)
        before = one.locator(".widget-html img").get_attribute("src")
        one.locator(".noUi-handle").first.press("ArrowRight")
        with contextlib.suppress(Unchanged):
            page.wait_for_function(
                "([n, before]) => document.querySelectorAll('.jp-OutputArea-output:has(.widget-vbox)')[n]"
                ".querySelector('.widget-html img').src !== before",
                arg=[n, before],
                timeout=30_000,
            )
            count += 1
    return count


def test_the_cells_run(ran):
    assert ran.failed == [] and ran.explorers > 0


def test_explorers_fit_their_cell(ran):
    for found in ran.fit.values():
        assert len(found) == ran.explorers and [one["out"] for one in found if one["out"]] == []


def test_pictures_of_explorers_stay_readable(ran):
    assert [one["scale"] for found in ran.fit.values() for one in found if one["scale"] < LEAST_SCALE] == []


def test_moving_a_slider_changes_the_picture(ran):
    assert ran.moved == ran.explorers


def test_after_running_listings_are_readable(ran):
    for faintest in ran.contrast.values():
        assert [(c, text) for c, text in faintest if c < LEAST_CONTRAST] == []


def test_running_logs_no_error(ran):
    assert ran.errors == []


def test_a_saved_notebook_opens_with_its_explorers_and_without_error(ran):
    assert (ran.reopened.pictures, ran.reopened.lost) == (ran.explorers, 0)
    assert ran.reopened.errors == []
