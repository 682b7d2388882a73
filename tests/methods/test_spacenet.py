"""SpaceNet: exact invariants, importance by hand, a plain version, both paths step by step."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.data import Batches
from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.methods.spacenet import spacenet
from clkit.methods.spacenet.compact import CompactMLP, scale_and_shift
from clkit.methods.spacenet.spacenet import Block, Config, MaskedNet, SpaceNet, importances
from tests.fakes import small_stream

TINY = Config(
    hidden=(8, 8),
    selected=(4, 4),
    reserved=(2, 2),
    connections=(40, 8, 4),
    rewire=0.25,
    epochs=3,
    batch_size=16,
    lr=0.1,
    mean=(0.3,),
    std=(0.4,),
)
CONV = dataclasses.replace(
    TINY,
    net="conv",
    maps=(4, 4, 6, 6),
    hidden=(10,),
    selected=(4, 4, 6, 6, 8),
    reserved=(1, 0, 1, 1, 2),
    connections=0.3,
)
SOME = {"mlp": TINY, "conv": CONV}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """With matrices this small, waiting for a second thread costs more than the arithmetic."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Watched(SpaceNet):
    """Stores the state at the start and end of each task."""

    def learn(self, task, trace):
        self.before = [*getattr(self, "before", []), self.state()]
        super().learn(task, trace)
        self.after = [*getattr(self, "after", []), self.state()]

    def state(self):
        return {k: v.clone() for k, v in self.state_dict().items()}


class Readable(Watched):
    """Uses the readable path for every network."""

    readable = True


PATHS = {"mlp, compact": (TINY, Watched), "mlp, readable": (TINY, Readable), "conv": (CONV, Watched)}


def stream_for(config):
    return small_stream(side=8 if config.maps else 6)


def go(config, tasks=None, dtype=torch.float32, seed=0, kind=Watched):
    """Train a learner on a stream by hand: (learner, Trace)."""
    tasks = tasks or stream_for(config)
    seed_everything(seed)
    learner = kind(config, tasks.shape, tasks.classes).to(dtype)
    trace = Trace("*", progress=False)
    for task in tasks:
        seed_everything(seed, 1 + task.index)
        trace.begin(learner, task.index)
        learner.learn(task, trace)
        trace.end()
    return learner, trace


def rows(trace, table, **wanted):
    """The rows of a table with the given values, as dictionaries."""
    columns = {c: [row for part in parts for row in part] for c, parts in trace.tables.get(table, {}).items()}
    found = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return [row for row in found if all(row[k] == v for k, v in wanted.items())]


