"""The API's paths of the agent itself, the whole cluster, and its hosts."""

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from outlive import __version__
from outlive.cluster import outlook

from . import answers, metrics
from .admitting import Counted
from .declaring import NDJSON, TEXT, query, route
from .logs import LogOptions
from .paging import Page, ascending
from .problems import Encoded, NotFound
from .readiness import NotReady, reasons
from .view import View


class Hosts:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._losable = Counted(view)

    @route("GET", "/healthz", answers.Health, to_peers=True)
    async def health(self, request: Request) -> Response:
        """Alive, and which host and version this is."""
        told: answers.Health = {
            "host": self.view.host, "version": __version__, "store_reachable": self.view.store_reachable,
        }  # fmt: skip
        return Encoded(told)

    @route("GET", "/readyz", answers.Ready, to_peers=True)
    async def ready(self, request: Request) -> Response:
        """This host can act: it follows the store, holds a claim, its guard answers. Else 503, with every reason."""
        if why := reasons(self.view):
            raise NotReady(self.view.host, why)
        told: answers.Ready = {"host": self.view.host, "ready": True}
        return Encoded(told)

    @route("GET", "/metrics", media=TEXT, to_peers=True)
    async def metrics(self, request: Request) -> Response:
        """Figures of this agent and its cluster, in the text form of Prometheus or of OpenMetrics."""
        content, kind = metrics.told(self.view, request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": kind})

    @route("GET", "/v1/cluster", answers.Cluster)
    async def cluster(self, request: Request) -> Response:
        """Everything, with the verdict that `outlive status` ends with."""
        picture = self.view.mirror
        lost = await self._losable.now()
        look = outlook.look(picture, store_reachable=self.view.store_reachable, at=self.view.now(), lost=lost)
        told: answers.Cluster = {"host": self.view.host, "revision": picture.revision, "outlook": look}
        return Encoded(told)

    @route("GET", "/v1/hosts", answers.Hosts, query=Page)
    async def hosts(self, request: Request) -> Response:
        """All hosts, in pages."""
        picture = self.view.mirror
        names, after = ascending("hosts", picture.hosts, query(request, Page))
        found = outlook.of_hosts(picture, names, store_reachable=self.view.store_reachable)
        told: answers.Hosts = {"hosts": list(found), "next": after}
        return Encoded(told)

    @route("GET", "/v1/hosts/{name}", outlook.HostOutlook, problems=(404,))
    async def host(self, request: Request) -> Response:
        """One host."""
        name, picture = request.path_params["name"], self.view.mirror
        if name not in picture.hosts:
            raise NotFound(f"There is no host {name[:80]}.", remedy="see `outlive status`")
        return Encoded(outlook.of_hosts(picture, [name], store_reachable=self.view.store_reachable)[0])

    @route("GET", "/v1/hosts/{name}/logs/{workload}", media=NDJSON, query=LogOptions, problems=(404,),
           to_peers=True, streams=True)  # fmt: skip
    async def logs(self, request: Request) -> Response:
        """This host's own lines of a workload, each a JSON object with unix_ms, host, module, stream and text."""
        name, asked = request.path_params["name"], query(request, LogOptions)
        if name != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {name[:80]}.")
        found = self.view.log_lines(request.path_params["workload"], asked.names(), asked.lines, asked.follow)
        return StreamingResponse(found, media_type=NDJSON)
