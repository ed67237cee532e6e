"""The reader of options, its parsers, and that the click command knows the same."""

from __future__ import annotations

import math
import string
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint import cli, options, signals, units
from entrypoint import settings as reader
from entrypoint.init import stop_plan as plan

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = ("agent", "-c", "--", "--grace", "x")
BY_NAME = {option.name: option for option in options.OPTIONS}

# A value for each option that takes one, and what is read from it.
VALUES: dict[str, list[tuple[str, Any]]] = {
    "grace": [("25s", 25.0), ("auto", None), ("infinity", math.inf), ("0", 0.0)],
    "max_grace": [("10m", 600.0), ("infinity", math.inf)],
    "linger": [("1m30s", 90.0), ("0", 0.0)],
    "stop_signal": [("INT", 2), ("sigusr1", 10), ("RTMIN+3", 37), ("9", 9)],
    "stop_schedule": [("TERM/20s/INT/5s/KILL", ((15, 20.0), (2, 5.0), (9, math.inf))), ("INT", ((2, math.inf),))],
    "stop_on": [("TERM", frozenset({15})), ("none", frozenset()), ("HUP,15,RTMIN", frozenset({1, 15, 34}))],
    "stop_delay": [("500ms", 0.5)],
    "repeat": [("escalate", "escalate"), ("forward", "forward")],
    "rewrite": [("HUP:QUIT", {1: 3}), ("15:0", {15: 0}), ("USR1:KILL", {10: 9})],
    "target": [("group", "group"), ("child", "child"), ("auto", "auto")],
    "unhandled": [("forward", "forward"), ("shield", "shield")],
    "parent_death_signal": [("KILL", 9)],
    "ok_exit": [("143", frozenset({143})), ("0", frozenset({0}))],
    "notify_access": [("main", "main"), ("all", "all")],
    "watchdog": [("30s", 30.0), ("infinity", None), ("0", None)],
    "ready_timeout": [("1m", 60.0), ("0", None)],
    "termination_log": [("/tmp/log", "/tmp/log"), ("none", None)],
    "log_format": [("json", "json"), ("text", "text")],
}
TAKING = [(o.name, flag, text, value) for o in options.OPTIONS for flag in o.flags for text, value in VALUES[o.name]]


def read(*words: str, **environment: str) -> reader.Settings:
    return reader.read([*words, *COMMAND], environment)


def refused(*words: str, **environment: str) -> str:
    with pytest.raises(reader.UsageError) as error:
        read(*words, **environment)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


# --- Each option, in each way to give it. ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "flag", "text", "value"), TAKING)
def test_a_value_can_be_given_in_every_way(name: str, flag: str, text: str, value: object) -> None:
    variable = BY_NAME[name].variable
    ways = [[flag, text], [f"{flag}={text}"] if flag.startswith("--") else [f"{flag}{text}"]]
    for words in ways:
        settings = read(*words)
        assert getattr(settings, name) == value
        assert settings.sources[name] == flag
        assert settings.command == COMMAND
    settings = read(**{variable: text})
    assert getattr(settings, name) == value
    assert settings.sources[name] == variable
    # An empty variable is not set; a flag wins over it.
    assert getattr(read(**{variable: ""}), name) == getattr(read(), name)
    other = VALUES[name][-1][0]
    assert getattr(read(flag, text, **{variable: other}), name) == value


CONSTANTS = [(o.name, flag, word) for o in options.OPTIONS for flag, word in o.constants.items() if not o.counted]


@pytest.mark.parametrize(("name", "flag", "word"), CONSTANTS)
def test_a_flag_without_a_value_stands_for_one(name: str, flag: str, word: str) -> None:
    value = BY_NAME[name].parse(word)
    assert getattr(read(flag), name) == value
    assert read(flag).command == COMMAND
    for text in {"on": ("1", "true", "YES", "on"), "off": ("0", "False", "no", "off")}.get(word, (word,)):
        assert getattr(read(**{BY_NAME[name].variable: text}), name) == value


