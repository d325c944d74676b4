//! Names in a cluster of devices on local sockets, whose own ids are the same on each host.

use crate::core::aliases::LocalNames;

const NODE: &str = "{node}";
const ID: &str = "{id}";

/// The form of a name: `{node}-{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdTemplate {
    text: String,
    /// The text between `{node}` and `{id}`; `None` without `{node}`.
    separator: Option<String>,
}

impl DeviceIdTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// The reason why two devices could get one name, and the fix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let count = |part: &str| text.matches(part).count();
        if count(ID) != 1 || count(NODE) > 1 {
            return Err(format!("{text:?} must have {ID} once, and {NODE} at most once, like {NODE}-{ID}"));
        }
        let rest = text.replace(NODE, "").replace(ID, "");
        if rest.contains(['{', '}']) {
            return Err(format!("{text:?} has a brace that belongs neither to {NODE} nor to {ID}"));
        }
        if rest.contains(char::is_control) {
            return Err(format!("{text:?} has a control character"));
        }
        let separator = match (text.find(NODE), text.find(ID)) {
            (Some(node), Some(id)) if node < id => Some(&text[node + NODE.len()..id]),
            (Some(node), Some(id)) => Some(&text[id + ID.len()..node]),
            _ => None,
        };
        if separator == Some("") {
            return Err(format!("{text:?} has nothing between {NODE} and {ID}: write {NODE}-{ID}"));
        }
        let separator = separator.map(str::to_owned);
        Ok(Self { text: text.to_owned(), separator })
    }

    /// Returns the form of the names on one node.
    pub fn names(&self, node: &str) -> LocalNames {
        let (before, after) = self.text.split_once(ID).unwrap_or((&self.text, ""));
        LocalNames::new(&before.replace(NODE, node), &after.replace(NODE, node))
    }

    /// Checks that the name of a node does not contain the separator: `a-b` with `c`, and `a` with `b-c`, would be one.
    ///
    /// # Errors
    /// The reason and the fix.
    pub fn check_node(&self, node: &str) -> Result<(), String> {
        match &self.separator {
            Some(separator) if node.contains(separator.as_str()) => {
                let template = &self.text;
                Err(format!(
                    "{node:?} contains {separator:?}, which ends the name of the node in `device_id_template` {template:?}: \
                     choose another name, or another separator, like {NODE}:{ID}"
                ))
            }
            _ => Ok(()),
        }
    }
}
