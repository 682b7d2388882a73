"""Write the tables of README.md and RESULTS.md from the records: ``python -m tools.results [--check]``.

A table is between ``<!-- table: NAME -->`` and ``<!-- end -->`` and is replaced as a whole; the prose around
it is written by hand. TABLES defines the contents of each table. --check writes nothing and fails if a page
differs from the records.
"""

import argparse
import functools
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "RESULTS.md")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)
ACCURACY, FORGETTING, AFTER_5 = "average accuracy", "forgetting", "average accuracy after 5 classes"
PRINTED_AS = {"split-mnist-10": "mnist-1x10"}  # benchmarks that have another name in print


@dataclass(frozen=True)
class Run:
    """One record and the printed number to compare it with.

    printed: (paper, table, method) as in clkit/papers/published, or None.   over: of `Result.average`.
    reason: why the accuracies differ, if that is known.   first_tasks: of a record of the first tasks only.
    """

    experiment: str
    printed: tuple | None = None
    overrides: dict = field(default_factory=dict)
    preset: str = "paper"
    over: str = "tasks"
    reason: str = ""
    first_tasks: int | None = None


@dataclass(frozen=True)
class Table:
    """columns: (title, content, index of the run in its row).   rows: (label, runs), None for no run.

    task_mean: how the accuracy of a task is computed, as in `Result.accuracy`.
    """

    columns: tuple
    rows: tuple
    task_mean: str = "images"


# ---- what the tables show

OFFLINE = (
    ("published", "place", 0),
    ("another source", "second", 0),
    ("clkit: average accuracy", "average", 0),
    ("verdict", "verdict", 0),
    ("task-aware", "aware", 0),
    ("n", "n", 0),
    ("record", "record", 0),
)
ONLINE = (
    ("accuracy, published", "published", 0),
    ("clkit: average accuracy", "average", 0),
    ("verdict", "verdict", 0),
    ("forgetting, published", "published forgetting", 0),
    ("clkit: forgetting", "forgetting", 0),
    ("task-aware", "aware", 0),
    ("n", "n", 0),
    ("record", "record", 0),
)
REDUCED = (
    ("clkit: average accuracy", "average", 0),
    ("forgetting", "forgetting", 0),
    ("task-aware", "aware", 0),
    ("n", "n", 0),
    ("record", "record", 0),
)
# One class per task, so the accuracy with the task told is 100 %.
GENERATIVE = (
    ("after 5 classes", "after 5", 0),
    ("after 10 classes", "average", 0),
    ("after 5, epoch best on validation", "chosen 5", 0),
    ("after 10, epoch best on validation", "chosen 10", 0),
    ("generated images, judged", "generated", 0),
    ("n", "n", 0),
    ("record", "record", 0),
)
FIRST_FIVE = (
    ("after 5 classes, published", "published 5", 0),
    ("clkit: after 5 classes", "after 5", 0),
    ("verdict", "verdict 5", 0),
    ("after 5, epoch best on validation", "chosen 5", 0),
    ("generated images, judged", "generated", 0),
    ("n", "n", 0),
    ("record", "record", 0),
)
RECORD = ("record", "record", 0)
# Old classes are those of the first task: among all classes seen, and among themselves.
FINE_GRAINED = (
    ("all classes", "average", 0),
    ("old classes", "old accuracy", 0),
    ("old classes, old outputs alone", "old within", 0),
    ("new classes", "new accuracy", 0),
    ("n", "n", 0),
)
# The first task has half of the classes: among all images it counts as half, among tasks as one of six.
HALF_FIRST = (
    ("all images", "images", 0),
    ("average over tasks", "average", 0),
    ("forgetting", "forgetting", 0),
    ("n", "n", 0),
)


def _spacenet(table, benchmark):
    """Run of a method on a benchmark of the SpaceNet paper, with the number in its table."""

    def run(method, printed=True, reason="", **overrides):
        name = {"static": "spacenet-static", "rehearsal": "spacenet-rehearsal"}.get(method, method)
        return Run(
            f"{method}/{benchmark}", ("spacenet", table, name) if printed else None, overrides, reason=reason
        )

    return run


