"""Display functions for notebooks: source code, figures with descriptions, tables, references.

source(Finetune.learn)                                  the source that runs, never a copy of it
figure(ax, id="...", number="5.4", title="...", alt="...", caption="...")      a picture and its description
from_records("averages-split-mnist", number="1.7")      a figure of the book and its records
table(rows)                                             dictionaries as a table
references("ji2020arm")                                 references with links
"""

import base64
import html
import inspect
import io
import re
import textwrap
from collections import namedtuple
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from pygments.token import Comment, Keyword, Operator, String

from clkit.errors import ClkitError
from clkit.figures import FIGURES
from clkit.figures.picture import few_colours
from clkit.markup import in_html, in_latex, in_markdown
from clkit.papers.references import reference

DPI = 144  # of a picture; it is shown at 96, sharp on finer screens too
SHORTEST = 40  # characters of a description
LONGEST = 60  # words of a description; a longer one folds
ELSEWHERE = "[JupyterLab shows a picture here; its description follows.]"

# {kind of token: (HTML element, its colour in the page's theme)}. Comments have none, because
# JupyterLab's colour for them is too faint to read in its dark theme.
LETTERS = {
    Comment: ("i", None),
    Keyword: ("b", "keyword"),
    Operator.Word: ("b", "keyword"),
    String: ("span", "string"),
}

# Where long lines break: between words, which JupyterLab by itself would split.
BREAKS = 'style="word-break: normal; overflow-wrap: anywhere"'

View = namedtuple("View", "axes text")  # a picture, and what it shows in words


class ShowError(ClkitError):
    """Raised for something that cannot be shown; the message says why and what to do."""


# ---- source


def source(*things):
    """Display the source of functions, methods, classes or modules, with file and line numbers."""
    for thing in things:
        head, code = _source(thing)
        _display({"text/html": _coloured(head, code), "text/plain": f"{head}\n\n{code}"})


def _source(thing):
    """(name and location, source) of one thing."""
    thing = thing.fget if isinstance(thing, property) else inspect.unwrap(thing) if callable(thing) else thing
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", type(thing).__name__))
    if not (callable(thing) or inspect.ismodule(thing)):
        raise ShowError(f"source() takes a function, method, class or module, not a {type(thing).__name__}")
    try:
        lines, first = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        why = "it is built in, or was typed where Python keeps no source"
        raise ShowError(f"there is no Python source of {name}: {why}") from None
    return f"{name} {_where(thing, max(first, 1), len(lines))}", textwrap.dedent("".join(lines)).rstrip()


def _coloured(head, code):
    """Source as HTML that takes its colours from the page.

    JupyterLab and the exported book define them for each theme. Where they are undefined, or where an
    untrusted notebook loses all styles, the source has the colours of other text.
    """
    from pygments.lexers import PythonLexer

    words = []
    for kind, text in PythonLexer(stripall=False).get_tokens(code):
        tag, color = next((look for family, look in LETTERS.items() if kind in family), (None, None))
        style = f' style="color: var(--jp-mirror-editor-{color}-color, inherit)"' if color else ""
        text = html.escape(text, quote=False)
        words.append(f"<{tag}{style}>{text}</{tag}>" if tag and text.strip() else text)
    return f"<p><b>{html.escape(head)}</b></p><pre {BREAKS}>{''.join(words).rstrip()}</pre>"


def _where(thing, first, count):
    module = thing if inspect.ismodule(thing) else inspect.getmodule(thing)
    if module is None or module.__name__ == "__main__":
        return "(defined in this notebook)"
    file = Path(inspect.getsourcefile(module)).name
    parts = module.__name__.split(".")
    folder = parts if file == "__init__.py" else parts[:-1]
    return f"({'/'.join([*folder, file])}, lines {first} to {first + count - 1})"


# ---- figures


