"""The command line: parses, calls, prints."""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import thalweg
from thalweg import process
from thalweg.cli import pictures, studies
from thalweg.cli.arguments import ANSWERED, DIALECTS, UsageError, answer, asked, names
from thalweg.errors import nearest
from thalweg.untrusted import blamed, printable


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and what would be right."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with the message and status 2."""
        process.complain(f"{self.prog}: {message}")
        raise SystemExit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse passes over what cannot be written.
        print(message, end="", file=file)

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """As in argparse, but an unknown option or command is answered with the nearest known one."""
        given = sys.argv[1:] if args is None else list(args)
        if given and not given[0].startswith("-") and given[0] not in COMMANDS:
            self.error(f"no command is named {given[0]!r}; {nearest(given[0], COMMANDS)}")
        found, unknown = self.parse_known_args(given)
        if unknown:
            if not unknown[0].startswith("-"):
                found.parser.error(f"one argument too many: {unknown[0]!r}")
            known = [option for option in found.parser._option_string_actions if option.startswith("--")]
            found.parser.error(f"no option is named {unknown[0]!r}; {nearest(unknown[0], known)}")
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: its arguments; None: those that the process was started with, whose signals and streams are then
            the command's.

    Returns:
        The status to end with; see `thalweg.process`.
    """
    if argv is None:
        process.prepare()
    given = sys.argv[1:] if argv is None else list(argv)

    def run() -> int:
        arguments = _parser().parse_args(given)
        try:
            return int(COMMANDS[arguments.command][0](arguments))
        except ANSWERED as error:
            process.complain(f"{arguments.parser.prog}: {answer(error, arguments.parser)}")
            return 2

    return process.ended(" ".join(["thalweg", *given[:1]]), run)


def convert(arguments: argparse.Namespace) -> int:
    """Move an optimizer's state from one framework's file into another's."""
    from thalweg import convert as conversion

    names = arguments.names
    with asked():
        if names is not None and names != "propose":
            with blamed(Path(names), "JSON", but=(OSError,)):
                names = json.loads(Path(names).read_text(encoding="utf-8"))
        moved = conversion.file(
            arguments.file,
            arguments.out,
            source=arguments.source,
            target=arguments.target,
            into=arguments.into,
            key=arguments.key,
            names=names,
            **({"rule": arguments.rule} if arguments.rule else {}),
            dialect=arguments.dialect,
            step=arguments.step,
            approximate=arguments.approximate,
            **dict(arguments.set),
        )
    print(f"{arguments.out}: {moved.kind}, {len(moved.names)} parameters, step {moved.step}")
    for name, to in moved.map.items():
        if to != name:
            turned = "" if isinstance(to, str) else f" with axes {tuple(to[1])}"
            print(" ", printable(f"{name} is now {to if isinstance(to, str) else to[0]}{turned}"))
    for loss in moved.lost:
        print(textwrap.fill(f"Lost: {printable(loss)}", 100, subsequent_indent="  "))
    return 0


def dialects(arguments: argparse.Namespace) -> int:
    """Find which rule and dialect a recorded trajectory follows; without FILE, list the dialects."""
    from thalweg.explain import recognise
    from thalweg.explain.page import table_of_dialects

    if arguments.file is None:
        if arguments.set:
            raise UsageError("--set is about a recorded trajectory; give its FILE")
        with asked():
            listed = table_of_dialects(arguments.rule)
        print(listed)
        return 0
    with asked():
        recording = recognise.read(arguments.file)
        found = recognise.candidates(recording, arguments.rule, **dict(arguments.set))
    entries = sum(p.shape[1] for p in recording.params.values())
    print(f"{arguments.file.name}: {recording.steps} steps of {entries} entries, {recording.dtype}\n")
    sentence = textwrap.fill(recognise.conclusion(found, recording), 88, break_on_hyphens=False)
    print(recognise.table(found), "", sentence, sep="\n")
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """Explain a rule: formula, hyperparameters, dialects, uses, source and cost."""
    from thalweg.explain.page import explain as explained

    with asked():
        page = explained(arguments.rule, arguments.dialect, latex=arguments.latex)
    print(page)
    return 0


def kernel(arguments: argparse.Namespace) -> int:
    """Print the CPU kernel generated for a rule."""
    from thalweg.kernels.source import cpu_source

    with asked():
        rule = thalweg.get(arguments.rule, dialect=arguments.dialect)
        source = cpu_source(thalweg.trace(rule), arguments.dtype)
    print(source)
    return 0


def play(arguments: argparse.Namespace) -> int:
    """Open the playground: a local page on which to watch optimizers."""
    from thalweg.play import serve

    serve(arguments.host, arguments.port, browser=not arguments.no_browser)
    return 0