@pytest.mark.parametrize("flag", [flag for _, flag, _ in CONSTANTS if flag.startswith("--")])
def test_a_flag_without_a_value_takes_none(flag: str) -> None:
    assert f"{flag} takes no value, 'x' was given" in refused(f"{flag}=x")


def test_defaults() -> None:
    settings = read()
    assert (settings.grace, settings.linger, settings.stop_delay) == (None, 5.0, 0.0)
    assert (settings.stop_signal, settings.stop_schedule, settings.stop_on) == (15, None, frozenset({15, 2}))
    assert (settings.repeat, settings.target, settings.unhandled) == ("ignore", "auto", "shield")
    assert (settings.rewrite, settings.ok_exit, settings.subreaper) == ({}, frozenset(), None)
    assert (settings.parent_death_signal, settings.warn_reaped) == (None, False)
    assert (settings.notify, settings.notify_access, settings.max_grace) == (True, "all", math.inf)
    assert (settings.watchdog, settings.ready_timeout, settings.stacks) == (None, None, False)
    assert settings.termination_log == "/dev/termination-log"
    assert (settings.log_level, settings.log_format, settings.sources, settings.unknown) == (1, "text", {}, ())


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        read().grace = 5.0


@pytest.mark.parametrize(
    ("words", "environment", "level"),
    [
        ([], {}, 1),
        (["-v"], {}, 2),
        (["-vv"], {}, 3),
        (["-v", "--verbose"], {}, 3),
        (["-q"], {}, 0),
        (["-qq"], {}, -1),
        (["-qqq"], {}, -1),  # errors are always told
        (["-vq"], {}, 1),
        ([], {"AGENT_INIT_VERBOSE": "2"}, 3),
        ([], {"AGENT_INIT_QUIET": "yes"}, 0),
        (["-v"], {"AGENT_INIT_VERBOSE": "2"}, 2),
        (["-q"], {"AGENT_INIT_VERBOSE": "1"}, 1),
    ],
)
def test_how_much_is_said(words: list[str], environment: dict[str, str], level: int) -> None:
    assert read(*words, **environment).log_level == level


def test_repeatable_options_add_up_and_a_flag_replaces_the_variable() -> None:
    assert read("-e", "143", "--ok-exit=1", "-e0").ok_exit == {143, 1, 0}
    assert read(AGENT_INIT_OK_EXIT="143,1 0").ok_exit == {143, 1, 0}
    assert read("-e1", AGENT_INIT_OK_EXIT="143").ok_exit == {1}
    assert read("-r", "HUP:QUIT", "-r1:INT", "-r", "USR1:0").rewrite == {1: 2, 10: 0}
    assert read(AGENT_INIT_REWRITE="HUP:QUIT, USR1:0").rewrite == {1: 3, 10: 0}


def test_the_last_of_two_flags_counts() -> None:
    assert read("-t", "1s", "--grace", "2s").grace == 2
    assert read("-g", "-c").target == "child"
    assert read("-c", "--target", "group").target == "group"
    assert read("-s", "--no-subreaper").subreaper is False


# --- Where options end. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("python -c -g", "python -c -g"),
        ("-g python -c x", "python -c x"),
        ("-- python -g", "python -g"),
        ("-- -g", "-g"),
        ("-- -- x", "-- x"),
        ("-t 5 -", "-"),
        ("-vvg agent -v", "agent -v"),
        ("-e143 agent", "agent"),
        ("-ge 143 agent", "agent"),
        ("--grace -- agent", ""),
    ],
)
def test_options_end_at_the_first_word_that_is_none(words: str, command: str) -> None:
    if command:
        assert reader.read(words.split(), {}).command == tuple(command.split())
    else:
        with pytest.raises(reader.UsageError, match=r"^--grace: '--' is not a duration"):
            reader.read(words.split(), {})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-vvg", {"log_level": 3, "target": "group"}),
        ("-gve143", {"log_level": 2, "target": "group", "ok_exit": {143}}),
        ("-swt5", {"subreaper": True, "warn_reaped": True, "grace": 5.0}),
        ("-crHUP:0", {"target": "child", "rewrite": {1: 0}}),
        # As tini and dumb-init have them.
        ("-s -g -vvv -w -p SIGKILL -e 143 -e 1", {"ok_exit": {1, 143}, "parent_death_signal": 9, "log_level": 4}),
        ("-pSIGTERM", {"parent_death_signal": 15}),
        ("--single-child --rewrite 15:3 --verbose", {"target": "child", "rewrite": {15: 3}, "log_level": 2}),
        ("-cv -r 2:15", {"rewrite": {2: 15}, "log_level": 2}),
    ],
)
def test_short_options_bundle(words: str, expected: dict[str, object]) -> None:
    settings = read(*words.split())
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.command == COMMAND


