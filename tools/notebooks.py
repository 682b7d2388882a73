"""Execute the notebooks into another folder, and bring executed notebooks into the committed form.

    python tools/notebooks.py execute --out DIR [NOTEBOOK ...]     # default: everything in notebooks/
    python tools/notebooks.py normalise NOTEBOOK ...               # in place; a second time changes nothing
    python tools/notebooks.py number NOTEBOOK ...                  # renumber the figures, in place

Cells run in the notebook's own folder, at CLKIT_PRESET=teach unless the environment sets another preset.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from clkit.book.explore.common import HINT

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
HIDDEN = "hide-input"  # a tag: JupyterLab folds the source of the cell, the exported book leaves it out
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FIGURE = re.compile(r'number="(\d+\.\d+)"')  # in a call that shows a figure
CITED = re.compile(r"\b(Figures?|and)[ \n](\d+\.\d+)\b")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"[^\r\n]*?(\d+%\|[^\r\n]*?|\d+it )\[[^\]\r\n]*\]")  # a progress bar of tqdm, as text
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


def execute(path, out, timeout=600):
    """Run every cell of `path` and write the executed copy into `out`; returns None, or what failed."""
    notebook = nbformat.read(path, as_version=4)
    # This interpreter runs the cells, whatever kernel the notebook names. The kernel's own messages (about
    # sockets, for example) would interrupt the progress lines.
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    problem = None
    try:
        client.execute()
    except CellExecutionError as error:
        problem = _explain(notebook, f"{error.ename}: {error.evalue}")
    except CellTimeoutError:
        problem = _explain(notebook, f"it was still running after {timeout} seconds")
    except DeadKernelError:
        problem = _explain(notebook, "the kernel died (often because memory ran out)")
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / path.name)
    return problem


def _explain(notebook, what):
    """The failed cell, its source and the error, in a few lines without terminal colours."""
    code = [(n, cell) for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    failed = [(n, cell) for n, cell in code if any(o.output_type == "error" for o in cell.outputs)]
    begun = [(n, cell) for n, cell in code if cell.execution_count is None and cell.source.strip()]
    number, cell = (failed or begun or code)[0]
    source = "\n".join("        " + line for line in cell.source.splitlines())
    errors = [o for o in cell.outputs if o.output_type == "error"]
    trace = [line for o in errors for line in "\n".join(o.traceback).splitlines()]
    tail = "\n".join("        " + _ANSI.sub("", line) for line in trace[-12:])
    return f"cell {number} failed: {_ANSI.sub('', what)}\n    the cell:\n{source}" + (
        f"\n    the end of the traceback:\n{tail}" if tail else ""
    )


def normalise(notebook):
    """The notebook (nbformat 4) in its committed form, independent of when, where and by whom it was run.

    Works in place and returns its argument. Errors and warnings in outputs stay, so that the notebook tests
    can refuse them.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(KERNEL)
    ids = set()
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = _identifier(cell.get("id"), number, ids)
        tags = sorted(set(cell.metadata.get("tags", [])))
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if HIDDEN in tags:
            cell.metadata.jupyter = nbformat.from_dict({"source_hidden": True})
        if cell.cell_type == "code":
            cell.outputs = _outputs(cell.outputs)
            if not cell.source.strip():
                cell.outputs, cell.execution_count = [], None
    return notebook


def number(notebook, chapter):
    """Renumber the figures of notebook number `chapter`, in its calls and where its text cites them."""
    old = list(
        dict.fromkeys(FIGURE.findall("\n".join(c.source for c in notebook.cells if c.cell_type == "code")))
    )
    new = {before: f"{chapter}.{n}" for n, before in enumerate(old, 1)}
    for cell in notebook.cells:
        cell.source = FIGURE.sub(lambda m: f'number="{new[m[1]]}"', cell.source)
        cell.source = CITED.sub(lambda m: f"{m[1]} {new.get(m[2], m[2])}", cell.source)
    return notebook


def _identifier(given, number, taken):
    """A valid and unique cell id: the given one if it is both, else one made from the cell's position."""
    usable = given and re.fullmatch(r"[\w-]{1,64}", given) and given not in taken
    name = given if usable else f"cell-{number:03d}"
    while name in taken:
        name += "-"
    taken.add(name)
    return name


