"""The book as HTML: nothing is lost, nothing is fetched, every link leads somewhere; slides and editions."""

import base64
import io
import itertools
import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clkit.__main__ import main
from clkit.book import build, exercises, render, slides

ALT = "A curve that falls from one to zero within five tasks, drawn in blue."
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SOLVED = "01"  # a notebook of the book with exercises that have solutions


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@pytest.fixture(scope="module")
def warned():
    handler = Warnings()
    logging.getLogger("clkit.book").addHandler(handler)
    yield handler.said
    logging.getLogger("clkit.book").removeHandler(handler)


@pytest.fixture(scope="module")
def book(tmp_path_factory, warned):
    """{name: parsed page} of the whole book, with slides."""
    return parsed(build.build(tmp_path_factory.mktemp("book"), with_slides=True))


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """{edition: folder} of one notebook for students and for instructors."""
    folders = {edition: tmp_path_factory.mktemp(edition) for edition in ("student", "instructor")}
    for edition, folder in folders.items():
        build.build(folder, edition, notebooks=[SOLVED])
    return folders


def parsed(paths):
    return {p.name: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in paths}


def chapters(book):
    """(notebook, its page, its slides) of the book."""
    for file in build.known():
        notebook = nbformat.read(file, as_version=4)
        yield notebook, book[f"{file.stem}.html"], book[f"{file.stem}.slides.html"]


def small(*cells, folder, name="small.ipynb", **options):
    """The parsed pages of a book of one notebook with these cells."""
    notebook = new_notebook(
        cells=[new_markdown_cell("# Small"), new_code_cell("0", execution_count=1), *cells]
    )
    nbformat.write(notebook, folder / name)
    return parsed(
        p for p in build.build(folder / "out", notebooks=[folder / name], **options) if p.suffix == ".html"
    )


def code(source="draw()", *data, tags=(), look=None):
    """A code cell that displayed these data."""
    outputs = [new_output("display_data", data=d, metadata=look or {}) for d in data]
    return new_code_cell(source, execution_count=2, outputs=outputs, metadata={"tags": list(tags)})


def figure(number, kind="image/png", image=DOT):
    """A figure as notebooks show it: the cell that draws it."""
    picture = {kind: image, "text/plain": "a figure"}
    words = {
        "text/markdown": f"**Figure {number}. Falling.** What falls.\n\n*Description:* {ALT}",
        "text/plain": "",
    }
    cell = code("draw()", picture, words)
    cell.outputs[0].metadata = nbformat.from_dict({kind: {"alt": ALT, "width": 10, "height": 20}})
    return cell


def png(image, **options):
    """A PNG in base64."""
    file = io.BytesIO()
    image.save(file, "png", **options)
    return base64.b64encode(file.getvalue()).decode()


# ---- the whole book


def test_nbconvert_has_nothing_to_warn_of(book, warned):
    assert warned == []


def test_every_picture_has_the_description_of_its_notebook(book):
    for notebook, page, deck in chapters(book):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        kinds = [(o, kind) for o in outputs for kind in o.get("data", {}) if kind.startswith("image/")]
        wanted = {output.metadata[kind]["alt"] for output, kind in kinds}
        for soup in (page, deck):
            found = [img.get("alt") for img in soup.find_all("img")]
            assert set(found) == wanted and all(len(alt) >= 40 for alt in found)
    assert sum(len(page.find_all("img")) for _, page, _ in chapters(book)) > 50


def test_mathematics_needs_no_network_and_stays_out_of_code(book):
    for notebook, page, _ in chapters(book):
        prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        assert len(page.find_all("math")) >= len(re.findall(r"\$\$.*?\$\$", prose, re.S))
        for words in page.main.find_all(string=re.compile(r"\$|\\frac|\\sum")):
            assert words.find_parent(["pre", "code", "math"]), words
        assert not [c for c in page.find_all(["pre", "code"]) if c.find("math")]
        assert all(formula["tabindex"] == "0" for formula in page.select(".formula"))  # it can be scrolled
    assert any(page.find("math", display="block") for _, page, _ in chapters(book))


def test_every_link_leads_somewhere(book):
    anchors = {name: {tag["id"] for tag in soup.find_all(id=True)} for name, soup in book.items()}
    links = 0
    for name, soup in book.items():
        for a in soup.find_all("a", href=True):
            address = urlsplit(a["href"])
            if address.scheme:
                assert address.scheme == "https"
                continue
            target = unquote(address.path) or name
            assert target in book, (name, a["href"])
            assert not address.fragment or unquote(address.fragment) in anchors[target], (name, a["href"])
            links += 1
    assert links > 100


