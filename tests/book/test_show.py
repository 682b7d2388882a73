"""What notebooks display: source, figures with descriptions, tables; also as text and LaTeX."""

import base64
import functools
import html
import inspect
import re
import struct
import zlib
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from clkit import plots
from clkit.book import explore, show
from clkit.figures.picture import FigureSpec
from clkit.methods.baselines import finetune
from clkit.papers.references import ReferenceKeyError
from clkit.result import interval
from tests.builders import made, seeds, several

ALT = "Bars of forgetting for two methods, the first at one hundred points."


@pytest.fixture
def shown(monkeypatch):
    """The displayed outputs: a list of (data, metadata)."""
    found = []
    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: found.append((data, metadata)))
    yield found
    plt.close("all")


def size_of(image):
    return struct.unpack(">II", image[16:24])


def notes_of(image):
    """Text chunks of a PNG, in both encodings."""
    return dict(_notes(image))


def _notes(image):
    place = 8
    while place < len(image):
        length, kind = struct.unpack(">I4s", image[place : place + 8])
        chunk = image[place + 8 : place + 8 + length]
        if kind == b"tEXt":
            key, text = chunk.split(b"\0", 1)
            yield key.decode(), text.decode("latin-1")
        elif kind == b"iTXt":
            key, rest = chunk.split(b"\0", 1)
            text = rest[2:].split(b"\0", 2)[2]
            yield key.decode(), (zlib.decompress(text) if rest[0] else text).decode()
        place += length + 12


# ---- source


def test_source_displays_the_source_that_runs(shown):
    show.source(finetune.fit, finetune.Finetune.learn)
    (data, _), (method, _) = shown
    first = inspect.getsourcelines(finetune.fit)[1]
    head, code = data["text/plain"].split("\n\n", 1)
    last = first + len(code.splitlines()) - 1
    assert code == inspect.getsource(finetune.fit).rstrip()
    assert head == f"fit (clkit/methods/baselines/finetune.py, lines {first} to {last})"
    assert method["text/plain"].startswith("Finetune.learn (clkit/methods/baselines/finetune.py, lines ")
    assert "\n\ndef learn(self, task, trace):" in method["text/plain"]  # without the indentation of the class
    seen = html.unescape(re.sub("<[^>]*>", "", data["text/html"]))
    assert seen.strip() == head + code


def test_source_takes_classes_modules_properties_and_wrapped_functions(shown):
    show.source(finetune.Config, finetune, type(made()).tasks, functools.lru_cache(interval))
    heads = [data["text/plain"].partition("\n")[0] for data, _ in shown]
    assert heads[0].startswith("Config (clkit/methods/baselines/finetune.py") and heads[1].startswith(
        "clkit.methods.baselines.finetune (clkit/methods"
    )
    assert heads[2].startswith("Result.tasks (clkit/result/") and heads[3].startswith(
        "interval (clkit/result/"
    )


def test_source_of_a_package_names_its_file_and_escapes_code(shown):
    import clkit.methods

    show.source(clkit.methods)
    assert "(clkit/methods/__init__.py, lines 1 to " in shown[0][0]["text/plain"]

    def marked():
        return "<b>"

    show.source(marked)
    assert (
        "&lt;b&gt;" in shown[1][0]["text/html"]
        and "(tests/book/test_show.py, lines " in shown[1][0]["text/plain"]
    )


def test_a_listing_takes_its_colours_from_the_page(shown):
    def marked(a=None):
        """Words."""
        return not a  # <b>

    show.source(marked)
    page = shown[0][0]["text/html"]
    colored = 'style="color: var(--jp-mirror-editor-{}-color, inherit)"'
    assert f"<b {colored.format('keyword')}>return</b>" in page and "<i># &lt;b&gt;</i>" in page
    assert f'<span {colored.format("string")}>"""Words."""</span>' in page
    assert set(re.findall('color: [^"]*', page)) == {
        f"color: var(--jp-mirror-editor-{word}-color, inherit)" for word in ("keyword", "string")
    }
    assert '<pre style="word-break: normal;' in page


@pytest.mark.parametrize(
    "thing, says", [(len, "no Python source of len"), (3, "not a int"), ("text", "not a str")]
)
def test_source_refuses_what_has_no_source(thing, says):
    with pytest.raises(show.ShowError, match=says):
        show.source(thing)


# ---- figures


def test_figure_shows_alt_text_in_metadata_and_as_text(shown):
    ax = plots.plot_forgetting(seeds())
    show.figure(ax, ALT, id="forgetting-bars", caption="Forgetting of *ER*.")
    (picture, metadata), (words, _) = shown
    image = base64.b64decode(picture["image/png"])
    assert (
        metadata["image/png"]["alt"] == ALT and metadata["image/png"]["width"] == size_of(image)[0] * 2 // 3
    )
    assert words["text/markdown"] == f"**forgetting-bars.** Forgetting of *ER*.\n\n*Description:* {ALT}"
    facts = notes_of(image)
    assert facts["Title"] == "forgetting-bars" and facts["Description"] == ALT and "Software" not in facts
    assert facts["Comment"].startswith("split-digits") and "torch" in facts["Comment"]
    assert not plt.get_fignums()


def test_figure_gives_the_same_bytes_for_the_same_results(shown):
    for _ in range(2):
        show.figure(plots.plot_averages(several()), ALT, id="same", caption="Twice.")
    assert shown[0][0]["image/png"] == shown[2][0]["image/png"]


@pytest.mark.parametrize("alt", ["", None, "A plot.", "x " * 19 + " " * 30])
def test_figure_wants_a_description(shown, alt):
    with pytest.raises(show.ShowError, match="describe the picture in 40 or more"):
        show.figure(plots.plot_forgetting(seeds()), alt, id="bars", caption="Bars.")
    assert not shown


