"""The playground's answers, and its server's manners."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import thalweg
import thalweg.play
from play_cases import asked, over_asgi, served
from thalweg.errors import UnknownRuleError
from thalweg.play import answers, facts, question
from thalweg.play.question import BadRequestError
from thalweg.play.workers import BusyError, Workers
from thalweg.surfaces import paths
from thalweg.surfaces.functions import Noise

for needed in ("starlette", "uvicorn"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")


def unpacked(text, columns=None):
    numbers = np.frombuffer(base64.b64decode(text), "<f4").astype(float)
    return numbers.reshape(-1, columns) if columns else numbers


def answered(document):
    return answers.paths(question.read(document))["paths"]


# -- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*thalweg.rules(), "l_bfgs"])
def test_what_is_drawn_is_what_the_production_code_does(name):
    (told,) = answered(asked(name, steps=25))
    found = paths.path("ravine", name, steps=25)
    np.testing.assert_allclose(unpacked(told["points"], 2), found.points, rtol=1e-6)
    np.testing.assert_allclose(unpacked(told["values"]), found.values, rtol=1e-6)
    assert told["steps"] == found.steps
    for slot, numbers in found.state.items():
        one = told["series"][slot]
        drawn = unpacked(one["numbers"], one["entries"])
        np.testing.assert_allclose(drawn, numbers.reshape(drawn.shape), rtol=1e-6, atol=1e-30)


def filled(formula, path, t, entry):
    """A formula's numbers at a step, as the page fills them in."""

    def number(found):
        if found[1] == "t":
            return str(t)
        one = path["series"].get(found[1]) or {"numbers": path["points"], "entries": 2}
        rows = unpacked(one["numbers"], one["entries"])
        return f"({rows[t - (found[2] == '0'), min(entry, one['entries'] - 1)]!r})".replace("np.float64", "")

    text = re.sub(r"⟦(\w+?)(?:\|(\d))?⟧", number, formula)
    text = text.replace("−", "-").replace("·", "*").replace("^", "**").replace("²", "**2")
    return re.sub(r"√(\(+[^()]*\)+|[\d.]+)", r"(\1)**0.5", text)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adam", "amsgrad"])
def test_the_numbers_beside_a_formula_give_its_result(name):
    (path,) = answered(asked((name, "paper", {"lr": 0.1}), steps=9))
    assert path["formulas"]
    for formula in path["formulas"]:
        one = path["series"].get(formula["series"]) or {"numbers": path["points"], "entries": 2}
        if "{" in formula["numbers"] or "max" in formula["numbers"]:  # no Python
            continue
        for entry in (0, 1):
            value = eval(filled(formula["numbers"], path, 9, entry), {})  # of our own making
            assert value == pytest.approx(unpacked(one["numbers"], one["entries"])[9, entry], rel=1e-3)


def test_labels_are_unlike_and_tell_the_dialect():
    labels = [path["label"] for path in answered(asked("adam", "adam", ("adam", "keras"), "bfgs", "adam"))]
    assert labels == ["Adam", "Adam 2", "Adam (keras)", "BFGS", "Adam 3"]


def test_a_batch_averages_noise_and_shows_rare_features_more_often():
    assert question.read(asked(noise=2, batch=16)).noise == Noise(0.5)
    sparse = question.read(asked(surface="sparse", batch=2)).noise
    assert sparse.frequencies == pytest.approx((1, 1 - 0.95**2))


def test_a_path_that_is_lost_is_told():
    (path,) = answered(asked(("sgd", "paper", {"lr": 5}), steps=900))
    assert path["diverged"] is not None
    assert np.isnan(unpacked(path["points"])[-1])


def test_every_series_of_every_rule_has_a_row_a_step():
    for path in answered(asked(*thalweg.rules()[:8])) + answered(asked(*thalweg.rules()[8:])):
        for one in path["series"].values():
            assert unpacked(one["numbers"], one["entries"]).shape[0] == 31
        known = path["series"].keys() | {"points"}  # the parameter's own formula
        assert {formula["series"] for formula in path["formulas"]} <= known


