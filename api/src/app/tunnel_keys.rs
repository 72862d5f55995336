//! Preshared keys of the tunnels between gateways: drawn here, sealed in the store, given to the two that have one.
//!
//! The two hear of a change at different times; one may be cut off from the API for a day, or start anew in between. So a
//! change is one generation at a time: while it is under way both are told the key before as well, the next one begins
//! when both have said that they run a configuration with this one, and until then traffic goes on by either. A pair
//! without a key is one whose key is none: switching keys on and off is a change like any other.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::BASE64;
use secrecy::SecretString;
use tieline_openapi::{
    ids::GatewayId,
    v1::{GatewayConfiguration, PresharedKey},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{App, AppError};
use crate::{
    events::Topic,
    secrets::Place,
    store::{TunnelKey, TunnelKeyChange, TunnelKeyDue},
};

/// Between two looks at what is due, at most, and at least where what gateways are told changes all the time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// Pairs that one look reads at a time.
const PAIRS: u32 = 100;
const HOUR_MS: u64 = 3_600_000;

fn place([low, high]: [GatewayId; 2], generation: u32) -> Place {
    Place::new("presharedKey", format!("gateways/{low}/{high}/{generation}"))
}

fn pair(one: GatewayId, other: GatewayId) -> [GatewayId; 2] {
    if one.to_string() < other.to_string() { [one, other] } else { [other, one] }
}

impl App {
    /// Puts into a gateway's configuration the keys that it has with its peers.
    pub(super) fn give_tunnel_keys(
        &self,
        id: GatewayId,
        keys: &BTreeMap<GatewayId, TunnelKey>,
        configuration: &mut GatewayConfiguration,
    ) -> Result<(), AppError> {
        for peer in configuration.connections.iter_mut().flat_map(|connection| &mut connection.peers) {
            let Some(key) = keys.get(&peer.gateway_id) else { continue };
            let open = |sealed: &Option<Vec<u8>>, generation: u32| {
                let place = place(pair(id, peer.gateway_id), generation);
                let opened = sealed.as_ref().map(|sealed| self.vault.open_at(&place, sealed)).transpose();
                opened.map(|text| text.map(PresharedKey::new)).map_err(AppError::Seal)
            };
            let former = open(&key.former, key.generation.saturating_sub(1))?;
            peer.preshared_key = open(&key.sealed, key.generation)?;
            (peer.preshared_key_changing, peer.former_preshared_key) = (key.changing, former);
        }
        Ok(())
    }

    /// Changes the preshared keys that are due; returns how many were changed.
    ///
    /// # Errors
    /// [`AppError::Seal`], or the store's.
    pub async fn rotate_tunnel_keys(&self) -> Result<usize, AppError> {
        let age_ms = self.topology.tunnel.preshared_key_hours.map(|hours| u64::from(hours) * HOUR_MS);
        let mut changed = 0;
        for due in self.store.tunnel_keys_due(age_ms, PAIRS).await? {
            let change = match (due.changing, due.has_key) {
                (true, true) => TunnelKeyChange::Settle,
                (true, false) => TunnelKeyChange::Forget,
                (false, _) => {
                    let sealed = age_ms.map(|_| self.draw_tunnel_key(&due)).transpose()?;
                    TunnelKeyChange::Begin { sealed }
                }
            };
            changed += usize::from(self.store.change_tunnel_key(due, change).await?);
        }
        Ok(changed)
    }

    fn draw_tunnel_key(&self, due: &TunnelKeyDue) -> Result<Vec<u8>, AppError> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.random.fill(&mut *bytes);
        let text = Zeroizing::new(BASE64.encode(bytes.as_slice()));
        let place = place(due.gateways, due.generation + 1);
        self.vault.seal_at(&place, &SecretString::from(text.as_str())).map_err(AppError::Seal)
    }

    /// Changes what is due, again and again, until `stop`. Of several replicas that do so at once, one changes a key.
    pub async fn keep_tunnel_keys(&self, stop: CancellationToken) {
        let mut news = self.hints.subscribe(Topic::Configuration);
        while !stop.is_cancelled() {
            match self.rotate_tunnel_keys().await {
                Ok(changed) if changed >= PAIRS as usize => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error.cause = %error, "preshared keys of tunnels were not changed; trying again")
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = async {
                    self.clock.sleep(PAUSE).await;
                    news.wait_at_most(&*self.clock, LOOK_EVERY).await;
                } => {}
            }
        }
    }
}
