//! Two providers, north and south, that meet over the open specification: a router each, two interconnects of four channels
//! between them, certificates made for this lab, and the `tieline.toml` of each.
//!
//! ```text
//! a-host -- a-router ==ch0..ch3 (blue)== b-router -- b-host
//!           north    ==ch4..ch7 (green)==    south
//! ```

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tieline_openapi::{
    config::{
        BirdConfig, ChannelRouterConfig, CommandConfig, Config, CoordinatorConfig, PeerConfig, PeerIdentity,
        ProofConfig, RouterConfig, RouterDriver, SharedChannelConfig, SharedEnvironmentConfig,
        SharedInterconnectConfig, SharedInterconnectState,
    },
    units::{Asn, BandwidthMbps},
    v1::BgpState,
};
use tieline_providers::network::bird::{Control, parse_protocols};

use super::{AssemblyError, write};
use crate::{
    cell::LabSpec,
    net::{ChannelSpec, Configured, End, INCLUDES, Impairment, NetSpec},
};

/// The environment that both providers share.
pub const ENVIRONMENT: &str = "north-1.south-1";
/// Its interconnects, in order: the first has the channels `ch0` to `ch3`, the second `ch4` to `ch7`.
pub const INTERCONNECTS: [&str; 2] = ["blue", "green"];
/// Channels of each.
pub const CHANNELS: usize = 4;
/// The providers: of the first site and of the second.
pub const PROVIDERS: [&str; 2] = ["north", "south"];
/// Where peers reach a provider. An address of its own keeps two labs apart; the port lies below those that the machine
/// gives to whoever asks for any.
const PEER_PORT: u16 = 7_443;

/// The lab's network: routers that only their operator configures.
#[must_use]
pub fn spec(seed: u64) -> LabSpec {
    let plain = NetSpec::default();
    let channel = |i: usize| ChannelSpec {
        a_port: format!("north-{i}"),
        b_port: format!("south-{i}"),
        wire: Impairment::delay_us(2_000),
    };
    let network = NetSpec {
        a: crate::net::SiteSpec { name: PROVIDERS[0].to_owned(), ..plain.a },
        b: crate::net::SiteSpec { name: PROVIDERS[1].to_owned(), ..plain.b },
        channels: (0..CHANNELS * INTERCONNECTS.len()).map(channel).collect(),
        seed,
        routers: Configured::ByOperator,
        ..NetSpec::default()
    };
    LabSpec { network, parameters: serde_json::Value::Null }
}

/// The folder of a provider's router: BIRD's socket `bird.ctl`, and the folder that it includes.
#[must_use]
pub fn router_folder(lab: &Path, end: End) -> PathBuf {
    lab.join(format!("{}-router", end.letter()))
}

/// Makes certificates and both `tieline.toml` below `dir`, for a lab in `lab`. `hook` is what makes tagged interfaces: a
/// program, to which the provider's id is added. `peers` is the loopback network that providers reach each other in. The
/// files of both, in order of [`PROVIDERS`].
///
/// # Errors
/// [`AssemblyError`].
pub fn configure(dir: &Path, lab: &Path, hook: &[String], peers: [u8; 2]) -> Result<[PathBuf; 2], AssemblyError> {
    let authority = authority()?;
    write(&dir.join("ca.pem"), authority.pem().as_bytes())?;
    let address = |end: End| Ipv4Addr::new(127, peers[0], peers[1], end as u8 + 1);
    for end in [End::A, End::B] {
        let provider = PROVIDERS[end as usize];
        let names = vec![format!("{provider}.example"), address(end).to_string()];
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        write(&dir.join(format!("{provider}.pem")), params.signed_by(&key, &authority)?.pem().as_bytes())?;
        write(&dir.join(format!("{provider}.key")), key.serialize_pem().as_bytes())?;
    }
    let file = |end: End| {
        let provider = PROVIDERS[end as usize];
        let config = Config {
            coordinator: Some(coordinator(dir, end, address)?),
            routers: vec![router(lab, hook, end)?],
            ..Config::default()
        };
        let path = dir.join(format!("{provider}.toml"));
        write(&path, toml::to_string(&config)?.as_bytes())?;
        Ok::<_, AssemblyError>(path)
    };
    Ok([file(End::A)?, file(End::B)?])
}

