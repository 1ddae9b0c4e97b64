"""What fits each named text within a budget of wall-clock seconds: model, recipe and budget; and
the published results that stand beside it.

A recipe's steps are planned when the machine's pace is known, see `real_texts`. A model's
vocabulary is the text's.
"""

import math
from dataclasses import dataclass, replace

from minitransformer.model import ModelConfig
from minitransformer.train import TrainConfig

# modded-nanogpt's block: RMSNorm, normed queries and keys, ReLU², no biases; here with tied
# embeddings, which leaves 0.79 M parameters in the blocks, and smeared keys, which see what
# followed a character the last time in one look.
SMALL = ModelConfig(
    d_model=128, n_layers=4, context=256, norm="rmsnorm", ffn="relu2", bias=False, tied=True,
    qk_norm=True, smeared_keys=True,
)  # fmt: skip
BRIEF = TrainConfig(
    batch_size=12, window=64, lr=4e-3, warmup=30, cooldown=0.4, betas=(0.9, 0.99),
    weight_decay=0.1, initialization="scaled",
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
LARGER = replace(SMALL, d_model=192, n_layers=6, n_heads=6)
WORDY = replace(SMALL, n_layers=2, smeared_keys=False)
LONG = replace(BRIEF, batch_size=8, window=128)
LONGER = replace(BRIEF, batch_size=6, window=256)
LONGEST = replace(LONGER, batch_size=8, lr=3e-3, weight_decay=0.3)
OF_WORDS = replace(BRIEF, batch_size=16, lr=3e-3)
TINY = replace(SMALL, d_model=32, n_layers=1)
TINY_BATCH = replace(BRIEF, batch_size=4, window=32)
BUDGETS = {
    "a second": Budget(GENERATED, 1, TINY, TINY_BATCH, 3),
    "a fifth": Budget(SHAKESPEARE, 30, SMALL, BRIEF, bar="texts-fifth"),
    "3 minutes": Budget(SHAKESPEARE, 180, SMALL, LONG, bar="texts-3"),
    "8 minutes": Budget(SHAKESPEARE, 480, SMALL, LONGER, bar="texts-8"),
    "30 minutes": Budget(SHAKESPEARE, 1800, LARGER, LONGEST, bar="texts-30"),
    "20 minutes": Budget(
        WORDS, 1200, WORDY, OF_WORDS, 5, "test", bar="texts-words", judged="perplexity"
    ),
    "stories": Budget("tinystories", 180, SMALL, LONG, 6),
    "quijote": Budget("quijote", 180, SMALL, LONG, 6),
}
FIFTH = "a fifth"

# One update of each is predicted, and measured as far as a profile can afford: in growing size,
# with the tokens of its batch. GPT-2's learnt positions are not ours: RoPE has no parameters.
LLAMA = ModelConfig(
    32000, 1024, 12, 16, n_kv_heads=4, context=2048, norm="rmsnorm", ffn="swiglu", bias=False
)
SIZES = {
    "1 × 64": (replace(SMALL, vocab_size=65, d_model=64, n_layers=1), 12, 64),
    "4 × 128": (replace(SMALL, vocab_size=65), 12, 64),
    "6 × 192": (replace(LARGER, vocab_size=65), 8, 256),
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
