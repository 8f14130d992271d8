"""`outlive vm …`: make virtual machines, take them over from libvirt, and look at what their files say."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .connect import HOST, SITE, WORKLOAD, cluster_options, say
from .output import json_option, print_json
from .vm_buttons import pause, reset, unpause

if TYPE_CHECKING:
    from outlive.client import Client
    from outlive.cluster.workload import Workload

datastore_option = click.option("--on", metavar="DATASTORE", help="The datastore for its disks; without it, local.")
stay_option = click.option("--host", type=HOST, metavar="HOST", help="The one host that it is to stay on.")


@click.group()
def command() -> None:
    """Make virtual machines, take them over from libvirt, and look at what their files say.

    A machine is a workload: start, stop, migrate, failover, why and the rest work on it as on any other.
    """


for each in (pause, unpause, reset):
    command.add_command(each)


@command.command(short_help="Make a virtual machine and its replica.")
@click.argument("name", type=WORKLOAD)
@click.option("--cold", "protection", flag_value="cold", help="When its host dies, it boots again elsewhere.")
@click.option("--warm", "protection", flag_value="warm", help="It goes on from its last checkpoint.")
@click.option("--hot", "protection", flag_value="hot", help="A standby goes on at once. The usual with --replica-site.")
@click.option("--site", type=SITE, metavar="SITE", help="Where it runs while it can.")
@click.option("--replica-site", type=SITE, metavar="SITE", help="Where its replica is.")
@stay_option
@click.option("--cpus", type=click.IntRange(1), metavar="COUNT", help="Processors.")
@click.option("--memory", metavar="SIZE", help="Memory, as in 2G or 512M; a bare number is MiB.")
@click.option("--disk", "disks", multiple=True, metavar="DISK", help="A disk: 20G, or /image.qcow2, or key=value,…")
@datastore_option
@click.option("--nic", "nics", multiple=True, metavar="NIC", help="A card: a bridge, or network=NAME,mac=…")
@click.option("--kernel", metavar="PATH", help="Boot this kernel directly.")
@click.option("--initrd", metavar="PATH", help="With this initial RAM disk.")
@click.option("--append", metavar="TEXT", help="With this command line.")
@click.option("--type", "board", metavar="TYPE", help="The board: q35 or pc, on which a hot machine pauses less.")
@click.option("--cpu-model", metavar="NAME", help="The processor that the guest sees.")
@click.option("--firmware", metavar="NAME", help="bios or uefi.")
@click.option("--guest-agent", is_flag=True, help="The QEMU guest agent runs in the guest.")
@click.option(
    "--user-data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What cloud-init does at its first start.",
)
@click.option("--dry-run", is_flag=True, help="Print the workload file; change nothing.")
@click.option("--wait", "wait_s", type=float, default=300.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@cluster_options
@json_option
def create(client: "Client", name: str, dry_run: bool, wait_s: float, as_json: bool, **options: Any) -> None:
    """Make the virtual machine NAME, and its replica with it, and wait until it is protected.

    \b
    outlive vm create db --site north --replica-site south --memory 1G --disk /srv/db.raw --nic network=office
    outlive vm create mail --cold --on shared --memory 2G --disk /srv/debian.qcow2,size=20G --nic br0

    \b
    A DISK is a size, the path of an image, or any of name= source= size= on= format= bus= read_only.
    A NIC is a bridge, or any of name= bridge= network= mac= model=.
    """
    from outlive.config.toml_writer import toml_text
    from outlive.config.workload_file import to_document, workload_from_document

    from .vm_document import document_of

    workload = workload_from_document(document_of(name, **options), "command line")
    document = to_document(workload)
    text = toml_text(document)
    if dry_run:
        if as_json:
            print_json({"document": document, "toml": text})
        else:
            click.echo(text, nl=False)
        return
    result = _made(client, name, text)
    if wait_s > 0:
        from .vm_waiting import until_protected

        stands = until_protected(client, name, wait_s)
        result |= {"outlook": stands}
        click.echo(f"Protected. {name} runs on {stands['host']}.", err=as_json)
    if as_json:
        print_json(result)


def _made(client: "Client", name: str, text: str) -> dict[str, Any]:
    """Apply the file of a machine that is not there yet. Raises RefusedForSafety for one that is."""
    from outlive.errors import RefusedForSafety

    if any(each["name"] == name for each in client.pages("/v1/workloads", "workloads")):
        raise RefusedForSafety(
            f"There is a workload {name} already.",
            cause="to make it anew would take the place of what runs",
            remedy=f"choose another name, change it with `outlive apply`, or remove it with `outlive rm {name}`",
        )
    result: dict[str, Any] = client.put(f"/v1/workloads/{name}?source=command%20line", text.encode())
    say(f"{name} was asked for.")
    return result


@command.command("import", short_help="Make a workload file of a libvirt domain.")
@click.argument("domain", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="DOMAIN.xml")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, a new one.")
@click.option("--name", type=WORKLOAD, metavar="NAME", help="Another name than the domain's.")
@click.option(
    "--protection",
    type=click.Choice(["cold", "warm", "hot"]),
    default="cold",
    show_default=True,
    help="What it may lose.",
)
@datastore_option
@stay_option
@json_option
def take_over(
    domain: str, output: Path | None, name: str | None, protection: str, on: str | None, host: str | None, as_json: bool
) -> None:
    """Make a workload file of a libvirt domain, and tell what could not be taken over.

    \b
    virsh dumpxml web | outlive vm import - --on shared -o web.toml

    The file goes to stdout or --output; each part that was left behind goes to stderr with its line and the reason.
    Nothing is applied. The disks' images stay where they are: they are copied when the machine first starts.
    """
    from outlive.cluster.workload import Protection
    from outlive.config.domain import import_domain
    from outlive.config.domain_xml import MOST_BYTES
    from outlive.config.toml_writer import toml_text

    source = "stdin" if domain == "-" else domain
    with click.open_file(domain, "rb") as file:
        raw = file.read(MOST_BYTES + 1)
    read = import_domain(raw, source, protection=Protection(protection), on=on, host=host, name=name)
    text = toml_text(read.document)
    for left in read.left:
        say(f"{source}:{left.line}: {left.part}: {left.why}.")
    if not read.left:
        say("All of it was taken over.")
    if output is not None:
        _write_new(output, text)
        say(f"Wrote {output}. Look at it with `outlive vm check {output}`, start it with `outlive apply {output}`.")
    if as_json:
        parts = [{"part": left.part, "line": left.line, "why": left.why} for left in read.left]
        print_json({"document": read.document, "toml": text, "not_taken_over": parts})
    elif output is None:
        click.echo(text, nl=False)


def _write_new(path: Path, text: str) -> None:
    from outlive.errors import Failed

    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        cause = error.strerror or str(error)
        raise Failed(f"{path} cannot be written.", cause=cause, remedy="name a new file with --output") from error


@command.command(short_help="Say what a machine's workload file says.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Say what the workload FILE of a virtual machine says, with all that was added to it, or every mistake in it.

    No cluster is asked.
    """
    from outlive.config.workload_file import read_workload, to_document
    from outlive.errors import UsageInvalid

    workload = read_workload(file)
    if workload.machine is None:
        raise UsageInvalid(
            f"{file} describes a service, not a virtual machine.", remedy="see `outlive apply --dry-run`"
        )
    if as_json:
        from outlive.cluster.machine_rules import datastores_of

        needs = {"cpus": workload.resources.cpus, "memory_mib": workload.resources.memory_mib}
        print_json({"document": to_document(workload), "needs": needs, "datastores": datastores_of(workload)})
        return
    for line in _told(workload):
        click.echo(line)


