"""The other one of the two that are compared: jupyterhub-idle-culler."""

from __future__ import annotations

import asyncio
import sys

from jupyterhub_idle_culler import IdleCuller, cull_idle
from tornado.httpclient import AsyncHTTPClient

from .looks import measured


async def stock(port: int, page: int) -> None:
    """Measure jupyterhub-idle-culler as it is configured by itself, but for the size of a page."""
    app = IdleCuller(url=f"http://127.0.0.1:{port}/hub/api")
    try:
        AsyncHTTPClient.configure("tornado.curl_httpclient.CurlAsyncHTTPClient")
    except ImportError:
        # It is only recommended, and ours has none either.
        AsyncHTTPClient.configure(None)

    async def run() -> None:
        # As in its own start().
        await cull_idle(
            url=app.url,
            api_token="token",
            inactive_limit=app.timeout,
            logger=app.log,
            cull_users=app.cull_users,
            remove_named_servers=app.remove_named_servers,
            max_age=app.max_age,
            concurrency=app.concurrency,
            cull_admin_users=app.cull_admin_users,
            api_page_size=page,
            cull_default_servers=app.cull_default_servers,
            cull_named_servers=app.cull_named_servers,
            cull_arbiter=app.cull_arbiter_hook,
        )

    await measured(port, run)


if __name__ == "__main__":
    asyncio.run(stock(int(sys.argv[1]), int(sys.argv[2])))
