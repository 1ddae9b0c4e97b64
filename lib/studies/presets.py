"""What fits each named text within a budget of wall-clock seconds: model, recipe and budget; and
the published results that stand beside it.

A recipe's steps are planned when the machine's pace is known, see `real_texts`. A model's
vocabulary is the text's."""

import math
from dataclasses import dataclass, replace

from minitransformer.model import ModelConfig
from minitransformer.train import GOOD, TrainConfig

# Of modded-nanogpt's block ReLU² without biases, moved by Muon; but LayerNorm, for which PyTorch
# has one kernel on a CPU, and no normed queries and keys, whose time more steps use better. Tied
# embeddings leave 0.79 M parameters in the blocks; smeared keys see what followed a character the
# last time in one look. All of it was chosen on the last tenth of the training text of Tiny
# Shakespeare, in 20 and in 90 seconds.
SMALL = ModelConfig(
    d_model=128, n_layers=4, context=256, ffn="relu2", bias=False, tied=True, smeared_keys=True,
)  # fmt: skip
BRIEF = TrainConfig(
    batch_size=12, window=64, lr=4e-3, warmup=30, cooldown=0.7, betas=(0.9, 0.99),
    weight_decay=0.1, initialization="scaled", optimizer="muon",
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """`seconds` of training on `text`, scored on the whole of its split `scored`; the n-gram beside
    it has this `order`. `bar` is judged by the loss in nats, or by the perplexity."""

    text: str
    seconds: float
    cfg: ModelConfig
    recipe: TrainConfig
    order: int = 7
    scored: str = "valid"
    bar: str = ""
    judged: str = "nats"


SHAKESPEARE, WORDS = "tinyshakespeare", "wikitext-2"
GENERATED = "language"  # the synthetic language, which needs no file
SHALLOW = replace(SMALL, n_layers=2)  # twice the steps of SMALL in the same time
LARGER = replace(SMALL, d_model=160, n_heads=5)
LONG = replace(BRIEF, batch_size=16, window=128)
LONGEST = replace(BRIEF, batch_size=8, window=256, weight_decay=0.3)
OF_WORDS = replace(BRIEF, batch_size=6, window=128, lr=3e-3)
TINY = replace(SMALL, d_model=32, n_layers=1)
TINY_BATCH = replace(BRIEF, batch_size=4, window=32)
BUDGETS = {
    "a second": Budget(GENERATED, 1, TINY, TINY_BATCH, 3),
    "a fifth": Budget(SHAKESPEARE, 30, SHALLOW, BRIEF, bar="texts-fifth"),
    "3 minutes": Budget(SHAKESPEARE, 180, SMALL, LONG, bar="texts-3"),
    "8 minutes": Budget(SHAKESPEARE, 480, SMALL, LONG, bar="texts-8"),
    "30 minutes": Budget(SHAKESPEARE, 1800, LARGER, LONGEST),
    "20 minutes": Budget(
        WORDS, 1200, SHALLOW, OF_WORDS, 5, "test", bar="texts-words", judged="perplexity"
    ),
    "40 minutes": Budget(
        WORDS, 2400, SHALLOW, OF_WORDS, 5, "test", bar="texts-words-longer", judged="perplexity"
    ),
    "stories": Budget("tinystories", 180, SMALL, LONG, 6),
    "quijote": Budget("quijote", 180, SMALL, LONG, 6),
}
FIFTH = "a fifth"

# nanoGPT's own architecture, but that positions are learnt there: sinusoids are an addition too.
NANOGPT = ModelConfig(65, context=64, n_layers=4, position="sinusoidal", ffn="gelu", bias=False,
                      tied=True)  # fmt: skip

# One update of each is predicted, and measured as far as a profile can afford: in growing size,
# with the tokens of its batch. GPT-2's learnt positions are not ours: RoPE has no parameters.
LLAMA = ModelConfig(
    32000, 1024, 12, 16, n_kv_heads=4, context=2048, norm="rmsnorm", ffn="swiglu", bias=False
)
PAPERS = "the paper's 1 × 128"
SIZES = {
    PAPERS: (ModelConfig(), GOOD.batch_size, GOOD.window),
    "1 × 64": (replace(SMALL, vocab_size=65, d_model=64, n_layers=1), 12, 64),
    "nanoGPT's 4 × 128": (NANOGPT, 12, 64),
    "4 × 128": (replace(SMALL, vocab_size=65), 12, 64),
    "6 × 192": (replace(SMALL, vocab_size=65, d_model=192, n_layers=6, n_heads=6), 8, 256),
    "6 × 384": (replace(SMALL, vocab_size=65, d_model=384, n_layers=6, n_heads=6), 4, 256),
    "GPT-2 124M": (ModelConfig(50257, 768, 12, 12, context=1024, ffn="gelu", tied=True), 1, 256),
    "Llama-like, 12 × 1024": (LLAMA, 1, 256),
}

# (text, who, parameters, its budget, nats a token, source)
PUBLISHED = [
    (SHAKESPEARE, "nanoGPT, CPU recipe", "0.8 M", "2,000 steps of 12 × 64", 1.88, "its README"),
    (SHAKESPEARE, "nanoGPT, GPU recipe", "10.7 M", "3 min on an A100", 1.4697, "its README"),
    (WORDS, "AWD-LSTM", "33 M", "hundreds of epochs, GPU", math.log(65.8), "NLP-progress"),
]
