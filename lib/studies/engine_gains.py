"""What several rows in one forward are worth in the engine: do a batch, beams, a draft and a server
gain what the times of such forwards promise?

T(m) are seconds of a forward over m rows, called from Python. Every way is told by the rows of its
forwards, and so what it should take; it gains, and should gain, over as many tokens of texts
one after another. Between that and what it does take lies what Python does between forwards, the
choice of tokens, and what else differs. Weights are drawn at random; the draft knows the greedy
text that it proposes, so how easily that is guessed plays no part.
"""

from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.cache import BlockPool
from minitransformer.decode import Request, Scheduler, beam, generate, generate_batch
from minitransformer.decode import speculate as speculated
from minitransformer.model import Transformer
from minitransformer.native import NativeModel
from minitransformer.train import initialize

from .limits import ROWS, SHAPES, ids_of, ratio_columns
from .limits_told import cases
from .processes import percent_off, process_medians

TEXTS, BEAMS, GAMMA, NEW = 8, 4, 7, 16
PLAIN = "one after another"
BATCH, BEAM, DRAFT, SERVER = "a batch of 8", "4 beams", "a draft of 7, all right", "a server of 8"
# Of the server's texts: half of `NEW` to one and a half, `NEW` on average.
LENGTHS = [NEW // 2 + i * NEW // (2 * TEXTS - 1) for i in range(2 * TEXTS)]
TOKENS = {BATCH: TEXTS * NEW, BEAM: BEAMS * NEW, DRAFT: NEW, SERVER: sum(LENGTHS)}
WORTHWHILE = 1.1  # a promised gain that must be there


class Known:
    """A draft that knows the text: what speculation is worth at most."""

    vocab_size = None

    def __init__(self, text: torch.Tensor):
        self.text = text

    def propose(self, ids: torch.Tensor, gamma: int, rule) -> tuple[torch.Tensor, None]:
        """The next `gamma` tokens of the text (1, T), surely."""
        return self.text[:, ids.shape[1] : ids.shape[1] + gamma], None


def measure(count: int, repeats: int, seed: int) -> dict[str, pd.DataFrame]:
    """Samples of one process for the first `count` shapes, in FP32 on one thread: `gains`, seconds
    of every way; `forwards`, of T(m) by rows; `asked`, the rows of each way's forwards."""
    found = {"gains": [], "forwards": [], "asked": []}
    for name in list(SHAPES)[:count]:
        engine = NativeModel(initialize(Transformer(SHAPES[name]), "scaled", seed).eval())
        ways = decoders(engine)
        times = {PLAIN: partial(one_after_another, engine)} | ways
        asked = [{"name": way, "rows": m} for way, run in ways.items() for m in run()]
        for table, samples in (
            ("gains", bench.interleaved(times, repeats, warmup=1, before=1)),
            ("forwards", forwards(engine, repeats)),
            ("asked", pd.DataFrame(asked)),
        ):
            found[table].append(samples.assign(shape=name))
    return {table: pd.concat(parts) for table, parts in found.items()}


def decoders(engine) -> dict:
    """Every way by name: a function that decodes and returns the rows of its forwards."""
    start = ids_of(engine.cfg, 1)
    text = generate(engine, start, NEW, backend="native")
    return {
        BATCH: partial(batch, engine),
        BEAM: partial(beams, engine, start),
        DRAFT: partial(draft, engine, start, Known(text)),
        SERVER: partial(server, engine),
    }


def starts(engine, count: int) -> list[torch.Tensor]:
    """Prompts of one token."""
    return list(ids_of(engine.cfg, count)[0].split(1))


def one_after_another(engine) -> None:
    for start in starts(engine, TEXTS):
        generate(engine, start[None], NEW, backend="native")


def batch(engine) -> list[int]:
    generate_batch(engine, starts(engine, TEXTS), NEW, backend="native")
    return [TEXTS] * NEW


def beams(engine, start) -> list[int]:
    beam(engine, start, NEW, width=BEAMS, backend="native")
    return [1] + [BEAMS] * (NEW - 1)


def draft(engine, start, known) -> list[int]:
    steps = speculated(engine, known, start, NEW, gamma=GAMMA, backend="native").steps
    return [1 + proposed for proposed, _ in steps]


def server(engine) -> list[int]:
    """Twice as many requests as places, of unlike lengths: who leaves makes room."""
    rows, pool = [], BlockPool(engine.cfg, 2 * TEXTS)
    options = {"share": False, "on_forward": rows.append, "backend": "native"}
    scheduler = Scheduler(engine, pool, TEXTS, **options)
    for start, new in zip(starts(engine, 2 * TEXTS), LENGTHS, strict=True):
        scheduler.submit(Request(start, new))
    scheduler.run()
    return rows


def forwards(engine, repeats: int) -> pd.DataFrame:
    """T(m): a forward of m rows."""
    several = {str(m): partial(engine, ids_of(engine.cfg, m)) for m in ROWS}
    return bench.interleaved(several, 2 * repeats, warmup=1, before=1)


# --- what the samples say


def table(samples: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a shape and way: microseconds for each forward beyond T(m), how many times as fast as
    texts one after another it is, the same if it took T(m) and no more, and the one over the other,
    each over processes with its interval."""
    found = []
    for shape, part in samples["gains"].groupby("shape", sort=False):
        each = process_medians(part)
        times = samples["forwards"]
        times = process_medians(times[times["shape"] == shape])
        asked = samples["asked"]
        asked = asked[(asked["shape"] == shape) & (asked.process == 0)]
        for way, tokens in TOKENS.items():
            plain, rows = each[PLAIN] * tokens / (TEXTS * NEW), asked.rows[asked.name == way]
            inside = seconds(rows, times)
            outside = 1e6 * float(((each[way] - inside) / len(rows)).median())
            row = {"shape": shape, "way": way, "outside_us": outside}
            row |= ratio_columns("gain", plain / each[way])
            row |= ratio_columns("promised", plain / inside)
            found.append(row | ratio_columns("over_promised", inside / each[way]))
    return pd.DataFrame(found)


def seconds(rows: pd.Series, times: pd.DataFrame) -> pd.Series:
    """What forwards of so many rows take in each process; between the rows that were timed, T(m)
    are joined by lines."""
    measured = times[[str(m) for m in ROWS]].to_numpy()
    return pd.Series([np.interp(rows, ROWS, own).sum() for own in measured], index=times.index)


def misses(table: pd.DataFrame) -> pd.DataFrame:
    """By how many per cent each gain lies off what T(m) promise: case, off_percent, low, high."""
    ends = [table[f"over_promised{end}"] for end in ("", "_low", "_high")]
    return percent_off(table.way + ", " + table["shape"], *ends)


def there(table: pd.DataFrame) -> pd.DataFrame:
    """The gains where T(m) promise more than `WORTHWHILE`: case, gain, low, high."""
    own = table[table.promised > WORTHWHILE]
    return cases(own.assign(case=own.way + ", " + own["shape"]), "gain", "case")


def in_words(table: pd.DataFrame) -> str:
    """How much of what T(m) promise is had at each shape, in a sentence."""
    parts = [
        f"{100 * part.over_promised.min():.0f} to {100 * part.over_promised.max():.0f} % ({shape})"
        for shape, part in table.groupby("shape", sort=False)
    ]
    return f"Of the gains that T(m) promise so much is reached: {', '.join(parts)}."
