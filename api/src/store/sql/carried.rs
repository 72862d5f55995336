//! What links carry, by attach point, so that a link is compared with those alone that share an address with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use tieline_openapi::{
    ids::{AttachPointId, ConnectionId},
    v1::ConnectionIntent,
};

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
const ARGUMENTS: usize = 500;

/// Networks that are searched for at once.
const CHUNK: usize = 400;

/// Alternatives of one statement: SQLite takes 500 of them.
const SEARCHES: usize = 100;

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

/// Enters what a connection carries now, in the place of what it carried before. Its row says of which generation that is:
/// `carried_of`, which the caller writes.
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
    Ok(())
}

/// Adds what other links carry that shares an address with one of these prefixes, at their attach points.
pub(super) async fn read(tx: &mut Tx, touched: &Touched, all: &mut Allocated) -> Result<(), StoreError> {
    let of = tx.either(one_of_sqlite as OneOf, one_of_postgres);
    let mut searches: Vec<Search> =
        touched.prefixes.iter().flat_map(|(point, nets)| searches(point, nets, of)).collect();
    let mut found: BTreeMap<(AttachPointId, ConnectionId, i64, IpNet), Carried> = BTreeMap::new();
    while !searches.is_empty() {
        let (mut selects, mut arguments) = (Vec::new(), Vec::new());
        // One at least; none is larger than a chunk.
        while let Some(search) = searches.pop_if(|(_, args)| {
            selects.len() < SEARCHES && (selects.is_empty() || arguments.len() + args.len() <= ARGUMENTS)
        }) {
            // One search of the index each: of alternatives in one condition SQLite makes a walk through the attach point.
            selects.push((search.0)(arguments.len() + 1));
            arguments.extend(search.1);
        }
        for mut row in tx.rows(&selects.join(" UNION ALL "), arguments).await? {
            let (point, connection_id): (AttachPointId, ConnectionId) = (row.id()?, row.id()?);
            let (way, prefix): (i64, String) = (row.int()?, row.text()?);
            let prefix: IpNet = prefix.parse().map_err(|e| StoreError::Unusable {
                reason: "it holds a prefix that is none; restore a backup".to_owned(),
                source: Some(Box::new(e)),
            })?;
            if !touched.prefixes.get(&point).is_some_and(|nets| nets.iter().any(|net| meets(net, &prefix))) {
                continue;
            }
            let (link, far) = (row.text()?, row.text()?);
            let named = if way == 0 { Way::Announced } else { Way::Learned };
            let carried = Carried { prefix, way: named, far, connection_id, link };
            found.insert((point, connection_id, way, prefix), carried);
        }
    }
    for ((point, ..), carried) in found {
        all.prefixes.entry(point).or_default().push(carried);
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

/// A SELECT, by the number of its first argument, and its arguments.
type Search = (Box<dyn Fn(usize) -> String + Send>, Vec<Value>);

/// Searches that find whatever overlaps one of these prefixes at an attach point: what is inside of one is a range of networks,
/// what one is inside of has one of few.
fn searches(point: &AttachPointId, prefixes: &BTreeSet<IpNet>, one_of: OneOf) -> Vec<Search> {
    let around: BTreeSet<String> = prefixes
        .iter()
        .flat_map(|net| (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.network(), length).ok()))
        .map(|net| text(net.network()))
        .collect();
    let around: Vec<_> = around.into_iter().map(Value::from).collect();
    let by_network = around.chunks(CHUNK).map(|chunk| {
        let count = chunk.len();
        search(point, chunk.to_vec(), move |point| one_of(point, point + 1, count))
    });
    // A default route overlaps nothing but other default routes, which have its network.
    let by_range = prefixes.iter().filter(|net| net.prefix_len() > 0).map(|net| {
        let ends = [text(net.network()).into(), text(net.broadcast()).into()];
        search(point, ends.to_vec(), |point| {
            let (first, last) = (point + 1, point + 2);
            format!("carried_prefixes p {CONNECTED} WHERE {} AND p.network BETWEEN ${first} AND ${last}", at(point))
        })
    });
    by_network.chain(by_range).collect()
}

/// Only what stands for the newest generation.
const CONNECTED: &str = "JOIN connections c ON c.id = p.connection_id AND c.carried_of = c.generation";

fn at(point: usize) -> String {
    format!("p.attach_point_id = ${point}")
}

/// What stands after FROM to find prefixes whose network is one of so many arguments from the second number on; the first is
/// the number of the attach point's.
type OneOf = fn(usize, usize, usize) -> String;

fn one_of_sqlite(point: usize, first: usize, count: usize) -> String {
    format!("carried_prefixes p {CONNECTED} WHERE {} AND p.network IN {}", at(point), records::list_from(first, count))
}

/// One search of the index each: of a list Postgres makes a walk through the attach point, unless it is kept from it.
fn one_of_postgres(point: usize, first: usize, count: usize) -> String {
    let values: Vec<String> = (first..first + count).map(|n| format!("(${n})")).collect();
    format!(
        "(VALUES {}) AS v CROSS JOIN LATERAL (
             SELECT * FROM carried_prefixes p WHERE {} AND p.network = v.column1 OFFSET 0) AS p {CONNECTED}",
        values.join(", "),
        at(point)
    )
}

/// `from` is what stands after FROM, by the number of the attach point's argument.
fn search(point: &AttachPointId, args: Vec<Value>, from: impl Fn(usize) -> String + Send + 'static) -> Search {
    let select = move |first: usize| {
        format!(
            "SELECT p.attach_point_id, p.connection_id, p.way, p.prefix, c.name,
                    CASE WHEN c.a_attach_point_id = p.attach_point_id THEN c.b_attach_point_id
                         ELSE c.a_attach_point_id END
             FROM {}",
            from(first)
        )
    };
    let mut all = args![point.as_str()];
    all.extend(args);
    (Box::new(select), all)
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
