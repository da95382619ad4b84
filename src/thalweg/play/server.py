"""The playground over HTTP: routes, limits, and what a browser may do with the page."""

import ipaddress
import json
import logging
import signal
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import quote

from thalweg import __version__
from thalweg.errors import InvalidArgumentError, MissingPackageError, UnknownRuleError
from thalweg.play import facts
from thalweg.play.question import BadRequestError
from thalweg.play.workers import ANSWERS, BusyError, Workers

__all__ = ["application", "serve"]

# Of a request's body, in bytes. How many seconds requests have to end in once the server is stopped.
BODY, GRACE = 64_000, 1

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")

# Everything comes from this server. Styles stand in the page because plotly.js writes its own there.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


def serve(host: str = "127.0.0.1", port: int = 8700, *, browser: bool = True) -> None:
    """Serve the playground until Ctrl-C.

    Args:
        host: the address to listen on; "0.0.0.0" lets others in.
        port: where; 0 takes a free one.
        browser: whether to open the page.

    Raises:
        MissingPackageError: a package that it needs is not installed.
        InvalidArgumentError: the port is taken, or there is none of that number, or no machine of that name.
        KeyboardInterrupt: after Ctrl-C, once all is closed.
    """
    with _needed():
        import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").disabled = True  # what is cut off now is no error
            await super().shutdown(sockets)

    app = application(host)
    if not 0 <= port < 2**16:
        raise InvalidArgumentError(f"a port is a number from 0 to 65535, got {port}", argument="port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.getaddrinfo(host or None, port, family)  # looked up before there is anything to close
        listening = socket.create_server((host, port), family=family)
    except UnicodeError:
        raise InvalidArgumentError(f"no machine is named {host!r}", argument="host") from None
    except OSError as error:
        # Python adds the address to the system's reason.
        why = str(error.strerror or error).partition(" (while")[0]
        raise InvalidArgumentError(f"cannot listen on {host}, port {port}: {why}") from None
    name = "localhost" if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening.getsockname()[1]}/"
    # No logging of uvicorn's own making: that would close every handler there is.
    config = uvicorn.Config(app, log_config=None, log_level="error", lifespan="on", server_header=False)
    config.timeout_graceful_shutdown = GRACE
    server = Server(config)
    with listening, _hanging_up(server):
        print(f"The playground is at {url}; Ctrl-C ends it.", flush=True)
        if browser:
            webbrowser.open(url)
        server.run(sockets=[listening])