@pytest.mark.parametrize(("flag", "what"), reader.INFO_FLAGS.items())
def test_help_and_version_are_asked_for(flag: str, what: str) -> None:
    for words in ([flag], ["-v", flag], [flag, "--no-such"], ["-g", flag, "agent"]):
        with pytest.raises(reader.InfoRequested) as asked:
            reader.read(words, {})
        assert asked.value.args == (what,)
    assert reader.read(["agent", flag], {}).command == ("agent", flag)


def test_help_in_a_bundle() -> None:
    with pytest.raises(reader.InfoRequested):
        reader.read(["-vh"], {})


@pytest.mark.parametrize("words", [[], ["--"], ["-v"], ["-t", "5"], ["-g", "--"]])
def test_a_command_is_needed(words: list[str]) -> None:
    with pytest.raises(reader.UsageError, match="no command was given; usage: "):
        reader.read(words, {})


# --- Mistakes. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--grce", "--grace"),
        ("--stop-sginal", "--stop-signal"),
        ("--no-subreeper", "--no-subreaper"),
        ("--xyzzy", None),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(word: str, near: str | None) -> None:
    text = refused(word)
    assert f"there is no option '{word}'; " in text
    assert (f"did you mean {near}?" in text) if near else ("did you mean" not in text)


@pytest.mark.parametrize("word", ["-z", "-vz", "-\u00fc", "-\n", "-1", "--\n", "--gr\nace=1", "-=5", "--=5", "---"])
def test_an_unknown_option_is_told_on_one_line(word: str) -> None:
    assert "there is no option" in refused(word)


@pytest.mark.parametrize("flag", [flag for option in options.OPTIONS for flag in option.flags])
def test_a_missing_value_is_told(flag: str) -> None:
    with pytest.raises(reader.UsageError, match=f"^{flag} needs a value: "):
        reader.read([flag], {})


def wrong_values() -> list[tuple[str, str]]:
    everywhere = ["", " ", "\n", "5\nx", "\u00fc\u0661", "\udcff", "-", "x" * 10_000, "9" * 10_000, "\x1b[31m", "'\""]
    more = {
        "grace": [
            *"-5 -1s 5x 1e3 nan inf Infinity 5s5 1.2.3s . .s s ms +5 1_000s 367d 0x10 5,5 5S auto,5 AUTO 1m30".split()
        ],
        "linger": ["-5", "auto", "367d"],
        "stop_delay": ["-1", "auto"],
        "stop_signal": ["0", "-9", "65", "TERMM", "TERM,INT", "none"],
        "stop_on": ["TERM,", ",", "TERM;INT", "KILL", "STOP", "CHLD", "none,TERM", "NONE", "0", "TERM INT"],
        "stop_schedule": [
            "/",
            "5s",
            "5s/TERM",
            "TERM/",
            "TERM/5s/6s",
            "TERM//KILL",
            "KILL/5s/TERM",
            "TERM/-5s",
            "forever",
        ],
        "repeat": ["Ignore", "ignore,forward", "1"],
        "rewrite": ["TERM", "TERM:", ":TERM", "TERM:INT:HUP", "0:TERM", "KILL:TERM", "TERM:-1", "CHLD:0", "TERM=INT"],
        "target": ["all", "GROUP"],
        "unhandled": ["drop"],
        "parent_death_signal": ["0", "none"],
        "ok_exit": ["-1", "256", "1000", "0x1", "1.0", "\u0661\u0662", "+1", "TERM", "00001"],
        "max_grace": ["-5", "auto", "367d"],
        "watchdog": ["-5", "auto", "off"],
        "ready_timeout": ["-5", "auto", "none"],
        "notify": ["2", "maybe"],
        "notify_access": ["none", "exec", "main,all"],
        "stacks": ["2"],
        "termination_log": ["log", "./log", "NONE"],
        "log_format": ["JSON", "yaml"],
        "subreaper": ["2", "maybe"],
        "warn_reaped": ["2"],
        "verbose": ["-1", "10", "x", "1.5"],
        "quiet": ["-1", "10"],
    }
    return [(name, text) for name in BY_NAME for text in (*everywhere, *more[name])]


