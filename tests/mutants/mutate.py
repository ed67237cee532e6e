"""Mutants: copies of a module with one mistake in each, made by cosmic-ray's operators and one more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

if TYPE_CHECKING:
    from collections.abc import Iterator

# cosmic-ray replaces each operator by every other one. Its opposite and its neighbour find nearly as much.
REPLACED = {
    "ReplaceComparisonOperator": (
        "Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is In_NotIn NotIn_In Lt_GtE Lt_LtE LtE_Gt LtE_Lt Gt_LtE Gt_GtE GtE_Lt GtE_Gt"
    ).split(),
    "ReplaceBinaryOperator": (
        "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd "
        "LShift_RShift RShift_LShift Pow_Mul"
    ).split(),
    "ReplaceUnaryOperator": "Delete_Not Delete_USub Delete_Invert".split(),
    "VariableReplacer": (),  # these two need arguments
    "VariableInserter": (),
}


class RemoveStatement(Operator):  # type: ignore[misc]
    """Removes a call whose value is not used, or an assignment to an attribute or an element."""

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


def _operators() -> Iterator[Any]:
    yield RemoveStatement()
    for name in operator_names():
        family, _, replaced = name.removeprefix("core/").partition("_")
        if replaced in REPLACED.get(family, (replaced,)):
            yield get_operator(name)()


def _runs(node: Any) -> bool:
    """Whether the code is ever executed: it is no annotation, and not for the type checker alone."""
    inner = None
    while node is not None:
        if node.type == "if_stmt" and node.children[1].get_code().strip() == "TYPE_CHECKING":
            return False
        if node.type in ("parameters", "tfpdef") or (node.type == "funcdef" and inner is node.annotation is not None):
            return False
        if node.type == "param":
            return inner is not None and inner is node.default
        if node.type == "annassign":
            return inner is not None and "=" in node.children and inner is node.children[-1]
        inner, node = node, node.parent
    return True


def mutants(source: str) -> Iterator[tuple[int, str]]:
    """The line number of each mistake, and the text of the module with it; no text comes twice."""
    seen = {source}
    for operator in _operators():
        occurrence = -1
        for node in ast_nodes(get_ast(source)):
            for start, _ in operator.mutation_positions(node):
                occurrence += 1
                if not _runs(node):
                    continue
                try:
                    text = mutate_code(source, operator, occurrence)
                except AttributeError:  # cosmic-ray's ExceptionReplacer fails on dotted names
                    continue
                if text is not None and text not in seen:
                    seen.add(text)
                    yield start[0], text
