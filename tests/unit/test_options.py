"""The reader of options, the parser of each value, and the click command, which must have the same options."""

from __future__ import annotations

import math
import posix
import string
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint import cli, options, parsed, signals, units
from entrypoint import settings as reader
from entrypoint.init import planning

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = ("agent", "-c", "--", "--grace", "x")
BY_NAME = {option.name: option for option in options.OPTIONS}

QUOTE_A_PART = ("stop_on", "report_on", "stop_schedule", "rewrite")  # errors of these quote the invalid part only

# For each option that takes a value: texts, and the values that the reader returns for them.
VALUES: dict[str, list[tuple[str, Any]]] = {
    "grace": [("25s", 25.0), ("auto", None), ("infinity", math.inf), ("0", 0.0)],
    "max_grace": [("10m", 600.0), ("infinity", math.inf)],
    "linger": [("1m30s", 90.0), ("0", 0.0)],
    "stop_signal": [("INT", 2), ("sigusr1", 10), ("RTMIN+3", 37), ("9", 9), ("auto", None)],
    "stop_schedule": [("TERM/20s/INT/5s/KILL", ((15, 20.0), (2, 5.0), (9, math.inf))), ("INT", ((2, math.inf),))],
    "stop_on": [
        ("TERM", frozenset({15})),
        ("none", frozenset()),
        ("HUP,15,RTMIN", frozenset({1, 15, 34})),
        ("INT,eof", frozenset({2, 0})),
    ],
    "stop_delay": [("500ms", 0.5)],
    "platform_grace": [("2m", 120.0), ("0", None), ("infinity", None)],
    "orphans": [("10m", 600.0), ("0", None), ("infinity", None)],
    "repeat": [("escalate", "escalate"), ("forward", "forward")],
    "rewrite": [("HUP:QUIT", {1: 3}), ("15:0", {15: 0}), ("USR1:KILL", {10: 9})],
    "target": [("group", "group"), ("child", "child"), ("auto", "auto")],
    "unhandled": [("forward", "forward"), ("shield", "shield")],
    "parent_death_signal": [("KILL", 9)],
    "ok_exit": [("143", frozenset({143})), ("0", frozenset({0}))],
    "notify_access": [("auto", "auto"), ("main", "main"), ("all", "all")],
    "watchdog": [("30s", 30.0), ("infinity", None), ("0", None)],
    "ready_timeout": [("1m", 60.0), ("0", None)],
    "loop_watch": [("500ms", 0.5), ("10ms", 0.01), ("0", None)],
    "ready_file": [("/run/ready", "/run/ready"), ("none", None)],
    "report_on": [("USR2", frozenset({12})), ("USR2,hup", frozenset({12, 1})), ("none", frozenset())],
    "report_after": [("1m", 60.0), ("0", None)],
    "termination_log": [("/tmp/log", "/tmp/log"), ("none", None)],
    "log_format": [("json", "json"), ("text", "text")],
    "secret": [("API_KEY", ("API_KEY",)), ("_a.b-c", ("_a.b-c",))],
    "log_to": [("stdout", "stdout"), ("stderr", "stderr")],
    "http": [
        (":8081", ("", 8081)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::]:65535", ("::", 65535)),
        ("none", None),
    ],
}
TAKING = [(o.name, flag, text, value) for o in options.OPTIONS for flag in o.flags for text, value in VALUES[o.name]]


def read(*arguments: str, **environment: str) -> parsed.Settings:
    return reader.read([*arguments, *COMMAND], environment)


def refused(*arguments: str, **environment: str) -> str:
    """The text of the usage error."""
    with pytest.raises(parsed.UsageError) as error:
        read(*arguments, **environment)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


# --- Each option, in each form. -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "flag", "text", "value"), TAKING)
def test_every_form_of_an_option_sets_its_value(name: str, flag: str, text: str, value: object) -> None:
    variable = BY_NAME[name].variable
    forms = [[flag, text], [f"{flag}={text}"] if flag.startswith("--") else [f"{flag}{text}"]]
    for arguments in forms:
        settings = read(*arguments)
        assert getattr(settings, name) == value
        assert settings.sources[name] == flag
        assert settings.command == COMMAND
    settings = read(**{variable: text})
    assert getattr(settings, name) == value
    assert settings.sources[name] == variable
    # An empty variable counts as not set; a flag wins over a variable.
    assert getattr(read(**{variable: ""}), name) == getattr(read(), name)
    other = VALUES[name][-1][0]
    assert getattr(read(flag, text, **{variable: other}), name) == value


