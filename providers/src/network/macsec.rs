//! MACsec keys of a router's interface, by the operator's program (`docs/routers.md`).

use std::fmt;

use serde::{Deserialize, Serialize};
use tieline_openapi::config::RouterConfig;

use super::{DeviceError, Program};

/// The most keys that one interface can say that it holds: a channel has two.
const MOST: usize = 16;

/// What an interface is to hold, and nothing else. Without an active key nothing goes over it: never in clear.
pub struct MacSecKeys<'a> {
    /// The interface.
    pub interface: &'a str,
    /// CKN and CAK of each key to install, in hexadecimal digits, the oldest first.
    pub keys: Vec<(&'a str, &'a str)>,
    /// The CKN of the key to send under.
    pub active: Option<&'a str>,
}

impl fmt::Debug for MacSecKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacSecKeys").field("interface", &self.interface).field("keys", &self.keys.len()).finish()
    }
}

/// What an interface holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct MacSecHeld {
    /// CKNs of the installed keys.
    pub installed: Vec<String>,
    /// The CKN of the key in use.
    #[serde(default)]
    pub active: Option<String>,
}

/// The program that knows the MACsec of a router: the router's own, or BIRD's hook.
#[derive(Debug)]
pub struct MacSecProgram {
    program: Program,
}

#[derive(Serialize)]
struct Key<'a> {
    ckn: &'a str,
    cak: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "verb", rename = "putMacSecKeys", rename_all = "camelCase")]
struct Request<'a> {
    interface: &'a str,
    keys: Vec<Key<'a>>,
    active: Option<&'a str>,
}

impl MacSecProgram {
    /// The program of a router.
    #[must_use]
    pub fn new(config: &RouterConfig) -> Self {
        Self { program: Program::new(config.id.clone(), config.driver.program()) }
    }

    /// Makes the keys of an interface what is wanted, and says what it holds then. May be repeated.
    ///
    /// # Errors
    /// [`DeviceError`]; then nothing is known of the interface. No text of it holds a key.
    pub async fn put(&self, wanted: &MacSecKeys<'_>) -> Result<MacSecHeld, DeviceError> {
        let keys = wanted.keys.iter().map(|(ckn, cak)| Key { ckn, cak }).collect();
        let request = Request { interface: wanted.interface, keys, active: wanted.active };
        let held: MacSecHeld = self.program.ask(&request, None).await.map_err(|error| without(error, wanted))?;
        if held.installed.len() > MOST {
            return Err(self.program.refused(format!("it lists more than {MOST} keys")));
        }
        Ok(held)
    }
}

/// A program's words without the keys that it may have repeated. They are cut at 300 characters before: what is left of a
/// key at the cut is struck too.
fn without(error: DeviceError, wanted: &MacSecKeys<'_>) -> DeviceError {
    let DeviceError::Refused { program, message } = error else { return error };
    let told = wanted.keys.iter().any(|(ckn, cak)| {
        let begins = |half: &str| half.get(..8).is_some_and(|head| message.contains(head));
        begins(ckn) || begins(cak) || message.contains(ckn)
    });
    let message = if told { "[words that hold a key]".to_owned() } else { message };
    DeviceError::Refused { program, message }
}
