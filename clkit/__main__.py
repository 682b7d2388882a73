"""The command line: ``python -m clkit  list | run | report | figures | data | doctor``."""

import argparse
import json
import os
import sys

from clkit import __version__
from clkit.errors import ClkitError, did_you_mean

JSON = "one JSON object on standard output"


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when stopped by Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        status = options.command(options) or 0
        sys.stdout.flush()
        return status
    except ClkitError as error:
        print(f"clkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        going_on = options.command is _run
        how = "the same command goes on from there" if going_on else "nothing was left half-written"
        print(f"\nclkit: {str(stop) or 'stopped'}; {how}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that cannot be made, a full disk
        print(f"clkit: {error}", file=sys.stderr)
        return 2


# ---- what can be asked


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
    for add in (_add_list, _add_run, _add_report, _add_figures, _add_data):
        add(commands)
    _add(commands, "doctor", _doctor, "versions, device, data, free disk, known problems and their cure")
    return parser


def _add(commands, name, command, words):
    """The parser of one command."""
    one = commands.add_parser(name, help=words)
    one.set_defaults(command=command)
    return one


def _add_list(commands):
    one = _add(commands, "list", _list, "experiments, presets, data needed, measured minutes")
    one.add_argument("words", nargs="*", metavar="METHOD | BENCHMARK | METHOD/BENCHMARK", help="only these")
    one.add_argument("--preset", help="only this size: smoke, teach, laptop or paper")
    one.add_argument("--present", action="store_true", help="only those whose data are here")
    one.add_argument("--json", action="store_true", help=JSON)


def _add_run(commands):
    one = _add(commands, "run", _run, "run an experiment, or go on with it")
    own = "on your own images er/folder:PATH, or er/NAME of a set in the data root"
    one.add_argument("experiment", metavar="METHOD/BENCHMARK", help=f"such as er/split-mnist; {own}")
    one.add_argument("--preset", help="smoke, teach (default), laptop or paper")
    one.add_argument("--seeds", type=_seeds, help="such as 0,1,2 or 0-9; the preset's own by default")
    one.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    one.add_argument("--jobs", type=int, default=1, metavar="N", help="processes to spread the seeds over")
    words = "a setting of the method's Config; may be repeated (own data: also side=N)"
    several = {"dest": "settings", "action": "append", "default": []}
    one.add_argument("--set", type=_setting, metavar="KEY=VALUE", help=words, **several)
    one.add_argument("--tasks", type=_tasks, help="own data: classes of each task, such as 6,6,6,6")
    words = "own data: order of the classes: drawn from a seed, by name, or a file with a name a line"
    one.add_argument("--order", metavar="SEED | natural | FILE", help=words)
    words = "trace tables to record, such as loss,masks; '*' for all"
    one.add_argument("--keep", metavar="TABLES", help=words)
    words = "between checkpoints (60)"
    one.add_argument("--every", type=_seconds, default=60.0, metavar="SECONDS", help=words)
    one.add_argument("--out", metavar="DIR", help="write the record of all seeds to this folder")
    one.add_argument("--replace", action="store_true", help="let --out replace a record of other seeds")
    one.add_argument("--json", action="store_true", help=JSON)


def _add_report(commands):
    words = "a table of methods from records: n, interval, forgetting, memory"
    one = _add(commands, "report", _report, words)
    one.add_argument("benchmark", nargs="?", help="only this benchmark; all that are there by default")
    one.add_argument("--records", metavar="DIR", help="another folder than figures/results")
    one.add_argument("--preset", help="only this size: laptop or paper, for instance")
    one.add_argument("--format", default="text", choices=("text", "markdown", "latex"))


def _add_figures(commands):
    one = _add(commands, "figures", _figures, "write figures/ from the records")
    one.add_argument("names", nargs="*", metavar="NAME", help="some of them; all by default")
    words = "draw what the records in this folder show, of any experiment"
    one.add_argument("--records", metavar="DIR", help=words)
    one.add_argument("--out", metavar="DIR", help="another folder than figures/")
    one.add_argument("--format", default="png", metavar="pdf,svg,png", help="kinds of files (png)")


def _add_data(commands):
    one = commands.add_parser("data", help="what data there are, and how to get more")
    deeds = one.add_subparsers(required=True, metavar="list | get")
    deed = _add(deeds, "list", _data_list, "each set: present or not, where, how many images, how to get it")
    deed.add_argument("--json", action="store_true", help=JSON)
    _add(deeds, "get", _data_get, "download a set through torchvision").add_argument("name")


# ---- values


def _seeds(text):
    """0,1,2 or 0-9 or 0-4,7 as a tuple of whole numbers."""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"'{text}' is no list of seeds: write 0,1,2 or 0-9")
        if int(last or first) - int(first) > 9999:
            raise argparse.ArgumentTypeError(f"'{text}' asks for over 10,000 seeds: write fewer")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"'{text}' names a seed twice: every seed is run once")
    return tuple(seeds)


