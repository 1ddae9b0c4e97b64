"""What does a model say, and what does a page need to let it speak?"""

import json
from base64 import b64encode
from pathlib import Path

import pandas as pd

from minitransformer import generate, load
from minitransformer.corpus import Corpus, decode
from minitransformer.export.web import to_web
from minitransformer.native.wasm import WASM

from .samples import prompts, rest

MODELS = {"int8": "model-int8", "int4": "model-int4"}
TOKENS = 64
MOST = 2_500_000  # characters of models that a page has room for


def talk(folder: Path) -> tuple[pd.DataFrame, dict]:
    """The greedy continuation of the first tokens of the test split by each quantized model of a
    run, as PyTorch computes it; and for a page engine.wasm, the tokenizer, and of each model that a
    page has room for its image, its header and the same tokens as ids."""
    data = Corpus.load(folder)
    prompt, rows, models, size = prompts(data)[0], [], {}, 0
    for name, place in MODELS.items():
        model, tokenizer = load(folder / place)
        most = min(TOKENS, model.cfg.context - prompt.shape[1])
        ids = rest(generate(model, prompt, most), prompt).numpy()
        rows.append((name, decode(data.tokenizer, ids)))
        header, image = to_web(model)
        packed = b64encode(image).decode()
        size += len(packed)
        if size <= MOST:
            models[name] = {"header": header, "image": packed, "greedy": ids.tolist()}
    table = pd.DataFrame(rows, columns=["weights", "continuation"])
    live = {
        "engine": b64encode(WASM.read_bytes()).decode(),
        "tokenizer": json.loads(tokenizer.to_str()),
        "prompt": prompt[0].tolist(),
        "text": decode(data.tokenizer, prompt[0].numpy()),
        "context": model.cfg.context,
        "vocab": model.cfg.vocab_size,
        "layers": model.cfg.n_layers,
        "models": models,
    }
    return table.replace(r"\n", " / ", regex=True), live
