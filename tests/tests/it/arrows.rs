//! The crates' arrows point down only.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Which crates of the workspace each may depend on, outside of tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("tieline", &["tieline-api", "tieline-conformance", "tieline-dataplane", "tieline-lab", "tieline-openapi"]),
    ("tieline-api", &["tieline-openapi", "tieline-providers"]),
    ("tieline-conformance", &["tieline-openapi"]),
    ("tieline-dataplane", &["tieline-openapi"]),
    ("tieline-lab", &["tieline-dataplane", "tieline-openapi", "tieline-providers"]),
    ("tieline-openapi", &[]),
    ("tieline-providers", &["tieline-openapi"]),
];

/// Crates that only some rooms may use, outside of tests.
const CONFINED: &[(&str, &[&str])] = &[
    ("axum", &["tieline-api", "tieline-conformance", "tieline-lab"]),
    ("sqlx", &["tieline-api"]),
    ("boringtun", &["tieline-dataplane"]),
    ("aws-sdk-directconnect", &["tieline-providers"]),
    ("google-cloud-compute-v1", &["tieline-providers"]),
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    metadata
        .packages
        .iter()
        .map(|package| {
            let normal = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
            (package.name.to_string(), normal.map(|d| d.name.clone()).collect())
        })
        .collect()
}

#[test]
fn crates_depend_downwards_only() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.iter().map(|(name, to)| (*name, to.iter().copied().collect())).collect();
    let dependencies = dependencies();
    for (name, to) in &dependencies {
        if name == "tieline-tests" {
            continue;
        }
        let may = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} is new: say here what it may depend on"));
        for dependency in to.iter().filter(|d| dependencies.contains_key(*d)) {
            assert!(may.contains(dependency.as_str()), "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    let dependencies = dependencies();
    for (confined, rooms) in CONFINED {
        for (name, to) in dependencies.iter().filter(|(name, _)| *name != "tieline-tests") {
            assert!(!to.contains(*confined) || rooms.contains(&name.as_str()), "{name} may not use {confined}");
        }
    }
}

#[test]
fn cloud_sdks_are_no_default() {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    for name in ["tieline-providers", "tieline-api"] {
        let package = metadata.packages.iter().find(|p| p.name.as_str() == name).expect("in the workspace");
        assert!(package.features.get("default").is_none_or(Vec::is_empty), "{name} has default features");
    }
}
