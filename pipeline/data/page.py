"""The text of report.html: its body, its style and its script.

Here and not in files of their own, because an artifact's key holds the digests of the modules that
its stage imports, and of nothing else. Texts of rows reach the page as text nodes alone, so nothing
in a row can become markup.
"""

from pipeline.page import style as page_style

TITLE = "Training data"
BODY = """\
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
<div id="row" class="tokens"></div>
<noscript><p>This needs JavaScript; <code>masks ROW</code> shows a row in a terminal.</p></noscript>
<h2>Plots</h2>
<div class="plots">{plots}</div>
{examples}
<script type="application/json" id="data">{data}</script>"""

STYLE = (
    page_style.STYLE
    + """\
.tools { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .7rem 0; }
.tools input { flex: 1 1 12rem; min-width: 0; }
.tools input, .tools select, .tools button {
  font: inherit; color: inherit; background: var(--card); padding: .35rem .7rem;
  border: 1px solid var(--line); border-radius: .4rem;
}
.tools button:disabled { opacity: .45; }
#about { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#row { min-height: 12rem; }
.gap { color: var(--soft); font-style: italic; }
#row span:hover { outline: 1px solid var(--bar); }
"""
)

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
