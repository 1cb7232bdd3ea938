"""A report in words and tables: what the terminal, Markdown and the web page show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhe_core.compiler.report.charts import compact

Report = Mapping[str, Any]
Row = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A table under a heading. ``numbers`` are the titles of columns that align to the right."""

    heading: str
    titles: Row
    rows: Sequence[Row]
    numbers: frozenset[str] = field(default=frozenset())
    note: str = ""


def headline(report: Report) -> str:
    """What the report is about, in one line."""
    cost = report["cost"]
    if cost is None:
        return "quantized and not compiled: it has no cost yet"
    return (
        f"compiled: {compact(cost['complexity'])} in {_count(cost['pbs_count'], 'table look-up')}"
    )


def parts(report: Report) -> list[Part]:
    """All tables that have rows, in order."""
    makers = (_whole, _layers, _decisions, _fusion, _savings, _front, _client)
    return [part for part in (make(report) for make in makers) if part.rows]


def _whole(report: Report) -> Part:
    rows = [*_cost(report), *_quality(report), *_origin(report)]
    return Part("The whole model", ("what", "value"), rows)


def _cost(report: Report) -> list[Row]:
    cost, sizes = report["cost"], report["sizes"]
    if cost is None:
        return [
            ("cost", "not known: the model was quantized, and not compiled to a circuit"),
            ("table look-ups", f"{sum(layer['lookups'] for layer in report['layers']):,}"),
        ]
    rows: list[Row] = [
        ("complexity", f"{compact(cost['complexity'])} (Concrete's measure, by which time goes)"),
        ("table look-ups", f"{cost['pbs_count']:,}"),
        ("widest value", _count(cost["max_bit_width"], "bit")),
        ("error, a look-up", f"{cost['p_error']:.2g}"),
        ("error, an inference", f"{cost['global_p_error']:.2g}"),
    ]
    if sizes:
        keys = sizes["bootstrap_keys"] + sizes["key_switch_keys"]
        sent = "in memory; a client sends them once, compressed"
        rows += [
            (
                "evaluation keys",
                f"{_bytes(keys)} {sent}" if keys else "none: there are no look-ups",
            ),
            ("encrypted input", _bytes(sizes["inputs"])),
            ("encrypted output", _bytes(sizes["outputs"])),
        ]
    return rows


def _bytes(count: int) -> str:
    return f"{compact(count)}B" if count >= 1000 else _count(count, "byte")


def _quality(report: Report) -> list[Row]:
    errors, search, overflow = report["errors"], report["search"], report["overflow"]
    rows: list[Row] = []
    if search and search["score"] is not None:
        found = f"{search['score']:.4f}, float {search['float_score']:.4f}"
        rows.append(("score in the search", f"{found}, tolerance {search['tolerance']:g}"))
    if errors["whole"] is not None:
        samples = _count(errors["samples"], "calibration sample")
        rows.append(
            ("error of the outputs", f"{errors['whole']:.1%} of their spread, on {samples}")
        )
    if errors["weights"] is not None:
        rows.append(("  of inputs and weights", f"{errors['weights']:.1%}"))
    guaranteed = overflow["policy"] == "guaranteed"
    if guaranteed:
        rows.append(("headroom", "accumulators hold what any input can make of them"))
    elif overflow["headroom"] is not None:
        rows.append(
            ("headroom", f"{overflow['headroom']:.0%} over the calibrated ranges, at least")
        )
    if not guaranteed:
        share = f"{overflow['share']:.1e}, at most {overflow['risk']:g} were asked for"
        rows.append(("expected share of answers that wrap", share))
    return rows


def _origin(report: Report) -> list[Row]:
    packs = ", ".join(f"{pack['name']} {pack['version']}" for pack in report["packs"])
    rows: list[Row] = [("packs", packs)] if packs else []
    if report["passes"]:
        rows.append(("graph passes", ", ".join(report["passes"])))
    return rows


