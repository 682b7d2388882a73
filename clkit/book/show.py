"""What a notebook displays: the source that runs, a figure with its description, a table.

source(Finetune.learn)                                  the source that runs, never a copy of it
figure(ax, id="...", alt="...", caption="...")          a picture and its description as text
from_records("averages-split-mnist")                    a figure of the book, with the records behind it
table(rows)                                             dictionaries as a table
"""

import base64
import html
import inspect
import io
import re
import textwrap
from collections import namedtuple
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from clkit.errors import ClkitError
from clkit.figures import FIGURES
from clkit.figures.picture import few_colours

DPI = 144  # of a picture; it is shown at 96, sharp on finer screens too
SHORTEST = 40  # characters of a description

View = namedtuple("View", "axes text")  # a picture, and what it shows in words


class ShowError(ClkitError):
    """Something that cannot be shown; the message says why and what to do."""


# ---- source


def source(*things):
    """Display the source of functions, methods, classes or modules, with its file and lines."""
    for thing in things:
        head, code = _source(thing)
        _display({"text/html": _coloured(head, code), "text/plain": f"{head}\n\n{code}"})


def _source(thing):
    """(name and place, source) of one thing."""
    thing = thing.fget if isinstance(thing, property) else inspect.unwrap(thing) if callable(thing) else thing
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", type(thing).__name__))
    if not (callable(thing) or inspect.ismodule(thing)):
        raise ShowError(f"source() takes a function, method, class or module, not a {type(thing).__name__}")
    try:
        lines, first = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        why = "it is built in, or was typed where none is kept"
        raise ShowError(f"there is no Python source of {name}: {why}") from None
    return f"{name} {_where(thing, max(first, 1), len(lines))}", textwrap.dedent("".join(lines)).rstrip()


