"""The look of every page: colours by day and by night, tables, plots, supervised tokens."""

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
:focus-visible { outline: 2px solid var(--bar); outline-offset: 1px; }
.tokens {
  margin: .6rem 0; padding: .9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 14px/1.75 ui-monospace, monospace;
}
.taught {
  background: var(--taught); color: var(--taught-ink); border-bottom: 2px solid currentColor;
}
.control { color: var(--control); font-weight: 700; }
"""
