// Makes small.json, vectors.jsonl and splits.jsonl; README.md says how. References: @huggingface/tokenizers for ids, and
// Oniguruma itself for pieces, on which that package differs from the library that engines use.
import fs from "fs";
import { Tokenizer } from "@huggingface/tokenizers";
import onig from "vscode-oniguruma";

let state = 20261121;
const random = (n) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % 65536 % n;
const pick = (list) => list[random(list.length)];

const patterns = {
  gpt2: String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  qwen2: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  llama: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
};

// The small tokenizer is trained on made-up words.
const syllables = ["ka", "to", "mi", "re", "sun", "al", "ex", "ing", "tion", "er", "the", "an", "語", "中文", "é", "ß", "д", "01", "20"];
const words = Array.from({ length: 400 }, () => Array.from({ length: 1 + random(4) }, () => pick(syllables)).join(""));
const marks = [" ", " ", " ", " ", ", ", ". ", "\n", "\n\n", "  ", "'s ", "() {\n\t", "; ", " = ", "\r\n"];
const corpus = Array.from({ length: 6000 }, () => words[Math.floor(random(400) * random(400) / 400)] + pick(marks)).join("");

function alphabet() {
  const chars = [];
  for (let b = 0, free = 256; b < 256; b++) {
    const shown = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    chars.push(String.fromCharCode(shown ? b : free++));
  }
  return chars;
}

function train(size) {
  const chars = alphabet();
  const count = new Map();
  for (const [piece] of corpus.matchAll(new RegExp(patterns.qwen2.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'s"), "gu"))) count.set(piece, (count.get(piece) ?? 0) + 1);
  const pieces = [...count].map(([text, n]) => ({ n, parts: [...Buffer.from(text)].map((b) => chars[b]) }));
  const vocab = Object.fromEntries([...chars].sort().map((c, id) => [c, id]));
  const merges = [];
  while (merges.length < size) {
    const pairs = new Map();
    for (const { n, parts } of pieces) for (let i = 1; i < parts.length; i++) {
      const key = parts[i - 1] + " " + parts[i];
      pairs.set(key, (pairs.get(key) ?? 0) + n);
    }
    const [best] = [...pairs].reduce((a, b) => (b[1] > a[1] ? b : a));
    const [left, right] = best.split(" ");
    merges.push(best);
    vocab[left + right] ??= Object.keys(vocab).length;
    for (const p of pieces) for (let i = 1; i < p.parts.length; i++) if (p.parts[i - 1] === left && p.parts[i] === right) p.parts.splice(i - 1, 2, left + right);
  }
  return { vocab, merges };
}

function small() {
  const model = train(420);
  const token = (content, i, special = true, normalized = false) => ({ id: Object.keys(model.vocab).length + i, content, single_word: false, lstrip: false, rstrip: false, normalized, special });
  return {
    version: "1.0", truncation: null, padding: null,
    added_tokens: [token("<|begin|>", 0), token("<|im_start|>", 1), token("<|im_end|>", 2), token("<|im_end|>\n", 3), token("<tool>", 4, false), token("[later]", 5, false, true)],
    normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null,
    model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: "", end_of_word_suffix: "", fuse_unk: false, byte_fallback: false, ignore_merges: false, ...model },
  };
}

const level = (use_regex) => ({ type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex });
const split = (pattern) => ({ type: "Sequence", pretokenizers: [{ type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false }, level(false)] });
const begin = (id) => ({ type: "Sequence", processors: [level(true), { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<|begin|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }], pair: [], special_tokens: { "<|begin|>": { id: "<|begin|>", ids: [id], tokens: ["<|begin|>"] } } }] });

// One vocabulary, three tokenizers: what the files of three families of models say.
const variants = {
  gpt2: (t) => ({ ...t, pre_tokenizer: level(true) }),
  qwen2: (t) => ({ ...t, normalizer: { type: "NFC" }, pre_tokenizer: split(patterns.qwen2), post_processor: level(false) }),
  llama: (t) => ({ ...t, pre_tokenizer: split(patterns.llama), post_processor: begin(t.added_tokens[0].id), model: { ...t.model, ignore_merges: true } }),
};

