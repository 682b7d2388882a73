"""The command line: ``python -m clkit  list | run | report | figures | book | data | doctor``."""

import os
import signal
import sys


def _leave(*_):
    """Ctrl-C before a run has begun, even in the middle of an import, or after it: no file is lost."""
    os.write(2, b"\nclkit: stopped; run the same command again\n")
    os._exit(130)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

import argparse  # noqa: E402
import contextlib  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402

from clkit import __version__  # noqa: E402
from clkit.engine.torchrun import one_voice  # noqa: E402
from clkit.errors import ClkitError, did_you_mean, file_error  # noqa: E402

JSON = "one JSON object on standard output"


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when stopped by Ctrl-C."""
    _open_streams()
    options = _parser().parse_args(arguments)
    try:
        status = options.command(options) or 0
        sys.stdout.flush()
        return status
    except ClkitError as error:
        print(f"clkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        resumable = options.command is _run
        how = "run the same command again to resume" if resumable else "no file was left half-written"
        print(f"\nclkit: {str(stop) or 'stopped'}; {how}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough
        _close_output()
        return 0
    except OSError as error:  # a folder that cannot be made, a full disk
        print(f"clkit: {file_error(error.filename or 'the output', 'used', error)}", file=sys.stderr)
        _close_output()
        return 2


def _open_streams():
    """Let output be printed wherever it goes: with substitutes for letters that it lacks, or nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _close_output():
    """Drop what could not be written, so that the end of the process does not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_json(value):
    """Print a value as JSON, in ASCII where the output knows no other letters."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, indent=1, ensure_ascii=plain, default=str))


