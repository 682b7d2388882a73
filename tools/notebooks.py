"""Execute the notebooks into another folder, and bring executed ones into the form that is committed.

    python tools/notebooks.py execute --out DIR [NOTEBOOK ...]     # default: everything in notebooks/
    python tools/notebooks.py normalise NOTEBOOK ...               # in place; doing it twice changes nothing

Cells run with the notebook's own folder as working directory, at CLKIT_PRESET=teach unless the
environment says otherwise.
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

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
HINT = "An interactive view: run this cell in JupyterLab to use it."
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"[^\r\n]*?(\d+%\|[^\r\n]*?|\d+it )\[[^\]\r\n]*\]")  # tqdm's, in text
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


def execute(path, out, timeout=600):
    """Run every cell of `path`, write the executed copy into `out`; None, or an account of what failed."""
    notebook = nbformat.read(path, as_version=4)
    # The interpreter that runs this script runs the cells, whatever kernel the notebook names.
    # Its own messages (about its sockets, for one) would stand in the middle of the progress lines.
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
        problem = _explain(notebook, "the kernel died (often: out of memory)")
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / path.name)
    return problem


def _explain(notebook, what):
    """Which cell failed, what it says and why, in a few lines without terminal colours."""
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
    """The notebook (nbformat 4) as it is committed: nothing depends on when, where or by whom it was run.

    Works in place and returns its argument. Output that says something went wrong (errors, warnings) stays,
    because hiding it is not this function's business: the notebook tests refuse it.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(KERNEL)
    ids = set()
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = _identifier(cell.get("id"), number, ids)
        tags = sorted(set(cell.metadata.get("tags", [])))
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = _outputs(cell.outputs)
            if not cell.source.strip():
                cell.outputs, cell.execution_count = [], None
    return notebook


def _identifier(given, number, taken):
    """A cell id that is valid and unique: the given one where it is, else one made of the cell's place."""
    usable = given and re.fullmatch(r"[\w-]{1,64}", given) and given not in taken
    name = given if usable else f"cell-{number:03d}"
    while name in taken:
        name += "-"
    taken.add(name)
    return name


def _outputs(outputs):
    """Outputs without progress bars, widget references and memory addresses; pieces of one stream joined."""
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
            else:
                kept.append(output)
        elif WIDGET in output.get("data", {}):
            kept += _widget(output)
        else:
            kept.append(output)
    for output in kept:
        _clean(output)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def _widget(output):
    """What stands for a widget without a front end: nothing for a progress bar, a hint for an explorer."""
    if _BAR.search(output.data.get("text/plain", "")):
        return []
    return [nbformat.v4.new_output("display_data", data={"text/plain": HINT})]


def _clean(output):
    """Remove from one output what changes from run to run."""
    if output.output_type == "stream":
        lines = []
        for line in _ANSI.sub("", output.text).split("\n"):
            # A terminal shows only what follows the last carriage return; a bar may stand before other words.
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
            f"what they had shown by then is in {options.out}"
        )


def _command_normalise(options):
    """Normalise the given notebooks in place, touching only files that change."""
    for name in options.notebooks:
        before = Path(name).read_text(encoding="utf-8")
        # The v4 reader and writer, because nbformat.reads repairs repeated cell ids with random ones.
        after = nbformat.v4.writes(normalise(nbformat.v4.reads(before))) + "\n"
        if after != before:
            Path(name).write_text(after, encoding="utf-8", newline="\n")


def main(arguments=None):
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("execute", help="run notebooks, writing executed copies into another folder")
    one.add_argument("--out", required=True, help="folder for the executed copies")
    one.add_argument("--timeout", type=int, default=600, help="seconds that one cell may take")
    one.add_argument("notebooks", nargs="*", help="notebook files; default: all of notebooks/")
    one.set_defaults(command=_command_execute)
    two = commands.add_parser("normalise", help="bring executed notebooks into committed form, in place")
    two.add_argument("notebooks", nargs="+", help="notebook files")
    two.set_defaults(command=_command_normalise)
    options = parser.parse_args(arguments)
    options.command(options)


if __name__ == "__main__":
    main()
