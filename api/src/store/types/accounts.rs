//! Accounts: what is expected in them, and the rounds of their lists.

use tieline_openapi::{
    ids::{AccountId, ConnectionId, ProjectId},
    v1::Timestamp,
};

use super::{Audit, NewEvent};
use crate::plan::step::Instance;

/// How a connection is observed between passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watch {
    /// Each resource is read by itself: the connection is on its way.
    #[default]
    Each,
    /// Settled: the lists of its accounts show its resources, and passes go by what they showed last.
    List,
    /// Settled, and then a list showed something else, or not all of it. Each resource is read by itself; the lists still
    /// expect it, until something was done about it.
    Doubt,
}

/// A resource that an account's lists are expected to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Whose.
    pub connection_id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// How the connection is observed: by lists, or in doubt.
    pub watch: Watch,
    /// As it stands in the store.
    pub instance: Instance,
}

/// What a list showed of a settled connection, where that is not what the store holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its instances that were seen otherwise than before.
    pub instances: Vec<Instance>,
    /// Something is missing or somebody else's: each resource has to be read by itself.
    pub doubt: bool,
}

/// What is known of an account's lists, by the store's time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountWatch {
    /// When the last round began, successful or not.
    pub tried_ms_ago: Option<u64>,
    /// When the last sweep began.
    pub swept_ms_ago: Option<u64>,
    /// When the last complete lists were asked for, by the engine's clock.
    pub observed_at: Option<Timestamp>,
    /// Rounds in a row that were not complete.
    pub failures: u32,
    /// Resources that the last complete lists should have shown.
    pub expected: u32,
    /// Of these, how many they did not show.
    pub absent: u32,
    /// How many of them a person has said are meant to be gone.
    pub accepted: u32,
    /// Nothing is created in the account.
    pub held: bool,
    /// The last round had more than one page and showed everything as it was, and no list of another account has shown
    /// anything new since.
    pub calm: bool,
}

/// A person's word that what is absent is meant to be gone.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// In which account.
    pub account_id: AccountId,
    /// The code of the issue that this resolves.
    pub code: String,
    /// Its subject.
    pub subject: String,
    /// The event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// When.
    pub at: Timestamp,
}

/// The end of a round of lists.
#[derive(Debug, Clone)]
pub struct AccountRound {
    /// The account.
    pub account_id: AccountId,
    /// How long ago the round began, in milliseconds.
    pub began_ms_ago: u64,
    /// When its lists were asked for, by the engine's clock; none where they were not complete.
    pub observed_at: Option<Timestamp>,
    /// Whether strays were looked for.
    pub swept: bool,
    /// As [`AccountWatch::failures`], and so on.
    pub failures: u32,
    /// Resources that the lists should have shown.
    pub expected: u32,
    /// How many they did not show.
    pub absent: u32,
    /// Absences that are meant.
    pub accepted: u32,
    /// Nothing is created in the account.
    pub held: bool,
    /// It had more than one page, and showed everything as it was.
    pub calm: bool,
}
