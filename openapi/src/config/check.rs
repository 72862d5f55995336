//! What must hold between the entries of `tieline.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use ipnet::IpNet;
use url::{Host, Url};

use super::{
    AccountConfig, AttachPointConfig, Config, ConfigProblem, EnvironmentConfig, InterconnectConfig, check_coordinator,
    check_routers,
    document::{Document, Way},
};
use crate::{
    ids::{AccountId, EnvironmentId, ProviderName},
    v1::{AttachPointType, ChannelPort, Site},
};

/// Collects problems with their lines.
pub(super) struct Checker<'c, 't> {
    document: &'c Document<'t>,
    problems: &'c mut Vec<ConfigProblem>,
}

impl Checker<'_, '_> {
    pub(super) fn say(&mut self, way: &Way, message: impl Into<String>) {
        let problem = ConfigProblem { line: self.document.line_of(way), key: way.to_string(), message: message.into() };
        self.problems.push(problem);
    }

    /// Names the first entry that has the same key, with its line.
    pub(super) fn once<K: Ord + Clone + Display>(
        &mut self,
        seen: &mut BTreeMap<K, Way>,
        key: &K,
        way: Way,
        what: &str,
    ) {
        if let Some(first) = seen.get(key) {
            let line = self.document.line_of(first);
            self.say(&way, format!("{what} `{key}` stands in line {line} already"));
        } else {
            seen.insert(key.clone(), way);
        }
    }

    pub(super) fn filled(&mut self, way: &Way, text: &str) {
        if text.trim().is_empty() {
            self.say(way, "must not be empty");
        } else if text.chars().any(char::is_control) {
            self.say(way, "must not hold control characters");
        }
    }

    pub(super) fn absolute(&mut self, way: &Way, path: &str) {
        self.filled(way, path);
        if !path.is_empty() && !path.starts_with('/') {
            self.say(way, format!("`{path}` depends on where the service is started: write an absolute path"));
        }
    }

    fn prefixes(&mut self, way: &Way, prefixes: &[IpNet]) {
        for (index, net) in prefixes.iter().enumerate() {
            if net.trunc() != *net {
                self.say(&way.to(index), format!("{net} has host bits set; the network is {}", net.trunc()));
            }
        }
    }
}

/// Checks everything.
pub(super) fn all(config: &Config, document: &Document<'_>, problems: &mut Vec<ConfigProblem>) {
    let mut checker = Checker { document, problems };
    accounts(config, &mut checker);
    environments(config, &mut checker);
    attach_points(config, &mut checker);
    interconnects(config, &mut checker);
    engine(config, &mut checker);
    retention(config, &mut checker);
    probe(config, &mut checker);
    tunnel(config, &mut checker);
    if let Some(coordinator) = &config.coordinator {
        check_coordinator::all(coordinator, &mut checker);
    }
    check_routers::all(config, &mut checker);
}

pub(super) fn root(section: &str, index: usize) -> Way {
    Way::default().to(section).to(index)
}

fn accounts(config: &Config, checker: &mut Checker<'_, '_>) {
    let mut ids = BTreeMap::new();
    for (index, account) in config.accounts.iter().enumerate() {
        let way = root("accounts", index);
        checker.once(&mut ids, &account.id, way.to("id"), "account");
        checker.filled(&way.to("externalId"), &account.external_id);
        checker.filled(&way.to("region"), &account.region);
        credential(account, &way, checker);
        if let Some(endpoint) = &account.endpoint
            && let Err(message) = endpoint_rule(endpoint)
        {
            checker.say(&way.to("endpoint"), message);
        }
    }
}

/// `env:NAME`, `file:PATH`, `default`, or `anonymous` with an endpoint.
fn credential(account: &AccountConfig, way: &Way, checker: &mut Checker<'_, '_>) {
    let way = way.to("credentialRef");
    let text = account.credential_ref.as_str();
    match text.split_once(':') {
        Some(("env", name)) if is_variable(name) => {}
        Some(("env", name)) => checker.say(&way, format!("`{name}` is not the name of an environment variable")),
        Some(("file", path)) if !path.is_empty() => {}
        _ if text == "default" => {}
        _ if text == "anonymous" && account.endpoint.is_some() => {}
        _ if text == "anonymous" => {
            checker.say(&way, "`anonymous` is only for an account with its own `endpoint`, such as a simulator");
        }
        _ => checker.say(
            &way,
            "expected `env:NAME`, `file:PATH`, `default`, or `anonymous` with an endpoint; never the credential itself",
        ),
    }
}

