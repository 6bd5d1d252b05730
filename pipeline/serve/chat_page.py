"""A chat page of one small file, for a server without llama.cpp's own: it needs no build.

It asks the server that it came from and nobody else, which its policy makes the browser enforce.
What the model thinks is folded above its answer; what is said stays in the page until it is closed.
Standard library only.
"""

from pipeline.page.document import make_document
from pipeline.page.style import STYLE

_CHAT_STYLE = """\
body { display: flex; flex-direction: column; min-height: 100vh; max-width: 52rem; }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
header label { color: var(--soft); font-size: .9rem; }
#turns { flex: 1; margin: 1rem 0; }
.turn { margin: .8rem 0; padding: .7rem .9rem; border: 1px solid var(--line);
  border-radius: .6rem; background: var(--card); overflow-wrap: anywhere; }
.user { margin-left: 15%; border-color: var(--bar); }
.text { white-space: pre-wrap; }
.failed { color: var(--second, #b4552d); }
.turn details { color: var(--soft); margin: 0 0 .4rem; }
summary { cursor: pointer; }
form { display: flex; gap: .6rem; position: sticky; bottom: 0; padding: .8rem 0;
  background: var(--paper); }
textarea { flex: 1; min-width: 0; resize: vertical; }
textarea, input, select, button { font: inherit; color: inherit; padding: .5rem .7rem;
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
button { cursor: pointer; background: var(--bar); color: var(--paper); border: 0; }
[hidden] { display: none; }
"""

_SCRIPT = """\
const find = id => document.getElementById(id);
const turns = [];
let running = null;

function add(tag, name, parent, text) {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text || '';
  parent.append(element);
  return element;
}

function headers() {
  const key = find('key').value.trim();
  const made = {'Content-Type': 'application/json'};
  return key ? {...made, Authorization: 'Bearer ' + key} : made;
}

function show(role) {
  const turn = add('div', 'turn ' + role, find('turns'));
  const thinking = add('details', 'thinking', turn);
  add('summary', '', thinking, 'Thinking');
  thinking.hidden = true;
  const thought = add('div', 'text', thinking);
  return {turn, thinking, thought, said: add('div', 'text', turn)};
}

async function* read(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\\n');
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
      const sent = JSON.parse(line.slice(6));
      if (sent.error) throw new Error(sent.error.message);
      if (sent.choices && sent.choices.length) yield sent.choices[0].delta;
    }
  }
}

async function ask(signal) {
  const body = {messages: turns, stream: true};
  if (find('adapter').value !== '') body.lora = [{id: Number(find('adapter').value), scale: 1}];
  const options = {method: 'POST', headers: headers(), body: JSON.stringify(body), signal};
  const response = await fetch('v1/chat/completions', options);
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    find('key').parentElement.hidden = response.status !== 401 && !find('key').value;
    throw new Error((told.error && told.error.message) || response.statusText);
  }
  return response;
}

async function answer() {
  const shown = show('assistant');
  const message = {role: 'assistant', content: ''};
  running = new AbortController();
  find('send').textContent = 'Stop';
  try {
    for await (const delta of read(await ask(running.signal))) {
      if (delta.reasoning_content) {
        message.reasoning_content = (message.reasoning_content || '') + delta.reasoning_content;
        shown.thinking.hidden = false;
      }
      message.content += delta.content || '';
      shown.thought.textContent = message.reasoning_content || '';
      shown.said.textContent = message.content;
      window.scrollTo(0, document.body.scrollHeight);
    }
  } catch (error) {
    if (error.name !== 'AbortError') add('div', 'text failed', shown.turn, error.message);
  } finally {
    running = null;
    find('send').textContent = 'Send';
  }
  if (message.content || message.reasoning_content) turns.push(message);
}

function send(event) {
  event.preventDefault();
  if (running) return running.abort();
  const text = find('asked').value;
  if (!text.trim()) return;
  find('asked').value = '';
  turns.push({role: 'user', content: text});
  show('user').said.textContent = text;
  answer();
}

async function learn() {
  const models = await fetch('v1/models', {headers: headers()});
  find('key').parentElement.hidden = models.status !== 401 && !find('key').value;
  if (!models.ok) return;
  const [model] = (await models.json()).data;
  find('model').textContent = document.title = model.id;
  const adapters = await fetch('lora-adapters', {headers: headers()});
  const listed = adapters.ok ? await adapters.json() : [];
  while (find('adapter').options.length > 1) find('adapter').remove(1);
  for (const each of listed) {
    find('adapter').append(new Option('adapter ' + each.id, each.id));
  }
  find('adapter').parentElement.hidden = !listed.length;
}

find('form').addEventListener('submit', send);
find('key').addEventListener('change', learn);
find('asked').addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) send(event);
});
find('again').addEventListener('click', () => {
  if (running) running.abort();
  turns.length = 0;
  find('turns').replaceChildren();
});
learn();
"""

_BODY = """\
<header>
<h1 id="model">Chat</h1>
<label hidden>With <select id="adapter"><option value="">the base</option></select></label>
<label hidden>Key <input id="key" type="password" autocomplete="off"></label>
<button id="again" type="button">New chat</button>
</header>
<main id="turns" aria-live="polite"></main>
<form id="form">
<textarea id="asked" rows="2" aria-label="Your message" autofocus></textarea>
<button id="send">Send</button>
</form>"""


def make_chat_page() -> str:
    """Return the page's HTML."""
    style = STYLE + _CHAT_STYLE
    return make_document(title="Chat", body=_BODY, style=style, script=_SCRIPT, connects=True)
