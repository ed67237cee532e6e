"""A graph with one node, which thinks for two seconds."""

import asyncio
from typing import TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict):
    answer: str


async def think(_: State) -> State:
    await asyncio.sleep(2)
    return {"answer": "I think so."}


graph = StateGraph(State).add_node(think).add_edge(START, "think").compile()