def _tasks(text):
    """6,6,6 as a tuple of whole numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of classes per task: write 6,6,6,6")
    return tuple(map(int, parts))


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds: write 60, or 0 for every epoch")
    return seconds


def _setting(text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}' is no setting: write KEY=VALUE, such as epochs=5")
    return key.strip().replace("-", "_"), value.strip()


def _order(text):
    """The order of the classes as own_benchmark takes it."""
    if text is None or text == "natural":
        return None
    if text.isdecimal():
        return int(text)
    from clkit.data import read_order

    return read_order(text)


# ---- the commands


def _list(options):
    from clkit import data, experiments
    from clkit.experiments.benchmark import checked_preset

    names = _wanted(options.words)
    rows = [experiments.exact_experiment(name, preset) for name in names for preset in experiments.PRESETS]
    rows = list({(row.name, row.preset): row for row in rows}.values())  # a size may stand for another
    if options.preset:
        rows = [row for row in rows if row.preset == checked_preset(options.preset)]
    here = {name: data.present(name) for name in {row.data for row in rows}}
    rows = [row for row in rows if here[row.data] or not options.present]
    if options.json:
        keys = "experiment preset data present minutes_per_seed seeds".split()
        values = ((r.name, r.preset, r.data, here[r.data], r.minutes, r.seeds) for r in rows)
        print(json.dumps({"experiments": [dict(zip(keys, row)) for row in values]}, indent=1))
    elif options.words or options.preset or options.present:
        print(f"{'experiment':32} {'preset':7} {'data':14} {'seeds':>5}  minutes a seed, one core")
        for r in rows:
            mark, minutes = "" if here[r.data] else " *", _minutes(r.minutes)
            print(f"{r.name:32} {r.preset:7} {r.data + mark:14} {len(r.seeds):5}  {minutes}")
        absent = not all(here[r.data] for r in rows)
        note = "; * its data are not here: python -m clkit data list" if absent else ""
        print(f"{len(rows)} experiments{note}")
    else:
        _overview()


def _wanted(words):
    """The experiments that all these words name together: methods, benchmarks, or METHOD/BENCHMARK."""
    from clkit import experiments, papers

    every, known = experiments.names(), [*papers.methods(), *papers.benchmarks()]
    for word in words:
        if word not in known and word not in every:
            near = did_you_mean(word, [*known, *every])
            raise ClkitError(f"there is no method, benchmark or experiment '{word}'{near}")
    methods, streams = {*words} & {*papers.methods()}, {*words} & {*papers.benchmarks()}
    all_or_some = not words or methods or streams  # else only full names are given

    def fits(name):
        method, _, benchmark = name.partition("/")
        return all_or_some and (method in methods or not methods) and (benchmark in streams or not streams)

    return [name for name in every if name in words or fits(name)]


def _overview():
    """Methods and benchmarks without their products, and how to ask for more."""
    from clkit import experiments, papers

    for paper in papers.PAPERS.values():
        print(f"{paper.name} ({paper.citation})")
        for method, variant in paper.variants.items():
            print(f"  {method:14} {variant.label:22} {' '.join(paper.benchmarks_of(method))}")
    print(
        f"\n{len(experiments.names())} experiments METHOD/BENCHMARK, each at the presets "
        f"{', '.join(experiments.PRESETS)}; smoke and teach need no download\n"
        "python -m clkit list WORD ...   rows of a method, benchmark or both (--preset P, --present, --json)"
    )
    print("python -m clkit run er/split-digits --preset teach")


def _minutes(minutes):
    if minutes is None:
        return "not measured"
    return "under 1" if minutes < 1 else f"{minutes:.0f}"


def _run(options):
    from clkit import experiments, result

    own = {"tasks": options.tasks, "order": _order(options.order)}
    overrides, preset = dict(options.settings), options.preset or "teach"
    found = experiments.experiment(options.experiment, preset, overrides, **own)
    if found.preset == "own" and options.preset:
        message = "--preset is for the experiments of the book: your own data come in the size they have"
        raise ClkitError(message)
    record = tuple(table.strip() for table in options.keep.split(",")) if options.keep else None
    results = experiments.run_experiment(
        options.experiment,
        preset,
        options.seeds,
        options.device,
        options.jobs,
        overrides,
        options.out,
        record,
        every=options.every,
        replace=options.replace,
        **own,
    )
    summary = result.summary(results)
    if options.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    about = results[0].about
    seeds = ", ".join(map(str, summary["seeds"]))
    print(f"{found.name}, preset {found.preset}, data {about['stream']['data']}, seeds {seeds}")
    for title, scores in (
        ("average accuracy (%)", [r.average() for r in results]),
        ("task-aware accuracy (%)", [r.task_aware_average() for r in results]),
        ("forgetting (%)", [r.forgetting() for r in results]),
    ):
        print(f"  {title:24} {result.interval(scores)}")
    kept = ", ".join(f"{kind} {size / 1e6:.2f} MB" for kind, size in summary["memory_bytes"].items())
    seconds = summary["seconds"]["learn"] + summary["seconds"]["test"]
    place = f"; record {options.out}/{found.stem}.json" if options.out else ""
    print(
        f"  {'kept between tasks':24} {kept}\n  {'time':24} {seconds:.1f} s on {about['device']}\n"
        f"  {'run folders':24} {experiments.runs_root()}{place}"
    )


def _report(options):
    from clkit.book import compare
    from clkit.experiments import places

    records = options.records or places.RECORDS
    print(compare.report_of(records, options.benchmark, options.preset, options.format))


def _figures(options):
    os.environ.setdefault("MPLBACKEND", "Agg")  # files only: no display is needed, nor a working one
    from clkit import figures

    formats = tuple(kind.strip() for kind in options.format.split(","))
    more = {"out": options.out} if options.out else {}
    where = [options.records] if options.records else []
    build = figures.build_from if where else figures.build
    for path in build(*where, options.names or None, formats=formats, **more):
        print(path)


def _data_list(options):
    import dataclasses

    from clkit import data

    rows = data.catalogue()
    if options.json:
        sets = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"root": str(data.root()), "sets": sets}, indent=1, default=str))
        return
    print(f"data root: {data.root()} (set CLKIT_DATA to change it)\n")
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
