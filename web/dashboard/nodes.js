// The nodes of the cluster, if the server is one of them, and whether its lists are of now.

import { byId, element, setText, show } from './dom.js';
import { ago, count } from './words.js';

/** Lists of more nodes are closed at first. */
const MOST_OPEN = 4;

/** An explanation of each state of a node but the usual one. */
const MEANING = {
  alone: 'has not reached the engine since it started',
  rejoining: 'cannot use the engine, and tries again',
  draining: 'is about to stop, and takes no new peers',
  unreachable: 'does not answer this node',
};

/** The states, those that need attention first. */
const STATES = ['unreachable', 'alone', 'rejoining', 'draining', 'in'];

/** @param {object | undefined} cluster The state of the cluster. `undefined`: the server is no node of one. */
export function showCluster(cluster) {
  showAge(cluster);
  const nodes = cluster?.nodes;
  const box = byId('cluster');
  box.hidden = !nodes;
  if (!nodes) return;
  // Once: the viewer may close it.
  if (!box.dataset.shown) box.open = nodes.length <= MOST_OPEN;
  box.dataset.shown = true;
  setText(byId('nodes-title'), count(nodes.length, 'node'));
  const numbers = STATES.map((state) => [nodes.filter((node) => node.state === state).length, state]);
  const others = numbers.filter(([number, state]) => number > 0 && state !== 'in');
  setText(byId('nodes-states'), others.map(([number, state]) => `${number} ${state}`).join(', '));
  show(byId('node-rows'), nodes, ({ name, is_this }) => `${is_this} ${name}`, makeNode, updateNode);
}

function makeNode() {
  const [name, ...others] = [element('th', { scope: 'row' }), ...Array.from({ length: 5 }, () => element('td'))];
  name.append(element('span'), element('small'));
  others[0].append(element('span'), element('small'));
  return element('tr', {}, name, ...others);
}

function updateNode(row, node) {
  const [name, state, address, build, devices, clients] = row.children;
  setText(name.firstElementChild, node.name);
  setText(name.lastElementChild, node.is_this ? 'this node' : '');
  setText(state.firstElementChild, node.state);
  state.classList.toggle('bad', ['unreachable', 'alone', 'rejoining'].includes(node.state));
  const notes = [MEANING[node.state], node.differs && 'has other settings than this node'];
  setText(state.lastElementChild, notes.filter(Boolean).join('; '));
  setText(address, node.address);
  setText(build, node.build);
  setText(devices, node.devices.toLocaleString('en'));
  setText(clients, node.clients?.toLocaleString('en') ?? 'unknown');
}

/** Says for how long the registry could not be asked. */
function showAge(cluster) {
  byId('stale').classList.toggle('bad', Boolean(cluster?.stale_since));
  if (!cluster?.stale_since) {
    setText(byId('stale'), '');
    return;
  }
  const time = ago(cluster.stale_since);
  setText(byId('stale'), cluster.state === 'alone'
    ? `This node started alone: it has not reached the engine of the cluster for ${time}. Devices of other nodes are missing.`
    : `The engine of the cluster cannot be reached. Devices of other nodes are as they were ${time} ago.`);
}
