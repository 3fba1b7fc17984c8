"""The cards over which the ranks of several nodes would talk."""

import os
import socket
from collections.abc import Iterator

from harness.health.finding import Finding, ok, warning
from jobs.parallel.rendezvous import FABRICS, INTERFACES, own_addresses


def network(nodes: int) -> Iterator[Finding]:
    """The addresses of this machine and its fast cards. nodes: of one job."""
    import psutil

    states = psutil.net_if_stats()
    up = sorted(name for name, state in states.items() if state.isup and name != "lo")
    fast = [name for name in up if name.startswith(FABRICS)]
    addresses = [address for address in own_addresses() if not address.startswith("127.")]
    chosen = [f"{name}={os.environ[name]}" for name in INTERFACES if name in os.environ]
    text = f"{socket.gethostname()}: {', '.join(up) or 'no card is up'}; " + (
        f"{', '.join(fast)} for NCCL" if fast else "ranks take the card on which rank 0 answers"
    )
    if chosen:
        text = f"{text}; set: {', '.join(chosen)}"
    unknown = [value for value in (os.environ.get(name, "").lstrip("=^").split(",")[0] for name in INTERFACES) if value and not _is_card(value, up)]
    if unknown:
        yield warning("network", f"{text}; no card here is named {unknown[0]}", "correct the profile's environment: the name is that of the nodes")
    elif nodes > 1 and not addresses:
        yield warning("network", f"{text}; this machine has no address but its own loopback", "jobs of several nodes need a network between them")
    else:
        yield ok("network", text)


def _is_card(name: str, cards: list[str]) -> bool:
    """True if a card begins with a name, as NCCL understands it."""
    return any(card.startswith(name) for card in cards) or name == "lo"
