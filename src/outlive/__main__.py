"""Where the process begins: `python -m outlive` and the installed `outlive` both come in here.

Nothing is decided here. It only makes sure that an interruption during the first imports ends as
quietly as one later.
"""

import sys


def main() -> None:
    """Run the command line with this process's arguments, and exit with its code."""
    try:
        from outlive.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