@pytest.mark.parametrize(("name", "text"), wrong_values())
def test_a_wrong_value_is_named_with_what_is_accepted(name: str, text: str) -> None:
    option = BY_NAME[name]
    many_and_blank = option.many and not text.strip()
    if text and not many_and_blank:  # several can be given there, so blanks and commas stand between them
        said = refused(**{option.variable: text})
        assert said.startswith(f"{option.variable}: ")
        assert "accepted: " in said
    for flag in option.flags:
        said = refused(flag, text)
        assert said.startswith(f"{flag}: ")
        assert "accepted: " in said
        if len(text) < 50 and name not in ("stop_on", "stop_schedule", "rewrite"):  # there it is the wrong part
            assert repr(text) in said


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["--stop-schedule", "TERM", "--grace", "5"], {}),
        (["--stop-signal", "INT", "--stop-schedule", "TERM"], {}),
        ([], {"AGENT_INIT_STOP_SCHEDULE": "TERM", "AGENT_INIT_GRACE": "5"}),
        ([], {"AGENT_INIT_STOP_SCHEDULE": "TERM", "AGENT_INIT_STOP_SIGNAL": "INT"}),
    ],
)
def test_a_schedule_excludes_grace_and_stop_signal(words: list[str], environment: dict[str, str]) -> None:
    text = refused(*words, **environment)
    assert "exclude each other" in text
    for word in (*words[::2], *environment):
        assert word in text


def test_of_a_schedule_and_a_grace_from_two_sources_the_flag_counts() -> None:
    settings = read("--stop-schedule", "TERM", AGENT_INIT_GRACE="5", AGENT_INIT_STOP_SIGNAL="INT")
    assert (settings.stop_schedule, settings.grace, settings.stop_signal) == (((15, math.inf),), None, 15)
    settings = read("--grace", "5", AGENT_INIT_STOP_SCHEDULE="TERM")
    assert (settings.stop_schedule, settings.grace) == (None, 5)
    settings = read("--stop-signal", "INT", AGENT_INIT_STOP_SCHEDULE="TERM")
    assert (settings.stop_schedule, settings.grace, settings.stop_signal) == (None, None, 2)


def test_variables_that_are_none_of_ours_are_kept_for_the_warning() -> None:
    settings = read(AGENT_INIT_GRACEE="5", AGENT_INIT_="", AGENTINIT_X="1", OTHER="1")
    assert settings.unknown == ("AGENT_INIT_GRACEE", "AGENT_INIT_")


def test_a_pure_forwarder_forwards() -> None:
    assert read("--stop-on", "none").unhandled == "forward"
    assert read("--stop-on", "none", "--unhandled", "shield").unhandled == "shield"
    assert read("--stop-on", "none", AGENT_INIT_UNHANDLED="shield").unhandled == "shield"


WORDS = st.text(st.sampled_from("-=,:/ \n\u00fc\udcff0159smTERM"), max_size=8) | st.sampled_from(
    [*(flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)), "--", "-", "TERM/5s/KILL"]
)


