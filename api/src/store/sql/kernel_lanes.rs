//! The lanes that gateways have in their kernels, one for each pair of gateways.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::GatewayId,
    v1::{KernelLane, Lane, TunnelBackend},
};

use super::{
    SqlStore,
    row::{Row, args, to_doc},
    tx::Tx,
};
use crate::store::StoreError;

/// Those that others have for a gateway.
pub(super) async fn to(tx: &mut Tx, gateway: GatewayId) -> Result<BTreeMap<GatewayId, Lane>, StoreError> {
    let sql = "SELECT gateway_id, doc FROM kernel_lanes WHERE peer_id = $1";
    let read = |mut row: Row| {
        let (peer, KernelLane { public_key, endpoint, .. }) = (row.id()?, row.doc("kernel lane")?);
        Ok((peer, Lane { n: 0, public_key, endpoint, backend: TunnelBackend::Kernel }))
    };
    tx.rows(sql, args![gateway.uuid()]).await?.into_iter().map(read).collect()
}

impl SqlStore {
    pub(super) async fn replace_kernel_lanes(&self, id: GatewayId, lanes: &[KernelLane]) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        // One at a time for each gateway: the row is held until the commit.
        let held =
            write.row("UPDATE gateways SET number = number WHERE id = $1 RETURNING project", args![id.uuid()]).await?;
        let project = held.ok_or(StoreError::NotFound)?.text()?;
        let rows = write.rows("SELECT peer_id, doc FROM kernel_lanes WHERE gateway_id = $1", args![id.uuid()]).await?;
        let read = |mut row: Row| Ok((row.id()?, row.doc("kernel lane")?));
        let had: BTreeMap<GatewayId, KernelLane> = rows.into_iter().map(read).collect::<Result<_, StoreError>>()?;
        let mut changed = 0;
        for peer in had.keys().filter(|peer| lanes.iter().all(|lane| lane.peer_id != **peer)) {
            let sql = "DELETE FROM kernel_lanes WHERE gateway_id = $1 AND peer_id = $2";
            changed += write.execute(sql, args![id.uuid(), peer.uuid()]).await?;
        }
        for lane in lanes.iter().filter(|lane| had.get(&lane.peer_id) != Some(lane)) {
            let sql = "INSERT INTO kernel_lanes (gateway_id, peer_id, doc)
                       SELECT $1, id, $3 FROM gateways WHERE id = $2 AND project = $4 AND id <> $1
                       ON CONFLICT (gateway_id, peer_id) DO UPDATE SET doc = excluded.doc";
            let values = args![id.uuid(), lane.peer_id.uuid(), to_doc("kernel lane", lane)?, project.as_str()];
            changed += write.execute(sql, values).await?;
        }
        if changed == 0 {
            return write.abandon().await;
        }
        write.configuration_changed();
        write.commit().await
    }
}
