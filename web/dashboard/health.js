// The counters of the server, at the top of the page, and what went wrong, in sentences.

import { byId, element, setText, show, showFacts } from './dom.js';
import { showCluster } from './nodes.js';
import { Rates } from './rates.js';
import { ago, clock, count } from './words.js';

/** An explanation of each kind of incident. */
const MEANING = {
  turned_away: 'answered 503: too many, or too fast',
  openings_cut: 'connections dropped that had not said what they want',
  foreign: 'requests of a Host, origin or site that is not allowed',
  unauthorized: 'refused by a hook, or for lack of a grant',
  misbehaved: 'peers that broke the rules',
  too_fast: 'peers that sent too fast',
  slow_consumers: 'peers that did not read',
  errors_withheld: 'errors withheld from devices',
  hooks_not_called: 'hook calls for which no thread was free',
  forwarded_ignored: 'requests with headers of a proxy that is not trusted',
  ice_command_failures: 'runs of the ICE server command that failed',
  silent: 'peers that did not answer a ping',
  upstream_failures: 'connections and requests that the server behind this proxy did not take',
  panics: 'a bug of the server: please report it',
};

/** The way in which a call of a hook failed. */
const FAILED = new Map([
  ['raised', 'raised an exception or returned an invalid value; the log says which'],
  ['timed_out', 'gave no answer in time'],
  ['not_called', 'was not called: no thread was free'],
]);

const rates = new Rates(byId('rate'));

/** @param {object} server The counters that the server sent. */
export function showHealth(server) {
  const under_way = server.accepted - server.delivered - server.refused - server.gone - server.dropped;
  const number = (value) => value?.toLocaleString('en') ?? null;
  showFacts(byId('health'), [
    ['devices', number(server.devices)],
    ['clients', number(server.clients)],
    // A viewer that may see some devices only gets no numbers of all.
    ['waiting', number(server.waiting)],
    ['connections', number(server.connections)],
    ['messages', number(server.accepted)],
    ['delivered', number(server.delivered)],
    ['under way', number(under_way || null)],
    ['refused', number(server.refused || null)],
    ['gone', number(server.gone || null)],
    ['dropped', number(server.dropped || null)],
  ]);
  setText(byId('about'), `version ${server.version}, up ${ago(server.started)}`);
  byId('rate').hidden = server.accepted === undefined;
  showCluster(server.cluster);
  showTroubles(server);
}

/** Adds a second to the line. */
export function countMessages(server) {
  if (server.accepted !== undefined) rates.add(server.accepted);
}

/** Begins the line anew, after a break. */
export const clearRates = () => rates.clear();

function showTroubles({ incidents = {}, hook_failures = 0, hook_errors = [] }) {
  const kinds = Object.entries(incidents);
  const all = kinds.reduce((sum, [, number]) => sum + number, hook_failures);
  byId('troubles').hidden = all === 0;
  setText(byId('troubles-title'), count(all, 'incident'));
  show(byId('incidents'), kinds, ([kind]) => kind, incident, (item, [kind, number]) => {
    setText(item.firstElementChild, `${number.toLocaleString('en')} × ${kind.replaceAll('_', ' ')}`);
    setText(item.lastElementChild, `: ${MEANING[kind] ?? 'a kind that this page does not know'}`);
  });
  setText(byId('hook-failures'), hook_failures > 0 ? `${count(hook_failures, 'call')} of hooks failed. The latest:` : '');
  // Two calls of a hook may fail for one peer at the same time, so the place is the key.
  show(byId('hook-errors'), hook_errors.map((error, at) => ({ ...error, at_place: at })), ({ at_place }) => String(at_place), incident,
    (item, { at, hook, peer, how }) => {
      setText(item.firstElementChild, clock(at));
      setText(item.lastElementChild, `: ${hook} ${FAILED.get(how) ?? how} (for ${peer})`);
    });
}

const incident = () => element('li', {}, element('b'), element('span'));
