"""A table: what writing a data set costs. `python -m benchmarks.preparing [images]`

The images are JPEGs of about 230 x 190 pixels in 20 class folders, in a temporary folder (TMPDIR). Each row is a process of its own. CPU ms are those
of all processes for each image, putting together and the digest included; memory is the largest of any process.
"""

import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.worker.environment import cpu_name
from models.closed_pipe import ends_with_its_reader

ROWS = (("jpg", 1), ("jpg", 2), ("jpg, max_resolution: 200", 1), ("raw", 1), ("raw", 2))
MEASURE = "from benchmarks.preparing import measure; measure({root!r}, {mode!r}, {workers})"


def make_images(root: Path, images: int) -> None:
    """root/train with `images` JPEGs, of 200 kinds, and root/val with 400."""
    files = []
    for kind in range(200):
        random = np.random.default_rng(kind)
        height, width = int(random.integers(150, 230)), int(random.integers(180, 280))
        smooth = np.asarray(Image.fromarray(random.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize((width, height))).astype(int)
        file = io.BytesIO()
        Image.fromarray((smooth + random.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    for part, count in (("train", images), ("val", 400)):
        for sample in range(count):
            folder = root / part / f"class{sample % 20:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{sample}.jpg").write_bytes(files[sample % 200])


def measure(root: str, mode: str, workers: int) -> None:
    """Prints seconds, CPU seconds, memory and bytes of one writing, as JSON."""
    from jobs.data.prepare import prepare
    from jobs.data.writing import Progress
    from jobs.experiment.specs import DataSpec

    write_mode, _, limit = mode.partition(", max_resolution: ")
    assert write_mode in ("jpg", "raw")
    data = DataSpec(
        source="imagefolder", path=root, img_size=128, loader="torch", write_mode=write_mode, max_resolution=int(limit) if limit else None
    )
    assembling: list[float] = []

    def report(progress: Progress) -> None:
        if progress.assembling:
            assembling.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        dataset = prepare(data, Path(cache), workers=workers, report=report)
        wall = time.perf_counter() - began
        size = dataset.train.stat().st_size + dataset.test.stat().st_size
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in usage)
    peak_kb = max(each.ru_maxrss for each in usage)
    after = time.perf_counter() - assembling[0]
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "after_s": after, "peak_mb": peak_kb / 1024, "bytes": size}))


@ends_with_its_reader
def main(images: int = 20_000) -> None:
    """Prints the table."""
    print(f"{cpu_name()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {images:,} images")
    print(f"{'write_mode':28}{'workers':>8}{'CPU ms/image':>14}{'images/s':>10}{'encoding s':>12}{'after it s':>12}{'peak MB':>9}{'file MB':>9}")
    with tempfile.TemporaryDirectory() as root:
        make_images(Path(root), images)
        for mode, workers in ROWS:
            code = MEASURE.format(root=root, mode=mode, workers=workers)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            total = images + 400
            figures = [1000 * row["cpu_s"] / total, total / row["wall_s"], row["wall_s"] - row["after_s"], row["after_s"], row["peak_mb"]]
            shown = [f"{figures[0]:14.2f}", f"{figures[1]:10.0f}", f"{figures[2]:12.1f}", f"{figures[3]:12.1f}", f"{figures[4]:9.0f}"]
            print(f"{mode:28}{workers:8}{''.join(shown)}{row['bytes'] / 1e6:9.0f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
