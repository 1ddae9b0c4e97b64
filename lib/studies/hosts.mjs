// A model in node or in a page's worker, for hosts.py: node reads questions from its input, a page
// fetches them; each is answered by one line of JSON.

const node = "process" in globalThis;
const started = {};

async function bytes(path) {
  if (node) return (await import("node:fs")).readFileSync(path);
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// engine.c as WebAssembly, and the image of a model.
async function engine({ scripts, wasm, header, image }) {
  const { Engine } = await import(`${scripts}/engine.mjs`);
  const { generate } = await import(`${scripts}/choice.mjs`);
  const model = await Engine.load(await bytes(wasm), header, await bytes(image));
  return async function* (prompt, most) {
    for (const { id, logits } of generate(model, prompt, most)) yield { id, logits };
  };
}

// An ONNX graph in onnxruntime-web: keys and values go from each step to the next.
async function onnx({ scripts, ort, paths, provider, model, heads, width }) {
  const { InferenceSession, Tensor, env } = await import(ort);
  const { greedy } = await import(`${scripts}/choice.mjs`);
  env.wasm.numThreads = 1;
  env.logLevel = "error";
  if (paths) env.wasm.wasmPaths = paths;
  const options = { executionProviders: [provider], logSeverityLevel: 3 };
  const session = await InferenceSession.create(await bytes(model), options);
  const integers = (list) => new Tensor("int64", BigInt64Array.from(list, BigInt), [1, list.length]);
  const cached = session.inputNames.filter((name) => name.startsWith("past"));
  const nothing = () => new Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
  return async function* (prompt, most) {
    let past = Object.fromEntries(cached.map((name) => [name, nothing()]));
    for (let given = prompt, total = prompt.length, made = 0; made < most; made++, total++) {
      const positions = given.map((_, i) => total - given.length + i);
      const found = await session.run({
        input_ids: integers(given), position_ids: integers(positions),
        attention_mask: integers(Array(total).fill(1)), ...past,
      });
      const { data, dims } = found.logits, logits = data.slice(-dims[2]), id = greedy(logits);
      past = Object.fromEntries(cached.map((name) =>
        [name, found[name.replace("past_key_values", "present")]]));
      given = [id];
      yield { id, logits };
    }
  };
}

// Which adapter WebGPU has here; an error where it has none.
async function adapter() {
  const found = await navigator.gpu?.requestAdapter();
  if (!found) throw new Error("the browser gives no WebGPU adapter");
  const { vendor, architecture, isFallbackAdapter } = found.info;
  return { adapter: [vendor, architecture].filter(Boolean).join(" "), software: isFallbackAdapter };
}

// Floats as base64: of a large vocabulary, numbers in JSON are more than a page can hold.
function packed(floats) {
  const bytes = new Uint8Array(Float32Array.from(floats).buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192)
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

async function answer({ start, run }) {
  if (start) {
    const told = start.provider === "webgpu" ? await adapter() : {};
    started[start.name] = await { engine, onnx }[start.kind](start);
    return told;
  }
  const tokens = [], seen = [], begun = performance.now();
  for await (const { id, logits } of started[run.name](run.prompt, run.most)) {
    tokens.push(id);
    if (run.keep) seen.push(packed(logits));
  }
  return { tokens, seen, seconds: (performance.now() - begun) / 1000 };
}

async function told(question) {
  try {
    return JSON.stringify(await answer(JSON.parse(question)));
  } catch (error) {
    return JSON.stringify({ error: String(error.message ?? error).split("\n")[0] });
  }
}

if (node) {
  const lines = (await import("node:readline")).createInterface({ input: process.stdin });
  for await (const line of lines) process.stdout.write(`${await told(line)}\n`);
} else {
  for (let body = "{}"; ; ) {
    const question = await (await fetch("/next", { method: "POST", body })).text();
    body = await told(question);
  }
}