/// POSIX.1-2017 section 8.1.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Credentials go to the endpoint: over TLS, or not off this machine.
pub(super) fn endpoint_rule(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is not a URL ({error})"))?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => {
            return Err(format!("`{text}` would send credentials in the clear: use https, or a loopback address"));
        }
        scheme => return Err(format!("`{scheme}` is neither http nor https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL here holds no credential: use credentialRef".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an endpoint holds only a host, a port and a path".to_owned());
    }
    Ok(())
}

fn environments(config: &Config, checker: &mut Checker<'_, '_>) {
    let mut ids = BTreeMap::new();
    for (index, environment) in config.environments.iter().enumerate() {
        let way = root("environments", index);
        checker.once(&mut ids, &environment.id, way.to("id"), "environment");
        if environment.bandwidths_mbps.is_empty() {
            checker.say(&way.to("bandwidthsMbps"), "names at least one bandwidth that may be ordered");
        }
        let [first, second] = &environment.sites;
        if (&first.provider, &first.site) == (&second.provider, &second.site) {
            checker.say(&way.to("sites").to(1usize), "both sites are the same");
        }
        for (at, site) in environment.sites.iter().enumerate() {
            checker.filled(&way.to("sites").to(at).to("site"), &site.site);
            checker.filled(&way.to("sites").to(at).to("displayName"), &site.display_name);
        }
    }
}

fn by_id(config: &Config) -> BTreeMap<&AccountId, &AccountConfig> {
    // Of doubled ids the first counts: the second one is a problem of its own.
    config.accounts.iter().rev().map(|account| (&account.id, account)).collect()
}

fn unknown(what: &str, id: &impl Display, known: impl Iterator<Item = String>) -> String {
    let mut known: Vec<String> = known.collect();
    if known.is_empty() {
        return format!("there is no {what} `{id}`: none is configured");
    }
    let more = known.len().saturating_sub(8);
    known.truncate(8);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("there is no {what} `{id}`; there is {}{more}", known.join(", "))
}

fn attach_points(config: &Config, checker: &mut Checker<'_, '_>) {
    let accounts = by_id(config);
    let (mut ids, mut places) = (BTreeMap::new(), BTreeMap::new());
    for (index, point) in config.attach_points.iter().enumerate() {
        let way = root("attachPoints", index);
        checker.once(&mut ids, &point.id, way.to("id"), "attach point");
        let place = format!("{} in {}", point.cloud_id, point.account_id);
        checker.once(&mut places, &place, way.to("cloudId"), "attach point");
        checker.filled(&way.to("site"), &point.site);
        checker.filled(&way.to("cloudId"), &point.cloud_id);
        checker.prefixes(&way.to("prefixes"), &point.prefixes);
        match accounts.get(&point.account_id) {
            Some(account) => kind(point, &account.provider, &way, checker),
            None => {
                let known = config.accounts.iter().map(|a| a.id.to_string());
                checker.say(&way.to("accountId"), unknown("account", &point.account_id, known));
            }
        }
    }
}

/// Which kinds of attach point the known clouds have.
fn kind(point: &AttachPointConfig, provider: &ProviderName, way: &Way, checker: &mut Checker<'_, '_>) {
    let (expected, name) = match provider.as_str() {
        "aws" => (AttachPointType::DirectConnectGateway, "DIRECT_CONNECT_GATEWAY"),
        "google" => (AttachPointType::CloudRouter, "CLOUD_ROUTER"),
        "oracle" => (AttachPointType::Drg, "DRG"),
        "azure" => (AttachPointType::ExpressRouteGateway, "EXPRESS_ROUTE_GATEWAY"),
        _ => return,
    };
    if point.kind != expected {
        checker.say(&way.to("type"), format!("attach points in `{provider}` are of type {name}"));
    }
}

fn interconnects(config: &Config, checker: &mut Checker<'_, '_>) {
    let all = config.all_environments();
    let environments: BTreeMap<&EnvironmentId, &EnvironmentConfig> = all.iter().map(|e| (&e.id, e)).collect();
    let accounts = by_id(config);
    let (mut ids, mut channels, mut ports) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (index, interconnect) in config.interconnects.iter().enumerate() {
        let way = root("interconnects", index);
        checker.once(&mut ids, &interconnect.id, way.to("id"), "interconnect");
        let environment = environments.get(&interconnect.environment_id).copied();
        if environment.is_none() {
            let known = config.environments.iter().map(|e| e.id.to_string());
            let mut message = unknown("environment", &interconnect.environment_id, known);
            message.push_str("; the built-in ones are listed by GET /v1/environments");
            checker.say(&way.to("environmentId"), message);
        }
        if interconnect.channels.is_empty() {
            checker.say(&way.to("channels"), "an interconnect has at least one channel");
        }
        for (at, channel) in interconnect.channels.iter().enumerate() {
            let way = way.to("channels").to(at);
            checker.once(&mut channels, &channel.id, way.to("id"), "channel");
            for (end, port, site) in [("a", &channel.a, 0), ("b", &channel.b, 1)] {
                let way = way.to(end);
                checker.once(&mut ports, &port.port_id, way.to("portId"), "port");
                checker.filled(&way.to("device"), &port.device);
                let site = environment.and_then(|e| e.sites.get(site));
                port_account(config, &accounts, interconnect, port, site, &way, checker);
            }
        }
    }
}

