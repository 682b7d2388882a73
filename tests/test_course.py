"""What COURSE.md cites exists: notebooks, figures, sections, times, exercises, papers, commands."""

import csv
import json
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from clkit import __main__ as command_line
from clkit.book import exercises

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "COURSE.md").read_text(encoding="utf-8")
NUMBERS = [
    "00",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "07",
    "08",
    "09",
    "10",
]  # of the notebooks that the course builds on


@lru_cache
def cells(number):
    """The sources of a notebook's cells: (Markdown cells, code cells)."""
    [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kinds = ("markdown", "code")
    return tuple(["".join(c["source"]) for c in found if c["cell_type"] == kind] for kind in kinds)


def figures(number):
    """The figure numbers in a notebook's cells."""
    return re.findall(r'number="(\d+\.\d+)"', "\n".join(cells(number)[1]))


def titles(number):
    """{number: title} of the figures in a notebook's outputs."""
    [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    outputs = [o for c in json.loads(path.read_text(encoding="utf-8"))["cells"] for o in c.get("outputs", [])]
    text = "\n".join("".join(o.get("data", {}).get("text/markdown", "")) for o in outputs)
    return dict(re.findall(r"\*\*Figure (\d+\.\d+)\. (.*?)\.?\*\*", text))


def headings(number):
    """The headings of a notebook, without their marks."""
    return re.findall(r"^#+ (.*)$", "\n".join(cells(number)[0]), re.M)


def cited_figures(text):
    return {tuple(figure.split(".")) for figure in re.findall(r"\bFigure (\d+\.\d+)\b", text)}


def cited_sections(text):
    """{(notebook, section)} of "notebook 01, sections 3 to 5" and the like."""
    found = re.findall(r"[Nn]otebook (\d\d), sections? (\d+)(?: (to|and) (\d+))?", text)
    return {(n, s) for n, a, _, b in found for s in range(int(a), int(b or a) + 1)}


def test_what_is_cited_is_found_in_a_text():
    text = "see Figure 1.10, Figure 2.3; notebook 01, sections 3 to 5 and Notebook 02, section 1."
    assert cited_figures(text) == {("1", "10"), ("2", "3")}
    assert cited_sections(text) == {("01", 3), ("01", 4), ("01", 5), ("02", 1)}


def test_every_figure_cited_exists():
    missing = [f"{n}.{k}" for n, k in cited_figures(TEXT) if f"{n}.{k}" not in figures(f"{int(n):02}")]
    assert len(cited_figures(TEXT)) > 30 and missing == []


def test_the_figures_cited_are_listed_with_their_titles():
    listed = dict(re.findall(r"^\| Figure (\d+\.\d+) \| (.*) \|$", TEXT, re.M))
    assert listed.keys() == {".".join(figure) for figure in cited_figures(TEXT)}
    known = {number: title for notebook in NUMBERS for number, title in titles(notebook).items()}
    other = {number: known.get(number) for number, title in listed.items() if known.get(number) != title}
    assert other == {}  # what the notebooks say


def test_every_notebook_cited_exists_or_is_to_come():
    links = re.findall(r"\]\((notebooks/[^)#]+)\)", TEXT)
    assert len(set(links)) == len(NUMBERS) and all((ROOT / link).is_file() for link in links)
    for line in TEXT.splitlines():
        numbers = set(re.findall(r"\b[Nn]otebooks? (\d\d)\b", line))
        assert numbers <= set(NUMBERS) or "to come" in line, line


def test_the_first_four_weeks_need_only_what_exists():
    four = TEXT.partition("\n## Four weeks\n")[2].partition("\n## Eight weeks\n")[0]
    assert four.count("\n### Week ") == 4 and "to come" not in four


def test_each_lecture_lasts_ninety_minutes():
    tables = re.findall(r"^\| minutes \| what .*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.M)
    minutes = [sum(int(row.split("|")[1]) for row in table.splitlines()) for table in tables]
    assert minutes == [90, 90, 90, 90]


def test_every_section_cited_exists():
    cited = cited_sections(TEXT)
    missing = [(n, s) for n, s in cited if not any(h.startswith(f"{s}. ") for h in headings(n))]
    named = re.findall(r'[Nn]otebook (\d\d),(?: section \d+,)? "([^"]+)"', TEXT)
    missing += [(n, title) for n, title in named if title not in headings(n)]
    assert len(cited) > 15 and named and missing == []


def test_the_times_are_those_of_the_notebooks():
    """Times are rounded to five minutes."""
    time = re.compile(r"\*\*Time\*\* (\d+) minutes to read.*?(\d+) (with|more for) the exer")
    for number in NUMBERS:
        row = re.search(rf"^\| \[{number} .*$", TEXT, re.M).group().split("|")
        told = time.search(" ".join(cells(number)[0][0].split()))
        reading, more, how = int(told[1]), int(told[2]), told[3]
        total = more + reading * (how == "more for")
        assert abs(int(row[3]) - reading) <= 5 >= abs(int(row[4]) - total), number


def test_the_exercises_are_those_of_the_notebooks():
    rows = re.findall(r"^\| (\d\d) \| (`\w+`(?:, `\w+`)*) \| (`check_.*`) \|$", TEXT, re.M)
    assert [number for number, *_ in rows] == NUMBERS
    for number, functions, checkers in rows:
        code = "\n".join(cells(number)[1])
        functions, checkers = functions.strip("`").split("`, `"), checkers.strip("`").split("`, `")
        assert checkers == [f"check_{name}" for name in functions]
        for name in functions:
            assert f"def {name}(" in code and f"exercises.check_{name}({name})" in code, (number, name)
            assert callable(getattr(exercises, f"check_{name}"))


def test_papers_are_those_of_the_bibliography():
    with (ROOT / "clkit/papers/references.csv").open(encoding="utf-8", newline="") as lines:
        links = {row["link"] for row in csv.DictReader(lines)}
    cited = re.findall(r"\[([\d.]+)\]\((https://arxiv\.org/abs/[\d.]+)\)", TEXT)
    assert len(cited) > 10
    assert [(n, link) for n, link in cited if link not in links or not link.endswith(f"/{n}")] == []


def commands(text):
    """The calls of clkit in the code blocks of a text: lists of words."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[3:] for line in lines if line.startswith("python -m clkit ")]


@pytest.mark.parametrize("name, least", [("README.md", 12), ("CONTRIBUTING.md", 2), ("COURSE.md", 7)])
def test_commands_can_be_given(name, least):
    found = commands((ROOT / name).read_text(encoding="utf-8"))
    assert len(found) >= least
    for words in found:
        command_line._parser().parse_args(words)


def test_the_grading_script_grades(tmp_path):
    [script] = [s for s in re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S) if "grade.py" in s]
    (tmp_path / "grade.py").write_text(script, encoding="utf-8")
    names = ("average", "forgetting", "reservoir")
    lines = ["from clkit.book import exercises", *(f"{name} = exercises.{name}_solution" for name in names)]
    good = "\n".join(lines)
    (tmp_path / "good.py").write_text(good, encoding="utf-8")
    (tmp_path / "poor.py").write_text("def average(a):\n    return a.mean()\n", encoding="utf-8")
    command = [sys.executable, "grade.py", "good.py", "poor.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "good.py: 3 of 3" in run.stdout and "poor.py: 0 of 3" in run.stdout