/// What a provider's router holds of sessions: what the daemon runs, and `DOWN` for files that it does not.
///
/// # Errors
/// [`AssemblyError::Router`] where the daemon does not answer, [`AssemblyError::File`].
pub async fn held(lab: &Path, end: End) -> Result<BTreeMap<String, BgpState>, AssemblyError> {
    let folder = router_folder(lab, end);
    let includes = folder.join(INCLUDES);
    let failed = |source| AssemblyError::File { path: includes.clone(), source };
    let mut held = BTreeMap::new();
    for entry in std::fs::read_dir(&includes).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        held.insert(name.to_string_lossy().trim_end_matches(".conf").to_owned(), BgpState::Down);
    }
    let mut control = Control::connect(&folder.join("bird.ctl")).await?;
    for protocol in parse_protocols(&control.ask("show protocols all").await?) {
        if protocol.kind == "BGP" {
            held.insert(protocol.name, protocol.bgp.unwrap_or_default());
        }
    }
    Ok(held)
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "authority of a lab");
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn router(lab: &Path, hook: &[String], end: End) -> Result<RouterConfig, AssemblyError> {
    let (provider, folder) = (PROVIDERS[end as usize], router_folder(lab, end));
    let run = hook.iter().cloned().chain([provider.to_owned()]).collect();
    Ok(RouterConfig {
        id: format!("{provider}-router").parse()?,
        announces: vec![spec(0).network.site(end).prefix],
        // A lab waits for nothing that it need not.
        poll_ms: 500,
        drain_ms: 1_500,
        driver: RouterDriver::Bird(BirdConfig {
            includes: folder.join(INCLUDES).display().to_string(),
            control: folder.join("bird.ctl").display().to_string(),
            hook: CommandConfig { run, timeout_ms: 20_000 },
        }),
    })
}

fn coordinator(dir: &Path, end: End, address: impl Fn(End) -> Ipv4Addr) -> Result<CoordinatorConfig, AssemblyError> {
    let (us, them) = (PROVIDERS[end as usize], PROVIDERS[end.other() as usize]);
    let file = |name: String| dir.join(name).display().to_string();
    let sizes = [1_000, 2_000, 5_000].into_iter().map(BandwidthMbps::try_from);
    let interconnect = |i: usize| {
        Ok::<_, AssemblyError>(SharedInterconnectConfig {
            id: INTERCONNECTS[i].parse()?,
            state: SharedInterconnectState::Active,
            max_bandwidth_mbps: BandwidthMbps::try_from(10_000)?,
            channels: (0..CHANNELS).map(|n| channel(end, i, n)).collect::<Result<_, _>>()?,
        })
    };
    Ok(CoordinatorConfig {
        provider: us.parse()?,
        display_name: None,
        listen: SocketAddr::new(IpAddr::V4(address(end)), PEER_PORT),
        certificate_file: file(format!("{us}.pem")),
        key_file: file(format!("{us}.key")),
        requests_per_second: 200,
        call_timeout_ms: 5_000,
        poll_ms: 1_000,
        settled_poll_ms: 5_000,
        macsec_rotation_hours: None,
        // A rehearsal does not last for the two hours of the specification.
        macsec_bake_seconds: 2,
        peers: vec![PeerConfig {
            provider: them.parse()?,
            display_name: None,
            endpoint: format!("https://{}:{PEER_PORT}/coordinator/v1", address(end.other())),
            ca_file: file("ca.pem".to_owned()),
            identity: Some(PeerIdentity::DnsName(format!("{them}.example"))),
            bearer: None,
            credential: None,
            proof: ProofConfig::default(),
            environments: vec![SharedEnvironmentConfig {
                id: ENVIRONMENT.parse()?,
                our_site: format!("{us}-1"),
                their_site: format!("{them}-1"),
                bandwidths_mbps: sizes.collect::<Result<_, _>>()?,
                defers: false,
                takes_deferral: false,
                deferral_timeout_hours: 72,
                public: true,
                interconnects: (0..INTERCONNECTS.len()).map(interconnect).collect::<Result<_, _>>()?,
            }],
        }],
    })
}

fn channel(end: End, interconnect: usize, n: usize) -> Result<SharedChannelConfig, AssemblyError> {
    let wire = interconnect * CHANNELS + n;
    Ok(SharedChannelConfig {
        id: format!("{}-{}", INTERCONNECTS[interconnect], n + 1).parse()?,
        device: format!("{}{}", ["n", "s"][end as usize], wire + 1),
        router: Some(ChannelRouterConfig {
            id: format!("{}-router", PROVIDERS[end as usize]).parse()?,
            interface: format!("ch{wire}"),
        }),
        asn: Asn::try_from(64_512 + end as u64)?,
        vlans: (1_025, 1_124),
        mtus: vec![(1_500, 1_500)],
        subnets: vec![Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 100 + wire as u8, 0), 24)],
        excluded_subnets: Vec::new(),
        prefix_lengths: vec![30],
        size_gbps: 10,
        member_size_gbps: None,
        // Each provider makes the keys of every other channel.
        macsec_manager: Some(PROVIDERS[n % PROVIDERS.len()].parse()?),
        cross_connect_manager: None,
        demarc: None,
        enabled: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_taken_and_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let hook = ["/bin/false".to_owned()];
        let files = configure(dir.path(), &dir.path().join("lab"), &hook, [1, 2]).unwrap();
        let [north, south] = files.map(|file| Config::read(&file).unwrap());
        spec(1).network.validate().unwrap();
        let shared = |config: &Config| {
            let peer = config.coordinator.as_ref().unwrap().peers[0].clone();
            let interconnects = peer.environments[0].interconnects.clone();
            let channels = |i: &SharedInterconnectConfig| i.channels.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
            interconnects.iter().map(|i| (i.id.clone(), channels(i))).collect::<Vec<_>>()
        };
        assert_eq!(shared(&north), shared(&south));
        assert_eq!(north.routers[0].driver.program().run, ["/bin/false", "north"]);
    }
}
