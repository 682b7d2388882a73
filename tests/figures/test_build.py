"""Building figures: the files written, what their bytes depend on, and bad requests."""

import getpass
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from clkit import experiments, figures
from clkit.__main__ import main
from clkit.experiments import places
from clkit.figures.picture import few_colours
from clkit.result import load
from tests.figures.conftest import DRAWN, SOME, put, wanted


def test_every_figure_is_written_as_png_and_json(built):
    out, paths = built
    files = {name: ("png", "json") if name in DRAWN else ("json",) for name in figures.FIGURES}
    assert paths == [out / f"{name}.{end}" for name in files for end in files[name]]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in paths)
    assert all(p.stat().st_size > 200 for p in paths) and not plt.get_fignums()


def test_building_again_gives_the_same_bytes_whatever_the_style(built, tmp_path):
    first = figures.build(SOME, tmp_path / "one", formats=figures.FORMATS)
    with matplotlib.rc_context({"font.size": 17, "axes.facecolor": "yellow", "svg.hashsalt": "other"}):
        before = dict(matplotlib.rcParams)
        again = figures.build(SOME, tmp_path / "two", formats=figures.FORMATS)
        assert dict(matplotlib.rcParams) == before
    assert [p.suffix for p in again] == [".pdf", ".svg", ".png", ".json"] * len(SOME)
    for old, new in zip(first, again, strict=True):
        assert old.read_bytes() == new.read_bytes(), new.name
        if new.suffix in (".png", ".json"):
            assert (built[0] / new.name).read_bytes() == new.read_bytes(), new.name


def test_a_pdf_has_real_text_and_an_svg_its_alt_text(records, tmp_path):
    pdf, svg, facts = figures.build(SOME[:1], tmp_path, formats=("pdf", "svg"))
    content = pdf.read_bytes()
    assert b"/FontFile2" in content and b"/Subtype /Type3" not in content and b"CreationDate" not in content
    root = xml.etree.ElementTree.parse(svg).getroot()
    assert root.tag.endswith("svg") and json.loads(facts.read_text())["alt"] in " ".join(root.itertext())
    assert_free_of_the_machine(svg.read_text(encoding="utf-8"))


def test_a_png_has_a_palette_and_keeps_its_notes(built, tmp_path):
    name = "averages-split-mnist"
    with Image.open(built[0] / f"{name}.png") as png:
        assert png.mode == "P" and png.text["Title"] == name and len(png.text["Description"]) >= 40
    file, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 4, (50, 50, 3), dtype=np.uint8) * 80
    Image.fromarray(noise).save(file, "png")
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(few_colours(file.getvalue()))).convert("RGB")), noise
    )


def test_other_records_give_other_bytes(records, built, tmp_path, monkeypatch):
    for path in records.glob("*_split-mnist_paper.*"):
        shutil.copy(path, tmp_path)
    put(tmp_path, "er/split-mnist", "paper", None, skill=0.95)
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    for path in figures.build(SOME[:1], out=tmp_path / "out"):
        assert path.read_bytes() != (built[0] / path.name).read_bytes()


def assert_free_of_the_machine(content):
    assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|usr)/", content)
    assert not re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d", content)
    for word in (getpass.getuser(), socket.gethostname()):
        assert len(word) <= 5 or word not in content


WITHOUT = "first test image|a construction|no record"  # stamps of figures that need no record, or lack it


@pytest.mark.parametrize("name", figures.FIGURES)
def test_each_says_what_it_shows_and_where_from(built, records, name):
    text = (built[0] / f"{name}.json").read_text(encoding="utf-8")
    facts = json.loads(text)
    assert len(facts["alt"]) >= 40 and facts["caption"].endswith((".", ")")) and facts["figure"] == name
    assert facts["command"] == f"python -m clkit figures {name}"
    assert facts["matplotlib"] == matplotlib.__version__ and list(facts) == sorted(facts)
    schematic = name.endswith(("-schematic", "-workflow"))  # drawn from nothing: no stamp, but a title
    stamp = "printed numbers only|numbers of Table" if "printed" in facts else f"seeds? 0|{WITHOUT}"
    assert facts["title"] if schematic else re.search(stamp, facts["stamp"])
    for stem, record in facts["records"].items():
        assert (records / f"{stem}.json").is_file() and record["versions"]["torch"]
        assert record["key"] and record["date"]
        assert record["seeds"] == [r.about["seed"] for r in load(records / stem)]
    without = schematic or "printed" in facts or re.search(WITHOUT, facts["stamp"])
    assert bool(facts["records"]) == (not without)
    assert_free_of_the_machine(text)


def test_no_override_repeats_a_setting_and_each_has_the_type_of_its_field(records):
    for name, preset, overrides in wanted():
        exact = experiments.exact_experiment(name, preset, overrides)
        typed = experiments.experiment(name, preset, overrides)
        assert repr(exact.overrides) == repr(typed.overrides) and exact.stem == typed.stem, name


def test_drawing_loads_no_torch(records, tmp_path):
    code = (
        "import sys, pathlib; from clkit.experiments import places\n"
        "places.RECORDS = pathlib.Path(sys.argv[1])\n"
        "from clkit import figures; figures.build(['arm-table6-mnist', 'spacenet-mnist'], sys.argv[2]);"
        "print(sorted({'torch', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(records), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ---- asking for figures


@pytest.mark.parametrize(
    "name, says",
    [
        (
            "averges-split-mnist",
            f"among the {len(figures.FIGURES)} figures; did you mean averages-split-mnist",
        ),
        ("zzz", "figures, such as accuracy-matrices, averages-split-mnist"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_is_written(records, tmp_path, capsys, name, says):
    assert main(["figures", "accuracy-matrices", name, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert f"there is no figure '{name}' " in said.err and says in said.err and not said.out
    assert not (tmp_path / "out").exists()


def test_the_command_writes_and_lists_what_it_wrote(records, tmp_path, capsys):
    assert main(["figures", "forgetting-split-mnist", "--out", str(tmp_path), "--format", "svg,png"]) == 0
    wanted = [str(tmp_path / f"forgetting-split-mnist.{end}") for end in ("svg", "png", "json")]
    assert capsys.readouterr().out.split() == wanted
    assert main(["figures", "forgetting-split-mnist", "--out", str(tmp_path), "--format", "gif"]) == 2
    assert "unknown format 'gif': use pdf, svg, png" in capsys.readouterr().err


def test_figures_of_a_folder_show_whatever_it_holds(records, tmp_path, capsys):
    for method in ("er", "joint"):
        put(tmp_path, f"{method}/split-mnist", "paper", None, skill=0.7)
    paths = figures.build_from(tmp_path)
    assert {p.suffix for p in paths} == {".png", ".json"} and paths[0].parent == tmp_path / "figures"
    text = " ".join(p.read_text(encoding="utf-8") for p in paths if p.suffix == ".json")
    assert "ER" in text and "Joint" in text


def test_a_missing_record_names_the_command_that_makes_it(records, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path / "none")
    assert main(["figures", "tasks-over-time", "--out", str(tmp_path)]) == 2
    assert "python -m clkit run finetune/split-mnist --preset paper --seeds 0-" in capsys.readouterr().err


def test_a_stale_record_is_refused(records, tmp_path, capsys, monkeypatch):
    for path in records.glob("er_split-mnist_paper.*"):
        shutil.copy(path, tmp_path / path.name.replace("er_", "finetune_"))
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    assert main(["figures", "tasks-over-time", "--out", str(tmp_path)]) == 2
    assert "is stale" in capsys.readouterr().err
