// The choice of a token, and a text of them. Node runs it in the tests.

// Numbers in [0, 1) from a seed (mulberry32).
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function greedy(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

// The likeliest tokens as [id, probability], the lower id first among equals: the `k` best (0: all),
// and of those as few as hold the mass `p`; not rescaled.
export function likeliest(logits, { temperature = 1, k = 0, p = 1 } = {}) {
  const high = logits[greedy(logits)], weights = Array.from(logits, (x) => Math.exp((x - high) / temperature));
  const kept = [...weights.keys()].sort((a, b) => logits[b] - logits[a] || a - b).slice(0, k || undefined);
  const sum = kept.reduce((all, id) => all + weights[id], 0);
  const found = [];
  for (let i = 0, passed = 0; i < kept.length && (passed < p || p >= 1); i++) {
    found.push([kept[i], weights[kept[i]] / sum]);
    passed += found[i][1];
  }
  return found;
}

export function choose(logits, how, draw) {
  if (!(how.temperature > 0)) return greedy(logits);
  const among = likeliest(logits, how);
  let left = draw() * among.reduce((all, [, share]) => all + share, 0);
  for (const [id, share] of among) if ((left -= share) < 0) return id;
  return among.at(-1)[0];
}

// Up to `most` tokens after `ids`, one by one, as {id, logits before it, ids so far, seconds in the engine}.
export function* generate(engine, prompt, most, { cached = true, how = { temperature: 0 }, draw } = {}) {
  const ids = [...prompt];
  for (let i = 0, held = 0; i < most && ids.length <= engine.header.context; i++) {
    const start = performance.now(), logits = engine.logits(ids, cached ? held : 0);
    const seconds = (performance.now() - start) / 1000, id = choose(logits, how, draw);
    held = ids.length;
    ids.push(id);
    yield { id, logits, ids, seconds };
  }
}
