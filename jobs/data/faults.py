"""Images that cannot be used: one error for each, and a message for all of them at once."""

from collections import defaultdict
from collections.abc import Iterable

from jobs.data.beton import DataError

NAMED = 10  # files that a message names for each kind of fault


class UnusableImage(DataError):
    """An image that cannot be used. `remedy` has {it} where it names the image."""

    def __init__(self, name: str, *, fault: str, detail: str, remedy: str) -> None:
        self.name, self.fault, self.detail, self.remedy = printable(name), fault, detail, remedy
        super().__init__(f"{self.name}: {fault} ({detail}): {remedy.format(it='it')}")

    def to_json(self) -> dict[str, str]:
        """The arguments that make this error."""
        return {"name": self.name, "fault": self.fault, "detail": self.detail, "remedy": self.remedy}


class Faults:
    """Unusable images, collected until all are known."""

    def __init__(self) -> None:
        self._by_kind: defaultdict[tuple[str, str], list[UnusableImage]] = defaultdict(list)

    def add(self, error: UnusableImage) -> None:
        """Adds an image. Threads may call this at once."""
        self._by_kind[error.fault, error.remedy].append(error)

    def raise_if_any(self) -> None:
        """Raises a DataError that names at most NAMED images of each kind. Its cause is the first image's error."""
        errors = [error for errors in self._by_kind.values() for error in errors]
        if len(errors) == 1:
            raise DataError(str(errors[0])) from errors[0]
        if errors:
            raise DataError("\n".join([f"{len(errors)} images cannot be used, so nothing was written:", *self.by_kind()])) from errors[0]

    def by_kind(self) -> list[str]:
        """A message for each kind of fault, which names at most NAMED images."""
        return [
            f"{len(errors)} {fault}: {listed(f'{error.name} ({error.detail})' for error in errors)}: {remedy.format(it='them')}"
            for (fault, remedy), errors in sorted(self._by_kind.items())
        ]


def listed(names: Iterable[str]) -> str:
    """The first NAMED of `names` in their alphabetical order, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(printable(name) for name in names[:NAMED]) + more


def printable(name: str) -> str:
    """`name`, with escapes in place of what a terminal or a UTF-8 file cannot take."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)
