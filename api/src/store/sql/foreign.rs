//! What others occupy of our ports and attach points, as lists showed it. It is no allocation: a connection's own stays its
//! own whoever turns up beside it, and nothing of a stranger's is ever touched.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::ids::{AccountId, AttachPointId, PortId};
use tieline_providers::ResourceKind;

use super::{
    allocations::{self, slots},
    questions::{
        Column::{Int, Text},
        Question,
    },
    records,
    row::{Row, Value, args},
    tx::Tx,
};
use crate::{
    plan::negotiate::Allocated,
    store::{Holding, StoreError},
};

/// Arguments of one statement.
const CHUNK: usize = 400;

/// Columns of a holding, after the account.
const COLUMNS: &str = "kind, cloud_id, port_id, vlan, attach_point_id, subnet";

fn holding(row: &mut Row) -> Result<Holding, StoreError> {
    let (kind, cloud_id) = (row.text()?, row.text()?);
    let (port, vlan) = (row.opt_text()?, row.opt_int()?);
    let (point, subnet) = (row.opt_text()?, row.opt_text()?);
    let vlan = match (port, vlan) {
        (Some(port), Some(vlan)) => Some((port.parse()?, u16::try_from(vlan).unwrap_or_default())),
        _ => None,
    };
    let subnet = match (point, subnet) {
        (Some(point), Some(subnet)) => Some((point.parse()?, allocations::subnet(&subnet)?)),
        _ => None,
    };
    Ok(Holding { kind: ResourceKind(kind.into()), cloud_id, vlan, subnet })
}

/// Brings the account's holdings to what its lists show. Of kinds that were not listed whole, what is not shown stays.
pub(super) async fn put(
    tx: &mut Tx,
    account: &AccountId,
    whole: &BTreeSet<ResourceKind>,
    holdings: Vec<Holding>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM foreign_holdings WHERE account_id = $1");
    let mut before = BTreeMap::new();
    for mut row in tx.rows(&sql, args![account.as_str()]).await? {
        let one = holding(&mut row)?;
        before.insert((one.kind.clone(), one.cloud_id.clone()), one);
    }
    let ours = recorded(tx, account, &holdings).await?;
    for one in holdings.into_iter().filter(|one| !ours.contains(&one.cloud_id)) {
        if before.remove(&(one.kind.clone(), one.cloud_id.clone())).as_ref() != Some(&one) {
            write(tx, account, &one).await?;
        }
    }
    for ((kind, cloud_id), _) in before {
        if whole.contains(&kind) {
            tx.execute(
                "DELETE FROM foreign_holdings WHERE account_id = $1 AND kind = $2 AND cloud_id = $3",
                args![account.as_str(), kind.as_str(), cloud_id],
            )
            .await?;
        }
    }
    Ok(())
}

/// Which of these are recorded as our own: what can carry no name is known by its cloud's id alone.
async fn recorded(tx: &mut Tx, account: &AccountId, holdings: &[Holding]) -> Result<BTreeSet<String>, StoreError> {
    let mut ours = BTreeSet::new();
    for chunk in holdings.chunks(CHUNK) {
        let mut args = args![account.as_str()];
        args.extend(chunk.iter().map(|one| Value::from(&one.cloud_id)));
        let sql = format!(
            "SELECT cloud_id FROM instances WHERE account_id = $1 AND retired_at IS NULL AND cloud_id IN {}",
            records::list_from(2, chunk.len())
        );
        for mut row in tx.rows(&sql, args).await? {
            ours.insert(row.text()?);
        }
    }
    Ok(ours)
}

async fn write(tx: &mut Tx, account: &AccountId, one: &Holding) -> Result<(), StoreError> {
    let (port, vlan) = one.vlan.as_ref().map(|(port, vlan)| (port.to_string(), i64::from(*vlan))).unzip();
    let (point, subnet) = one.subnet.as_ref().map(|(point, subnet)| (point.to_string(), subnet.to_string())).unzip();
    let (first, last) = one.subnet.as_ref().map(|(_, subnet)| slots(*subnet)).transpose()?.unzip();
    tx.execute(
        "INSERT INTO foreign_holdings (account_id, kind, cloud_id, port_id, vlan, attach_point_id, subnet, first_slot,
             last_slot)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (account_id, kind, cloud_id) DO UPDATE
         SET port_id = excluded.port_id, vlan = excluded.vlan, attach_point_id = excluded.attach_point_id,
             subnet = excluded.subnet, first_slot = excluded.first_slot, last_slot = excluded.last_slot",
        args![account.as_str(), one.kind.as_str(), &one.cloud_id, port, vlan, point, subnet, first, last],
    )
    .await?;
    Ok(())
}

/// Who has a VLAN of a port.
pub(super) async fn vlan_holder(tx: &mut Tx, port: &PortId, vlan: u16) -> Result<Option<String>, StoreError> {
    let sql = "SELECT cloud_id FROM foreign_holdings WHERE port_id = $1 AND vlan = $2 ORDER BY cloud_id LIMIT 1";
    tx.row(sql, args![port.as_str(), vlan]).await?.map(|mut row| row.text()).transpose()
}

/// Who has a subnet of an attach point that touches these slots.
pub(super) async fn subnet_holder(
    tx: &mut Tx,
    attach_point: &AttachPointId,
    (first, last): (i64, i64),
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT cloud_id FROM foreign_holdings
               WHERE attach_point_id = $1 AND first_slot <= $3 AND last_slot >= $2 ORDER BY cloud_id LIMIT 1";
    tx.row(sql, args![attach_point.as_str(), first, last]).await?.map(|mut row| row.text()).transpose()
}

/// What others have of the ports of the statement's table `ports`.
pub(super) const VLANS: Question = Question {
    columns: &[Text("f.port_id"), Int("f.vlan"), Text("f.cloud_id")],
    from: "ports p CROSS JOIN foreign_holdings f WHERE f.port_id = p.id",
    order: &[Text("f.cloud_id")],
};

/// What others have of the attach points of the statement's table `points`.
pub(super) const SUBNETS: Question = Question {
    columns: &[Text("f.attach_point_id"), Text("f.subnet"), Text("f.cloud_id")],
    from: "points p CROSS JOIN foreign_holdings f WHERE f.attach_point_id = p.id",
    order: &[Text("f.cloud_id")],
};

/// Adds the answers to [`VLANS`] and [`SUBNETS`]. Of two that have the same, the first by id is told, each time.
pub(super) fn add(vlans: Vec<Row>, subnets: Vec<Row>, all: &mut Allocated) -> Result<(), StoreError> {
    for mut row in vlans {
        let (port, vlan, by): (PortId, i64, String) = (row.id()?, row.int()?, row.text()?);
        all.foreign_vlans.entry(port).or_default().entry(u16::try_from(vlan).unwrap_or_default()).or_insert(by);
    }
    for mut row in subnets {
        let (point, subnet, by): (AttachPointId, String, String) = (row.id()?, row.text()?, row.text()?);
        all.foreign_subnets.entry(point).or_default().entry(allocations::subnet(&subnet)?).or_insert(by);
    }
    Ok(())
}
