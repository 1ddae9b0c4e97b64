"""A Hugging Face folder is read in about one copy of its weights: what is converted is converted
tensor by tensor, what is not stays mapped in its file. Both as the operating system counts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

C, FFN, LAYERS, VOCAB = 640, 1792, 8, 256
ABOUT = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": C,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
# Looked at all the time while a folder is read and then while every weight of it is: most bytes of
# the process's own memory, and with those of files, that came on top of what there was.
LOOK = """
import json, sys, threading, time
from pathlib import Path
from minitransformer.export import from_huggingface

def held():
    lines = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    kept = {name: 1024 * int(rest.split()[0]) for name, rest in lines if name.startswith("Rss")}
    return kept["RssAnon"], sum(kept.values())

def look():
    while not done:
        seen.append(held())
        time.sleep(0.002)

float(from_huggingface(sys.argv[1])[0].embedding.weight.sum())  # what torch takes for itself
seen, done, before = [], [], held()
watch = threading.Thread(target=look)
watch.start()
model = from_huggingface(sys.argv[2])[0]
for weight in model.parameters():
    float(weight.sum())
done.append(True)
watch.join()
print(json.dumps([max(column) - start for column, start in zip(zip(*seen), before)]))
"""


def tensors(layers, dtype):
    shapes = {f"self_attn.{x}_proj": (C, C) for x in "qkvo"}
    shapes |= {"mlp.gate_proj": (FFN, C), "mlp.up_proj": (FFN, C), "mlp.down_proj": (C, FFN)}
    shapes |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (C,))
    found = {
        f"model.layers.{i}.{name}.weight": torch.ones(shape, dtype=dtype)
        for i in range(layers)
        for name, shape in shapes.items()
    }
    ends = {"model.embed_tokens.weight": (VOCAB, C), "model.norm.weight": (C,)}
    return found | {name: torch.ones(shape, dtype=dtype) for name, shape in ends.items()}


def write(folder: Path, dtype, shards=1, layers=LAYERS) -> int:
    """A folder as transformers writes it; the bytes of its weights in FP32."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(ABOUT | {"num_hidden_layers": layers}))
    found = tensors(layers, dtype)
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    names = names if shards > 1 else ["model.safetensors"]
    places = {name: names[i * shards // len(found)] for i, name in enumerate(found)}
    for file in names:
        save_file({n: t for n, t in found.items() if places[n] == file}, folder / file)
    if shards > 1:
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
    return 4 * sum(tensor.numel() for tensor in found.values())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is told by /proc")
@pytest.mark.parametrize(
    ("dtype", "shards", "own", "whole"),
    [
        (torch.float32, 1, 0.0, 1.0),
        (torch.bfloat16, 1, 1.0, 1.5),  # the file's pages are mapped until it is read to its end
        (torch.bfloat16, 4, 1.0, 1.125),
    ],
)
def test_a_folder_is_read_in_about_one_copy_of_its_weights(dtype, shards, own, whole, tmp_path):
    write(tmp_path / "small", dtype, layers=1)
    weights = write(tmp_path / "large", dtype, shards)
    command = [sys.executable, "-c", LOOK, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    added = [size / weights for size in json.loads(done.stdout)]
    # The system may take mapped pages back at any time, so the whole has no lower bound.
    assert own - 0.1 < added[0] < own + 0.15 and added[0] <= added[1] < whole + 0.15