def full(row, shape):
    """The mask over all neurons of the layer, from a row of the table "masks"."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[torch.from_numpy(row["targets"])[:, None], torch.from_numpy(row["sources"])] = torch.from_numpy(
        row["mask"]
    )
    return mask


@pytest.fixture(scope="module", params=PATHS)
def learned(request):
    config, kind = PATHS[request.param]
    return go(config, kind=kind)


@pytest.fixture
def events(monkeypatch):
    """Each Block before and after each rewiring."""
    seen, rewire = [], Block.rewire

    def watched(self, share, targets, sources, growth):
        before = {k: v.clone() for k, v in self.state_dict().items()}
        k = rewire(self, share, targets, sources, growth)
        after = {k: v.clone() for k, v in self.state_dict().items()}
        seen.append((self, before, after, k, targets.clone(), sources.clone()))
        return k

    monkeypatch.setattr(Block, "rewire", watched)
    return seen


# ---- what stays unchanged


def test_the_connections_of_old_tasks_do_not_move_by_one_bit(learned):
    learner, _ = learned
    layers = len(learner.layers)
    names = [n for n, p in learner.named_parameters() if n.endswith("weight")]
    assert len(names) == layers
    for t, then in enumerate(learner.after):
        for later in learner.after[t + 1 :]:
            for l, name in enumerate(names):
                occupied = then[f"occupied{l}"]
                now, old = (learner.by_pairs(l, s[name])[occupied] for s in (later, then))
                assert occupied.any() and torch.equal(now, old)


def test_there_is_no_weight_without_a_connection(learned):
    learner, _ = learned
    for t, then in enumerate(learner.after):
        for l, layer in enumerate(learner.layers):
            name = next(n for n, p in learner.named_parameters() if p is layer.weight)
            assert not learner.by_pairs(l, then[name])[~then[f"occupied{l}"]].any()
        head = then["net.head.weight"]
        assert not head[2 * (t + 1) :].any() and head[: 2 * (t + 1)].any(1).all()


def test_masks_of_tasks_are_disjoint_and_add_up(learned):
    learner, trace = learned
    last = max(r["epoch"] for r in rows(trace, "masks"))
    for l in range(len(learner.layers)):
        shape = (learner.widths[l + 1], learner.widths[l])
        masks = [full(r, shape) for r in rows(trace, "masks", layer=l, epoch=last)]
        assert len(masks) == 3 and torch.stack(masks).sum(0).max() == 1
        assert torch.equal(torch.stack(masks).any(0), learner.after[-1][f"occupied{l}"])
        for t, row in enumerate(rows(trace, "connections", layer=l)):
            assert row["allocated"] == masks[t].sum() and row["total"] == sum(m.sum() for m in masks[: t + 1])
            assert row["allocated"] <= row["asked"] and row["places"] == math.prod(shape)


def test_the_number_of_connections_is_the_same_at_every_event(learned):
    learner, trace = learned
    for l in range(len(learner.layers)):
        for t in range(3):
            sums = [r["mask"].sum() for r in rows(trace, "masks", layer=l, task=t)]
            assert len(sums) == 4 and set(sums) == {sums[0]} and sums[0] > 0


def test_the_output_layer_and_static_connections_are_never_rewired(learned):
    learner, trace = learned
    top = len(learner.layers) - 1
    static, seen = go(dataclasses.replace(learner.config, adaptive=False), kind=type(learner))
    for t in range(3):
        first, *others = (r["mask"] for r in rows(trace, "masks", layer=top, task=t))
        assert all((first == m).all() for m in others)
        for l in range(top):
            first, *others = (r["mask"] for r in rows(seen, "masks", layer=l, task=t))
            assert all((first == m).all() for m in others)
            first, *others = (r["mask"] for r in rows(trace, "masks", layer=l, task=t))
            moved = sum(r["grown"] for r in rows(trace, "rewiring", layer=l, task=t))
            assert bool(moved) == any((first != m).any() for m in others)
    assert sum(r["grown"] for r in rows(trace, "rewiring")) > 10
    assert {(r["dropped"], r["grown"]) for r in rows(seen, "rewiring")} == {(0, 0)}
    assert all(then["net.head.weight"].any() for then in static.after)


# ---- which neurons may connect


def test_reserved_neurons_are_left_alone(learned):
    learner, trace = learned
    for j in range(len(learner.widths) - 2):
        found = rows(trace, "neurons", layer=j)
        reserved = [set(r["reserved"].tolist()) for r in found]
        for t, row in enumerate(found):
            assert len(reserved[t]) == learner.config.reserved[j]
            assert reserved[t] <= set(row["chosen"].tolist())
            assert len(row["chosen"]) == min(
                learner.config.selected[j], learner.widths[j + 1] - sum(map(len, reserved[:t]))
            )
            assert row["free"] == learner.widths[j + 1] - sum(map(len, reserved[: t + 1]))
            earlier = sorted(set().union(*reserved[:t]))
            assert not earlier or not reserved[t] & set(earlier)
            for layer, axis in ((j, 0), (j + 1, 1)):  # neither receiving nor sending
                shape = (learner.widths[layer + 1], learner.widths[layer])
                for mask in rows(trace, "masks", layer=layer, task=t):
                    touched = full(mask, shape).any(1 - axis)
                    assert not touched[torch.tensor(earlier, dtype=torch.int64)].any()


def test_the_chosen_neurons_with_the_largest_importance_are_reserved(learned):
    learner, trace = learned
    for row in rows(trace, "neurons"):
        here = {"task": row["task"], "layer": row["layer"]}
        (last,) = rows(trace, "importance", epoch=learner.config.epochs, **here)
        a = dict(zip(rows(trace, "masks", epoch=0, **here)[0]["targets"].tolist(), last["target_importance"]))
        reserved = set(row["reserved"].tolist())
        others = [a[n] for n in row["chosen"].tolist() if n not in reserved]
        assert not reserved or not others or min(a[n] for n in reserved) >= max(others)
    assert any(len(r["reserved"]) and r["task"] for r in rows(trace, "neurons"))


def test_both_ends_of_a_connection_are_chosen(learned):
    learner, trace = learned
    for t in range(3):
        chosen = [
            set(range(learner.widths[0])),
            *(set(r["chosen"].tolist()) for r in rows(trace, "neurons", task=t)),
            {2 * t, 2 * t + 1},
        ]
        for row in rows(trace, "masks", task=t):
            shape = [learner.widths[row["layer"] + k] for k in (1, 0)]
            targets, sources = full(row, shape).nonzero().T.tolist()
            assert set(targets) <= chosen[row["layer"] + 1] and set(sources) <= chosen[row["layer"]]


# ---- drop and grow


@pytest.mark.parametrize("name", PATHS)
def test_an_event_drops_the_least_and_grows_the_best(name, events):
    config, kind = PATHS[name]
    go(config, kind=kind)
    assert len(events) == 3 * 2 * (len(config.hidden) + len(config.maps))
    for block, before, after, k, targets, sources in events:
        old, new = before["mask"] > 0, after["mask"] > 0
        dropped, grown, kept = old & ~new, new & ~old, old & new
        assert k == min(int(0.25 * old.sum()), int((block.allowed & ~old).sum()))
        assert k == dropped.sum() == grown.sum()
        assert not (grown & ~block.allowed).any() and not after["values"][dropped | grown].any()
        assert torch.equal(before["values"][kept], after["values"][kept])
        assert not after["omega"][grown].any() and torch.equal(before["omega"][kept], after["omega"][kept])
        if k:
            assert before["omega"][dropped].max() <= before["omega"][kept].min()
            gain, others = targets[:, None] * sources, block.allowed & ~old & ~new
            assert not others.any() or gain[grown].min() >= gain[others].max()


def test_ties_are_broken_by_chance_and_random_growth_ignores_importance():
    flat = torch.zeros(40, 40)
    picks = torch.stack([spacenet._pick(flat, 10).sort().values for _ in range(50)])
    assert len(picks.unique(dim=0)) == 50 and all(len(p.unique()) == 10 for p in picks)
    counts = torch.bincount(torch.cat([spacenet._pick(flat, 400) for _ in range(60)]), minlength=1600)
    assert counts.min() > 2 and counts.max() < 30  # each place is drawn 15 times of 60 on average
    block = a_block(torch.ones(6, 50, dtype=torch.bool), 100)
    block.rewire(0.5, torch.tensor([100.0, 0, 0, 0, 0, 0]), torch.ones(50), "random")
    assert (block.mask > 0).any(1).all()


def a_block(allowed, wanted, reading="paper"):
    O, I = allowed.shape
    return Block(torch.zeros(O, I, 1), torch.arange(O), torch.arange(I), allowed, wanted, reading)


# ---- importance


def test_importance_by_hand():
    """One linear unit, loss (w x - y)^2 / 2, two steps at rate 0.1, computed by hand."""
    for reading, a, inputs in (("paper", 1.076, [0.676, 0.4]), ("code", 1.576, [0.776, 0.8])):
        block = a_block(torch.ones(1, 2, dtype=torch.bool), 2, reading)
        block.values.copy_(torch.tensor([[0.5, -0.25]])[:, :, None])
        for x, y in (((1.0, 2.0), 1.0), ((2.0, 0.0), 0.0)):
            x = torch.tensor([x])
            gradient = ((block.values[:, :, 0] * x).sum() - y) * x
            block.update(gradient[:, :, None], 0.1)
        torch.testing.assert_close(block.values[0, :, 0], torch.tensor([0.36, -0.05]))
        torch.testing.assert_close(block.omega, torch.tensor([[0.676, 0.4]]))
        ((targets, sources),) = importances([block])
        torch.testing.assert_close(targets, torch.tensor([a]))
        torch.testing.assert_close(sources, torch.tensor(inputs))


def test_hidden_neurons_count_what_comes_in():
    first = a_block(torch.ones(3, 4, dtype=torch.bool), 12)
    second = a_block(torch.ones(2, 3, dtype=torch.bool), 6)
    first.omega.copy_(torch.arange(12.0).view(3, 4))
    second.omega.copy_(torch.arange(6.0).view(2, 3))
    (a, inputs), (b, hidden) = importances([first, second])
    assert a.tolist() == [6, 22, 38] and inputs.tolist() == [12, 15, 18, 21]
    assert b.tolist() == [3, 12] and hidden.tolist() == a.tolist()
    first.mask[1] = 0  # no connection, no importance
    assert importances([first])[0][0].tolist() == [6, 0, 38]


def test_a_kernel_counts_the_sum_of_its_weights():
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    block = Block(torch.zeros(2, 3, 9), torch.arange(2), torch.arange(3), everywhere, 3)
    gradient = torch.randn(2, 3, 9)
    block.update(gradient.clone(), 0.1)
    there = block.mask > 0
    torch.testing.assert_close(block.omega[there], 0.1 * gradient.square().sum(2)[there])
    torch.testing.assert_close(block.values, -0.1 * gradient * there[:, :, None])


def test_a_task_begins_with_its_start_values_and_without_importance(monkeypatch):
    made = []
    monkeypatch.setattr(
        Watched,
        "report_masks",
        lambda self, blocks, epoch, trace: made.append(
            (self, epoch, [{k: v.clone() for k, v in b.state_dict().items()} | {"block": b} for b in blocks])
        ),
    )
    for config, kind in PATHS.values():
        made.clear()
        go(config, kind=kind)
        starts = [blocks for _, epoch, blocks in made if epoch == 0]
        assert len(starts) == 3
        learner = made[0][0]
        for blocks in starts:
            for l, b in enumerate(blocks):
                drawn = learner.by_pairs(l, learner.start_values()[l])
                drawn = drawn[b["block"].targets[:, None], b["block"].sources]
                there = b["mask"] > 0
                assert torch.equal(b["values"][there], drawn[there]) and drawn[there].all()
                assert not b["omega"].any() and not b["fan_in"].any() and not b["fan_out"].any()


def test_start_values_are_one_glorot_draw():
    learner = SpaceNet(Config(), (1, 28, 28), 10)
    for layer, drawn, again in zip(learner.layers, learner.start_values(), learner.start_values()):
        bound = math.sqrt(6 / sum(layer.weight.shape))
        assert torch.equal(drawn, again) and drawn.abs().max() <= bound
        assert drawn.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    conv = SpaceNet(CONV, (1, 8, 8), 6)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(conv.layers[1].weight)
    largest = conv.start_values()[1].abs().max().item()
    assert largest == pytest.approx(math.sqrt(6 / (fan_in + fan_out)), rel=0.02)


# ---- interference


def test_without_shared_neurons_old_scores_stay():
    """If all chosen neurons are reserved, later tasks change nothing that a task uses."""
    config = dataclasses.replace(TINY, selected=(2, 2), reserved=(2, 2), connections=(30, 3, 3))
    apart, shared = drift(config), drift(TINY)
    assert max(apart) < 1e-6 and max(shared) > 1e-3


def drift(config):
    """How far the scores of each task's classes moved between its end and the end of the stream."""
    tasks, scores = small_stream(), []
    seed_everything(0)
    learner = SpaceNet(config, tasks.shape, tasks.classes)
    x = tasks.test.images.float() / 255
    for task in tasks:
        learner.learn(task, Trace())
        scores.append(learner(x).detach())
        assert scores[-1][:, task.first : task.seen].std() > 1e-3
    own = [slice(2 * t, 2 * t + 2) for t in range(3)]
    return [float((scores[-1][:, o] - s[:, o]).abs().max()) for s, o in zip(scores, own)]


