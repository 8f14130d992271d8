"""What can go wrong in the depot, each with its own id."""

from outlive.cluster.package import Component
from outlive.errors import Failed, UsageInvalid


class DepotFailed(Failed):
    """The depot's own files could not be read or written."""

    id = "depot.failed"


class DepotFull(DepotFailed):
    """There is no room left where the depot is."""

    id = "depot.full"


class DepotBusy(DepotFailed):
    """Somebody else held what was needed for longer than one may wait."""

    id = "depot.busy"


class ComponentMissing(DepotFailed):
    """A component is asked for that is not here."""

    id = "component.missing"


class ComponentDamaged(DepotFailed):
    """A component is not what its name says: what came from elsewhere, or what lies on this disk."""

    id = "component.damaged"


class PackageMissing(Failed):
    """A package is asked for that is not here, or not known."""

    id = "package.missing"


class PackageInvalid(UsageInvalid):
    """A package, manifest or archive that breaks the rules; nothing of it was kept."""

    id = "package.invalid"


class DependencyConflict(Failed):
    """No choice of versions gives everybody what they want; the cause says who wants what."""

    id = "package.conflict"


class DependencyCycle(Failed):
    """Packages depend on each other in a circle, which the sentence names."""

    id = "package.cycle"


class InstallFailed(Failed):
    """A package could not be installed; nothing of the attempt is left, and older versions are as they were."""

    id = "install.failed"


def damaged(component: Component, why: str) -> ComponentDamaged:
    """The error about a component that is not what it is called."""
    return ComponentDamaged(f"The component {component.digest} is not what its name says.", cause=why)
