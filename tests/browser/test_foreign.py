"""Names from outside in JupyterLab: a trusted notebook shows them letter by letter and executes nothing."""

import copy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.lab import Lab
from tests.test_markup import NASTY
from tools.notebooks import KERNEL

ONE_LINE = [" ".join(name.split()) for name in NASTY]
CELLS = """
import torch
from clkit.book import explore, show
from clkit.data import ImageSet
from tests.builders import made
from tests.test_markup import NASTY
result = made(sizes=(len(NASTY) - 2, 2), method=NASTY[0], data=" ".join(NASTY), benchmark=NASTY[1])
result.names = NASTY
----
show.table([{"name": name, NASTY[0]: 1.0} for name in NASTY])
----
result
----
alt, caption = f"Many names: {', '.join(NASTY)}, and no more. ", f"Of {NASTY[0]} *all*."
show.figure(explore.confusion_view(result), alt * 2, id="names", title=NASTY[4], caption=caption)
----
show.figure(explore.confusion_view(result), id="short", caption="All.")
----
images = torch.zeros(2 * len(NASTY), 1, 8, 8, dtype=torch.uint8)
own = ImageSet(images, torch.arange(len(images)) % len(NASTY), NASTY, name=NASTY[1])
explore.images_explorer(own)
----
show.text("A formula of ours: $x^2$.")
""".strip().split("\n----\n")
CONTROL = 'from IPython.display import HTML\nHTML(\'<img src="x" onerror="window.hacked = 1">\')'
# What HTML and scripts of names would leave on the page, apart from what clkit itself displays.
FOUND = """() => ({hacked: window.hacked ?? 0,
    foreign: [...document.querySelectorAll('.jp-OutputArea-output')].flatMap(o =>
      [...o.querySelectorAll('script, a[href^="javascript"], img:not([src^="data:"]), [onerror]')])
      .map(e => e.outerHTML),
    formulas: [...document.querySelectorAll('.jp-OutputArea-output mjx-container')].length,
    rows: [...document.querySelectorAll('.jp-OutputArea-output tbody tr td:first-child')]
      .map(e => e.textContent),
    text: [...document.querySelectorAll('.jp-OutputArea-output')].map(o => o.textContent).join(' ')})"""
FORMULA = ".jp-OutputArea-output mjx-container"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    for name, sources in (("names", CELLS), ("control", [*CELLS, CONTROL])):
        cells = [new_code_cell(source) for source in sources]
        book = new_notebook(cells=cells, metadata=copy.deepcopy(KERNEL))
        nbformat.write(book, folder / f"{name}.ipynb")
    running = Lab(folder, tmp_path_factory.mktemp("jupyter"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def found(lab, chromium):
    """What is on the page after a run, and after the saved notebook is opened again."""
    pages = []
    with lab.opened(chromium, "names.ipynb") as notebook:
        notebook.run()
        notebook.page.wait_for_selector(FORMULA, state="attached")
        failed = notebook.errors_in_cells()
        pages.append(notebook.page.evaluate(FOUND))
        notebook.save()
    lab.stop_kernels()
    assert failed == []
    with lab.opened(chromium, "names.ipynb") as notebook:
        notebook.page.wait_for_selector(FORMULA, state="attached")
        pages.append(notebook.page.evaluate(FOUND))
    lab.stop_kernels()
    return pages


def test_nothing_of_a_name_is_executed_or_becomes_an_element(found):
    for page in found:
        assert page["hacked"] == 0 and page["foreign"] == []


def test_names_stand_letter_by_letter(found):
    for page in found:
        assert page["rows"][: len(NASTY)] == ONE_LINE
        text = " ".join(page["text"].split())
        assert [name for name in ONE_LINE if f"{name}, " not in text] == []
        assert f"Confusion matrix of {ONE_LINE[0]} after" in text and f"Of {ONE_LINE[0]} all." in text


def test_dollars_of_a_name_make_no_formula(found):
    assert [page["formulas"] for page in found] == [1, 1]


def test_what_is_not_escaped_is_executed(lab, chromium):
    with lab.opened(chromium, "control.ipynb") as notebook:
        notebook.run()
        notebook.page.wait_for_function("() => window.hacked === 1")
        assert notebook.page.evaluate(FOUND)["foreign"]
    lab.stop_kernels()
