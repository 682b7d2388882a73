"""Simple learners with everything that is hard to interrupt and resume; a small stream."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks.pixels import crop_and_flip
from clkit.data import ImageSet
from clkit.data.stream import Stream
from clkit.engine.learner import Learner, frozen
from clkit.engine.trace import Trace


def small_stream(classes=6, per_class=24, side=6, sizes=(2, 2, 2), **options):
    """Blobs of noise around a random pattern per class: (1, side, side) bytes, easy to learn."""
    draw = torch.Generator(device="cpu").manual_seed(1)
    patterns = torch.randint(0, 200, (classes, 1, side, side), generator=draw, device="cpu")

    def part(n):
        labels = torch.arange(classes, device="cpu").repeat_interleave(n)
        noise = torch.randint(0, 56, (len(labels), 1, side, side), generator=draw, device="cpu")
        return ImageSet(
            (patterns[labels] + noise).to(torch.uint8),
            labels,
            [f"class {c}" for c in range(classes)],
            name="blobs",
        )

    return Stream(part(per_class), part(8), sizes, **options)


def stop_after(task, patch, error=KeyboardInterrupt):
    """Raise an error once a task is learned; the learner itself, whose code counts, stays as it is."""
    end = Trace.end

    def ends(trace):
        if trace.task == task:
            raise error
        return end(trace)

    patch.setattr(Trace, "end", ends)


@dataclass(frozen=True)
class Config:
    """epochs: of each loop.   patience: of early stopping."""

    epochs: int = 4
    patience: int = 2


class Record:
    """The memory of early stopping, as an object with a state."""

    def __init__(self):
        self.best, self.bad = float("inf"), 0

    def better(self, loss):
        self.best, self.bad = (loss, 0) if loss < self.best else (self.best, self.bad + 1)
        return self.bad

    def state_dict(self):
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state):
        self.best, self.bad = state["best"], state["bad"]


class Growing(Learner):
    """A head that grows by classes, a layer that grows in a loop; batch norm, dropout, schedule, stopping."""

    tables = {"loss": "epoch, loss", "width": "epoch, units, weight (ragged)"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.body = nn.Linear(shape[0] * shape[1] * shape[2], 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)  # the first task replaces it
        self.register_buffer("means", None)

    def learn(self, task, trace):
        self.head.weight = grown(self.head.weight, (task.seen, self.head.weight.shape[1]))
        self.head.bias = grown(self.head.bias, (task.seen,))
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.epochs)
        record = Record()
        for epoch in trace.epochs("train", self.config.epochs, optimizer, schedule, record):
            loss = self.epoch(task, optimizer)
            schedule.step()
            trace("loss", epoch=epoch, loss=loss)
            if record.better(float(loss)) > self.config.patience:
                break
        self.widen()
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
        for epoch in trace.epochs("fine-tune", self.config.epochs, optimizer):
            if epoch == 1:  # a layer grows within a loop: a new tensor behind the same name,
                self.widen()  # which the optimizer of the loop must follow
                optimizer.param_groups[0]["params"] = list(self.parameters())
                optimizer.state.clear()
            trace("width", epoch=epoch, units=len(self.body.bias), weight=self.body.weight[:, :2])
            self.epoch(task, optimizer)
        with torch.no_grad():
            self.means = torch.stack(
                [F.relu(self.body(x.flatten(1))).mean(0) for x, _ in task.train.batches(48)]
            )

    def epoch(self, task, optimizer):
        for x, y in task.train.batches(16, augment=crop_and_flip(1)):
            loss = F.cross_entropy(self(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.detach()

    def widen(self):
        """Add a unit to the body and keep the existing ones."""
        units = len(self.body.bias) + 1
        self.body.weight = grown(self.body.weight, (units, self.body.weight.shape[1]))
        self.body.bias = grown(self.body.bias, (units,))
        self.norm.weight, self.norm.bias = grown(self.norm.weight, (units,)), grown(self.norm.bias, (units,))
        self.norm.running_mean = grown(self.norm.running_mean, (units,)).detach().abs()
        self.norm.running_var = grown(self.norm.running_var, (units,)).detach().abs()
        self.head.weight = grown(self.head.weight, (len(self.head.bias), units))

    def forward(self, x):
        x = self.body(x.flatten(1))
        x = F.batch_norm(
            x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias, self.training
        )
        return self.head(F.dropout(F.relu(x), 0.2, self.training))


def grown(tensor, shape):
    """A larger parameter with the old values in one corner and small random values elsewhere."""
    larger = 0.1 * torch.randn(shape, device=tensor.device)
    larger[tuple(slice(0, n) for n in tensor.shape)] = tensor.detach()
    return nn.Parameter(larger)


class TwoPhase(Learner):
    """Two optimizers in one loop, one for a network outside the learner; a frozen copy between loops."""

    tables = {"loss": "epoch, loss"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        size = shape[0] * shape[1] * shape[2]
        self.generator, self.solver = nn.Linear(4, size), nn.Linear(size, classes)

    def learn(self, task, trace):
        critic = nn.Linear(self.solver.in_features, 1).to(self.solver.weight.device)
        first = torch.optim.Adam(self.generator.parameters(), lr=0.01)
        second = torch.optim.SGD(critic.parameters(), lr=0.01, momentum=0.5)
        for _ in trace.epochs("generator", self.config.epochs, critic, first, second):
            for x, _y in task.train.batches(16):
                fake = self.generator(torch.randn(len(x), 4, device=x.device))
                loss = critic(fake.detach()).mean() - critic(x.flatten(1)).mean()
                second.zero_grad()
                loss.backward()
                second.step()
                loss = (critic(fake) - 1).square().mean()
                first.zero_grad()
                loss.backward()
                first.step()
        memory = frozen(self.generator)  # must see the generator as the first loop left it
        optimizer = torch.optim.Adam(self.solver.parameters(), lr=0.01)
        for epoch in trace.epochs("solver", self.config.epochs, optimizer):
            for x, y in task.train.batches(16):
                old = memory(torch.randn(len(x), 4, device=x.device))
                loss = F.cross_entropy(self(x), y) + 0.1 * self.solver(old).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                self.generator.weight *= 0.99  # changes what a copy made too late would hold
            trace("loss", epoch=epoch, loss=loss)

    def forward(self, x):
        return self.solver(x.flatten(1))


class Online(Learner):
    """One pass with random augmentation, step by step; state in buffers; also numpy's random numbers."""

    tables = {"step": "step, loss, picked"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nn.Linear(shape[0] * shape[1] * shape[2], classes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def learn(self, task, trace):
        import numpy as np

        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)
        batches = task.train.batches(4, augment=crop_and_flip(1))
        for x, y in trace.steps("online", batches, optimizer):
            scale = float(np.random.uniform(0.9, 1.1))
            loss = scale * F.cross_entropy(self.net((x + 0.1 * torch.randn_like(x)).flatten(1)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.steps += 1
            trace("step", step=self.steps, loss=loss, picked=y)

    def forward(self, x):
        return self.net(x.flatten(1))


FAKES = {"growing": Growing, "two-phase": TwoPhase, "online": Online}