# ---- the options


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m clkit",
        description="Class-incremental learning: experiments, records and figures.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="first steps:\n  python -m clkit run finetune/split-digits\n"
        "  python -m clkit list\n  python -m clkit doctor",
    )
    parser.add_argument("--version", action="version", version=f"clkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_add_list, _add_run, _add_report, _add_figures, _add_book, _add_data):
        add(commands)
    _add(commands, "doctor", _doctor, "versions, device, data, free disk space, problems and how to fix them")
    return parser


def _add(commands, name, command, words):
    """The parser of one command."""
    one = commands.add_parser(name, help=words)
    one.set_defaults(command=command)
    return one


def _add_list(commands):
    one = _add(commands, "list", _list, "list experiments, presets, the data they need, measured minutes")
    one.add_argument("words", nargs="*", metavar="METHOD | BENCHMARK | METHOD/BENCHMARK", help="only these")
    one.add_argument("--preset", help="only this preset: smoke, teach, laptop or paper")
    one.add_argument("--present", action="store_true", help="only those whose data are on this machine")
    one.add_argument("--json", action="store_true", help=JSON)


def _add_run(commands):
    one = _add(commands, "run", _run, "run an experiment, or resume it")
    own = "for your own images er/folder:PATH, or er/NAME for a data set in the data root"
    words = f"such as er/split-mnist; several run one after another, or at once with --scheduler; {own}"
    one.add_argument("experiments", nargs="+", metavar="METHOD/BENCHMARK", help=words)
    one.add_argument("--preset", help="smoke, teach (default), laptop or paper")
    one.add_argument("--seeds", type=_seeds, help="such as 0,1,2 or 0-9 (default: those of the preset)")
    one.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    words = "processes to spread the seeds over (1; with --scheduler dask one for each core)"
    one.add_argument("--jobs", type=int, metavar="N", help=words)
    words = "spread all runs over a Dask cluster: of processes here (dask), or that of an address"
    one.add_argument("--scheduler", metavar="dask | ADDRESS", help=words)
    words = "change a setting of the method; may be repeated, also to run each of several values of it "
    words += "(own data: also side, test_share, split_seed)"
    several = {"dest": "settings", "action": "append", "default": [], "metavar": "KEY=VALUE"}
    one.add_argument("--set", type=_setting, help=words, **several)
    words = "end after the first N tasks; the same command without it goes on from there"
    one.add_argument("--first-tasks", type=int, metavar="N", help=words)
    one.add_argument("--tasks", type=_tasks, help="own data: number of classes in each task, such as 6,6,6,6")
    words = "own data: order of classes: random from a seed, by name, or from a file with one name per line"
    one.add_argument("--order", metavar="SEED | natural | FILE", help=words)
    words = "trace tables to record, such as loss,masks; '*' records all but similarity"
    one.add_argument("--keep", metavar="TABLES", help=words)
    every = {"type": _seconds, "default": 60.0, "metavar": "SECONDS"}
    one.add_argument("--every", help="seconds between checkpoints (60)", **every)
    one.add_argument("--out", type=_folder, metavar="DIR", help="write a record of all seeds to this folder")
    one.add_argument("--replace", action="store_true", help="let --out overwrite a record with other seeds")
    one.add_argument("--add", action="store_true", help="let --out add the seeds to those of a record")
    one.add_argument("--json", action="store_true", help=JSON)


def _add_report(commands):
    words = "compare methods in a table made from records: n, interval, forgetting, memory"
    one = _add(commands, "report", _report, words)
    one.add_argument("benchmark", nargs="?", help="only this benchmark (default: all that have records)")
    words = "folder of the records (figures/results)"
    one.add_argument("--records", type=_folder, metavar="DIR", help=words)
    one.add_argument("--preset", help="only this preset, such as laptop or paper")
    one.add_argument("--format", default="text", choices=("text", "markdown", "latex"))


def _add_figures(commands):
    one = _add(commands, "figures", _figures, "draw the figures from the records")
    one.add_argument("names", nargs="*", metavar="NAME", help="only these figures (default: all)")
    words = "draw general figures from the records in this folder, whatever their experiments"
    one.add_argument("--records", type=_folder, metavar="DIR", help=words)
    one.add_argument("--out", type=_folder, metavar="DIR", help="folder to write to (figures/)")
    one.add_argument("--format", default="png", metavar="pdf,svg,png", help="file formats (png)")


def _add_book(commands):
    book = commands.add_parser("book", help="export the notebooks as HTML pages that need no network")
    actions = book.add_subparsers(required=True, metavar="build")
    one = _add(actions, "build", _book_build, "write the pages, without executing the notebooks")
    words = "only these: files, names, or numbers such as 05 (default: all in notebooks/)"
    one.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help=words)
    words = "folder to write to (build/book)"
    one.add_argument("--out", default="build/book", type=_folder, metavar="DIR", help=words)
    words = "full (default); student: no solutions, plus notebooks to hand out; instructor: with solutions"
    one.add_argument("--edition", default="full", choices=("full", "student", "instructor"), help=words)
    one.add_argument("--slides", action="store_true", help="also write one slide deck per notebook")


def _add_data(commands):
    one = commands.add_parser("data", help="list the data sets, or download one")
    actions = one.add_subparsers(required=True, metavar="list | get")
    words = "each data set: whether it is present, where, its number of images, how to get it"
    action = _add(actions, "list", _data_list, words)
    action.add_argument("--json", action="store_true", help=JSON)
    _add(actions, "get", _data_get, "download a data set through torchvision").add_argument("name")


# ---- values


def _seeds(text):
    """0,1,2 or 0-9 or 0-4,7 as a tuple of whole numbers."""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of seeds: write 0,1,2 or 0-9")
        if int(last or first) - int(first) > 9999:
            raise argparse.ArgumentTypeError(f"'{text}' asks for over 10,000 seeds: ask for fewer")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"'{text}' names a seed twice: name each seed once")
    return tuple(seeds)


