//! VLAN attachments: insert, patch, delete, and how answers show them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use data_encoding::BASE64URL;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::v1::Timestamp;

use super::{
    names::{BASE, check_enum, check_name, name_in_url},
    operations::Effect,
    query::Query,
    resources::{Attachment, AttachmentBody, Phase},
    state::Google,
    wire::GoogleError,
};
use crate::clouds::draw::overlap;

const BANDWIDTHS: [&str; 14] = [
    "BPS_50M", "BPS_100M", "BPS_200M", "BPS_300M", "BPS_400M", "BPS_500M", "BPS_1G", "BPS_2G", "BPS_5G", "BPS_10G",
    "BPS_20G", "BPS_50G", "BPS_100G", "BPS_400G",
];
const MTUS: [i64; 4] = [1440, 1460, 1500, 8896];

/// Where every attachment's addresses come from: RFC 3927 link-local.
fn link_local() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)
}

/// Where the metadata server answers (169.254.169.254): never given to an attachment.
fn metadata() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 169, 248), 29)
}

fn check_mtu(mtu: Option<i64>) -> Result<u16, GoogleError> {
    let mtu = mtu.unwrap_or(1440);
    let valid = u16::try_from(mtu).ok().filter(|_| MTUS.contains(&mtu));
    valid.ok_or_else(|| GoogleError::invalid("mtu", mtu, "Must be one of 1440, 1460, 1500, 8896."))
}

fn check_bandwidth(bandwidth: Option<&String>) -> Result<String, GoogleError> {
    let bandwidth = bandwidth.map_or("BPS_10G", String::as_str);
    check_enum("bandwidth", bandwidth, &BANDWIDTHS)?;
    Ok(bandwidth.to_owned())
}

fn candidates(body: &AttachmentBody, length: u8) -> Result<Vec<Ipv4Net>, GoogleError> {
    if body.candidate_subnets.len() > 16 {
        let message = "At most 16 candidate subnets may be given.";
        return Err(GoogleError::invalid("candidateSubnets", body.candidate_subnets.len(), message));
    }
    let parse = |text: &String| {
        let bad = |why| GoogleError::invalid("candidateSubnets", text, why);
        let net: Ipv4Net = text.parse().map_err(|_| bad("Must be an IPv4 range."))?;
        if !link_local().contains(&net) {
            return Err(bad("Must be inside 169.254.0.0/16."));
        }
        if net.prefix_len() > length {
            return Err(bad("Must be at least as large as the attachment's subnet."));
        }
        Ok(net.trunc())
    };
    body.candidate_subnets.iter().map(parse).collect()
}

/// The two addresses that a caller wants, where it says so.
fn candidate_pair(body: &AttachmentBody) -> Result<Option<(Ipv4Net, Ipv4Net)>, GoogleError> {
    const FIELD: &str = "candidateCloudRouterIpAddress";
    let (cloud, customer) = match (&body.candidate_cloud_router_ip_address, &body.candidate_customer_router_ip_address)
    {
        (None, None) => return Ok(None),
        (Some(cloud), Some(customer)) => (cloud, customer),
        (Some(one), None) | (None, Some(one)) => {
            let why =
                "candidateCloudRouterIpAddress and candidateCustomerRouterIpAddress must both be set or both be unset.";
            return Err(GoogleError::invalid(FIELD, one, why));
        }
    };
    let parse = |text: &String| {
        let bad = || {
            GoogleError::invalid(FIELD, text, "Must be an IPv4 address with a prefix length, inside 169.254.0.0/16.")
        };
        text.parse::<Ipv4Net>().ok().filter(|net| link_local().contains(net) && net.prefix_len() <= 31).ok_or_else(bad)
    };
    let (cloud_net, customer_net) = (parse(cloud)?, parse(customer)?);
    if cloud_net.trunc() != customer_net.trunc() || cloud_net.addr() == customer_net.addr() {
        return Err(GoogleError::invalid(FIELD, cloud, "Both addresses must be in one subnet, and differ."));
    }
    Ok(Some((cloud_net, customer_net)))
}

fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    // FNV-1a: a fingerprint only has to change with the labels.
    let text = labels.iter().fold(String::new(), |text, (k, v)| text + k + "\0" + v + "\0");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    BASE64URL.encode(&hash.to_be_bytes())
}

impl Google {
    fn check_attachment(&self, body: &AttachmentBody) -> Result<(), GoogleError> {
        check_name("name", body.name.as_deref().ok_or_else(|| GoogleError::required("name"))?)?;
        check_enum("type", body.kind_of.as_deref().unwrap_or("DEDICATED"), &["DEDICATED"])?;
        check_enum("stackType", body.stack_type.as_deref().unwrap_or("IPV4_ONLY"), &["IPV4_ONLY"])?;
        check_enum("encryption", body.encryption.as_deref().unwrap_or("NONE"), &["NONE"])?;
        if let Some(domain) = &body.edge_availability_domain {
            let why = "Only available for attachments of the type PARTNER.";
            return Err(GoogleError::invalid("edgeAvailabilityDomain", domain, why));
        }
        Ok(())
    }

    /// Checks a wanted VLAN, or takes the lowest free one.
    fn vlan(&self, wanted: Option<i64>, interconnect: &str) -> Result<u16, GoogleError> {
        let taken = |vlan: u16| self.attachments.iter().any(|a| a.interconnect == interconnect && a.vlan == vlan);
        let Some(wanted) = wanted else {
            let free = (2..=4093).find(|vlan| !taken(*vlan));
            return free
                .ok_or_else(|| GoogleError::invalid("vlanTag8021q", "", "No VLAN is free on the interconnect."));
        };
        let valid = u16::try_from(wanted).ok().filter(|vlan| (2..=4093).contains(vlan));
        let vlan = valid.ok_or_else(|| GoogleError::invalid("vlanTag8021q", wanted, "Must be 2 to 4093."))?;
        if taken(vlan) {
            let why = format!("The VLAN tag is already in use on interconnect '{interconnect}'.");
            return Err(GoogleError::invalid("vlanTag8021q", vlan, &why));
        }
        Ok(vlan)
    }

    /// `interconnectAttachments.insert`.
    pub(super) fn insert_attachment(
        &mut self,
        body: &AttachmentBody,
        query: &Query,
        now: Timestamp,
    ) -> Result<Value, GoogleError> {
        let target = self.path("interconnectAttachments", body.name.as_deref().unwrap_or_default());
        if let Some(again) = self.replay(query, "insert", &target, now)? {
            return Ok(again);
        }
        let attachment = self.new_attachment(body, now)?;
        let (name, id) = (attachment.name.clone(), attachment.id.clone());
        if query.validate_only != Some(true) {
            self.attachments.push(attachment);
        }
        Ok(self.begin(query, "insert", target, id, Effect::InsertAttachment(name), now))
    }

    fn new_attachment(&mut self, body: &AttachmentBody, now: Timestamp) -> Result<Attachment, GoogleError> {
        self.check_attachment(body)?;
        let name = body.name.clone().unwrap_or_default();
        let path = self.path("interconnectAttachments", &name);
        if self.attachment(&name).is_some() {
            return Err(GoogleError::new(409, "alreadyExists", format!("The resource '{path}' already exists")));
        }
        let url = body.interconnect.as_ref().ok_or_else(|| GoogleError::required("interconnect"))?;
        let interconnect = name_in_url("interconnect", url, "interconnects")?;
        self.interconnect(&interconnect)
            .ok_or_else(|| GoogleError::not_found(&self.interconnect_path(&interconnect)))?;
        let url = body.router.as_ref().ok_or_else(|| GoogleError::required("router"))?;
        let router = name_in_url("router", url, "routers")?;
        self.router(&router).ok_or_else(|| GoogleError::not_found(&self.path("routers", &router)))?;
        let subnet_length = body.subnet_length.unwrap_or(29);
        if ![29, 30].contains(&subnet_length) {
            return Err(GoogleError::invalid("subnetLength", subnet_length, "Must be 29 or 30."));
        }
        let candidate_pair = candidate_pair(body)?;
        if candidate_pair.is_some() && !body.candidate_subnets.is_empty() {
            let why = "Candidate subnets and candidate addresses exclude each other.";
            return Err(GoogleError::invalid("candidateSubnets", body.candidate_subnets.join(","), why));
        }
        Ok(Attachment {
            id: self.draw.number().to_string(),
            vlan: self.vlan(body.vlan_tag8021q, &interconnect)?,
            mtu: check_mtu(body.mtu)?,
            bandwidth: check_bandwidth(body.bandwidth.as_ref())?,
            candidate_subnets: candidates(body, subnet_length)?,
            description: body.description.clone().unwrap_or_default(),
            admin_enabled: body.admin_enabled.unwrap_or(true),
            labels: body.labels.clone().unwrap_or_default(),
            cloud_router_ip_address: None,
            customer_router_ip_address: None,
            phase: Phase::Inserting,
            since: now,
            created: now,
            name,
            interconnect,
            router,
            candidate_pair,
            subnet_length,
        })
    }