def test_surfaces_come_as_grids_and_many_dimensions_do_not():
    told = answers.grid(question.surface_of("ravine"))
    values = unpacked(told["values"], told["side"])
    assert values[0, 0] == pytest.approx(64 / 20 + 16)
    assert values[-1, told["side"] // 2] == pytest.approx(16)
    assert "ill_conditioned" not in [one["name"] for one in facts.catalogue()["surfaces"]]


def test_formulas_have_windows_of_their_own():
    one = question.surface_of({"formula": "x^4", "window": [[-1, 1], [0, 1]]})
    assert one.window == ((-1, 1),)
    (path,) = answered(
        asked("adam", surface={"formula": "x² + y²", "window": [[-1, 1], [0, 1]]}, start=[1, 1])
    )
    assert unpacked(path["values"])[0] == 2


# -- refusals -------------------------------------------------------------------------------------

WRONG = {
    "a JSON object": [],
    "no surface is named 'raven'; did you mean 'ravine'": asked(surface="raven"),
    "surface is a name": asked(surface={}),
    "start is a list of 2 numbers": asked(start=[1]),
    "start is a number between": asked(start=[1, 10**400]),
    "steps is a whole number from 1 to 5000, got 1000000": asked(steps=1_000_000),
    "steps is a whole number from 1": asked(steps=True),
    "optimizers is a list of 1 to 10": asked(*["sgd"] * 11),
    "the request has no field 'step'": asked(step=3),
    "an optimizer has no field 'lr'": {**asked(), "optimizers": [{"method": "sgd", "lr": 1}]},
    "no rule is named 'adamm'": asked("adamm"),
    "no dialect is named 'jax'": asked(("adam", "jax")),
    "no hyperparameter 'beta'": asked(("adam", "paper", {"beta": 1})),
    "lr must lie in": asked(("adam", "paper", {"lr": -1})),
    "lr is a number, or true or false; got 'x'": asked(("adam", "paper", {"lr": "x"})),
    "got 1000": asked(("adam", "paper", {"lr": 10**400})),
    "BFGS has no hyperparameters": asked(("bfgs", "paper", {"lr": 1})),
    "noise is a number between": asked(noise=-1),
    "batch is a whole number": asked(batch=0),
    "no function is named '__import__'": asked(surface={"formula": "__import__(x)"}),
    "is not allowed": asked(surface={"formula": "x.real"}),
    "at most 400 characters": asked(surface={"formula": "x+" * 200 + "x"}),
    "low end is below its high end": asked(surface={"formula": "x", "window": [[1, 1]]}),
    "times the work": asked(
        *["adam"] * 10, surface={"formula": "*".join(["sin(x*y)"] * 40)}, steps=5000, start=[1, 1]
    ),
}


@pytest.mark.parametrize("why", WRONG)
def test_what_cannot_be_answered_is_refused_with_the_reason(why):
    with pytest.raises(BadRequestError, match=re.escape(why)):
        question.read(WRONG[why])


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"noise": "much"}, "noise"),
        ({"start": [1]}, "start"),
        ({"surface": "ravin"}, "surface"),
        ({"surface": {"formula": "x +"}}, "formula"),
        ({"stepz": 3}, "stepz"),
        ({"optimizers": [{"method": "adm"}]}, "rule"),
        ({"optimizers": [{"method": "adam", "dialect": "kears"}]}, "dialect"),
        ({"optimizers": [{"method": "adam", "values": {"lr": "big"}}]}, "lr"),
    ],
)
def test_a_refusal_names_the_field_that_it_is_about(changed, field):
    with pytest.raises(BadRequestError) as refusal:
        question.read(asked("adam") | changed)
    assert refusal.value.argument == field


def test_the_most_that_is_allowed_ends_soon():
    most = asked(*["adam"] * 10, surface="rosenbrock", steps=5000)
    begun = time.perf_counter()
    assert len(answered(most)) == 10
    assert time.perf_counter() - begun < 20