def _coloured(head, code):
    """Source as HTML with its colours written out: they need no style sheet and suit light and dark pages."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    box = "background: #f7f7f7; color: #111; padding: 0.6em 0.8em; overflow-x: auto; border: 1px solid #ddd"
    font = "font-family: monospace; font-size: 13px; line-height: 1.35"
    letters = f"{font}; margin: 0; background: none; color: inherit"
    look = HtmlFormatter(style="default", noclasses=True, nobackground=True, cssstyles=box, prestyles=letters)
    return f"<p><b>{html.escape(head)}</b></p>{highlight(code, PythonLexer(stripall=False), look)}"


def _where(thing, first, count):
    module = thing if inspect.ismodule(thing) else inspect.getmodule(thing)
    if module is None or module.__name__ == "__main__":
        return "(defined in this notebook)"
    file = Path(inspect.getsourcefile(module)).name
    parts = module.__name__.split(".")
    folder = parts if file == "__init__.py" else parts[:-1]
    return f"({'/'.join([*folder, file])}, lines {first} to {first + count - 1})"


# ---- figures


def figure(picture, alt=None, *, id, caption):
    """Display a figure with its caption and its description, and close it.

    picture: a Figure or Axes, or a View.   alt: what the picture shows, for those who do not see it: 40
    characters or more (a View has its own).   id: its name, lower case with hyphens.   caption: a sentence
    or two. The description is stored with the image and stands below it as text: not all viewers read it
    from the image.
    """
    if isinstance(picture, View):
        picture, alt = picture.axes, alt or picture.text
    alt = " ".join((alt or "").split())
    if len(alt) < SHORTEST:
        has = f"the description (alt) of figure '{id}' has {len(alt)} characters"
        raise ShowError(f"{has}: say in {SHORTEST} or more what it shows")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ShowError(f"the id of a figure is lower-case words joined by hyphens, not '{id}'")
    drawn = picture if hasattr(picture, "savefig") else picture.figure
    image, width, height = _png(drawn, {"Title": id, "Description": alt})
    plt.close(drawn)
    data = {"image/png": base64.b64encode(image).decode(), "text/plain": f"figure {id}: {alt}"}
    _display(data, {"image/png": {"alt": alt, "width": width, "height": height}})
    words = f"**{id}.** {caption}\n\n*Description:* {alt}"
    _display({"text/markdown": words, "text/plain": f"{id}. {caption}\nDescription: {alt}"})


def from_records(name, picture=None):
    """Display a figure of the book by its name, and the records it is made of.

    picture: its FigureSpec, where that has been made already.
    """
    picture = picture or FIGURES[name]()
    figure(picture.figure, picture.alt, id=name, caption=picture.caption)
    print(f"a file with `python -m clkit figures {name}`; from the records", *picture.records, sep="\n  ")


def _png(drawn, facts=None):
    """(PNG bytes, width, height to show it at); the bytes are the same whenever the figure is."""
    notes = [t.get_text() for t in drawn.findobj(lambda a: getattr(a, "get_gid", lambda: None)() == "stamp")]
    about = {"Software": None, **({"Comment": " ".join(notes)} if notes else {}), **(facts or {})}
    file = io.BytesIO()
    look = {"dpi": DPI, "bbox_inches": "tight", "facecolor": "white"}
    drawn.savefig(file, format="png", metadata=about, **look)
    image = few_colours(file.getvalue())
    width, height = (int.from_bytes(image[n : n + 4], "big") for n in (16, 20))  # of the header of a PNG
    return image, width * 96 // DPI, height * 96 // DPI


def as_html(view):
    """A View as HTML; the figure is closed."""
    image, width, height = _png(view.axes.figure)
    plt.close(view.axes.figure)
    text, data = html.escape(view.text), base64.b64encode(image).decode()
    size = f'width="{width}" height="{height}" style="max-width: none"'
    words = f'<p style="max-width: 48em; line-height: 1.4">{text}</p>'
    return f'<img alt="{text}" {size} src="data:image/png;base64,{data}">{words}'


def _display(data, metadata=None):
    from IPython.display import display

    display(data, raw=True, metadata=metadata or {})


# ---- text and tables


def text(sentence):
    """Display a sentence in Markdown."""
    _display({"text/markdown": sentence, "text/plain": sentence.replace("*", "").replace("`", "")})


def table(rows, columns=None):
    """Display rows (dictionaries) as a table; columns: their order, by default as they come."""
    rows = [dict(r) for r in rows]
    if not rows:
        raise ShowError("a table needs at least one row")
    _display({"text/markdown": as_markdown(rows, columns), "text/plain": as_text(rows, columns)})


def cells(rows, columns=None):
    """(column names, cells as text) of rows that need not all have the same columns."""
    columns = list(columns or dict.fromkeys(c for row in rows for c in row))
    return columns, [[_cell(row.get(c, "")) for c in columns] for row in rows]


def as_text(rows, columns=None):
    """Rows as a table for a terminal."""
    columns, lines = cells(rows, columns)
    widths = [max(map(len, column)) for column in zip(columns, *lines)]
    padded = ["  ".join(x.ljust(w) for x, w in zip(line, widths)) for line in [columns, *lines]]
    return "\n".join(map(str.rstrip, padded))


def as_markdown(rows, columns=None):
    """Rows as a table in Markdown; columns of numbers stand to the right."""
    columns, lines = cells(rows, columns)
    marks = ["---:" if all(map(_is_number, column)) else "---" for column in zip(*lines)]
    escaped = [[x.replace("|", "\\|") for x in line] for line in [columns, marks, *lines]]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def as_latex(rows, columns=None):
    """Rows as a tabular in LaTeX, with the rules of booktabs."""
    columns, lines = cells(rows, columns)
    head, *lines = [" & ".join(map(_escaped, line)) + r" \\" for line in [columns, *lines]]
    begin = rf"\begin{{tabular}}{{{'l' * len(columns)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"])


def _escaped(cell):
    return re.sub("([%&_#$])", r"\\\1", cell).replace("±", r"$\pm$")


def _cell(value):
    if isinstance(value, float | np.floating):
        return "-" if np.isnan(value) else f"{value:.2f}"
    return " ".join(str(value).split())


def _is_number(text):
    return re.fullmatch(r"[-+]?[\d.,]+|-", text) is not None