CONSTANTS = [(o.name, flag, text) for o in options.OPTIONS for flag, text in o.constants.items() if not o.counted]


@pytest.mark.parametrize(("name", "flag", "constant"), CONSTANTS)
def test_a_switch_sets_its_constant(name: str, flag: str, constant: str) -> None:
    value = BY_NAME[name].parse(constant)
    assert getattr(read(flag), name) == value
    assert read(flag).command == COMMAND
    for text in {"on": ("1", "true", "YES", "on"), "off": ("0", "False", "no", "off")}.get(constant, (constant,)):
        assert getattr(read(**{BY_NAME[name].variable: text}), name) == value


@pytest.mark.parametrize("flag", [flag for _, flag, _ in CONSTANTS if flag.startswith("--")])
def test_a_switch_takes_no_value(flag: str) -> None:
    assert f"{flag} takes no value, but got 'x'" in refused(f"{flag}=x")


def test_defaults() -> None:
    settings = read()
    assert (settings.grace, settings.linger, settings.stop_delay) == (None, 5.0, 0.0)
    assert (settings.stop_signal, settings.stop_schedule, settings.stop_on) == (None, None, frozenset({15, 2, 30}))
    assert (settings.repeat, settings.target, settings.unhandled) == ("ignore", "auto", "shield")
    assert (settings.rewrite, settings.ok_exit, settings.subreaper) == ({}, frozenset(), None)
    assert (settings.parent_death_signal, settings.warn_reaped) == (None, False)
    assert (settings.notify, settings.notify_access, settings.max_grace) == (True, "auto", math.inf)
    assert (settings.watchdog, settings.ready_timeout, settings.stacks) == (None, None, False)
    assert (settings.ready_file, settings.report_on, settings.report_after) == (None, frozenset(), None)
    assert settings.control
    assert settings.termination_log == "/dev/termination-log"
    assert (settings.log_level, settings.log_format, settings.sources, settings.unknown) == (1, "text", {}, {})


def test_the_log_goes_to_stderr_unless_asked_otherwise() -> None:
    assert [read(*arguments).log_fd for arguments in ((), ("--log-to", "stdout"))] == [2, 1]


def test_settings_are_immutable() -> None:
    with pytest.raises(AttributeError):
        read().grace = 5.0


@pytest.mark.parametrize(
    ("arguments", "environment", "level"),
    [
        ([], {}, 1),
        (["-v"], {}, 2),
        (["-vv"], {}, 3),
        (["-v", "--verbose"], {}, 3),
        (["-q"], {}, 0),
        (["-qq"], {}, -1),
        (["-qqq"], {}, -1),  # errors are always logged
        (["-vq"], {}, 1),
        ([], {"AGENT_INIT_VERBOSE": "2"}, 3),
        ([], {"AGENT_INIT_QUIET": "yes"}, 0),
        (["-v"], {"AGENT_INIT_VERBOSE": "2"}, 2),
        (["-q"], {"AGENT_INIT_VERBOSE": "1"}, 1),
    ],
)
def test_verbose_and_quiet_set_the_log_level(arguments: list[str], environment: dict[str, str], level: int) -> None:
    assert read(*arguments, **environment).log_level == level


@pytest.mark.parametrize(
    ("arguments", "environment", "stacks"),
    [
        (["--loop-watch", "1s"], {}, True),
        ([], {"AGENT_INIT_LOOP_WATCH": "1s"}, True),
        (["--loop-watch", "1s"], {"AGENT_INIT_STACKS": "on"}, True),
        (["--loop-watch", "0"], {"AGENT_INIT_LOOP_WATCH": "1s"}, False),
        (["--loop-watch", "0"], {"AGENT_INIT_STACKS": "off"}, False),
        (["--loop-watch", "0", "--stacks"], {}, True),
    ],
)
def test_loop_watch_implies_stacks(arguments: list[str], environment: dict[str, str], stacks: bool) -> None:
    assert read(*arguments, **environment).stacks is stacks


