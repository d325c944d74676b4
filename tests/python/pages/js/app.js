// Uses the server through its connector, as Cuttlefish's page does. The results are on `window`.
import { createConnector, createParentController, deviceId } from './server_connector.js';

window.heard = [];
window.states = [];
window.deviceId = deviceId;

window.connect = async (id) => {
  window.connector = await createConnector();
  window.connector.onStateChange?.((state) => window.states.push(state));
  window.connector.onDeviceMsg((message) => window.heard.push(message));
  return window.connector.requestDevice(id ?? deviceId());
};

/** An outcome that can leave the page: what came, or the words of the error. */
window.outcome = (promise) => promise.then((value) => ({ value: value ?? null }), (error) => ({ error: error.message }));

window.send = (message) => window.outcome(window.connector.sendToDevice(message));

window.tellDisplays = () => {
  const message = createParentController().createDeviceDisplaysMessage(90);
  message.addDisplay('display_0', 720, 1280);
  message.addDisplay('display_1', 600, 400);
  message.send();
};

window.ready = true;
