"""Mixed precision: sensitivities are what they say, the search keeps to its bytes and to what
measuring told, files hold."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import (
    QuantScheme,
    computed_bytes,
    load_scheme,
    matrices,
    matrix_bytes,
    quantize,
    resident_bytes,
    save_scheme,
    search,
    sensitivity,
)  # fmt: skip

CFG = ModelConfig(vocab_size=30, d_model=16, n_heads=2, context=8)
FORMATS = [QuantScheme(bits=b, granularity="group", group_size=16) for b in (2, 3, 4, 8)]


def model(cfg=CFG):
    torch.manual_seed(0)
    return Transformer(cfg).eval()


def distance(m):
    """A loss that is zero for the FP32 model and adds up over its layers: squared error of the
    matrices."""
    reference, total = model(m.cfg), 0.0
    for name in matrices(m.cfg):
        weight = m.get_submodule(name).weight
        weight = weight if isinstance(weight, torch.Tensor) else weight()
        total += (weight - reference.get_submodule(name).weight).square().sum().item()
    return total


@pytest.mark.parametrize(
    "cfg", [CFG, replace(CFG, tied=True, ffn="swiglu", n_layers=2)], ids=["default", "tied"]
)
def test_sensitivity_is_the_loss_of_each_matrix_alone(cfg):
    rows = sensitivity(model(cfg), [None, *FORMATS], distance)
    assert [(row["layer"], row["scheme"]) for row in rows] == list(
        itertools.product(matrices(cfg), [None, *FORMATS])
    )
    for row in rows:
        shape = matrices(cfg)[row["layer"]]
        assert row["bytes"] == matrix_bytes(*shape, row["scheme"])
        alone = dict.fromkeys(matrices(cfg)) | {row["layer"]: row["scheme"]}
        assert row["nats"] == (distance(quantize(model(cfg), alone)) if row["scheme"] else 0)
    assert all(row["nats"] > 0 for row in rows if row["scheme"])


def test_the_search_ends_where_it_says():
    net = model()
    rows = sensitivity(net, [None, *FORMATS], distance)
    low, high = (computed_bytes(CFG, scheme) for scheme in (FORMATS[0], None))
    losses = []
    for limit in range(low, high + 100, (high - low) // 7):
        found = search(CFG, rows, limit)
        small = quantize(net, found.scheme)
        assert found.nbytes == computed_bytes(CFG, found.scheme) == resident_bytes(small) <= limit
        losses.append(distance(small))
        assert found.predicted_nats == pytest.approx(losses[-1], rel=1e-4)  # this loss does add up
    assert losses == sorted(losses, reverse=True) and losses[0] > 100 * max(losses[-1], 1e-9)
    assert search(CFG, rows, high).scheme == dict.fromkeys(matrices(CFG))
    assert set(search(CFG, rows, low).scheme.values()) == {FORMATS[0]}


def test_the_mixture_is_better_than_one_format_of_the_same_bytes():
    rows = sensitivity(model(), FORMATS, distance)
    found = search(CFG, rows, computed_bytes(CFG, FORMATS[1]))
    mixed, alike = (quantize(model(), scheme) for scheme in (found.scheme, FORMATS[1]))
    assert distance(mixed) < distance(alike)


def test_the_search_never_ends_worse_than_one_format_that_fits():
    nats = dict.fromkeys(matrices(CFG), (9, 0, 0, 0))
    nats |= {"blocks.0.attention.q": (9, 0.3, 0, 0), "blocks.0.ffn.up": (1, 0.1, 0.1, 0.1)}
    rows = [
        dict(layer=layer, scheme=scheme, bytes=matrix_bytes(*shape, scheme), nats=nats[layer][i])
        for layer, shape in matrices(CFG).items()
        for i, scheme in enumerate(FORMATS)
    ]
    found = search(CFG, rows, computed_bytes(CFG, FORMATS[1]))
    assert found.predicted_nats == pytest.approx(
        0.4
    )  # greed alone gives q its fourth bit, and up is left with two: 1.0


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_with_returns_that_diminish_no_choice_of_as_many_bytes_has_less_loss(seed, share):
    cfg = replace(CFG, tied=True, vocab_size=7)
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for layer, shape in matrices(cfg).items():
        sizes = [matrix_bytes(*shape, scheme) for scheme in FORMATS[:3]]
        slopes = (
            torch.rand(2, generator=draw).sort(descending=True).values.tolist()
        )  # convex: what is spent first helps most
        nats = [0.0, -slopes[0] * (sizes[1] - sizes[0])]
        nats.append(nats[1] - slopes[1] * (sizes[2] - sizes[1]))
        rows += [
            dict(layer=layer, scheme=s, bytes=b, nats=x)
            for s, b, x in zip(FORMATS, sizes, nats, strict=False)
        ]
    low, high = (computed_bytes(cfg, scheme) for scheme in (FORMATS[0], FORMATS[2]))
    limit = low + int(share * (high - low))
    found = search(cfg, rows, limit)
    fixed = found.nbytes - sum(
        matrix_bytes(*shape, found.scheme[layer]) for layer, shape in matrices(cfg).items()
    )
    options = [[row for row in rows if row["layer"] == layer] for layer in matrices(cfg)]
    best = min(
        sum(row["nats"] for row in combination)
        for combination in itertools.product(*options)
        if fixed + sum(row["bytes"] for row in combination) <= limit
    )
    largest = max(
        a["nats"] - b["nats"] for a, b in itertools.pairwise(rows) if a["layer"] == b["layer"]
    )
    assert (
        best - 1e-9 <= found.predicted_nats <= best + largest
    )  # what the last matrix that did not fit may cost
    if share in (0, 1):
        assert found.predicted_nats == pytest.approx(best)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, rows: sensitivity(m, [], distance), "no formats to compare"),
        (
            lambda m, rows: sensitivity(m, FORMATS, lambda m: math.nan),
            "embedding as int2 group 16 symmetric: .* not finite",
        ),
        (
            lambda m, rows: search(CFG, rows, 100),
            r"100 bytes are \d+ fewer than the smallest formats take",
        ),
        (
            lambda m, rows: search(CFG, rows[1:], 9999),
            "no row tells of embedding: give the rows that sensitivity made",
        ),
    ],
)
def test_errors(call, message):
    rows = [
        dict(layer=layer, scheme=None, bytes=matrix_bytes(*shape, None), nats=0.0)
        for layer, shape in matrices(CFG).items()
    ]
    with pytest.raises(ValueError, match=message):
        call(model(), rows)


def test_a_scheme_file_comes_back(tmp_path):
    scheme = dict.fromkeys(matrices(CFG)) | {
        "embedding": FORMATS[0],
        "head": QuantScheme(activation_bits=8, symmetric=False),
    }
    assert save_scheme(tmp_path / "mixed.json", scheme) == tmp_path / "mixed.json"
    assert load_scheme(tmp_path / "mixed.json", CFG) == scheme and [
        p.name for p in tmp_path.iterdir()
    ] == ["mixed.json"]


def test_a_scheme_file_for_another_model_names_the_first_layer_that_does_not_fit(tmp_path):
    path = save_scheme(tmp_path / "mixed.json", dict.fromkeys(matrices(CFG), FORMATS[2]))
    with pytest.raises(
        ValueError,
        match="mixed.json is for another model: it says nothing of 'blocks.1.attention.q'",
    ):
        load_scheme(path, replace(CFG, n_layers=2))
    with pytest.raises(
        ValueError,
        match="mixed.json is for another model: it names 'head', and this one has embedding,",
    ):
        load_scheme(path, replace(CFG, tied=True))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff\xfe", "is not a scheme file .UnicodeDecodeError"),
        (b"[1]", "is not a scheme file .TypeError"),
        (b"{", "is not a scheme file .JSONDecodeError"),
        (b'{"bits": 4}', "is not a scheme file .KeyError"),
        (
            b'{"layers": {"head": {"group": 32}}}',
            "head: a scheme has no field 'group' .did you mean 'group_size'",
        ),
        (
            b'{"layers": {"head": {"zzz": 32}}}',
            "head: a scheme has no field 'zzz': choose from bits, granularity",
        ),
        (b'{"layers": {"head": {"bits": 9}}}', "head: bits 9 is not supported: give 2 to 8"),
        (b'{"layers": {"head": 4}}', "head: 4 is no scheme: give an object"),
        (b'{"layers": [1]}', "is no scheme"),
    ],
)
def test_a_broken_scheme_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "mixed.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mixed.json.*{message}"):
        load_scheme(path, CFG)


def test_a_scheme_file_is_plain(tmp_path):
    save_scheme(tmp_path / "mixed.json", {"head": None, "embedding": QuantScheme(bits=3)})
    data = json.loads((tmp_path / "mixed.json").read_text())
    assert (
        data["format"] == 1
        and data["layers"]["head"] is None
        and data["layers"]["embedding"]["bits"] == 3
    )