def _layers(report: Report) -> Part:
    layers = report["layers"]
    rows = [
        (
            layer["name"],
            " + ".join([*layer["ops"], *layer["fused_ops"]]),
            _or_empty(layer["bits_in"]),
            _or_empty(layer["weight_bits"]),
            str(layer["accumulator_bits"]),
            _kept(layer),
            f"{layer['lookups']:,}" if layer["lookups"] else "",
            _share(layer["share"]),
            _share(layer["error"]),
        )
        for layer in layers
    ]
    titles = ("layer", "ops", "in", "weights", "acc.", "kept", "look-ups", "cost", "error")
    return Part(
        f"{_count(len(layers), 'layer')}",
        titles,
        rows,
        frozenset(titles[2:]),
        "A layer ends in the integer that it is named after, an accumulator, and in the look-ups that "
        "read this. In, weights and acc. are bits: of what comes in, of the weights, of the accumulator. "
        "Kept are those that a rounding leaves of it (~ approximately, = exactly). Cost is the share of "
        "the complexity. Error is what the layer adds to the model's outputs on calibration data: how "
        "far they move if this layer alone is rounded and quantized, relative to their spread.",
    )


def _kept(layer: Mapping[str, Any]) -> str:
    if layer["rounded_bits"] is None:
        return ""
    return f"{'=' if layer['exact_rounding'] else '~'}{layer['rounded_bits']}"


def _decisions(report: Report) -> Part:
    rows = [(layer["name"], says) for layer in report["layers"] for says in layer["decisions"]]
    return Part("What was decided, and why", ("layer", "decision"), rows)


def _fusion(report: Report) -> Part:
    rows = [
        (
            row["op"],
            row["node"],
            row["mode"],
            ", ".join(row["lookups"]),
            ", ".join(row["group"]),
            row["pack"] or "",
        )
        for row in report["fusion"]
    ]
    return Part(
        "Fusion",
        ("op", "node", "mode", "look-up of", "computed from", "pack"),
        rows,
        note="Float ops are part of a table look-up, mixed ones compute on encrypted integers, and "
        "client ones run before encryption or after decryption.",
    )


def _savings(report: Report) -> Part:
    rows = [
        (
            saving["name"],
            saving["node"],
            f"{saving['lookups']:,}",
            saving["says"] + ("" if saving["exact"] else " (not for every input)"),
        )
        for saving in report["savings"]
    ]
    return Part(
        "Savings", ("pass", "node", "look-ups", "what it saved"), rows, frozenset({"look-ups"})
    )


def _front(report: Report) -> Part:
    search = report["search"]
    rows = [
        (
            compact(point["complexity"]),
            f"{point['score']:.4f}",
            "yes" if point["within"] else "no",
            point["says"],
        )
        for point in (search["points"] if search else ())
        if point["on_front"]
    ]
    heading = "Pareto front"
    if search:
        heading += f" of {_count(search['candidates'], 'candidate')}"
    return Part(
        heading,
        ("complexity", "score", "within tolerance", "widths"),
        rows,
        frozenset({"complexity", "score"}),
        "For each score, the cheapest circuit of the search that has it. Only candidates that were worth "
        "compiling have a complexity. Within tolerance means on all of the data that the search checks.",
    )


def _client(report: Report) -> Part:
    client = report["client"]
    rows = [
        ("encrypts" if each["encrypted"] else "sends in the clear", _integers(each, each["name"]))
        for each in client["sends"]
    ]
    rows += [("decrypts", _integers(each, "")) for each in client["receives"]]
    rows += [("learns", each) for each in client["learns"]]
    return Part("On the client's side", ("it", "what"), rows)


def _integers(each: Mapping[str, Any], name: str) -> str:
    integers = f"{_count(each['integers'], 'integer')} of {_count(each['bits'], 'bit')}"
    return f"{name}: {integers}" if name else integers


def _or_empty(value: Any) -> str:
    return "" if value is None else str(value)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
