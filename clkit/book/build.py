"""The book as HTML that needs no network: a page for each notebook, a map, slides, and three editions.

build("build/book")                             the pages of the committed notebooks; nothing is executed
build("build/book", edition="student")          no solutions, no outputs of exercises; notebooks to hand out
build("build/book", edition="instructor")       the solution of each exercise stands below it
"""

import base64
import copy
import html
import inspect
import re
import string
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell

from clkit import __version__
from clkit.book import exercises, slides
from clkit.book.render import TEMPLATE, BookError, link, rendered
from clkit.errors import did_you_mean
from clkit.experiments.places import REPO_ROOT

EDITIONS = ("full", "student", "instructor")
NAME = "clkit: learning new classes without forgetting the old ones"
SAYS = {
    "full": "The notebooks as they come with clkit",
    "student": "For students: without solutions",
    "instructor": "For instructors: with solutions",
}
CHECK = re.compile(r"\bexercises\.check_(\w+)")
SOLUTION = re.compile(r"\b\w+_solution\b")
FONT = "stix-two-math.woff2"  # STIX Two Math 2.12, the letters and signs of formulas only
FACE = '@font-face { font-family: "Book Math"; src: url("data:font/woff2;base64,%s") format("woff2"); }'
DETAILS = re.compile(r"<details.*?</details>\s*", re.S)


def build(out, edition="full", with_slides=False, notebooks=()):
    """Write the book into the folder `out`; returns the paths written, the index first.

    notebooks: files, names or their first digits; by default all of the checkout. Links to notebooks that are
    not chosen become plain text.
    """
    if edition not in EDITIONS:
        raise BookError(f"there is no edition '{edition}'; there are {', '.join(EDITIONS)}")
    files = [chosen(name) for name in notebooks] if notebooks else known()
    if not files:
        raise BookError(f"there are no notebooks in {REPO_ROOT / 'notebooks'}: name some")
    files = sorted(dict.fromkeys(files), key=lambda file: file.name)
    out = writable(out)
    books = {file.stem: for_edition(read(file), edition) for file in files}
    soups = {file.stem: rendered(books[file.stem], file.name, file.parent) for file in files}
    written = [_write(out / f"{stem}.html", page) for stem, page in _pages(soups, edition).items()]
    if with_slides:
        written += [_write(out / f"{s}.slides.html", page) for s, page in _decks(soups).items()]
    if edition == "student":
        texts = {stem: nbformat.v4.writes(book) + "\n" for stem, book in books.items()}
        written += [_write(out / f"{stem}.ipynb", text) for stem, text in texts.items()]
    return [_write(out / "index.html", _index(soups, edition, with_slides)), *written]


# ---- which notebooks, and where to


def known():
    """The notebooks of the checkout, in order."""
    return sorted((REPO_ROOT / "notebooks").glob("*.ipynb"))


def chosen(name):
    """The file of a notebook: a path, a name, or the first digits of a name."""
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name).resolve()
    stem = Path(name).name.removesuffix(".ipynb")
    found = [file for file in known() if stem in (file.stem, file.stem.partition("_")[0])]
    if len(found) != 1:
        names = [file.stem for file in known()]
        near = did_you_mean(stem, names) or f"; there are {', '.join(names)}"
        raise BookError(f"there is no notebook '{name}'{near}")
    return found[0]