# -- exports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        asked(
            ("adam", "keras", {"lr": 0.3}), "momentum", "l_bfgs", noise=0.25, batch=2, seed=3, start=[-7, 2]
        ),
        asked(("rmsprop", "paper", {"centered": True}), surface={"formula": "x²/20 + sin(y)"}, start=[1, 1]),
        asked("sgd", surface="double_well", start=[1.5]),
        asked("adagrad", surface="sparse", batch=3),
    ],
)
def test_the_code_draws_the_same_paths(document, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(answers.code(question.read(document)), known)
    assert (tmp_path / "paths.png").stat().st_size > 1000
    for told in answered(document):
        found = known["paths"][told["label"]]
        drawn = unpacked(told["points"], found.points.shape[1])
        np.testing.assert_allclose(drawn, found.points, rtol=1e-6, atol=1e-30)


def test_the_code_of_a_solver_alone_asks_for_nothing_more():
    code = answers.code(question.read(asked("bfgs")))
    assert "import thalweg\n" not in code
    assert "Noise" not in code


def test_the_table_has_each_step_of_each_optimizer():
    table = answers.table(question.read(asked("adam", "sgd", "bfgs", steps=20)))
    head, *lines = table.splitlines()
    assert head == "optimizer,step,x,y,value,gradient_x,gradient_y,m_x,m_y,v_x,v_y"
    assert sum(line.startswith("Adam,") for line in lines) == 21
    last = next(line for line in lines if line.startswith("SGD,20,")).split(",")
    found = paths.path("ravine", "sgd", steps=20)
    assert [float(cell) for cell in last[2:5]] == [*found.end, found.values[-1]]
    assert last[7:] == [""] * 4


@pytest.mark.parametrize("surface", ["beale", "double_well"])
def test_the_animation_moves(surface):
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    document = asked(("sgd", "paper", {"lr": 0.001}), ("sgd", "paper", {"lr": 1e6}), surface=surface, steps=6)
    with image.open(io.BytesIO(answers.animation(question.read(document)))) as found:
        assert found.n_frames == 7


def test_tuning_is_that_of_the_race_and_leaves_solvers_alone():
    from thalweg.surfaces.race import tune

    found = answers.tuned(question.read(asked("adam", "bfgs"), tuning=True))
    assert found[0]["lr"] == tune("ravine", "adam", steps=30).lr
    assert found[1]["lr"] is None
    with pytest.raises(BadRequestError, match="from 1 to 1000"):
        question.read(asked(steps=2000), tuning=True)


# -- rules and words ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_rule_has_a_page(name):
    about = facts.of_rule(name)
    assert about["name"] == name
    assert about["summary"]
    assert about["guide"]["well"]
    assert "http" in about["source"] or about["source"]
    assert about["dialects"][0]["name"] == "paper"
    assert sum(len(formula["dialects"]) for formula in about["formulas"]) == len(about["dialects"])


def test_an_unknown_rule_has_none():
    with pytest.raises(UnknownRuleError, match="did you mean 'adam'"):
        facts.of_rule("adamm")


@pytest.fixture(scope="module")
def languages():
    from thalweg.play.server import languages

    return languages()


def test_every_language_says_everything(languages):
    assert {"en", "zh-Hant"} <= languages.keys()
    english = languages["en"]["interface"]
    for code, language in languages.items():
        assert language["interface"].keys() == english.keys(), code
        for key, text in language["interface"].items():
            assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), (code, key)


def test_the_page_says_nothing_that_languages_lack(languages):
    from importlib import resources

    folder = resources.files("thalweg.play") / "page"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    asked_for = set(re.findall(r'data-(?:say|label)="(\w+)"', text))
    asked_for |= set(re.findall(r'"(\w+)"', " ".join(re.findall(r"say\(([^)]*)", text))))
    known = languages["en"]["interface"].keys()
    assert asked_for <= known | {"", "3d"}
    built = {"quantity_effective", "quantity_gradient", "quantity_points"}
    assert known - asked_for <= built | {"to_start"}


def texts_of_the_library():
    told = facts.catalogue()
    yield from (surface["title"] for surface in told["surfaces"])
    yield from (solver["title"] for solver in told["solvers"])
    for rule in told["rules"]:
        yield rule["summary"]
        about = facts.of_rule(rule["name"])
        yield from (one["meaning"] for one in (*about["hyperparameters"], *about["switches"]))
        yield from about["guide"].values()


def test_what_the_library_says_is_translated_and_nothing_else(languages):
    for code, language in languages.items():
        if code != "en":
            assert language["texts"].keys() == set(texts_of_the_library()), code


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with served() as address:
        yield address


def sent(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(server, timeout=30)
    try:
        if body is not None:
            headers = {"content-type": "application/json", **headers}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/play.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/rules/adam", "text/html"),
        ("/api/catalogue", "application/json"),
        ("/api/languages", "application/json"),
        ("/api/rules/adam", "application/json"),
        ("/api/surface?name=beale", "application/json"),
        ("/api/surface?formula=x%C2%B2&window=[[-1,1]]", "application/json"),
    ],
)
def test_what_is_there_comes_with_its_kind_and_manners(server, path, kind):
    response, body = sent(server, "GET", path)
    assert response.status == 200
    assert response.headers["content-type"].startswith(kind)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe-eval" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert body