fn port_account(
    config: &Config,
    accounts: &BTreeMap<&AccountId, &AccountConfig>,
    interconnect: &InterconnectConfig,
    port: &ChannelPort,
    site: Option<&Site>,
    way: &Way,
    checker: &mut Checker<'_, '_>,
) {
    let way = way.to("accountId");
    let Some(account) = accounts.get(&port.account_id) else {
        let known = config.accounts.iter().map(|a| a.id.to_string());
        checker.say(&way, unknown("account", &port.account_id, known));
        return;
    };
    if let Some(site) = site.filter(|site| site.provider != account.provider) {
        checker.say(
            &way,
            format!(
                "account `{}` is in `{}`; this end of environment `{}` is in `{}`",
                account.id, account.provider, interconnect.environment_id, site.provider
            ),
        );
    }
}

fn engine(config: &Config, checker: &mut Checker<'_, '_>) {
    let way = Way::default().to("engine");
    let engine = &config.engine;
    let positive = [
        ("leaseMs", engine.lease_ms),
        ("callTimeoutMs", engine.call_timeout_ms),
        ("pollMs", engine.poll_ms),
        ("settledPollMs", engine.settled_poll_ms),
        ("sweepMs", engine.sweep_ms),
        ("callsPerSecond", u64::from(engine.calls_per_second)),
    ];
    let mut zero = BTreeSet::new();
    for (key, _) in positive.iter().filter(|(_, value)| *value == 0) {
        zero.insert(*key);
        checker.say(&way.to(*key), "must be at least 1");
    }
    if zero.is_empty() && engine.call_timeout_ms >= engine.lease_ms {
        checker.say(
            &way.to("callTimeoutMs"),
            format!(
                "must be less than leaseMs ({}): a call ends before the claim under which it was sent",
                engine.lease_ms
            ),
        );
    }
    // A month: further waits are mistakes, and sums of a few of them stay far from any limit.
    let longest = 31 * 24 * 3_600_000;
    let all = [("visibilityLagMs", engine.visibility_lag_ms), ("quarantineMs", engine.quarantine_ms)];
    for (key, _) in positive.iter().chain(&all).filter(|(_, value)| *value > longest) {
        checker.say(&way.to(*key), format!("must be at most {longest}"));
    }
}

fn retention(config: &Config, checker: &mut Checker<'_, '_>) {
    let way = Way::default().to("retention");
    let kept = &config.retention;
    let days = [
        ("auditDays", kept.audit_days),
        ("ledgerDays", kept.ledger_days),
        ("operationDays", kept.operation_days),
        ("issueDays", kept.issue_days),
    ];
    // A century: further times are mistakes.
    for (key, _) in days.iter().filter(|(_, days)| !(1..=36_525).contains(days)) {
        checker.say(&way.to(*key), "must be from 1 to 36525");
    }
    if kept.events == 0 {
        checker.say(&way.to("events"), "must be at least 1");
    }
}

fn probe(config: &Config, checker: &mut Checker<'_, '_>) {
    let way = Way::default().to("probe");
    let probe = &config.probe;
    let positive = [
        ("intervalMs", probe.interval_ms),
        ("bundlePorts", u32::from(probe.bundle_ports)),
        ("deadAfterIntervals", u32::from(probe.dead_after_intervals)),
        ("deadPorts", u32::from(probe.dead_ports)),
        ("reportMs", probe.report_ms),
    ];
    for (key, _) in positive.iter().filter(|(_, value)| *value == 0) {
        checker.say(&way.to(*key), "must be at least 1");
    }
    if probe.dead_ports > probe.bundle_ports {
        checker.say(&way.to("deadPorts"), format!("must be at most bundlePorts ({})", probe.bundle_ports));
    }
}

fn tunnel(config: &Config, checker: &mut Checker<'_, '_>) {
    if config.tunnel.preshared_key_hours.is_some_and(|hours| !(1..=8_760).contains(&hours)) {
        checker.say(&Way::default().to("tunnel").to("presharedKeyHours"), "must be from 1 to 8760 (a year)");
    }
}