    /// Gives an attachment its addresses. Google picks them: the candidates only restrict where.
    pub(super) fn finish_insert(&mut self, name: &str, at: Timestamp) -> Result<(), (&'static str, String)> {
        let Some(attachment) = self.attachment(name).cloned() else { return Ok(()) };
        let mut used = self.subnets_in_use();
        used.push(metadata());
        let picked = match attachment.candidate_pair {
            Some((cloud, customer)) => {
                let free = !used.iter().any(|u| overlap(u, &cloud.trunc()));
                free.then_some((cloud, customer))
            }
            None => {
                let whole = [link_local()];
                let pool =
                    if attachment.candidate_subnets.is_empty() { &whole[..] } else { &attachment.candidate_subnets };
                let subnet = self.draw.subnet(pool, attachment.subnet_length, &used);
                subnet.and_then(|subnet| {
                    let host = |n: u32| {
                        let address = Ipv4Addr::from(u32::from(subnet.network()) + n);
                        Ipv4Net::new(address, attachment.subnet_length).ok()
                    };
                    Some((host(1)?, host(2)?))
                })
            }
        };
        let Some((cloud, customer)) = picked else {
            self.attachments.retain(|a| a.name != name);
            let message = "No candidate subnet is free: every one overlaps a range that a router of the network uses.";
            return Err(("IP_SPACE_EXHAUSTED", message.to_owned()));
        };
        if let Some(attachment) = self.attachments.iter_mut().find(|a| a.name == name) {
            attachment.cloud_router_ip_address = Some(cloud);
            attachment.customer_router_ip_address = Some(customer);
            (attachment.phase, attachment.since) = (Phase::Unprovisioned, at);
        }
        Ok(())
    }

    /// An attachment that nothing is at work on.
    fn idle_attachment(&self, name: &str) -> Result<&Attachment, GoogleError> {
        let path = self.path("interconnectAttachments", name);
        let attachment = self.attachment(name).ok_or_else(|| GoogleError::not_found(&path))?;
        if self.busy(&path) { Err(GoogleError::not_ready(&path)) } else { Ok(attachment) }
    }