def read(file):
    """A notebook (nbformat 4); BookError where it is none, or was never executed."""
    try:
        notebook = nbformat.reads(file.read_text(encoding="utf-8"), as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        raise BookError(f"{file.name} cannot be read as a notebook") from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if code and all(cell.execution_count is None for cell in code):
        raise BookError(f"{file.name} has not been executed, and the book shows what notebooks have shown")
    return notebook


def writable(out):
    """The folder of the book, made where it is not there; BookError where nothing can be written to it."""
    out = Path(out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").write_text("")
        (out / ".writable").unlink()
    except OSError as error:
        raise BookError(f"the book cannot be written to {out} ({error.strerror}): name a folder") from None
    return out


def _write(path, text):
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


# ---- editions


def for_edition(notebook, edition):
    """A copy of a notebook for readers of an edition."""
    notebook = copy.deepcopy(notebook)
    if edition == "student":
        notebook.cells = [cell for cell in map(_unsolved, notebook.cells) if cell is not None]
    elif edition == "instructor":
        notebook.cells = [one for cell in notebook.cells for one in (cell, *_solutions(cell))]
    return notebook


def _unsolved(cell):
    """A cell without solutions; None where nothing else was in it."""
    if cell.cell_type == "code":
        if SOLUTION.search(cell.source):
            return None
        if CHECK.search(cell.source):
            cell.outputs, cell.execution_count = [], None
    elif cell.cell_type == "markdown":
        before = cell.source
        text = DETAILS.sub(lambda m: "" if _solves(m.group()) else m.group(), before)
        kept = [part for part in re.split(r"\n\s*\n", text) if not SOLUTION.search(part)]
        cell.source = (
            "\n\n".join(kept).strip() if len(text) < len(before) or SOLUTION.search(text) else before
        )
        if not cell.source:
            return None
    return cell


def _solves(details):
    """Whether folded words hold a solution: they name one, or their summary says so."""
    summary = re.search(r"<summary>(.*?)</summary>", details, re.S)
    said = summary.group(1).lower() if summary else ""
    return bool(SOLUTION.search(details)) or "solution" in said or "answer" in said


def _solutions(cell):
    """Cells with the source of the solutions of the exercises that a cell checks."""
    names = dict.fromkeys(CHECK.findall(cell.source)) if cell.cell_type == "code" else ()
    found = {f"{name}_solution": getattr(exercises, f"{name}_solution", None) for name in names}
    for name, solution in found.items():
        if solution is not None:
            code = inspect.getsource(solution).rstrip()
            words = f"**Solution:** `{name}`\n\n```python\n{code}\n```"
            yield new_markdown_cell(words, id=f"{cell.id}-{name}"[:64].replace("_", "-"))


# ---- pages


def _pages(soups, edition):
    """{stem: page} of all notebooks, linked with one another."""
    pages = {f"{stem}.ipynb": f"{stem}.html" for stem in soups}
    figures = {
        figure["id"].removeprefix("figure-"): f"{stem}.html"
        for stem, soup in soups.items()
        for figure in soup.select("figure[id]")
    }
    written, stems = {}, list(soups)
    for place, (stem, soup) in enumerate(soups.items()):
        link(soup, f"{stem}.html", pages, figures)
        previous, following = stems[place - 1] if place else None, (*stems, None)[place + 1]
        steps = [("Previous", previous), ("The map", "index"), ("Next", following)]
        shown = [
            (word if to == "index" else f"{word}: {title(soups[to])}", f"{to}.html")
            for word, to in steps
            if to
        ]
        written[stem] = _framed(
            f"{title(soup)} · clkit", str(soup), _links("Book", shown), _contents(soup), SAYS[edition]
        )
    return written


def _contents(soup):
    """The headings of level 2 of a page, as links."""
    found = [(h.get_text().strip(), f"#{h['id']}") for h in soup.find_all("h2")]
    return _links("On this page", found, 'class="contents" ') if found else ""


def _links(name, links, look=""):
    items = "".join(f'<li><a href="{html.escape(to)}">{html.escape(words)}</a></li>' for words, to in links)
    return f'<nav {look}aria-label="{name}"><ul>{items}</ul></nav>'


def title(soup):
    """The title of a page."""
    heading = soup.find("h1")
    return heading.get_text().strip() if heading else "Untitled"


def _index(soups, edition, with_slides):
    """The page with the map: each notebook, what it is about, and what it takes."""
    items = []
    for stem, soup in soups.items():
        words = [p.decode_contents() for p in soup.select("h1 ~ p")[:2]]
        more = {f"{stem}.slides.html": "slides"} if with_slides else {}
        more |= {f"{stem}.ipynb": "notebook"} if edition == "student" else {}
        also = " · ".join(
            f'<a href="{to}">{html.escape(title(soup))}, {kind}</a>' for to, kind in more.items()
        )
        lines = [
            f'<h3><a href="{stem}.html">{html.escape(title(soup))}</a></h3>',
            *(f"<p>{w}</p>" for w in words),
        ]
        items.append("".join([*lines, f"<p>{also}</p>" if also else ""]))
    chapters = "\n".join(f"<li>{item}</li>" for item in items)
    head = f'<h1>{html.escape(NAME)}</h1>\n<p>{SAYS[edition]}.</p>\n<h2 id="map">The map</h2>'
    main = f'{head}\n<ol class="map">{chapters}</ol>'
    first = [(f"Begin: {title(next(iter(soups.values())))}", f"{next(iter(soups))}.html")]
    return _framed(NAME, main, _links("Book", first), "", SAYS[edition])


def _decks(soups):
    """{stem: slides} of all notebooks; their pages have been written before."""
    written = {}
    for stem, soup in soups.items():
        shown = [(f"Page: {title(soup)}", f"{stem}.html"), ("The map", "index.html")]
        head = title(soup)
        main = slides.as_sections(slides.slides(BeautifulSoup(str(soup), "html.parser")))
        written[stem] = _framed(
            f"{head}, slides · clkit", str(main), _links("Book", shown), "", "", kind="slides"
        )
    return written


def _framed(name, main, header, contents, footer, kind="page"):
    """A whole HTML file."""
    frame = string.Template((TEMPLATE / "frame.html").read_text(encoding="utf-8"))
    return frame.substitute(
        title=html.escape(name),
        style=_style(kind, main),
        kind=kind,
        header=header,
        contents=contents,
        main=main,
        footer=f"{footer}. clkit {__version__}" if footer else f"clkit {__version__}",
        script=(TEMPLATE / f"{kind}.js").read_text(encoding="utf-8"),
    )


def _style(kind, main):
    """The style sheet of a page. It brings a font for mathematics, because many systems have none."""
    sheets = [(TEMPLATE / f).read_text(encoding="utf-8") for f in ("book.css", f"{kind}.css")]
    if "<math" in main:
        font = base64.b64encode((TEMPLATE / FONT).read_bytes()).decode()
        sheets.insert(0, FACE % font)
    return "\n".join(sheets)