def test_pages_lead_to_their_neighbours_and_the_map(book):
    names = [f"{file.stem}.html" for file in build.known()]
    assert [a["href"] for a in book["index.html"].select(".map h3 a")] == names
    for place, name in enumerate(names):
        steps = [a["href"] for a in book[name].header.find_all("a")]
        assert steps == [*names[max(place - 1, 0) : place], "index.html", *names[place + 1 : place + 2]]


def test_nothing_is_fetched(book):
    for name, soup in book.items():
        fetched = [tag["src"] for tag in soup.find_all(src=True) if not tag["src"].startswith("data:image/")]
        assert fetched == [] and not soup.find_all(["link", "iframe", "object"]), name
        styles = "".join(tag.get_text() for tag in soup.find_all(["style", "script"]))
        assert not re.search(r"url\((?!.data:font/)|@import|https?:|fetch\(", styles)


def test_pages_are_built_for_every_reader(book):
    for name, soup in book.items():
        assert soup.html["lang"] == "en" and soup.title.get_text().strip()
        assert len(soup.find_all("h1")) == 1 and len(soup.find_all("main")) == 1
        assert soup.find("a")["href"] == "#main" and soup.main["id"] == "main"
        ids = [tag["id"] for tag in soup.find_all(id=True)]
        assert len(ids) == len(set(ids)), name
        assert all(th.get("scope") in ("col", "row") for th in soup.find_all("th"))
        navs = [nav["aria-label"] for nav in soup.find_all("nav")]
        assert navs and len(navs) == len(set(navs))


def test_explorers_point_to_their_picture(book):
    pages = [
        page for notebook, page, _ in chapters(book) if any("_explorer(" in c.source for c in notebook.cells)
    ]
    for page in pages:
        assert "run this cell in JupyterLab" not in page.main.get_text()
        assert "An interactive view: it needs a running notebook." in page.main.get_text()
    assert pages


def test_slides_begin_at_headings_and_figures(book):
    for _, page, deck in chapters(book):
        for heading in deck.find_all("h2"):
            before = heading.find_previous_sibling()
            assert before is None
        assert [h.get_text() for h in deck.find_all("h2")] == [h.get_text() for h in page.main.find_all("h2")]
        for shown in deck.find_all("figure"):
            others = [t.name for t in shown.parent.find_all(recursive=False) if t is not shown]
            assert set(others) <= {"h1", "h2", "h3", "p"} and shown.parent.name == "section"
        names = [section["aria-label"] for section in deck.find_all("section")]
        assert len(names) == len(set(names)) and len(names) >= len(deck.find_all("figure"))
        assert len(deck.find_all("figure")) == len(page.find_all("figure"))


# ---- one page


def test_the_source_of_cells_that_only_plot_is_left_out(tmp_path):
    shown, hidden = code("shown = 1"), code("hidden = 1", {"text/plain": "its output"}, tags=["hide-input"])
    text = small(shown, hidden, folder=tmp_path)["small.html"].main.get_text()
    assert "shown = 1" in text and "hidden = 1" not in text and "its output" in text


def test_a_figure_is_one_element_that_prose_leads_to(tmp_path):
    cells = [figure("7.1"), new_markdown_cell("As Figure 7.1 shows, unlike Figure 9.9 and `Figure 7.1`.")]
    page = small(*cells, folder=tmp_path)["small.html"]
    shown = page.find("figure", id="figure-7.1")
    assert (
        shown.img["alt"] == ALT
        and shown.img["width"] == "10"
        and "What falls." in shown.figcaption.get_text()
    )
    assert [a.get_text() for a in page.select('a[href="#figure-7.1"]')] == ["Figure 7.1"]


def test_drawn_pictures_are_images_with_a_description(tmp_path):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path id="p" d="M0 0"/></svg>'
    page = small(figure("7.1", "image/svg+xml", svg), folder=tmp_path)["small.html"]
    assert page.img["alt"] == ALT and page.img["src"].startswith("data:image/svg+xml;base64,")


