"""The README says what the code does: its option table is made from the code's.

`python -m tests.unit.test_readme` writes it.
"""

from __future__ import annotations

import re
from pathlib import Path

from entrypoint import options
from entrypoint import settings as reader

README = Path(__file__).parents[2] / "README.md"
MARKS = re.compile(r"(<!-- options: [^\n]*-->\n).*?(<!-- end of options -->)", re.DOTALL)


def table() -> str:
    """The option table as Markdown."""
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


def test_the_option_table_is_that_of_the_code() -> None:
    found = MARKS.search(README.read_text())
    assert found
    assert found[0] == f"{found[1]}{table()}{found[2]}"


def test_every_variable_and_flag_in_the_readme_exists() -> None:
    text = README.read_text()
    flags = {flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)} | set(reader.INFO_FLAGS)
    variables = {option.variable for option in options.OPTIONS}
    assert set(re.findall(r"\bAGENT_INIT_[A-Z_]+", text)) - {"AGENT_INIT_COMPLETE"} <= variables
    used = set(re.findall(r"agent-init (--?[a-z][a-z-]*)", text))
    assert used <= flags | {"--"}


if __name__ == "__main__":
    README.write_text(MARKS.sub(lambda found: f"{found[1]}{table()}{found[2]}", README.read_text()))
