"""How the ranks of a job find each other without a port that anybody chose: rank 0 listens where its system has room, and says so in a shared file.

So jobs that share a node cannot clash, and a node's name need not resolve: rank 0 says its addresses too, and each rank takes the first that answers.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed

from jobs.experiment.files import write_json

ANSWER_S = 5.0  # that an address may take to answer before the next one is tried
PAUSE_S = 0.2
KEY = "vssm-bench"


class MeetingError(RuntimeError):
    """The other ranks did not come in time, or cannot be reached."""


def meet(place: Path, *, rank: int, world: int, one_node: bool, timeout: timedelta) -> distributed.Store:
    """The store through which the ranks of a job meet; MASTER_ADDR and MASTER_PORT then say where it is. Raises MeetingError.

    place: a file that all of them see, and that no other attempt of any job uses; rank 0 writes it, and it is gone when all have met.
    """
    until = time.monotonic() + timeout.total_seconds()
    store = host(place, one_node, timeout) if rank == 0 else join(place, until, timeout)
    met = store.add(f"{KEY}/met", 1)
    while rank == 0 and met < world:
        if time.monotonic() > until:
            raise MeetingError(f"only {met} of {world} ranks have come within {timeout}; the logs of the others say why")
        time.sleep(PAUSE_S)
        met = store.add(f"{KEY}/met", 0)
    if rank == 0:
        place.unlink(missing_ok=True)
    return distributed.PrefixStore("group", store)


def host(place: Path, one_node: bool, timeout: timedelta) -> distributed.TCPStore:
    """Rank 0's store, on a free port, its address told in `place`."""
    store = distributed.TCPStore("localhost", 0, None, True, timeout, wait_for_workers=False)
    addresses, secret = ["127.0.0.1"] if one_node else own_addresses(), secrets.token_hex(8)
    store.set(KEY, secret)
    os.environ |= {"MASTER_ADDR": addresses[0], "MASTER_PORT": str(store.port)}
    write_json(place, {"host": socket.gethostname(), "addresses": addresses, "port": store.port, "secret": secret})
    return store


def join(place: Path, until: float, timeout: timedelta) -> distributed.TCPStore:
    """Rank 0's store, seen from another rank."""
    while not place.exists():
        if time.monotonic() > until:
            raise MeetingError(f"rank 0 has not written {place} within {timeout}: its log says why, or this folder is not the same on all nodes")
        time.sleep(PAUSE_S)
    told = json.loads(place.read_text())
    while time.monotonic() < until:
        for address in worth_trying(told):
            store = reached(address, told["port"], told["secret"], timeout)
            if store is not None:
                os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(told["port"])}
                return store
        time.sleep(PAUSE_S)
    tried = ", ".join(told["addresses"])
    raise MeetingError(f"{socket.gethostname()} cannot reach rank 0 at {tried}, port {told['port']}: nodes must accept connections from each other")


def worth_trying(told: Mapping[str, Any]) -> list[str]:
    """Rank 0's addresses, without those that every machine has for itself, such as that of Docker's bridge, where there are others."""
    mine = () if told["host"] == socket.gethostname() else own_addresses()
    return [address for address in told["addresses"] if address not in mine] or told["addresses"]


def reached(address: str, port: int, secret: str, timeout: timedelta) -> distributed.TCPStore | None:
    """The store at an address, None where nobody answers there or somebody else does."""
    try:
        socket.create_connection((address, port), timeout=ANSWER_S).close()
        store = distributed.TCPStore(address, port, None, False, timedelta(seconds=ANSWER_S), wait_for_workers=False)
        if store.get(KEY) != secret.encode():
            return None
    except (OSError, RuntimeError):
        return None
    store.set_timeout(timeout)
    return store


def own_addresses() -> Sequence[str]:
    """What this machine may be called by others: its names that resolve to no loopback address, then its addresses."""
    import psutil

    names = dict.fromkeys(name for name in (os.environ.get("SLURMD_NODENAME"), socket.gethostname()) if name and is_known(name))
    cards = [card.address for cards in psutil.net_if_addrs().values() for card in cards if card.family == socket.AF_INET]
    return [*names, *(address for address in cards if not address.startswith("127."))] or ["127.0.0.1"]


def is_known(name: str) -> bool:
    """True when a name resolves here, and to an address that others can use."""
    try:
        return not socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False
