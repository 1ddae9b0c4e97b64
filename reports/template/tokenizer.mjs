// Tokenizers: what corpus/tokenizers.py writes into tokenizer.json. Node runs them in the tests.

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

  // The texts of tokens one by one, which together are the text; a character of several tokens
  // comes with the last of them.
  pieces(ids) {
    const tokens = ids.map((id) => this.tokens[id]);
    if (this.kind === "word") return tokens.map((token, i) => (i ? " " : "") + token);
    const spelt = (token) => {
      const hex = this.kind === "character" && /^<0x([0-9A-F]{2})>$/.exec(token);
      if (hex) return [parseInt(hex[1], 16)];
      if (this.kind === "bpe") return [...token].map((c) => this.byte.get(c));
      return [...new TextEncoder().encode(token)];
    };
    const decoder = new TextDecoder();
    return tokens.map((token, i) => decoder.decode(Uint8Array.from(spelt(token)), { stream: i + 1 < tokens.length }));
  }

  decode(ids) { return this.pieces(ids).join(""); }

  // Texts that complete the last word of a prompt, by the vocabulary.
  completed(text, most = 12) {
    const [part] = /\P{White_Space}*$/u.exec(text), start = text.slice(0, text.length - part.length);
    const whole = new Set(part && this.tokens.map((_, id) => this.decode([id]).trim()));
    return [...whole].filter((w) => w.length > part.length && w.startsWith(part)).slice(0, most)
      .map((w) => start + w);
  }
}
