"""One linear layer, y = x Wᵀ, in every number format, through the kernels that torch itself has.

A GPU is given work faster than it does it only where there is enough of it, so every product is
timed in three ways: called from Python one after another; replayed as a graph, where the weights
are found in the cache if that holds them; and as a graph over copies of the weights that together
are larger than the cache, as those of a model's other layers would be."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

import pandas as pd
import torch
import torch.nn.functional as F

from minitransformer import bench
from minitransformer.quant import QuantScheme, QuantWeight, matrix_bytes
from minitransformer.quant.rows import int8_rows

from .processes import over_processes, process_medians, process_ratios

GROUP = 32  # weights of int4 that share a scale
INT8, INT4 = QuantScheme(8), QuantScheme(4, "group", GROUP)
FP32 = "fp32"
CALLS, GRAPH, ROTATED = "called from Python", "graph", "graph, weights from memory"
CALLED = 100  # products of a sample, at the least
COPIES = 512  # of the weights, at the most
CACHES = 3  # all copies together are this many times as large as the cache
PRODUCTION = (8, 4)  # bits


@dataclass(frozen=True)
class Layer:
    """A layer in one format: `multiply(x, *held)` is (M, K) -> (M, N), x in the type `takes`;
    `matrix` (N, K) is what the weights stand for."""

    held: tuple[torch.Tensor, ...]
    multiply: Callable[..., torch.Tensor]
    matrix: torch.Tensor
    takes: torch.dtype = torch.bfloat16

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.held)

    def copy(self) -> tuple[torch.Tensor, ...]:
        return tuple(t.clone() for t in self.held)


def fp32(weight, device) -> Layer:
    """FP32 without TF32: what the original report compares with."""
    return Layer((weight.to(device),), F.linear, weight, torch.float32)


def bf16(weight, device) -> Layer:
    half = weight.bfloat16()
    return Layer((half.to(device),), F.linear, half.float())


def int8_weights(weight, device) -> Layer:
    """`_weight_int8pack_mm`: int8 weights, a scale a row; bf16 activations."""
    stored = QuantWeight.from_tensor(weight, INT8)
    codes, scale = int8_rows(stored, multiple=16)
    held = codes.to(device), scale.bfloat16().to(device)
    return Layer(held, torch._weight_int8pack_mm, stored())


def int8_both(weight, device) -> Layer:
    """`_int_mm`: int8 weights times int8 activations, which are rounded token by token first; takes
    and gives FP32."""
    stored = QuantWeight.from_tensor(weight, INT8)
    codes, scale = int8_rows(stored)
    return Layer((codes.to(device).T, scale.to(device)), rounded, stored(), torch.float32)


def rounded(x, codes, scale):
    step = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127  # (M, 1)
    return torch._int_mm((x / step).round().to(torch.int8), codes) * (step * scale)


def int4_weights(weight, device) -> Layer:
    """`_weight_int4pack_mm`: int4 weights in groups; bf16 activations; w = (u - 8)·s + (8 - z)·s,
    and the even one of two codes in a byte is its high half."""
    stored = QuantWeight.from_tensor(weight, INT4)
    codes, (scale, zero) = stored.integers(), (x[:, ::GROUP] for x in stored.grid())
    grid = torch.stack((scale, (8 - zero) * scale), -1).transpose(0, 1)  # (K/GROUP, N, 2)
    packed = (codes[:, ::2] << 4 | codes[:, 1::2]).to(device)
    held = torch._convert_weight_to_int4pack(packed, 8), grid.bfloat16().contiguous().to(device)
    return Layer(held, packed_int4, stored())


def packed_int4(x, codes, grid):
    return torch._weight_int4pack_mm(x, codes, GROUP, grid)


@dataclass(frozen=True)
class Format:
    """A number format: how its layer is made, and its bits a weight; what it is, in words."""

    make: Callable[..., Layer]
    bits: int
    kernel: str
    activations: str


FORMATS = {
    FP32: Format(fp32, 32, "linear, no TF32", "FP32"),
    "bf16": Format(bf16, 16, "linear", "bf16"),
    "int8": Format(int8_weights, 8, "_weight_int8pack_mm", "bf16"),
    "int8, activations too": Format(int8_both, 8, "_int_mm", "int8, rounded on the way"),
    f"int4, groups of {GROUP}": Format(int4_weights, 4, "_weight_int4pack_mm", "bf16"),
}


def stored(widths) -> pd.DataFrame:
    """Bytes of a square matrix by width and format, its scales included."""
    schemes = {8: INT8, 4: INT4}
    rows = [
        {"format": name}
        | {f"{w}": f.bits * w * w // 8 if f.bits > 8 else matrix_bytes(w, w, schemes[f.bits])
           for w in widths}
        for name, f in FORMATS.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def listed() -> pd.DataFrame:
    """The formats: bits a weight, torch's kernel, and what the activations are in it."""
    rows = [(name, f.bits, f.kernel, f.activations) for name, f in FORMATS.items()]
    return pd.DataFrame(rows, columns=["format", "bits", "kernel", "activations"])