@given(st.lists(WORDS, max_size=6), st.dictionaries(st.sampled_from([o.variable for o in options.OPTIONS]), WORDS))
def test_whatever_is_typed_is_read_or_refused_on_one_line(words: list[str], environment: dict[str, str]) -> None:
    try:
        settings = reader.read(words, environment)
        plan.make(settings, environment, lambda _: False)
    except reader.UsageError as error:
        told = str(error)
    except reader.InfoRequested:
        assert {"-h", "-V", "--help", "--version"} & {word[:2] if word[1:2] != "-" else word for word in words}
        return
    else:
        assert settings.command == tuple(words[len(words) - len(settings.command) :])
        return
    assert "\n" not in told
    assert len(told) < 1000


# --- Durations and schedules. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("25", 25.0),
        ("25s", 25.0),
        ("0", 0.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("1h1m1s1ms", 3661.001),
        ("1d", 86400.0),
        ("366d", 366 * 86400.0),
        ("infinity", math.inf),
        ("007s", 7.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


PARTS = st.tuples(st.integers(0, 59), st.sampled_from(sorted(units.SECONDS_IN)))


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    total = sum(number * units.SECONDS_IN[unit] for number, unit in parts)
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert units.parse_duration(text) == pytest.approx(total)
    assert options.grace(text) == units.parse_duration(text)


@given(st.just(0.0) | st.floats(1e-6, units.MAX_DURATION_SECONDS))
def test_what_is_printed_can_be_typed(seconds: float) -> None:
    text = units.format_duration(seconds)
    assert len(text) <= 12
    assert units.parse_duration(text) == pytest.approx(seconds, rel=0.01, abs=0.5 if seconds >= 59 else 0.001)
    assert units.format_duration(units.parse_duration(text)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "500ms"),
        (0.0123, "12.3ms"),
        (0.9999, "1s"),
        (2.5, "2.5s"),
        (25, "25s"),
        (59.96, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (3661, "1h1m1s"),
        (math.inf, "infinity"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


SIGNALS = st.sampled_from(sorted(signals.VALID - {signals.KILL}))
WAITS = st.integers(0, 3600)


@given(st.lists(st.tuples(SIGNALS, WAITS), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_schedules(steps: list[tuple[int, int]], kill: bool, dashes: bool) -> None:
    dash = "-" if dashes else ""  # as start-stop-daemon(8) also takes them
    words = [f"{dash}{signals.name_of(number)}/{wait}s" for number, wait in steps]
    text = "/".join([*words, f"{dash}KILL"] if kill else words)
    expected = [(number, float(wait)) for number, wait in steps]
    if kill:
        expected.append((signals.KILL, math.inf))
    else:
        expected[-1] = (expected[-1][0], math.inf)
    assert options.schedule(text) == tuple(expected)


@given(st.lists(SIGNALS, min_size=1, max_size=5))
def test_signals_without_waits_follow_each_other_at_once(numbers: list[int]) -> None:
    text = "/".join(map(signals.name_of, numbers))
    assert options.schedule(text) == (*((n, 0.0) for n in numbers[:-1]), (numbers[-1], math.inf))


@pytest.mark.parametrize("parser", [option.parse for option in options.OPTIONS], ids=[o.name for o in options.OPTIONS])
@given(text=st.text(max_size=20) | st.text(st.sampled_from(string.digits + ".smhdTERM/:,+-"), max_size=20))
def test_a_parser_returns_or_says_what_is_accepted(parser: Callable[[str], object], text: str) -> None:
    try:
        parser(text)
    except ValueError as error:
        told = str(error)
    else:
        return
    assert "accepted: " in told
    assert "\n" not in told


# --- The click command. ---------------------------------------------------------------------------------------------


def click_options() -> list[click.Option]:
    return [parameter for parameter in cli.command().params if isinstance(parameter, click.Option)]


def test_the_command_and_the_reader_know_the_same_flags() -> None:
    """Help is click's own; what is left is the table's."""
    known = {flag for option in click_options() for flag in (*option.opts, *option.secondary_opts)}
    ours = {flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)}
    assert known == ours | {"-V", "--version"}


def test_the_command_takes_a_value_where_the_reader_does() -> None:
    taking = {flag for option in options.OPTIONS for flag in option.flags}
    for option in click_options():
        assert set(option.opts) <= taking or not set(option.opts) & taking
        assert (not option.is_flag and not option.count) == (set(option.opts) <= taking)


def test_help_names_every_flag_variable_and_default() -> None:
    command = cli.command()
    text = " ".join(command.get_help(click.Context(command, info_name="agent-init", terminal_width=1000)).split())
    for option in options.OPTIONS:
        assert option.variable in text
        assert " ".join(option.help.split()) in text
        assert not option.default or f"default: {option.default}]" in text
        for flag in (*option.flags, *option.constants):
            assert flag in text


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["--watchdog", "5s", "--no-notify"], {}, "--watchdog needs the notify socket, which --no-notify takes away"),
        (["--no-notify"], {"AGENT_INIT_READY_TIMEOUT": "5"}, "AGENT_INIT_READY_TIMEOUT needs the notify socket"),
        (["--notify-access=main"], {"AGENT_INIT_NOTIFY": "off"}, "which AGENT_INIT_NOTIFY takes away"),
        (["-t", "25s", "--max-grace", "10s"], {}, "--max-grace: 10s is less than the 25s of -t; accepted: as much"),
        (["--stop-schedule", "TERM/9s/INT/2s/KILL", "--max-grace", "10s"], {}, "less than the 11s of --stop-schedule"),
    ],
)
def test_what_one_option_gives_and_another_takes_is_refused(
    words: list[str], environment: dict[str, str], said: str
) -> None:
    assert said in refused(*words, **environment)


@pytest.mark.parametrize(
    "words",
    [
        ["--watchdog", "0", "--no-notify"],
        ["-t", "25s", "--max-grace", "25s"],
        ["-t", "infinity", "--max-grace", "1s"],
        ["--max-grace", "1s"],
    ],
)
def test_what_does_not_contradict_itself_is_taken(words: list[str]) -> None:
    read(*words)


ARGUMENTS = st.sampled_from(
    [
        *([flag, text] for name, flag, text, _ in TAKING),
        *([f"{flag}={text}"] for name, flag, text, _ in TAKING if flag.startswith("--")),
        *([f"{flag}{text}"] for name, flag, text, _ in TAKING if not flag.startswith("--")),
        *([flag] for option in options.OPTIONS for flag in option.constants),
        ["-vv"],
        ["-gve143"],
        ["-swq"],
    ]
)


@given(st.lists(ARGUMENTS, max_size=6), st.booleans())
def test_both_read_a_line_alike(given_words: list[list[str]], dashes: bool) -> None:
    words = [word for group in given_words for word in group] + ["--"] * dashes
    assume("stop_schedule" not in str(given_words))
    try:
        settings = reader.read([*words, *COMMAND], {})
    except reader.UsageError as error:
        # What contradicts itself is for the reader alone to see.
        assume("exclude each other" not in str(error) and "takes away" not in str(error))
        raise
    with cli.command().make_context("agent-init", [*words, *COMMAND]) as context:
        assert context.params["command"] == COMMAND == settings.command
        for option in options.OPTIONS:
            if option.flags and context.params.get(option.name):
                assert option.name in settings.sources


@pytest.mark.parametrize(
    ("option", "begun", "expected"),
    [("repeat", "f", ["forward"]), ("log_format", "", ["text", "json"]), ("stop_signal", "US", ["USR1", "USR2"])],
)
def test_a_shell_is_offered_values(option: str, begun: str, expected: list[str]) -> None:
    [parameter] = [p for p in click_options() if set(p.opts) == set(BY_NAME[option].flags)]
    items = parameter.shell_complete(click.Context(cli.command()), begun)
    assert [item.value for item in items] == expected


def test_a_shell_completion_is_asked_for_by_its_variable() -> None:
    with pytest.raises(reader.InfoRequested, match="complete"):
        reader.read(["--gr"], {reader.COMPLETE_VARIABLE: "bash_source"})
