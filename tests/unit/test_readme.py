"""The pages that users read: generated tables match the code; options, links and tests exist.

`python -m tests.unit.test_readme` writes the tables.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from entrypoint import options, parsed, platforms
from entrypoint import settings as reader
from entrypoint.check import rules
from entrypoint.rehearse import beside, scenarios

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`[^`\n]+`")
# Of the test suites and of the work in a rehearsal: no options.
NO_OPTIONS = ("AGENT_INIT_TEST_", "AGENT_INIT_SOAK_", "AGENT_INIT_FUZZ_", beside.PREFIX)


def option_table() -> str:
    """The table of options as Markdown."""
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|"]
    for option in options.OPTIONS:
        flags = ", ".join(f"`{flag}`" for flag in option.flags)
        if option.flags:
            flags += f" `{option.metavar}`".replace("|", "\\|")
        constants = ", ".join(f"`{flag}`" for flag in option.constants)
        both = "; ".join(part for part in (flags, constants) if part)
        default = f"`{option.default}`" if option.default else ""
        rows.append(f"| {both} | `{option.variable}` | {default} | {option.help} |")
    return "\n".join(rows) + "\n"


def platform_table() -> str:
    """The table of recognised platforms as Markdown."""
    rows = ["| recognised by | platform | waits, by default |", "|---|---|---|"]
    known = [*platforms.BY_VARIABLE, *platforms.BY_FILE, ("container=podman", "Podman", 10.0)]
    rows += [f"| `{evidence}` | {platform} | {seconds:g} s |" for evidence, platform, seconds in known]
    return "\n".join(rows) + "\n"


def rule_table() -> str:
    """The table of the rules of `agent-initctl check` as Markdown."""
    rows = ["| rule | severity | what goes wrong | example | remedy |", "|---|---|---|---|---|"]
    for rule in rules.RULES:
        cells = (f"`{rule.name}`", rule.severity, rule.wrong, rule.example, rule.remedy)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def scenario_table() -> str:
    """The table of a rehearsal's scenarios as Markdown."""
    rows = ["| name | what happens | where this happens | judged |", "|---|---|---|---|"]
    for way in scenarios.WAYS:
        judged = ["the end", *(str(what) for what in scenarios.Judged if what in way.judged)]
        text = ", ".join(judged).replace("tracebacks", "log lines") if way.scenario.counts else "nothing"
        rows.append(f"| `{way.name}` | {way.scenario.title} | {way.scenario.like} | {text} |")
    return "\n".join(rows) + "\n"


TABLES = {
    "options": ("docs/options.md", option_table),
    "platforms": ("docs/grace.md", platform_table),
    "rules": ("docs/check.md", rule_table),
    "scenarios": ("docs/rehearse.md", scenario_table),
}


def with_table(name: str) -> tuple[Path, str]:
    """The page that has the table, and its text with the table made anew."""
    path, table = TABLES[name]
    text = (ROOT / path).read_text()
    marks = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    assert len(marks.findall(text)) == 1
    return ROOT / path, marks.sub(lambda found: f"{found[1]}{table()}{found[2]}", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@functools.cache
def names_of_tests() -> set[str]:
    """The names of all test functions and modules."""
    modules = list((ROOT / "tests").rglob("test_*.py"))
    functions = re.findall(r"^ *(?:async )?def (test_\w+)\(", "\n".join(map(Path.read_text, modules)), re.MULTILINE)
    return {*functions, *(module.stem for module in modules)}


def test_the_readme_can_be_read_in_a_minute() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


@pytest.mark.parametrize("name", TABLES)
def test_generated_tables_match_the_code(name: str) -> None:
    page, text = with_table(name)
    assert page.read_text() == text


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_option_and_variable_in_a_page_exists(page: Path) -> None:
    text = page.read_text()
    flags = {flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)} | set(reader.INFO_FLAGS)
    variables = {option.variable for option in options.OPTIONS} | {parsed.STOP_SECONDS, parsed.RESPONDERS}
    used = {name.rstrip("_") for name in re.findall(r"(?<!_)\bAGENT_INIT_[A-Z_]*", text)} - {"AGENT_INIT"}
    assert {name for name in used if not name.startswith(NO_OPTIONS)} <= variables
    assert set(re.findall(r"agent-init (--?[a-z][a-z-]*)", text)) <= flags | {"--"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = CODE_SPAN.sub("code", CODE_BLOCK.sub("", page.read_text()))
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    assert set(re.findall(r"\btest_\w+", page.read_text())) <= names_of_tests()


if __name__ == "__main__":
    for name in TABLES:
        page, text = with_table(name)
        page.write_text(text)
