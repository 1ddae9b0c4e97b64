// What the page's script answers to questions.json in the folder given, as JSON: run by test_web.py.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , scripts, folder] = process.argv;
const part = (name) => import(pathToFileURL(`${scripts}/${name}.mjs`));
const [{ told, beside }, { chosenBy, counted }] = [await part("marked"), await part("filter")];
const talk = { ...await part("engine"), ...await part("tokenizer"), ...await part("choice") };
const { wasm, models, tokenizers, logits, draws, laws } = JSON.parse(readFileSync(`${folder}/questions.json`));
const engine = readFileSync(wasm);

async function run({ file, header, ids, steps }) {
  const model = await talk.Engine.load(engine, header, readFileSync(`${folder}/${file}`));
  const all = [true, false].map((cached) => {
    let last, tokens = [];
    for (const step of talk.generate(model, ids, steps, { cached })) {
      tokens.push(step.id);
      last = Array.from(step.logits);
    }
    return { tokens, last };
  });
  const looks = model.attention([...ids, ...all[1].tokens]).map((row) => Array.from(row));
  const next = Array.from(model.logits([...ids, ...all[1].tokens], ids.length + steps - 1)); // it still holds the text
  const afresh = Array.from(model.logits([...ids, ...all[1].tokens]));
  return { ...all[0], looks, apart: Math.max(...next.map((x, i) => Math.abs(x - afresh[i]))), alike: JSON.stringify(all[0]) === JSON.stringify(all[1]), again: all[1].tokens };
}

const answers = { imports: WebAssembly.Module.imports(new WebAssembly.Module(engine)), models: [] };
for (const model of models) answers.models.push(await run(model));
answers.tokenizers = tokenizers.map(({ json, texts }) => {
  const tokenizer = new talk.Tokenizer(JSON.parse(json));
  return texts.map((text) => {
    const ids = tokenizer.encode(text);
    return { ids, text: tokenizer.decode(ids), pieces: tokenizer.pieces(ids), completed: tokenizer.completed(text) };
  });
});
answers.likeliest = draws.map((how) => talk.likeliest(logits, how));
answers.drawn = draws.map((how) => [7, 7, 8].map((seed) => {
  const draw = talk.random(seed);
  return Array.from({ length: 400 }, () => talk.choose(logits, how, draw));
}));
answers.greedy = talk.choose(logits, { temperature: 0 });
const places = [[0, 0], [50, 0], [90, 1], [0, 30], [60, 31], [0, 60]];
answers.marked = { told: told("kind: a: b\nloss, nats: 1.20"), up: beside(places, 4, -1), top: beside(places, 1, -1),
  down: beside(places, 2, 1), last: beside(places, 4, 1) };
answers.filter = { counted: counted([["a"], ["b", "b"], ["b", "a"], ["b"]]),
  shown: [[], ["a"], ["a", "c"]].map((chosen) => [["a"], ["b", "c"], []].map((row) => chosenBy(new Set(chosen), row))) };
const law = await part("law");
answers.laws = laws.map(({ law: own, how, prompt, lengths }) => lengths.map((n) => {
  const [now, roof] = [law.moved(own, how), law.roofline(own, how)];
  const shares = law.spent(now, n).map(([, share]) => share);
  return [law.speedup(now, prompt, n), law.speedup(roof, prompt, n), shares.reduce((a, b) => a + b),
    law.spentInWords(own, now, n)];
}));
process.stdout.write(JSON.stringify(answers));
