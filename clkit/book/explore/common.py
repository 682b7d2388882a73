"""Views of a method's results, and the frame of all explorers: controls around a view.

A *view* is a plain function of results and of a place; it returns View(axes, text). An explorer puts sliders
around a view. The same view is called once in an ordinary cell, ``show.figure(confusion_view(results,
stage=4), id=..., caption=...)``, so that the picture is there without a front end. No callback trains
anything, and the pictures of an explorer carry their text with them.
"""

from clkit import plots
from clkit.book.show import as_html
from clkit.errors import ClkitError
from clkit.result import interval


class ExploreError(ClkitError):
    """A place that is not there, or results that hold nothing to look at; the message says what to do."""


# ---- results, and how they are spoken of


def chosen(results, seed):
    """The seeds of the one method in `results`, or the one with this seed."""
    groups = plots.grouped(results)
    if len(groups) > 1:
        raise ExploreError(
            f"this view shows one method, not {len(groups)} ({', '.join(groups)}): give the results of one"
        )
    seeds = next(iter(groups.values()))
    found = [r for r in seeds if seed in (None, r.about.get("seed"))]
    if not found:
        there = ", ".join(str(r.about["seed"]) for r in seeds)
        raise ExploreError(f"there is no seed {seed}: these results have the seeds {there}")
    return found


def shared(lists):
    """What all of them hold, sorted."""
    return sorted(set.intersection(*map(set, lists)))


def said_interval(values, unit="%"):
    """A mean with the kind of its interval, in a sentence."""
    i = interval(values)
    sure = f" (± {100 * i.half:.1f}, {i.kind}, n = {i.n})" if i.n > 1 else ""
    return f"{100 * i.mean:.1f} {unit}{sure}"


def name_of(seeds):
    """What the book calls the method of these results."""
    return plots.style(seeds[0].about.get("method", "learner"))["label"]


def seeds_of(seeds):
    """Which seeds are shown, in words."""
    return f"{len(seeds)} seeds together" if len(seeds) > 1 else f"seed {seeds[0].about.get('seed', '?')}"


# ---- controls around a view


def slider(name, last, first=1):
    """A slider over whole numbers, from `first` to `last`."""
    from ipywidgets import IntSlider

    options = {"continuous_update": False, "disabled": last == first}
    return IntSlider(value=first, min=first, max=last, description=name, **options)


def choice(name, options):
    """A list to choose from; options: [(label, value)]."""
    from ipywidgets import Dropdown

    return Dropdown(options=options, value=options[0][1], description=name)


def choice_of(groups):
    """A list of the methods to choose from."""
    return choice("method", [(plots.style(method)["label"], method) for method in groups])


def explorer(view, **controls):
    """Widgets that call view(**values) whenever one of them changes; the picture is HTML with its text."""
    from ipywidgets import HTML, HBox, Layout, VBox

    screen, drawn = HTML(), {}

    def draw(_=None):
        place = tuple((name, c.value) for name, c in controls.items())
        if place not in drawn:
            drawn[place] = as_html(view(**dict(place)))
        screen.value = drawn[place]

    for control in controls.values():
        control.observe(draw, names="value")
    draw()
    shown = [c for c in controls.values() if len(getattr(c, "options", (1, 2))) > 1]
    return VBox([HBox(shown, layout=Layout(flex_flow="row wrap")), screen])
