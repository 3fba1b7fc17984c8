"""A table: what loading costs. `python -m benchmarks.loaders [--images 2000] [--rounds 5] [--only NAME ...]`

CPU ms an image: process time of an epoch without worker processes, on one core. Images/s: by the clock, with 1 and 2 workers (threads or processes,
whichever the loader has). Every loader runs in a process of its own, with one torch thread, and all take turns: in each round each loads one epoch,
so that a disturbance meets all of them. Medians over the rounds; the first epoch, in which code is compiled, is not counted.

The images are made here, the same ones each time: JPEGs of about 430 x 350 with shapes and textures that fall off as in photographs. `raw` is a
.beton of pixels, `jpg` one with the files' own bytes. All is in the page cache.

At the end, the memory of a rank: loaders over a file of 1.3 million entries, whose pixels are a hole in the file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import CONTENDERS, full_recipe, images_of
from jobs.worker.environment import cpu_name
from models.closed_pipe import ends_with_its_reader

CLASSES = 4
IMAGENET = 1_300_000  # entries
SIDE = 256  # pixels of an entry
POLL_S = 0.002
WORKERS = (0, 1, 2)


# the images


def textures(count: int = 8, side: int = 640) -> list[NDArray[np.float32]]:
    """Random fields whose amplitude falls with 1/frequency, as in photographs, (side, side, 3)."""
    distance = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    distance[0, 0] = np.inf
    fields = []
    for number in range(count):
        draw = np.random.default_rng([7, number])
        planes = [np.fft.irfft2(np.fft.rfft2(draw.standard_normal((side, side))) / distance**1.25, (side, side)) for _ in range(4)]
        planes = [plane / plane.std() for plane in planes]
        fields.append(np.stack([planes[0] + 0.35 * plane for plane in planes[1:]], axis=-1).astype(np.float32))
    return fields


def picture(sample: int, fields: list[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """A picture of about 430 x 350: a texture, shapes with edges, and fine grain."""
    import cv2

    draw = np.random.default_rng([11, sample])
    height, width = int(draw.integers(300, 400)), int(draw.integers(370, 490))
    top, left = draw.integers(0, (640 - height, 640 - width))
    image = draw.uniform(70, 180, 3) + draw.uniform(20, 45) * fields[sample % len(fields)][top : top + height, left : left + width]
    for _ in range(8):
        mask = np.zeros((height, width), np.uint8)
        center, axes = (
            (int(draw.integers(width)), int(draw.integers(height))),
            (int(draw.integers(10, width // 3)), int(draw.integers(10, height // 3))),
        )
        cv2.ellipse(mask, center, axes, float(draw.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        image += (mask[..., None] / 255) * draw.uniform(-70, 70, 3)
    return np.clip(image + draw.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)


def make_images(folder: Path, count: int) -> None:
    """images/train/<class>/<n>.jpg, jpg.beton and raw.beton."""
    import cv2
    from PIL import Image

    from jobs.data.beton import JPG, Encoded, encoded
    from jobs.data.shards import write_beton

    paths, fields = [folder / "images" / "train" / str(sample % CLASSES) / f"{sample:05d}.jpg" for sample in range(count)], textures()
    for sample, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(sample, fields)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])

    def as_file(sample: int) -> Encoded:
        with Image.open(paths[sample]) as image:
            return Encoded(mode=JPG, height=image.height, width=image.width, content=np.fromfile(paths[sample], np.uint8))

    labels = np.arange(count) % CLASSES
    write_beton(folder / "jpg.beton", as_file, labels)
    write_beton(folder / "raw.beton", lambda sample: encoded(np.asarray(Image.open(paths[sample])), False), labels)


# the processes


def serve(name: str, folder: Path) -> None:
    """Loads an epoch for each number of workers that a line of the input names, and prints what it took."""
    import torch

    from jobs.parallel.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    loaders, number = {workers: CONTENDERS[name](folder, workers) for workers in WORKERS}, 0
    for line in sys.stdin:
        epoch, number = loaders[int(line)](number), number + 1
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        images = images_of(epoch)
        print(json.dumps([images, time.process_time() - began_cpu_s, time.perf_counter() - began_s]), flush=True)


class Contender:
    """A process that loads epochs."""

    def __init__(self, name: str, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.loaders", "--serve", name, "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cpu_ms: list[float] = []
        self.img_per_s: dict[int, list[float]] = {1: [], 2: []}

    def epoch(self, workers: int) -> tuple[int, float, float]:
        """Images, CPU seconds of the process, seconds by the clock."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{workers}\n")
        self.process.stdin.flush()
        images, cpu_s, wall_s = json.loads(self.process.stdout.readline())
        return images, cpu_s, wall_s

    def measure(self) -> None:
        """One epoch of each kind."""
        images, cpu_s, _ = self.epoch(0)
        self.cpu_ms.append(1e3 * cpu_s / images)
        for workers, rates in self.img_per_s.items():
            images, _, wall_s = self.epoch(workers)
            rates.append(images / wall_s)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def table(names: list[str], folder: Path, rounds: int) -> None:
    """Prints the rows, in ratios to torchvision's, or to timm's with a recipe."""
    contenders = {name: Contender(name, folder) for name in names}
    for contender in contenders.values():
        for workers in WORKERS:
            contender.epoch(workers)
    for _ in range(rounds):
        for contender in contenders.values():
            contender.measure()
    print(f"{'loader':22} {'CPU ms/image':>12} {'times less':>10} {'img/s, 1':>9} {'img/s, 2':>9}")
    for name, contender in contenders.items():
        base = contenders.get("timm, recipe" if "recipe" in name else "torchvision")
        cpu_ms = statistics.median(contender.cpu_ms)
        less = f"{statistics.median(base.cpu_ms) / cpu_ms:9.1f}x" if base else ""
        rates = [f"{statistics.median(rates):9.0f}" for rates in contender.img_per_s.values()]
        print(f"{name:22} {cpu_ms:12.2f} {less:>10} {' '.join(rates)}")
        contender.close()