const tricky = [
  "", " ", "  ", "\n", "\r\n", "a", " a", "  a", "a ", "a  ", "\n\n\na", " \n a", "\t\tx\t", "a\n  \n  b", "   \n\n   \n  x  ", "a \u00a0 b", "\u3000中文\u3000", "x\u2028y", "\u000b\u000c z",
  "Hello, world!", "I'll can't we've they're I'm he'd it's", "I'LL CAN'T WE'Ve IT'S 'Tis 'S", "don''t ''s '", "o'neil's'", "1", "12", "123", "1234", "12345678901", "3.14159e-10", "٣٤٥٦ ½ Ⅷ ²³", "a1b22c333",
  "中文字符测试，没有空格。下一句\n\n再来", "日本語のテスト。カタカナ、ひらがな", "한국어 테스트", "ไทยภาษา", "العربية نص", "עברית", "हिन्दी में", "Ελληνικά Кириллица",
  "😀", "👩‍👩‍👧‍👦 👍🏽 🇩🇪", "e\u0301 é ê\u0323 ệ", "\u1112\u1161\u11ab 한", "\u212b \u2126 \u00c5", "が か\u3099", "<\u0338 ><\u0338", "ﬁ ﬀ ſ ß", "क़ क\u093c", "a\u0315\u0300\u05ae\u0062",
  "func main() {\n\tfmt.Println(\"hi\")\n}\n", "if (x!=y){return a[i]+=1;}//!!\n\n", "def f(x):\n    return x**2  # ok\n\n\n", "<div class=\"a\">&nbsp;</div>", "http://example.com/a?b=c&d=%20", "====----____", "....!!!???\n\n\n.", " !\n", "?!  \n", "a/b\\c",
  "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>x<|im_end|>\n\n", "<|im_start|", "<|begin|><|begin|>", "x<tool>y [later]z[later", "a<|im_start|>\u0301b", "[later]\u0301", " <|im_end|> ",
  "\u0000\u0001\u007f", "\ufeff".slice(1) + "q\u200bq\u200d", "\ud7ff\ue000\ufffd", "𝒜𝓑 𠀀𠮷", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "katomi".repeat(30), "!".repeat(70), " ".repeat(100) + "x", "ab \n".repeat(20), "中文".repeat(40),
];
const bits = [..."abZé中語д09 \n\t\r'.!<|>😀", "  ", "'s", "'LL", "ing", "tion", " the", "\u0301", "\u00a0", "<|im_end|>", "<tool>", "\r\n", "한", "123", "();"];
const mixed = Array.from({ length: 60 }, () => Array.from({ length: 1 + random(25) }, () => pick(bits)).join(""));
const texts = [...tricky, ...mixed];

const files = { ...Object.fromEntries(Object.entries(variants).map(([name, f]) => ["small-" + name, () => f(small())])) };
for (const name of ["qwen2_5", "llama3_1"]) files[name] = () => JSON.parse(fs.readFileSync(`node_modules/@lenml/tokenizer-${name}/models/tokenizer.json`));

const base = small();
const { vocab, merges, ...rest } = base.model;
fs.writeFileSync("small.json", JSON.stringify({ ...base, model: { ...rest, vocab, merges } }));
const vectors = [];
for (const [name, f] of Object.entries(files)) {
  const tokenizer = new Tokenizer(name.startsWith("small-") ? variants[name.slice(6)](base) : f(), {});
  for (const text of texts) vectors.push({ tokenizer: name, text, ids: tokenizer.encode(text, { add_special_tokens: false }).ids });
  vectors.push({ tokenizer: name, text: "framed", special: true, ids: tokenizer.encode("framed").ids });
}
fs.writeFileSync("vectors.jsonl", vectors.map((v) => JSON.stringify(v) + "\n").join(""));

await onig.loadWASM({ data: fs.readFileSync("node_modules/vscode-oniguruma/release/onig.wasm").buffer });
const odd = ["x'ſt'ſ'S", "it'ſ 'ſt", "a\u0085b \u0085\n", "\ufeffa \ufeff", "\u180e x", "\u2003\u2003x", "'\u0073\u0307", "K'S Kelvin \u212a", "\u1c89\u0378x", "ⅷ①٠"];
const more = Array.from({ length: 80 }, () => Array.from({ length: 1 + random(20) }, () => pick([...bits, "ſ", "\u0085", "\u2028", "\u3000", "²", "\ufeff", "\u0378"])).join(""));
const splits = [];
for (const [name, pattern] of Object.entries(patterns)) {
  const scanner = new onig.OnigScanner(["\\G(?:" + pattern + ")"]);
  for (const text of [...texts, ...odd, ...more]) {
    const string = new onig.OnigString(text), pieces = [];
    for (let at = 0; at < text.length; ) {
      const end = scanner.findNextMatchSync(string, at).captureIndices[0].end;
      pieces.push(text.slice(at, end));
      at = end;
    }
    splits.push({ pattern: name, pieces });
  }
}
fs.writeFileSync("splits.jsonl", splits.map((v) => JSON.stringify(v) + "\n").join(""));
