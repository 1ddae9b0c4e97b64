// The page alive: the run's own models in the run's own engine, in this browser, nothing fetched.
//
// 1 the engine, 2 tokenizers, 3 the choice of a token, 4 what the page does. Without this script
// the section shows what the run computed; node runs 1 to 3 in the tests.

// ---- 1. The engine: engine.c as WebAssembly, and the image that export/web.py made -------------

const PAGE = 65536; // bytes

export class Engine {
  // A model in an instance of its own: keys and values stay between calls.
  static async load(wasm, header, image) {
    const { instance } = await WebAssembly.instantiate(wasm);
    return new Engine(instance.exports, header, image);
  }

  constructor(entries, header, image) {
    const base = Math.ceil(entries.__heap_base.value / 16) * 16;
    const fit = (bytes) => {
      const lacking = Math.ceil((bytes - entries.memory.buffer.byteLength) / PAGE);
      if (lacking > 0) entries.memory.grow(lacking);
    };
    fit(base + header.size);
    const memory = new DataView(entries.memory.buffer);
    new Uint8Array(memory.buffer).set(image, base);
    for (const at of header.pointers)
      memory.setUint32(base + at, memory.getUint32(base + at, true) + base, true);
    Object.assign(this, { entries, header, base, arena: base + header.size });
    fit(this.arena + 4 * Number(entries.engine_arena(this.at("model"), BigInt(header.context), 0n)));
  }

  at(name) { return this.base + this.header[name]; }

  array(Kind, name, length) { return new Kind(this.entries.memory.buffer, this.at(name), length); }

  // Logits of the token after `ids`, of which the cache holds the first `held`.
  logits(ids, held = 0) {
    const { entries, header, arena } = this, rows = ids.length - held;
    if (rows < 1 || ids.length > header.context) throw new Error(`${ids.length} tokens, ${held} held`);
    this.array(Int32Array, "token", rows).set(ids.slice(held));
    this.array(Int32Array, "position", rows).forEach((_, i, all) => (all[i] = held + i));
    const places = ["model", "cache", "token", "sequence", "position"].map((name) => this.at(name));
    const hidden = this.at("hidden"), last = hidden + 4 * header.width * (rows - 1);
    let bad = entries.engine_step(...places, rows, hidden, arena, BigInt(header.context));
    bad ||= entries.engine_multiply(places[0], this.at("head"), last, 1, this.at("logits"), arena);
    if (bad) throw new Error(`the engine answered ${bad}: a number is not finite`);
    return this.array(Float32Array, "logits", header.vocab);
  }

  // Seconds in which this browser could read what a step reads of the model: half of those in
  // which it copies as much, for a copy reads and writes.
  reading() {
    const memory = new Uint8Array(this.entries.memory.buffer, this.base, this.header.read);
    const room = new Uint8Array(this.header.read);
    let best = Infinity;
    for (let i = 0; i < 5; i++) {
      const start = performance.now(), times = 50;
      for (let j = 0; j < times; j++) room.set(memory);
      best = Math.min(best, (performance.now() - start) / 1000 / times / 2);
    }
    return best;
  }
}

// ---- 2. Tokenizers: what corpus/tokenizers.py writes into tokenizer.json ------------------------

const WORD = /[\p{L}\p{M}\p{N}\p{Pc}\u00AD\u200C\u200D]+/uy;
const SPACE = /\p{White_Space}/u;
const PIECE = new RegExp("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" +
  "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+", "gu");

// Words, and whatever else is no white space by the character that a reader sees.
function* words(text) {
  const seen = new Intl.Segmenter(undefined, { granularity: "grapheme" });
  for (let at = 0, found; at < text.length; at += found.length) {
    WORD.lastIndex = at;
    found = WORD.exec(text)?.[0];
    if (found) { yield found; continue; }
    found = String.fromCodePoint(text.codePointAt(at));
    if (SPACE.test(found)) continue;
    found = seen.segment(text.slice(at))[Symbol.iterator]().next().value.segment;
    yield found;
  }
}

// The visible character that stands for each byte in byte-level BPE.
function byteAlphabet() {
  const plain = (b) => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(plain(b) ? b : next++));
}

