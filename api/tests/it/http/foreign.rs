//! What strangers have of our ports and attach points, through the API.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tieline_providers::fake::{ATTACHMENT, INTERFACE};

use super::fixture::{Answer, Backing, Go, Service, intent};

/// VLANs that the first channel of a connection has.
fn vlan(answer: &Answer) -> u64 {
    answer.body["placements"][0]["channels"][0]["a"]["vlanId"].as_u64().unwrap()
}

#[tokio::test]
async fn what_strangers_have_is_not_given_out_until_they_give_it_up() {
    let service = Service::with_engine(Backing::sqlite()).await;
    let fields = |port: &str, router: &str, vlan: u64, subnet: &str| json!({ "port": port, "router": router, "vlan": vlan, "subnet": subnet, "host": null, "peer": null });
    let mut vifs = Vec::new();
    for (n, at) in [1, 2].into_iter().enumerate() {
        let (l, r) = (format!("port-l{at}"), format!("port-r{at}"));
        let one = fields(&l, "router-l", 1_025, &format!("169.254.{n}.0/29"));
        vifs.push(service.world.add_stranger("111", ATTACHMENT, None, Some(&format!("{l}/1025")), one));
        let two = fields(&r, "router-r", 1_026, &format!("169.254.{n}.8/29"));
        vifs.push(service.world.add_stranger("222", INTERFACE, None, Some(&format!("{r}/1026")), two));
    }
    let [one, two, ..] = vifs.as_slice() else { unreachable!() };
    let strangers = service.world.strangers();

    // A wish tells when the lists have been seen, and who has what is wished.
    let wished = |vlan: u64| {
        let mut wished = intent("wished");
        wished["wanted"] = json!({ "vlanId": vlan });
        wished
    };
    let refused = async |vlan: u64, by: &str| loop {
        let dry = service.ask(Method::POST, "/v1/connections?dryRun=true").json(&wished(vlan)).go(StatusCode::OK).await;
        let findings = dry.body["findings"].as_array().unwrap().clone();
        let taken = findings.into_iter().find(|finding| finding["code"] == "vlan-taken");
        if let Some(taken) = taken {
            assert!(taken["message"].as_str().unwrap().contains(&format!("in use by {by}")), "{taken}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, refused(1_025, one)).await.expect("the lists are seen");
    tokio::time::timeout(patience, refused(1_026, two)).await.expect("the lists are seen");
    let answer = service.ask(Method::POST, "/v1/connections").json(&wished(1_026)).answer().await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    assert_eq!(answer.pointers(), ["/wanted/vlanId"; 2], "both channels' ports have one");
    assert!(answer.text.contains(two), "{}", answer.text);

    let made = service.create("beside").await;
    assert_eq!(vlan(&made), 1_027);
    let subnet = &made.body["placements"][0]["channels"][0];
    assert!(subnet.to_string().contains("169.254.0.16/29"), "{subnet}");
    let path = made.header("operation-location").to_owned();
    service.until(&path, |answer| answer.body["state"] == "SUCCEEDED").await;
    let calls = service.world.wire().len();
    assert_eq!(calls, 6, "nothing was refused: {:?}", service.world.wire());
    assert_eq!(service.world.strangers(), strangers, "nothing of others is touched");

    service.world.vanish(one);
    service.world.vanish(&vifs[2]);
    let free = async || loop {
        let dry =
            service.ask(Method::POST, "/v1/connections?dryRun=true").json(&wished(1_025)).go(StatusCode::OK).await;
        if dry.body["applicable"] == true {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    tokio::time::timeout(patience, free()).await.expect("it is free again");
    service.end().await;
}