def _arm(table, benchmark):
    """Run of a method on a benchmark of the ARM paper, with the number in its table."""

    def run(method, printed=None, over="tasks", **overrides):
        return Run(
            f"{method}/{benchmark}", ("arm", table, printed) if printed else None, overrides, over=over
        )

    return run


_mnist, _fashion = _spacenet("Table 2", "split-mnist"), _spacenet("Table 3", "split-fashion")
_online, _cifar = _arm("Table 6", "mnist-5k-5"), _arm("Table 1", "cifar10-5")


def _dgm(method, **overrides):
    """Run of a method on MNIST, digit by digit."""
    return (Run(f"{method}/split-mnist-10", None, overrides, "laptop"),)


def _mfgr(method, benchmark="wardrobe"):
    """Run of a method on a benchmark of similar classes; its accuracy is over all images."""
    return (Run(f"{method}/{benchmark}", preset="laptop", over="images"),)


def _gfr(method, benchmark="split-shapes", preset="teach"):
    """Run of a method on a benchmark of which half of the classes come first."""
    return (Run(f"{method}/{benchmark}", preset=preset),)


def _on_cifar(method):
    return _gfr(method, "cifar100-50-5", "laptop")


TABLES = {
    # README: selected rows
    "spacenet": Table(
        (
            ("split MNIST, published", "published", 0),
            ("clkit", "average with n", 0),
            ("split Fashion-MNIST, published", "published", 1),
            ("clkit", "average with n", 1),
        ),
        (
            ("Finetune", (_mnist("finetune", printed=False), _fashion("finetune", printed=False))),
            ("LwF, one head", (_mnist("lwf"), _fashion("lwf"))),
            ("SpaceNet, static", (_mnist("static"), _fashion("static"))),
            ("**SpaceNet**", (_mnist("spacenet"), _fashion("spacenet"))),
            ("DGR", (_mnist("dgr"), _fashion("dgr"))),
            ("iCaRL, 2,000 images", (_mnist("icarl"), _fashion("icarl"))),
            ("SpaceNet, rehearsal", (_mnist("rehearsal"), _fashion("rehearsal"))),
            ("Joint", (_mnist("joint", printed=False), _fashion("joint", printed=False))),
        ),
    ),
    "arm": Table(
        (
            ("MNIST, published", "published", 0),
            ("clkit", "average with n", 0),
            ("forgetting, published", "published forgetting", 0),
            ("clkit", "forgetting", 0),
            ("CIFAR10, published", "published", 1),
            ("clkit", "average with n", 1),
        ),
        (
            ("Naive", (_online("naive", "naive"), _cifar("naive", "naive"))),
            ("Distillation of the batch", (_online("distill", "distill"), _cifar("distill", "distill"))),
            (
                "ER, 50 images (CIFAR10: 200)",
                (_online("er-online", "er-online-50"), _cifar("er-online", "er-online-200")),
            ),
            ("**ARM**", (_online("arm", "arm"), _cifar("arm", "arm"))),
            ("ADI", (_online("adi", "adi"), None)),
            (
                "Stationary",
                (_online("stationary", "stationary", "images"), _cifar("stationary", "stationary", "images")),
            ),
        ),
        "classes",
    ),
    "dgm": Table(
        tuple(column for column in GENERATIVE if column[1] not in ("chosen 5", "record")),
        (
            ("DGM without replay", _dgm("dgm-no-replay")),
            ("DGR with a GAN", _dgm("dgr-gan")),
            ("MeRGAN", _dgm("mergan")),
            ("**DGMw**", _dgm("dgmw")),
            ("**DGMa**", _dgm("dgma")),
            ("Joint training of D", _dgm("joint-d")),
        ),
        "classes",
    ),
    "mfgr": Table(
        FINE_GRAINED,
        (
            ("Finetune (SGD)", _mfgr("finetune-sgd")),
            ("LwF (SGD)", _mfgr("lwf-sgd")),
            ("MAS (SGD)", _mfgr("mas-sgd")),
            ("**MFGR**", _mfgr("mfgr")),
            ("Oracle, all images", _mfgr("oracle")),
        ),
    ),
    "gfr": Table(
        HALF_FIRST,
        (
            ("Finetune (GFR's training)", _on_cifar("gfr-finetune")),
            ("Feature replay alone", _on_cifar("gfr-replay")),
            ("Feature distillation alone", _on_cifar("gfr-distill")),
            ("**GFR**", _on_cifar("gfr")),
            ("GFR (Gaussian)", _on_cifar("gfr-gaussian")),
            ("FeTrIL", _on_cifar("fetril")),
            ("FeCAM", _on_cifar("fecam")),
            ("LwF, surest head", _on_cifar("lwf-max")),
            ("LUCIR, 20 images of each class", _on_cifar("lucir")),
        ),
    ),
    # RESULTS: every row
    "split-mnist": Table(
        OFFLINE,
        (
            ("Finetune", (_mnist("finetune", printed=False),)),
            ("EWC", (_mnist("ewc"),)),
            ("SI", (_mnist("si"),)),
            ("MAS", (_mnist("mas"),)),
            ("LwF, one head", (_mnist("lwf", reason="another loss, see below"),)),
            ("LwF, one head, mean over classes", (_mnist("lwf", reduction="mean", reason="rest not found"),)),
            ("LwF, a head per task", (_mnist("lwf-multihead", printed=False),)),
            ("SpaceNet, static", (_mnist("static"),)),
            ("SpaceNet", (_mnist("spacenet"),)),
            ("ER, 50 images", (_mnist("er", printed=False, memory=50),)),
            ("ER, 100 images", (_mnist("er", printed=False, memory=100),)),
            ("ER, 200 images", (_mnist("er", printed=False, memory=200),)),
            ("ER, 500 images", (_mnist("er", printed=False),)),
            ("ER, 1,000 images", (_mnist("er", printed=False, memory=1000),)),
            ("ER, 2,000 images", (_mnist("er", printed=False, memory=2000),)),
            ("DGR", (_mnist("dgr"),)),
            ("iCaRL, 2,000 images", (_mnist("icarl"),)),
            ("SpaceNet, rehearsal", (_mnist("rehearsal"),)),
            ("Cumulative", (_mnist("cumulative", printed=False),)),
            ("Joint", (_mnist("joint", printed=False),)),
        ),
    ),
    "split-fashion": Table(
        OFFLINE,
        (
            ("Finetune", (_fashion("finetune", printed=False),)),
            ("EWC", (_fashion("ewc"),)),
            ("SI", (_fashion("si"),)),
            ("MAS", (_fashion("mas", printed=False),)),
            ("LwF, one head", (_fashion("lwf"),)),
            ("SpaceNet, static", (_fashion("static"),)),
            ("SpaceNet", (_fashion("spacenet"),)),
            ("DGR", (_fashion("dgr"),)),
            ("iCaRL, 2,000 images", (_fashion("icarl"),)),
            ("SpaceNet, rehearsal", (_fashion("rehearsal"),)),
            ("Joint", (_fashion("joint", printed=False),)),
        ),
    ),
    "cifar10-100": Table(
        REDUCED,
        (
            ("SpaceNet, static", (Run("static/cifar10-100", preset="laptop"),)),
            ("SpaceNet", (Run("spacenet/cifar10-100", preset="laptop"),)),
            ("Finetune", (Run("finetune/cifar10-100", preset="laptop"),)),
            ("CWR+", (Run("cwr-plus/cifar10-100", preset="laptop"),)),
        ),
    ),
    "split-mnist-10": Table(
        GENERATIVE,
        (
            ("DGM without replay", _dgm("dgm-no-replay")),
            ("EWC-M", _dgm("ewc-m")),
            ("DGR with a GAN", _dgm("dgr-gan")),
            ("MeRGAN, joint replay", _dgm("mergan")),
            ("MeRGAN, replay alignment", _dgm("mergan-align")),
            ("DGMw", _dgm("dgmw")),
            ("DGMw, no masks", _dgm("dgmw", masked=False)),
            ("DGMw, no expansion", _dgm("dgmw", expand="none")),
            ("DGMw, no sparsity term", _dgm("dgmw", sparsity=0.0)),
            ("DGMw, replay with soft masks", _dgm("dgmw", hard=False)),
            ("DGMa", _dgm("dgma")),
            ("Joint training of D", _dgm("joint-d")),
        ),
        "classes",
    ),
    "split-mnist-10-paper": Table(
        FIRST_FIVE,
        (("DGMw", (Run("dgmw/split-mnist-10", ("dgm", "Table 1", "dgmw"), first_tasks=5),)),),
        "classes",
    ),
    "mnist-5k-5": Table(
        ONLINE,
        (
            ("Naive", (_online("naive", "naive"),)),
            ("Distillation of the batch (LwF, online)", (_online("distill", "distill"),)),
            ("GEM, 50 images", (_online("gem"),)),
            ("iCaRL, 50 images", (_online("icarl-online"),)),
            ("ER, 25 images", (_online("er-online", "er-online-25", memory=25),)),
            ("ER-MIR, 25 images", (_online("er-mir", "er-mir-25", memory=25),)),
            ("ARM", (_online("arm", "arm"),)),
            ("ADI", (_online("adi", "adi"),)),
            ("ER, 50 images", (_online("er-online", "er-online-50"),)),
            ("ER-MIR, 50 images", (_online("er-mir", "er-mir-50"),)),
            ("GEN", (_online("gen", "gen"),)),
            ("GEN-MIR", (_online("gen-mir", "gen-mir"),)),
            ("Stationary", (_online("stationary", "stationary", "images"),)),
        ),
        "classes",
    ),
    "cifar10-5": Table(
        ONLINE,
        (
            ("Naive", (_cifar("naive", "naive"),)),
            ("Naive, ARM's learning rate", (_cifar("naive", lr=0.01),)),
            ("Distillation of the batch (LwF, online)", (_cifar("distill", "distill"),)),
            ("ER, 200 images", (_cifar("er-online", "er-online-200"),)),
            ("ARM", (_cifar("arm", "arm"),)),
            ("Stationary", (_cifar("stationary", "stationary", "images"),)),
        ),
        "classes",
    ),
    "wardrobe": Table(
        (*FINE_GRAINED, RECORD),
        (
            ("Finetune (SGD)", _mfgr("finetune-sgd")),
            ("LwF (SGD)", _mfgr("lwf-sgd")),
            ("LwM", _mfgr("lwm")),
            ("MUC-LwF", _mfgr("muc-lwf")),
            ("MAS (SGD)", _mfgr("mas-sgd")),
            ("MUC-MAS", _mfgr("muc-mas")),
            ("MFGR, base generator", _mfgr("mfgr-base")),
            ("MFGR without l_div", _mfgr("mfgr-bn")),
            ("MFGR without l_div and l_nkd", _mfgr("mfgr-no-nkd")),
            ("MFGR", _mfgr("mfgr")),
            ("iCaRL (SGD), 400 images", _mfgr("icarl-sgd")),
            ("iCaRL (SGD), 400 images, and MFGR's", _mfgr("icarl-mfgr")),
            ("Oracle", _mfgr("oracle")),
        ),
    ),
    "cub-caltech": Table(
        (*FINE_GRAINED, RECORD),
        (
            ("Finetune (SGD)", _mfgr("finetune-sgd", "cub-caltech")),
            ("LwF (SGD)", _mfgr("lwf-sgd", "cub-caltech")),
            ("MFGR", _mfgr("mfgr", "cub-caltech")),
        ),
    ),
    "cifar100-5": Table(
        REDUCED,
        (
            ("Finetune (SGD)", _mfgr("finetune-sgd", "cifar100-5")),
            ("LwF (SGD)", _mfgr("lwf-sgd", "cifar100-5")),
            ("MFGR", _mfgr("mfgr", "cifar100-5")),
        ),
    ),
    "birds": Table(
        (*FINE_GRAINED, RECORD),
        (
            ("Finetune (SGD)", _mfgr("finetune-sgd", "cub-10-10")),
            ("LwF (SGD)", _mfgr("lwf-sgd", "cub-10-10")),
            ("MFGR", _mfgr("mfgr", "cub-10-10")),
        ),
    ),
    "split-shapes": Table(
        (*HALF_FIRST, RECORD),
        (
            ("Finetune (GFR's training)", _gfr("gfr-finetune")),
            ("Feature replay alone", _gfr("gfr-replay")),
            ("Feature distillation alone", _gfr("gfr-distill")),
            ("GFR", _gfr("gfr")),
            ("GFR (Gaussian)", _gfr("gfr-gaussian")),
            ("LwF, surest head", _gfr("lwf-max")),
            ("EWC, surest head", _gfr("ewc-max")),
            ("MAS, surest head", _gfr("mas-max")),
            ("Nearest class mean", _gfr("ncm")),
            ("FeTrIL", _gfr("fetril")),
            ("FeCAM", _gfr("fecam")),
            ("LUCIR, 20 images of each class", _gfr("lucir")),
            ("iCaRL-CNN, 20 images of each class", _gfr("icarl-cnn")),
            ("iCaRL-NME, 20 images of each class", _gfr("icarl-nme")),
            ("Joint (GFR's training)", _gfr("gfr-joint")),
        ),
    ),
    "cifar100-4": Table(
        (*HALF_FIRST[1:], RECORD),
        (
            ("Finetune (GFR's training)", _gfr("gfr-finetune", "cifar100-4", "laptop")),
            ("LwF, surest head", _gfr("lwf-max", "cifar100-4", "laptop")),
            ("Feature distillation alone", _gfr("gfr-distill", "cifar100-4", "laptop")),
            ("GFR", _gfr("gfr", "cifar100-4", "laptop")),
        ),
    ),
    "cifar100-50-5": Table(
        (*HALF_FIRST, RECORD),
        (
            ("Finetune (GFR's training)", _on_cifar("gfr-finetune")),
            ("Feature replay alone", _on_cifar("gfr-replay")),
            ("Feature distillation alone", _on_cifar("gfr-distill")),
            ("GFR", _on_cifar("gfr")),
            ("GFR (Gaussian)", _on_cifar("gfr-gaussian")),
            ("FeTrIL", _on_cifar("fetril")),
            ("FeCAM", _on_cifar("fecam")),
            ("LwF, surest head", _on_cifar("lwf-max")),
            ("EWC, surest head", _on_cifar("ewc-max")),
            ("MAS, surest head", _on_cifar("mas-max")),
            ("LUCIR, 20 images of each class", _on_cifar("lucir")),
            ("iCaRL-CNN, 20 images of each class", _on_cifar("icarl-cnn")),
            ("iCaRL-NME, 20 images of each class", _on_cifar("icarl-nme")),
        ),
    ),
}


