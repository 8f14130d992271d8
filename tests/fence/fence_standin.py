"""A fence agent as Debian's are, for hosts whose power is a file: options as lines on standard input, exit codes.

`state`: the folder with a file for each host, "on" or "off".  `fault`: refuse, dawdle, lie, mumble or deaf.
"""

import sys
import time
from pathlib import Path

ON, OFF, FAILED = 0, 2, 1


def main() -> int:
    options = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin if "=" in line)
    power = Path(options["state"]) / options["plug"]
    fault, action = options.get("fault", ""), options["action"]
    with (power.parent / "calls").open("a") as calls:
        calls.write(f"{action} {power.name}\n")
    if options.get("password") != "s3cret":
        print("Unable to connect: wrong password=" + options.get("password", ""), file=sys.stderr)
        return FAILED
    if fault == "refuse":
        print(f"refused, though the password {options['password']} was right", file=sys.stderr)
        return FAILED
    if fault == "dawdle":
        time.sleep(600)
    if action == "off":
        if fault not in ("lie", "mumble"):
            power.write_text("off")
        print(f"Success: Powered OFF {power.name}")
        return ON
    if fault == "mumble":
        print("Status: UNKNOWN")
        return FAILED
    print(f"Status: {power.read_text().upper()}")
    return OFF if power.read_text() == "off" else ON


if __name__ == "__main__":
    sys.exit(main())
