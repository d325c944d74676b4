//! Helpers in terms of the protocol, for tests beyond the transcripts.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::peer::Role;

use crate::harness::Harness;

pub fn harness() -> Harness {
    Harness::new(Config::default())
}

impl Harness {
    pub fn registers(&mut self, name: &str, id: &str) {
        self.opens(name, Role::Device);
        self.says(name, &format!(r#"{{"message_type":"register","device_id":"{id}","device_info":"{name}"}}"#));
    }

    pub fn connects(&mut self, name: &str, id: &str) {
        self.opens(name, Role::Client);
        self.says(name, &format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#));
    }

    pub fn forwards(&mut self, client: &str, payload: &str) {
        self.says(client, &format!(r#"{{"message_type":"forward","payload":{payload}}}"#));
    }

    pub fn forwards_to(&mut self, device: &str, id: u32, payload: &str) {
        self.says(device, &format!(r#"{{"message_type":"forward","client_id":{id},"payload":{payload}}}"#));
    }

    /// All messages since the last call.
    pub fn all_heard(&mut self, name: &str) -> Vec<String> {
        std::iter::from_fn(|| self.hears(name)).collect()
    }
}

pub fn config() -> String {
    r#"{"message_type":"config","ice_servers":[]}"#.into()
}

pub fn device_info(info: &str) -> String {
    format!(r#"{{"message_type":"device_info","device_info":"{info}"}}"#)
}

pub fn client_msg(id: u32, payload: &str) -> String {
    format!(r#"{{"message_type":"client_msg","client_id":{id},"payload":{payload}}}"#)
}

pub fn device_msg(payload: &str) -> String {
    format!(r#"{{"message_type":"device_msg","payload":{payload}}}"#)
}

pub fn client_disconnected(id: u32) -> String {
    format!(r#"{{"message_type":"client_disconnected","client_id":{id}}}"#)
}

pub fn error(text: &str) -> String {
    format!(r#"{{"error":"{text}"}}"#)
}