def test_pictures_in_files_become_part_of_the_page(tmp_path):
    (tmp_path / "dot.svg").write_text("<svg/>")
    page = small(new_markdown_cell("![a dot](dot.svg)"), folder=tmp_path)["small.html"]
    assert page.img["src"] == "data:image/svg+xml;base64,PHN2Zy8+" and page.img["alt"] == "a dot"


def test_an_explorer_without_a_picture_before_it_keeps_its_own(tmp_path):
    text = "What is seen.\nAn interactive view: run this cell in JupyterLab to use it."
    cell = code(
        "explore.some_explorer()", {"image/png": DOT, "text/plain": text}, look={"image/png": {"alt": ALT}}
    )
    for cells, pictures, words in (
        ([cell], 1, "This is where it begins"),
        ([figure("7.1"), cell], 1, "Figure 7.1"),
    ):
        page = small(*cells, folder=tmp_path)["small.html"]
        assert len(page.find_all("img")) == pictures
        [said] = [em.get_text() for em in page.find_all("em") if "interactive view" in em.get_text()]
        assert words in said


def test_an_explorer_points_to_the_figure_with_the_same_pixels(tmp_path):
    notes = PngInfo()
    notes.add_text("Title", "another name")
    again = png(Image.open(io.BytesIO(base64.b64decode(DOT))), pnginfo=notes)
    text = "What is seen.\nAn interactive view: run this cell in JupyterLab to use it."
    cell = code("explore.some_explorer()", {"image/png": again, "text/plain": text})
    other = figure("7.2", image=png(Image.new("L", (2, 2))))
    page = small(figure("7.1"), other, cell, folder=tmp_path)["small.html"]
    assert again != DOT and len(page.find_all("img")) == 2
    assert "Figure 7.1, above" in page.find_all("em")[-1].get_text()


def test_formulas_bring_their_font_and_other_pages_do_not(tmp_path):
    for words, brought in (("$x$", True), ("x", False)):
        small(new_markdown_cell(words), folder=tmp_path)
        page = (tmp_path / "out" / "small.html").read_text(encoding="utf-8")
        assert ("data:font/woff2;base64," in page) is brought


def test_numbers_stay_with_their_units_except_in_code(tmp_path):
    words = "From 5 % to 9.5 ± 0.3 (95 % t-interval, n = 5), p. 7, and `5 % n = 5`"
    page = small(new_markdown_cell(words), folder=tmp_path)["small.html"]
    said = page.main.get_text()
    for kept in (
        "5\u00a0%",
        "±\u00a00.3",
        "95\u00a0% t\u2011interval",
        "n\u00a0=\u00a05",
        "p.\u00a07",
        "5 % n = 5",
    ):
        assert kept in said


def test_listings_wear_the_colours_of_the_book(tmp_path):
    page = '<p><b>f (a.py)</b></p><pre style="color: #111"><b>def</b> f(): ...</pre>'
    listing = code("show.source(f)", {"text/html": page, "text/plain": "f (a.py)\n\ndef f(): ..."})
    main = small(listing, folder=tmp_path)["small.html"].main
    assert not main.find(style=True) and main.find("span", class_="k").get_text() == "def"


def test_links_out_of_the_book_become_words(tmp_path):
    words = "[a](gone.ipynb#x) [b](../README.md) [c](https://example.org) [d](small.ipynb#Small)"
    page = small(new_markdown_cell(words), folder=tmp_path)["small.html"]
    assert [a["href"] for a in page.main.find_all("a")] == ["https://example.org", "small.html#Small"]
    assert "a b c d" in page.main.get_text()


@pytest.mark.parametrize(
    "tex, part",
    [
        (r"\frac{1}{T}", "<mfrac>"),
        (r"\arg\min_y \lVert x \rVert", "arg"),
        (r"\Bigl\lVert x \Bigr\rVert", ">‖<"),
        (r"\Bigl\{ x \Bigr\|", ">{<"),
        (r"\begin{cases} [k = y] & a \\ 0 & b \end{cases}", "<mtable"),
        (r"\mathcal M", "&#x02133;"),
        (r"B'", '<mi>B</mi><mo stretchy="false" lspace="0" rspace="0">&#x02032;</mo>'),
        (r"\log p", '<mi>log</mi><mspace width="0.167em" />'),
        (r"\log_2 p", "<msub><mi>log</mi><mn>2</mn></msub>"),
    ],
)
def test_formulas_become_mathml(tex, part):
    found = render.mathml(tex, "inline")
    assert part in found and "\\" not in found


