"""The playground over HTTP: routes, limits, and what a browser may do with the page."""

import json
import socket
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib import resources
from typing import Any
from urllib.parse import quote

from thalweg import __version__
from thalweg.errors import UnknownRuleError
from thalweg.play import answers, facts, question
from thalweg.play.question import BadRequestError, Question

__all__ = ["application", "serve"]

# Of a request's body, in bytes; how many answers are computed at once, and how many may wait.
BODY, AT_ONCE, WAITING = 64_000, 2, 32

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
        ImportError: what it needs is not installed.
        OSError, OverflowError: the port is taken, or none.
    """
    with _needed():
        import uvicorn

    app = application(host)
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    name = "localhost" if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening.getsockname()[1]}/"
    print(f"The playground is at {url}; Ctrl-C ends it.", flush=True)
    if browser:
        webbrowser.open(url)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False)
    with suppress(KeyboardInterrupt):  # which uvicorn passes on once all is closed
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"the playground needs {error.name}: pip install 'thalweg[play]'") from error


def application(host: str = "127.0.0.1") -> Any:
    """The playground as an ASGI application.

    Args:
        host: the address that it is served on. On a local one, requests for another name are refused, lest a
            page from elsewhere reach it through a name of its own.

    Raises:
        ImportError: what it needs is not installed.
    """
    with _needed():
        from anyio import CapacityLimiter
        from anyio.to_thread import run_sync
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import Request
        from starlette.responses import JSONResponse, RedirectResponse, Response
        from starlette.routing import Route

    Handler = Callable[[Request], Awaitable[Response]]
    limiter: list[CapacityLimiter] = []  # made within the event loop

    async def computed(function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function, in a thread, few at a time."""
        if not limiter:
            limiter.append(CapacityLimiter(AT_ONCE))
        if limiter[0].statistics().tasks_waiting >= WAITING:
            raise _Refused(429, "the playground is busy; ask again in a moment")
        return await run_sync(partial(function, *arguments), limiter=limiter[0])

    def answered(handler: Handler) -> Handler:
        """A handler whose errors are answers."""

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except BadRequestError as error:
                response = JSONResponse({"error": str(error)}, 422)
            except UnknownRuleError as error:
                response = JSONResponse({"error": str(error)}, 404)
            except _Refused as error:
                response = JSONResponse({"error": str(error)}, error.status)
            except ImportError as error:
                response = JSONResponse({"error": str(error)}, 501)
            response.headers.update(_HEADERS)
            response.headers.setdefault("cache-control", "no-cache")
            return response

        return answer

    def asking(answer: Callable[[Question], Any], kind: str, *, tuning: bool = False) -> Handler:
        """A handler of requests to follow optimizers."""

        def made(document: Any) -> Any:
            return answer(question.read(document, tuning=tuning))

        async def handle(request: Request) -> Response:
            content = await computed(made, await _document(request))
            return JSONResponse(content) if kind == "json" else Response(content, media_type=kind)

        return handle

    async def surface(request: Request) -> Response:
        asked: Mapping[str, str] = request.query_params
        wanted: Any = asked.get("name")
        if wanted is None:
            wanted = {"formula": asked.get("formula")}
            if "window" in asked:
                wanted["window"] = _json(asked["window"].encode())
        content = await computed(lambda: answers.grid(question.surface_of(wanted)))
        return JSONResponse(content, headers={"cache-control": "private, max-age=600"})

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

    posted = {
        "paths": asking(answers.paths, "json"),
        "tune": asking(answers.tuned, "json", tuning=True),
        "code": asking(answers.code, "text/x-python"),
        "csv": asking(answers.table, "text/csv"),
        "gif": asking(answers.animation, "image/gif"),
    }
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
        *(Route(f"/api/{name}", answered(handler), methods=["POST"]) for name, handler in posted.items()),
    ]
    local = host in LOCAL
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL] if local else ["*"])
    return Starlette(routes=routes, middleware=[guard])


class _Refused(Exception):  # noqa: N818  (an answer, not a fault of ours)
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def _document(request: Any) -> Any:
    """The JSON of a request's body.

    The kind of content is asked for because a page from elsewhere cannot send it unasked.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "the body is JSON, its content-type application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise _Refused(413, f"a request has at most {BODY} bytes")
    return _json(body)


def _json(body: bytes) -> Any:
    def refused(word: str) -> None:
        raise BadRequestError(f"{word} is no number in JSON")

    try:
        return json.loads(body, parse_constant=refused)
    except BadRequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"this is not JSON: {error}") from None


@lru_cache(maxsize=1)
def languages() -> dict[str, Any]:
    """Every language by its code: a file of `languages/` is one."""
    folder = resources.files("thalweg.play") / "languages"
    found = sorted(path.name for path in folder.iterdir() if path.name.endswith(".json"))
    return {name[:-5]: json.loads((folder / name).read_text(encoding="utf-8")) for name in found}
