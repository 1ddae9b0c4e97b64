// The engine: engine.c as WebAssembly, and the image that export/web.py made. Node runs it in the tests.

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

  // How much each head of each block looks from the last of `ids` at each of them; the cache holds
  // all the others. The last block of a step keeps its queries, so the one token goes through one
  // block, then through two, and so on.
  attention(ids) {
    const { entries, header, arena } = this, last = ids.length - 1, found = [];
    const layers = this.array(Int32Array, "layers", 1), all = layers[0];
    this.array(Int32Array, "token", 1)[0] = ids[last];
    this.array(Int32Array, "position", 1)[0] = last;
    const places = ["model", "cache", "token", "sequence", "position"].map((name) => this.at(name));
    for (layers[0] = 1; layers[0] <= all; layers[0]++) {
      entries.engine_step(...places, 1, 0, arena, BigInt(header.context));
      entries.engine_attention(...places.slice(0, 2), 0, last, this.at("attention"), arena, BigInt(header.context));
      for (let h = 0; h < header.heads; h++)
        found.push(this.array(Float32Array, "attention", (h + 1) * ids.length).slice(h * ids.length));
    }
    layers[0] = all;
    return found;
  }

  // Seconds in which this browser could read what a step reads of the model: half of those in
  // which it copies as much, for a copy reads and writes.
  reading() {
    const memory = new Uint8Array(this.entries.memory.buffer, this.base, this.header.read);
    const room = new Uint8Array(this.header.read);
    let best = Infinity;
    for (let i = 0; i < 5; i++) { // browsers blur their clock to a tenth of a millisecond
      const start = performance.now();
      let times = 0, spent = 0;
      for (; spent < 20; spent = performance.now() - start, times += 50)
        for (let j = 0; j < 50; j++) room.set(memory);
      best = Math.min(best, spent / 1000 / times / 2);
    }
    return best;
  }
}
