"""What the user types: launch, status, logs, cancel, reproduce; the grid, the plan, the records, the runner."""

import sys
from importlib.util import find_spec

NEEDED = ("torch", "submitit", "pydantic", "yaml", "rich")
missing = [name for name in NEEDED if find_spec(name) is None]
if missing and sys.argv[0] == "-m":  # this is `python -m harness.launch`, or a command beside it
    print(f"{sys.executable} has no {', '.join(missing)}: `make setup` installs what is needed, `. .venv/bin/activate` enters it", file=sys.stderr)
    sys.exit(2)