def test_places_that_run_out_are_counted_and_never_an_error():
    config = dataclasses.replace(TINY, selected=(), reserved=(3, 3), connections=(200, 50, 12))
    learner, trace = go(config)
    missing = [r["asked"] - r["allocated"] for r in rows(trace, "connections")]
    assert max(missing) > 0 and min(missing) >= 0
    assert all(p.isfinite().all() for p in learner.parameters())
    whole = dataclasses.replace(TINY, selected=(), reserved=(4, 4), connections=(288, 64, 48))
    learner, trace = go(whole)
    assert rows(trace, "neurons", task=2)[0]["free"] == 0
    assert rows(trace, "connections", task=2, layer=0)[0]["allocated"] == 0


# ---- the whole method against a plain version


@pytest.fixture
def drawn(monkeypatch):
    """The indices of all batches, in order."""
    seen, places = [], Batches.indices

    def watched(self):
        for index in places(self):
            seen.append(index.clone())
            yield index

    monkeypatch.setattr(Batches, "indices", watched)
    return seen


class Plain:
    """The algorithm on full matrices with autograd: restores old weights after each step, takes the masks."""

    def __init__(self, learner):
        self.learner, self.config = learner, learner.config
        self.start = [w.double() for w in learner.start_values()]
        self.weights = [torch.zeros_like(w) for w in self.start]
        self.biases = [torch.zeros(len(w), dtype=torch.float64) for w in self.start]
        self.free = [torch.ones(n, dtype=torch.bool) for n in learner.widths[1:-1]]

    def spread(self, l, mask):
        """Expand a mask of neurons to a mask of weights."""
        block = self.learner.by_pairs(l, self.start[l]).shape[2]
        return mask[:, :, None].expand(-1, -1, block).reshape(self.start[l].shape)

    def logits(self, x, weights, biases):
        x = (x - self.learner.mean) / self.learner.std
        if not self.config.maps:
            x = x.flatten(1)
        for l, (w, b) in enumerate(zip(weights, biases)):
            if w.ndim == 4:
                x = F.conv2d(x, w, b, padding=1 - l % 2).relu()
                if l % 2:
                    x = F.max_pool2d(x, [min(2, s) for s in x.shape[2:]])
            else:
                x = F.linear(x.flatten(1), w, b)
                x = x.relu() if l < len(weights) - 1 else x
        return x

    def task(self, task, images, labels, masks, batches):
        """masks[epoch][l]: (O, I); batches: indices.   Returns omega of the last epoch, (O, I) per layer, and
        the mean loss of each epoch."""
        losses = []
        for l, mask in enumerate(masks[0]):
            there = self.spread(l, mask)
            self.weights[l] = torch.where(there, self.start[l], self.weights[l])
        omega = [torch.zeros(m.shape, dtype=torch.float64) for m in masks[0]]
        per_epoch = -(-len(labels) // self.config.batch_size)
        for epoch in range(self.config.epochs):
            total = 0
            for index in batches[epoch * per_epoch : (epoch + 1) * per_epoch]:
                total += self.step(images[index].double() / 255, labels[index], masks[epoch], omega, task)
            losses.append(total / per_epoch)
            found = [o.clone() for o in omega]
            if epoch < self.config.epochs - 1:
                for l, (old, new) in enumerate(zip(masks[epoch], masks[epoch + 1])):
                    self.weights[l] = self.weights[l] * ~self.spread(l, (old & ~new) | (new & ~old))
                    if self.config.importance == "paper":
                        omega[l][~new] = 0
        return [o * m for o, m in zip(found, masks[-1])], losses

    def step(self, x, y, masks, omega, task):
        weights = [w.clone().requires_grad_() for w in self.weights]
        biases = [b.clone().requires_grad_() for b in self.biases]
        rows = torch.ones(len(self.biases[-1]), dtype=torch.float64)
        if not self.config.rehearsal:  # old rows are out of the network
            rows[: task.first] = 0
        logits = self.logits(x, [*weights[:-1], weights[-1] * rows[:, None]], biases)
        first = task.first if self.config.softmax == "task" and not self.config.rehearsal else 0
        last = len(rows) if self.config.softmax == "all" else task.seen
        loss = F.cross_entropy(logits[:, first:last], y - first)
        loss.backward()
        for l, mask in enumerate(masks):
            there = self.spread(l, mask)
            change = -self.config.lr * weights[l].grad * there
            self.weights[l] = self.weights[l] + change
            importance = (change * weights[l].grad).abs()
            omega[l] += self.learner.by_pairs(l, importance).sum(2)
            trains = (
                torch.arange(len(rows)) >= task.first
                if l == len(masks) - 1
                else self.free[l] & self.config.hidden_bias
            )
            if l == len(masks) - 1:
                trains = trains & (torch.arange(len(rows)) < task.seen)
            self.biases[l] = self.biases[l] - self.config.lr * biases[l].grad * trains
        return loss.detach()


VARIANTS = {
    "paper": {},
    "code": {"importance": "code"},
    "static": {"adaptive": False},
    "rehearsal": {"rehearsal": True},
    "seen": {"softmax": "seen"},
    "task": {"softmax": "task"},
    "no hidden biases": {"hidden_bias": False},
    "random growth": {"growth": "random"},
    "three hidden layers": {
        "hidden": (8, 7, 6),
        "selected": (4, 4, 3),
        "reserved": (2, 2, 1),
        "connections": (40, 8, 7, 4),
    },
}


@pytest.mark.parametrize(
    "name, variant", [(n, v) for n in SOME for v in VARIANTS if n == "mlp" or "hidden" not in VARIANTS[v]]
)
def test_the_readable_path_against_the_plain_method_in_float64(name, variant, drawn):
    config = dataclasses.replace(SOME[name], **VARIANTS[variant])
    tasks = stream_for(config)
    learner, trace = go(config, tasks, torch.float64, kind=Readable)
    plain, place = Plain(learner), 0
    images, labels = tasks.test.images[:0], tasks.test.labels[:0]
    for task in tasks:
        keep = config.rehearsal
        images = torch.cat([images, task.train.images]) if keep else task.train.images
        labels = torch.cat([labels, task.train.labels]) if keep else task.train.labels
        shapes = [(learner.widths[l + 1], learner.widths[l]) for l in range(len(learner.layers))]
        masks = [
            [full(r, shapes[r["layer"]]) for r in rows(trace, "masks", task=task.index, epoch=e)]
            for e in range(config.epochs)
        ]
        steps = config.epochs * -(-len(labels) // config.batch_size)
        omega, losses = plain.task(task, images, labels, masks, drawn[place : place + steps])
        found = [row["loss"] for row in rows(trace, "loss", task=task.index)]
        assert found == pytest.approx([float(loss) for loss in losses], abs=1e-10)
        place += steps
        compare(learner, plain, trace, task, omega, shapes)
        for l, row in enumerate(rows(trace, "neurons", task=task.index)):
            plain.free[l][torch.from_numpy(row["reserved"])] = False
    assert place == len(drawn)
    x = tasks.test.images.double() / 255
    torch.testing.assert_close(learner(x), plain.logits(x, plain.weights, plain.biases), rtol=0, atol=1e-10)


def compare(learner, plain, trace, task, omega, shapes):
    """Compare weights and biases after a task, and its final importance."""
    state = learner.after[task.index]
    names = {id(p): n for n, p in learner.named_parameters()}
    for l, layer in enumerate(learner.layers):
        torch.testing.assert_close(state[names[id(layer.weight)]], plain.weights[l], rtol=0, atol=1e-10)
        torch.testing.assert_close(state[names[id(layer.bias)]], plain.biases[l], rtol=0, atol=1e-10)
        row = rows(trace, "importance", task=task.index, layer=l, epoch=learner.config.epochs)[0]
        ends = [rows(trace, "masks", task=task.index, layer=l, epoch=0)[0][k] for k in ("targets", "sources")]
        found = torch.zeros(shapes[l], dtype=torch.float64)
        found[torch.from_numpy(ends[0])[:, None], torch.from_numpy(ends[1])] = torch.from_numpy(row["omega"])
        torch.testing.assert_close(found, omega[l], rtol=0, atol=1e-12)


def test_the_code_s_importance_is_a_sum_of_sums():
    """fan_in and fan_out are cumulative sums over the sums of omega."""
    block = a_block(torch.ones(3, 5, dtype=torch.bool), 15, "code")
    draw, omega, fan_in, fan_out = (torch.Generator().manual_seed(0), *map(torch.zeros, ((3, 5), 3, 5)))
    for _ in range(4):
        gradient = torch.randn(3, 5, 1, generator=draw)
        block.update(gradient, 0.1)
        omega += 0.1 * gradient[:, :, 0] ** 2
        fan_in += omega.sum(1)
        fan_out += omega.sum(0)
    torch.testing.assert_close(block.fan_in, fan_in)
    torch.testing.assert_close(block.fan_out, fan_out)


# ---- the fast path against the readable one


def steps(config, kind, monkeypatch):
    """The states of a float64 run after each step, [{name: tensor}], and its final random state."""
    found = []
    with monkeypatch.context() as patch:
        for backend in (CompactMLP, MaskedNet):
            patch.setattr(backend, "step", watching(backend.step, found))
        go(config, dtype=torch.float64, kind=kind)
    return found, torch.get_rng_state()


def watching(step, found):
    def watched(self, index):
        loss = step(self, index)
        self.put()
        weights = {k: v.clone() for k, v in self.learner.net.state_dict().items()}
        state = {"path": type(self), "loss": loss} | weights
        for l, block in enumerate(self.blocks):
            state |= {
                f"mask{l}": block.mask.clone(),
                f"omega{l}": block.omega * block.mask,
                f"fan_in{l}": block.fan_in.clone(),
                f"fan_out{l}": block.fan_out.clone(),
            }
        found.append(state)
        return loss

    return watched


BOTH = VARIANTS | {
    "rehearsal, code": {"rehearsal": True, "importance": "code"},
    "rehearsal, seen": {"rehearsal": True, "softmax": "seen"},
    "rehearsal, task, static": {"rehearsal": True, "softmax": "task", "adaptive": False},
    "code, task, no hidden biases": {"importance": "code", "softmax": "task", "hidden_bias": False},
    "too few places": {"selected": (), "reserved": (3, 3), "connections": (200, 50, 12)},
}


@pytest.mark.parametrize("variant", BOTH)
def test_both_paths_are_equal_step_by_step(variant, monkeypatch):
    config = dataclasses.replace(TINY, **BOTH[variant])
    (fast, drawn), (slow, drawn_too) = (steps(config, kind, monkeypatch) for kind in (Watched, Readable))
    assert len(fast) == len(slow) >= 3 * 3 * 3 and torch.equal(drawn, drawn_too)
    for a, b in zip(fast, slow):
        assert a.pop("path") is CompactMLP and b.pop("path") is MaskedNet and a.keys() == b.keys()
        for name in a:
            tolerance = 0 if name.startswith("mask") else 1e-10
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance, msg=lambda m: f"{name}: {m}")
    moved = [not torch.equal(fast[0][f"mask{l}"], s[f"mask{l}"]) for s in fast[:9] for l in range(2)]
    assert any(moved) == config.adaptive


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("settings", [{}, {"rehearsal": True, "importance": "code"}], ids=["paper", "all"])
def test_a_task_stopped_at_a_checkpoint_resumes_bit_for_bit(name, settings):
    config, kind = PATHS[name]
    config, saved = dataclasses.replace(config, **settings), []
    tasks = stream_for(config)
    whole, _ = go(config, tasks, kind=kind)
    learner = kind(config, tasks.shape, tasks.classes)
    begun = {"parameters": {}, "buffers": {}, "frozen": [], "eval": []}
    names = {n for n, _ in learner.named_parameters()}
    for n, tensor in whole.before[1].items():
        begun["parameters" if n in names else "buffers"][n] = tensor
    second(learner, tasks[1], begun, Trace("*", save=lambda s: saved.append(copied(s)), every=0))
    assert len(saved) == config.epochs and same(learner, whole.after[1])
    for state in saved:
        other = kind(config, tasks.shape, tasks.classes)
        second(other, tasks[1], begun, Trace("*"), state)
        assert same(other, whole.after[1])


def second(learner, task, begun, trace, state=None):
    """Train a learner on the second task, from its start or from a checkpoint."""
    learner.restore(begun)
    trace.begin(learner, 1, state=state)
    seed_everything(0, 2)
    learner.learn(task, trace)
    trace.end()


def same(learner, state):
    return learner.state_dict().keys() == state.keys() and all(
        torch.equal(v, state[k]) for k, v in learner.state_dict().items()
    )


# ---- what it records


def test_activations_are_those_of_the_hidden_layers():
    learner, _ = go(TINY)
    x = torch.rand(5, 1, 6, 6)
    first = (F.linear((x.flatten(1) - 0.3) / 0.4, learner.layers[0].weight, learner.layers[0].bias)).relu()
    second = F.linear(first, learner.layers[1].weight, learner.layers[1].bias).relu()
    torch.testing.assert_close(learner.activations(x), torch.cat([first, second], 1))
    conv, _ = go(CONV)
    assert conv.activations(torch.rand(2, 1, 8, 8)).shape == (2, 4 * 64 + 4 * 36 + 6 * 9 + 6 * 1 + 10)
    assert not any(m._forward_hooks for m in conv.modules())


def test_sizes_are_counted():
    learner, trace = go(TINY)
    assert [r["connections"] for r in rows(trace, "network")] == [52, 104, 156]
    assert [r["weights"] for r in rows(trace, "network")] == [52, 104, 156]
    assert {(r["biases"], r["masks_at_test"]) for r in rows(trace, "network")} == {(22, 0)}
    assert learner.memory_bytes()["masks"] == sum(
        v.numel() for k, v in learner.state_dict().items() if k.startswith(("occupied", "free"))
    )
    assert "exemplars" not in learner.memory_bytes() and not learner.stores_images
    conv, trace = go(CONV)
    held = sum(int((p != 0).sum()) for n, p in conv.named_parameters() if n.endswith("weight"))
    said = rows(trace, "network")[-1]
    assert said["connections"] < held <= said["weights"] <= held + 400  # grown last, and not moved since


def test_the_mask_of_a_kernel_is_one_entry():
    learner, _ = go(CONV)
    assert learner.occupied1.shape == (4, 4) and learner.occupied4.shape == (10, 6)
    block = learner.by_pairs(4, learner.layers[4].weight)
    assert block.shape[:2] == (10, 6)
    flat = torch.arange(learner.layers[4].weight.shape[1]).view(6, -1)  # columns of the first dense layer
    assert all(torch.equal(block[:, m], learner.layers[4].weight[:, flat[m]]) for m in range(6))


def test_rehearsal_keeps_all_images():
    tasks = small_stream()
    learner, _ = go(dataclasses.replace(TINY, rehearsal=True), tasks)
    assert learner.stores_images and len(learner.memory_images) == sum(len(t.train) for t in tasks)
    assert learner.memory_bytes()["exemplars"] == learner.memory_images.numel() + 8 * len(
        learner.memory_labels
    )


def test_pixels_by_channel():
    config = dataclasses.replace(CONV, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    learner, x = SpaceNet(config, (3, 8, 8), 6), torch.rand(2, 3, 8, 8)
    found = learner.standardised(x)
    assert all(
        torch.allclose(found[:, c], (x[:, c] - m) / s)
        for c, m, s in ((0, 0.1, 0.4), (1, 0.2, 0.5), (2, 0.3, 0.6))
    )
    mlp = SpaceNet(dataclasses.replace(TINY, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), (3, 6, 6), 6)
    scale, shift = scale_and_shift(mlp)
    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    torch.testing.assert_close(images.flatten(1) * scale + shift, mlp.standardised(images / 255).flatten(1))


# ---- settings


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"reserved": (81, 40)}, "81 of 80 selected neurons cannot be reserved"),
        ({"reserved": (40,)}, "one number for each of the 2 hidden layers"),
        ({"selected": (401, 80)}, "401 neurons of a hidden layer of 400"),
        ({"selected": (0, 80)}, "0 neurons of a hidden layer"),
        ({"selected": (80,)}, "for each of the 2 hidden layers"),
        ({"rewire": 1.0}, r"rewire must be a share of the connections in \[0, 1\)"),
        ({"rewire": -0.1}, "not -0.1"),
        ({"connections": (10_000, 1_640)}, "each of 3 layers"),
        ({"connections": (10_000, 0, 80)}, "at least 1 for each"),
        ({"connections": (62_721, 1_640, 80)}, "layer 1 has 62,720 places"),
        ({"connections": (10_000, 6_401, 80)}, "layer 2 has 6,400 places"),
        ({"connections": (10_000, 1_640, 801)}, "layer 3 has 800 places"),
        ({"connections": 1.5}, r"must lie in \(0, 1\], not 1.5"),
        ({"hidden": (0, 400)}, "at least one unit"),
        ({"importance": "both"}, "importance must be 'paper' or 'code'"),
        ({"growth": "best"}, "growth must be 'importance' or 'random'"),
        ({"softmax": "none"}, "softmax must be"),
        ({"maps": (32, 32, 64, 64)}, "there is no network 'mlp' with maps"),
        ({"net": "conv"}, "with maps such as"),
        ({"net": "conv", "maps": (8, 8), "hidden": (400,)}, "four numbers of maps"),
        ({"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}, "3 numbers, but the images have 1 channels"),
        ({"mean": (0.1, 0.2)}, "one number per channel"),
        ({"std": (0.0,)}, "above 0 for std"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(LearnerError, match=message) as error:
        SpaceNet(Config(**settings), (1, 28, 28), 10)
    assert "\n" not in str(error.value) and str(error.value).count(". ") == 0
