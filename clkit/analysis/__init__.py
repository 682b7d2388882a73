"""Measurements of a learner: while it learns (PROBES), after its run (STUDIES), and over it (HISTORIES).

A paper's table names one of them. A probe is a function of the experiment, its stream and the device; it
returns {column: function of the learner}, or {} where it does not apply. A study is a function of the
experiment; it returns a function of the learner and the stream, which returns the columns of the table. A
history is the same with the learners after each task in place of the last one.
"""

from functools import partial

UNITS_SHOWN = 50  # test images per class whose activations are recorded
TESTED_AT = 200  # images per class that are scored in the course of a task
DRAWN = {"smoke": 20, "teach": 200}  # images of each class that a judge sees; 1,000 in larger presets
COMPARED = {"smoke": 20, "teach": 200}  # images whose gradients are compared; 1,000 in larger presets
REPRESENTED = 2500  # test images of each task whose representations are compared, if there are so many


def activations(experiment, stream, device):
    """Hidden activations (100, units) for test images of two classes, if all layers are fully connected."""
    if experiment.config.net != "mlp":
        return {}
    x = first_of(stream.test, (0, 1), UNITS_SHOWN).images.to(device) / 255  # (100, C, H, W)
    return {"activations": lambda learner: learner.activations(x).half()}


def accuracy_by_task(experiment, stream, device):
    """Accuracy (T,) on test images of each task, among all classes, in the course of the tasks."""
    from clkit.engine.evaluate import accuracy_by_task as accuracy

    test = first_of(stream.test, range(stream.classes), TESTED_AT).to(device)
    return {"accuracy": partial(accuracy, test, stream.test_classes_per_task)}


def accuracy_by_epoch(experiment, stream, device):
    """Accuracy (T,) on validation and test images of each task after each epoch, if there are the former."""
    from clkit.analysis.validation import columns

    return columns(stream.to(device), TESTED_AT) if stream.val else {}


def generated_images(experiment, stream, device):
    """Accuracy of a fixed judge on images of each class that the learner draws, and eight of each."""
    from clkit.analysis.generated import columns

    return columns(stream, device, DRAWN.get(experiment.preset, 1000))


def recalled_features(experiment, stream, device):
    """Recalled and real features, class means of the latter, and how many of the former are recognised."""
    from clkit.analysis.features import columns

    return columns(stream.to(device), TESTED_AT)


def fine_grained(experiment, stream, device):
    """Accuracy of each class with and without the logits of other tasks, and what new images show."""
    from clkit.analysis.fine import columns

    return columns(stream.to(device), experiment.paper.shown.get((experiment.benchmark, experiment.preset)))


def gradient_correlation(experiment):
    """Cosines between the gradients of recalled and real images, by layer group."""
    from clkit.analysis import gradients

    n = COMPARED.get(experiment.preset, 1000)
    return partial(gradients.rows, images=n, batch_size=experiment.config.batch_size)


def similarity(_experiment):
    """SVCCA and CKA between the networks after each task, by layer, on test images of the earlier task."""
    from clkit.analysis import inside

    return partial(inside.rows, images=REPRESENTED)


def first_of(images, classes, n):
    """The first n images of each of these classes."""
    return images.select([i for k in classes for i in (images.labels == k).nonzero().flatten()[:n].tolist()])


PROBES = {
    "activations": activations,
    "accuracy_by_task": accuracy_by_task,
    "accuracy_by_epoch": accuracy_by_epoch,
    "generated": generated_images,
    "features": recalled_features,
    "fine": fine_grained,
}
STUDIES = {"gradients": gradient_correlation}
HISTORIES = {"similarity": similarity}
