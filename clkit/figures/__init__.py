"""The figures of the book: FIGURES = {name: recipe}, and ``build``, which writes them to figures/.

A recipe stands in the file of its paper, reads committed records only and returns a Picture. A notebook cell
and ``python -m clkit figures`` use the same one, so they cannot disagree:
``picture = FIGURES["averages-split-mnist"]()``. Each figure becomes NAME.svg, NAME.png and NAME.json (what it
shows, and from which records). The files are the same, byte for byte, when the records are.
"""

import difflib
import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from clkit.figures import arm, baselines, spacenet
from clkit.picture import Picture
from clkit.presets import HOUSE, PresetError
from clkit.result import write_atomically

__all__ = ["FIGURES", "OUT", "Picture", "build", "write"]
OUT = HOUSE / "figures"
DPI = 150
FIGURES = baselines.FIGURES | spacenet.FIGURES | arm.FIGURES


# ---- writing

def build(names=None, out=OUT):
    """Write figures to the folder `out`; names: some of FIGURES, all by default. Returns the paths written.

    PresetError for an unknown name (the nearest are offered) and where a record is missing or stale; the
    figures before it are then there already.
    """
    for name in names or ():
        if name not in FIGURES:
            close = difflib.get_close_matches(name, FIGURES, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(FIGURES)}"
            raise PresetError(f"there is no figure '{name}'; {hint}")
    paths = []
    with matplotlib.style.context("default"):  # not the user's: the bytes depend on the records alone
        for name in names or FIGURES:
            paths += write(name, FIGURES[name](), Path(out))
    return paths


def write(name, picture, out):
    """Write one Picture as out/NAME.svg, .png and .json, and close it; returns the three paths."""
    stamps = [t.get_text() for t in picture.figure.findobj(matplotlib.text.Text) if t.get_gid() == "stamp"]
    about = {"Title": name, "Description": picture.alt}
    provenance = " ".join(stamps)
    files = {
        "svg": _image(picture.figure, "svg", {**about, "Date": None, "Creator": None, "Source": provenance}),
        "png": _image(picture.figure, "png", {**about, "Software": None, "Comment": provenance}),
    }
    plt.close(picture.figure)
    facts = {"figure": name, "caption": picture.caption, "alt": picture.alt, "stamp": provenance,
             "command": f"python -m clkit figures {name}", "matplotlib": matplotlib.__version__,
             **picture.about, "records": {stem: _facts(results) for stem, results in picture.records.items()}}
    files["json"] = (json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    for end, content in files.items():
        write_atomically(out / f"{name}.{end}", lambda file: file.write(content))
    return [out / f"{name}.{end}" for end in files]


def _image(figure, kind, metadata):
    """The bytes of a figure; ids in an SVG come from a fixed salt instead of a random one."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "clkit", "svg.fonttype": "path"}):
        figure.savefig(
            file,
            format=kind,
            dpi=DPI if kind == "png" else 96,
            bbox_inches="tight",
            facecolor="white",
            metadata=metadata,
        )
    return file.getvalue()


def _facts(results):
    """What a record says about itself, without the paths and names of any machine."""
    about = [r.about for r in results]
    first = {
        k: about[0].get(k)
        for k in ("experiment", "preset", "key", "config", "commit", "date", "device", "threads", "versions")
    }
    return {
        **first,
        "seeds": [a.get("seed") for a in about],
        "data": (about[0].get("stream") or {}).get("data"),
        "checksum": (about[0].get("stream") or {}).get("checksum"),
    }