def test_repeatable_options_add_up_and_flags_replace_the_variable() -> None:
    assert read("-e", "143", "--ok-exit=1", "-e0").ok_exit == {143, 1, 0}
    assert read(AGENT_INIT_OK_EXIT="143,1 0").ok_exit == {143, 1, 0}
    assert read("-e1", AGENT_INIT_OK_EXIT="143").ok_exit == {1}
    assert read("-r", "HUP:QUIT", "-r1:INT", "-r", "USR1:0").rewrite == {1: 2, 10: 0}
    assert read(AGENT_INIT_REWRITE="HUP:QUIT, USR1:0").rewrite == {1: 3, 10: 0}


def test_the_last_of_two_flags_wins() -> None:
    assert read("-t", "1s", "--grace", "2s").grace == 2
    assert read("-g", "-c").target == "child"
    assert read("-c", "--target", "group").target == "group"
    assert read("-s", "--no-subreaper").subreaper is False


# --- Where parsing stops. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command"),
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
def test_parsing_stops_at_the_first_non_option(line: str, command: str) -> None:
    if command:
        assert reader.read(line.split(), {}).command == tuple(command.split())
    else:
        with pytest.raises(parsed.UsageError, match=r"^--grace: '--' is not a duration"):
            reader.read(line.split(), {})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-vvg", {"log_level": 3, "target": "group"}),
        ("-gve143", {"log_level": 2, "target": "group", "ok_exit": {143}}),
        ("-swt5", {"subreaper": True, "warn_reaped": True, "grace": 5.0}),
        ("-crHUP:0", {"target": "child", "rewrite": {1: 0}}),
        # The short options of tini and dumb-init.
        ("-s -g -vvv -w -p SIGKILL -e 143 -e 1", {"ok_exit": {1, 143}, "parent_death_signal": 9, "log_level": 4}),
        ("-pSIGTERM", {"parent_death_signal": 15}),
        ("--single-child --rewrite 15:3 --verbose", {"target": "child", "rewrite": {15: 3}, "log_level": 2}),
        ("-cv -r 2:15", {"rewrite": {2: 15}, "log_level": 2}),
    ],
)
def test_short_options_can_be_bundled(line: str, expected: dict[str, object]) -> None:
    settings = read(*line.split())
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.command == COMMAND


@pytest.mark.parametrize(("flag", "what"), reader.INFO_FLAGS.items())
def test_help_and_version_are_requested_by_their_flags(flag: str, what: str) -> None:
    for arguments in ([flag], ["-v", flag], [flag, "--no-such"], ["-g", flag, "agent"]):
        with pytest.raises(parsed.InfoRequested) as requested:
            reader.read(arguments, {})
        assert requested.value.args == (what,)
    assert reader.read(["agent", flag], {}).command == ("agent", flag)


def test_help_can_be_bundled() -> None:
    with pytest.raises(parsed.InfoRequested):
        reader.read(["-vh"], {})


@pytest.mark.parametrize("arguments", [[], ["--"], ["-v"], ["-t", "5"], ["-g", "--"]])
def test_a_command_is_required(arguments: list[str]) -> None:
    with pytest.raises(parsed.UsageError, match="no command given; usage: "):
        reader.read(arguments, {})


# --- Usage errors. --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "near"),
    [
        ("--grce", "--grace"),
        ("--stop-sginal", "--stop-signal"),
        ("--no-subreeper", "--no-subreaper"),
        ("--xyzzy", None),
    ],
)
def test_an_unknown_option_is_reported_with_the_nearest_one(argument: str, near: str | None) -> None:
    text = refused(argument)
    assert f"unknown option '{argument}'; " in text
    assert (f"did you mean {near}?" in text) if near else ("did you mean" not in text)


@pytest.mark.parametrize("argument", ["-z", "-vz", "-\u00fc", "-\n", "-1", "--\n", "--gr\nace=1", "-=5", "--=5", "---"])
def test_an_unknown_option_is_reported_on_one_line(argument: str) -> None:
    assert "unknown option" in refused(argument)


@pytest.mark.parametrize("flag", [flag for option in options.OPTIONS for flag in option.flags])
def test_a_missing_value_is_reported(flag: str) -> None:
    with pytest.raises(parsed.UsageError, match=f"^{flag} needs a value: "):
        reader.read([flag], {})


