"""Ways to a server that can be cut, stalled, delayed and mended: proxies of a Toxiproxy, told over HTTP."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import aiohttp

from bench.chaos_ports import HOST, quiet_port


class Link:
    """One way to one server, on a port of its own that stays the same."""

    def __init__(self, proxies: Proxies, name: str, address: str) -> None:
        self._proxies = proxies
        self._name = name
        #: `host:port` of our end.
        self.address = address

    async def cut(self) -> None:
        """End all connections, and refuse new ones."""
        await self._set(enabled=False)

    async def stall(self) -> None:
        """Let nothing through, in neither direction, without ending any connection."""
        for stream in ("upstream", "downstream"):
            await self._add("timeout", stream, {"timeout": 0})

    async def delay(self, seconds: float) -> None:
        """Let every answer come so much later, a fifth more or less."""
        await self._add("latency", "downstream", {"latency": int(seconds * 1000), "jitter": int(seconds * 200)})

    async def mend(self) -> None:
        """Let everything through again; connections that were stalled end."""
        for toxic in await self._proxies.call("get", f"/proxies/{self._name}/toxics"):
            await self._proxies.call("delete", f"/proxies/{self._name}/toxics/{toxic['name']}")
        await self._set(enabled=True)

    async def _set(self, *, enabled: bool) -> None:
        await self._proxies.call("post", f"/proxies/{self._name}", {"enabled": enabled})

    async def _add(self, kind: str, stream: str, attributes: dict[str, Any]) -> None:
        toxic = {"type": kind, "stream": stream, "attributes": attributes}
        await self._proxies.call("post", f"/proxies/{self._name}/toxics", toxic)

    async def remove(self) -> None:
        await self._proxies.call("delete", f"/proxies/{self._name}")


class Proxies:
    """A Toxiproxy, and the links that were made in it here; they are removed at the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._links: list[Link] = []

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for link in self._links:
            await link.remove()
        await self._http.close()

    async def link(self, name: str, upstream: str) -> Link:
        """Make a way to `host:port` under a name that no other has."""
        wanted = {"name": name, "listen": f"{HOST}:{quiet_port()}", "upstream": upstream, "enabled": True}
        made = await self.call("post", "/proxies", wanted)
        link = Link(self, name, made["listen"])
        self._links.append(link)
        return link

    async def call(self, method: str, path: str, body: object = None) -> Any:
        async with self._http.request(method, f"{self._url}{path}", json=body) as answer:
            assert answer.status < 300, f"{method} {path}: {answer.status} {await answer.text()}"
            return await answer.json() if answer.content_type == "application/json" and answer.status != 204 else None
