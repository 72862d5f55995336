//! A router that a program of the operator's knows how to configure.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Device, DeviceError, Listed, Owner, Program, Session, SessionName};

/// Sessions that one list may hold.
const MOST: usize = 10_000;

/// A router behind a program.
#[derive(Debug)]
pub struct Command {
    program: Program,
}

#[derive(Serialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Request<'a> {
    ListSessions { prefix: &'a str },
    PutSession { fingerprint: String, session: &'a Session },
    DeleteSession { name: &'a SessionName },
}

#[derive(Deserialize)]
struct Sessions {
    sessions: BTreeMap<SessionName, Listed>,
}

/// An answer that says nothing but that it was done.
#[derive(Deserialize)]
pub(super) struct Done {}

impl Command {
    /// The router that a program knows.
    #[must_use]
    pub const fn new(program: Program) -> Self {
        Self { program }
    }
}

#[async_trait]
impl Device for Command {
    async fn list(&self, owner: &Owner) -> Result<BTreeMap<SessionName, Listed>, DeviceError> {
        let Sessions { mut sessions } =
            self.program.ask(&Request::ListSessions { prefix: owner.prefix() }, None).await?;
        sessions.retain(|name, _| owner.owns(name));
        if sessions.len() > MOST {
            return Err(self.program.refused(format!("it lists more than {MOST} sessions")));
        }
        Ok(sessions)
    }

    async fn put(&self, session: &Session) -> Result<(), DeviceError> {
        let request = Request::PutSession { fingerprint: session.fingerprint(), session };
        self.program.ask::<Done>(&request, Some(session.password.expose())).await.map(|Done {}| ())
    }

    async fn delete(&self, name: &SessionName) -> Result<(), DeviceError> {
        self.program.ask::<Done>(&Request::DeleteSession { name }, None).await.map(|Done {}| ())
    }
}