def invalid_values() -> list[tuple[str, str]]:
    everywhere = ["", " ", "\n", "5\nx", "\u00fc\u0661", "\udcff", "-", "x" * 10_000, "9" * 10_000, "\x1b[31m", "'\""]
    more = {
        "grace": [
            *"-5 -1s 5x 1e3 nan inf Infinity 5s5 1.2.3s . .s s ms +5 1_000s 367d 0x10 5,5 5S auto,5 AUTO 1m30".split()
        ],
        "linger": ["-5", "auto", "367d"],
        "stop_delay": ["-1", "auto"],
        "stop_signal": ["0", "-9", "65", "TERMM", "TERM,INT", "none", "AUTO"],
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
        "platform_grace": ["-5", "auto", "none", "367d"],
        "orphans": ["-5", "auto", "off", "367d"],
        "repeat": ["Ignore", "ignore,forward", "1"],
        "rewrite": ["TERM", "TERM:", ":TERM", "TERM:INT:HUP", "0:TERM", "KILL:TERM", "TERM:-1", "CHLD:0", "TERM=INT"],
        "target": ["all", "GROUP"],
        "unhandled": ["drop"],
        "parent_death_signal": ["0", "none"],
        "ok_exit": ["-1", "256", "1000", "0x1", "1.0", "\u0661\u0662", "+1", "TERM", "00001"],
        "max_grace": ["-5", "auto", "367d"],
        "watchdog": ["-5", "auto", "off"],
        "ready_timeout": ["-5", "auto", "none"],
        "loop_watch": ["9ms", "x", "none"],
        "notify": ["2", "maybe"],
        "notify_access": ["none", "exec", "main,all"],
        "ready_file": ["ready", "./ready", "NONE"],
        "report_on": ["USR2,", "KILL", "STOP", "CHLD", "EOF", "none,USR2"],
        "report_after": ["-5", "auto"],
        "control": ["2", "maybe"],
        "stacks": ["2"],
        "termination_log": ["log", "./log", "NONE"],
        "log_format": ["JSON", "yaml"],
        "secret": ["1A", "A=B", "PATH", ".A", "-A", "A/B", "x" * 201],
        "log_to": ["stdin", "STDOUT", "/var/log/agent"],
        "subreaper": ["2", "maybe"],
        "warn_reaped": ["2"],
        "verbose": ["-1", "10", "x", "1.5"],
        "quiet": ["-1", "10"],
        "http": [
            "8081",
            ":0",
            ":65536",
            ":080810",
            ":x",
            ":",
            "localhost:80",
            "::1:80",
            "[]:80",
            "[127.0.0.1]:80",
            "1.2.3:80",
            "[::1:80",
            "::1]:80",
            "\0:80",
            "[fe80::1%lo]:80",
            ":\u0661",
        ],
    }
    return [(name, text) for name in BY_NAME for text in (*everywhere, *more[name])]


@pytest.mark.parametrize(("name", "text"), invalid_values())
def test_an_invalid_value_is_reported_with_what_is_accepted(name: str, text: str) -> None:
    option = BY_NAME[name]
    blank_list = option.many and not text.strip()
    if text and not blank_list:  # a repeatable option's variable is a list, separated by spaces and commas
        message = refused(**{option.variable: text})
        assert message.startswith(f"{option.variable}: ")
        assert "accepted: " in message
    for flag in option.flags:
        message = refused(flag, text)
        assert message.startswith(f"{flag}: ")
        assert "accepted: " in message
        if len(text) < 50 and name not in (
            "stop_on",
            "report_on",
            "stop_schedule",
            "rewrite",
        ):  # these quote only the invalid part
            assert repr(text) in message


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--stop-schedule", "TERM", "--grace", "5"], {}),
        (["--stop-signal", "INT", "--stop-schedule", "TERM"], {}),
        ([], {"AGENT_INIT_STOP_SCHEDULE": "TERM", "AGENT_INIT_GRACE": "5"}),
        ([], {"AGENT_INIT_STOP_SCHEDULE": "TERM", "AGENT_INIT_STOP_SIGNAL": "INT"}),
    ],
)
def test_a_schedule_excludes_grace_and_stop_signal(arguments: list[str], environment: dict[str, str]) -> None:
    text = refused(*arguments, **environment)
    assert "exclude each other" in text
    for source in (*arguments[::2], *environment):
        assert source in text


