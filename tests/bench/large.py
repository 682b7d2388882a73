"""Class folders that stay on disk: how fast they are resized once and then read, and in how much memory.

A separate process loads a folder made for it, resized to 224 pixels, and iterates over its batches:

    python -m tests.bench.large FOLDER SIDE

Its last line is JSON: seconds of each load and pass, and resident memory after each tenth of the passes.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.measure import line
from tests.bench.memory import peak

ROOT = Path(__file__).resolve().parents[2]
IMAGES, CLASSES, SIDE, BATCH, PASSES = 20_000, 20, 224, 128, 2


def large(setup):
    """Loads and passes of 20,000 pictures of 256x240 pixels, in a process of their own."""
    full = setup.images[0] > 1000
    count, side = (IMAGES, SIDE) if full else (80, 16)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "pictures", count)
        found = measured(folder, side)
    size, rates = count * 3 * side**2 / 1e6, [count * PASSES / s for s in found["passes"]]
    resident = [n / 1e6 for n in found["resident"]]
    return [
        line("large", "resized once", [count / found["first load"]], "images/s"),
        line("large", "loaded again", [found["second load"]], "s"),
        line("large", "read in random order", rates, "images/s"),
        line("large", "images as bytes", [size], "MB"),
        line("large", "resident after a tenth of the reading", [resident[0]], "MB"),
        line(
            "large",
            "resident at the end, against that",
            [resident[-1]],
            "MB",
            [resident[-1] / resident[0]],
            "<= 1.05",
        ),
        line(
            "large",
            "peak beyond the loaded program, against the images",
            [beyond := (found["peak"] - found["program"]) / 1e6],
            "MB",
            [beyond / size],
            "<= 0.25" if full else "",
        ),
    ]


def make(folder, count):
    """Class folders of `count` pictures, a tenth of them for testing; 16 different ones, which repeat."""
    from PIL import Image

    draw, encoded = np.random.default_rng(0), []
    for _ in range(16):
        small = Image.fromarray(draw.integers(0, 256, (15, 16, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((256, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    for i in range(count):
        part, label = "test" if i // CLASSES % 10 == 0 else "train", i % CLASSES
        place = folder / part / f"{label:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").write_bytes(encoded[i % len(encoded)])


def measured(root, side):
    environment = {**os.environ, "CLKIT_DATA": str(root)}
    command = [sys.executable, "-m", "tests.bench.large", "pictures", str(side)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def resident():
    """Resident memory of this process in bytes, with the files that are mapped; its peak elsewhere."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return peak()


def read(name, side):
    """What the process prints."""
    import torch

    from clkit import data
    from clkit.data import large as on_disk

    torch.set_num_threads(1)
    on_disk.IN_MEMORY = 0
    found = {"program": resident(), "passes": [], "resident": []}
    for which in ("first load", "second load"):
        begin = time.perf_counter()
        sets = data.load(name, side=side)
        found[which] = time.perf_counter() - begin
    begin, done = time.perf_counter(), 0
    total = PASSES * sum(len(part) for part in sets)
    for _ in range(PASSES):
        for part in sets:
            for x, _ in part.batches(BATCH):
                done += len(x)
                if done * 10 >= total * (len(found["resident"]) + 1):
                    found["resident"].append(resident())
    found["passes"].append(time.perf_counter() - begin)
    return {**found, "peak": peak()}


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], int(sys.argv[2]))))
