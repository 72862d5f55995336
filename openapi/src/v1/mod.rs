//! The shapes of `/v1`. Enums are bare; unknown fields in a body are an error; times are RFC 3339 in UTC.

pub mod activation_key;
pub mod connection;
pub mod event;
pub mod gateway;
pub mod intent;
pub mod issue;
pub mod operation;
pub mod placement;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod token;
pub mod topology;

pub use activation_key::*;
pub use connection::*;
pub use event::*;
pub use gateway::*;
pub use intent::*;
pub use issue::*;
pub use operation::*;
pub use placement::*;
pub use plan::*;
pub use token::*;
pub use topology::*;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An instant, RFC 3339 in UTC, stored with millisecond precision.
pub type Timestamp = jiff::Timestamp;

/// The two ends of a connection. Every field that belongs to one side stands under its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The first end.
    A,
    /// The second end.
    B,
}

impl End {
    /// Both ends, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The opposite end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`, as in JSON pointers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A value for each end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends<T> {
    /// The value of end a.
    pub a: T,
    /// The value of end b.
    pub b: T,
}

impl<T> Ends<T> {
    /// The value of one end.
    pub const fn get(&self, end: End) -> &T {
        match end {
            End::A => &self.a,
            End::B => &self.b,
        }
    }

    /// The value of one end, to change.
    pub const fn get_mut(&mut self, end: End) -> &mut T {
        match end {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    /// The same for both ends, made by a function.
    pub fn map<'s, U>(&'s self, mut f: impl FnMut(End, &'s T) -> U) -> Ends<U> {
        Ends { a: f(End::A, &self.a), b: f(End::B, &self.b) }
    }
}
