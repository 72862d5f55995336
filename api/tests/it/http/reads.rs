//! Lists, pages, filters, topology, metrics.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::fixture::{Backing, Go, Service, intent};

async fn pages_hold_every_row_once_in_order(backing: Backing) {
    let service = Service::start(backing).await;
    let mut made = BTreeSet::new();
    for n in 0..7 {
        let mut body = intent(&format!("c{n}"));
        body["a"]["advertisedPrefixes"] = json!([format!("10.{n}.0.0/16")]);
        body["b"]["advertisedPrefixes"] = json!([format!("172.16.{n}.0/24")]);
        body["labels"] = json!({"parity": if n % 2 == 0 { "even" } else { "odd" }});
        let answer = service.ask(Method::POST, "/v1/connections").json(&body).go(StatusCode::ACCEPTED).await;
        made.insert(answer.body["id"].as_str().unwrap().to_owned());
    }
    for (query, whole) in [("pageSize=3", 7), ("pageSize=2&state=PENDING", 7), ("pageSize=1&label=parity%3Dodd", 3)] {
        let mut seen = Vec::new();
        let mut path = format!("/v1/connections?{query}");
        loop {
            let page = service.ask(Method::GET, &path).go(StatusCode::OK).await;
            for connection in page.body["connections"].as_array().unwrap() {
                seen.push(connection["id"].as_str().unwrap().to_owned());
            }
            let Some(token) = page.body["nextPageToken"].as_str() else {
                assert_eq!(page.header("link"), "");
                break;
            };
            let link = page.header("link");
            path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
            assert!(path.ends_with(&format!("pageToken={token}")), "{path}");
        }
        assert_eq!(seen.len(), whole, "{query}");
        assert!(seen.is_sorted());
        assert!(seen.iter().all(|id| made.contains(id)));
    }
    // A token belongs to its query and its list.
    let page = service.get("/v1/connections?pageSize=3").await;
    let token = page["nextPageToken"].as_str().unwrap();
    for path in ["/v1/connections?name=c1", "/v1/operations?pageSize=3", "/v1/accounts?pageSize=1"] {
        let answer = service.ask(Method::GET, &format!("{path}&pageToken={token}")).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), ["?pageToken"]);
    }
    let reader = service.token("reader", "READ").await;
    let theirs = format!("/v1/connections?pageToken={token}");
    service.ask_as(&reader, Method::GET, &theirs).go(StatusCode::OK).await;
    assert_eq!(service.get("/v1/connections?state=ACTIVE").await["connections"], json!([]));
    assert_eq!(service.get("/v1/connections?name=c3").await["connections"].as_array().unwrap().len(), 1);
    assert_eq!(
        service.get("/v1/connections?environmentId=left-right&family=IPV4").await["connections"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
    service.end().await;
}

async fn what_exists_is_listed_and_shown(backing: Backing) {
    let service = Service::start(backing).await;
    for (path, list, id) in [
        ("/v1/accounts", "accounts", "left"),
        ("/v1/environments", "environments", "left-right"),
        ("/v1/interconnects", "interconnects", "ic"),
        ("/v1/attachPoints", "attachPoints", "router-l"),
    ] {
        let all = service.get(path).await;
        let listed = all[list].as_array().unwrap().iter().find(|item| item["id"] == id).unwrap().clone();
        assert_eq!(service.get(&format!("{path}/{id}")).await, listed);
    }
    let mut ids = Vec::new();
    let mut path = "/v1/accounts?pageSize=1".to_owned();
    loop {
        let page = service.get(&path).await;
        ids.push(page["accounts"][0]["id"].as_str().unwrap().to_owned());
        let Some(token) = page["nextPageToken"].as_str() else { break };
        path = format!("/v1/accounts?pageSize=1&pageToken={token}");
    }
    assert_eq!(ids, ["left", "right"]);
    let head = service.ask(Method::HEAD, "/v1/accounts").send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    service.end().await;
}

async fn metrics_count_answers(backing: Backing) {
    let service = Service::start(backing).await;
    service.get("/v1/accounts").await;
    let metrics = service.ask(Method::GET, "/metrics").go(StatusCode::OK).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let line = "tieline_http_requests_total{operation=\"listAccounts\",status=\"200\"} 1";
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert!(metrics.text.contains("tieline_http_request_duration_seconds_bucket{"));
    assert!(metrics.text.ends_with("# EOF\n"));
    service.end().await;
}

super::on_both! {
    pages_hold_every_row_once_in_order,
    what_exists_is_listed_and_shown,
    metrics_count_answers,
}