def test_markdown_and_outputs_have_formulas_and_code_has_none(tmp_path):
    words = "# A $x$\n\n`$y$`\n\n```\n$z$\n```\n\n<details><summary>Why $w$</summary>\n\n$$v$$\n\n</details>"
    cells = [new_markdown_cell(words), code("0", {"text/markdown": "$u$", "text/plain": ""})]
    main = small(*cells, folder=tmp_path)["small.html"].main
    assert [math.get_text() for math in main.find_all("math")] == ["x", "w", "v", "u"]
    assert [c.get_text().strip() for c in main.find_all("code")] == ["$y$", "$z$"]


# ---- slides


def test_what_announces_something_stays_with_it():
    html = "<h2>A</h2>" + "<p>word</p>" * 9 + "<p>These:</p><ul><li>one</li><li>two</li></ul>"
    found = slides.slides(BeautifulSoup(html + html, "html.parser"))
    assert len(found) > 2
    for slide in found:
        words = [block.get_text() for block in slide.blocks]
        assert words[-1] != "These:" and words[-1] != "A"


def test_a_table_longer_than_a_slide_continues_on_the_next_with_its_head():
    rows = [f"<tr><td>term {n}</td><td>{'word ' * 30}</td></tr>" for n in range(30)]
    head = "<thead><tr><th>term</th><th>meaning</th></tr></thead>"
    html = f"<h2>Glossary</h2><div><table>{head}<tbody>{''.join(rows)}"
    found = slides.slides(BeautifulSoup(html, "html.parser"))
    tables = [block for slide in found for block in slide.blocks if block.find("tr")]
    assert len(tables) > 2 and max(sum(map(slides.lines, slide.blocks)) for slide in found) <= slides.ROOM
    assert all(table.thead.get_text() == "termmeaning" for table in tables)
    terms = [row.td.get_text() for table in tables for row in table.select("tbody tr")]
    assert terms == [f"term {n}" for n in range(30)]


def test_what_fits_on_no_slide_is_set_smaller():
    rows = "".join(f"<tr><td>{n}</td></tr>" for n in range(40))
    html = f"<h2>A</h2><table>{rows}</table><h2>B</h2><p>few words</p>"
    deck = slides.as_sections(slides.slides(BeautifulSoup(html, "html.parser")))
    assert [("dense" in section["class"]) for section in deck.find_all("section")] == [True, False]


# ---- editions


def test_students_find_stubs_and_no_solution(editions):
    [file] = editions["student"].glob("*.ipynb")
    notebook, before = nbformat.read(file, as_version=4), nbformat.read(build.chosen(SOLVED), as_version=4)
    nbformat.validate(notebook)
    for path in (file, file.with_suffix(".html")):
        assert "_solution" not in path.read_text(encoding="utf-8")
    checked = [
        cell for cell in notebook.cells if "exercises.check_" in cell.source and cell.cell_type == "code"
    ]
    assert len(checked) >= 2 and all(cell.outputs == [] for cell in checked)
    assert any("raise NotImplementedError" in cell.source for cell in checked)
    old = {cell.id: cell for cell in before.cells}
    changed = [c.id for c in notebook.cells if c not in checked and c != old[c.id]]
    assert all("_solution" in old[name].source for name in changed)
    gone = [cell for cell in before.cells if cell.id not in {c.id for c in notebook.cells}]
    assert all("_solution" in cell.source for cell in gone)


def test_solutions_are_found_wherever_they_stand():
    details = "<details>\n<summary>{}</summary>\n\nbody\n\n</details>"
    cells = [
        new_code_cell("show.source(exercises.herding_solution)"),
        new_markdown_cell(f"Before.\n\n{details.format('Answer')}\n\nAfter."),
        new_markdown_cell(details.format("Stuck? See <code>f_solution</code>")),
        new_markdown_cell(details.format("Description")),
        new_markdown_cell("Keep.\n\nSolutions: `f_solution`."),
    ]
    kept = [cell.source for cell in build.for_edition(new_notebook(cells=cells), "student").cells]
    assert kept == ["Before.\n\nAfter.", details.format("Description"), "Keep."]