def _tasks(text):
    """6,6,6 as a tuple of whole numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of classes per task: write 6,6,6,6")
    return tuple(map(int, parts))


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number of seconds: write 60, or 0 for a checkpoint after every epoch"
        )
    return seconds


def _folder(text):
    from clkit.experiments.places import folder

    try:
        return folder(text)
    except ClkitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _setting(text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}' is not a setting: write KEY=VALUE, such as epochs=5")
    return key.strip().replace("-", "_"), value.strip()


def _order(text):
    """The order of the classes in the form that own_benchmark takes."""
    if text is None or text == "natural":
        return None
    if text.isdecimal() and len(text) < 19:
        return int(text)
    from clkit.data import read_order

    return read_order(text)


# ---- the commands


def _list(options):
    from clkit import data, experiments
    from clkit.experiments.benchmark import checked_preset

    names = _wanted(options.words)
    rows = [experiments.exact_experiment(name, preset) for name in names for preset in experiments.PRESETS]
    rows = list({(row.name, row.preset): row for row in rows}.values())  # one preset may stand for another
    if options.preset:
        rows = [row for row in rows if row.preset == checked_preset(options.preset)]
    here = {name: data.present(name) for name in {row.data for row in rows}}
    rows = [row for row in rows if here[row.data] or not options.present]
    if options.json:
        keys = "experiment preset data present minutes_per_seed seeds".split()
        values = ((r.name, r.preset, r.data, here[r.data], r.minutes, r.seeds) for r in rows)
        _print_json({"experiments": [dict(zip(keys, row)) for row in values]})
    elif options.words or options.preset or options.present:
        print(f"{'experiment':32} {'preset':7} {'data':14} {'seeds':>5}  minutes per seed, one core")
        for r in rows:
            mark, minutes = "" if here[r.data] else " *", _minutes(r.minutes)
            print(f"{r.name:32} {r.preset:7} {r.data + mark:14} {len(r.seeds):5}  {minutes}")
        absent = not all(here[r.data] for r in rows)
        note = "; * data not on this machine: python -m clkit data list" if absent else ""
        print(f"{len(rows)} experiments{note}")
    else:
        _overview()


def _wanted(words):
    """The experiments that match the words: methods, benchmarks, or METHOD/BENCHMARK."""
    from clkit import experiments, papers

    every, known = experiments.names(), [*papers.methods(), *papers.benchmarks()]
    for word in words:
        if word not in known and word not in every:
            near = did_you_mean(word, [*known, *every])
            raise ClkitError(f"there is no method, benchmark or experiment '{word}'{near}")
    methods, streams = {*words} & {*papers.methods()}, {*words} & {*papers.benchmarks()}
    all_or_some = not words or methods or streams  # otherwise only full names are given

    def fits(name):
        method, _, benchmark = name.partition("/")
        return all_or_some and (method in methods or not methods) and (benchmark in streams or not streams)

    return [name for name in every if name in words or fits(name)]


def _overview():
    """Each method with its benchmarks, and how to list the experiments."""
    from clkit import experiments, papers

    for paper in papers.PAPERS.values():
        print(f"{paper.name} ({paper.citation})")
        for method, variant in paper.variants.items():
            print(f"  {method:19} {variant.label:24} {' '.join(paper.benchmarks_of(method))}")
    print(
        f"\n{len(experiments.names())} experiments METHOD/BENCHMARK, each with the presets "
        f"{', '.join(experiments.PRESETS)}; smoke and teach need no download\n"
        "python -m clkit list WORD ...   those of a method, a benchmark or both (--preset, --present, --json)"
    )
    print("python -m clkit run er/split-digits --preset teach")


def _minutes(minutes):
    if minutes is None:
        return "not measured"
    return "under 1" if minutes < 1 else f"{minutes:.0f}"


@one_voice()
def _run(options):
    from clkit import experiments, result

    own = {"tasks": options.tasks, "order": _order(options.order), "first_tasks": options.first_tasks}
    preset, jobs = options.preset or "teach", options.jobs
    asked = [(name, settings) for name in options.experiments for settings in _combinations(options.settings)]
    found = [experiments.experiment(name, preset, settings, **own) for name, settings in asked]
    if options.preset and any(one.preset == "own" for one in found):
        raise ClkitError("--preset is for the experiments of the book: leave it out for your own data")
    record = tuple(table.strip() for table in options.keep.split(",")) if options.keep else None
    if jobs is None:
        jobs = (os.cpu_count() or 1) if options.scheduler else 1
    summaries = []
    with contextlib.ExitStack() as opened:
        cluster = options.scheduler
        if cluster is not None:
            from clkit.experiments.cluster import connected

            cluster = opened.enter_context(connected(cluster, jobs))
            for one in found:
                experiments.begin(cluster, one, options.seeds, options.device, record, options.every)
        how = {"device": options.device, "jobs": jobs, "scheduler": cluster, "every": options.every}
        how |= {"out": options.out, "replace": options.replace, "add": options.add, "record": record, **own}
        for one, (name, settings) in zip(found, asked):
            results = experiments.run_experiment(name, preset, options.seeds, overrides=settings, **how)
            summaries.append(result.summary(results))
            if not options.json:
                _print_summary(options, one, results, summaries[-1])
    if options.json:
        _print_json(summaries[0] if len(summaries) == 1 else {"experiments": summaries})


def _combinations(settings):
    """[{key: value}] of pairs (key, value): every combination, where keys have several values."""
    values = {}
    for key, value in settings:
        values.setdefault(key, []).append(value)
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


def _print_summary(options, found, results, summary):
    """What `run` says about an experiment."""
    from clkit import experiments, result
    from clkit.papers.palette import MEMORY_LABELS

    about = results[0].about
    seeds, data = ", ".join(map(str, summary["seeds"])), about["stream"]["data"]
    if "test_share=" in data:
        data += " (there is no test/ folder: this share of each class is the test set)"
    size = f"preset {found.preset}" + (f", first {found.first_tasks} tasks" if found.first_tasks else "")
    print(f"{found.name}, {size}, data {data}, seeds {seeds}")
    for title, scores in (
        ("average accuracy (%)", [r.average() for r in results]),
        ("task-aware accuracy (%)", [r.task_aware_average() for r in results]),
        ("forgetting (%)", [r.forgetting() for r in results]),
    ):
        print(f"  {title:24} {result.interval(scores)}")
    kept = ", ".join(
        f"{MEMORY_LABELS.get(kind, kind)} {size / 1e6:.2f} MB"
        for kind, size in summary["memory_bytes"].items()
    )
    seconds = summary["seconds"]["learn"] + summary["seconds"]["test"]
    place = f"; record {options.out}/{found.stem}.json" if options.out else ""
    taken = sum(loop["seconds"] for r in results for loop in r.about.get("shared", ()))
    device = about["device"] + (f"; {taken:.1f} s of them in runs that had trained the same" if taken else "")
    print(
        f"  {'kept between tasks':24} {kept}\n  {'time':24} {seconds:.1f} s on {device}\n"
        f"  {'run folders':24} {experiments.runs_root()}{place}"
    )


def _report(options):
    from clkit.book import compare
    from clkit.experiments import places

    records = options.records or places.RECORDS
    print(compare.report_of(records, options.benchmark, options.preset, options.format))


def _figures(options):
    os.environ["MPLBACKEND"] = "Agg"  # files only: what another environment may have set is of no use here
    from clkit import figures

    formats = tuple(kind.strip() for kind in options.format.split(","))
    more = {"out": options.out} if options.out else {}
    where = [options.records] if options.records else []
    build = figures.build_from if where else figures.build
    for path in build(*where, options.names or None, formats=formats, **more):
        print(path)


def _book_build(options):
    from clkit.book.build import build

    index, *others = build(options.out, options.edition, options.slides, options.notebooks)
    print(f"{len(others) + 1} files of the {options.edition} edition in {index.parent}; open {index}")


def _data_list(options):
    import dataclasses

    from clkit import data

    rows = data.catalogue()
    if options.json:
        sets = [dataclasses.asdict(row) for row in rows]
        _print_json({"root": str(data.root()), "sets": sets})
        return
    print(f"data root: {data.root()}{data.state_of_root()} (set CLKIT_DATA to change it)\n")
    for r in rows:
        images = f"{r.train:,} + {r.test:,} images, {r.classes} classes, {'x'.join(map(str, r.shape))}"
        print(f"{r.name:16} {'present' if r.present else 'absent':8} {images if r.train else ''}")
        print(f"{'':25} {r.where if r.present else r.how_to_get}")


def _data_get(options):
    from clkit import data

    print(data.get(options.name))


def _doctor(options):
    from clkit import doctor

    report, healthy = doctor.examine()
    print(report)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