export class Tokenizer {
  constructor({ model, normalizer, pre_tokenizer: before }) {
    const kinds = { WordLevel: "word", BPE: before ? "bpe" : "character" };
    this.kind = kinds[model.type];
    if (!this.kind) throw new Error(`a tokenizer of ${model.type} is not known`);
    this.ids = new Map(Object.entries(model.vocab));
    this.tokens = [];
    for (const [token, id] of this.ids) this.tokens[id] = token;
    this.unknown = this.ids.get(model.unk_token);
    this.lines = normalizer?.content; // a line's end as a word
    this.punctuation = before?.type === "Split"; // marks are words of their own
    this.ranks = new Map((model.merges ?? []).map((pair, i) => [pair.join(" "), i]));
    this.alphabet = byteAlphabet();
    this.byte = new Map(this.alphabet.map((c, b) => [c, b]));
  }

  encode(text) {
    const bytes = (part) => [...new TextEncoder().encode(part)];
    if (this.kind === "character") {
      const spelt = (c) => bytes(c).map((b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
      return [...text].flatMap((c) => (this.ids.has(c) ? [c] : spelt(c))).map((t) => this.ids.get(t));
    }
    if (this.kind === "bpe") {
      const pieces = text.match(PIECE) ?? [];
      return pieces.flatMap((piece) => this.merged(bytes(piece).map((b) => this.alphabet[b])));
    }
    if (this.lines) text = text.replaceAll("\n", this.lines);
    const found = this.punctuation ? [...words(text)] : text.split(/\p{White_Space}+/u).filter(Boolean);
    return found.map((word) => this.ids.get(word) ?? this.unknown);
  }

  merged(parts) {
    for (;;) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return parts.map((part) => this.ids.get(part));
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }

  decode(ids) {
    const tokens = ids.map((id) => this.tokens[id]);
    if (this.kind === "word") return tokens.join(" ");
    const spelt = (token) => {
      const hex = this.kind === "character" && /^<0x([0-9A-F]{2})>$/.exec(token);
      if (hex) return [parseInt(hex[1], 16)];
      if (this.kind === "bpe") return [...token].map((c) => this.byte.get(c));
      return [...new TextEncoder().encode(token)];
    };
    return new TextDecoder().decode(Uint8Array.from(tokens.flatMap(spelt)));
  }

  // What stands between a text and its continuation.
  joint(text) { return this.kind === "word" && text && !SPACE.test(text.at(-1)) ? " " : ""; }

  // Texts that complete the last word of a prompt, by the vocabulary.
  completed(text, most = 12) {
    const [part] = /\P{White_Space}*$/u.exec(text), start = text.slice(0, text.length - part.length);
    const whole = new Set(part && this.tokens.map((_, id) => this.decode([id]).trim()));
    return [...whole].filter((w) => w.length > part.length && w.startsWith(part)).slice(0, most)
      .map((w) => start + w);
  }
}

// ---- 3. The choice of a token --------------------------------------------------------------------

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

// ---- 4. The page ---------------------------------------------------------------------------------

const unpacked = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const pause = () => new Promise((done) => setTimeout(done)); // the browser draws meanwhile
const whole = (x) => Math.round(x).toLocaleString("en");
const seen = (token) => token.replaceAll(" ", "␣").replaceAll("\n", "↵") || "∅";

function element(tag, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(tag), { textContent: text });
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function alive(form, data) {
  const find = (selector) => form.querySelector(selector), { elements } = form;
  const tokenizer = new Tokenizer(data.tokenizer), engines = {};
  let writing = 0; // which writing is under way: a later one, or a stop, ends it
  for (const [name, { header, image }] of Object.entries(data.models))
    engines[name] = await Engine.load(unpacked(data.engine), header, unpacked(image));

  const say = (text) => { find(".told").textContent = text; };
  const faster = (name, cached, speed) => {
    find(`[data-speed="${name} ${cached ? "on" : "off"}"]`).textContent = whole(speed);
  };

  // The likeliest next tokens; the one that was chosen, if any.
  function next(logits, chosen) {
    const best = likeliest(logits).slice(0, 8), most = best[0][1];
    find(".next tbody").replaceChildren(...best.map(([id, share]) => {
      const row = element("tr", "", id === chosen ? { class: "best" } : {});
      const token = element("th", seen(tokenizer.decode([id])), { scope: "row" });
      const part = element("td", `${(100 * share).toFixed(1)} %`, { class: "n" });
      part.style.setProperty("--part", `${(100 * share) / most}%`);
      row.append(token, part);
      return row;
    }));
  }

  // The prompt as ids; undefined, and a word about it, where it cannot be continued.
  function asked() {
    const text = elements.prompt.value, ids = tokenizer.encode(text), { context } = data;
    if (ids.length && ids.length <= context) return ids;
    say(ids.length ? `The prompt has ${ids.length} tokens, the model's context ${context}.` : "Give a prompt.");
  }

  function typed() {
    const text = elements.prompt.value, offered = tokenizer.completed(text);
    find("datalist").replaceChildren(...offered.map((value) => element("option", "", { value })));
    const ids = writing ? undefined : asked();
    if (!ids) return;
    next(engines[elements.weights.value].logits(ids));
    const unknown = tokenizer.kind === "word" && ids.filter((id) => id === tokenizer.unknown).length;
    say(unknown ? `${unknown} of ${ids.length} words are not in the vocabulary.` : "");
  }

  async function write(event) {
    event.preventDefault();
    const ids = asked(), name = elements.weights.value, cached = elements.cache.value === "on";
    if (!ids) return;
    const number = (field) => Number(elements[field].value), mine = (writing = Date.now() + Math.random());
    const how = { temperature: number("temperature"), k: number("k"), p: number("p") };
    let seconds = 0, made = [], each = 1, last; // tokens a drawing: one, or what it takes the time of
    const show = () => {
      find("output").textContent = tokenizer.decode(made);
      next(last.logits, last.id);
      faster(name, cached, made.length / seconds);
    };
    elements.stop.disabled = false;
    find(".given").textContent = elements.prompt.value + tokenizer.joint(elements.prompt.value);
    const run = generate(engines[name], ids, number("tokens"), { cached, how, draw: random(number("seed")) });
    for (last of run) {
      seconds += last.seconds;
      made.push(last.id);
      if (made.length % each) continue;
      const start = performance.now();
      show();
      await pause();
      each = Math.ceil((performance.now() - start) / 16);
      if (writing !== mine) break; // before the next step: another writing may have the engine
    }
    if (writing && writing !== mine) return;
    show();
    say(`${made.length} tokens, ${whole(made.length / seconds)} a second in the engine.`);
    stop();
  }

  function stop() {
    writing = 0;
    elements.stop.disabled = true;
  }

  // The first greedy tokens of each model, with the cache and without, beside those PyTorch computed.
  async function certify() {
    for (const [name, { greedy }] of Object.entries(data.models)) {
      const engine = engines[name];
      find(`[data-speed="${name} limit"]`).textContent = whole(1 / engine.reading());
      for (const _ of generate(engine, data.prompt, 16)); // the browser compiles what is used
      let same = greedy.length;
      for (const cached of [true, false]) {
        let i = 0, seconds = 0;
        for (const { id, seconds: took } of generate(engine, data.prompt, greedy.length, { cached })) {
          if (id !== greedy[i++]) same = Math.min(same, i - 1);
          seconds += took;
        }
        faster(name, cached, greedy.length / seconds);
        await pause();
      }
      const passed = same === greedy.length, verdict = passed ? "pass" : "fail";
      const told = passed ? `the first ${same} greedy tokens are PyTorch’s, with the cache and without`
        : `token ${same + 1} of ${greedy.length} is not PyTorch’s`;
      const line = find(`[data-proof="${name}"]`), badge = line.querySelector(".badge");
      badge.className = `badge ${verdict}`;
      badge.lastChild.textContent = verdict;
      badge.querySelector("use").setAttribute("href", `#i-${verdict}`);
      line.lastChild.textContent = ` ${name}: ${told}`;
    }
  }

  document.querySelector("#talk > .cell")?.before(form); // above what the run computed
  form.addEventListener("submit", write);
  elements.prompt.addEventListener("input", typed);
  elements.weights.forEach((radio) => radio.addEventListener("change", typed));
  elements.stop.addEventListener("click", stop);
  elements.prompt.value = data.text;
  form.hidden = false;
  await pause();
  await certify();
  find("button").disabled = false; // nothing writes meanwhile: an engine holds one text
  typed();
}

if (globalThis.document) {
  const form = document.getElementById("talk-form");
  alive(form, JSON.parse(document.getElementById("talk-data").textContent)).catch((error) => {
    form.before(element("p", `This browser does not run the engine: ${error.message}`, { class: "told" }));
    form.hidden = true;
  });
}