def test_figure_wants_a_plain_id(shown):
    with pytest.raises(show.ShowError, match="not 'My Figure'"):
        show.figure(plots.plot_forgetting(seeds()), ALT, id="My Figure", caption="Bars.")


def test_a_view_brings_its_own_description(shown):
    view = explore.confusion_view(seeds())
    show.figure(view, id="confusion", caption="Confusion.")
    assert shown[0][1]["image/png"]["alt"] == view.text


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])  # of Python, of IPython in a terminal
def test_outside_of_a_notebook_a_figure_is_its_words(monkeypatch, capsys, shell):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    show.figure(
        plots.plot_forgetting(seeds()), ALT, id="bars", number="1.2", title="Bars", caption="Some bars."
    )
    assert capsys.readouterr().out == f"{show.ELSEWHERE}\nFigure 1.2. Some bars.\nDescription: {ALT}\n"
    show.table([{"a": 1}])
    assert capsys.readouterr().out == "a\n1\n"


# ---- text and tables


def test_a_sentence_is_markdown_and_plain(shown):
    show.text("*Look* at `x`.")
    assert shown == [({"text/markdown": "*Look* at `x`.", "text/plain": "Look at x."}, {})]


def test_table_is_markdown_and_plain(shown):
    show.table([{"method": "a|b", "score": 1.5}, {"method": "c", "score": float("nan")}])
    data = shown[0][0]
    assert data["text/markdown"] == "| method | score |\n| --- | ---: |\n| a\\|b | 1.50 |\n| c | - |"
    assert data["text/plain"] == "method  score\na|b     1.50\nc       -"
    with pytest.raises(show.ShowError, match="at least one row"):
        show.table([])


def test_rows_need_not_have_the_same_columns(shown):
    show.table([{"a": 1}, {"b": 2}])
    assert shown[0][0]["text/plain"] == "a  b\n1\n   2"
    assert show.as_text([{"a": 1, "b": 2}], ["b"]) == "b\n2"


def test_latex_is_a_tabular_with_escaped_cells():
    assert show.as_latex([{"method": "a_b & c", "score (%)": "1.0 ± 0.5"}]) == (
        "\\begin{tabular}{ll}\n\\toprule\nmethod & score (\\%) \\\\\n\\midrule\n"
        "a\\_b \\& c & 1.0 $\\pm$ 0.5 \\\\\n\\bottomrule\n\\end{tabular}"
    )


def test_a_figure_of_the_book_is_shown_with_its_records(shown, monkeypatch):
    results = seeds()
    spec = FigureSpec(plots.plot_averages(results).figure, "A caption.", ALT, {"er_digits_teach": results})
    monkeypatch.setitem(show.FIGURES, "averages", lambda: spec)
    show.from_records("averages")
    assert shown[0][1]["image/png"]["alt"] == ALT and "A caption." in shown[1][0]["text/markdown"]
    folded, plain = shown[2][0]["text/markdown"], shown[2][0]["text/plain"]
    assert "<code>python -m clkit figures averages</code>" in folded and "\n- `er_digits_teach`" in folded
    assert folded.startswith("<details>") and plain.endswith("from the records\n  er_digits_teach")


def test_a_schematic_of_the_book_is_an_svg_with_its_description(shown, monkeypatch):
    boxes = {"a": ("images", "data", 1, 1, 1, 0.5), "b": ("network", "trained", 3, 1, 1, 0.5)}

    def spec():
        return FigureSpec(plots.plot_schematic(boxes, [("a", "b", "x")]).figure, "Flow.", ALT, title="A flow")

    monkeypatch.setitem(show.FIGURES, "flow", spec)
    show.from_records("flow", number="3.2")
    show.from_records("flow", number="3.2")
    assert len(shown) == 4 and shown[0] == shown[2]
    data, look = shown[0]
    assert f'aria-label="{ALT}"' in data["image/svg+xml"] and look["image/svg+xml"]["alt"] == ALT
    # JupyterLab shows no SVG of a notebook that it does not trust yet.
    assert data["image/png"] and look["image/png"]["alt"] == ALT
    assert shown[1][0]["text/markdown"].startswith("**Figure 3.2. A flow.** Flow.")


def test_a_long_description_folds(shown):
    long = ALT + " word" * 60
    show.figure(plots.plot_forgetting(seeds()), long, id="bars", caption="Bars.", number="1.2", title="Bars")
    words = shown[1][0]["text/markdown"]
    assert words.startswith("**Figure 1.2. Bars.** Bars.\n\n<details><summary>Description</summary>")


def test_commands_fold(shown):
    show.commands(["loaded er_digits_teach", "   python -m clkit run er/split-digits"])
    folded, plain = (shown[0][0][kind] for kind in ("text/markdown", "text/plain"))
    assert plain == "loaded er_digits_teach\npython -m clkit run er/split-digits"
    assert folded.startswith("<details><summary>The records, ") and f"```\n{plain}\n```" in folded


def test_references_are_listed_with_links(shown):
    show.references("zenke2017si", "li2018lwf", "zenke2017si")
    lines = shown[0][0]["text/markdown"].splitlines()
    assert len(lines) == 2 and lines[0].startswith(
        "- Z. Li and D. Hoiem. *[Learning without forgetting](https:"
    )
    with pytest.raises(ReferenceKeyError, match="did you mean zenke2017si"):
        show.references("zenke2017")


def test_a_figure_that_is_made_already_is_not_made_again(shown):
    spec = FigureSpec(plots.plot_averages(seeds()).figure, "A caption.", ALT)
    show.from_records("made-already", spec)
    assert "**made-already.** A caption." in shown[1][0]["text/markdown"]
