//! The OpenAPI document: committed, served, without two schemas of one name, and true.

use std::{collections::BTreeMap, path::PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tieline_api::http::{document, operations};

use super::fixture::{Backing, Go, Service};

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../openapi/tieline.v1.json")
}

fn generated() -> String {
    let value = serde_json::to_value(document()).unwrap();
    format!("{}\n", serde_json::to_string_pretty(&value).unwrap())
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = generated();
    if std::env::var_os("TIELINE_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(committed(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(committed == generated, "openapi/tieline.v1.json is stale: run `make openapi` and commit it");
}

#[test]
fn operations_are_named_once_and_documented_whole() {
    let document: Value = serde_json::from_str(&generated()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut names = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert_eq!(names.insert(id.to_owned(), path.clone()), None, "{id} stands twice");
            assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{id} has no summary");
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses {
                let kind = format!("{id} {status}");
                assert!(response["headers"]["X-Request-Id"].is_object(), "{kind}");
                if !status.starts_with('2') {
                    let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{kind}");
                }
            }
            assert!(responses.contains_key("400"), "{id}");
            if operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty()) {
                assert!(responses.contains_key("401") && responses.contains_key("403"), "{id}");
            }
            if path.contains("{id}") && !path.contains("Groups") {
                assert!(responses.contains_key("404"), "{id}");
            }
            if !operation["requestBody"].is_null() {
                assert!(responses.contains_key("413") && responses.contains_key("415"), "{id}");
            }
            assert!(method != "patch" || responses.contains_key("428"), "{id}");
        }
    }
    assert!(names.len() > 30);
}

/// Every `$ref` of the document.
fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member.as_str() {
                    Some(target) if key == "$ref" => out.push(target),
                    _ => references(member, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_has_its_schema_and_every_schema_its_reference() {
    let document: Value = serde_json::from_str(&generated()).unwrap();
    let mut targets = Vec::new();
    references(&document, &mut targets);
    for target in &targets {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let target = format!("#/components/schemas/{name}");
        // A Connection holds its intent's fields itself.
        assert!(targets.contains(&target.as_str()), "{name} is not used");
    }
}

#[test]
fn one_name_is_one_schema() {
    // The generator keeps the last of two schemas with one name; here each file's own types are compared.
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut folders = vec![folder.join("src"), folder.join("../openapi/src/v1"), folder.join("../openapi/src")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path().canonicalize().unwrap();
            if path.is_dir() && !folders.contains(&path) && !path.ends_with("coordinator") {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                for name in schemas(&std::fs::read_to_string(&path).unwrap()) {
                    let before = names.insert(name.clone(), path.clone());
                    assert!(before.is_none_or(|before| before == path), "{name} is a schema in two files");
                }
            }
        }
    }
    assert!(names.contains_key("Connection") && names.contains_key("Health"), "{names:?}");
}

/// The names of the types in a source text that derive `ToSchema`.
fn schemas(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut derives = false;
    for line in text.lines().map(str::trim).filter(|line| !line.contains('$')) {
        if line.starts_with("#[derive(") {
            derives = line.contains("ToSchema");
        }
        let mut words =
            line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty() && *word != "pub");
        if let (true, Some("struct" | "enum"), Some(name)) = (derives, words.next(), words.next()) {
            names.push(name.to_owned());
            derives = false;
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_its_reader_are_served_without_a_token() {
    let service = Service::start(Backing::sqlite()).await;
    let open = |path: &str| service.client.get(format!("{}{path}", service.url));
    let served = open("/openapi.json").go(StatusCode::OK).await;
    assert_eq!(served.body, serde_json::from_str::<Value>(&generated()).unwrap());
    let page = open("/docs/").go(StatusCode::OK).await;
    assert!(page.text.contains("swagger-ui-bundle.js"));
    assert!(
        !page.text.contains("https://") && !page.text.contains("<script>"),
        "nothing from elsewhere, nothing inline"
    );
    for asset in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        let asset = open(&format!("/docs/{asset}")).go(StatusCode::OK).await;
        assert!(asset.header("content-security-policy").contains("script-src 'self'"));
    }
    let redirect = open("/docs").go(StatusCode::OK).await;
    assert!(redirect.text.contains("swagger-ui"));
    let home = open("/").go(StatusCode::OK).await;
    assert!(home.header("content-security-policy").contains("style-src 'self'"));
    assert!(!home.text.contains("<script") && !home.text.contains("style="));
    open("/home.css").go(StatusCode::OK).await;
    let problem = open("/problems/not-found").go(StatusCode::OK).await;
    assert!(problem.text.contains("Not found"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(open(path).go(StatusCode::OK).await.body["status"], "ok");
    }
    open("/metrics").go(StatusCode::UNAUTHORIZED).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_path_is_routed() {
    let service = Service::start(Backing::sqlite()).await;
    for (path, method, id) in operations(&document()) {
        if id == "watchEvents" {
            continue;
        }
        let real = path.replace("{id}", "0192f0c1-2345-7abc-8def-0123456789ab");
        let answer = service.ask(method.parse::<Method>().unwrap(), &real).answer().await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{id}");
        assert!(answer.status.as_u16() < 500, "{id}: {}", answer.text);
        if answer.status == StatusCode::NOT_FOUND {
            assert!(path.contains("{id}"), "{id} is not routed");
        }
        let documented = serde_json::to_value(document()).unwrap();
        let responses = &documented["paths"][&path][method.to_lowercase()]["responses"];
        assert!(responses[answer.status.as_str()].is_object(), "{id} does not document {}", answer.status);
    }
    service.end().await;
}