def figure(picture, alt=None, *, id, caption, title="", number="", svg=False):
    """Display a figure with its number, title, caption and description, and close it.

    picture: a Figure, Axes or View.   alt: what the picture shows, for readers who cannot see it, in 40
    characters or more (a View has its own).   id: its name, lower case with hyphens.   number: for citations,
    such as "5.4".   title: a few words.   caption: one or two sentences, in Markdown without HTML.   svg:
    store it as SVG. The description is stored with the image and also appears below it, folded if it is long,
    because not all viewers read it from the image.
    """
    said = caption.replace("<", "&lt;")
    _figure(picture, alt, id=id, caption=caption, said=said, title=title, number=number, svg=svg)


def _figure(picture, alt, *, id, caption, said, title, number, svg):
    """`figure`, with the caption as text and, said, as Markdown."""
    if isinstance(picture, View):
        picture, alt = picture.axes, alt or picture.text
    alt = " ".join((alt or "").split())
    if len(alt) < SHORTEST:
        has = f"the description (alt) of figure '{id}' has {len(alt)} characters"
        raise ShowError(f"{has}: describe the picture in {SHORTEST} or more")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ShowError(f"the id of a figure must be lower-case words joined by hyphens, not '{id}'")
    drawn = picture if hasattr(picture, "savefig") else picture.figure
    image, width, height = _png(drawn, {"Title": id, "Description": alt})
    data = {"image/png": base64.b64encode(image).decode()}
    look = {"image/png": {"alt": alt, "width": width, "height": height}}
    if svg:  # JupyterLab shows the PNG of a notebook that it does not trust yet
        data["image/svg+xml"], look["image/svg+xml"] = _svg(drawn, alt), {"alt": alt}
    plt.close(drawn)
    name = f"Figure {number}" if number else title or id
    head = in_markdown(f"{name}. {title}." if number and title else f"{name}.")
    _display(data | {"text/plain": f"{name}: {alt}"}, look)
    words = f"**{head}** {said}\n\n{_folded('Description', in_markdown(alt))}"
    _display({"text/markdown": words, "text/plain": f"{name}. {caption}\nDescription: {alt}"})


def from_records(name, picture=None, *, number=""):
    """Display a figure of the book by its name, and list its records.

    picture: its FigureSpec, if it exists already.   number: for citations, such as "5.4".
    """
    picture = picture or FIGURES[name]()
    look = {"title": picture.title, "number": number, "svg": not picture.records}
    caption = {"caption": picture.caption, "said": in_markdown(picture.caption)}
    _figure(picture.figure, picture.alt, id=name, **caption, **look)
    if picture.records:
        command, stems = f"python -m clkit figures {name}", list(picture.records)
        known = f"{len(stems)} records" if len(stems) > 1 else "one record"
        lines = "".join(f"\n- `{' '.join(stem.replace('`', ' ').split())}`" for stem in stems)
        said = _details(f"Drawn from {known} by <code>{command}</code>", lines)
        _display({"text/markdown": said, "text/plain": "\n  ".join([f"{command}; from the records", *stems])})


def _folded(name, words):
    """Text with a label; long text folds."""
    long = len(words.split()) > LONGEST
    return _details(name, words) if long else f"*{name}:* {words}"


def _details(summary, words):
    return f"<details><summary>{summary}</summary>\n\n{words}\n\n</details>"


def _svg(drawn, alt):
    """An SVG with its description; equal figures give equal bytes."""
    file, about = io.BytesIO(), {"Date": None, "Creator": None}
    with matplotlib.rc_context({"svg.hashsalt": "clkit", "svg.fonttype": "path"}):
        drawn.savefig(file, format="svg", metadata=about, bbox_inches="tight", facecolor="white")
    picture = file.getvalue().decode()
    return picture.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def _png(drawn, facts=None):
    """(PNG bytes, width, height to show it at); equal figures give equal bytes."""
    notes = [t.get_text() for t in drawn.findobj(lambda a: getattr(a, "get_gid", lambda: None)() == "stamp")]
    about = {"Software": None, **({"Comment": " ".join(notes)} if notes else {}), **(facts or {})}
    file = io.BytesIO()
    look = {"dpi": DPI, "bbox_inches": "tight", "facecolor": "white"}
    drawn.savefig(file, format="png", metadata=about, **look)
    image = few_colours(file.getvalue(), level=9)
    width, height = (int.from_bytes(image[n : n + 4], "big") for n in (16, 20))  # from the PNG header
    return image, width * 96 // DPI, height * 96 // DPI


