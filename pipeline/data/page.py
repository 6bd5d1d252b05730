"""The text of report.html: its frame, its style and its script.

Here and not in files of their own, because an artifact's key holds the digests of the modules that
its stage imports, and of nothing else. Texts of rows reach the page as text nodes alone, so nothing
in a row can become markup.
"""

FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Training data</title>
<style>{style}</style>
</head>
<body>
<h1>Training data</h1>
<p>What the model is taught, token by token.</p>
<h2>Numbers</h2>
<div class="wide">{table}</div>
<h2>Rows</h2>
<p>{sample} Coloured and underlined: supervised, the model learns to write it. Violet: a control
token, not text that is spelled like one.</p>
<div class="tools">
<input id="search" type="search" placeholder="Search in the rows shown" aria-label="Search">
<select id="split" aria-label="Split"><option value="">all</option>{options}</select>
<button id="previous" type="button">Previous</button>
<button id="next" type="button">Next</button>
<span id="count" role="status"></span>
</div>
<p id="about"></p>
<div id="row"></div>
<noscript><p>This needs JavaScript; <code>masks ROW</code> shows a row in a terminal.</p></noscript>
<h2>Plots</h2>
<div class="plots">{plots}</div>
{examples}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --ink: #1d1f22; --soft: #5c626b; --line: #d9d6cd; --card: #ffffff;
  --bar: #3f6fb5; --taught: #cfeed6; --taught-ink: #0e4a22; --control: #7a4fa3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --ink: #e6e4df; --soft: #a2a8b0; --line: #353a40; --card: #1e2124;
    --bar: #7fa8e6; --taught: #173f26; --taught-ink: #b9f0c8; --control: #cba6f0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.2rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif;
}
h1 { margin: 0; font-size: 1.5rem; }
h2 { margin: 2rem 0 .6rem; font-size: 1.15rem; }
p { margin: .3rem 0; color: var(--soft); max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
th { color: var(--soft); font-weight: 500; }
.plots {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
}
figure {
  margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem;
}
figcaption { margin-bottom: .4rem; font-weight: 600; font-size: .95rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.bar { fill: var(--bar); }
.axis { stroke: var(--line); }
details { margin-top: 1rem; }
dt { margin-top: .4rem; font-weight: 600; }
dd { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.tools { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .7rem 0; }
.tools input { flex: 1 1 12rem; min-width: 0; }
.tools input, .tools select, .tools button {
  font: inherit; color: inherit; background: var(--card); padding: .35rem .7rem;
  border: 1px solid var(--line); border-radius: .4rem;
}
.tools button:disabled { opacity: .45; }
:focus-visible { outline: 2px solid var(--bar); outline-offset: 1px; }
#about { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#row {
  min-height: 12rem; margin: .6rem 0; padding: .9rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 14px/1.75 ui-monospace, monospace;
}
.taught {
  background: var(--taught); color: var(--taught-ink); border-bottom: 2px solid currentColor;
}
.control { color: var(--control); font-weight: 700; }
.gap { color: var(--soft); font-style: italic; }
#row span:hover { outline: 1px solid var(--bar); }
"""

SCRIPT = r""""use strict";
const rows = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const [search, split, previous, next] = ["search", "split", "previous", "next"].map(find);
const TAUGHT = 1, CONTROL = 2, GAP = 4;
let hits = [], at = 0;

for (const row of rows) {
  row.words = [row.id, row.domain, row.source, row.texts.join("")].join("\n").toLowerCase();
}

function choose() {
  const wanted = search.value.toLowerCase();
  const from = split.value;
  hits = rows.filter((row) => (!from || row.split === from) && row.words.includes(wanted));
  at = 0;
  show();
}

function makeToken(text, flags, number) {
  const token = document.createElement("span");
  if (flags & TAUGHT) token.classList.add("taught");
  if (flags & CONTROL) token.classList.add("control");
  if (flags & GAP) token.classList.add("gap");
  // What would not be seen, or would turn the text around it, is spelled out.
  token.textContent = text
    .replace(/(?![\n\t])[\p{Cc}\p{Cf}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`)
    .replaceAll("\n", "⏎\n");
  token.title = flags & GAP ? "" : `token ${number}`;
  return token;
}

function show() {
  const row = hits[at];
  previous.disabled = at <= 0;
  next.disabled = at >= hits.length - 1;
  find("count").textContent = hits.length ? `${at + 1} of ${hits.length}` : "no row";
  if (!row) {
    find("about").textContent = "";
    find("row").replaceChildren();
    return;
  }
  const about = [`row ${row.id}`, row.split.replace("_", " "), row.domain, row.source];
  about.push(`${row.tokens} tokens, ${row.supervised} supervised`);
  find("about").textContent = about.filter(Boolean).join(" · ");
  find("row").replaceChildren(
    ...row.texts.map((text, n) => makeToken(text, Number(row.flags[n]), row.numbers[n])),
  );
}

function move(by) {
  at = Math.max(0, Math.min(hits.length - 1, at + by));
  show();
}

search.addEventListener("input", choose);
split.addEventListener("change", choose);
previous.addEventListener("click", () => move(-1));
next.addEventListener("click", () => move(1));
document.addEventListener("keydown", (event) => {
  if (event.target === search || event.target === split) return;
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
choose();
"""
