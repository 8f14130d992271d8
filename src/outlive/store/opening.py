"""Which store an agent's file means, and opening it: the one place that knows all backends."""

from outlive.config.agent_file import AgentConfig
from outlive.config.store_address import SqliteAddress

from .base import Store
from .etcd import EtcdStore
from .etcd_compaction import Compaction
from .etcd_exchange import Tls
from .etcd_login import Login
from .sqlite import SqliteStore


async def open_store(config: AgentConfig, *, timeout_s: float) -> Store:
    """Open the store that the file names, making an empty one where there is none.

    Raises what stores raise: StoreForeign and StoreCorrupt for what must not be used, StoreDenied, StoreUnavailable.
    """
    address = config.store_address
    if isinstance(address, SqliteAddress):
        return await SqliteStore.open(address.path, timeout_s=timeout_s)
    return await EtcdStore.open(
        address,
        timeout_s=timeout_s,
        tls=store_tls(config),
        login=store_login(config),
        compaction=Compaction(config.store_compaction),
    )


def store_tls(config: AgentConfig) -> Tls | None:
    """How an etcd store is known, and knows us."""
    tls = config.store_tls
    return None if tls is None else Tls(tls.ca, tls.certificate, tls.key)


def store_login(config: AgentConfig) -> Login | None:
    """Who we are to an etcd store."""
    login = config.store_login
    return None if login is None else Login(login.user, login.password_file)
