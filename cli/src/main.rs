//! Tieline in one binary: the service, the gateway, the lab and the scripting verbs.

fn main() {}