def test_a_flag_wins_where_a_schedule_and_a_grace_exclude_each_other() -> None:
    settings = read("--stop-schedule", "TERM", AGENT_INIT_GRACE="5", AGENT_INIT_STOP_SIGNAL="INT")
    assert (settings.stop_schedule, settings.grace, settings.stop_signal) == (((15, math.inf),), None, None)
    settings = read("--grace", "5", AGENT_INIT_STOP_SCHEDULE="TERM")
    assert (settings.stop_schedule, settings.grace) == (None, 5)
    settings = read("--stop-signal", "INT", AGENT_INIT_STOP_SCHEDULE="TERM")
    assert (settings.stop_schedule, settings.grace, settings.stop_signal) == (None, None, 2)


def test_unknown_variables_with_the_prefix_are_returned() -> None:
    settings = read(AGENT_INIT_GRACEE="5", AGENT_INIT_="", AGENTINIT_X="1", OTHER="1")
    assert settings.unknown == {"AGENT_INIT_GRACEE": "AGENT_INIT_GRACE", "AGENT_INIT_": None}


LINKS = {
    "SERVICE_HOST": "10.0.0.11",
    "SERVICE_PORT": "80",
    "SERVICE_PORT_HTTP": "80",
    "SERVICE_PORT_GRPC_WEB": "81",
    "PORT": "tcp://10.0.0.11:80",
    "PORT_80_TCP": "tcp://10.0.0.11:80",
    "PORT_80_TCP_PROTO": "tcp",
    "PORT_80_TCP_PORT": "80",
    "PORT_80_TCP_ADDR": "fd00::11",
    "PORT_53_UDP": "udp://10.0.0.11:53",
    "PORT_5000_SCTP_ADDR": "10.0.0.11",
}


@pytest.mark.parametrize("service", ["", "WEB_", "GRACE_"])
def test_service_links_of_kubernetes_are_not_misspelt_options(service: str) -> None:
    links = {f"AGENT_INIT_{service}{name}": value for name, value in LINKS.items()}
    assert read(**links, AGENT_INIT_GRAEC="5").unknown == {"AGENT_INIT_GRAEC": None}


@pytest.mark.parametrize(
    "name", ["PORT", "SERVICE", "SERVICE_HOSTS", "SERVICE_PORTS", "PORT_80", "PORT_x_TCP", "PORT_80_TCP_X", "80_TCP"]
)
def test_what_only_resembles_a_service_link_is_reported(name: str) -> None:
    assert read(**{f"AGENT_INIT_{name}": "8080"}).unknown.keys() == {f"AGENT_INIT_{name}"}


# --- Variables of tini and dumb-init. -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "0", "1", "yes"])
def test_tini_variables_count_whatever_their_value(value: str) -> None:
    settings = read(TINI_KILL_PROCESS_GROUP=value, TINI_SUBREAPER=value)
    assert (settings.target, settings.subreaper) == ("group", True)
    assert settings.sources == {"target": "TINI_KILL_PROCESS_GROUP", "subreaper": "TINI_SUBREAPER"}


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("0", -1),
        ("1", 0),
        ("2", 1),
        ("3", 2),
        ("4", 2),
        ("99", 2),
        ("-1", 2),
        ("9" * 30, 2),
        ("", -1),
        ("x", -1),
        ("-", -1),
        (" +1x", 0),
        ("\u0662", -1),
    ],
)
def test_tini_verbosity_sets_the_log_level(value: str, level: int) -> None:
    assert read(TINI_VERBOSITY=value).log_level == level


@pytest.mark.parametrize(("value", "target"), [("0", "child"), ("1", "auto"), ("", "auto"), ("00", "auto")])
def test_dumb_init_setsid_0_is_single_child(value: str, target: str) -> None:
    assert read(DUMB_INIT_SETSID=value).target == target


@pytest.mark.parametrize(("value", "level"), [("1", 2), ("0", 1), ("", 1), ("true", 1)])
def test_dumb_init_debug_1_is_verbose(value: str, level: int) -> None:
    assert read(DUMB_INIT_DEBUG=value).log_level == level