def as_png(view):
    """(PNG in base64, its metadata) of a View, as Jupyter displays them; closes the figure."""
    image, width, height = _png(view.axes.figure)
    plt.close(view.axes.figure)
    return base64.b64encode(image).decode(), {"alt": view.text, "width": width, "height": height}


def as_html(view):
    """A View as HTML, never wider than its container; closes the figure."""
    return png_as_html(*as_png(view))


def png_as_html(data, look):
    """The result of `as_png` as HTML."""
    alt = html.escape(look["alt"])
    size = f'width="{look["width"]}" height="{look["height"]}" style="max-width: 100%; height: auto"'
    words = f'<p style="max-width: 48em; line-height: 1.4">{in_html(look["alt"])}</p>'
    return f'<img alt="{alt}" {size} src="data:image/png;base64,{data}">{words}'


def _display(data, metadata=None):
    """Display in Jupyter; elsewhere print the text, or a note in place of a picture."""
    from IPython.display import display

    if _in_notebook():
        display(data, raw=True, metadata=metadata or {})
    else:
        picture = any(kind.startswith("image/") for kind in data)
        print(ELSEWHERE if picture else data["text/plain"])


def _in_notebook():
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


# ---- text and tables


def text(sentence):
    """Display Markdown text; `markup.in_markdown` brings names from outside into it."""
    _display({"text/markdown": sentence, "text/plain": sentence.replace("*", "").replace("`", "")})


def commands(lines):
    """Display what `compare.load` and `compare.recorded` say about records, folded."""
    said = "\n".join(line.strip() for line in lines)
    folded = _details("The records, and the commands that make them again", f"```\n{said}\n```")
    _display({"text/markdown": folded, "text/plain": said})


def references(*keys):
    """Display entries of the bibliography by their keys, sorted by author and year."""
    found = [reference(key) for key in sorted(set(keys))]
    lines = "\n".join(f"- {one.markdown()}" for one in found)
    _display({"text/markdown": lines, "text/plain": "\n".join(map(str, found))})


def table(rows, columns=None):
    """Display rows (dictionaries) as a table; columns: their order, by default as in the rows."""
    rows = [dict(r) for r in rows]
    if not rows:
        raise ShowError("there are no rows to show: a table needs at least one row")
    _display({"text/markdown": as_markdown(rows, columns), "text/plain": as_text(rows, columns)})


def cells(rows, columns=None):
    """(column names, cells as text) of rows, which may have different columns."""
    columns = list(columns or dict.fromkeys(c for row in rows for c in row))
    return columns, [[_cell(row.get(c, "")) for c in columns] for row in rows]


def as_text(rows, columns=None):
    """Rows as a table for a terminal."""
    columns, lines = cells(rows, columns)
    widths = [max(map(len, column)) for column in zip(columns, *lines)]
    padded = ["  ".join(x.ljust(w) for x, w in zip(line, widths)) for line in [columns, *lines]]
    return "\n".join(map(str.rstrip, padded))


def as_markdown(rows, columns=None):
    """Rows as a table in Markdown, each cell letter by letter; columns of numbers are right-aligned."""
    columns, lines = cells(rows, columns)
    marks = ["---:" if all(map(_is_number, column)) else "---" for column in zip(*lines)]
    said = [[in_markdown(x) for x in line] for line in [columns, *lines]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [said[0], marks, *said[1:]])


def as_latex(rows, columns=None):
    """Rows as a LaTeX tabular with booktabs rules."""
    columns, lines = cells(rows, columns)
    head, *lines = [" & ".join(map(in_latex, line)) + r" \\" for line in [columns, *lines]]
    begin = rf"\begin{{tabular}}{{{'l' * len(columns)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"])


def _cell(value):
    if isinstance(value, float | np.floating):
        return "-" if np.isnan(value) else f"{value:.2f}"
    return " ".join(str(value).split())


def _is_number(text):
    return re.fullmatch(r"[-+]?[\d.,]+|-", text) is not None
