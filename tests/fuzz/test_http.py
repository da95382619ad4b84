"""Requests to the playground: whatever is sent, an answer or a refusal comes, and never a fault."""

import asyncio
import json
import random
import socket
from contextlib import suppress
from urllib.parse import quote

import pytest

import thalweg
from formula_cases import formula, nested, spoiled
from play_cases import asked, over_asgi, served
from thalweg.dialects import DIALECTS
from thalweg.play import application, facts
from thalweg.play.workers import ANSWERS

for needed in ("starlette", "uvicorn"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

STRANGE = [
    *json.loads(
        '[null, true, false, 0, -1, 1, 3, 1.5, 1e300, "", "x", "adam", "\\ud800", "\\u0000", "é", [], [1]]'
    ),
    *json.loads('[[[]], [[[]]], {}, {"": 0}, {"lr": {}}, [null, null, null], [[-1, 1]], {"formula": "x"}]'),
    *(10**400, -(10**30), "9" * 5000, [None] * 50),
]
PATHS = [
    "/",
    "/api/paths",
    "/api/surface",
    "/api/rules/adam",
    "/rules/adam",
    "/api/catalogue",
    "/play.js",
    "/plotly.js",
]


def number(r: random.Random) -> float:
    return r.choice([0, 1, -1, 0.5, 1e-9, 1e9, -1e-300, 1e300, r.uniform(-8, 8), r.gauss(0, 1)])


def question(r: random.Random) -> dict:
    """One that is mostly right."""
    names = [*thalweg.rules(), "bfgs", "l_bfgs", "gradient_descent"]
    optimizers = []
    for _ in range(r.randint(1, 3)):
        name = r.choice(names)
        values = {
            r.choice(["lr", "beta_1", "epsilon", "momentum", "nesterov"]): number(r)
            for _ in range(r.randrange(2))
        }
        optimizers.append((name, r.choice(["paper", "paper", *DIALECTS]), values))
    surface = r.choice([one["name"] for one in facts.catalogue()["surfaces"]])
    if r.random() < 0.4:
        text = formula(r, 3) if r.random() < 0.8 else nested(r, 40)
        surface = {"formula": spoiled(r, text) if r.random() < 0.2 else text}
        if r.random() < 0.5:
            surface["window"] = [sorted([number(r), number(r)]) for _ in range(r.randint(1, 2))]
    fields = {"surface": surface, "steps": r.choice([1, 2, 30, 100]), "seed": r.choice([0, 5, 2**31])}
    fields |= {"noise": abs(number(r)), "batch": r.choice([1, 7])} if r.random() < 0.3 else {}
    fields |= {"start": [number(r), number(r)]} if r.random() < 0.4 else {}
    return asked(*optimizers, **fields)


def altered(r: random.Random, document):
    """The document with something strange in it somewhere."""
    if isinstance(document, dict) and document and r.random() < 0.85:
        key = r.choice(list(document))
        changed = document | {key: altered(r, document[key])}
        if r.random() < 0.2:
            changed[r.choice(["x", "", "lr", "steps"])] = changed.pop(key)
        return changed
    if isinstance(document, list) and document and r.random() < 0.7:
        at = r.randrange(len(document))
        return [*document[:at], altered(r, document[at]), *document[at + 1 :]]
    return r.choice(STRANGE)


def body(r: random.Random) -> bytes:
    document = question(r)
    for _ in range(r.choice([0, 0, 1, 1, 3])):
        document = altered(r, document)
    text = json.dumps(document)
    match r.randrange(12):
        case 0:
            text = spoiled(r, text)
        case 1:
            text = text.replace("1", r.choice(["NaN", "Infinity", "1e999", "01", "[" * 10_000]))
        case 2:
            return r.randbytes(r.randrange(200))
        case 3:
            return text.encode(r.choice(["utf-16", "utf-32"]))
        case 4:
            text += " " * r.choice([63_000, 65_000, 200_000])
    return text.encode("utf-8", "surrogatepass")


def request(r: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body."""
    headers = {"host": "localhost", "content-type": "application/json"}
    if r.random() < 0.15:
        name = r.choice(
            ["host", "origin", "sec-fetch-site", "content-type", "content-length", "cookie", "x" * 3000]
        )
        headers[name] = r.choice(
            ["", "null", "evil.example", "[", "]:", "[::1", "a:b:c", "\xff", "127.0.0.1:99999"]
        )
    roll = r.random()
    if roll < 0.6:
        return "POST", f"/api/{r.choice([*ANSWERS, *['paths'] * 4])}", headers, body(r)
    if roll < 0.85:
        wanted = spoiled(r, formula(r, 3)) if r.random() < 0.3 else formula(r, 3)
        window = r.choice(
            ["", "&window=", f"&window={quote(json.dumps(r.choice(STRANGE)))}", "&window=[[-1,1]]"]
        )
        asked_for = f"formula={quote(wanted, errors='surrogatepass')}"
        return (
            "GET",
            f"/api/surface?{r.choice([asked_for, asked_for, 'name=beale', 'name=%ff'])}{window}",
            headers,
            b"",
        )
    path = r.choice(PATHS)
    if r.random() < 0.7:
        path = quote(spoiled(r, path), safe="/?&=%", errors="surrogatepass")
    return r.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X"]), path, headers, b""


def test_every_request_gets_an_answer_or_a_reason(rounds, generator):
    app = application()
    seen = dict.fromkeys((200, 403, 404, 405, 413, 415, 422), 0)

    async def run():
        async with app.router.lifespan_context(app):
            for _ in range(rounds):
                method, path, headers, sent = request(generator)
                status, head, told = await over_asgi(
                    app, method, path, headers, sent, gone=generator.random() < 0.05
                )
                said = (method, path, headers, sent[:2000], told[:300])
                assert status < 500, said
                assert b"Traceback" not in told, said
                assert b"seconds that an answer may take" not in told, said
                if (
                    status >= 400
                    and path.startswith("/api/")
                    and head.get("content-type") == "application/json"
                ):
                    assert json.loads(told)["error"].count("\n") == 0, said
                seen[status] = seen.get(status, 0) + 1

    asyncio.run(run())
    assert seen[200] > rounds / 20, seen
    assert seen[422] > rounds / 20, seen


def test_bytes_that_are_no_request_leave_the_server_as_it_was(rounds, generator, capfd):
    with served() as address:
        host, _, port = address.partition(":")
        for _ in range(max(1, rounds // 10)):
            method, path, headers, sent = request(generator)
            lines = [
                f"{method} {path} HTTP/1.{generator.choice('011')}",
                *(f"{k}: {v}" for k, v in headers.items()),
            ]
            lines.append(
                f"content-length: {generator.choice([len(sent), len(sent) + 10, 0, -1, 10**12, 'x'])}"
            )
            whole = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + sent)
            for _ in range(generator.randrange(3)):
                whole[generator.randrange(len(whole))] = generator.randrange(256)
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(whole[: generator.choice([len(whole), generator.randrange(len(whole))])])
                if generator.random() < 0.3:
                    connection.settimeout(0.05)
                    with suppress(OSError):  # it waits for the rest, or has closed
                        connection.recv(1000)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"GET /style.css HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
    assert "Traceback" not in capfd.readouterr().err
