"""The book in a browser: nothing for axe-core to find, nothing cut off, nothing fetched, slides and print."""

import pytest

from clkit.book import build
from tools import browser

SCHEMES = ("light", "dark")
WIDTHS = (1100, 1400)  # of the window, in pixels
SHEET = 680  # pixels between the margins of A4
STEMS = [file.stem for file in build.known()]
PAGES = ["index.html", *(f"{stem}.html" for stem in STEMS), *(f"{stem}.slides.html" for stem in STEMS)]
FAULTS = """<!DOCTYPE html><html lang="en"><title>Faults</title><main><h1>Faults</h1>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<p style="color: #ccc; background: #fff">Too faint.</p></main>"""


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The folder of the whole book, with slides."""
    return build.build(tmp_path_factory.mktemp("book"), with_slides=True)[0].parent


@pytest.fixture
def look(chromium, book):
    """A function that opens a page of the book: look(name, scheme, width) gives (page, what went wrong)."""
    contexts = []

    def opened(name, scheme="light", width=WIDTHS[0]):
        look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
        contexts.append(chromium.new_context(**look))
        page, wrong = contexts[-1].new_page(), []
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("data:", "file:")) else wrong.append(r.url))
        page.goto((book / name).as_uri())
        return page, wrong

    yield opened
    for context in contexts:
        context.close()


def violations(page, rules="{}"):
    """What axe-core finds, as sentences.   rules: its options, as JavaScript."""
    page.evaluate(browser.AXE.read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run({rules})")["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]


def test_axe_finds_what_is_wrong(chromium):
    page = chromium.new_page()
    page.set_content(FAULTS)
    assert {line.split(":")[0] for line in violations(page)} == {"image-alt", "color-contrast"}
    page.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(look, name, scheme):
    page, wrong = look(name, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    rules = "{}" if scheme == "light" else "{runOnly: ['color-contrast']}"  # the rest knows no colours
    assert violations(page, rules) == [] and wrong == []
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_off(look, name):
    page, wrong = look(name)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        shown, whole = page.evaluate("(e => [e.clientWidth, e.scrollWidth])(document.documentElement)")
        assert whole == shown, width
        edges = page.evaluate("[...document.images].map(image => image.getBoundingClientRect().right)")
        assert all(edge <= width for edge in edges)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert wrong == []


@pytest.mark.parametrize("stem", STEMS)
def test_print_shows_what_is_folded_and_cuts_no_code(look, stem):
    page, _ = look(f"{stem}.html", width=SHEET)
    page.emulate_media(media="print")
    folded = "[...document.querySelectorAll('details')]"
    whole, heads = (
        page.evaluate(f"{folded}.map(d => {part}.offsetHeight)")
        for part in ("d", "d.querySelector('summary')")
    )
    assert all(height > head + 10 for height, head in zip(whole, heads))
    assert page.evaluate("[...document.querySelectorAll('pre')].every(p => p.scrollWidth <= p.clientWidth)")
    assert not page.evaluate("[...document.querySelectorAll('nav')].some(n => n.offsetHeight > 0)")


def test_arrow_keys_turn_slides(look):
    page, wrong = look(f"{STEMS[1]}.slides.html")
    count = page.evaluate("document.querySelectorAll('.slide').length")
    here = "document.activeElement.id"
    for key, place in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", count), ("Home", 1)):
        page.keyboard.press(key)
        page.wait_for_function(f"{here} === 'slide-{place}'")
        top = page.evaluate("document.activeElement.getBoundingClientRect().top")
        assert abs(top) < 2 or place == count
    assert wrong == []


@pytest.mark.parametrize("stem", STEMS)
def test_a_slide_fits_on_the_screen(look, stem):
    page, _ = look(f"{stem}.slides.html")
    page.set_viewport_size({"width": 1280, "height": 720})
    heights = page.evaluate("[...document.querySelectorAll('.slide')].map(s => s.offsetHeight)")
    assert sum(height > 760 for height in heights) <= len(heights) / 20
