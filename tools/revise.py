"""Find out whether a change to a method's source changes its results, and update revisions.json.

    python -m tools.revise [METHOD ...]         # all methods by default

For each Learner class, clkit/methods/revisions.json holds the REVISION of its file and a fingerprint of the
corresponding source: the method's modules, the run loop, the stream, and what these import from blocks,
engine and data. If the fingerprint of a class has changed, the tool runs its smoke experiments on the commit
of the stored fingerprint (in a temporary git worktree) and on the present files, and compares every array bit
for bit. If all are equal, it stores the new fingerprint; if not, it names the arrays that differ and asks for
a new REVISION in the method's file, which makes its records stale. A raised REVISION and a new class are
stored without a comparison.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REVISIONS = Path("clkit/methods/revisions.json")
BASE = ("clkit.engine.run", "clkit.data.stream")  # every result depends on these besides its method
FLOORS = ("clkit.blocks", "clkit.engine", "clkit.data")
# Those of these modules that only store, name or refuse: they cannot change an array of an undisturbed run.
NEUTRAL = tuple(f"clkit.engine{part}" for part in ("", ".checkpoint", ".provenance", ".own_code", ".device"))


# ---- the fingerprint


def fingerprint(method: str, root: Path = ROOT) -> str:
    """sha256 of the meaning of a method's source, without layout, comments, docstrings, annotations, names of
    modules and the order of imports.

    method: name of the module of its Learner, such as clkit.methods.arm.arm.   root: of the source tree.
    """
    wanted, seen = [method, *BASE], {}
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen[name], imported = _source(name, root)
        family = method.rpartition(".")[0]
        wanted += [m for m in imported if m.startswith((*FLOORS, f"{family}.")) and m not in NEUTRAL]
    return hashlib.sha256("\n".join(sorted(seen.values())).encode()).hexdigest()


@cache
def _source(module: str, root: Path) -> tuple[str, tuple[str, ...]]:
    """(sha256 of the meaning of its source, modules that it imports) of a module."""
    tree = ast.parse(_file(module, root).read_text(encoding="utf-8"))
    return hashlib.sha256(repr(_meaning(tree)).encode()).hexdigest(), tuple(_imports(tree, module, root))


def _file(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str, root: Path) -> bool:
    return _file(name, root).is_file()


def _imports(tree: ast.AST, module: str, root: Path) -> Iterator[str]:
    """Modules of clkit that a tree imports; a name re-exported by a package counts as its original module."""
    package = module if _file(module, root).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("clkit."))
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = package.split(".")
                source = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            if source.partition(".")[0] == "clkit":
                yield from (_home(source, a.name, root) for a in node.names)


def _home(source: str, name: str, root: Path) -> str:
    """The module that ``from source import name`` leads to."""
    if _is_module(f"{source}.{name}", root):
        return f"{source}.{name}"
    file = _file(source, root)
    if file.name == "__init__.py":
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _home(node.module, alias.name, root)
    return source


def _meaning(node: object) -> object:
    """A syntax tree as nested tuples that are the same in every Python from 3.10.

    ast.dump and ast.unparse differ between versions: new fields (type_params), empty fields shown or hidden,
    other quotes. So empty fields and empty pieces of f-strings are left out here.
    """
    if isinstance(node, list):
        kept = [n for n in node if not isinstance(n, ast.Import | ast.ImportFrom) and not _is_text(n)]
        return tuple(_meaning(n) for n in kept)
    if isinstance(node, ast.Constant):
        return "Constant", type(node.value).__name__, repr(node.value)
    if isinstance(node, ast.JoinedStr):
        return "JoinedStr", _pieces(node)
    if not isinstance(node, ast.AST):
        return repr(node)
    skipped = {"returns", "annotation", "type_comment", "type_params", "ctx", "kind", "type_ignores"}
    if isinstance(node, ast.AnnAssign):
        skipped -= {"annotation"}  # it defines a field of a dataclass
    fields = ((name, getattr(node, name, None)) for name in node._fields if name not in skipped)
    return type(node).__name__, tuple((name, _meaning(v)) for name, v in fields if v is not None and v != [])


def _is_text(node: object) -> bool:
    """Whether a statement is a docstring or another string by itself."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _pieces(node: ast.JoinedStr) -> tuple:
    """The parts of an f-string, with neighbouring constants joined."""
    pieces: list = []
    for part in node.values:
        if not isinstance(part, ast.Constant):
            pieces.append(_meaning(part))
        elif pieces and isinstance(pieces[-1], str):
            pieces[-1] += part.value
        else:
            pieces.append(part.value)
    return tuple(p for p in pieces if p != "")


# ---- stored and current revisions


def stored(root: Path = ROOT) -> dict[str, dict]:
    """Learner class -> {"revision": n, "fingerprint": hex}, as committed in a tree."""
    path = root / REVISIONS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@lru_cache
def current() -> dict[str, dict]:
    """The same for the present files, with the class's module and its methods."""
    from clkit.engine.provenance import revision_of
    from clkit.methods import LEARNERS

    found: dict[str, dict] = {}
    for name, learner in LEARNERS.items():
        module = learner.__module__
        entry = found.setdefault(
            learner.__name__,
            {
                "revision": revision_of(learner),
                "module": module,
                "fingerprint": fingerprint(module),
                "methods": [],
            },
        )
        entry["methods"].append(name)
    return found