def test_instructors_find_each_solution_below_its_exercise(editions):
    notebook = nbformat.read(build.chosen(SOLVED), as_version=4)
    names = [n for cell in notebook.cells for n in re.findall(r"exercises\.check_(\w+)", cell.source)]
    wanted = [f"{name}_solution" for name in names if hasattr(exercises, f"{name}_solution")]
    [page] = [p for p in editions["instructor"].glob("*.html") if p.stem.startswith(SOLVED)]
    main = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").main
    found = [strong.parent for strong in main.find_all("strong", string="Solution:")]
    assert wanted and [p.code.get_text() for p in found] == wanted
    for name, p in zip(wanted, found):
        assert f"def {name}(" in p.find_next("pre").get_text()
        assert f"check_{name.removesuffix('_solution')}" in p.find_previous("div", class_="input").get_text()


def test_every_edition_says_which_it_is(editions, book):
    texts = [(folder / "index.html").read_text(encoding="utf-8") for folder in editions.values()]
    assert "without solutions" in texts[0] and "with solutions" in texts[1]
    assert "solutions" not in book["index.html"].main.get_text()
    assert list(editions["instructor"].glob("*.ipynb")) == []


# ---- the style sheet


def luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_colours_are_far_enough_apart_in_both_themes():
    css = (render.TEMPLATE / "book.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", b)) for b in re.findall(r":root \{(.*?)\}", css, re.S)
    )
    assert set(light) == set(dark) and len(light) > 8
    for theme in (light, dark):
        letters = set(theme) - {"page", "code", "line"}
        for ground, name in itertools.product(("page", "code"), letters):
            low, high = sorted((luminance(theme[ground]), luminance(theme[name])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, name)


@pytest.mark.parametrize("rows, whole", [(1, True), (14, True), (15, False), (40, False)])
def test_a_short_table_stays_on_one_printed_page(rows, whole):
    css = (render.TEMPLATE / "book.css").read_text(encoding="utf-8")
    [selector] = re.findall(r"^(\.table\S*\(.*\)) \{ break-inside: avoid; \}$", css, re.M)
    body = "<tr><td>1</td></tr>" * rows
    page = BeautifulSoup(
        f"<table><thead><tr><th>n</th></tr></thead><tbody>{body}</tbody></table>", "html.parser"
    )
    render._tables(page)
    assert bool(page.select(selector)) == whole


def test_print_opens_what_is_folded_and_keeps_things_together():
    css = (render.TEMPLATE / "book.css").read_text(encoding="utf-8")
    assert "details::details-content" in css and "beforeprint" in (render.TEMPLATE / "page.js").read_text()
    assert re.search(r"h1, h2, h3, h4 \{[^}]*break-after: avoid", css)
    assert re.search(r"figure > \.image, figcaption > p \{[^}]*break-inside: avoid", css)
    assert re.search(r"figure > \.image \{[^}]*break-after: avoid", css)  # the caption stays with its picture
    assert re.search(r"\npre \{[^}]*white-space: pre-wrap", css)


# ---- the command, and bad input


def test_the_command_builds_what_was_asked_for(tmp_path, capsys):
    assert main(["book", "build", "--out", str(tmp_path), "--slides", "00"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "index.html",
        "00_start_here.html",
        "00_start_here.slides.html",
    }
    assert str(tmp_path / "index.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["77"], "there is no notebook '77'; there are 00_start_here, "),
        (["00_strat_here"], "there is no notebook '00_strat_here'; did you mean 00_start_here"),
        (["broken.ipynb"], "broken.ipynb cannot be read as a notebook"),
        (["fresh.ipynb"], "fresh.ipynb has not been executed"),
        (["formula.ipynb"], r"formula.ipynb: the formula \foo{x} uses \foo"),
        (["picture.ipynb"], "picture.ipynb shows the picture gone.png, which is no file beside it"),
        (["--out", "broken.ipynb"], "the book cannot be written to broken.ipynb"),
        (["--out", "broken.ipynb/book"], "the book cannot be written to broken.ipynb/book"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.ipynb").write_text("no notebook")
    done = new_code_cell("1", execution_count=1)
    for name, cell in {
        "fresh": new_code_cell("1"),
        "formula": new_markdown_cell(r"$\foo{x}$"),
        "picture": new_markdown_cell("![gone](gone.png)"),
    }.items():
        cells = [cell] if name == "fresh" else [done, cell]
        nbformat.write(new_notebook(cells=cells), f"{name}.ipynb")
    assert main(["book", "build", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == ""


def test_an_unknown_edition_is_refused(tmp_path):
    with pytest.raises(build.BookError, match="no edition 'mine'; there are full, student"):
        build.build(tmp_path, edition="mine")
