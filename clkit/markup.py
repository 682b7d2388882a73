"""Text from outside, such as names of classes and facts of records, in Markdown, HTML and LaTeX.

Each function returns markup that shows the text letter by letter. JupyterLab executes the scripts in a
trusted notebook, typesets what stands between dollar signs, and looks for formulas once more in the page that
it has made: hence dollar signs and backslashes stand in an element of their own.
"""

import html
import re

_ALONE = {"$": "<span>&#36;</span>", "\\": "<span>&#92;</span>"}
# In Markdown, with the colon of an address and the point after www, which make a link of it
_ACTIVE = re.compile(r"[`*\[\]~|<$\\]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.", re.IGNORECASE)
_ENTITIES = {"<": "&lt;", "&": "&amp;", ":": "&#58;", ".": "&#46;", **_ALONE}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{letter: f"\\{letter}" for letter in "%&_#${}"},
}


def in_html(text: object) -> str:
    """Text as HTML, for the inside of an element; for an attribute, html.escape is enough."""
    return html.escape(str(text)).translate(str.maketrans(_ALONE))


def in_markdown(text: object) -> str:
    """Text as Markdown on one line, also for the cell of a table."""
    line = " ".join(str(text).split())
    return _ACTIVE.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line)


def in_latex(text: object) -> str:
    """Text as LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in str(text))
