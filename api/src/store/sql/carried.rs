//! What links carry, by attach point, so that a link is compared with those alone that share an address with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use tieline_openapi::{ids::ConnectionId, v1::ConnectionIntent};

use super::{
    SqlStore, records,
    row::{Value, args},
    tx::Tx,
};
use crate::{
    plan::{
        carried::{Carried, Way, by_attach_point, meets},
        negotiate::{Allocated, Touched},
    },
    store::StoreError,
};

/// Arguments of one statement.
const CHUNK: usize = 400;

/// Ranges of one statement.
const RANGES: usize = 50;

/// An address as `carried_prefixes.network` has it: in order of family and address, as text.
fn text(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("4{:08x}", u32::from(address)),
        IpAddr::V6(address) => format!("6{:032x}", u128::from(address)),
    }
}

const fn number(way: Way) -> i64 {
    match way {
        Way::Announced => 0,
        Way::Learned => 1,
    }
}

/// Enters what a connection carries now, in the place of what it carried before.
pub(super) async fn enter(tx: &mut Tx, id: ConnectionId, intent: &ConnectionIntent) -> Result<(), StoreError> {
    tx.execute("DELETE FROM carried_prefixes WHERE connection_id = $1", args![id.uuid()]).await?;
    let rows: BTreeSet<_> = by_attach_point(id, intent)
        .map(|(point, carried)| (point.clone(), number(carried.way), carried.prefix.trunc()))
        .collect();
    for (point, way, prefix) in rows {
        tx.execute(
            "INSERT INTO carried_prefixes (connection_id, attach_point_id, way, prefix, network)
             VALUES ($1, $2, $3, $4, $5)",
            args![id.uuid(), point.as_str(), way, prefix.to_string(), text(prefix.network())],
        )
        .await?;
    }
    tx.execute("UPDATE connections SET carried_of = generation WHERE id = $1", args![id.uuid()]).await?;
    Ok(())
}

/// Adds what other links carry that shares an address with one of these prefixes, at their attach points.
pub(super) async fn read(tx: &mut Tx, touched: &Touched, all: &mut Allocated) -> Result<(), StoreError> {
    for (point, prefixes) in &touched.prefixes {
        let mut found: BTreeMap<(ConnectionId, i64, IpNet), Carried> = BTreeMap::new();
        for (conditions, args) in conditions(prefixes) {
            let one = |condition: &String| {
                format!(
                    "SELECT p.connection_id, p.way, p.prefix, c.name,
                            CASE WHEN c.a_attach_point_id = $1 THEN c.b_attach_point_id ELSE c.a_attach_point_id END
                     FROM carried_prefixes p
                     JOIN connections c ON c.id = p.connection_id AND c.carried_of = c.generation
                     WHERE p.attach_point_id = $1 AND {condition}"
                )
            };
            // One search of the index each: of alternatives in one condition SQLite makes a walk through the attach point.
            let sql = conditions.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
            for mut row in tx.rows(&sql, [args![point.as_str()], args].concat()).await? {
                let (connection_id, way, prefix): (ConnectionId, i64, String) = (row.id()?, row.int()?, row.text()?);
                let prefix: IpNet = prefix.parse().map_err(|e| StoreError::Unusable {
                    reason: "it holds a prefix that is none; restore a backup".to_owned(),
                    source: Some(Box::new(e)),
                })?;
                if !prefixes.iter().any(|net| meets(net, &prefix)) {
                    continue;
                }
                let (link, far) = (row.text()?, row.text()?);
                let named = if way == 0 { Way::Announced } else { Way::Learned };
                let carried = Carried { prefix, way: named, far, connection_id, link };
                found.insert((connection_id, way, prefix), carried);
            }
        }
        if !found.is_empty() {
            all.prefixes.entry(point.clone()).or_default().extend(found.into_values());
        }
    }
    read_unentered(tx, touched, all).await
}

/// Connections whose prefixes another version wrote, and that are not entered yet.
async fn read_unentered(tx: &mut Tx, touched: &Touched, all: &mut Allocated) -> Result<(), StoreError> {
    let sql = "SELECT id, intent FROM connections WHERE carried_of <> generation ORDER BY id";
    for mut row in tx.rows(sql, args![]).await? {
        let (id, intent): (ConnectionId, ConnectionIntent) = (row.id()?, row.doc("intent")?);
        for (point, carried) in by_attach_point(id, &intent) {
            if touched.prefixes.contains_key(point) {
                all.prefixes.entry(point.clone()).or_default().push(carried);
            }
        }
    }
    Ok(())
}

/// Conditions, from the second argument on, that find whatever overlaps one of these: what is inside of one is a range of
/// networks, what one is inside of has one of few.
fn conditions(prefixes: &BTreeSet<IpNet>) -> Vec<(Vec<String>, Vec<Value>)> {
    let around: BTreeSet<String> = prefixes
        .iter()
        .flat_map(|net| (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.network(), length).ok()))
        .map(|net| text(net.network()))
        .collect();
    let around: Vec<_> = around.into_iter().map(Value::from).collect();
    let by_network = around.chunks(CHUNK).map(|chunk| {
        let sql = format!("p.network IN {}", records::list_from(2, chunk.len()));
        (vec![sql], chunk.to_vec())
    });
    // A default route overlaps nothing but other default routes, which have its network.
    let ranges: Vec<_> = prefixes.iter().filter(|net| net.prefix_len() > 0).collect();
    let by_range = ranges.chunks(RANGES).map(|chunk| {
        let one = |n: usize| format!("p.network BETWEEN ${} AND ${}", 2 * n + 2, 2 * n + 3);
        let args = chunk.iter().flat_map(|net| [text(net.network()).into(), text(net.broadcast()).into()]);
        ((0..chunk.len()).map(one).collect(), args.collect())
    });
    by_network.chain(by_range).collect::<Vec<(Vec<String>, Vec<Value>)>>()
}

impl SqlStore {
    /// Enters what connections carry that another version wrote.
    pub(super) async fn enter_carried(&self, rows: u32) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let sql = "SELECT id FROM connections WHERE carried_of <> generation ORDER BY id LIMIT $1";
        for mut row in write.rows(sql, args![rows]).await? {
            let id: ConnectionId = row.id()?;
            // The row is locked from here on: nobody changes the intent meanwhile.
            let sql = "UPDATE connections SET carried_of = generation WHERE id = $1 RETURNING intent";
            if let Some(mut row) = write.row(sql, args![id.uuid()]).await? {
                enter(&mut write, id, &row.doc("intent")?).await?;
            }
        }
        write.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_of_a_prefix_is_a_range_of_text() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (outer, inner) in [("10.0.0.0/8", "10.255.255.255/32"), ("2001:db8::/32", "2001:db8:ffff::/48")] {
            let (first, last) = (text(net(outer).network()), text(net(outer).broadcast()));
            let at = text(net(inner).network());
            assert!(first <= at && at <= last, "{first} {at} {last}");
        }
        assert!(text(net("255.255.255.255/32").network()) < text(net("::/128").network()));
    }
}
