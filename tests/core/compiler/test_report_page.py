"""The page of a report needs nothing else, escapes what comes from the model, and is laid out to be read."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from fhe_core.compiler.report import drawing
from fhe_core.compiler.report.layout import laid_out
from fhe_core.compiler.report.page import page
from hypothesis import given, settings
from hypothesis import strategies as st

import fhe_core
from tests.core.quantization.building import model, normal

from .nets import WEIGHTS, client_sided, samples

WIDTH, LANE = 10.0, 2.0


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return fhe_core.quantize(client_sided(), samples(4), n_bits=3).report


class Reader(HTMLParser):
    """Keeps the tags that a page opens, and complains where one is closed that is not open."""

    VOID = ("meta", "!doctype", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_it_is_whole_and_reads_nothing_from_a_network(report: dict[str, Any]) -> None:
    html = page(report, "net")
    assert "script" not in read(html).seen
    assert not re.search(r"https?://|\bsrc=|@import|url\((?!#)|<link", html)


def test_it_shows_every_op_and_layer(report: dict[str, Any]) -> None:
    text = "\n".join(read(page(report, "net")).text)
    for row in report["fusion"]:
        assert row["node"] in text
    for layer in report["layers"]:
        assert all(sentence in text for sentence in layer["decisions"])


def test_names_of_the_model_are_escaped() -> None:
    name = "<script>alert(1)</script>"
    proto = model("h = Gemm(x, w, b)\n y = Relu(h)", {"x": ("N", 4)}, constants=WEIGHTS)
    proto.graph.node[0].name = name
    html = page(fhe_core.quantize(proto, samples(4), n_bits=3).report, name)
    assert "<script" not in html
    assert name in read(html).text


def test_a_search_is_drawn() -> None:
    point = {"within": True, "on_front": True, "says": "4 bits"}
    search = {
        "candidates": 3,
        "float_score": 0.97,
        "score": 0.96,
        "tolerance": 0.01,
        "points": [
            {**point, "score": 0.9, "complexity": 1e9, "within": False},
            {**point, "score": 0.96, "complexity": 2e9},
            {**point, "score": 0.95, "complexity": 7e11, "on_front": False},
        ],
    }
    plain = fhe_core.quantize(client_sided(), samples(4), n_bits=3).report
    reader = read(page({**plain, "search": search}, "net"))
    assert reader.seen.count("circle") == 3
    assert "0.9600 at 2 G: 4 bits" in reader.text


# -- the op-graph


def test_boxes_are_apart_and_inside_the_picture(report: dict[str, Any]) -> None:
    picture = drawing.drawn(report)
    for box in picture.boxes:
        assert 0 <= box.x <= picture.width - drawing.BOX_WIDTH
        assert 0 <= box.y <= picture.height - drawing.BOX_HEIGHT
    for one, other in itertools.combinations(picture.boxes, 2):
        beside = abs(one.x - other.x) >= drawing.BOX_WIDTH + 2 * drawing.CONTOUR
        assert beside or abs(one.y - other.y) >= drawing.BOX_HEIGHT + 2 * drawing.CONTOUR


def test_what_becomes_a_look_up_has_a_contour(report: dict[str, Any]) -> None:
    titles = [[box.lines[0] for box in c.boxes] for c in drawing.drawn(report).contours]
    assert titles == [["Relu"]]


def test_a_look_up_of_no_op_is_drawn_between_two() -> None:
    """Behind an op that only moves elements, on the way from one to the other."""
    net = model(
        """h = Gemm(x, w, b)
        t = Tanh(h)
        g = Gemm(t, u)
        r = Reshape(g, s)
        a = Add(r, h)
        y = Gemm(a, v)""",
        {"x": ("N", 4)},
        constants={**WEIGHTS, "u": normal(6, 6, seed=5), "s": [-1, 6]},
    )
    picture = drawing.drawn(fhe_core.quantize(net, samples(4), n_bits=3).report)
    lines = [box.lines[0] for box in sorted(picture.boxes, key=lambda box: box.y)]
    assert lines == ["x", "Gemm", "Tanh", "Gemm", "Reshape", "quantize", "Add", "Gemm", "y"]


def test_a_node_may_be_called_like_an_output() -> None:
    proto = model("h = Gemm(x, w, b)\n y = Relu(h)", {"x": ("N", 4)}, constants=WEIGHTS)
    proto.graph.node[0].name, proto.graph.node[1].name = "x", "y"
    picture = drawing.drawn(fhe_core.quantize(proto, samples(4), n_bits=3).report)
    assert [box.kind for box in picture.boxes].count("input") == 1
    assert len(picture.boxes) == 4


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    names = [f"n{i}" for i in range(draw(st.integers(1, 25)))]
    pairs = list(itertools.combinations(names, 2))
    edges = draw(st.lists(st.sampled_from(pairs), max_size=40)) if pairs else []
    return names, edges


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_edges_lead_down_and_nodes_of_a_rank_are_apart(
    graph: tuple[list[str], list[tuple[str, str]]],
) -> None:
    names, edges = graph
    layout = laid_out(names, edges, WIDTH, LANE)
    for start, end in edges:
        assert layout.rank[start] < layout.rank[end]
        path = layout.paths[start, end]
        assert len(path) == layout.rank[end] - layout.rank[start] + 1
        assert (path[0], path[-1]) == (layout.x[start], layout.x[end])
    for rank in set(layout.rank.values()):
        here = sorted(layout.x[name] for name in names if layout.rank[name] == rank)
        assert here[0] >= WIDTH / 2 - 1e-9
        assert all(b - a >= WIDTH - 1e-6 for a, b in itertools.pairwise(here))


def test_a_chain_is_drawn_straight() -> None:
    names = [f"n{i}" for i in range(30)]
    layout = laid_out(names, list(itertools.pairwise(names)), WIDTH, LANE)
    assert set(layout.x.values()) == {WIDTH / 2}
