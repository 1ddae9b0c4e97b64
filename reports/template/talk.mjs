// Talk to it: the run's own models in the run's own engine, in this browser, nothing fetched.
// Without it the section shows what the run computed.

import { choose, generate, likeliest, random } from "./choice.mjs";
import { element } from "./dom.mjs";
import { Engine } from "./engine.mjs";
import { Tokenizer } from "./tokenizer.mjs";

const unpacked = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const pause = () => new Promise((done) => setTimeout(done)); // the browser draws meanwhile
const whole = (x) => Math.round(x).toLocaleString("en");
const mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
// A field of one line shows a line's end as a sign, and takes the sign for one.
const oneLine = (text) => text.replaceAll("\n", "↵"), asLines = (text) => text.replaceAll("↵", "\n");
const seen = (token) => oneLine(token.replaceAll(" ", "␣")) || "∅";

async function alive(form, data) {
  const find = (selector) => form.querySelector(selector), { elements } = form;
  const tokenizer = new Tokenizer(data.tokenizer), engines = {};
  let looked = () => {}; // shows the attention again
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

  // The text as the model reads it, each token shaded by how much the last one looks at it: the
  // ids that were given, then those that were made.
  function look(engine, ids, given) {
    looked = () => look(engine, ids, given);
    const read = ids.slice(0, data.context), rows = engine.attention(read), head = elements.head.value;
    const share = head ? rows[head] : mean(rows), most = share.indexOf(Math.max(...share));
    const pieces = tokenizer.pieces(ids).map((text, i) => {
      const [space, word] = /^(\s*)(.*)$/s.exec(text).slice(1), made = element("span", word);
      made.style.setProperty("--part", `${Math.round((100 * (share[i] ?? 0)) / share[most])}%`);
      return [space, made];
    });
    find(".given").replaceChildren(...pieces.slice(0, given).flat());
    find("output").replaceChildren(...pieces.slice(given).flat());
    const names = [read.length - 1, most].map((i) => seen(tokenizer.decode([read[i]])));
    find(".looks span").textContent = `“${names[0]}” looks most at “${names[1]}”, ` +
      `${read.length - most} from the end: ${(100 * share[most]).toFixed(0)} %, the strongest shade.`;
  }

  function heads() {
    const { header } = engines[elements.weights.value], blocks = data.layers;
    const names = Array.from({ length: blocks * header.heads }, (_, i) => (blocks > 1
      ? `block ${Math.floor(i / header.heads) + 1}, ` : "") + `head ${(i % header.heads) + 1}`);
    elements.head.append(...names.map((name, value) => element("option", name, { value })));
  }

  // The prompt as ids; undefined, and a word about it, where it cannot be continued.
  function asked() {
    const ids = tokenizer.encode(asLines(elements.prompt.value)), { context } = data;
    if (ids.length && ids.length <= context) return ids;
    say(ids.length ? `The prompt has ${ids.length} tokens, the model's context ${context}.` : "Give a prompt.");
  }

  function typed() {
    const offered = tokenizer.completed(asLines(elements.prompt.value)).map(oneLine);
    find("datalist").replaceChildren(...offered.map((value) => element("option", "", { value })));
    const ids = writing ? undefined : asked();
    if (!ids) return;
    next(engines[elements.weights.value].logits(ids));
    look(engines[elements.weights.value], ids, ids.length);
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
      next(last.logits, last.id);
      look(engines[name], last.ids, ids.length);
      faster(name, cached, made.length / seconds);
    };
    elements.stop.disabled = false;
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
  elements.head.addEventListener("change", () => looked());
  elements.prompt.value = oneLine(data.text);
  if (tokenizer.encode("\n").length) find("label").textContent = "Prompt (↵ is the end of a line)";
  heads();
  form.hidden = false;
  await pause();
  await certify();
  find("button").disabled = false; // nothing writes meanwhile: an engine holds one text
  typed();
}

const form = globalThis.document?.getElementById("talk-form");
if (form)
  alive(form, JSON.parse(document.getElementById("talk-data").textContent)).catch((error) => {
    form.before(element("p", `This browser does not run the engine: ${error.message}`, { class: "told" }));
    form.hidden = true;
  });
