// The counters of the server, at the top of the page.

import { ago, byId, element, setText, show, showFacts } from './dom.js';

/** An explanation of each kind of incident. */
const MEANING = {
  turned_away: 'answered 503: too many, or too fast',
  openings_cut: 'connections dropped that had not said what they want',
  foreign: 'requests of a Host, origin or site that is not allowed',
  unauthorized: 'refused by a hook',
  misbehaved: 'peers that broke the rules',
  too_fast: 'peers that sent too fast',
  slow_consumers: 'peers that did not read',
  errors_withheld: 'errors withheld from devices',
  hooks_not_called: 'hook calls for which no thread was free',
  forwarded_ignored: 'requests with headers of a proxy that is not trusted',
  ice_command_failures: 'runs of the ICE server command that failed',
  silent: 'peers that did not answer a ping',
  panics: 'a bug of the server: please report it',
};

/** @param {object} server The counters that the server sent. */
export function showHealth(server) {
  const under_way = server.accepted - server.delivered - server.refused - server.gone - server.dropped;
  showFacts(byId('health'), [
    ['devices', server.devices],
    ['clients', server.clients],
    // A viewer that may see some devices only gets no numbers of all.
    ['waiting', server.waiting ?? null],
    ['connections', server.connections ?? null],
    ['forwards', server.accepted ?? null],
    ['delivered', server.delivered ?? null],
    ['under way', under_way || null],
    ['refused', server.refused || null],
    ['gone', server.gone || null],
    ['dropped', server.dropped || null],
    ['up', ago(server.started)],
    ['version', server.version],
  ]);
  const incidents = Object.entries(server.incidents ?? {});
  byId('incidents').hidden = incidents.length === 0;
  show(byId('incidents'), incidents, ([kind]) => kind, () => element('li'), (item, [kind, count]) => {
    setText(item, `${count} × ${kind.replaceAll('_', ' ')}`);
    item.title = MEANING[kind] ?? '';
  });
}