# ---- from records to Markdown


def markdown(table):
    """A Table as lines of Markdown. PresetError if a record is missing or stale."""
    lines = [["method", *(title for title, _, _ in table.columns)], ["---"] * (len(table.columns) + 1)]
    for label, runs in table.rows:
        loaded = [functools.cache(functools.partial(_results, run)) for run in runs]  # once for all cells
        lines.append(
            [label, *(_cell(what, runs[i], loaded[i], table.task_mean) for _, what, i in table.columns)]
        )
    return (
        "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def _results(run):
    """The Results of a run's record."""
    from clkit import experiments

    return experiments.load_record(run.experiment, run.preset, run.overrides, first_tasks=run.first_tasks)


def _cell(what, run, load, task_mean):
    """The text of one cell. load: a function that gives the Results of the run's record."""
    if run is None:
        return "not run"
    if what in ("place", "second", "published", "published 5", "published forgetting"):
        return _printed(what, run)
    results = load()
    if what == "n":
        return str(len(results))
    if what == "record":
        from clkit import experiments

        wanted = (run.experiment, run.preset, run.overrides, run.first_tasks)
        stem = experiments.exact_experiment(*wanted).stem
        return f"[json](figures/results/{stem}.json)"
    if what == "forgetting":
        return "-" if len(results[0].seen) == 1 else _percent([r.forgetting(task_mean) for r in results])
    if what == "aware":
        return _percent([r.task_aware_average(task_mean) for r in results])
    if what == "images":
        return _percent([r.average("images") for r in results])
    if what == "after 5":
        return _percent([r.average_after(5) for r in results])
    if what.startswith("chosen "):
        from clkit.result import chosen_after

        return _percent([chosen_after(r, int(what.split()[1])) for r in results])
    if what.startswith(("old ", "new ")):
        which, column = what.split()
        rows = [r.trace["fine"][column][-1] for r in results]
        parts = {"old": slice(int(results[0].seen[0])), "new": slice(int(results[0].seen[0]), None)}
        return _percent([row[parts[which]].mean() for row in rows])
    if what == "generated":
        rows = [r.trace["generated"]["accuracy"][-1][: r.seen[-1]] for r in results if "generated" in r.trace]
        return _percent([row.mean() for row in rows]) if rows else "-"
    over = {"over": "images"} if run.over == "images" else {"task_mean": task_mean}
    averages = [r.average_after(5) if what == "verdict 5" else r.average(**over) for r in results]
    if what.startswith("verdict"):
        from clkit.book import compare
        from clkit.result import interval

        printed = _published(run, AFTER_5 if what == "verdict 5" else ACCURACY)
        return str(compare.verdict(printed, interval(averages), run.preset, run.reason))
    return _percent(averages) + (f" (n = {len(results)})" if what == "average with n" else "")


def _printed(what, run):
    """The number that a paper prints, or that another source reports for it."""
    if run.printed is None:
        return "none found" if what == "second" else "not printed"
    metric = {"published forgetting": FORGETTING, "published 5": AFTER_5}.get(what, ACCURACY)
    row = _published(run, metric)
    if row is None:  # forgetting of a run with a single stage
        return "-"
    return {"place": f"{row.text} ({row.place})", "second": row.second_source}.get(what, row.text)


def _published(run, metric):
    """The Published number of a run, or None."""
    from clkit.papers import published

    if run.printed is None:
        return None
    paper, table, method = run.printed
    benchmark = PRINTED_AS.get(run.experiment.partition("/")[2], run.experiment.partition("/")[2])
    found = published.published(paper=paper, table=table, method=method, benchmark=benchmark, metric=metric)
    return found[0] if found else None


def _percent(values):
    """Mean and half-width of the interval, in percent; the mean alone for a single seed; "-" if undefined."""
    from clkit.result import interval

    found = interval(values)
    if found.mean != found.mean:
        return "-"
    return f"{100 * found.mean:.2f}" + (f" ± {100 * found.half:.2f}" if found.n > 1 else "")


# ---- the pages


def page(path):
    """The text of a page with new tables and the rule for their verdicts."""
    return BLOCK.sub(lambda m: m[1] + _block(m[2]) + m[3], path.read_text(encoding="utf-8"))


def _block(name):
    if name != "rule":
        return markdown(TABLES[name])
    from clkit.book import compare

    return compare.RULE + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    options = parser.parse_args(arguments)
    stale = [path for path in PAGES if page(path) != path.read_text(encoding="utf-8")]
    for path in stale:
        print(f"{path.name} {'differs from' if options.check else 'written from'} the records")
        if not options.check:
            path.write_text(page(path), encoding="utf-8")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