@pytest.mark.parametrize("path", ["/../question.py", "/page/index.html", "/__init__.py", "/server.py"])
def test_nothing_else_is_there(server, path):
    assert sent(server, "GET", path)[0].status == 404


@pytest.mark.parametrize("name", ["paths", "tune", "code", "csv", "gif"])
def test_each_answer_comes(server, name):
    response, body = sent(server, "POST", f"/api/{name}", json.dumps(asked("adam", steps=5)))
    assert response.status == 200
    kind = response.headers["content-type"].partition(";")[0]
    kinds = {"code": "text/x-python", "csv": "text/csv", "gif": "image/gif"}
    assert kind == kinds.get(name, "application/json")
    assert body


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, "{", {}),
        (400, "[" * 30_000, {}),
        (400, b"\xff\xfe", {}),
        (422, '{"surface": "ravine", "start": [NaN, 1]}', {}),
        (422, '{"surface": "ravine", "noise": Infinity}', {}),
        (422, json.dumps(asked(steps=1_000_000)), {}),
        (422, json.dumps(asked(surface={"formula": "open('x')"})), {}),
        (413, " " * 70_000, {}),
        (415, "{}", {"content-type": "text/plain"}),
    ],
)
def test_bad_input_gets_a_reason_and_a_4xx(server, status, body, headers):
    response, told = sent(server, "POST", "/api/paths", body, **headers)
    assert response.status == status
    assert json.loads(told)["error"]