def _outputs(outputs):
    """Outputs without progress bars, widget references and memory addresses; parts of one stream joined."""
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
            else:
                kept.append(output)
        elif WIDGET in output.get("data", {}):
            kept += _widget(output)
        elif output.get("data") and not any(output.data.values()):
            continue  # the empty line of a finished progress bar
        else:
            kept.append(output)
    for output in kept:
        _clean(output)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def _widget(output):
    """The replacement of a widget: an explorer's picture and description, or a hint."""
    rest = {kind: value for kind, value in output.data.items() if kind != WIDGET}
    if "image/png" in rest:
        return [nbformat.v4.new_output("display_data", data=rest, metadata=output.metadata)]
    if _BAR.search(rest.get("text/plain", "")):
        return []
    return [nbformat.v4.new_output("display_data", data={"text/plain": HINT})]


def _clean(output):
    """Remove what changes from run to run from one output."""
    if output.output_type == "stream":
        lines = []
        for line in _ANSI.sub("", output.text).split("\n"):
            # A terminal shows only what follows the last carriage return; a bar may precede other words.
            rest = _BAR.sub("", line).rstrip("\r").rsplit("\r", 1)[-1]
            if rest.strip() or rest == line:
                lines.append(rest)
        output.text = _ADDRESS.sub("0x...", "\n".join(lines))
    for kind, text in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(text, str):
            output.data[kind] = _ADDRESS.sub("0x...", text)
        elif kind.startswith("image/") and isinstance(text, str):
            output.data[kind] = text.rstrip("\n") + "\n"
    output.pop("transient", None)


def _command_execute(options):
    """Execute the given notebooks one after the other; exit status 1 if any failed."""
    paths = [Path(name) for name in options.notebooks] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not paths:
        sys.exit("notebooks: none found in notebooks/")
    os.environ.setdefault("CLKIT_PRESET", "teach")
    os.environ["CLKIT_PROGRESS"] = "0"
    os.environ.setdefault("CLKIT_RUNS", str(ROOT / "build" / "runs"))
    failed = []
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.name} ...", end=" ", flush=True)
        start = time.monotonic()
        problem = execute(path.resolve(), Path(options.out), options.timeout)
        print(f"{'FAILED' if problem else 'done'} after {time.monotonic() - start:.0f} s", flush=True)
        if problem:
            failed.append(path.name)
            print(f"{path.name}: {problem}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(
            f"notebooks: {len(failed)} of {len(paths)} failed ({', '.join(failed)}); "
            f"see their outputs up to the failure in {options.out}"
        )


def _command_normalise(options):
    """Normalise the given notebooks in place, touching only files that change."""
    for name in options.notebooks:
        before = Path(name).read_text(encoding="utf-8")
        # The v4 reader and writer, because nbformat.reads replaces repeated cell ids by random ones.
        after = nbformat.v4.writes(normalise(nbformat.v4.reads(before))) + "\n"
        if after != before:
            Path(name).write_text(after, encoding="utf-8", newline="\n")


def _command_number(options):
    """Renumber the figures of the given notebooks."""
    for name in options.notebooks:
        notebook = number(nbformat.v4.reads(Path(name).read_text(encoding="utf-8")), int(Path(name).name[:2]))
        Path(name).write_text(nbformat.v4.writes(notebook) + "\n", encoding="utf-8", newline="\n")


def main(arguments=None):
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("execute", help="run notebooks and write executed copies into another folder")
    one.add_argument("--out", required=True, help="folder for the executed copies")
    one.add_argument("--timeout", type=int, default=600, help="time limit for each cell in seconds (600)")
    one.add_argument("notebooks", nargs="*", help="notebook files (default: all in notebooks/)")
    one.set_defaults(command=_command_execute)
    two = commands.add_parser("normalise", help="bring executed notebooks into the committed form, in place")
    two.add_argument("notebooks", nargs="+", help="notebook files")
    two.set_defaults(command=_command_normalise)
    three = commands.add_parser("number", help="renumber the figures of notebooks, in place")
    three.add_argument("notebooks", nargs="+", help="notebook files")
    three.set_defaults(command=_command_number)
    options = parser.parse_args(arguments)
    options.command(options)


if __name__ == "__main__":
    main()