def measure(
    widths, tokens, repeats: int, device: str, absent: dict[str, str] | None = None, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Samples of one process, of all formats but those `absent` for a reason: `layers` (width,
    tokens, way, name, repeat, seconds of a product), `formats` (width, tokens, format, nbytes,
    relative_error; or the reason why it has no row) and `memory` (seconds in which a byte is read
    from memory)."""
    place, generator = torch.device(device), torch.Generator().manual_seed(seed)
    samples, formats = [], []
    for width in widths:
        weight = torch.randn(width, width, generator=generator) * width**-0.5
        layers, unmade = made(weight, place, absent or {})
        for m in tokens:
            x, at = torch.randn(m, width, generator=generator), {"width": width, "tokens": m}
            own, told = compared(layers, x, place)
            found, refused = timed(own, x.to(place), repeats)
            formats += [at | row for row in (*unmade, *told, *refused)]
            samples.append(found.assign(**at))
    memory = pd.DataFrame([{"seconds_a_byte": reading(place)}])
    return {"layers": pd.concat(samples), "formats": pd.DataFrame(formats), "memory": memory}


def made(weight, device, absent: dict[str, str]) -> tuple[dict[str, Layer], list[dict]]:
    """The formats that there are on the device, and why the others are not."""
    layers, refused = {}, [{"format": name, "reason": why} for name, why in absent.items()]
    for name, format in FORMATS.items():
        if name in absent:
            continue
        try:
            layers[name] = format.make(weight, device)
        except Exception as error:  # of whatever kind a kernel that is not there raises
            refused.append({"format": name, "reason": reason(error)})
    return layers, refused


def compared(layers, x, device) -> tuple[dict[str, Layer], list[dict]]:
    """The formats that take so many rows, and a row of each: bytes, and how far its product is from
    the exact one of the matrix that its weights stand for (norms); of the others why."""
    able, rows = {}, []
    for name, layer in layers.items():
        try:
            y = layer.multiply(x.to(device, layer.takes), *layer.held).double()
        except Exception as error:
            rows.append({"format": name, "reason": reason(error)})
            continue
        exact = x.double().to(device) @ layer.matrix.double().to(device).T
        far = float((y - exact).norm() / exact.norm())
        able[name] = layer
        rows.append({"format": name, "nbytes": layer.nbytes, "relative_error": far})
    return able, rows


def reason(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def timed(layers: dict[str, Layer], x, repeats: int) -> tuple[pd.DataFrame, list[dict]]:
    """Seconds of a product: way, name, repeat, seconds, the formats of a way in turn; and a row of
    each that a way cannot be had for."""
    samples, refused = [], []
    for way in (CALLS, GRAPH, ROTATED):
        runs, counts = {}, {}
        for name, layer in layers.items():
            try:
                made = way_of(way, layer, x.to(layer.takes))
            except Exception as error:  # what a graph cannot hold
                refused.append({"format": name, "way": way, "reason": reason(error)})
                continue
            if made is not None:
                runs[name], counts[name] = made
        if runs:
            found = bench.interleaved(runs, repeats, warmup=2)
            found["seconds"] /= found.name.map(counts)
            samples.append(found.assign(way=way))
    empty = pd.DataFrame(columns=["name", "repeat", "seconds", "way"])
    return pd.concat(samples or [empty]), refused


def way_of(way: str, layer: Layer, x) -> tuple[Callable, int] | None:
    """A call that is over when the products are, and how many they are; None where there is no such
    way: graphs are a GPU's, and weights too small to leave the cache do not come from memory."""
    many, device = CALLED, x.device
    copies = [layer.held]
    if way != CALLS and device.type != "cuda":
        return None
    if way == ROTATED:
        size = CACHES * torch.cuda.get_device_properties(device).L2_cache_size
        many = -(-size // layer.nbytes)
        if many > COPIES:
            return None
        copies += [layer.copy() for _ in range(many - 1)]
        many = max(many, 32)
    turns = list(islice(cycle(copies), many))

    def products():
        for held in turns:
            layer.multiply(x, *held)

    run = products if way == CALLS else captured(products)
    return partial(finished, run, device), many


def captured(run: Callable) -> Callable:
    """The kernels of a call as one graph, replayed without Python; what it returns is overwritten
    by the next replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()

    def replay(held=run):  # a graph does not hold the tensors that it reads
        graph.replay()
        return found

    return replay


def finished(run: Callable, device) -> None:
    """The call, and the device's work for it."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reading(device: torch.device) -> float:
    """Seconds in which a byte is read from the device's memory, at its best."""
    if device.type != "cuda":
        return bench.read_seconds(2**24, 5) / 2**24
    x = torch.ones(2**28, device=device)  # 1 GiB
    return bench.best_of(lambda: finished(x.sum, device), 5, 10) / (4 * len(x))


KEYS = ["width", "tokens", "format", "way"]


def table(samples: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a width, number of rows, way and format, over processes: microseconds, the time over
    that of FP32 with its interval, bytes, the least microseconds (to read them from memory once),
    and the error; and of each format that has none why."""
    per_byte, formats = samples["memory"].seconds_a_byte.median(), samples["formats"]
    formats = formats[formats.process == 0]
    formats = formats.reindex(columns=[*KEYS, "nbytes", "relative_error", "reason"])
    about = formats[formats.reason.isna()].set_index(KEYS[:3])
    rows = []
    for (width, m, way), part in samples["layers"].groupby(["width", "tokens", "way"], sort=False):
        medians = process_medians(part)
        for name in [name for name in FORMATS if name in medians]:
            over = over_processes(process_ratios(part, name, FP32)) if FP32 in medians else {}
            own = about.loc[(width, m, name)]
            rows.append(
                {"width": width, "tokens": m, "way": way, "format": name,
                 "us": 1e6 * over_processes(medians[name])["estimate"],
                 "time_ratio": over.get("estimate"), "low": over.get("low"),
                 "high": over.get("high"), "processes": len(medians),
                 "nbytes": int(own["nbytes"]), "least_us": 1e6 * per_byte * own["nbytes"],
                 "relative_error": own.relative_error, "reason": ""}
            )  # fmt: skip
    return pd.concat([pd.DataFrame(rows), formats[formats.reason.notna()]], ignore_index=True)


def quickest(table: pd.DataFrame) -> pd.DataFrame:
    """In the widest layer, its weights from memory, for each number of rows the quickest kernel for
    int8 and that for int4: rows of `table`, with their `bits`."""
    own = table[(table.width == table.width.max()) & (table.way == ROTATED)]
    own = own.assign(bits=own.format.map({name: f.bits for name, f in FORMATS.items()}))
    own = own[own.bits.isin(PRODUCTION) & own.time_ratio.notna()]
    return own.loc[own.groupby(["tokens", "bits"]).time_ratio.idxmin()]


def production(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that speak to quantized weights where they have to pay, the `quickest`; none where
    one of them is missing."""
    best = quickest(table)
    return best if len(best) == table.tokens.nunique() * len(PRODUCTION) else best[:0]


def slowest(best: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """Of the rows of `production` the slowest: its time over FP32's, with its interval."""
    row = best.loc[best.time_ratio.idxmax()]
    return row.time_ratio, (row.low, row.high)


def production_in_words(best: pd.DataFrame) -> str:
    """The rows of `production` in a sentence, each with its kernel's format."""
    parts = [
        f"for {m} row{'s' * (m > 1)} "
        + " and ".join(f"{row.time_ratio:.2f} ({row.format})" for row in part.itertuples())
        for m, part in best.groupby("tokens")
    ]
    return f"a layer of width {best.width.max():,} takes {', '.join(parts)} times FP32's time"
