"""How large the measurements are: on a GPU as in the papers, on a CPU so small that a test runs them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ScanShape:
    """A call of the scan as a network makes it: u (batch, channels, length), B and C (batch, groups, states, length)."""

    name: str
    channels: int
    length: int
    states: int
    groups: int = 1
    gate: bool = False
    taps: int = 0  # of the causal convolution before it; 0: none
    positions_last: bool = False  # in memory, for every backend; False: for mamba-ssm alone


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured, and how large."""

    device: str
    models: tuple[str, ...]  # in order of worth
    trained: tuple[str, ...]  # by the engine of a job
    img_size: int
    batch: int
    scans: tuple[ScanShape, ...]
    dtypes: tuple[str, ...] = ("bf16", "fp32")
    backends: tuple[str, ...]  # of scan and convolution
    seconds: float  # of timing for one figure; the warm-up takes as long again at most
    steps: int  # of the engine, in which reads are counted
    jpegs: int  # of the loader
    epoch_images: int  # of the seed's cell
    seed_model: tuple[tuple[str, int], ...]  # options of vim_tiny
    workers: int  # threads that decode


VIM_TINY = ScanShape(name="vim_tiny", channels=384, length=197, states=16, gate=True, taps=4)
GPU = Sizes(
    device="cuda",
    models=("vim_tiny", "mambavision_t", "vim_small", "vmamba_tiny_s1l8", "vssd_micro", "vssd_tiny"),
    trained=("vim_tiny", "mambavision_t"),
    img_size=224,
    batch=128,
    scans=(
        VIM_TINY,
        ScanShape(name="vim_small", channels=768, length=197, states=16, gate=True, taps=4),
        ScanShape(name="mambavision_t, level 3", channels=160, length=196, states=8),
        ScanShape(name="mambavision_t, level 4", channels=320, length=49, states=8),
        ScanShape(name="vmamba_tiny, stage 1", channels=192, length=3136, states=1, groups=2, positions_last=True),
        ScanShape(name="the same, channels beside each other", channels=192, length=3136, states=1, groups=2),
        ScanShape(name="vim_tiny, 2048 positions", channels=384, length=2048, states=16, gate=True, taps=4),
    ),
    backends=("triton", "cuda"),
    seconds=0.6,
    steps=5,
    jpegs=2000,
    epoch_images=50_000,
    seed_model=(("patch_size", 4), ("dim", 72), ("depth", 12)),
    workers=0,  # all cores but one
)
CPU = Sizes(
    device="cpu",
    models=("vim_micro", "mambavision_micro", "vssd_micro_32"),
    trained=("vim_micro",),
    img_size=32,
    batch=2,
    scans=(ScanShape(name="vim_micro", channels=8, length=17, states=4, gate=True, taps=4),),
    dtypes=("fp32",),
    backends=("cpu", "cuda"),
    seconds=0.01,
    steps=1,
    jpegs=4,
    epoch_images=64,
    seed_model=(("patch_size", 16), ("dim", 16), ("depth", 1)),
    workers=1,
)
