"""The keys of an agent file's [fencing]: the hardware watchdog, and the ways to prove that another host is off.

Each key is told here once, for the reader, the JSON Schema and the reference in docs/agent-file.md. What has to hold
between them is in `fencing`.
"""

from .module_shape import DAY_S
from .shapes import Flag, Number, Text
from .tables import Key, ListOf, Table, TableOf
from .texts import absolute_path, name_of

MOST_METHODS = 16
LIMIT_S = 30.0
TRIES = 2
WATCHDOG_TIMEOUT_S = 2

OPTION = Text(
    "the name of an option of a fence agent",
    "[a-z0-9][a-z0-9_-]{0,63}",
    "Write it as the agent's manual has it, without leading dashes: plug, ssl_insecure.",
    least=1,
    most=64,
)
OPTION_VALUE = Text("text of one line", r"[^\x00-\x1f\x7f]*", "Remove the control characters.", most=1000)
AGENT = Text(
    "the name or path of a fence agent",
    r"(/[^\x00]*/)?fence_[A-Za-z0-9_.-]+",
    "Write it as it is called, such as fence_ipmilan.",
    least=7,
    most=500,
)
WORD = Text("text in quotes", r"[^\x00]*", "Write it without the character of code 0.", most=4000)

METHOD = Table(
    (
        Key("name", name_of("a fence method"), "What it is called in events and in `outlive status`.", required=True),
        Key(
            "agent",
            AGENT,
            "A program with the interface of Debian's `fence-agents`: it is given its options as lines KEY=VALUE on "
            "its standard input, `action=off` and then `action=status` among them.",
        ),
        Key(
            "options",
            TableOf(OPTION, OPTION_VALUE, "options", heading="OPTION"),
            "The fence agent's options. `{host}` and `{address}` stand for the host to fence; `password_file = PATH` "
            "(any option whose name ends with `passwd_file` or `password_file`) is given as the password in that file.",
        ),
        Key(
            "command",
            ListOf(WORD, "words", least=1, most=64),
            "A program of your own that switches a host off, and its arguments; `{host}` and `{address}` stand for "
            "the host.",
        ),
        Key(
            "status",
            ListOf(WORD, "words", least=1, most=64),
            "The program that tells whether the host is off, required with `command`: exit code 0 it is on; 2, and a "
            "line `off`, `Status: OFF` or `HOST: off` on standard output, it is off; anything else: unknown.",
            also=("status_command",),
        ),
        Key(
            "run_locks",
            Flag(),
            "Not a switch: workloads whose run lock on a datastore can be taken from the silent host are started "
            "elsewhere, the others wait for the next method.",
            default=False,
        ),
        Key(
            "host",
            TableOf(
                name_of("a host"), TableOf(OPTION, OPTION_VALUE, "options", heading="OPTION"), "hosts", heading="HOST"
            ),
            "Options for single hosts, above those of the method; with it only the hosts that are named can be fenced "
            "by this method. In a command `{OPTION}` stands for them.",
            also=("hosts",),
        ),
        Key(
            "limit_s",
            Number(1, DAY_S),
            "How long a try may take, with the proof that the host is off.",
            LIMIT_S,
            also=("timeout_s", "timeout"),
        ),
        Key(
            "tries",
            Number(1, 100, whole=True),
            "How often it is tried before the next method has its turn.",
            TRIES,
            also=("retries",),
        ),
    )
)

FENCING = Table(
    (
        Key(
            "watchdog",
            absolute_path("a watchdog device"),
            "The hardware watchdog that resets this host when its guard dies, hangs, or cannot end what it has to; "
            "without it there is none.",
        ),
        Key(
            "watchdog_timeout_s",
            Number(1, 3600, whole=True),
            "After how many seconds without a sign from the guard it does so.",
            WATCHDOG_TIMEOUT_S,
        ),
        Key(
            "method",
            ListOf(METHOD, "fence methods", most=MOST_METHODS),
            "Ways to make sure that another host is off, in the order in which they are tried. They are used where "
            "the cluster's policy says `proof_of_end = fence`; give every host the same.",
            also=("methods",),
        ),
    )
)
