"""Times and numbers as people read them."""


def duration(seconds: float) -> str:
    """Seconds as '45 s', '3:05' or '2:03:05'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(number: int, word: str) -> str:
    """'1 cell', '3 cells'."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
