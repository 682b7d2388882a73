"""Text from outside in Markdown, HTML and LaTeX: a reader sees the text, and nothing of it is active."""

import random
import re

import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup
from nbconvert.filters.markdown_mistune import MarkdownWithMath

from clkit.book import compare, explore, show
from clkit.book.exercises import nb00
from clkit.book.exercises.verdict import Grades, Verdict
from clkit.book.render import _Renderer
from clkit.figures.of_records import figures_of
from clkit.markup import in_html, in_latex, in_markdown
from clkit.result import save
from tests.builders import made

SCRIPT = "<script>window.hacked = 1</script>"
NASTY = [
    SCRIPT,
    '<img src="x" onerror="window.hacked = 1">',
    "[click](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "see WWW.example.org and http://example.org",
    "US$5-US$10",
    "$$x$$ and \\(y\\) and \\[z\\]",
    "\\begin{align}x\\end{align}",
    "**bold** _em_ `code` ~~gone~~",
    "a|b",
    "&lt;b&gt; &#60; &amp; R&D",
    "</summary></details>",
    "```\nend",
    "snake_case_name",
    "a\\",
    "<!-- x -->",
    "@@0@@",
]


def random_names(n=200):
    """Names of letters that mean something somewhere."""
    draw = random.Random(0)
    return ["x" + "".join(draw.choices("\\`*_{}[]<>()#+-.!|$~&;:/'\"=%^ab1", k=12)) + "x" for _ in range(n)]


def rendered(markdown):
    """Markdown as the book renders it, a BeautifulSoup; like JupyterLab, it lets HTML through."""
    renderer = _Renderer(escape=False, exclude_anchor_links=True, attachments={})
    return BeautifulSoup(MarkdownWithMath(renderer=renderer).render(markdown), "html.parser")


def seen(soup):
    return " ".join(soup.get_text().split())


def inactive(soup, *allowed):
    return {tag.name for tag in soup.find_all()} <= {"p", "span", *allowed}


def unmathematical(soup):
    """Whether no text node of a page holds what JupyterLab would typeset."""
    strings = [str(text) for text in soup.find_all(string=True)]
    return all(text in ("$", "\\") or not re.search(r"\$|\\", text) for text in strings)


@pytest.mark.parametrize("text", [*NASTY, *random_names()])
def test_a_reader_sees_the_text_in_markdown_and_html(text):
    expected = " ".join(text.split())
    for soup in (rendered(in_markdown(text)), BeautifulSoup(in_html(text), "html.parser")):
        assert seen(soup).replace("“", '"').replace("”", '"') == expected
        assert inactive(soup) and unmathematical(soup)
    row = rendered(f"| a | b |\n| --- | --- |\n| {in_markdown(text)} | c |")
    assert [seen(cell) for cell in row.find_all("td")] == [expected, "c"]


def test_the_rendering_is_active_without_care():
    assert rendered(SCRIPT).find("script") and rendered("**bold**").find("strong")
    assert not unmathematical(rendered("US\\$5-US\\$10"))


def test_ordinary_text_is_left_as_it_is():
    for text in ("Fine-tuning, 3.5 % (n = 5); a_b, ± 0.2", "R&D #3 + {x} > y", "x: y! (z)"):
        assert in_markdown(text) == text and in_latex("a, b") == "a, b"


def test_latex_has_no_command_in_it():
    text = "100 % of R&D_1 costs $5 #2 {x} ~ ^ \\input{/etc} ±"
    assert in_latex(text) == (
        r"100 \% of R\&D\_1 costs \$5 \#2 \{x\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{}input\{/etc\} $\pm$"
    )


# ---- where it reaches a notebook


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as pages: a list of BeautifulSoup."""
    pages = []

    def display(data, raw, metadata):
        if "text/markdown" in data:
            pages.append(rendered(data["text/markdown"]))

    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    yield pages
    plt.close("all")


@pytest.fixture(params=NASTY)
def name(request):
    return request.param


# All of them in four lists, because drawing takes most of the time.
@pytest.fixture(params=range(4))
def names(request):
    return NASTY[request.param :: 4]


def one_line(name):
    return " ".join(name.split())


def test_tables(shown, name):
    show.table([{name: name, "score": 1.0}])
    (page,) = shown
    assert seen(page.find("th")) == seen(page.find("td")) == one_line(name)
    assert len(page.find_all("td")) == 2
    assert inactive(page, "table", "thead", "tbody", "tr", "th", "td")


def test_figures_and_views(shown, names):
    result = made(groups=None)
    method = " ".join(names)
    result.names, result.about["method"] = [*names, *names][:6], method
    plot = explore.confusion_view(result)
    assert inactive(BeautifulSoup(show.as_html(plot), "html.parser"), "img")
    show.figure(plot, id="confusion", caption="Of **one** class.", title=method)
    (page,) = shown
    assert f"Confusion matrix of {one_line(method)} after" in seen(page)
    assert inactive(page, "strong", "em")


def test_captions(shown):
    show.figure(explore.confusion_view(made()), id="a", caption=f"A caption <b>{SCRIPT}")
    assert inactive(shown[0], "strong", "em")


def test_results_as_pages(name):
    result = made(data=name, benchmark=name, method=name)
    page = BeautifulSoup(result._repr_html_(), "html.parser")
    assert page.find_all("td")[2].get_text() == name and unmathematical(page)
    assert inactive(page, "table", "caption", "tbody", "tr", "th", "td")


def test_figures_and_reports_of_records(shown, names, tmp_path):
    result = made(method="er", benchmark=f"folder:/{' '.join(names).replace('/', ' ')}")
    result.about |= {"settings": {}, "config": {}, "preset": "own"}
    save([result], tmp_path / "r")
    for draw in figures_of(tmp_path).values():
        show.from_records("some-figure", draw())
    assert len(shown) == 6 and all(inactive(page, "strong", "em", "li", "ul") for page in shown[::2])
    text = compare.report_of(tmp_path, format="markdown")
    assert inactive(rendered(text), "h3", "table", "thead", "tbody", "tr", "th", "td", "em")


def test_verdicts(name):
    result = made()
    result.names = [name] + [f"c{k}" for k in range(1, 6)]
    for said in (
        nb00.check_final_classes({name, "c9"}, [result]),
        nb00.check_final_classes({name}, [result]),
    ):
        assert inactive(rendered(said._repr_markdown_()), "strong", "code")
    grades = Grades({name: Verdict(True, "Fine.")})
    assert inactive(rendered(grades._repr_markdown_()), "table", "thead", "tbody", "tr", "th", "td", "strong")


def test_errors_of_answers_are_code():
    from clkit.book.exercises.verdict import AnswerError, call, short

    def fails():
        raise ValueError(f"` {SCRIPT} `")

    with pytest.raises(AnswerError) as why:
        call(fails)
    for message in (str(why.value), short(f"` {SCRIPT}")):
        assert rendered(message).find("script") is None