def test_other_methods_names_and_addresses_are_refused(server):
    assert sent(server, "GET", "/api/paths")[0].status == 405
    assert sent(server, "GET", "/api/rules/nothing")[0].status == 404
    assert sent(server, "GET", "/api/surface?name=nothing")[0].status == 422
    assert sent(server, "GET", "/", host="evil.example")[0].status == 403
    response, _ = sent(server, "GET", "/rules/ada_grad")
    assert (response.status, response.headers["location"]) == (307, "/rules/adagrad")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"sec-fetch-site": "cross-site"}),
        (403, {"sec-fetch-site": "same-site"}),
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://localhost:1"}),
        (403, {"host": "evil.example"}),
        (403, {"host": "127.0.0.1.evil.example"}),
        (403, {"host": ""}),
        (200, {"sec-fetch-site": "same-origin", "host": "localhost:1", "origin": "http://localhost:1"}),
        (200, {"sec-fetch-site": "none"}),
        (200, {"host": "[::1]:8700"}),
        (200, {}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_answers_are_for_the_page_of_this_server_alone(server, method, status, headers):
    path, body = ("/api/surface?name=beale", None) if method == "GET" else ("/api/code", json.dumps(asked()))
    response, said = sent(server, method, path, body, **headers)
    assert response.status == status
    assert status == 200 or "default-src 'none'" in response.headers["content-security-policy"]
    assert status == 200 or json.loads(said)["error"]


def test_a_link_from_elsewhere_opens_the_page(server):
    away = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert sent(server, "GET", "/", **away)[0].status == 200


@pytest.mark.parametrize(
    ("status", "host"),
    [(200, "192.168.1.5:8700"), (200, "[fe80::1]:8700"), (200, "localhost"), (403, "evil.example:8700")],
)
def test_where_others_are_let_in_no_name_leads_here_that_someone_else_may_point(status, host):
    application = thalweg.play.application("0.0.0.0")
    assert asyncio.run(over_asgi(application, "GET", "/api/surface?name=beale", {"host": host}))[0] == status


def test_a_formula_that_repeats_itself_is_refused_before_it_is_written_out(server):
    formula = "tan(" * 60 + "x" + ")" * 60
    for method, path, body in (
        ("GET", f"/api/surface?formula={formula}", None),
        ("POST", "/api/paths", json.dumps(asked(surface={"formula": formula}))),
    ):
        response, said = sent(server, method, path, body)
        assert response.status == 422
        assert "more than 1000 operations" in json.loads(said)["error"]


def test_an_answer_that_takes_too_long_is_given_up_and_the_next_one_comes():
    async def run():
        workers = Workers()
        long = asked(*["adam"] * 10, surface="rosenbrock", steps=5000)
        assert (await workers.answer("surface", "beale")).status == 200
        workers.seconds = 0.2
        (process,) = workers._all
        status, _, said = await workers.answer("gif", long)
        assert (status, b"more than the 0.2 seconds" in said) == (422, True)
        assert process.returncode is not None
        workers.seconds = 60
        assert (await workers.answer("surface", "beale")).status == 200
        (process,) = workers._all
        process.kill()  # such as for want of memory
        await process.wait()
        assert (await workers.answer("surface", "beale")).status == 200
        (process,) = workers._all - {process}
        answer = asyncio.create_task(workers.answer("gif", long))
        await asyncio.sleep(0.1)
        process.kill()
        status, _, said = await answer
        assert (status, b"died" in said) == (422, True)
        await workers.close()

    asyncio.run(run())


def test_as_many_wait_as_may():
    async def run():
        workers = Workers()
        asked_for = [asyncio.create_task(workers.answer("surface", "beale")) for _ in range(40)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await workers.answer("surface", "beale")
        found = await asyncio.gather(*asked_for, return_exceptions=True)
        assert [type(one) for one in found].count(BusyError) == 40 - 2 - 32
        await workers.close()

    asyncio.run(run())


def test_the_page_comes_while_the_server_computes(server):
    long = json.dumps(asked(*["radam"] * 10, steps=2500))
    with ThreadPoolExecutor() as threads:
        busy = [threads.submit(sent, server, "POST", "/api/paths", long) for _ in range(2)]
        time.sleep(0.1)
        begun = time.perf_counter()
        assert sent(server, "GET", "/style.css")[0].status == 200
        waited = time.perf_counter() - begun
        assert not all(one.done() for one in busy)
        assert all(one.result()[0].status == 200 for one in busy)
    assert waited < 1


# -- the command ----------------------------------------------------------------------------------


def test_the_command_serves_on_this_machine_alone_and_says_where(capsys, monkeypatch):
    import uvicorn

    from thalweg.cli.main import main

    seen = []

    def run(self, sockets):
        seen.extend(one.getsockname() for one in sockets)
        for one in sockets:
            one.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    assert main(["play", "--port", "0", "--no-browser"]) == 130
    ((address, port),) = seen
    assert address == "127.0.0.1"
    assert f"http://127.0.0.1:{port}/" in capsys.readouterr().out


def test_a_port_that_is_taken_is_said_so(server, capsys):
    from thalweg.cli.main import main

    port = server.rpartition(":")[2]
    assert main(["play", "--port", port, "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert said == f"thalweg play: cannot listen on 127.0.0.1, port {port}: Address already in use\n"


def begun():
    """The command, which is serving, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "thalweg", "play", "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, int(re.search(r":(\d+)/", process.stdout.readline())[1])


def children(pid):
    """The processes that a process started; those that are no more than an entry are gone."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            found += [int(status.parent.name)] if state != "Z" and int(parent) == pid else []
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(("number", "times"), [("SIGINT", 1), ("SIGINT", 2), ("SIGTERM", 1), ("SIGHUP", 1)])
def test_a_signal_stops_the_server_whatever_it_is_at(number, times):
    process, port = begun()
    with ThreadPoolExecutor() as threads, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /api/code HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
        slow.sendall(b"content-length: 100\r\n\r\n{")
        with socket.create_connection(("127.0.0.1", port)) as gone:
            gone.sendall(b"POST /api/code HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
            gone.sendall(b"content-length: 100\r\n\r\n{")
        assert sent(f"127.0.0.1:{port}", "POST", "/api/code", json.dumps(asked()))[0].status == 200
        long = json.dumps(asked(*["adam"] * 10, surface="rosenbrock", steps=4000))
        busy = threads.submit(sent, f"127.0.0.1:{port}", "POST", "/api/gif", long)
        workers = children(process.pid)
        time.sleep(0.3)
        assert not busy.done()
        for _ in range(times):
            os.killpg(process.pid, getattr(signal, number))
            time.sleep(0.2)
        _, said = process.communicate(timeout=30)
        busy.exception()
    assert (process.returncode, said) == (128 + getattr(signal, number), "")
    assert len(workers) == 2
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and pid in children(1) for pid in workers):
        assert time.monotonic() < until, "a worker outlived the server"
        time.sleep(0.05)


def test_what_is_missing_is_named_with_the_way_to_get_it():
    code = (
        "import sys; sys.modules['starlette.applications'] = None\n"
        "from thalweg.cli.main import main\n"
        "raise SystemExit(main(['play', '--no-browser']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'thalweg[play]'" in done.stderr
