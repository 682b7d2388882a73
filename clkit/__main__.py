"""The command line: ``python -m clkit  list | run | figures | data | doctor``."""

import argparse
import json
import os
import sys

from clkit import __version__


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when stopped by Ctrl-C."""
    options = _parser().parse_args(arguments)
    from clkit.data import DataError
    from clkit.learner import LearnerError
    from clkit.presets import PresetError
    from clkit.result import ResultError
    from clkit.run import RunError
    from clkit.stream import StreamError
    try:
        status = options.command(options) or 0
        sys.stdout.flush()
        return status
    except (DataError, LearnerError, PresetError, ResultError, RunError, StreamError) as error:
        print(f"clkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        how = (
            "the same command goes on from there"
            if options.command is _run
            else "nothing was left half-written"
        )
        print(f"\nclkit: {str(stop) or 'stopped'}; {how}", file=sys.stderr)
        return 130
    except BrokenPipeError:                             # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that cannot be made, a full disk
        print(f"clkit: {error}", file=sys.stderr)
        return 2


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

    one = commands.add_parser("list", help="experiments, presets, data needed, expected minutes")
    one.add_argument("--json", action="store_true", help="one JSON object on standard output")
    one.set_defaults(command=_list)

    one = commands.add_parser("run", help="run an experiment, or go on with it")
    one.add_argument("experiment", metavar="METHOD/BENCHMARK", help="such as er/split-mnist")
    one.add_argument("--preset", default="teach", help="smoke, teach (default) or paper")
    one.add_argument("--seeds", type=_seeds, help="such as 0,1,2 or 0-9; the preset's own by default")
    one.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    one.add_argument("--jobs", type=int, default=1, metavar="N", help="processes to spread the seeds over")
    one.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=_setting,
        help="a setting of the method's Config; may be repeated",
    )
    one.add_argument("--out", metavar="DIR", help="write the record of all seeds to this folder")
    one.add_argument("--json", action="store_true", help="one JSON object on standard output")
    one.set_defaults(command=_run)

    one = commands.add_parser("figures", help="write figures/ from the records")
    one.add_argument("names", nargs="*", metavar="NAME", help="some of them; all by default")
    one.add_argument("--out", metavar="DIR", help="another folder than figures/")
    one.set_defaults(command=_figures)

    one = commands.add_parser("data", help="what data there are, and how to get more")
    deeds = one.add_subparsers(required=True, metavar="list | get")
    deed = deeds.add_parser("list", help="each set: present or not, where, how many images, how to get it")
    deed.add_argument("--json", action="store_true", help="one JSON object on standard output")
    deed.set_defaults(command=_data_list)
    deed = deeds.add_parser("get", help="download a set through torchvision")
    deed.add_argument("name")
    deed.set_defaults(command=_data_get)

    one = commands.add_parser(
        "doctor", help="versions, device, data, free disk, known problems and their cure"
    )
    one.set_defaults(command=_doctor)
    return parser


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


def _setting(text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}' is no setting: write KEY=VALUE, such as epochs=5")
    return key.strip().replace("-", "_"), value.strip()


def _list(options):
    from clkit import presets
    rows = [presets.experiment(name, p) for name in presets.names() for p in presets.PRESETS]
    if options.json:
        print(
            json.dumps(
                {
                    "experiments": [
                        {
                            "experiment": r.name,
                            "preset": r.preset,
                            "data": r.data,
                            "minutes_per_seed": r.minutes,
                            "seeds": list(r.seeds),
                        }
                        for r in rows
                    ]
                },
                indent=1,
            )
        )
        return
    print(f"{'experiment':32} {'preset':7} {'data':14} minutes a seed, one core")
    for r in rows:
        print(
            f"{r.name:32} {r.preset:7} {r.data:14} {'under 1' if r.minutes <= 1 else f'about {r.minutes:g}'}"
        )
    print(
        "\npython -m clkit run METHOD/BENCHMARK --preset smoke|teach|paper; smoke and teach need no download"
    )


def _run(options):
    from clkit import presets, result

    results = presets.run_experiment(
        options.experiment,
        options.preset,
        options.seeds,
        options.device,
        options.jobs,
        dict(options.settings),
        options.out,
    )
    summary = result.summary(results)
    if options.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    chosen = presets.experiment(options.experiment, options.preset, dict(options.settings))
    about = results[0].about
    print(
        f"{chosen.name}, preset {chosen.preset}, data {about['stream']['data']}, "
        f"seeds {', '.join(map(str, summary['seeds']))}"
    )
    for title, scores in (("average accuracy (%)", [r.average() for r in results]),
                          ("task-aware accuracy (%)", [r.within_average() for r in results]),
                          ("forgetting (%)", [r.forgetting() for r in results])):
        print(f"  {title:24} {result.interval(scores)}")
    print(
        f"  {'kept between tasks':24} "
        + ", ".join(f"{k} {v / 1e6:.2f} MB" for k, v in summary["memory_bytes"].items())
    )
    print(
        f"  {'time':24} {summary['seconds']['learn'] + summary['seconds']['test']:.1f} s on {about['device']}"
    )
    print(
        f"  {'run folders':24} {presets.runs_root()}"
        + (f"; record {options.out}/{chosen.stem}.json" if options.out else "")
    )


def _figures(options):
    os.environ.setdefault("MPLBACKEND", "Agg")  # files only: no display is needed, nor a working one
    from clkit import figures
    for path in figures.build(options.names or None, **({"out": options.out} if options.out else {})):
        print(path)


def _data_list(options):
    import dataclasses

    from clkit import data
    rows = data.catalogue()
    if options.json:
        print(
            json.dumps(
                {"root": str(data.root()), "sets": [dataclasses.asdict(r) for r in rows]},
                indent=1,
                default=str,
            )
        )
        return
    print(f"data root: {data.root()} (set CLKIT_DATA to change it)\n")
    for r in rows:
        images = (
            f"{r.train:,} + {r.test:,} images, {r.classes} classes, {'x'.join(map(str, r.shape))}"
            if r.train
            else ""
        )
        print(f"{r.name:16} {'present' if r.present else 'absent':8} {images}")
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
