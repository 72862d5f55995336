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
        let is = |ckn: &String| held.active.as_ref().is_some_and(|active| active.eq_ignore_ascii_case(ckn));
        if held.active.is_some() && !held.installed.iter().any(is) {
            return Err(self.program.refused("it says that it uses a key that it has not installed".to_owned()));
        }
        Ok(held)
    }
}

/// What a program said without the keys that it may have repeated. Words are cut at 300 characters before: what is left of a
/// key at the cut is struck too. Where an answer is not as documented, the reason quotes it.
fn without(error: DeviceError, wanted: &MacSecKeys<'_>) -> DeviceError {
    let tells = |text: &str| {
        let text = text.to_ascii_lowercase();
        let told = |half: &str| {
            let half = half.to_ascii_lowercase();
            half.get(..8).map_or(text.contains(&half), |head| text.contains(head))
        };
        wanted.keys.iter().any(|(ckn, cak)| told(ckn) || told(cak))
    };
    if let DeviceError::Refused { program, message } = &error
        && tells(message)
    {
        return DeviceError::Refused { program: program.clone(), message: "[words that hold a key]".to_owned() };
    }
    if let DeviceError::Malformed { program, source } = &error
        && tells(&source.to_string())
    {
        let at = format!("words that hold a key, at line {} column {}", source.line(), source.column());
        return DeviceError::Malformed { program: program.clone(), source: serde::de::Error::custom(at) };
    }
    error
}
