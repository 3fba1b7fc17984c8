"""How the ranks of a job meet without a port chosen beforehand: rank 0 listens on any free port and writes the port to a shared file.

So jobs that share a node cannot clash. A node's name need not resolve either: rank 0 writes its addresses too, and each rank takes the first that
answers.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # torch exports them, but not to type checkers

from jobs.experiment.files import write_json

ANSWER_S = 5.0  # an address that takes longer to answer is passed over
PAUSE_S = 0.2
KEY = "vssm-bench"
REACHED, ADDRESS = f"{KEY}/reached", f"{KEY}/address"  # rank 0's address as other nodes reach it: as they tell it, and as rank 0 repeats it
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # variables that name the card of a library
FABRICS = ("ib", "hsn")  # beginnings of the names of InfiniBand's and Slingshot's cards


class MeetingError(RuntimeError):
    """Other ranks did not come in time, or cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where rank 0 listens, as the shared file has it."""

    host: str
    addresses: Sequence[str]
    port: int
    secret: str  # so that another job's store at the same address is recognized


def meet(file: Path, *, rank: int, world: int, one_node: bool, timeout: timedelta) -> Store:
    """The store through which the ranks of a job communicate. Sets MASTER_ADDR and MASTER_PORT to its address. Raises MeetingError.

    `file`: visible to all ranks, and used by no other attempt of any job. Rank 0 writes it, and removes it when all ranks have met.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    store, own = (host(file, one_node, timeout), "") if rank == 0 else join(file, deadline, timeout)
    met = store.add(f"{KEY}/met", 1)
    while rank == 0 and met < world:
        if time.monotonic() > deadline:
            raise MeetingError(f"only {met} of {world} ranks have come within {timeout}; the logs of the others say why")
        time.sleep(PAUSE_S)
        met = store.add(f"{KEY}/met", 0)
    if rank == 0:
        file.unlink(missing_ok=True)
        store.set(ADDRESS, store.get(REACHED).decode() if store.check([REACHED]) else "")
    if not one_node:
        use_interface_of(own or store.get(ADDRESS).decode())
    return PrefixStore("group", store)


def host(file: Path, one_node: bool, timeout: timedelta) -> TCPStore:
    """Rank 0's store, on a free port. Writes its address to `file`."""
    store = TCPStore("localhost", 0, None, True, timeout, wait_for_workers=False)
    addresses = ["127.0.0.1"] if one_node else own_addresses()
    meeting = Meeting(host=socket.gethostname(), addresses=addresses, port=store.port, secret=secrets.token_hex(8))
    store.set(KEY, meeting.secret)
    os.environ |= {"MASTER_ADDR": addresses[0], "MASTER_PORT": str(store.port)}
    write_json(file, asdict(meeting))
    return store


def join(file: Path, deadline: float, timeout: timedelta) -> tuple[TCPStore, str]:
    """Rank 0's store, reached from another rank, and the address of this rank on the way there; empty on rank 0's own node, where every way works.

    `deadline`: by time.monotonic().
    """
    while not file.exists():
        if time.monotonic() > deadline:
            raise MeetingError(f"rank 0 has not written {file} within {timeout}: its log says why, or this folder is not the same on all nodes")
        time.sleep(PAUSE_S)
    meeting = Meeting(**json.loads(file.read_bytes()))
    while time.monotonic() < deadline:
        for address in usable_addresses(meeting):
            store = store_at(address, meeting.port, meeting.secret, timeout)
            if store is not None:
                os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(meeting.port)}
                return store, "" if meeting.host == socket.gethostname() else own_end(store, address, meeting.port)
        time.sleep(PAUSE_S)
    raise MeetingError(
        f"{socket.gethostname()} cannot reach rank 0 at {', '.join(meeting.addresses)}, port {meeting.port}: nodes must accept connections from "
        "each other"
    )


def own_end(store: Store, address: str, port: int) -> str:
    """This rank's address on the way to rank 0. Tells rank 0 which of its addresses is the other end."""
    with socket.create_connection((address, port), timeout=ANSWER_S) as connection:
        own, reached = (str(end[0]) for end in (connection.getsockname(), connection.getpeername()))
    store.set(REACHED, reached)
    return own


def use_interface_of(address: str) -> None:
    """Lets gloo and NCCL take the network card that has an address of this machine, unless the user has named one. Prints which they take.

    gloo takes the card behind the machine's name, which may be the loopback. NCCL takes the first card, which may serve management alone; only with
    InfiniBand it knows better. `address`: empty or a loopback's where no other node is there.
    """
    import psutil

    cards = psutil.net_if_addrs().items()
    name = next((name for name, addresses in cards if address in (each.address.partition("%")[0] for each in addresses)), None)
    given = [name for name in INTERFACES if name in os.environ]
    if name is not None and name != "lo":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        if not any(card.startswith(FABRICS) and state.isup for card, state in psutil.net_if_stats().items()):
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")
    print(f"network: {', '.join(_interface(variable, given) for variable in INTERFACES)}", flush=True)


def _interface(variable: str, given: Sequence[str]) -> str:
    """The card that gloo or NCCL takes, and who chose it. `given`: variables that were set before."""
    who = "set by the environment" if variable in given else "the card that reaches the other nodes"
    return f"{variable}={os.environ[variable]} ({who})" if variable in os.environ else f"{variable} is left to the library"


def usable_addresses(meeting: Meeting) -> Sequence[str]:
    """Rank 0's addresses that are worth a try.

    Seen from another machine, those that this machine has too (such as Docker's bridge) are left out, unless there are no others.
    """
    mine = () if meeting.host == socket.gethostname() else own_addresses()
    return [address for address in meeting.addresses if address not in mine] or meeting.addresses


def store_at(address: str, port: int, secret: str, timeout: timedelta) -> TCPStore | None:
    """The store at an address; None where nothing answers, or another job's store does."""
    try:
        socket.create_connection((address, port), timeout=ANSWER_S).close()
        store = TCPStore(address, port, None, False, timedelta(seconds=ANSWER_S), wait_for_workers=False)
        if store.get(KEY) != secret.encode():
            return None
    except (OSError, RuntimeError):
        return None
    store.set_timeout(timeout)
    return store


def own_addresses() -> Sequence[str]:
    """Names and addresses of this machine for others: names that do not resolve to a loopback address, then IP addresses."""
    import psutil

    names = dict.fromkeys(name for name in (os.environ.get("SLURMD_NODENAME"), socket.gethostname()) if name and is_public(name))
    addresses = [card.address for cards in psutil.net_if_addrs().values() for card in cards if card.family == socket.AF_INET]
    return [*names, *(address for address in addresses if not address.startswith("127."))] or ["127.0.0.1"]


def is_public(name: str) -> bool:
    """True when a name resolves here to an address that other machines can use."""
    try:
        return not socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False
