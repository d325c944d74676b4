// The conversation between a device, its clients and the server, as arrows between three lanes.

import { byId, duration, element, setText, size } from './dom.js';

/** The most lines shown. The journal of the server has more. */
const MOST_LINES = 500;

/** The lanes and the direction of an arrow, by the direction of its message. */
const ARROWS = {
  'device->client': ['device', 'client', 'right'],
  'client->device': ['device', 'client', 'left'],
  'device->server': ['device', 'server', 'right'],
  'server->device': ['device', 'server', 'left'],
  'server->client': ['server', 'client', 'right'],
  'client->server': ['server', 'client', 'left'],
};

let last;

/** Clears the conversation, for another device or when the events start again. */
export function clearConversation() {
  last = undefined;
  byId('conversation').replaceChildren();
  byId('lanes').hidden = true;
}

/** Shows a text about the state of the conversation. */
export function noteConversation(hasJournal) {
  const off = 'The journal is off. With --journal, or SignalingServer(journal=True), this is where the messages are.';
  setText(byId('conversation-note'), hasJournal ? '' : off);
}

/** Adds entries of the journal. @param {{skipped: number, entries: object[]}} news */
export function addToConversation({ skipped, entries }) {
  const list = byId('conversation');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  byId('lanes').hidden = false;
  if (skipped > 0) list.append(element('li', { className: 'skipped', textContent: `${skipped} more` }));
  list.append(...entries.map(line));
  while (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function line(entry) {
  const [from, to, way] = ARROWS[entry.direction];
  const gap = last === undefined ? '' : `+${duration(entry.at - last)}`;
  last = entry.at;
  const what = entry.closed ? `✕ ${entry.says}` : (entry.payload_type ?? entry.message_type) || 'no message';
  const time = new Date(entry.at * 1000);
  const details = [
    entry.client === null ? '' : `#${entry.client}`,
    entry.closed ? '' : size(entry.size),
    entry.outcome === 'passed' ? '' : entry.outcome,
    ...entry.faults,
  ];
  const arrow = element(
    'span',
    { className: `arrow ${way} from-${from} to-${to}` },
    element('b', { textContent: what }),
    element('small', { textContent: details.filter(Boolean).join(' · ') }),
  );
  const item = element('li', { title: `${entry.direction}, ${time.toLocaleTimeString()}.${pad(time.getMilliseconds())}` });
  item.append(element('time', { dateTime: time.toISOString(), textContent: gap }), arrow);
  if (entry.outcome !== 'passed' || entry.message_type === 'error') item.className = 'bad';
  else if (entry.closed) item.className = 'end';
  if (entry.message_type === 'error') item.append(element('q', { textContent: entry.says }));
  return item;
}

const pad = (milliseconds) => String(milliseconds).padStart(3, '0');
