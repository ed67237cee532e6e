"""The readers of `agent-initctl check`: they keep lines, and whatever a file has in it, the error is one line."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.check import combine, dockerfile, from_dockerfile, from_yaml, rules, sleep, tree
from entrypoint.check.case import Finding
from entrypoint.check.source import Place, Unreadable

pytest.importorskip("yaml")

MULTI_STAGE = r"""# syntax=docker/dockerfile:1
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
CMD ["early"]
ENTRYPOINT ["agent-init", "--"]

FROM build
ENV A=1 \
    # a comment in the middle
    B="two words" C='$HOME'
ENV OLD the old form
RUN <<EOF
CMD not an instruction
EOF
user 1000
CMD python agent.py \
    --verbose
"""


def test_dockerfile_has_the_line_of_each_instruction() -> None:
    read = dockerfile.read("Dockerfile", MULTI_STAGE)
    assert [(made.name, made.place.line) for made in read.stages[1].instructions] == [
        ("ENV", 8),
        ("ENV", 11),
        ("RUN", 12),
        ("USER", 15),
        ("CMD", 16),
    ]
    image = from_dockerfile.image(read)
    assert image.base == "python:3.13-slim"
    assert image.shell == "dash"
    assert {name: given.value for name, given in image.environment.items()} == {
        "A": "1",
        "B": "two words",
        "C": "$HOME",
        "OLD": "the old form",
    }
    assert image.entrypoint is not None
    assert image.entrypoint.value == ("agent-init", "--")
    assert image.command is not None
    assert image.command.value == ("/bin/sh", "-c", "python agent.py --verbose")
    assert image.user is not None
    assert image.user.value == "1000"


def test_entrypoint_drops_the_command_of_the_image_it_is_built_on() -> None:
    read = dockerfile.read("Dockerfile", 'FROM a AS b\nCMD ["x"]\nFROM b\nENTRYPOINT ["y"]\n')
    assert from_dockerfile.image(read).command is None
    read = dockerfile.read("Dockerfile", 'FROM a\nCMD ["x"]\nENTRYPOINT ["y"]\n')
    command = from_dockerfile.image(read).command
    assert command is not None
    assert command.value == ("x",)


def test_dockerfile_with_another_escape_character_and_shell() -> None:
    text = '# escape=`\nFROM a\nSHELL ["bash", "-o", "pipefail", "-c"]\nCMD python `\n  agent.py\n'
    command = from_dockerfile.image(dockerfile.read("f", text)).command
    assert command is not None
    assert command.value == ("bash", "-o", "pipefail", "-c", "python agent.py")


def test_dockerfile_with_tabs_and_empty_lines_in_an_instruction() -> None:
    text = 'FROM\tpython\nRUN a && \\\n\n    # why\n\n    b\nENV\tOLD the\tform\nCMD\t["x"]\n'
    assert dockerfile.looks_like_one(text)
    made = dockerfile.read("f", text).stages[0].instructions
    assert [(one.name, one.text, one.place.line) for one in made] == [
        ("RUN", "a && b", 2),
        ("ENV", "OLD the\tform", 7),
        ("CMD", '["x"]', 8),
    ]


def test_a_target_is_a_stage_by_its_name() -> None:
    read = dockerfile.read("f", "FROM a AS web\nCMD one\nFROM a AS worker\nCMD two\n")
    for target, text in (("web", "one"), ("worker", "two"), (None, "two")):
        command = from_dockerfile.image(read, target).command
        assert command is not None
        assert command.value[-1] == text


def test_a_here_document_ends_at_its_own_line_only() -> None:
    text = "FROM a\nRUN [ -n x ] && cat <<EOF >f\nhello\n  EOF\nEOF\nRUN cat <<-END\nhello\n\tEND\nUSER x\n"
    made = dockerfile.read("f", text).stages[0].instructions
    assert [(one.name, one.place.line) for one in made] == [("RUN", 2), ("RUN", 6), ("USER", 9)]


def test_the_arguments_before_the_first_from_name_images_and_stages() -> None:
    text = "ARG PY=3.13\nARG IMAGE=python:${PY}\nARG STAGE=prod\nFROM $IMAGE AS prod\nCMD one\nFROM ${STAGE}\nUSER x\n"
    image = from_dockerfile.image(dockerfile.read("f", text))
    assert (image.base, image.shell) == ("python:3.13", "dash")
    assert image.command is not None
    assert image.command.value[-1] == "one"
    endless = "ARG A=$B\nARG B=$A\nFROM $A\n"
    assert from_dockerfile.image(dockerfile.read("f", endless)).base.startswith("$")
    unknown = from_dockerfile.image(dockerfile.read("f", "ARG TAG\nFROM python:$TAG\n"))
    assert (unknown.base, unknown.shell) == ("python:$TAG", "")
    empty = 'ARG PY=""\nFROM python:${PY:-3.13}\n'
    assert from_dockerfile.image(dockerfile.read("f", empty)).base == "python:3.13"


def test_the_quotes_of_an_instruction_are_no_part_of_it() -> None:
    image = from_dockerfile.image(dockerfile.read("f", "FROM a\nSTOPSIGNAL \"SIGINT\"\nUSER 'app'\n"))
    assert image.stop_signal is not None
    assert image.user is not None
    assert (image.stop_signal.value, image.user.value) == ("SIGINT", "app")


def test_what_a_stage_does_on_build_is_done_in_the_stages_built_on_it() -> None:
    text = 'FROM a AS base\nONBUILD ENTRYPOINT ["agent-init", "--"]\nONBUILD\nFROM base\nCMD ["x"]\n'
    image = from_dockerfile.image(dockerfile.read("f", text))
    assert image.entrypoint is not None
    assert image.entrypoint.value == ("agent-init", "--")
    assert image.entrypoint.place.line == 2
    assert image.command is not None
    assert from_dockerfile.image(dockerfile.read("f", text), "base").entrypoint is None


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("FROM a\nCOPPY . .\n", 2, "unknown instruction 'COPPY'"),
        ("RUN x\nFROM a\n", 1, "RUN before the first FROM"),
        ("# nothing\n", 1, "no FROM"),
        ("FROM\n", 1, "FROM without an image"),
    ],
)
def test_bad_dockerfile_is_one_line_with_its_place(text: str, line: int, problem: str) -> None:
    with pytest.raises(Unreadable) as caught:
        dockerfile.read("Dockerfile", text)
    assert problem in str(caught.value)
    assert caught.value.place == Place("Dockerfile", line)
    assert "\n" not in str(caught.value)


def test_yaml_has_the_line_of_each_key_and_resolves_aliases() -> None:
    text = "base: &base\n  a: 1\n  b: {c: no}\nother:\n  <<: *base\n  a: 2\nlist:\n  - x\n  - y: null\n"
    (document,) = tree.read_yaml("f.yaml", text)
    assert document["other"]["a"].given is not None
    assert (document["other"]["a"].text, document["other"]["a"].place.line) == ("2", 6)
    assert (document["other"]["b"]["c"].text, document["other"]["b"]["c"].place.line) == ("no", 3)
    assert [item.place.line for item in document["list"]] == [8, 9]
    assert not document["list"]["nothing"]["at"]["all"]
    assert document["list"]["nothing"].place.line == 7


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("yes", True), ("On", True), ("y", True), ("no", False), ("maybe", None)]
)
def test_a_truth_value_is_one_of_yaml_1_1(text: str, expected: bool | None) -> None:
    switch = tree.read_yaml("f", f"init: {text}\n")[0]["init"].switch
    assert (switch.value if switch else None) is expected


def test_json_with_tabs_is_read() -> None:
    (document,) = tree.read_yaml("task.json", '{\n\t"family": "x",\n\t"containerDefinitions": [\n\t\t{"name": "a"}]}')
    assert next(iter(document["containerDefinitions"]))["name"].place.line == 4


def test_recursive_and_deep_yaml_ends() -> None:
    (document,) = tree.read_yaml("f", "a: &x [*x]\n")
    assert next(iter(document["a"])).value is document["a"].value
    with pytest.raises(Unreadable, match="nested too deeply"):
        tree.read_yaml("f", "[" * 20_000)
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    assert len(tree.read_yaml("f", laughs)) == 1


def test_a_template_names_helm() -> None:
    with pytest.raises(Unreadable, match="helm template"):
        tree.read_yaml("f", "a:\n  {{- include x }}\n  b: 1\n")


def test_toml_has_the_line_of_each_key() -> None:
    text = (
        'app = "x"\nkill_timeout = """\n5m"""\n\n[env]\n  A = "1"\n[[vm]]\nsize = 1\n\n[[vm]]\nsize = 2\n'
        "[processes]\n# a comment\nweb = 'a b'\n[deep.er]\ninner.key = [1,\n 2]\n"
    )
    document = tree.read_toml("fly.toml", text)
    lines = {
        ("kill_timeout",): 2,
        ("env",): 5,
        ("env", "A"): 6,
        ("processes", "web"): 14,
        ("deep", "er", "inner", "key"): 16,
    }
    for path, line in lines.items():
        node = document
        for key in path:
            node = node[key]
        assert node.place.line == line, path
    assert [table["size"].place.line for table in document["vm"]] == [8, 11]


def test_toml_with_brackets_and_quotes_in_values() -> None:
    text = (
        "app = 'x' # ]\nA = [ # [\n '[', \"\\\"]\",\n]\nB = {c = '}', d = [1]}\n"
        'C = """a\n[ \\"""""\nD = \'\'\'\n\'\n\'\'\'\n[e]\nF = 1\n'
    )
    document = tree.read_toml("f", text)
    assert {key: node.place.line for key, node in document.items()} == {
        "app": 1, "A": 2, "B": 5, "C": 6, "D": 8, "e": 11,
    }  # fmt: skip
    assert document["e"]["F"].place.line == 12


def test_long_files_take_a_time_that_grows_with_their_length() -> None:
    toml = 'app = "x"\nA = [\n' + '"value",\n' * 20_000 + "]\n[env]\nB = 1\n"
    kills = "kill " * 50_000
    pod = "apiVersion: v1\nkind: Pod\nspec:\n  hostPID: true\n  containers:\n  - image: a\n"
    pod += f"    lifecycle: {{preStop: {{exec: {{command: [sh, -c, '{kills}']}}}}}}\n"
    begin = time.process_time()
    assert tree.read_toml("f", toml)["env"]["B"].place.line == 20_005
    assert findings_or_problem("pod.yaml", pod)[1] is None
    assert time.process_time() - begin < 20  # minutes, where it grows with the square


def test_a_fly_toml_may_leave_its_app_to_the_command_line() -> None:
    text = 'kill_signal = "KILL"\n[build]\nimage = "x"\n'
    assert [made.rule for made in findings_or_problem("a/fly.toml", text)[0]] == ["stop-signal"]
    assert [made.rule for made in findings_or_problem("fly.staging.toml", text)[0]] == ["stop-signal"]
    assert combine.read([("pyproject.toml", text)]).ignored


def test_bad_toml_is_one_line_with_its_place() -> None:
    with pytest.raises(Unreadable) as caught:
        tree.read_toml("fly.toml", 'app = "x"\nbroken\n')
    assert caught.value.place == Place("fly.toml", 2)


@pytest.mark.parametrize("number", ["nan", ".nan", "inf", "-inf", "1e400", "9" * 400])
def test_what_is_no_finite_number_is_not_known(number: str) -> None:
    assert tree.read_yaml("f", f"stopTimeout: {number}\n")[0]["stopTimeout"].number is None
    assert from_yaml.duration(f"{number}s") is None
    assert sleep.slept(("sleep", number)) == (0.0, False)
    pod = f"apiVersion: v1\nkind: Pod\nspec:\n  terminationGracePeriodSeconds: {number}\n  containers:\n"
    words = f"[agent-init, --, gunicorn, --graceful-timeout, '{number}', a]"
    found, problem = findings_or_problem("f", f"{pod}  - {{image: x, command: {words}}}\n")
    assert (found, problem) == ([], None)


# --- Whatever a file has in it. ---------------------------------------------------------------------------------------

WORDS = (
    "FROM a CMD ENTRYPOINT ENV RUN [ ] { } : - & * | > ' \" \\ # $ ${ << EOF services: command: apiVersion: kind: "
    "Deployment spec: containers: terminationGracePeriodSeconds: image: sh -c agent-init -- python tee && ; init: "
    "containerDefinitions stopTimeout AGENT_INIT_GRACE=5s environment: build: true 60s 10 app = [processes] livekit"
)
PIECES = st.sampled_from([*WORDS.split(), "\n", "\n  ", "\n    - ", " ", "\t", "\x00", "é", "\r\n"])
TEXTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map("".join))
NAMES = st.sampled_from(["Dockerfile", "compose.yaml", "fly.toml", "task.json", "<stdin>"])


def findings_or_problem(name: str, text: str) -> tuple[list[Finding], Unreadable | None]:
    try:
        return rules.judge(combine.read([(name, text)]).all()), None
    except Unreadable as error:
        return [], error


@given(NAMES, TEXTS)
def test_any_text_gives_findings_or_one_line(name: str, text: str) -> None:
    last = max(1, len(text.splitlines()), text.count("\n") + 1)
    findings, problem = findings_or_problem(name, text)
    if problem is not None:
        assert "\n" not in str(problem)
        assert 0 <= problem.place.line <= last
    for finding in findings:
        assert 1 <= finding.place.line <= last
        assert finding.place.file == name


SERVICES = st.fixed_dictionaries(
    {"image": st.sampled_from(["python:3.13-slim", "x/y", "alpine"])},
    optional={
        "command": st.one_of(st.text(max_size=40), st.lists(st.text(max_size=10), max_size=4), st.none()),
        "entrypoint": st.one_of(st.text(max_size=40), st.lists(st.text(max_size=10), max_size=4)),
        "environment": st.dictionaries(
            st.sampled_from(["AGENT_INIT_GRACE", "AGENT_INIT_OK_EXIT", "AGENT_INIT_X", "A"]), st.text(max_size=8)
        ),
        "stop_grace_period": st.one_of(st.text(max_size=5), st.integers(), st.sampled_from(["10s", "1m30s", "0"])),
        "stop_signal": st.text(max_size=8),
        "init": st.one_of(st.booleans(), st.text(max_size=3)),
        "cap_drop": st.lists(st.text(max_size=4), max_size=2),
    },
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), SERVICES, max_size=3))
def test_any_service_is_judged(services: dict[str, object]) -> None:
    text = json.dumps({"services": services}, indent=1)
    for finding in rules.judge(combine.read([("compose.json", text)]).all()):
        assert 1 <= finding.place.line <= text.count("\n") + 1
        assert "\n" not in finding.reason
