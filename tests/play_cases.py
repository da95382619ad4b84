"""What tests of the playground share: a request, and a server of its own."""

import threading
import time
from contextlib import contextmanager


def asked(*optimizers, **fields):
    """A request: optimizers by name, or (name, dialect, values)."""
    listed = [
        dict(zip(("method", "dialect", "values"), (one,) if isinstance(one, str) else one, strict=False))
        for one in optimizers or ("sgd",)
    ]
    return {"surface": "ravine", "steps": 30, "optimizers": listed, **fields}


@contextmanager
def served(workers=None):
    """The address of a playground that runs in a thread."""
    import socket

    import uvicorn

    from thalweg.play import application

    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(application(workers=workers), log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


async def over_asgi(application, method, path, headers, body=b"", *, gone=False):
    """Status, headers and body of an answer; what the application raises is raised.

    Args:
        application: as ASGI has it.
        method: such as GET.
        path: with its query.
        headers: by name.
        body: bytes.
        gone: whether who asks goes away before the body is through.
    """
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8700),
    }
    parts = [
        {"type": "http.request", "body": body[i : i + 16_000], "more_body": True}
        for i in range(0, len(body), 16_000)
    ]
    parts.append(
        {"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False}
    )
    told = []

    async def receive():
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message):
        told.append(message)

    await application(scope, receive, send)
    head = {name.decode(): value.decode("latin-1") for name, value in told[0]["headers"]}
    return told[0]["status"], head, b"".join(part.get("body", b"") for part in told[1:])
