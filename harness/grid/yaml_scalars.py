"""The value of a plain word in YAML, and the spellings that read as another value than they look.

PyYAML reads YAML 1.1, where 010 is 8, 1_000 is 1000, 1:30 is 90 and `no` is false. A grid decides which results belong together, so a number of such
a spelling is refused with its readings. A time such as 12:30:00 stays text, as it looks.
"""

import re

import yaml

TAG = "tag:yaml.org,2002:"
TEXT = ("str", "timestamp", "merge", "value")  # a date, << and = stay as they are written
Scalar = bool | int | float | str | None

LEADING_ZERO = re.compile(r"([-+]?)0[\d_]*[\d]_*", re.ASCII)
BASE = re.compile(r"([-+]?)0([xob])([\da-f_]+)", re.ASCII | re.IGNORECASE)
BASE_60 = re.compile(r"([-+]?)(\d+(?::[0-5]?\d)+)(\.\d*)?", re.ASCII)
BASES = {"x": 16, "o": 8, "b": 2}
SWITCHES = ("yes", "no", "on", "off")  # booleans of YAML 1.1; text in YAML 1.2


class Misspelled(ValueError):
    """A word that is refused; the message says how it reads and what to write."""


_resolver, _constructor = yaml.resolver.Resolver(), yaml.constructor.SafeConstructor()


def read_scalar(node: yaml.ScalarNode) -> Scalar:
    """The value of a word. Raises Misspelled if it reads as another value than it looks, or has a tag that is not supported."""
    if wrong := wrong_tag(node):
        raise Misspelled(wrong)
    kind, text = node.tag.removeprefix(TAG), node.value
    if kind == "str" and not node.style and _natural_tag(text) == node.tag:  # without a tag or quotes
        refuse_spelling(text, None)
    if kind in TEXT or ":" in text:
        return str(text)
    try:
        value: Scalar = getattr(_constructor, f"construct_yaml_{kind}")(node)
    except ValueError:  # a whole number of thousands of digits
        return str(text)
    if kind in ("int", "float"):
        refuse_spelling(text, value)
    return value


def wrong_tag(node: yaml.ScalarNode) -> str | None:
    """Why the tag of a word is refused; None for the tag that YAML gives the word itself, for !!str, and for !!float on a whole number."""
    kind = node.tag.removeprefix(TAG)
    if kind not in (*TEXT, "null", "bool", "int", "float"):
        return f"the tag {node.tag} is not supported"
    natural = _natural_tag(node.value)
    if node.tag in (natural, f"{TAG}str") or (kind == "float" and natural == f"{TAG}int"):
        return None
    return f"the tag {node.tag} does not fit {node.value!r}; write the value without a tag"


def _natural_tag(text: str) -> str:
    return str(_resolver.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


def refuse_spelling(text: str, value: Scalar) -> None:
    """Raises Misspelled for a number that reads as another than it looks. value: its value in YAML 1.1; None: text."""
    if match := BASE.fullmatch(text):
        _refuse_base(text, match, value)
    if LEADING_ZERO.fullmatch(text):
        digits = int(text.replace("_", ""))
        if value is None:
            raise Misspelled(f"{text} is text in YAML 1.1 and {digits} in YAML 1.2; write {digits}{_quoted(text)}")
        if value == digits:
            raise Misspelled(f"{text} is octal in YAML 1.1 and decimal in YAML 1.2; write {digits}{_quoted(text)}")
        raise Misspelled(f"{text} is {value} in YAML 1.1 and {digits} in YAML 1.2; write {value} or {digits}{_quoted(text)}")
    if "_" in text and value is not None:
        raise Misspelled(f"{text} is {value} in YAML 1.1 and text in YAML 1.2; write {value}{_quoted(text)}")


def _refuse_base(text: str, match: re.Match[str], value: Scalar) -> None:
    sign, letter, digits = match.groups()
    base = BASES[letter.lower()]
    try:
        number = int(f"{sign}{digits.replace('_', '')}", base)
    except ValueError:  # 0o9 is no number
        return
    readings = {
        "x": f"{number} in YAML, in base 16",
        "o": f"text in YAML 1.1 and {number} in YAML 1.2, in base 8",
        "b": f"{number} in YAML 1.1 and text in YAML 1.2, in base 2",
    }
    known = letter.islower() and (value is not None or letter == "o")
    reading = readings[letter] if known else f"text in YAML; as a number in base {base} it is {number}"
    raise Misspelled(f"{text} is {reading}; write {number}{_quoted(text)}")


def _quoted(text: str) -> str:
    return f" ('{text}', in quotes, is text)"


def remark(value: Scalar, text: str) -> str:
    """What to add to a message that a word is of the wrong type: how YAML reads it, if people read it otherwise. Empty for any other word."""
    if isinstance(value, bool) and text.lower() in SWITCHES:
        return f"; {text} is {str(value).lower()} in YAML 1.1 and text in YAML 1.2 ('{text}', in quotes, is text)"
    match = BASE_60.fullmatch(text) if isinstance(value, str) else None
    if match is None:
        return ""
    sign, digits, fraction = match.groups()
    number = 0
    for part in digits.split(":"):
        number = number * 60 + int(part)
    whole = f"{sign.strip('+')}{number}{fraction or ''}".rstrip(".")
    return f"; {text} is {whole} in YAML 1.1, in base 60, and text in YAML 1.2 and here; write {whole}"