    /// `interconnectAttachments.patch`.
    pub(super) fn patch_attachment(
        &mut self,
        name: &str,
        body: &AttachmentBody,
        query: &Query,
        now: Timestamp,
    ) -> Result<Value, GoogleError> {
        let target = self.path("interconnectAttachments", name);
        if let Some(again) = self.replay(query, "patch", &target, now)? {
            return Ok(again);
        }
        let mut new = self.idle_attachment(name)?.clone();
        let unchangeable = |field: &str| GoogleError::invalid(field, name, "The field cannot be changed.");
        let same_name = |url: &Option<String>, field: &str, collection: &str, now: &str| match url {
            Some(url) if name_in_url(field, url, collection)? != now => Err(unchangeable(field)),
            _ => Ok(()),
        };
        same_name(&body.name, "name", "interconnectAttachments", &new.name)?;
        same_name(&body.interconnect, "interconnect", "interconnects", &new.interconnect)?;
        same_name(&body.router, "router", "routers", &new.router)?;
        if body.vlan_tag8021q.is_some_and(|vlan| vlan != i64::from(new.vlan)) {
            return Err(unchangeable("vlanTag8021q"));
        }
        if body.labels.as_ref().is_some_and(|labels| *labels != new.labels) {
            return Err(unchangeable("labels"));
        }
        if body.mtu.is_some() {
            new.mtu = check_mtu(body.mtu)?;
        }
        if body.bandwidth.is_some() {
            new.bandwidth = check_bandwidth(body.bandwidth.as_ref())?;
        }
        new.description = body.description.clone().unwrap_or(new.description);
        new.admin_enabled = body.admin_enabled.unwrap_or(new.admin_enabled);
        let id = new.id.clone();
        Ok(self.begin(query, "patch", target, id, Effect::PatchAttachment(Box::new(new)), now))
    }

    /// `interconnectAttachments.delete`: refused while a router interface links it.
    pub(super) fn delete_attachment(
        &mut self,
        name: &str,
        query: &Query,
        now: Timestamp,
    ) -> Result<Value, GoogleError> {
        let target = self.path("interconnectAttachments", name);
        if let Some(again) = self.replay(query, "delete", &target, now)? {
            return Ok(again);
        }
        let id = self.idle_attachment(name)?.id.clone();
        let pending = self.operations.iter().filter_map(|op| match &op.effect {
            Some(Effect::SetRouter(router)) => Some(&**router),
            Some(Effect::InsertAttachment(_) | Effect::PatchAttachment(_) | Effect::DeleteAttachment(_)) | None => None,
        });
        for router in self.routers.iter().chain(pending) {
            if router.interfaces.iter().any(|i| self.linked(i).is_some_and(|linked| linked.name == name)) {
                let by = self.path("routers", router.name.as_deref().unwrap_or_default());
                return Err(GoogleError::in_use(&target, &by));
            }
        }
        Ok(self.begin(query, "delete", target, id, Effect::DeleteAttachment(name.to_owned()), now))
    }

    pub(super) fn show_attachment(&self, a: &Attachment, lit: bool) -> Value {
        let provisioned = a.phase == Phase::Active;
        let mut shown = json!({
            "kind": "compute#interconnectAttachment", "id": a.id, "name": a.name, "description": a.description,
            "creationTimestamp": a.created.to_string(), "region": format!("{BASE}{}", self.region_path()),
            "selfLink": format!("{BASE}{}", self.path("interconnectAttachments", &a.name)),
            "interconnect": format!("{BASE}{}", self.interconnect_path(&a.interconnect)),
            "router": format!("{BASE}{}", self.path("routers", &a.router)),
            "type": "DEDICATED", "state": if provisioned { "ACTIVE" } else { "UNPROVISIONED" },
            "operationalStatus": if provisioned && lit { "OS_ACTIVE" } else { "OS_UNPROVISIONED" },
            "vlanTag8021q": a.vlan, "privateInterconnectInfo": { "tag8021q": a.vlan }, "mtu": a.mtu,
            "bandwidth": a.bandwidth, "adminEnabled": a.admin_enabled, "encryption": "NONE",
            "stackType": "IPV4_ONLY", "labelFingerprint": fingerprint(&a.labels),
            "remoteService": "Amazon Web Services", "satisfiesPzs": false,
            "configurationConstraints": {
                "bgpMd5": "MD5_OPTIONAL",
                "bgpPeerAsnRanges": [{ "min": 64_512, "max": 65_534 }, { "min": 4_200_000_000_u32, "max": 4_294_967_294_u32 }],
            },
        });
        if let (Some(cloud), Some(customer)) = (a.cloud_router_ip_address, a.customer_router_ip_address) {
            shown["cloudRouterIpAddress"] = json!(cloud);
            shown["customerRouterIpAddress"] = json!(customer);
        }
        if !a.labels.is_empty() {
            shown["labels"] = json!(a.labels);
        }
        shown
    }
}