def _told(workload: "Workload") -> list[str]:
    from outlive.cluster.machine_rules import datastores_of

    machine, needs, rules = workload.machine, workload.resources, workload.placement
    assert machine is not None, "the caller looked"
    lines = [
        f"{workload.name} is a virtual machine under {workload.protection} protection.",
        f"  hardware    {machine.cpus} × {machine.cpu_model or 'the processor that every host can give'}, "
        f"{machine.memory_mib} MiB, {machine.version or machine.type}, {machine.firmware}",
        f"  needs       {needs.cpus:g} processors and {needs.memory_mib} MiB of a host"
        + (", and as much of its standby's" if workload.protection == "hot" else ""),
    ]
    if machine.boot:
        lines.append(f"  boots       {machine.boot.kernel}")
    for disk in machine.disks:
        size = f"{disk.size_mib} MiB" if disk.size_mib else "as large as its source"
        where = "each of its hosts" if disk.on == "local" else f"the datastore {disk.on}"
        source = f", first copied from {disk.source}" if disk.source else ""
        lines.append(f"  disk        {disk.name}: {disk.format}, {size}, on {where}{source}")
    for nic in machine.nics:
        lines.append(
            f"  card        {nic.name}: {nic.mac}, {nic.model}, on {nic.bridge or f'the network {nic.network}'}"
        )
    lines.append(f"  datastores  {', '.join(datastores_of(workload)) or 'none'}")
    where = ", ".join(rules.hosts or rules.sites) or "anywhere"
    lines.append(f"  runs        {where}{f', in {rules.prefer_sites[0]} if it can' if rules.prefer_sites else ''}")
    return lines