@contextmanager
def _hanging_up(server: Any) -> Iterator[None]:
    """Within: when the terminal is closed, the server is too; uvicorn knows of Ctrl-C and SIGTERM alone."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    hung_up = False

    def stop(*_: object) -> None:
        nonlocal hung_up
        hung_up = server.should_exit = True

    if before is not signal.SIG_IGN:  # as under nohup
        signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, before)
        if hung_up:
            signal.raise_signal(number)


@contextmanager
def _needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError("the playground", error.name, "play") from error


def application(host: str = "127.0.0.1", workers: Workers | None = None) -> Any:
    """The playground as an ASGI application.

    Args:
        host: the address that it is served on.
        workers: what computes its answers.

    Raises:
        ImportError: what it needs is not installed.
    """
    with _needed():
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse, RedirectResponse, Response
        from starlette.routing import Route

    Handler = Callable[[Request], Awaitable[Response]]
    computing = workers or Workers()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            await computing.warm()
            yield
        finally:
            await computing.close()

    def answered(handler: Handler) -> Handler:
        """A handler whose errors are answers."""

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except BadRequestError as error:
                response = JSONResponse({"error": str(error)}, 422)
            except UnknownRuleError as error:
                response = JSONResponse({"error": str(error)}, 404)
            except BusyError:
                response = JSONResponse({"error": "the playground is busy; ask again in a moment"}, 429)
            except _RequestError as error:
                response = JSONResponse({"error": str(error)}, error.status)
            except ClientDisconnect:
                response = Response(status_code=400)  # which no one reads
            response.headers.update(_HEADERS)
            response.headers.setdefault("cache-control", "no-cache")
            return response

        return answer

    async def computed(name: str, document: Any) -> Response:
        found = await computing.answer(name, document)
        return Response(found.body, found.status, media_type=found.kind)

    def asking(name: str) -> Handler:
        """A handler of requests to follow optimizers."""

        async def handle(request: Request) -> Response:
            return await computed(name, await _document(request))

        return handle

    async def surface(request: Request) -> Response:
        asked: Mapping[str, str] = request.query_params
        wanted: Any = asked.get("name")
        if wanted is None:
            wanted = {"formula": asked.get("formula")}
            if "window" in asked:
                wanted["window"] = _json(asked["window"].encode())
        response = await computed("surface", wanted)
        if response.status_code == 200:
            response.headers["cache-control"] = "private, max-age=600"
        return response

    async def catalogue(request: Request) -> Response:
        return JSONResponse({**facts.catalogue(), "version": __version__})

    async def rule(request: Request) -> Response:
        return JSONResponse(facts.of_rule(request.path_params["name"]))

    async def rule_page(request: Request) -> Response:
        name = request.path_params["name"]
        known = facts.of_rule(name)["name"]
        return RedirectResponse(f"/rules/{quote(known)}") if name != known else page("rule.html")

    async def texts(request: Request) -> Response:
        return JSONResponse(languages())

    def page(name: str) -> Response:
        folder = resources.files("thalweg.play") / "page"
        return Response((folder / name).read_bytes(), media_type=_KINDS[name.rpartition(".")[2]])

    async def file(request: Request) -> Response:
        return page(request.url.path.strip("/") or "index.html")

    async def plotly(request: Request) -> Response:
        with _needed():
            from plotly.offline import get_plotlyjs
        return Response(get_plotlyjs(), media_type=_KINDS["js"], headers={"cache-control": "max-age=86400"})

    files = [path.name for path in (resources.files("thalweg.play") / "page").iterdir()]
    routes = [
        Route("/", answered(file)),
        *(Route(f"/{name}", answered(file)) for name in files if name.rpartition(".")[2] in _KINDS),
        Route("/plotly.js", answered(plotly)),
        Route("/rules/{name}", answered(rule_page)),
        Route("/api/catalogue", answered(catalogue)),
        Route("/api/languages", answered(texts)),
        Route("/api/surface", answered(surface)),
        Route("/api/rules/{name}", answered(rule)),
        *(
            Route(f"/api/{name}", answered(asking(name)), methods=["POST"])
            for name in ANSWERS
            if name != "surface"
        ),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Guard, host=host)], lifespan=lifespan)


class _Guard:
    """Refuses what pages from elsewhere ask for.

    Any page can make a browser send requests to this machine. So a request is for a name of ours, lest a page
    reach us through a name of its own that it points here; and where the browser says which page asks for an
    answer, that page is ours.
    """

    def __init__(self, app: Any, host: str) -> None:
        self.app = app
        own = () if host in LOCAL else (host.lower(), socket.gethostname().lower())
        self.names = {*LOCAL, *own, *(f"{name}.local" for name in own)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers
        from starlette.responses import JSONResponse

        why = self._refusal(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else None
        app = JSONResponse({"error": why}, 403, _HEADERS) if why else self.app
        await app(scope, receive, send)

    def _refusal(self, headers: Mapping[str, str], path: str) -> str | None:
        host = headers.get("host", "").lower()
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if name not in self.names and (self.names == {*LOCAL} or not _is_address(name)):
            return f"the playground is not served as {name!r}; ask for it by the address that it printed"
        if not path.startswith("/api/"):
            return None
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or (
            origin is not None and origin.partition("://")[2].lower() != host
        ):
            return "the playground answers its own page alone, not one from elsewhere"
        return None


def _is_address(name: str) -> bool:
    """Whether it is a number of a machine, which no one can point elsewhere."""
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return False


class _RequestError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def _document(request: Any) -> Any:
    """The JSON of a request's body.

    The kind of content is asked for because a page from elsewhere cannot send it unasked.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _RequestError(415, "the body is JSON, its content-type application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise _RequestError(413, f"a request has at most {BODY} bytes")
    return _json(body)


def _json(body: bytes) -> Any:
    def refused(word: str) -> None:
        raise BadRequestError(f"{word} is no number in JSON")

    try:
        return json.loads(body, parse_constant=refused)
    except BadRequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise _RequestError(400, f"this is not JSON: {error}") from None


@lru_cache(maxsize=1)
def languages() -> dict[str, Any]:
    """Every language by its code: a file of `languages/` is one."""
    folder = resources.files("thalweg.play") / "languages"
    found = sorted(path.name for path in folder.iterdir() if path.name.endswith(".json"))
    return {name[:-5]: json.loads((folder / name).read_text(encoding="utf-8")) for name in found}
