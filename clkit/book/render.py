"""A notebook as one HTML element, made by nbconvert: for the pages of the book and for its slides.

Nothing in it asks the network: mathematics is MathML, pictures are part of the page, and the colours of code
are classes that the book's own style sheet knows.
"""

import base64
import copy
import hashlib
import io
import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_output
from PIL import Image

from clkit.book.explore.common import HINT
from clkit.errors import ClkitError

TEMPLATE = Path(__file__).resolve().parent / "template"
STANDS_IN = HINT.partition(":")[0]  # how the output begins that stands for an explorer
WIDGET = "application/vnd.jupyter.widget-view+json"
LISTING = re.compile(r"<p><b>[^<]*</b></p>\s*<(div|pre)")  # how the source of a function is displayed
# Letters of code that have no colour: half of all elements of a page.
COLOURLESS = re.compile(r'<span class="(?!k|s|m|c|il|ow|nf|nc|nd|fm)[a-z0-9]*">([^<]*)</span>')
TALL = 40  # lines of a listing that may go over two pages in print
NAMED = re.compile(r"Figure (\d+\.\d+)")
# What a line must not end within: "95 %", "± 0.5", "n = 5", "t-interval", "p. 7".
UNBROKEN = {
    r"(?<=\d) (?=%)|(?<=±) (?=\d)|(?<=\bp\.) (?=\d)": "\u00a0",
    r"\bn = (?=\d)": "n\u00a0=\u00a0",
    r"\bt-interval": "t\u2011interval",
}
# Commands that latex2mathml does not know, and what says the same.
REWORDED = {
    r"\\arg(?![a-z])": r"\\operatorname{arg}",
    r"(\\[bB]igg?[lr]?)\\[lr]Vert(?![a-z])": r"\1‖",
    r"\\(math(?:cal|bb|bf|frak)) *([A-Za-z])(?![A-Za-z])": r"\\\1{\2}",
    r"(\\begin\{(?:cases|aligned|[bpvV]?matrix)\})\s*\[": r"\1{}[",  # a bracket, not an option
}
TIGHT = '<mo stretchy="false" lspace="0" rspace="0">'
# What it leaves as it was: braces and bars of a given size, no space after the name of a function. Primes are
# high already: in a font without mathematics, raised once more, they could not be seen.
MENDED = {
    r"<msup>(<mi>[^<]*</mi>)<mi>(&#x0203[234];)</mi></msup>": rf"<mrow>\1{TIGHT}\2</mo></mrow>",
    r'<mo(?: stretchy="false")?>(?=(?:\||&#x0007C;)</mo>)': TIGHT,
    r"<mi>(?:~|&#x0007E;)</mi>": "<mo>&#x0223C;</mo>",
    r">\\\|<": ">‖<",
    r"\\([{}_#%&])": r"\1",
    r"(?<!<msub>)(<mi>(?:log|ln|exp)</mi>)(?=<m(?!o stretchy))": r'\1<mspace width="0.167em" />',
}


class BookError(ClkitError):
    """A book that cannot be built; the message says why and what to do."""


# ---- Markdown and mathematics


def mathml(tex, display):
    """TeX as MathML; BookError if it uses a command that nobody knows.   display: "inline" or "block"."""
    plain = tex.strip()
    for pattern, better in REWORDED.items():
        plain = re.sub(pattern, better, plain)
    try:
        math = convert(plain, display=display)
    except Exception as error:  # whatever a malformed formula leads to
        raise BookError(f"the formula {tex.strip()} cannot be read ({type(error).__name__})") from None
    for pattern, better in MENDED.items():
        math = re.sub(pattern, better, math)
    unknown = re.search(r"\\(?:[A-Za-z]+|\S)", math)
    if unknown:
        raise BookError(f"the formula {tex.strip()} uses {unknown.group()}, which has no form in MathML here")
    return math


