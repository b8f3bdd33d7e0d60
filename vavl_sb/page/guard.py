"""Keeps the page's server to itself: no other site, no other host's files.

Authors
 * The vavl_sb authors 2026
"""

# The browser may load only what this server sends: no fonts, scripts or
# pictures from elsewhere. Gradio's own pages need inline scripts and styles.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
]
# Names under which a browser on this computer reaches the server. A site that
# has its own name point here (DNS rebinding) is refused.
HOSTS = ["127.0.0.1", "localhost"]


class Guard:
    """ASGI middleware: response headers, and no fetching of remote files.

    Arguments
    ---------
    app : callable
        The ASGI application behind it.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Handles one request; see the base class of ASGI applications."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message = dict(message)
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        # Gradio's route for files would fetch from the network as well, and
        # its proxy is for pages that embed others.
        for route in ("/file=", "/proxy="):
            _, found, rest = scope["path"].partition(route)
            if found and "://" in rest:
                return await _refuse(send_with_headers)
        await self.app(scope, receive, send_with_headers)


async def _refuse(send):
    """Answers 403."""
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    await send(
        {"type": "http.response.body", "body": b"no files from elsewhere\n"}
    )
