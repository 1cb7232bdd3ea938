"""``QuantizedModule``: a model on integers, in the clear, simulated, or encrypted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from fhe_core.arguments import one_of, seed_of
from fhe_core.errors import CompilationError, InputError, WrapAroundWarning
from fhe_core.graph.inputs import gather, prepare
from fhe_core.graph.ir import ValueInfo
from fhe_core.memory import within_memory
from fhe_core.program.host import HostProgram
from fhe_core.program.interpreter import Interpreter, Noise
from fhe_core.program.program import Program
from fhe_core.program.wrapping import Wraps
from fhe_core.progress import Progress, progress_of
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.plan_schema import check_p_error

if TYPE_CHECKING:
    from fhe_core.quantization.evidence import Evidence

Array = NDArray[Any]


@dataclass(frozen=True)
class Cost:
    """What one encrypted inference costs.

    Attributes:
        complexity: Concrete's optimizer's measure; proportional to time.
        pbs_count: table look-ups (programmable bootstraps).
        max_bit_width: of the widest integer that a look-up reads or a linear op computes.
        p_error: probability that one look-up is wrong.
        global_p_error: probability that any look-up of one inference is.
        overflow_share: the share of answers in which an accumulator is expected to wrap, on data like the
            calibration data.
    """

    complexity: float
    pbs_count: int
    max_bit_width: int
    p_error: float
    global_p_error: float
    overflow_share: float = 0.0


@dataclass(frozen=True)
class Spending:
    """Where a circuit's cost lies.

    Attributes:
        complexity: by the number of a node in its program; they add up to the circuit's.
        lookups: programmable bootstraps, likewise.
        sizes: bytes of the evaluation keys (``bootstrap_keys``, ``key_switch_keys``, not compressed), and of
            the encrypted ``inputs`` and ``outputs`` of one inference.
    """

    complexity: Mapping[int, float]
    lookups: Mapping[int, int]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """What a search for widths ended with, on the calibration data.

    Attributes:
        float_score: the float model's; the mean over the outputs.
        score: of what was found, as measured: the mean of simulations.
        tolerance: how much may be lost, of the output that is nearest to it.
        expected_loss: of that output, on data that nobody saw: less than what is measured where the model knows
            the calibration data by heart.
        outputs: of each output the float model's score, and that of what was found.
    """

    float_score: float
    score: float
    tolerance: float
    expected_loss: float = 0.0
    outputs: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Circuit(Protocol):
    """What a compiler hands to a ``QuantizedModule``: the same program, encrypted."""

    def execute(self, inputs: Mapping[str, Array], progress: Progress) -> list[Array]:
        """Encrypt, run and decrypt each sample; integers in, integers out, as ``Interpreter``."""

    @property
    def cost(self) -> Cost: ...

    @property
    def spending(self) -> Spending | None:
        """Where the cost lies, if that is known."""
        ...

    @property
    def specs(self) -> bytes:
        """What a client needs to make keys, encrypt and decrypt."""
        ...

    def archive(self) -> bytes:
        """What a server needs to run it."""
        ...


@dataclass(frozen=True)
class FusionRow:
    """One line of the fusion table.

    Attributes:
        mode: ``float`` (part of a look-up), ``mixed`` (works on integers), ``client`` (before encryption
            or after decryption).
        group: the integer tensors that its inputs are computed from.
        lookups: the accumulators whose look-ups it is part of; empty where it takes none of its own.
    """

    node: str
    op: str
    pack: str | None
    mode: str
    group: tuple[str, ...]
    lookups: tuple[str, ...] = ()


class QuantizedModule:
    """A quantized model. Made by ``quantize``, ``compile`` and ``load``.

    Attributes:
        input_infos: the model's inputs as declared.
        output_names: the model's outputs.
        encoder: from the model's inputs to the program's integers; runs on the client.
        program: the integers in between.
        whole: the same before savings left something out: what tuning works on. Not kept when it is saved.
        decoder: from decrypted integers to the model's outputs; runs on the client.
        plan: every parameter.
        fusion: what became of each op.
        input_ranges: calibrated (low, high) of each input; beyond them inputs saturate.
        exact: by input, which elements of a sample the client reads exactly: no range confines them.
        missing: the inputs that may hold NaN, because their calibration data did: the model replaces it.
        packs: name and version of the packs that supplied ops or passes.
        passes: the graph passes that changed the model, each "pack.name", in the order in which they ran.
        savings: what passes over the integer program saved.
        notices: what the user should know of this model, a sentence each.
        evidence: what its report measures errors with; None once it was saved and loaded.
        circuit: the compiled program; None for a model that was only quantized.
        search: the candidates that a search for widths looked at, in order.
        outcome: what that search ended with.
    """

    def __init__(
        self,
        *,
        input_infos: Sequence[ValueInfo],
        output_names: Sequence[str],
        encoder: HostProgram,
        encoder_names: Sequence[str],
        program: Program,
        whole: Program | None = None,
        decoder: HostProgram,
        plan: Plan,
        fusion: Sequence[FusionRow],
        input_ranges: Mapping[str, tuple[float, float]],
        exact: Mapping[str, Array] | None = None,
        missing: Iterable[str] = (),
        packs: Mapping[str, str],
        passes: Sequence[str] = (),
        savings: Sequence[Any] = (),
        notices: Sequence[str] = (),
        evidence: Evidence | None = None,
    ) -> None:
        self.input_infos = tuple(input_infos)
        self.output_names = tuple(output_names)
        self.encoder = encoder
        self.encoder_names = tuple(encoder_names)
        self.program = program
        self.whole = program if whole is None else whole
        self.decoder = decoder
        self.plan = plan
        self.fusion = tuple(fusion)
        self.input_ranges = dict(input_ranges)
        self.exact = dict(exact or {})
        self.missing = frozenset(missing)
        self.packs = dict(packs)
        self.passes = tuple(passes)
        self.savings = tuple(savings)
        self.notices = tuple(notices)
        self.evidence = evidence
        self.circuit: Circuit | None = None
        self.search: tuple[Any, ...] = ()
        self.outcome: Outcome | None = None
        self._report: dict[str, Any] | None = None
        self._interpreter: Callable[..., list[Array]] = Interpreter(program)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.input_infos)

    @property
    def p_error(self) -> float:
        """The probability that one look-up is wrong.

        Raises:
            PlanError: the plan was changed to what is none.
        """
        return check_p_error(self.plan.setting("p_error"))

    @property
    def cost(self) -> Cost:
        """What one encrypted inference costs.

        Raises:
            CompilationError: the model was quantized and not compiled.
        """
        return replace(self._compiled().cost, overflow_share=self.plan.overflow_share)

    def _compiled(self) -> Circuit:
        if self.circuit is None:
            raise CompilationError(
                "this model was quantized, and not compiled to a circuit",
                fix="use fhe_core.compile, or fhe='simulate'",
            )
        return self.circuit

    # -- inference

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """``forward`` in the clear."""
        return self.forward(*arrays, fhe="disable", **named)

    @within_memory
    def forward(
        self,
        *arrays: Any,
        fhe: str = "disable",
        seed: int = 0,
        out_of_range: str = "saturate",
        progress: bool | Progress | None = None,
        **named: Any,
    ) -> Any:
        """Run the model on a batch.

        Args:
            arrays: inputs by position, (samples, ...) each; or by name.
            fhe: ``disable``: the circuit's integers, in the clear. ``simulate``: with the noise of its
                approximate roundings. ``execute``: with real keys and ciphertexts, a sample at a time.
            seed: of the simulated noise.
            out_of_range: ``saturate`` inputs beyond the calibrated range, with a warning; or ``raise``. What
                the client only compares or looks up, such as categories, has none.

        Returns:
            One array, or a tuple where the model has several outputs.

        Raises:
            InputError: a wrong name, shape or dtype, NaN or infinity, or values out of range.
            CompilationError: ``execute`` without a circuit.
        """
        one_of(fhe, "fhe", ("disable", "simulate", "execute"), InputError)
        seed = seed_of(seed, InputError)
        circuit = self._compiled() if fhe == "execute" else None
        integers = self.encode(*arrays, out_of_range=out_of_range, **named)
        if circuit is not None:
            outputs = circuit.execute(integers, progress_of(progress))
        else:
            noise = Noise(self.p_error, seed) if fhe == "simulate" else None
            wraps = Wraps()
            outputs = self._interpreter(integers, noise, wraps)
            if wraps.wrong:
                warnings.warn(
                    f"{wraps}: calibrate on more data like these, or use overflow='guaranteed'",
                    WrapAroundWarning,
                    stacklevel=2,
                )
        return self.decode(outputs)

    def encode(
        self, *arrays: Any, out_of_range: str = "saturate", **named: Any
    ) -> dict[str, Array]:
        """The integers that the client encrypts, by the name of the program's input."""
        return encode(
            self.input_infos,
            self.input_ranges,
            self.encoder,
            self.encoder_names,
            gather(self.input_infos, arrays, named),
            exact=self.exact,
            missing=self.missing,
            out_of_range=out_of_range,
        )

    def decode(self, outputs: Sequence[Array]) -> Any:
        """The model's outputs from decrypted integers."""
        return decode(self.decoder, outputs)

    # -- keeping

    @property
    def report(self) -> dict[str, Any]:
        """What each layer does, costs and adds in error, and why: ``fhe-ops report`` prints it.

        Plain data, as docs/json.md describes it. Made when it is asked for; of a loaded module, as saved.
        """
        if self._report is not None:
            return self._report
        from fhe_core.compiler.report.collecting import collected

        return collected(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole module to a folder: circuit, client, server, program and plan.

        Raises:
            ArtifactError: the folder exists and holds something else, or cannot be written.
        """
        from fhe_core.compiler.artifact import save

        save(self, path)

    def __repr__(self) -> str:
        state = "compiled" if self.circuit else "quantized"
        return (
            f"<QuantizedModule {state}: ({', '.join(self.input_names)}) -> "
            f"({', '.join(self.output_names)}), {len(self.program.lookups)} look-up tensors>"
        )


def encode(
    infos: Sequence[ValueInfo],
    ranges: Mapping[str, tuple[float, float]],
    encoder: HostProgram,
    names: Sequence[str],
    feeds: Mapping[str, Any],
    *,
    exact: Mapping[str, Array] = MappingProxyType({}),
    missing: Container[str] = (),
    out_of_range: str,
) -> dict[str, Array]:
    """Checked inputs as integers. Shared by the module and by a client that has nothing else.

    Args:
        exact: by input, the elements of a sample that no range confines.
        missing: the inputs that may hold NaN, as long as none of it would be encrypted.

    Raises:
        InputError: a wrong name, shape or dtype, NaN or infinity, values out of range, or a word for
            ``out_of_range`` that there is not.
    """
    one_of(out_of_range, "out_of_range", ("saturate", "raise"), InputError)
    symbolic = [
        ValueInfo(info.name, info.dtype, (None, *(info.shape or (None,))[1:])) for info in infos
    ]
    arrays = dict(zip([info.name for info in infos], prepare(symbolic, feeds), strict=True))
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1 or not all(sizes.values()):
        raise InputError(
            "the inputs hold no samples, or different numbers of them",
            expected="one batch size, at least 1",
            got=", ".join(f"{name}: {size}" for name, size in sizes.items()),
            fix="give as many samples for each input",
        )
    for name, array in arrays.items():
        if name not in missing and np.isnan(array).any():
            raise _not_finite(name, array)
        arrays[name] = _saturated(name, array, ranges.get(name), exact.get(name), out_of_range)

    def refuse_nan() -> NoReturn:
        for name, array in arrays.items():
            if np.isnan(array).any():
                raise _not_finite(name, array)
        raise InputError(
            f"the model makes NaN of the input {', '.join(map(repr, arrays))}",
            expected="values for which its first functions, which run before encryption, are defined",
            got="such as an index beyond its table, or the logarithm of a negative number",
            fix="correct or drop those samples",
        )

    results = encoder(arrays, next(iter(sizes.values())), refuse_nan=refuse_nan)
    return dict(zip(names, results, strict=True))


def _not_finite(name: str, array: Array) -> InputError:
    return InputError(
        f"the input {name!r} holds NaN or infinity",
        expected="finite numbers",
        got=f"{int((~np.isfinite(array)).sum())} such values",
        fix="impute or drop those samples",
    )


def _saturated(
    name: str,
    array: Array,
    limits: tuple[float, float] | None,
    exact: Array | None,
    out_of_range: str,
) -> Array:
    """``array`` clipped to the calibrated range: functions before the encryption may end where it does.

    Args:
        exact: the elements of a sample that are not.
    """
    if not np.isfinite(array[~np.isnan(array)]).all():
        raise _not_finite(name, array)
    if limits is None:
        return array
    with np.errstate(invalid="ignore"):
        beyond = (array < limits[0]) | (array > limits[1])
    if exact is not None:
        beyond &= ~exact
    if not beyond.any():
        return array
    outside = float(np.mean(beyond))
    share = f"{outside:.2%}" if outside >= 1e-4 else f"{outside:.1e} of all values"
    if out_of_range == "raise":
        raise InputError(
            f"{share} of the input {name!r} lie beyond its calibrated range",
            expected=f"values from {limits[0]:g} to {limits[1]:g}",
            got=f"values from {array[beyond].min():g} to {array[beyond].max():g}",
            fix="calibrate with data like this, or use out_of_range='saturate'",
        )
    warnings.warn(
        f"{share} of the input {name!r} lie beyond its calibrated range "
        f"[{limits[0]:g}, {limits[1]:g}] and saturate",
        UserWarning,
        stacklevel=4,
    )
    return np.where(beyond, np.clip(array, *limits), array).astype(array.dtype)


def decode(decoder: HostProgram, outputs: Sequence[Array]) -> Any:
    """The model's outputs from decrypted integers, in the program's order."""
    names = [f"output{i}" for i in range(len(outputs))]
    results = decoder(dict(zip(names, outputs, strict=True)), len(outputs[0]))
    return results[0] if len(results) == 1 else tuple(results)