OTHERS = {"TINI_KILL_PROCESS_GROUP": "1", "TINI_SUBREAPER": "1", "TINI_VERBOSITY": "0", "DUMB_INIT_DEBUG": "1"}


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["-c", "--no-subreaper", "-v"], {}),
        (["-c", "--no-subreaper"], {"AGENT_INIT_VERBOSE": "1"}),
        ([], {"AGENT_INIT_TARGET": "child", "AGENT_INIT_SUBREAPER": "off", "AGENT_INIT_VERBOSE": "1"}),
    ],
)
def test_our_own_options_go_before_those_of_other_inits(arguments: list[str], environment: dict[str, str]) -> None:
    settings = read(*arguments, **OTHERS, **environment)
    assert (settings.target, settings.subreaper, settings.log_level) == ("child", False, 2)
    assert not set(OTHERS) & set(settings.sources.values())


@pytest.mark.parametrize("own", ["AGENT_INIT_VERBOSE", "AGENT_INIT_QUIET"])
def test_any_level_of_our_own_goes_before_that_of_tini(own: str) -> None:
    assert read(**{own: "0"}, TINI_VERBOSITY="0").log_level == 1
    assert read(**{own: ""}, TINI_VERBOSITY="0").log_level == -1


def test_unhandled_is_forward_if_nothing_requests_a_stop() -> None:
    assert read("--stop-on", "none").unhandled == "forward"
    assert read("--stop-on", "none", "--unhandled", "shield").unhandled == "shield"
    assert read("--stop-on", "none", AGENT_INIT_UNHANDLED="shield").unhandled == "shield"


ARGUMENTS = st.text(st.sampled_from("-=,:/ \n\u00fc\udcff0159smTERM"), max_size=8) | st.sampled_from(
    [*(flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)), "--", "-", "TERM/5s/KILL"]
)


@given(
    st.lists(ARGUMENTS, max_size=6), st.dictionaries(st.sampled_from([o.variable for o in options.OPTIONS]), ARGUMENTS)
)
def test_any_input_is_read_or_refused_on_one_line(arguments: list[str], environment: dict[str, str]) -> None:
    try:
        settings = reader.read(arguments, environment)
        planning.make(settings, environment, lambda _: False)
    except parsed.UsageError as error:
        message = str(error)
    except parsed.InfoRequested:
        assert {"-h", "-V", "--help", "--version"} & {text[:2] if text[1:2] != "-" else text for text in arguments}
        return
    else:
        assert settings.command == tuple(arguments[len(arguments) - len(settings.command) :])
        return
    assert "\n" not in message
    assert len(message) < 1000


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
def test_parse_duration(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


PARTS = st.tuples(st.integers(0, 59), st.sampled_from(sorted(units.SECONDS_IN)))


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    total = sum(number * units.SECONDS_IN[unit] for number, unit in parts)
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert units.parse_duration(text) == pytest.approx(total)
    assert options.grace(text) == units.parse_duration(text)


@given(st.just(0.0) | st.floats(1e-6, units.MAX_DURATION_SECONDS))
def test_a_formatted_duration_parses_to_itself(seconds: float) -> None:
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
def test_format_duration(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


SIGNALS = st.sampled_from(sorted(signals.VALID - {signals.KILL}))
WAITS = st.integers(0, 3600)


@given(st.lists(st.tuples(SIGNALS, WAITS), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_a_schedule_is_parsed_into_signals_and_waits(steps: list[tuple[int, int]], kill: bool, dashes: bool) -> None:
    dash = "-" if dashes else ""  # start-stop-daemon(8) accepts both
    entries = [f"{dash}{signals.name_of(number)}/{wait}s" for number, wait in steps]
    text = "/".join([*entries, f"{dash}KILL"] if kill else entries)
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
def test_a_parser_returns_a_value_or_names_what_is_accepted(parser: Callable[[str], object], text: str) -> None:
    try:
        parser(text)
    except ValueError as error:
        message = str(error)
    else:
        return
    assert "accepted: " in message
    assert "\n" not in message


# --- The click command. ---------------------------------------------------------------------------------------------


def click_options() -> list[click.Option]:
    return [parameter for parameter in cli.command().params if isinstance(parameter, click.Option)]


def test_the_command_and_the_reader_have_the_same_flags() -> None:
    """`--help` is click's own and not among its parameters."""
    known = {flag for option in click_options() for flag in (*option.opts, *option.secondary_opts)}
    ours = {flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)}
    assert known == ours | {"-V", "--version"}


def test_flags_take_a_value_in_the_command_if_they_do_in_the_reader() -> None:
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
    ("arguments", "environment", "message"),
    [
        (["--watchdog", "5s", "--no-notify"], {}, "--watchdog needs the notify socket, which --no-notify turns off"),
        (["--ready-file", "/r", "--no-notify"], {}, "--ready-file needs the notify socket, which --no-notify turns"),
        (["--report-on", "USR2,TERM"], {}, "--report-on: TERM requests a stop; accepted: signals that do not"),
        (["--no-notify"], {"AGENT_INIT_READY_TIMEOUT": "5"}, "AGENT_INIT_READY_TIMEOUT needs the notify socket"),
        (["--notify-access=main"], {"AGENT_INIT_NOTIFY": "off"}, "which AGENT_INIT_NOTIFY turns off"),
        (
            ["--orphans=5m", "--no-subreaper"],
            {},
            "--orphans needs orphans to be adopted, which --no-subreaper turns off",
        ),
        (
            ["-t", "25s", "--max-grace", "10s"],
            {},
            "--max-grace: 10s is less than the 25s of -t; accepted: the same or more",
        ),
        (["--stop-schedule", "TERM/9s/INT/2s/KILL", "--max-grace", "10s"], {}, "less than the 11s of --stop-schedule"),
        (
            ["--loop-watch", "1s"],
            {"AGENT_INIT_STACKS": "off"},
            "--loop-watch needs the stacks, which AGENT_INIT_STACKS turns off",
        ),
        (["--loop-watch", "9ms"], {}, "'9ms' is too short; accepted: 10ms or more, or 0"),
    ],
)
def test_contradictions_are_refused(arguments: list[str], environment: dict[str, str], message: str) -> None:
    assert message in refused(*arguments, **environment)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--watchdog", "0", "--no-notify"],
        ["-t", "25s", "--max-grace", "25s"],
        ["-t", "infinity", "--max-grace", "1s"],
        ["--max-grace", "1s"],
    ],
)
def test_options_that_go_together_are_accepted(arguments: list[str]) -> None:
    read(*arguments)


