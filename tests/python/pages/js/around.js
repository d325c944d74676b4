import { DeviceFrameMessage } from './server_connector.js';

window.posted = [];
addEventListener('message', ({ data, origin }) => {
  if (data instanceof DeviceFrameMessage && data.type === DeviceFrameMessage.TYPE_DISPLAYS_INFO) {
    window.posted.push({ origin, payload: data.payload });
  }
});
