"""`anomalyncd discover`: find the kinds of defects in a folder of photographs, offline."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from anomalyncd.cli.discover.check import Checked, Request, check
from anomalyncd.cli.settings import composing, entry
from anomalyncd.config import Config
from anomalyncd.errors import InputError

_OPTIONS = ("--good", "--classes", "--labels-from-folders", "--skip-unreadable", "--help")
# Settings of a run, as `discover` calls them: for messages from deeper in the program.
_WORDS = (
    (r"novel_classes=(?=\S)", "--classes "),
    (r"novel_classes", "--classes"),
    (r"dataset\.good=…?(?=\S)", "--good "),
    (r"dataset\.good", "--good"),
    (r"dataset\.path=…?(?=\S)", "PHOTOS "),
    (r"dataset\.path", "PHOTOS"),
    (r"dataset\.unreadable=skip", "--skip-unreadable"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, with the nearest command."""
        if found := re.search(r"unrecognized arguments: (\S+)", message):
            near = get_close_matches(found[1].partition("=")[0], _OPTIONS, n=1)
            message = f"{found[1]}: no such option"
            message += f"; did you mean {near[0]}?" if near else f"; options: {', '.join(_OPTIONS)}"
        elif "PHOTOS" in message:
            message = "no PHOTOS; expected a folder of photographs: anomalyncd discover PHOTOS"
        entry.print_error(message)
        sys.exit(2)


def main() -> int:
    """Run the discovery; returns 0 on success."""
    request = _parsed(sys.argv[1:])
    debug = "debug=true" in request.settings
    with entry.one_line_errors(debug), in_words_of_discover():
        _discover(request)
    return 1 if entry.failures else 0


def _parsed(arguments: Sequence[str]) -> Request:
    parser = _Parser(
        prog=entry.command(),
        usage="%(prog)s PHOTOS [--good GOOD] [--classes K] [key=value …]",
        description="Find the kinds of defects in a folder of photographs of one product. Nothing "
        "is downloaded, and only PHOTOS is needed.",
        epilog="Any setting of `anomalyncd run` may follow as key=value, such as output_root=DIR.",
    )
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of photographs, at any depth")
    parser.add_argument(
        "--good",
        metavar="GOOD",
        help="a folder of photographs without a defect, which make the search more exact",
    )
    parser.add_argument(
        "--classes",
        metavar="K",
        help="how many classes to find, including the defect-free one; default: estimated",
    )
    parser.add_argument(
        "--labels-from-folders",
        action="store_true",
        help="the sub-folders of PHOTOS are the true classes, which the result is compared with",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out photographs that cannot be read"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="any setting of a run")
    given = parser.parse_intermixed_args(arguments)
    if words := [setting for setting in given.settings if "=" not in setting]:
        whole = " ".join([given.photos, *given.settings])
        meant = f'; did you mean "{whole}"?' if Path(whole).exists() else ""
        parser.error(
            f"{words[0]}: expected one folder, and settings as key=value; put a path with spaces "
            f"into quotes{meant}"
        )
    return Request(
        given.photos,
        given.good,
        given.classes,
        given.labels_from_folders,
        given.skip_unreadable,
        tuple(given.settings),
    )


def _discover(request: Request) -> None:
    from anomalyncd.runtime import console

    try:
        config, checked = settled(request, console.say)
    except UnusablePhotographs as error:
        _print_problems(error.checked)
        return
    from anomalyncd import run
    from anomalyncd.cli.discover import outcome, plan  # torch takes seconds to load

    if not config.quiet:
        plan.show(config, checked)
    result = run.execute(config)
    if result.metrics:
        outcome.show(result, checked.request)


class UnusablePhotographs(InputError):
    """All that stops a discovery, as one error."""

    def __init__(self, checked: Checked) -> None:
        super().__init__(str(checked.error()))
        self.checked = checked


def settled(
    request: Request, on_note: Callable[[str], None] = lambda note: None
) -> tuple[Config, Checked]:
    """The settings of a discovery whose photographs have been checked.

    Args:
        request: the command.
        on_note: called with lines on the photographs that were found.

    Raises:
        InputError: it names all that is missing or wrong.
    """
    config, problem = None, ""
    try:
        config = composing.compose(overrides_for(request))
    except InputError as error:  # reported together with what is wrong with the photographs
        problem = str(error)
    checked = checked_photographs(request, config)
    if problem:
        checked.problems.insert(0, problem)
    for note in checked.notes:
        on_note(f"note: {note}")
    if config is None or checked.problems:
        raise UnusablePhotographs(checked)
    if not config.quiet:
        on_note(f"Photographs:  {checked.summary}")
    from anomalyncd.cli.discover import plan  # torch takes seconds to load

    overrides = overrides_for(checked.request, plan.backbone_option(config.device))
    return composing.compose(overrides), checked


def checked_photographs(request: Request, config: Config | None) -> Checked:
    """Check the photographs of a request; a bar is shown while many are decoded.

    Args:
        request: the command.
        config: the run's settings; None if they are invalid.
    """
    from anomalyncd.runtime import console

    results = [Path(config.output_root), Path(config.cache_folder)] if config else []
    most = {"max_megapixels": config.max_megapixels} if config else {}
    quiet = config is not None and config.quiet
    with console.steps("Reading photographs", quiet=quiet) as step:
        return check(request, left_out=results, on_share=step, **most)


def _print_problems(checked: Checked) -> None:
    for problem in checked.problems:
        entry.print_error(_in_words(problem))
    entry.failures.extend(checked.problems)
    if checked.nearest != checked.request:
        print(entry.printable(f"try: {checked.nearest.command}"), file=sys.stderr)


def overrides_for(request: Request, backbone: str = "embedded") -> list[str]:
    """The settings of a discovery, as overrides for `anomalyncd run`.

    Args:
        request: the command; its own settings come last and replace these.
        backbone: an option of the group.
    """
    chosen = {
        "experiment": "discover",
        "dataset": "folder",
        "base": "embedded",
        "detector": "reference",
        "backbone": backbone,
    }
    given = {setting.partition("=")[0] for setting in request.settings}
    overrides = [f"{key}={value}" for key, value in chosen.items() if key not in given]
    overrides.append(entry.override("dataset.path", request.photos))
    if request.good is not None:
        overrides.append(entry.override("dataset.good", request.good))
    if not request.labels_from_folders:
        overrides.append("dataset.subfolders=pile")
    if request.skip_unreadable:
        overrides.append("dataset.unreadable=skip")
    if re.fullmatch(r"\d+", str(request.classes)) and int(str(request.classes)) > 1:
        overrides.append(f"novel_classes={request.classes}")
    return [*overrides, *request.settings]


@contextmanager
def in_words_of_discover() -> Iterator[None]:
    """Messages from deeper in the program name `--classes`, not `novel_classes`."""
    try:
        yield
    except InputError as error:
        raise InputError(_in_words(str(error))) from error


def _in_words(message: str) -> str:
    for setting, option in _WORDS:
        message = re.sub(setting, option, message)
    return message
