"""The cells of a notebook as slides: a new one at each heading, at each figure, and when one is full.

All slides of a notebook are one page that needs no library: sections that the browser snaps to, each of them
one sheet in print.
"""

import copy
import math
import re
from collections import namedtuple

from bs4 import BeautifulSoup

ROOM = 18  # lines of text on a slide
WIDTH = 105  # letters in a line
HEADINGS = ("h1", "h2", "h3")

Slide = namedtuple(
    "Slide", "title blocks first"
)  # its heading, its elements, whether the heading is among them


def slides(soup):
    """The slides of the cells of a notebook, in order."""
    found, title, used = [], "", math.inf
    for group in groups(soup):
        head = group[0]
        heading, figure = head.name in HEADINGS, head.name == "figure"
        need = ROOM if figure else sum(map(lines, group))
        if heading:
            title = head.get_text().strip()
        chapter = head.name in HEADINGS[:2]
        bare = bool(found) and all(block.name in HEADINGS for block in found[-1].blocks)  # no words yet
        fresh = heading or figure or used + need > ROOM
        if not found or chapter or (fresh and not bare):
            found.append(Slide(title, [], heading))
            used = 0
        found[-1].blocks.extend(group)
        used += need
    return found


def groups(soup):
    """The blocks of slides in lists that stay together: what announces something, and what it announces."""
    group = []
    for block in blocks(soup):
        if group and (block.name == "figure" or block.name in HEADINGS):
            yield group
            group = []
        group.append(block)
        if not announces(block):
            yield group
            group = []
    if group:
        yield group


def announces(block):
    """Whether an element only leads to the next one: a sentence with a colon, the name of a listing."""
    words = block.get_text().strip()
    bold = block.find("strong")
    return block.name == "p" and (
        words.endswith(":") or (bold is not None and bold.get_text().strip() == words)
    )


def blocks(soup):
    """The elements that stand on slides, one after another."""
    for part in soup.find_all(recursive=False):
        inside = part.name == "div" and not {"table", "highlight", "input", "plain"} & set(
            part.get("class", [])
        )
        if inside:
            yield from blocks(part)
        elif not _only_shows(part):
            yield from _pieces(part)


def _pieces(block):
    """The element; a table longer than a slide becomes tables that fit, each with its head."""
    rows = block.select("tbody tr")
    if not rows or lines(block) <= ROOM:
        yield block
        return
    heights, parts = _heights(block)[-len(rows) :], [[]]
    for n, height in enumerate(heights):
        if parts[-1] and sum(heights[m] for m in parts[-1]) + height > ROOM - 5:  # beside title and head
            parts.append([])
        parts[-1].append(n)
    for part in parts:
        piece = copy.copy(block)
        for n, row in enumerate(piece.select("tbody tr")):
            if n not in part:
                row.decompose()
        yield piece


def _heights(table):
    """About how many lines each row of a table fills, with its padding, in columns of the width they need."""
    rows = [[cell.get_text().strip() for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
    columns = max(map(len, rows))
    longest = [max(len(row[k]) if k < len(row) else 0 for row in rows) for k in range(columns)]
    room = (WIDTH - 2 * columns) / max(1, sum(longest))
    widths = [max(8, int(n * min(1, room))) for n in longest]
    return [0.25 + max(_wrapped(cell, width) for cell, width in zip(row, widths)) for row in rows]


def _only_shows(part):
    """Whether an element is a cell of one line that asks for what stands below it."""
    source = part.get_text().strip()
    return "input" in part.get("class", []) and source.startswith("show.") and "\n" not in source


def lines(block):
    """About how many lines of a slide an element fills."""
    if block.find("pre") or block.name == "pre":
        return 0.62 * (block.get_text().count("\n") + 1) + 1.2
    if block.name == "details":
        return 1.5
    if block.find("tr"):
        return 1 + sum(_heights(block))
    if block.find("li"):
        return 1 + sum(_wrapped(item.get_text(), WIDTH) for item in block.find_all("li"))
    if block.name in HEADINGS:
        return 2
    formulas = 2 * len(block.find_all("math", display="block"))
    return 0.5 + formulas + _wrapped(block.get_text(), WIDTH)


def _wrapped(text, width):
    return max(1, math.ceil(len(text.strip()) / width))


def as_sections(found):
    """Slides as HTML sections, each named by its place and heading."""
    page = BeautifulSoup("", "html.parser")
    for place, slide in enumerate(found, 1):
        name = f"Slide {place} of {len(found)}: {slide.title}"
        full = " dense" if sum(map(lines, slide.blocks)) > ROOM else ""
        look = {"class": f"slide{full}", "id": f"slide-{place}", "aria-label": name, "tabindex": "0"}
        section = page.new_tag("section", attrs=look)
        if not slide.first and slide.title:
            again = page.new_tag("p", attrs={"class": "again"})
            again.string = slide.title
            section.append(again)
        for block in slide.blocks:
            section.append(_shortened(block))
        count = page.new_tag("p", attrs={"class": "count"})
        count.string = f"{place} / {len(found)}"
        section.append(count)
        page.append(section)
    return page


def _shortened(block):
    """A figure without what its alt text says too: descriptions and lists of records stay in the page."""
    if block.name == "figure":
        for more in block.select("figcaption details"):
            more.decompose()
        for p in block.select("figcaption p"):
            if re.match(r"Description:", p.get_text().strip()):
                p.decompose()
    return block
