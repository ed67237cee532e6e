"""Mutants: copies of a module with one mistake in them, made by cosmic-ray's operators and one of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

if TYPE_CHECKING:
    from collections.abc import Iterator

# cosmic-ray puts each operator in the place of each other one. What tells most is its opposite, and its neighbour.
REPLACED = {
    "ReplaceComparisonOperator": (
        "Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is In_NotIn NotIn_In Lt_GtE Lt_LtE LtE_Gt LtE_Lt Gt_LtE Gt_GtE GtE_Lt GtE_Gt"
    ).split(),
    "ReplaceBinaryOperator": (
        "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd "
        "LShift_RShift RShift_LShift Pow_Mul"
    ).split(),
    "ReplaceUnaryOperator": "Delete_Not Delete_USub Delete_Invert".split(),
}
# They take arguments: the names of variables.
NOT_TAKEN = ("VariableReplacer", "VariableInserter")


@dataclass(frozen=True)
class Mutant:
    """One mistake: `text` is the whole module with it, `line` where it is, `before` and `after` what differs.

    `where` is the dotted name of the function or class around it, empty at the top of the module; `around` its first
    and last line.
    """

    module: str
    where: str
    around: tuple[int, int]
    line: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        changed = [*(f"- {line}" for line in self.before), *(f"+ {line}" for line in self.after)]
        return "\n".join([f"@ {self.module} {self.where}".rstrip(), *changed])


class RemoveStatement(Operator):  # type: ignore[misc]
    """Leaves out a call whose value nobody uses, or an assignment to an attribute or an element."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "simple_stmt":
            statement = node.children[0]
            assigned = statement.type == "expr_stmt" and statement.children[0].type in ("power", "atom_expr")
            if assigned or statement.type in ("power", "atom_expr"):
                yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        statement = node.children[0]
        node.children[0] = Keyword("pass", statement.start_pos, statement.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def operators() -> Iterator[Any]:
    """Those whose mutants are made."""
    yield RemoveStatement()
    for name in operator_names():
        family, _, replaced = name.removeprefix("core/").partition("_")
        if family not in NOT_TAKEN and replaced in REPLACED.get(family, (replaced,)):
            yield get_operator(name)()


NAMED = {"if_stmt": 1, "expr_stmt": 0}  # where TYPE_CHECKING stands in them


def _is_run(node: Any) -> bool:
    """Not in an annotation or a signature's punctuation, and not for the type checker alone."""
    inner = None
    while node is not None:
        if node.type in NAMED and node.children[NAMED[node.type]].get_code().strip() == "TYPE_CHECKING":
            return False
        if node.type in ("parameters", "tfpdef") or (node.type == "funcdef" and inner is node.annotation is not None):
            return False
        if node.type == "param":
            return inner is not None and inner is node.default
        if node.type == "annassign":
            return inner is not None and "=" in node.children and inner is node.children[-1]
        inner, node = node, node.parent
    return True


def _where(node: Any) -> tuple[str, tuple[int, int]]:
    names: list[str] = []
    around = None
    while node.parent is not None:
        node = node.parent
        if node.type in ("funcdef", "classdef"):
            names.insert(0, node.name.value)
            around = around or node
    around = around or node
    return ".".join(names), (around.start_pos[0], around.end_pos[0])


def _differing(old: list[str], new: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lines from the first that differs to the last, in both."""
    first = next(i for i, (a, b) in enumerate(zip([*old, ""], [*new, ""], strict=False)) if a != b)
    same = 0
    while same < min(len(old), len(new)) - first and old[-1 - same] == new[-1 - same]:
        same += 1
    return tuple(x.strip() for x in old[first : len(old) - same]), tuple(
        x.strip() for x in new[first : len(new) - same]
    )


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """All of a module, each text once."""
    seen = {source}
    for operator in operators():
        occurrence = -1
        for node in ast_nodes(get_ast(source)):
            for start, _ in operator.mutation_positions(node):
                occurrence += 1
                if not _is_run(node):
                    continue
                try:
                    text = mutate_code(source, operator, occurrence)
                except AttributeError:  # ExceptionReplacer knows no dotted names
                    continue
                if text is None or text in seen:
                    continue
                seen.add(text)
                before, after = _differing(source.splitlines(), text.splitlines())
                yield Mutant(module, *_where(node), start[0], before, after, text)