class _Renderer(IPythonRenderer):
    """Markdown as nbconvert reads it, with MathML for what stands between dollar signs."""

    def inline_math(self, body):
        return mathml(body, "inline")

    def block_math(self, body):
        return f'<span class="formula" tabindex="0">{mathml(body, "block")}</span>'

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def block_code(self, code, info=None):
        return _plainer(super().block_code(code, info))

    def block_html(self, html):
        return super().block_html(re.sub(r"\$([^$\n]+)\$", lambda m: self.inline_math(m.group(1)), html))


class _Exporter(HTMLExporter):
    """nbconvert with our template and our Markdown."""

    @pass_context
    def markdown2html(self, context, source):
        attachments = context.get("cell", {}).get("attachments", {})
        options = {"escape": False, "exclude_anchor_links": True, "attachments": attachments}
        return MarkdownWithMath(renderer=_Renderer(**options)).render(source)

    def default_filters(self):
        yield from super().default_filters()
        yield "svg_address", _svg_address
        yield "plainer", _plainer


def _plainer(html):
    """Highlighted code without elements that change nothing."""
    return COLOURLESS.sub(r"\1", html)


def _svg_address(svg):
    """An SVG as an address, so that names inside one picture never meet those of another."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.strip().encode()).decode()


# ---- a notebook


def rendered(notebook, name, folder):
    """The cells of a notebook (nbformat 4) as a BeautifulSoup.   name, folder: of its file."""
    log = logging.getLogger("clkit.book")
    exporter = _Exporter(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)], log=log)
    try:
        html, _ = exporter.from_notebook_node(_prepared(notebook))
    except BookError as error:
        raise BookError(f"{name}: {error}") from None
    soup = BeautifulSoup(html, "html.parser")
    _headings(soup)
    _tables(soup)
    _figures(soup)
    _images(soup, name, folder)
    _unbroken(soup)
    for listing in soup.find_all("pre"):
        if listing.get_text().count("\n") > TALL:
            listing["class"] = [*listing.get("class", []), "tall"]
    return soup


def _prepared(notebook):
    """A copy in which explorers point to their picture and listings wear the book's own colours."""
    notebook, seen, last = copy.deepcopy(notebook), {}, None  # seen: {what a picture shows: its name}
    for cell in notebook.cells:
        outputs, cell["outputs"] = cell.get("outputs", []), []
        for output in outputs:
            data = output.get("data", {})
            plain, page = data.get("text/plain", ""), data.get("text/html", "")
            named = NAMED.match(data.get("text/markdown", "").lstrip("*"))
            picture = _pixels(data["image/png"]) if "image/png" in data else None
            if named and last:
                seen[last] = named.group()
            if WIDGET in data or STANDS_IN in plain:
                fresh = picture and picture not in seen
                figure = seen.get(picture, "The figure")
                if fresh:
                    output.data = {"image/png": data["image/png"].strip()}
                    cell.outputs.append(output)
                words = "This is where it begins." if fresh else f"{figure}, above, shows the same view."
                cell.outputs.append(_words(f"*{STANDS_IN}: it needs a running notebook. {words}*"))
            elif LISTING.match(page) and "\n\n" in plain:
                head, code = plain.split("\n\n", 1)
                cell.outputs.append(_words(f"**{head}**\n\n````python\n{code}\n````"))
            else:
                cell.outputs.append(output)
                last = picture or last
            seen.setdefault(picture, "The figure")
    return notebook


