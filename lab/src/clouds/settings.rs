//! How a simulated cloud behaves: who may call it, how long things take, how much it takes.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// How long each transition takes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Delays {
    /// AWS: how long a virtual interface is `pending` at least; it also waits for the port's light.
    pub virtual_interface_pending_ms: u64,
    /// AWS: how long a BGP peer that is added to a living virtual interface is `pending`.
    pub bgp_peer_pending_ms: u64,
    /// AWS: how long a virtual interface or a BGP peer is `deleting`.
    pub deleting_ms: u64,
    /// Google: how long an operation is `PENDING`.
    pub operation_pending_ms: u64,
    /// Google: how long an operation is `RUNNING`; its effect shows when it is `DONE`.
    pub operation_running_ms: u64,
    /// Google: how long an attachment is `UNPROVISIONED` after its insert is done.
    pub attachment_provision_ms: u64,
}

impl Delays {
    /// Everything at once.
    pub const NONE: Self = Self {
        virtual_interface_pending_ms: 0,
        bgp_peer_pending_ms: 0,
        deleting_ms: 0,
        operation_pending_ms: 0,
        operation_running_ms: 0,
        attachment_provision_ms: 0,
    };
}

impl Default for Delays {
    /// A real cloud in a hurry: seconds where real clouds take minutes.
    fn default() -> Self {
        Self {
            virtual_interface_pending_ms: 1_500,
            bgp_peer_pending_ms: 800,
            deleting_ms: 1_000,
            operation_pending_ms: 150,
            operation_running_ms: 650,
            attachment_provision_ms: 600,
        }
    }
}

/// How a simulated cloud behaves.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CloudSettings {
    /// AWS: the one known access key.
    pub access_key_id: String,
    /// AWS: its secret. Every request's signature is checked with it.
    pub secret_access_key: String,
    /// Google: the one known OAuth 2.0 access token.
    pub bearer_token: String,
    /// Whether requests without any credential are taken.
    pub allow_anonymous: bool,
    /// What `/_lab/...` wants in the header `x-lab-token`.
    pub admin_token: String,
    /// How long each transition takes.
    pub delays: Delays,
    /// Above this many calls a second the cloud answers that it is throttling; null: never.
    pub calls_per_second: Option<NonZeroU32>,
    /// AWS: how long a deleted virtual interface stays visible, in milliseconds (15 minutes in the real cloud).
    pub tombstone_ms: u64,
    /// Google: how long a `requestId` answers with the operation that it made, in milliseconds.
    pub request_id_lifetime_ms: u64,
    /// How late lists lag behind writes, in milliseconds.
    pub list_lag_ms: u64,
    /// How late reads of one object lag behind writes, in milliseconds.
    pub read_lag_ms: u64,
    /// How often a waiting simulator looks at its links, in milliseconds.
    pub poll_ms: u64,
    /// Seeds the ids, keys and addresses that the cloud draws: the same seed and the same calls give the same answers.
    pub seed: u64,
}

impl Default for CloudSettings {
    fn default() -> Self {
        Self {
            access_key_id: "TIELINELABACCESSKEY0".to_owned(),
            secret_access_key: "tieline-lab-secret-access-key".to_owned(),
            bearer_token: "tieline-lab-access-token".to_owned(),
            allow_anonymous: false,
            admin_token: "tieline-lab-admin".to_owned(),
            delays: Delays::default(),
            calls_per_second: None,
            tombstone_ms: 900_000,
            request_id_lifetime_ms: 3_600_000,
            list_lag_ms: 0,
            read_lag_ms: 0,
            poll_ms: 50,
            seed: 1,
        }
    }
}

impl std::fmt::Debug for CloudSettings {
    /// Everything but the credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudSettings")
            .field("delays", &self.delays)
            .field("calls_per_second", &self.calls_per_second)
            .field("tombstone_ms", &self.tombstone_ms)
            .field("list_lag_ms", &self.list_lag_ms)
            .field("read_lag_ms", &self.read_lag_ms)
            .finish_non_exhaustive()
    }
}
