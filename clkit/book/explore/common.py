"""Views of a method's results, and the frame of all explorers: controls around a view.

A *view* is a plain function of results and of a place; it returns View(axes, text). An explorer puts sliders
around a view. The same view is called once in an ordinary cell, ``show.figure(confusion_view(results,
stage=4), id=..., caption=...)``, so that the picture is there without a front end. No callback trains
anything, and the pictures of an explorer carry their text with them.
"""

from clkit import plots
from clkit.book.show import as_png, png_as_html
from clkit.errors import ClkitError
from clkit.result import interval

HINT = "An interactive view: run this cell in JupyterLab to use it."


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


def stops(name, options, at=-1):
    """A slider over given values; options: [(label, value)].   at: number of the one it starts at."""
    from ipywidgets import SelectionSlider

    return SelectionSlider(options=options, value=options[at][1], description=name, continuous_update=False)


def choice(name, options, at=0):
    """A list to choose from; options: [(label, value)].   at: number of the one chosen first."""
    from ipywidgets import Dropdown

    return Dropdown(options=options, index=at, description=name)  # a value may be None


def choice_of(groups):
    """A list of the methods to choose from."""
    return choice("method", [(plots.style(method)["label"], method) for method in groups])


class Explorer:
    """Controls around a picture in JupyterLab; elsewhere the picture alone, or its text.

    view: function(**values) that gives a View.   controls: {name of a value: widget}. Whenever one of them
    changes, the picture and the text below it do; no picture is drawn twice.
    """

    def __init__(self, view, controls):
        from ipywidgets import HTML, HBox, Layout, VBox

        self.view, self.controls, self.screen, self._drawn = view, controls, HTML(), {}
        shown = [c for c in controls.values() if len(getattr(c, "options", (1, 2))) > 1]
        self.box = VBox([HBox(shown, layout=Layout(flex_flow="row wrap")), self.screen])
        for control in controls.values():
            control.observe(self._show, names="value")
        self._show()

    def picture(self):
        """(PNG, its metadata) of the place where the controls stand."""
        place = tuple((name, control.value) for name, control in self.controls.items())
        if place not in self._drawn:
            self._drawn[place] = as_png(self.view(**dict(place)))
        return self._drawn[place]

    def _show(self, _=None):
        self.screen.value = png_as_html(*self.picture())

    def _repr_mimebundle_(self, **_):
        # The picture is for places without widgets: the exported book, a notebook that is not trusted yet.
        image, look = self.picture()
        shown = {"image/png": image, "text/plain": repr(self)}
        return self.box._repr_mimebundle_() | shown, {"image/png": look}

    def __repr__(self):
        return f"{self.picture()[1]['alt']}\n{HINT}"


def explorer(view, **controls):
    """Widgets that call view(**values) whenever one of them changes."""
    return Explorer(view, controls)
