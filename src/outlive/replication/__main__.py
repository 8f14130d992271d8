"""`python -m outlive.replication comm.json`: one communication manager."""

import sys
from pathlib import Path

from outlive.replication.process import main

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m outlive.replication comm.json")
    sys.exit(main(Path(sys.argv[1])))