VALID_OPTIONS = st.sampled_from(
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


@given(st.lists(VALID_OPTIONS, max_size=6), st.booleans())
def test_the_command_and_the_reader_parse_a_line_alike(groups: list[list[str]], dashes: bool) -> None:
    arguments = [argument for group in groups for argument in group] + ["--"] * dashes
    assume("stop_schedule" not in str(groups))
    try:
        settings = reader.read([*arguments, *COMMAND], {})
    except parsed.UsageError as error:
        # Only the reader refuses contradictions.
        contradictions = "exclude each other", "turns off", "requests a stop"
        assume(not any(text in str(error) for text in contradictions))
        raise
    with cli.command().make_context("agent-init", [*arguments, *COMMAND]) as context:
        assert context.params["command"] == COMMAND == settings.command
        for option in options.OPTIONS:
            if option.flags and context.params.get(option.name):
                assert option.name in settings.sources


@pytest.mark.parametrize(
    ("option", "begun", "expected"),
    [
        ("repeat", "f", ["forward"]),
        ("log_format", "", ["text", "json"]),
        ("stop_signal", "US", ["USR1", "USR2"]),
        ("stop_signal", "a", ["auto"]),
    ],
)
def test_shell_completion_offers_values(option: str, begun: str, expected: list[str]) -> None:
    [parameter] = [p for p in click_options() if set(p.opts) == set(BY_NAME[option].flags)]
    items = parameter.shell_complete(click.Context(cli.command()), begun)
    assert [item.value for item in items] == expected


def test_shell_completion_is_requested_by_its_variable() -> None:
    with pytest.raises(parsed.InfoRequested, match="complete"):
        reader.read(["--gr"], {reader.COMPLETE_VARIABLE: "bash_source"})


def test_process_1_adopts_orphans_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    assert read("--orphans", "5m", "--no-subreaper").orphans == 300.0
