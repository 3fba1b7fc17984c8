"""The login side: the commands that a user types, and how they plan, submit and watch jobs."""

import sys
from importlib.util import find_spec

NEEDED = ("torch", "submitit", "pydantic", "yaml", "rich")
MISSING = [name for name in NEEDED if find_spec(name) is None]
if MISSING and sys.argv[0] == "-m":  # this is `python -m harness.launch`, or another command
    print(f"{sys.executable} lacks {', '.join(MISSING)}. `make setup` installs all packages; then run: . .venv/bin/activate", file=sys.stderr)
    sys.exit(2)