def changed() -> dict[str, str]:
    """Learner class -> one sentence, for each class whose source differs from that of its stored revision."""
    before, said = stored(), {}
    for name, now in current().items():
        then, command = before.get(name), f"run `python -m tools.revise {now['methods'][0]}`"
        if then is None:
            said[name] = f"{now['methods'][0]} has no revision yet: {command}"
        elif {k: now[k] for k in then} != then:
            said[name] = f"{now['methods'][0]} changed since revision {then['revision']}: {command}"
    for name in before.keys() - current().keys():
        said[name] = f"{name} is no longer a method: remove it from {REVISIONS}"
    return said


# ---- the two runs


def write_arrays(out: Path, methods: list[str]) -> None:
    """Run the smoke experiments of methods, seed 0 with all tables, with the clkit that is imported."""
    import numpy as np

    from clkit import experiments
    from clkit.errors import ClkitError
    from clkit.result import pack_trace

    os.environ["CLKIT_RUNS"] = str(out / "runs")
    out.mkdir(parents=True, exist_ok=True)
    for name in experiments.names():
        if name.partition("/")[0] in methods:
            record = ("*", *experiments.experiment(name, "smoke").tables)
            try:
                _, r = experiments.run_seed(name, "smoke", 0, "cpu", record=record, progress=False)
            except ClkitError as error:  # it diverges on so few images: then it must on both
                np.savez(out / f"{name.replace('/', '_')}.npz", error=np.array(type(error).__name__))
                continue
            arrays = {
                k: v for k, v in vars(r).items() if isinstance(v, np.ndarray) and not k.endswith("_seconds")
            }
            arrays |= {f"trace/{k}": v for k, v in pack_trace(r.trace).items()}
            np.savez(out / f"{name.replace('/', '_')}.npz", **arrays)


def _arrays_of(tree: Path, out: Path, methods: list[str]) -> None:
    """`write_arrays` on a source tree, in a separate process."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--arrays", str(out), *methods]
    subprocess.run(command, cwd=tree, env=environment, check=True)


def differences(one: Path, other: Path) -> list[str]:
    """The arrays of two folders that are not equal bit for bit: "experiment: array, array"."""
    import numpy as np

    said = []
    names = sorted({p.name for p in (*one.glob("*.npz"), *other.glob("*.npz"))})
    for name in names:
        if not (one / name).is_file() or not (other / name).is_file():
            said.append(f"{Path(name).stem}: runs on only one of the two")
            continue
        with np.load(one / name, allow_pickle=False) as a, np.load(other / name, allow_pickle=False) as b:
            bad = [
                k
                for k in sorted({*a.files, *b.files})
                if k not in a.files
                or k not in b.files
                or a[k].dtype != b[k].dtype
                or a[k].shape != b[k].shape
                or a[k].tobytes() != b[k].tobytes()
            ]
        if bad:
            said.append(f"{Path(name).stem}: {', '.join(bad)}")
    return said


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def _base(entry: dict, then: dict, tree: Path) -> str | None:
    """The commit whose source has the stored fingerprint, checked out in the worktree `tree`; else None."""
    for commit in dict.fromkeys(("HEAD", _git("log", "-1", "--format=%H", "--", str(REVISIONS)))):
        if commit:
            _git("-C", str(tree), "checkout", "--quiet", "--detach", _git("rev-parse", commit))
            _source.cache_clear()
            if (
                _file(entry["module"], tree).is_file()
                and fingerprint(entry["module"], tree) == then["fingerprint"]
            ):
                return commit
    return None


def revise(name: str) -> tuple[bool, str]:
    """(whether the new fingerprint of a Learner class may be stored, the reason in one sentence)."""
    then, now = stored().get(name), current()[name]
    if then is None or now["revision"] > then["revision"]:
        return True, f"{name}: revision {now['revision']} is new"
    if now["revision"] < then["revision"]:
        below = f"its REVISION {now['revision']} is below {then['revision']}, which results already have"
        return False, f"{name}: {below}"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(tree), "HEAD")
        try:
            if _base(now, then, tree) is None:
                return False, (
                    f"{name}: neither the last commit nor the one that stored revision {then['revision']} "
                    f"has the corresponding source: compare by hand, or raise REVISION in {now['module']}"
                )
            _arrays_of(tree, Path(folder) / "before", now["methods"])
            _arrays_of(ROOT, Path(folder) / "now", now["methods"])
            found = differences(Path(folder) / "before", Path(folder) / "now")
        finally:
            _git("worktree", "remove", "--force", str(tree))
    if not found:
        return (
            True,
            f"{name}: every array of its smoke experiments is equal, revision {now['revision']} stays",
        )
    return False, (
        f"{name}: its results changed; raise REVISION in {now['module']} and renew its records, or undo the "
        "change\n  " + "\n  ".join(found)
    )


def main() -> int:
    """Check the given methods; exit status 1 if one of them needs a new REVISION."""
    parser = argparse.ArgumentParser(prog="python -m tools.revise", description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="such as arm (default: all)")
    parser.add_argument("--arrays", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arrays:
        write_arrays(options.arrays, options.methods)
        return 0
    unknown = set(options.methods) - {m for entry in current().values() for m in entry["methods"]}
    if unknown:
        parser.error(f"there is no method {', '.join(sorted(unknown))}; see `python -m clkit list`")
    entries, failed = stored(), False
    for name in changed():
        if name not in current():
            del entries[name]
        elif not options.methods or set(options.methods) & set(current()[name]["methods"]):
            fine, sentence = revise(name)
            print(sentence, flush=True)
            failed |= not fine
            if fine:
                entries[name] = {k: current()[name][k] for k in ("revision", "fingerprint")}
    text = json.dumps(dict(sorted(entries.items())), indent=1) + "\n"
    (ROOT / REVISIONS).write_text(text, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