def rules(arguments: argparse.Namespace) -> int:
    """List the update rules."""
    width = max(map(len, thalweg.rules()))
    for name in thalweg.rules():
        summary = (type(thalweg.get(name)).__doc__ or "").partition("\n")[0]
        print(f"{name:{width}}  {summary}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="thalweg",
        description="Gradient-descent optimizers, compared fairly.",
        epilog="A command ends with 0 where all went well, 1 where something failed on the way, 2 where what "
        "was asked for cannot be done, and 128 + its number where a signal ended it.",
    )
    parser.add_argument("--version", action="version", version=f"thalweg {thalweg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, (function, add_arguments) in sorted(COMMANDS.items()):
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(parser=command)
        add_arguments(command)
    return parser


def _convert_arguments(command: argparse.ArgumentParser) -> None:
    from thalweg.convert import FRAMEWORKS, files

    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = (files.__doc__ or "").partition("\n\n")[2]
    frameworks = ", ".join(FRAMEWORKS)
    add = command.add_argument
    add("file", metavar="IN", type=Path, help="the file to read: see below")
    add("out", metavar="OUT", type=Path, help="the file to write; its ending says its kind")
    add("--from", dest="source", metavar="FRAMEWORK", help=f"{frameworks} (default: what IN says)")
    add(
        "--to", dest="target", metavar="FRAMEWORK", help="as --from (default: what is usual for OUT's ending)"
    )
    add("--rule", metavar="RULE", help="the rule that IN follows, where it does not say")
    add("--dialect", metavar="NAME", help=f"of RULE: {DIALECTS} (default: that of --from)")
    _set_argument(command, "that IN does not hold, such as lr=0.01, or to go on with (may be repeated)")
    add("--step", type=int, metavar="N", help="number of steps taken, where IN does not say")
    add(
        "--names",
        metavar="FILE",
        help='JSON: {"name in IN": "in OUT", "another": ["in OUT", [1, 0]]}; or propose',
    )
    add("--into", metavar="FILE", help="a Keras model or torch checkpoint whose optimizer OUT replaces")
    add("--key", metavar="KEY", help="where a torch checkpoint holds the state")
    add("--approximate", action="store_true", help="take the nearest where there is nothing exact")


def _set_argument(command: argparse.ArgumentParser, which: str) -> None:
    command.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a hyperparameter {which}",
    )


def _kernel_arguments(command: argparse.ArgumentParser) -> None:
    _rule_argument(command)
    command.add_argument("--dtype", default="float32", help="of the parameters (default: float32)")
    _dialect_argument(command)


def _explain_arguments(command: argparse.ArgumentParser) -> None:
    _rule_argument(command)
    command.add_argument("--latex", action="store_true", help="formulas in LaTeX")
    _dialect_argument(command)


def _dialects_arguments(command: argparse.ArgumentParser) -> None:
    from thalweg.explain import recognise

    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = (recognise.__doc__ or "").partition("\n\n")[2]
    add = command.add_argument
    add("file", metavar="FILE", nargs="?", type=Path, help="a recording, .npz: see below")
    add("--rule", type=names, metavar="A,B", help="rules to hold against it (default: all)")
    _set_argument(
        command,
        "that is known, such as lr=0.01 (may be repeated; default: the dialect's own, the rate fitted)",
    )


def _play_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 lets others in (default: 127.0.0.1)")
    add("--port", type=int, default=8700, metavar="N", help="0 takes a free one (default: 8700)")
    add("--no-browser", action="store_true", help="only serve the page")


def _rule_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "rule", metavar="RULE", help="a name that `thalweg rules` lists, or FILE.py:NAME of your own"
    )


def _dialect_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dialect", default="paper", help=f"{DIALECTS} (default: paper)")


def _no_arguments(command: argparse.ArgumentParser) -> None:
    pass


def _setting(text: str) -> tuple[str, float | bool | None]:
    name, equals, value = (part.strip() for part in text.partition("="))
    named: dict[str, bool | None] = {"true": True, "yes": True, "false": False, "no": False, "none": None}
    try:
        if not (name and equals):
            raise ValueError
        return name, named[value.lower()] if value.lower() in named else float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a setting is NAME=VALUE, such as lr=0.01 or centered=yes; got {text!r}"
        ) from None


COMMANDS = {
    **studies.COMMANDS,
    **pictures.COMMANDS,
    "convert": (convert, _convert_arguments),
    "dialects": (dialects, _dialects_arguments),
    "explain": (explain, _explain_arguments),
    "kernel": (kernel, _kernel_arguments),
    "play": (play, _play_arguments),
    "rules": (rules, _no_arguments),
}


if __name__ == "__main__":
    raise SystemExit(main())
