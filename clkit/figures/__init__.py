"""The figures of the book: FIGURES = {name: figure function}, and `build`, which writes them to figures/.

A figure function lives in the file of its paper, reads only committed records and returns a FigureSpec:
``spec = FIGURES["averages-split-mnist"]()``. Notebooks and ``python -m clkit figures`` call the same
function, so they cannot disagree. Each figure becomes NAME.json (its contents and records) and one image per
requested format: PNG, SVG, or PDF with real text. The same records give the same files, byte for byte.
"""

import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from clkit.errors import did_you_mean
from clkit.experiments import REPO_ROOT, PresetError
from clkit.figures import arm, baselines, dgm, gfr, growth, mfgr, spacenet
from clkit.figures.of_records import figures_of
from clkit.figures.picture import FigureSpec, few_colours
from clkit.result import write_atomically

__all__ = ["FIGURES", "FORMATS", "OUT", "FigureSpec", "build", "build_from", "write"]

OUT = REPO_ROOT / "figures"
DPI = 150
FORMATS = ("pdf", "svg", "png")
PAPERS = spacenet, arm, gfr, mfgr, dgm
FIGURES = baselines.FIGURES | {k: v for paper in PAPERS for k, v in paper.FIGURES.items()} | growth.FIGURES


def build(names=None, out=OUT, formats=("png",)):
    """Write figures to the folder `out`; names: some of FIGURES, by default all. Returns the paths written.

    formats: some of FORMATS. An unknown name or format raises PresetError, which suggests the nearest, before
    anything is written. So does a missing or stale record, but earlier figures have been written by then.
    """
    return _build(FIGURES, names, Path(out), formats)


def build_from(folder, names=None, out=None, formats=("png",)):
    """Write figures of all records in a folder (see of_records), by default to its subfolder "figures"."""
    out = Path(folder).expanduser() / "figures" if out is None else Path(out)
    return _build(figures_of(folder), names, out, formats)


def _build(figures, names, out, formats):
    for name in names or ():
        if name not in figures:
            near = did_you_mean(name, figures, n=3, cutoff=0.4) or f", such as {', '.join(list(figures)[:3])}"
            raise PresetError(f"there is no figure '{name}' among the {len(figures)} figures{near}")
    for kind in formats:
        if kind not in FORMATS:
            raise PresetError(f"unknown format '{kind}': use {', '.join(FORMATS)}")
    paths = []
    with matplotlib.style.context(
        "default"
    ):  # ignore the user's style: the bytes depend on the records alone
        for name in names or figures:
            paths += write(name, figures[name](), out, formats)
    return paths


def write(name, spec, out, formats=("png",)):
    """Write one FigureSpec as out/NAME.json and an image of each format, and close it; returns the paths."""
    stamps = [t.get_text() for t in spec.figure.findobj(matplotlib.text.Text) if t.get_gid() == "stamp"]
    provenance = " ".join(stamps)
    layout = spec.figure.get_layout_engine()
    if formats and layout:  # once only: each further layout would shift things a little
        layout.execute(spec.figure)
        spec.figure.set_layout_engine("none")
    files = {kind: _image(spec.figure, kind, name, spec.alt, provenance) for kind in formats}
    plt.close(spec.figure)
    facts = {
        "figure": name,
        "title": spec.title,
        "caption": spec.caption,
        "alt": spec.alt,
        "stamp": provenance,
        "command": f"python -m clkit figures {name}",
        "matplotlib": matplotlib.__version__,
        **spec.about,
        "records": {stem: _facts(results) for stem, results in spec.records.items()},
    }
    files["json"] = (json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    for kind, content in files.items():
        write_atomically(out / f"{name}.{kind}", lambda file, content=content: file.write(content))
    return [out / f"{name}.{kind}" for kind in files]


def _image(figure, kind, title, alt, provenance):
    """The bytes of a figure, without dates; a fixed salt replaces the random one for the ids of an SVG."""
    about = {
        "png": {"Title": title, "Description": alt, "Comment": provenance, "Software": None},
        "svg": {"Title": title, "Description": alt, "Source": provenance, "Date": None, "Creator": None},
        "pdf": {"Title": title, "Subject": alt, "Keywords": provenance, "CreationDate": None},
    }[kind]
    file, look = io.BytesIO(), {"svg.hashsalt": "clkit", "svg.fonttype": "path", "pdf.fonttype": 42}
    with matplotlib.rc_context(look):
        fast = {"pil_kwargs": {"compress_level": 1}} if kind == "png" else {}  # few_colours compresses it
        save = {"format": kind, "dpi": DPI, "bbox_inches": "tight", "facecolor": "white", "metadata": about}
        figure.savefig(file, **save, **fast)
    return few_colours(file.getvalue()) if kind == "png" else file.getvalue()


def _facts(results):
    """The facts stored in a record, without paths and machine names."""
    about = [r.about for r in results]
    kept = ("experiment", "preset", "key", "config", "commit", "date", "device", "threads", "versions")
    stream = about[0].get("stream") or {}
    return {
        **{k: about[0].get(k) for k in kept},
        "seeds": [a.get("seed") for a in about],
        "data": stream.get("data"),
        "checksum": stream.get("checksum"),
    }
