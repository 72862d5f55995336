//! A wrong value on one side of a living channel takes the session down: the lab's routers run what the clouds' APIs say.

use serde_json::{Value, json};
use tieline_openapi::{client::Write, v1::Redundancy};

use crate::rig::{Rig, until};

/// Brings one channel up, changes one value behind the cloud's API, and waits until the session is down on both routers.
async fn changed(pick: impl FnOnce(&Rig, &Value) -> (String, String, String, Value)) -> anyhow::Result<()> {
    let Some(mut rig) = Rig::lab(1)? else { return Ok(()) };
    let client = rig.serve(None)?;
    client.create_connection(&rig.intent("c", Redundancy::Single)?, &Write::default()).await?;
    until("both routers are Established", async || {
        let sessions = rig.sessions()?;
        Ok((sessions.len() == 2 && sessions.iter().all(|(_, bgp)| bgp == "ESTABLISHED")).then_some(()))
    })
    .await?;
    // The service would mend what it sees; here the wire shall tell.
    rig.kill()?;
    let [aws, google] = rig.dumps().await?;
    let (url, kind, pointer, value) = pick(&rig, &json!({ "aws": aws, "google": google }));
    let (kind, id) = kind.split_once(' ').expect("kind and id");
    rig.corrupt(&url, kind, id, &pointer, value).await?;
    until("no router is Established", async || {
        let sessions = rig.sessions()?;
        Ok(sessions.iter().all(|(_, bgp)| bgp != "ESTABLISHED").then_some(()))
    })
    .await
}

/// The virtual interface that Tieline made: the only one that was not there before.
fn ours(dumps: &Value) -> &Value {
    let all = dumps["aws"]["virtualInterfaces"].as_array().expect("a list");
    let mut ours = all.iter().filter(|vif| vif["stranger"] == false);
    let one = ours.next().expect("our virtual interface");
    assert!(ours.next().is_none(), "more than one is ours");
    one
}

fn vif(rig: &Rig, dumps: &Value, pointer: &str, value: Value) -> (String, String, String, Value) {
    let id = ours(dumps)["id"].as_str().expect("its id").to_owned();
    (rig.facts.aws_url.clone(), format!("virtualInterface {id}"), pointer.to_owned(), value)
}

#[tokio::test]
async fn a_changed_nibble_of_the_key_drops_the_session() {
    let pick = |rig: &Rig, dumps: &Value| {
        let key = ours(dumps)["bgpPeers"][0]["authKey"].as_str().expect("a key").to_owned();
        let first = if key.starts_with('A') { "B" } else { "A" };
        vif(rig, dumps, "/bgpPeers/0/authKey", json!(format!("{first}{}", &key[1..])))
    };
    changed(pick).await.unwrap();
}

#[tokio::test]
async fn a_changed_vlan_drops_the_session() {
    let pick = |rig: &Rig, dumps: &Value| {
        let vlan = ours(dumps)["vlan"].as_u64().expect("a VLAN");
        vif(rig, dumps, "/vlan", json!(vlan ^ 1))
    };
    changed(pick).await.unwrap();
}

#[tokio::test]
async fn a_changed_address_drops_the_session() {
    let pick = |rig: &Rig, dumps: &Value| {
        let address = ours(dumps)["bgpPeers"][0]["amazonAddress"].as_str().expect("an address").to_owned();
        let (ip, length) = address.split_once('/').expect("a length");
        let ip: std::net::Ipv4Addr = ip.parse().expect("an address");
        // Another host of the same subnet.
        let other = std::net::Ipv4Addr::from(u32::from(ip) + 2);
        vif(rig, dumps, "/bgpPeers/0/amazonAddress", json!(format!("{other}/{length}")))
    };
    changed(pick).await.unwrap();
}

#[tokio::test]
async fn a_changed_as_number_drops_the_session() {
    let pick = |rig: &Rig, dumps: &Value| {
        let asn = ours(dumps)["bgpPeers"][0]["asn"].as_u64().expect("a number");
        vif(rig, dumps, "/bgpPeers/0/asn", json!(asn + 1))
    };
    changed(pick).await.unwrap();
}
