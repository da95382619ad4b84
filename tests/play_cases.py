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
def served(host="127.0.0.1"):
    """The address of a playground that runs in a thread."""
    import socket

    import uvicorn

    from thalweg.play import application

    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(application(host), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
