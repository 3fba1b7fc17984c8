"""The sources of images by name: what is known of each before its files are read. The readers of ours are in `jobs.data.sources`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from models.typed import SettingsError, build, shown

Channels = tuple[float, float, float]
IMAGENET_MEAN: Final[Channels] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[Channels] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A source. `mean` and `std` are those of the training images, by channel, in units of white."""

    img_size: int  # pixels; the default of data.img_size
    path: bool | None = False  # True: it needs `path`; False: it refuses it; None: it takes it
    test_path: bool | None = False
    images: int | None = None  # for training, before the validation split; None: only the files know
    test_images: int | None = None  # None: only the files know
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    reader: Any = None  # of a plug-in: its jobs.data.content.Reader
    options: Any = None  # of a plug-in: an object of a dataclass, whose fields `data.options` may set


def typed_options(source: str, given: Any) -> Any:
    """The options of a source from a mapping, or as they are; its own where none are given. SettingsError with every mistake."""
    default = SOURCES[source].options if source in SOURCES else None
    if given is None or (default is not None and isinstance(given, type(default))):
        return default if given is None else given
    if default is None:
        raise SettingsError("data", [(("options",), f"source {source} has no options")])
    if not isinstance(given, Mapping):
        raise SettingsError("data", [(("options",), f"expected a mapping, got {shown(given)}")])
    try:
        options = build(type(default), {**vars(default), **given})
        options.check()
    except SettingsError as error:
        raise SettingsError("data", [(("options", *path), message) for path, message in error.errors]) from None
    except ValueError as error:
        raise SettingsError("data", [(("options",), str(error))]) from None
    return options


SOURCES: dict[str, SourceEntry] = {
    "digits": SourceEntry(img_size=32, images=1438, test_images=359, mean=(0.313, 0.313, 0.313), std=(0.357, 0.357, 0.357)),
    "cifar10": SourceEntry(img_size=32, path=True, images=50_000, test_images=10_000, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "cifar100": SourceEntry(img_size=32, path=True, images=50_000, test_images=10_000, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    "imagefolder": SourceEntry(img_size=224, path=True, test_path=None),
    "huggingface": SourceEntry(img_size=224, path=True, test_path=None),
    "webdataset": SourceEntry(img_size=224, path=True, test_path=None),
    "beton": SourceEntry(img_size=224, path=True, test_path=True),
    "synthetic": SourceEntry(img_size=32, mean=(0.5, 0.5, 0.5), std=(0.139, 0.139, 0.139)),
}
