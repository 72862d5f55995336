//! The hook of a lab's routers: what BIRD does not do (tagged interfaces, MACsec), by the lab's control socket. The protocol is told in
//! `docs/routers.md`.

use std::{io::Read as _, process::ExitCode};

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_lab::{
    cell::control::Client,
    net::{
        LinkName, LinkWanted,
        macsec::{MacSecKey, MacSecWanted},
    },
};
use tieline_openapi::coordinator::Sensitive;

use crate::{args::LabRouter, exit::Exit, output};

/// Longest request that is read, in bytes.
const MAX_REQUEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Request {
    PutLink { link: LinkName, mtu_bytes: u16, address: Ipv4Net },
    DeleteLink { link: LinkName },
    PutMacSecKeys { interface: String, keys: Vec<MacSecKey>, active: Option<Sensitive> },
}

/// Answers one request, of standard input.
pub(crate) async fn run(router: LabRouter) -> anyhow::Result<ExitCode> {
    let (answer, exit) = match done(&router).await {
        Ok(answer) => (answer, Exit::Ok),
        Err(error) => (json!({ "error": crate::exit::line(&error) }), Exit::Failure),
    };
    output::say!("{answer}");
    Ok(exit.into())
}

async fn done(router: &LabRouter) -> anyhow::Result<Value> {
    let mut text = String::new();
    std::io::stdin().take(MAX_REQUEST).read_to_string(&mut text)?;
    let lab = Client::open(&router.dir)?;
    match serde_json::from_str(&text)? {
        Request::PutLink { link, mtu_bytes, address } => {
            lab.put_link(&router.site, &link, &LinkWanted { mtu_bytes, address }).await?;
        }
        Request::DeleteLink { link } => lab.delete_link(&router.site, &link).await?,
        Request::PutMacSecKeys { interface, keys, active } => {
            let held = lab.put_macsec(&router.site, &interface, &MacSecWanted { keys, active }).await?;
            return Ok(serde_json::to_value(held)?);
        }
    }
    Ok(json!({}))
}
