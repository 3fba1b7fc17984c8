"""Names and labels as people see them: refused if they are blank, hold what cannot be seen, or look like each other.

Labels are cells of tables, in a terminal, in Markdown and in CSV: a line break or an escape character in one breaks the table around it.
"""

import re
import unicodedata

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a folder's name
ASIDE = len("..") + 32  # characters that a name gets while a file or folder of that name is written
MOST_NAME = 255 - ASIDE  # of the 255 bytes that file systems allow
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories: control, format (zero-width, bidirectional), surrogates, line and paragraph separators
# Letters and marks that show nothing: the grapheme joiner, Hangul fillers, Khmer vowels, Mongolian and other variation selectors, blank Braille
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
# Cyrillic and Greek letters that look like Latin letters
LIKE_LATIN = str.maketrans("АВЕЅІЈКМНОРСТУХаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABESIJKMHOPCTYXaeopcyxijsABEZHIKMNOPTYXo")


def name_problem(name: object) -> str | None:
    """Why a value cannot name a run folder; None if it can."""
    if name is None:
        return "missing: it also names the run folder"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"must be letters, digits, '.', '_' and '-', got {name!r}"
    if len(name) > MOST_NAME:
        return f"has {len(name)} characters, and a folder's name may have at most {MOST_NAME}; shorten it"
    return None


def label_problem(label: str) -> str | None:
    """Why a text cannot be a label; None if it can."""
    unseen = next((char for char in label if unicodedata.category(char) in UNSEEN or BLANK.match(char)), None)
    if not label.strip():
        return f"must not be blank, got {label!r}"
    if unseen is not None:
        return f"must have no line breaks and no control or invisible characters, got {described(unseen)} in {visible(label)!r}; remove it"
    if label != label.strip():
        return f"must not begin or end with a space, got {label!r}; write {label.strip()!r}"
    return None


def described(char: str) -> str:
    """A character by number and name: U+200B (ZERO WIDTH SPACE)."""
    name = unicodedata.name(char, "")
    return f"U+{ord(char):04X}" + (f" ({name})" if name else "")


def visible(text: str) -> str:
    """A text in one line, without what cannot be seen; those characters leave their numbers."""
    return "".join(f"<U+{ord(char):04X}>" if unicodedata.category(char) in UNSEEN else char for char in text)


def look(label: str) -> str:
    """A key that is equal for labels that look the same: without case, width, accents' composition, alphabet, and the number of spaces."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).translate(LIKE_LATIN).casefold())
    seen = "".join(char for char in folded if unicodedata.category(char) not in UNSEEN - {"Cc"} and not BLANK.match(char))
    return " ".join(seen.split())
