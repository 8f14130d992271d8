"""`outlive completion SHELL`: print the script that lets a shell complete our words.

The scripts are click's own; they call `outlive` back, which answers from the table of commands.
"""

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'eval "$(outlive completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(outlive completion zsh)"       # in ~/.zshrc, after compinit',
    "fish": "outlive completion fish | source       # in ~/.config/fish/config.fish",
}


@click.command(
    epilog="\b\nTo have it in every shell, put this line in its start-up file:\n"
    + "\n".join(f"  {line}" for line in _HOW.values())
)
@click.argument("shell", type=click.Choice(list(_HOW)))
def command(shell: str) -> None:
    """Print the completion script of SHELL."""
    from outlive.cli.main import outlive

    script = get_completion_class(shell)
    assert script is not None, "click knows the three shells that the argument allows"
    click.echo(script(outlive, {}, "outlive", "_OUTLIVE_COMPLETE").source())