def _pixels(png):
    """What a PNG in base64 shows, without the notes in it: a digest."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    return hashlib.sha256(repr(image.size).encode() + image.convert("RGBA").tobytes()).digest()


def _words(markdown):
    return new_output("display_data", data={"text/markdown": markdown})


def _headings(soup):
    """One heading of level 1, and the anchors that nbconvert and JupyterLab give."""
    taken = set()
    for number, h in enumerate(soup.find_all(re.compile("^h[1-6]$"))):
        if h.name == "h1" and number:
            h.name = "h2"
        name = h.get_text().strip().replace(" ", "-")
        while name in taken:
            name += "-"
        taken.add(name)
        h["id"] = name


def _tables(soup):
    """Headers know what they head, and a table wider than the page scrolls by itself."""
    for table in soup.find_all("table"):
        for th in table.find_all("th"):
            if not th.get_text().strip():
                th.name = "td"
            else:
                th["scope"] = "row" if th.find_parent("tbody") else "col"
        table.wrap(soup.new_tag("div", attrs={"class": "table", "tabindex": "0"}))


def _figures(soup):
    """A picture and its words are one <figure>, with an anchor where it has a number."""
    for image in soup.select("div.image"):
        figure = image.wrap(soup.new_tag("figure"))
        before, after = figure.find_previous_sibling(), figure.find_next_sibling()
        above = _is_words(before) and NAMED.match(before.get_text().strip())
        caption = before if above else after
        if not _is_words(caption):
            continue
        number = NAMED.match(caption.get_text().strip())
        if number:
            figure["id"] = f"figure-{number.group(1)}"
        caption.name, caption["class"] = "figcaption", "text"
        figure.insert(0 if above else 1, caption.extract())
        more = figure.find_next_sibling()
        while _is_words(more) and re.match("<details|<p><em>Description", more.decode_contents().strip()):
            caption.append(more.extract())
            more = figure.find_next_sibling()


def _unbroken(soup):
    """Keep together what belongs together, except in code."""
    for words in soup.find_all(string=re.compile("[%±]|n =|t-interval|p\\.")):
        if words.find_parent(["code", "pre", "math"]):
            continue
        kept = str(words)
        for pattern, better in UNBROKEN.items():
            kept = re.sub(pattern, better, kept)
        words.replace_with(kept)


def _is_words(element):
    """Whether an element is an output in Markdown."""
    return element is not None and {"output", "text"} <= set(element.get("class", []))


def _images(soup, name, folder):
    """Pictures that stand in files become part of the page; BookError where one is not there."""
    for image in soup.find_all("img"):
        address = urlsplit(image["src"])
        if address.scheme == "data":
            continue
        file = Path(folder) / unquote(address.path)
        if address.scheme or not file.is_file():
            raise BookError(f"{name} shows the picture {image['src']}, which is no file beside it")
        kind = {".svg": "svg+xml", ".jpg": "jpeg"}.get(file.suffix, file.suffix[1:])
        image["src"] = f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


# ---- links


def link(soup, own, pages, figures):
    """Lead links to notebooks of the book to their pages; take links to other files of the project out.

    own: the name of this page.   pages: {X.ipynb: X.html}.   figures: {number: page of the figure}.
    """
    for a in soup.find_all("a", href=True):
        address = urlsplit(a["href"])
        if address.scheme or address.netloc or not address.path:
            continue
        page = pages.get(unquote(address.path).removeprefix("./"))
        if page is None:
            a.unwrap()
        else:
            a["href"] = page + (f"#{address.fragment}" if address.fragment else "")
    _cite(soup, own, figures)


def _cite(soup, own, figures):
    """Let "Figure 2.4" in prose lead to the figure."""
    apart = ["a", "code", "pre", "figcaption", "math", "summary", *(f"h{n}" for n in range(1, 7))]
    for words in soup.find_all(string=NAMED):
        if words.find_parent(apart):
            continue
        parts = []
        for place, part in enumerate(NAMED.split(str(words))):
            if place % 2 == 0:
                parts.append(part)
            elif part in figures:
                where = "" if figures[part] == own else figures[part]
                a = soup.new_tag("a", href=f"{where}#figure-{part}")
                a.string = f"Figure {part}"
                parts.append(a)
            else:
                parts.append(f"Figure {part}")
        words.replace_with(*parts)
