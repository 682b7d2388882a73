"""The notebooks as files, the tools that make them, and the runner that tests them.

`make test` runs the notebooks after these tests and so checks what they compute. This file tests their form
(each rule also against a notebook that breaks it), the tools that execute and normalise them, and that the
runner fails when it should.
"""

import copy
import getpass
import importlib.util
import os
import re
import shlex
import socket
import statistics
import subprocess
import symtable
import sys
import xml.etree.ElementTree
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST, LARGEST_TOGETHER = 1.5e6, 15e6  # bytes

_spec = importlib.util.spec_from_file_location("notebook_tools", ROOT / "tools" / "notebooks.py")
tools = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tools)


# ------------------------------------------------------------------------------------- the form of a notebook


def problems(notebook, name="00_example.ipynb", names=("00_example.ipynb",)):
    """The rules that `notebook` breaks, one sentence each; `names` are all notebooks of the book."""
    rules = (_execution, _outputs, _private, _lengths, _folded, _headings, _images, _metadata, _words)
    of_its_place = [*_links(notebook, name, names), *_figures(notebook, int(name[:2]))]
    return [sentence for rule in rules for sentence in rule(notebook)] + of_its_place


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def _execution(notebook):
    counts = [cell.execution_count for cell in _code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"cells were not executed in order 1..n, but {counts}"


def _outputs(notebook):
    for number, cell in enumerate(_code(notebook), 1):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"code cell {number} shows an error: {output.ename}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"code cell {number} writes to stderr: {output.text[:80]!r}"
            if re.search(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", _text(output)):
                yield f"code cell {number} shows a time stamp"


def _text(output):
    """All text of one output of any kind."""
    data = [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/png")]
    return "\n".join(str(part) for part in [output.get("text", ""), *output.get("traceback", []), *data])


def _private(notebook):
    text = "\n".join(
        [cell.source for cell in notebook.cells]
        + [_text(output) for cell in _code(notebook) for output in cell.outputs]
    )
    folders = "|".join(("home", "Users", "root", "tmp", "work", "opt", "var", "mnt", "private", "usr"))
    found = re.search(rf"(?<![\w./:])/(?:{folders})/[\w.]|\b[A-Z]:\\\w", text)
    if found:
        yield f"an absolute path: {text[found.start() : found.start() + 60]!r}"
    for what, word in (("user", getpass.getuser()), ("host", socket.gethostname())):
        # Short or everyday names ("root", "localhost") would be found in innocent prose.
        if len(word) > 5 and word != "localhost" and re.search(rf"\b{re.escape(word)}\b", text):
            yield f"the {what} name {word!r}"


def _lengths(notebook):
    lengths = sorted(sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in _code(notebook))
    if lengths and statistics.median(lengths) > 6:
        yield f"the median code cell has {statistics.median(lengths)} lines, over 6"
    if sum(length > 15 for length in lengths) > 0.1 * len(lengths):
        yield f"more than a tenth of the code cells have over 15 lines: {lengths}"
    if lengths and lengths[-1] > 30:
        yield f"a code cell has {lengths[-1]} lines, over 30"
    if any(re.search(r"^\s*class\s+\w", cell.source, re.M) for cell in _code(notebook)):
        yield "a class is defined in a cell; models live in the package"


def _folded(notebook):
    """A folded cell begins with a short line, which shows that it goes on, and defines nothing for others."""
    folded = {}  # name: cell that defines it last, if that is folded
    for cell in _code(notebook):
        defined, needed = _names(cell.source)
        if tools.HIDDEN not in cell.metadata.get("tags", []):
            for name in sorted(needed & folded.keys()):
                yield f"the folded cell {folded[name]} defines {name}, which the cell {cell.id} uses"
            folded = {name: where for name, where in folded.items() if name not in defined}
            continue
        folded |= dict.fromkeys(defined, cell.id)
        first = len(cell.source.partition("\n")[0])
        if first > 60:
            yield f"the first line of the folded cell {cell.id} has {first} characters, over 60"


def _names(source):
    """(names that a cell defines, names that it takes from earlier cells)."""
    lines = (line for line in source.splitlines() if not line.startswith(("%", "!")))
    top = symtable.symtable("\n".join(lines), "cell", "exec")
    defined = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    needed, tables = {one.get_name() for one in top.get_symbols() if one.is_referenced()}, top.get_children()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        needed |= {one.get_name() for one in table.get_symbols() if one.is_global()}
    return defined, needed - defined


def _headings(notebook):
    level = 0
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.M | re.S)
        for marks, title in re.findall(r"^(#{1,6})\s+(.*)", prose, re.M):
            if len(marks) > level + 1:
                yield f"heading {title!r} skips from level {level} to {len(marks)}"
            level = len(marks)
    if level == 0:
        yield "there is no heading"


def _images(notebook):
    for number, cell in enumerate(_code(notebook), 1):
        for output in cell.outputs:
            for kind in output.get("data", {}):
                alt = output.metadata.get(kind, {}).get("alt", "") if kind.startswith("image/") else None
                if alt is not None and len(alt) < 40:
                    yield f"an image of code cell {number} has no alt text of 40 characters, but {alt!r}"


def _metadata(notebook):
    if "widgets" in notebook.metadata:
        yield "widget state is saved in the notebook"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not called python3"
    if tools.normalise(copy.deepcopy(notebook)) != notebook:
        yield "the notebook is not normalised; run `make notebooks`, or tools/notebooks.py normalise"


def _links(notebook, name, names):
    """Missing links in the first and last cell: to the map (notebook 00), the previous and the next one."""
    place, sentences = list(names).index(name), []
    wanted = {names[0], *names[max(place - 1, 0) : place + 2]} - {name}
    for where, cell in (("first", notebook.cells[0]), ("last", notebook.cells[-1])):
        linked = set(re.findall(r"\]\((?:\./)?([\w.-]+\.ipynb)(?:#[^)]*)?\)", cell.source))
        missing = wanted - linked if cell.cell_type == "markdown" else wanted
        sentences += [f"the {where} cell has no link to {other}" for other in sorted(missing)]
        gone = sorted(linked - set(names))
        sentences += [f"the {where} cell links to {other}, which is not there" for other in gone]
    return sentences


def _figures(notebook, chapter):
    """Figures are numbered N.1, N.2, ... in order and have titles, and every cited figure exists."""
    source = "\n".join(cell.source for cell in _code(notebook))
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = tools.FIGURE.findall(source)
    if numbers != [f"{chapter}.{n}" for n in range(1, len(numbers) + 1)]:
        yield f"the figures are counted {numbers}; `python tools/notebooks.py number` counts them anew"
    drawn = len(re.findall(r"show\.(?:figure|from_records)\(", source))
    if drawn != len(numbers):
        yield f"{drawn} figures are shown and {len(numbers)} have a number"
    if len(re.findall(r"show\.figure\(", source)) > len(re.findall(r"\btitle=", source)):
        yield "a figure has no title"
    cited = {number for _, number in tools.CITED.findall(prose) if number.startswith(f"{chapter}.")}
    for number in sorted(cited - set(numbers)):
        yield f"Figure {number} is cited and not shown"


def _words(notebook):
    """A notebook has at most 3,500 words, and states the time that its words and figures take."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    words = sum(len(text.split()) for text in prose)
    if words > 3500:
        yield f"{words} words of text, over 3,500"
    stated = re.search(r"\*\*Time\*\*\D*(\d+)", prose[0]) if prose else None
    figures = sum(len(tools.FIGURE.findall(cell.source)) for cell in _code(notebook))
    minutes = words / 200 + 2 * figures
    if stated and abs(int(stated[1]) - minutes) > max(5, 0.15 * minutes):
        yield f"{stated[1]} minutes are stated; {words} words and {figures} figures take {minutes:.0f}"


def misnumbered(names):
    """Faults in the numbering of files called NN_name.ipynb, in order of their names: a list of sentences.

    Numbers begin at 00 and none occurs twice; some may be missing, because notebooks keep their number.
    """
    strange = [name for name in names if not re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", name)]
    sentences = [f"{name} is not called NN_name.ipynb" for name in strange]
    numbers = [name[:2] for name in names if name not in strange]
    if numbers[:1] != ["00"]:
        sentences.append(f"the first number is {numbers[:1]}, not 00")
    if numbers != sorted(set(numbers)):
        sentences.append(f"numbers are {numbers}: they do not increase, or one occurs twice")
    return sentences


SHOWN = 'show.figure(ax, alt, id="a", number="0.1", title="A curve")'


def good():
    """A small notebook that breaks no rule."""
    alt = {"image/png": {"alt": "A curve that falls from one to zero within five tasks."}}
    data = {"image/png": "iVBORw0KGgo=\n", "text/plain": "<Figure>"}
    picture = new_output("display_data", data=data, metadata=alt)
    cells = [
        new_markdown_cell("# Title\n\n**Time** 3 minutes\n\n[next](01_next.ipynb), Figure 0.1", id="a"),
        new_code_cell("x = 1\nprint(x)", id="b", execution_count=1, outputs=_stream("stdout", "1\n")),
        new_markdown_cell("## Part\n\n```\n#### no heading\n```", id="c"),
        new_code_cell(SHOWN, id="d", execution_count=2, outputs=[picture]),
        new_markdown_cell("[next](01_next.ipynb)", id="e"),
    ]
    return new_notebook(cells=cells, metadata=copy.deepcopy(tools.KERNEL))


def _stream(name, text):
    return [new_output("stream", name=name, text=text)]


BREAKS = {
    "executed in order": lambda n: n.cells[3].update(execution_count=7),
    "shows an error": lambda n: n.cells[1].update(outputs=[new_output("error", ename="E")]),
    "stderr": lambda n: n.cells[1].update(outputs=_stream("stderr", "UserWarning: x\n")),
    "time stamp": lambda n: n.cells[1].update(outputs=_stream("stdout", "2024-05-06 07:08:09\n")),
    "absolute path": lambda n: n.cells[1].update(outputs=_stream("stdout", "see /" + "home/someone/x.png\n")),
    "median": lambda n: [c.update(source="x = 1\n" * 7) for c in (n.cells[1], n.cells[3])],
    "tenth": lambda n: n.cells[1].update(source="x = 1\n" * 16),
    "over 30": lambda n: n.cells[1].update(source="x = 1\n" * 31),
    "defines x": lambda n: [
        n.cells[1].metadata.update(tags=["hide-input"]),
        n.cells[3].update(source="[x for _ in 'ab']"),
    ],
    "characters, over 60": lambda n: [
        n.cells[1].metadata.update(tags=["hide-input"]),
        n.cells[1].update(source="x = 1" + " " * 60 + "# the end"),
    ],
    "class": lambda n: n.cells[1].update(source="class Net(nn.Module):\n    pass"),
    "skips": lambda n: n.cells[2].update(source="### Part"),
    "no heading": lambda n: [c.update(source=c.source.replace("#", "")) for c in n.cells],
    "alt text": lambda n: n.cells[3].outputs[0].metadata["image/png"].update(alt="a plot"),
    "widget state": lambda n: n.metadata.update(widgets={"state": {}}),
    "not called python3": lambda n: n.metadata.kernelspec.update(name="clkit-env"),
    "not normalised": lambda n: n.cells[1].metadata.update(collapsed=True),
    "first cell has no link": lambda n: n.cells[0].update(source="# Title"),
    "last cell has no link": lambda n: n.cells[-1].update(source="The end."),
    "counted": lambda n: n.cells[3].update(source=SHOWN.replace("0.1", "0.2")),
    "have a number": lambda n: n.cells[3].update(source="show.from_records(name)"),
    "no title": lambda n: n.cells[3].update(source=SHOWN.replace("title", "name")),
    "cited": lambda n: n.cells[2].update(source="## Part\n\nFigures 0.1 and 0.3"),
    "over 3,500": lambda n: n.cells[2].update(source="## Part\n\n" + "word " * 3500),
    "are stated": lambda n: n.cells[2].update(source="## Part\n\n" + "word " * 1400),
    "is not there": lambda n: n.cells[-1].update(source="[next](01_next.ipynb) [other](07_gone.ipynb)"),
}


def test_a_good_notebook_breaks_no_rule():
    assert problems(good(), names=("00_example.ipynb", "01_next.ipynb")) == []


@pytest.mark.parametrize("word", BREAKS)
def test_each_rule_notices_a_notebook_that_breaks_it(word):
    notebook = nbformat.from_dict(good())
    BREAKS[word](notebook)
    found = problems(notebook, names=("00_example.ipynb", "01_next.ipynb"))
    assert any(word in sentence for sentence in found), found


def test_user_and_host_names_are_noticed(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "adalovelace")
    monkeypatch.setattr(socket, "gethostname", lambda: "analytical-engine")
    notebook = good()
    notebook.cells[1].outputs = _stream("stdout", "adalovelace on analytical-engine\n")
    assert len(list(_private(notebook))) == 2


def test_links_reach_the_map_and_both_neighbours():
    names = ("00_a.ipynb", "01_b.ipynb", "02_c.ipynb", "03_d.ipynb")
    notebook = new_notebook(cells=[new_markdown_cell("[0](00_a.ipynb) [1](01_b.ipynb) [3](03_d.ipynb)")])
    assert _links(notebook, "02_c.ipynb", names) == []
    missing = [f"the {where} cell has no link to 02_c.ipynb" for where in ("first", "last")]
    assert _links(notebook, "01_b.ipynb", names) == missing


def test_numbers_have_two_digits_and_increase():
    assert misnumbered(["00_a.ipynb", "01_b.ipynb", "10_c.ipynb"]) == []
    for wrong in (
        ["01_a.ipynb", "02_b.ipynb"],
        ["00_a.ipynb", "00_b.ipynb"],
        ["00_a.ipynb", "02_b.ipynb", "01_c.ipynb"],
        ["00_a.ipynb", "1_b.ipynb"],
        ["00_a.ipynb", "001_b.ipynb"],
        ["00_a.ipynb", "01-b.ipynb"],
    ):
        assert len(misnumbered(wrong)) == 1, wrong
    assert NOTEBOOKS and misnumbered([path.name for path in NOTEBOOKS]) == []


def test_the_book_is_small_enough_to_open_online():
    sizes = {path.name: path.stat().st_size for path in NOTEBOOKS}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}
    assert sum(sizes.values()) <= LARGEST_TOGETHER


@pytest.mark.parametrize("value, expected", [("smoke ", "smoke"), (" laptop", "laptop"), (None, "teach")])
def test_the_preset_is_read_without_blanks(value, expected, monkeypatch):
    monkeypatch.delenv("CLKIT_PRESET", raising=False)
    if value is not None:
        monkeypatch.setenv("CLKIT_PRESET", value)
    for path in NOTEBOOKS:
        lines = re.findall(
            r"^PRESET = .*$", "\n".join(c.source for c in _code(nbformat.read(path, as_version=4))), re.M
        )
        assert [eval(line.removeprefix("PRESET = "), {"os": os}) for line in lines] == [expected], path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_committed_notebook_breaks_no_rule(path):
    assert problems(nbformat.read(path, as_version=4), path.name, [other.name for other in NOTEBOOKS]) == []


# -------------------------------------------------------------------------------------------------- the tools


def messy():
    """A notebook as JupyterLab leaves it: with times, widget state, progress bars, addresses and colours."""
    bar = {"text/plain": "  0%|          | 0/5 [00:00<?, ?it/s]", tools.WIDGET: {"model_id": "f00"}}
    slider = {"text/plain": "interactive(children=(IntSlider(value=1),))", tools.WIDGET: {"model_id": "ba4"}}
    outputs = [
        *_stream("stdout", "one\n"),
        *_stream("stdout", "two\r\x1b[31mthree\x1b[0m\n"),
        *_stream("stderr", "\rtask 1:  40%|####      | 2/5 [00:01<00:01, 1.9it/s]"),
        *_stream("stderr", "UserWarning: this one must stay\n"),
        new_output("display_data", data=bar),
        new_output("display_data", data=slider),
        new_output("execute_result", execution_count=1, data={"text/plain": "<Net at 0x7f12ab34cd56>"}),
    ]
    code = new_code_cell("run()", id="same", execution_count=1, outputs=outputs)
    times = {"iopub.execute_input": "2024-01-01T00:00:00Z"}
    code.metadata = nbformat.from_dict({"execution": times, "tags": ["b", "a"]})
    prose = new_markdown_cell("two spaces  \nstay")
    notebook = new_notebook(cells=[code, new_code_cell("  ", execution_count=2), prose])
    notebook.cells[1].id = "same"
    notebook.metadata = nbformat.from_dict(
        {
            "widgets": {"x": 1},
            "kernelspec": {"name": "mine", "display_name": "Mine"},
            "language_info": {"name": "python", "version": "3.11.7"},
        }
    )
    return notebook


def test_normalise_removes_what_depends_on_the_run():
    notebook = tools.normalise(messy())
    first, empty, prose = notebook.cells
    assert notebook.metadata == tools.KERNEL and first.metadata == {"tags": ["a", "b"]}
    assert [output.get("name", output.output_type) for output in first.outputs] == [
        "stdout",
        "stderr",
        "display_data",
        "execute_result",
    ]
    assert first.outputs[0].text == "one\nthree\n"
    assert first.outputs[1].text == "UserWarning: this one must stay\n"
    assert first.outputs[2].data == {"text/plain": tools.HINT}
    assert first.outputs[3].data["text/plain"] == "<Net at 0x...>"
    assert (empty.execution_count, empty.outputs) == (None, []) and prose.source == "two spaces  \nstay"
    assert len({cell.id for cell in notebook.cells}) == 3
    nbformat.validate(notebook)


def test_normalise_twice_changes_nothing(tmp_path):
    path = tmp_path / "messy.ipynb"
    path.write_text(nbformat.v4.writes(messy()), encoding="utf-8")
    tools.main(["normalise", str(path)])
    once = path.read_bytes()
    tools.main(["normalise", str(path)])
    assert path.read_bytes() == once
    notebook = nbformat.read(path, as_version=4)
    assert tools.normalise(copy.deepcopy(notebook)) == notebook


def test_figures_are_counted_anew_where_they_are_shown_and_cited():
    cells = [
        new_markdown_cell("Figure 4.9 above Figures 4.2 and 4.9; Figure 3.1 of another notebook, 4.2 points"),
        new_code_cell('show.figure(ax, number="4.9")\nshow.from_records("b", number="4.2")'),
    ]
    notebook = tools.number(new_notebook(cells=cells), 4)
    assert notebook.cells[0].source.startswith("Figure 4.1 above Figures 4.2 and 4.1; Figure 3.1 of another")
    assert tools.FIGURE.findall(notebook.cells[1].source) == ["4.1", "4.2"]


def test_sources_of_tagged_cells_are_folded():
    notebook = new_notebook(cells=[new_code_cell("x", id="a", metadata={"tags": ["hide-input"]})])
    assert tools.normalise(notebook).cells[0].metadata.jupyter == {"source_hidden": True}
    assert tools.normalise(copy.deepcopy(notebook)) == notebook


def test_execute_writes_copies_and_reports_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    works = new_notebook(cells=[new_code_cell("import os\nprint(os.environ['CLKIT_PRESET'])")])
    fails = new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("total = x / 0")])
    for name, notebook in (("works", works), ("fails", fails)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ipynb")}
    for name, value in (("CLKIT_PRESET", "smoke"), ("CLKIT_PROGRESS", "0"), ("CLKIT_RUNS", "runs")):
        monkeypatch.setenv(name, value)  # the tool sets them for its kernels, and nobody takes them back
    with pytest.raises(SystemExit, match="1 of 2 failed"):
        tools.main(["execute", "--out", str(tmp_path / "out"), *(str(tmp_path / name) for name in before)])
    said = capsys.readouterr()
    assert "fails.ipynb: cell 2 failed: ZeroDivisionError: division by zero" in said.err
    assert "total = x / 0" in said.err
    assert "\x1b" not in said.err and "[2/2]" in said.out
    done = nbformat.read(tmp_path / "out" / "works.ipynb", as_version=4)
    assert done.cells[0].outputs[0].text == "smoke\n"
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ipynb")} == before


# ------------------------------------------------------------------------------------------------- the runner


def nbval_options():
    """The options that `make test` gives to the notebook runner, read from the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    line = re.search(r"^NBVAL_OPTIONS := (.*)$", makefile, re.M).group(1)
    return shlex.split(line.replace("tests/nbval.cfg", str(ROOT / "tests" / "nbval.cfg")))


def cell(source, stored=None, checked=True):
    """An executed code cell that prints `stored`, tagged for comparison."""
    outputs = [] if stored is None else _stream("stdout", stored)
    metadata = {"tags": ["nbval-check-output"]} if checked and stored is not None else {}
    return new_code_cell(source, execution_count=1, outputs=outputs, metadata=metadata)


WARN = "import warnings\nwarnings."
RUNNER = {
    "good": (cell("print('verdict: inside the band')", "verdict: inside the band\n"), True),
    "sanitised": (cell("print('took 3.1 s at 0x7f0012345678')", "took 4.7 s at 0x7f00deadbeef\n"), True),
    "unchecked": (cell("print(2)", "3\n", checked=False), True),
    "wrong_output": (cell("print('accuracy 0.31')", "accuracy 0.97\n"), False),
    "raising": (cell("raise ValueError('no')"), False),
    "deprecated": (cell(WARN + "warn('old', DeprecationWarning)"), False),
    "foreign_warning": (cell(WARN + "warn_explicit('old', DeprecationWarning, 'x.py', 1, 'other')"), True),
}


def test_the_runner_fails_on_broken_notebooks_and_only_on_them(tmp_path):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    startup.joinpath("strict_warnings.py").write_bytes((ROOT / "tests" / "strict_warnings.py").read_bytes())
    books = tmp_path / "books"
    books.mkdir()
    for name, (one, _) in RUNNER.items():
        nbformat.write(new_notebook(cells=[one], metadata=tools.KERNEL), books / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command += [*nbval_options(), "--junitxml", str(tmp_path / "report.xml"), str(books)]
    settings = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    run = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    passed = {}
    for case in xml.etree.ElementTree.parse(tmp_path / "report.xml").iter("testcase"):
        name = re.search(r"(\w+)\.ipynb", case.get("file") or case.get("classname") + case.get("name"))
        key = name.group(1) if name else case.get("classname").split(".")[-1]
        passed[key] = case.find("failure") is None and case.find("error") is None
    assert passed == {name: good for name, (_, good) in RUNNER.items()}, run.stdout[-3000:]
    assert run.returncode == 1
