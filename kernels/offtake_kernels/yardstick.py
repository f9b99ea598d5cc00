"""Work of one kind and nothing else: each backend measures with it what its device can do at most.

A yardstick is a graph from lanes to one value each, and how much of the work a lane is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import xor

import numpy as np

from . import philox
from .graph import LANES, Graph, Value
from .ops_graph import GraphOps

# Chains that do not wait for one another, and how long they are.
_CHAINS, _LINKS = 8, 32
STREAMS = 16


@dataclass(frozen=True)
class Yardstick:
    """inputs, over the lanes; result; amount of work a lane."""

    graph: Graph
    inputs: tuple[Value, ...]
    result: Value
    amount: int


def multiply_adds() -> Yardstick:
    """float32 multiply-adds, from any float to a finite one."""
    graph = Graph()
    x = graph.input("float", (LANES,))
    chains = [x * np.float32(1 / (2 + k)) for k in range(_CHAINS)]
    for link in range(_LINKS):
        chains = [y * np.float32(0.5 + 0.01 * k) + np.float32(0.1 * link + k) for k, y in enumerate(chains)]
    return Yardstick(graph, (x,), reduce(lambda a, b: a + b, chains), _CHAINS * _LINKS)


def words() -> Yardstick:
    """Words of Philox, consumed where they are drawn."""
    graph = Graph()
    high, low = graph.input("word", (LANES,)), graph.input("word", (LANES,))
    ops = GraphOps(graph)
    streams = ops.word(np.arange(STREAMS, dtype=np.uint32)[:, None])
    drawn = philox.draw_words(ops, 7, streams, ops.word(np.uint32(3)), high, low)
    folded = reduce(xor, drawn)
    return Yardstick(
        graph, (high, low), reduce(xor, (folded[row] for row in range(STREAMS))), philox.WORDS * STREAMS
    )
