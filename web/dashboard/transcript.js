// A conversation as text, in the formats of `journal.transcript()` of Python.

/** Columns between a peer and the server. */
const LANE = 28;
const LABEL = 20;

/**
 * The labels of clients. A client has no id before its device info: the number of its connection tells which client it
 * becomes. `#?2` is the second of the clients that have no id.
 */
function labelsOf(label, entries) {
  const [clients, unnumbered] = [new Map(), new Set()];
  for (const { connection, client, direction } of entries) {
    if (!connection || !direction.includes('client')) continue;
    if (client !== null) clients.set(connection, client);
    unnumbered.add(connection);
  }
  const waiting = [...unnumbered].filter((connection) => !clients.has(connection));
  return ({ client, connection }) => {
    const id = client ?? clients.get(connection);
    if (id !== undefined) return `${label}#${id}`;
    const number = waiting.indexOf(connection) + 1;
    return `${label}#?${number > 1 ? number : ''}`;
  };
}

/** Draws devices on the left, the server in the middle, clients on the right, and problems at the end of a line. */
export function asText(device, entries) {
  if (entries.length === 0) return '(nothing was said)\n';
  const label = cut(printable(device), LABEL);
  const left = Math.max('device'.length, [...label].length);
  const space = ' '.repeat(LANE - 3);
  const lines = [`${'seconds'.padStart(9)}  ${pad('device', left)}  ${space}server${space}  client`];
  const clientOf = labelsOf(label, entries);
  for (const entry of entries) {
    const [lane, right] = laneOf(entry, clientOf);
    const time = (entry.at - entries[0].at).toFixed(3).padStart(9);
    const name = entry.direction.includes('device') ? label : '';
    lines.push(`${time}  ${pad(name, left)}  ${lane}  ${right}${noteOf(entry, ...silenceOf(entry))}`.trimEnd());
  }
  return `${lines.join('\n')}\n`;
}

/** Returns both lanes with the server between them, and the label of the client. */
function laneOf(entry, clientOf) {
  const said = cut(describe(entry), LANE - 5);
  const empty = ' '.repeat(LANE);
  const passed = entry.outcome === 'passed';
  const client = entry.direction.includes('client') ? clientOf(entry) : '';
  const line = {
    'device->client': () => {
      const whole = [...pad(`${said} `, 2 * LANE, '─')];
      const [begin, end] = [whole.slice(0, LANE).join(''), whole.slice(LANE, -1).join('')];
      return passed ? `${begin}┼${end}─▶` : `${whole.slice(0, LANE - 1).join('')}─╳${empty}`;
    },
    'client->device': () => {
      const whole = [...padLeft(` ${said}`, 2 * LANE, '─')];
      const [begin, end] = [whole.slice(1, LANE).join(''), whole.slice(LANE).join('')];
      return passed ? `◀${begin}┼${end}` : `${empty}╳${end}`;
    },
    'device->server': () => `${pad(`${said} `, LANE - 1, '─')}▶│${empty}`,
    'server->device': () => `◀${padLeft(` ${said} ─`, LANE - 1, '─')}│${empty}`,
    'client->server': () => `${empty}│◀${padLeft(` ${said}`, LANE - 1, '─')}`,
    'server->client': () => `${empty}│${pad(`─ ${said} `, LANE - 1, '─')}▶`,
  }[entry.direction];
  return [line(), client];
}

/** Draws a `sequenceDiagram` (mermaid.js.org). */
export function asMermaid(device, entries) {
  const label = cut(printable(device), LABEL);
  const names = new Map();
  const clientOf = labelsOf(label, entries);
  const nameOf = (side, entry) => {
    const words = side === 'client' ? `client ${clientOf(entry)}` : { device: `device ${label}` }[side] ?? side;
    const participant = forMermaid(words);
    if (!names.has(participant)) names.set(participant, `p${names.size}`);
    return names.get(participant);
  };
  const messages = entries.map((entry) => {
    const [sender, wanted] = entry.direction.split('->');
    // A forward that did not reach its receiver ends at the server.
    const receiver = entry.outcome === 'passed' ? wanted : 'server';
    const arrow = entry.outcome !== 'passed' || entry.closed ? '-x' : '->>';
    return `    ${nameOf(sender, entry)}${arrow}${nameOf(receiver, entry)}: ${forMermaid(describe(entry) + noteOf(entry))}`;
  });
  const participants = [...names].map(([participant, name]) => `    participant ${name} as ${participant}`);
  return `${['sequenceDiagram', ...participants, ...messages].join('\n')}\n`;
}

/** Describes an entry in a word or two: the type of a payload or a message, or the end of a connection. */
export function describe(entry) {
  if (entry.closed) return `[${printable(entry.says)}]`;
  if (entry.message_type === 'forward') return printable(entry.payload_type ?? 'forward');
  return printable(entry.message_type || '(not a message)');
}

/** The text of an end for silence, for which the lane has no room. */
const silenceOf = (entry) =>
  entry.closed && entry.direction.startsWith('server') && /^silent for .*, dropped$/.test(entry.says) ? [entry.says] : [];

function noteOf(entry, ...more) {
  const notes = [...entry.faults, ...more];
  if (entry.outcome === 'refused') notes.push('refused');
  if (entry.outcome === 'gone') notes.push('receiver gone');
  const error = errorOf(entry);
  if (error) notes.push(error);
  return notes.length ? `  ! ${printable(notes.join(', '))}` : '';
}

/** The text of an error that the server sent; `null` for all others. */
export function errorOf(entry) {
  if (entry.message_type !== 'error' || entry.closed || !entry.direction.startsWith('server')) return null;
  try {
    return JSON.parse(entry.says).error;
  } catch {
    return entry.says; // Cut, because it is long.
  }
}

/** Escapes the characters that a terminal would interpret, as Python does: the text comes from a peer. */
function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (character) => {
    const simple = { '\t': '\\t', '\n': '\\n', '\r': '\\r' }[character];
    const code = character.codePointAt(0).toString(16);
    if (simple) return simple;
    if (code.length <= 2) return `\\x${code.padStart(2, '0')}`;
    return code.length <= 4 ? `\\u${code.padStart(4, '0')}` : `\\U${code.padStart(8, '0')}`;
  });
}

/** Escapes the characters that Mermaid interprets, as `#35;`. */
const forMermaid = (text) => text.replace(/[#;:<>"{}[\]()]/g, (character) => `#${character.codePointAt(0)};`);

// Lengths are in characters, as in Python, and not in units of UTF-16.

const fill = (text, length, filler) => filler.repeat(Math.max(0, length - [...text].length));

const pad = (text, length, filler = ' ') => text + fill(text, length, filler);

const padLeft = (text, length, filler) => fill(text, length, filler) + text;

/** Cuts a text in the middle: names often differ at their ends. */
function cut(text, length) {
  const characters = [...text];
  if (characters.length <= length) return text;
  const end = Math.floor((length - 1) / 2);
  return `${characters.slice(0, length - 1 - end).join('')}…${characters.slice(-end).join('')}`;
}
