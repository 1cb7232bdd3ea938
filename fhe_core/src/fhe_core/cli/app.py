"""``fhe-ops``: its commands, their arguments, and their help.

Each command imports what it needs when it runs, so that listing operators costs little.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import click

import fhe_core
from fhe_core.cli.boundary import DONE, MISUSE, NO, Program, packs_aside
from fhe_core.cli.render import FORMATS

_FORMAT = click.option(
    "--format", "fmt", type=click.Choice(FORMATS), default="table", help="Default: table."
)
_DOMAIN = click.option(
    "--domain", metavar="NAME", help="ONNX operator domain; ai.onnx is the default one."
)
_PATH = click.Path(path_type=Path)


class BitsType(click.ParamType):
    """A number of bits, or ``auto``; whether the number is possible is not decided here."""

    name = "auto|N"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value == "auto" or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither 'auto' nor a whole number", param, ctx)


class ProbabilityType(click.ParamType):
    """A probability, also as a power of two: ``1e-9``, ``2^-40``, ``2**-40``."""

    name = "P"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        power = re.fullmatch(r"2(?:\^|\*\*)(-\d{1,4})", str(value).strip())
        try:
            number = 2.0 ** int(power[1]) if power else float(value)
        except ValueError:
            number = -1.0
        if not 0 < number < 1:
            self.fail(f"{value!r} is no probability, such as 1e-9 or 2^-40", param, ctx)
        return number


@click.group(
    "fhe-ops",
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 done; 1 the answer is no (unsupported operator, not within tolerance, "
    "pack not loaded); 2 wrong use or unusable files; 70 a defect; 130 interrupted.",
)
@click.version_option(fhe_core.__version__, prog_name="fhe-ops", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Run ONNX models on encrypted data."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(MISUSE)


@main.command("list")
@_DOMAIN
@click.option("--pack", metavar="NAME", help="Only what this pack supplies.")
@click.option(
    "--opset",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only what serves this opset of its domain.",
)
@click.option(
    "--shadowed", is_flag=True, help="Also what another pack hides, and what waits to be chosen."
)
@_FORMAT
@click.pass_context
def list_ops(
    context: click.Context,
    domain: str | None,
    pack: str | None,
    opset: int | None,
    shadowed: bool,
    fmt: str,
) -> None:
    """List the operators that the installed packs supply.

    An operator has a row for each range of opsets that is served differently. What is float only
    runs in the clear and not encrypted. Fusion tells whether the quantized form becomes part of a
    table look-up: always, never, or conditional on its place in the graph.

    With --shadowed, a last column tells what serves (active) from what another pack's hides
    (shadowed) and what serves only where it is chosen (alternative).

    JSON is a list of objects; docs/json.md has their keys.
    """
    from fhe_core.cli import listing, render

    with packs_aside():
        registry = fhe_core.get_registry()
    specs = listing.select(registry, domain, pack, opset, shadowed=shadowed)
    if specs or fmt == "json":
        sections = listing.ops_sections(specs, shadowed=shadowed)
        total = f"{listing.totals(specs)}.\n\n" if len(sections) > 1 else ""
        render.show_sections(
            sections,
            listing.op_records(specs),
            fmt,
            title="Operators",
            lead=total + listing.LEGEND,
        )
    if not specs:
        hidden = listing.select(registry, domain, pack, opset, shadowed=True)
        hint = " With --shadowed, some do." if hidden else ""
        click.echo(f"No operator matches.{hint}", err=True)
        context.exit(NO)


@main.command()
@click.option("--verbose", is_flag=True, help="Also the traceback of each pack that failed.")
@_FORMAT
@click.pass_context
def packs(context: click.Context, verbose: bool, fmt: str) -> None:
    """List the installed operator packs, their hooks, and why one is not loaded.

    Below the table: for each pack that failed the file and line, and which packs override whose operators.
    The exit code is 1 if a pack failed. JSON is a list of objects; docs/json.md has their keys.
    """
    from fhe_core.cli import listing, render
    from fhe_core.registry.current import survey_registry

    # Not get_registry: its warnings repeat the table, and FHE_PACKS_STRICT would leave nothing.
    with packs_aside():
        registry = survey_registry()
    if registry.packs() or fmt == "json":
        render.show(listing.packs_table(registry), listing.pack_records(registry), fmt)
    if fmt != "json":
        render.notes(listing.pack_notes(registry), fmt)
    if not registry.packs():
        click.echo(f"No operator pack is installed: {listing.INSTALL}.", err=True)
    failures = registry.failures()
    for pack in failures if verbose else ():
        if pack.error is not None:
            trace = "".join(traceback.format_exception(pack.error))
            click.echo(f"\n{pack.info.name}:\n{trace.rstrip()}", err=True)
    context.exit(NO if failures else DONE)


@main.command()
@click.argument("op")
@_DOMAIN
@click.option("--opset", type=click.IntRange(min=1), metavar="N", help="Only what serves this one.")
@_FORMAT
def explain(op: str, domain: str | None, opset: int | None, fmt: str) -> None:
    """Explain the operator OP: signature, versions, suppliers, fusion.

    JSON is a list of objects, one a domain; docs/json.md has their keys.
    """
    from fhe_core.cli.explanation import explanations
    from fhe_core.cli.paragraphs import print_explanations

    with packs_aside():
        registry = fhe_core.get_registry()
    print_explanations(explanations(registry, op, domain, opset), fmt)


@main.command()
@click.argument("model", type=_PATH)
@_FORMAT
@click.pass_context
def check(context: click.Context, model: Path, fmt: str) -> None:
    """Check whether MODEL compiles, and list all that is in the way.

    The exit code is 0 if it compiles and 1 if not. JSON is an object; docs/json.md has its keys.
    """
    from fhe_core.cli.support import print_report

    with packs_aside():
        report = fhe_core.check(model)
    print_report(report, fmt)
    context.exit(DONE if report.ok else NO)


@main.command("new-pack")
@click.argument("name")
@click.option(
    "--output", type=_PATH, metavar="DIR", help="The folder to make. Default: NAME, in this one."
)
def new_pack(name: str, output: Path | None) -> None:
    """Write a new operator pack NAME to start from.

    It is a distribution with three example operators, tests, and all else that a release takes.
    NAME is a Python identifier: of the pack, its module and its operator domain. The distribution
    has dashes for underscores.
    """
    from fhe_core.cli import new_pack

    new_pack.new_pack(name, output)


@main.command("compile")
@click.argument("model", type=_PATH)
@click.option(
    "--calibration",
    required=True,
    metavar="FILE",
    help="Typical inputs: .npy, or .npz with an array for each input. FILE.npz:NAME is one array.",
)
@click.option(
    "-o", "--output", required=True, type=_PATH, metavar="DIR", help="A new or empty folder."
)
@click.option(
    "--labels",
    metavar="FILE",
    help="What the model should answer: the search then keeps accuracy or R², not agreement with "
    "the float model.",
)
@click.option(
    "--n-bits",
    type=BitsType(),
    metavar="auto|N",
    help="Bits of the integers. Default: auto, by search.",
)
@click.option("--rounding", type=int, metavar="BITS", help="Bits kept before a table look-up.")
@click.option("--tolerance", type=float, metavar="T", help="The loss of score that is accepted.")
@click.option(
    "--p-error",
    type=ProbabilityType(),
    help="How likely one look-up may go wrong, such as 1e-9 or 2^-40. Default: 2^-40.",
)
@click.option(
    "--client-side",
    type=click.Choice(("any", "minimal")),
    help="What runs on the client tells it of the model. Default: any.",
)
@click.option(
    "--overflow",
    type=click.Choice(("calibrated", "guaranteed")),
    help="Headroom over the calibration data, or bounds for every input. Default: calibrated.",
)
@click.option(
    "--overflow-risk",
    type=ProbabilityType(),
    help="The share of answers that may wrap around on data like the calibration data. Default: 1e-4.",
)
@click.option(
    "--savings",
    type=click.Choice(("all", "exact", "none")),
    help="What may be left out of the model: whatever the score allows, what no input needs, nothing. "
    "Default: exact.",
)
@click.option("--plan", type=_PATH, metavar="FILE", help="A plan as JSON, in place of a search.")
@click.option("--seed", type=int, metavar="N", help="Of the search and the simulated noise.")
@click.option(
    "--pareto",
    type=_PATH,
    metavar="FILE",
    help="Draw score over complexity of all that the search looked at: .svg, or .png by matplotlib.",
)
@click.option("--force", is_flag=True, help="Replace the model that is saved in the output folder.")
def compile_(
    model: Path,
    calibration: str,
    output: Path,
    labels: str | None,
    plan: Path | None,
    pareto: Path | None,
    force: bool,
    **settings: Any,
) -> None:
    """Compile MODEL to an encrypted circuit, and save it.

    The folder holds what client and server need: neither the packs nor the ONNX file. It also holds
    what `fhe-ops report` tells of each layer.
    """
    from fhe_core.cli.work import compile_model

    compile_model(
        model,
        calibration,
        output,
        labels=labels,
        plan=plan,
        pareto=pareto,
        force=force,
        settings=settings,
    )


@main.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option(
    "--input",
    "given",
    required=True,
    metavar="FILE",
    help=".npy, or .npz with an array for each input. FILE.npz:NAME is one array.",
)
@click.option(
    "--output",
    required=True,
    type=_PATH,
    metavar="FILE",
    help="An .npz file, with an array for each of the model's outputs.",
)
@click.option(
    "--fhe",
    type=click.Choice(("execute", "simulate", "disable")),
    default="execute",
    help="Encrypted; in the clear with the noise of encryption; in the clear. Default: execute.",
)
@click.option("--seed", type=int, metavar="N", help="Of the simulated noise.")
def run(folder: Path, given: str, output: Path, fhe: str, seed: int | None) -> None:
    """Run the compiled model in DIR on a batch of inputs."""
    from fhe_core.cli.work import run_model

    run_model(folder, given, output, fhe=fhe, settings={} if seed is None else {"seed": seed})


@main.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option(
    "--html", "page", type=_PATH, metavar="FILE", help="Write it as a web page, with the op-graph."
)
@_FORMAT
def report(folder: Path, page: Path | None, fmt: str) -> None:
    """Report what each layer of the compiled model in DIR costs, and why.

    For each: operators, bits, table look-ups, share of the cost, the error that it adds, and what was
    decided. Then which operators became one look-up, what the search found, and what the client
    learns. The web page needs no network.

    JSON is an object; docs/json.md has its keys.
    """
    from fhe_core.cli.report import print_report

    print_report(folder, fmt, page)