# memory


def sparse_file(path: Path, entries: int) -> None:
    """A .beton whose tables say that it holds so many raw images, which are a hole in the file."""
    from jobs.data.beton import RAW, STORED, write_tables

    stored = np.zeros(entries, STORED)
    stored["mode"], stored["width"], stored["height"], stored["size"] = RAW, SIDE, SIDE, 3 * SIDE * SIDE
    with path.open("wb") as file:
        write_tables(file, stored, np.arange(entries) % 1000)


def own_bytes(kind: str) -> int:
    """Bytes of this process in memory: `RssAnon` are its own, `RssFile` those of the page cache that it maps."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return 1024 * int(line.split()[1])
    return 0


def memory(path: Path, loader: str) -> None:
    """Prints the bytes that the loaders of a rank take over a file with the full recipe, at their peak and while they load."""
    import threading

    import jobs.data.loaders as loaders
    from jobs.data.prepare import Dataset
    from jobs.experiment.specs import DataSpec

    import_module(f"jobs.data.{loader}_loader")  # its packages are not a part of the loaders' memory
    peak, stopped, before = [0], threading.Event(), own_bytes("RssAnon")

    def watch() -> None:
        while not stopped.wait(POLL_S):
            peak[0] = max(peak[0], own_bytes("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    data = DataSpec(source="imagefolder", loader=loader, augment="crop", flip=True)  # type: ignore[arg-type]
    dataset = Dataset(classes=1000, img_size=224, train=path, test=path, train_samples=IMAGENET * 9 // 10, val_samples=1, test_samples=1, sha256="")
    options = {"rank": 0, "world": 1, "threads": 1}
    train = loaders.TrainLoader(data, dataset, seed=0, batch_size=1024, micro_batch_size=128, recipe=full_recipe(), **options)  # type: ignore[arg-type]
    held_out = loaders.EvalLoader(data, dataset, "val", batch_size=128, **options)  # type: ignore[arg-type]
    epoch = train.epoch(0)
    next(epoch)
    steady = own_bytes("RssAnon")
    stopped.set()
    watcher.join()
    epoch.close()
    assert held_out.batches_of_longest_rank
    megabytes = [(value - before) / 2**20 for value in (peak[0], steady)]
    print(f"{loader:6} peak {megabytes[0]:5.0f} MB, in an epoch {megabytes[1]:5.0f} MB, beside {before / 2**20:4.0f} MB of packages", flush=True)


@ends_with_its_reader
def main() -> None:
    """Makes the images and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, help="keeps the images there, for the next call")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.folder)
    if arguments.memory:
        return memory(arguments.folder / "sparse.beton", arguments.memory)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "raw.beton").exists():
            make_images(folder, arguments.images)
        print(f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores; {arguments.images} images, {arguments.rounds} rounds", flush=True)
        table(arguments.only, folder, arguments.rounds)
        print(f"\nmemory of a rank over {IMAGENET:,} entries", flush=True)
        if not (folder / "sparse.beton").exists():
            sparse_file(folder / "sparse.beton", IMAGENET)
        for loader in ("ffcv", "torch"):
            subprocess.run([sys.executable, "-m", "benchmarks.loaders", "--memory", loader, "--folder", str(folder)], check=True)


if __name__ == "__main__":
    main()
