//! The built-in catalogue of environments: the pairs of sites that clouds are known to connect.
//!
//! An id is `<provider>-<site>.<provider>-<site>` of the two sites, the first by name first, for the pair as the clouds
//! sell it ([`ConnectionKind::Managed`]); with `.direct` at its end, for the customer's own circuits between the same two
//! sites ([`ConnectionKind::Direct`]). Sites of a direct environment are regions: in which facility the circuits meet is
//! written with the interconnect in `tieline.toml`. An environment of `tieline.toml` with the same id takes the place of
//! the built-in one.

use crate::{
    config::EnvironmentConfig,
    ids::EnvironmentId,
    units::BandwidthMbps,
    v1::{ConnectionKind, Middle, Site},
};

/// The pairs that AWS Interconnect – multicloud and Google Partner Cross-Cloud Interconnect sell together: AWS region and
/// its place, Google region and its place. Source: AWS Interconnect user guide, "Region availability", as of 2026-11.
const AWS_GOOGLE: [(&str, &str, &str, &str); 6] = [
    ("us-east-1", "N. Virginia", "us-east4", "N. Virginia"),
    ("us-west-1", "N. California", "us-west2", "Los Angeles"),
    ("us-west-2", "Oregon", "us-west1", "Oregon"),
    ("eu-west-2", "London", "europe-west2", "London"),
    ("eu-central-1", "Frankfurt", "europe-west3", "Frankfurt"),
    ("ap-southeast-1", "Singapore", "asia-southeast1", "Singapore"),
];

/// The pairs that AWS Interconnect – multicloud and Oracle FastConnect sell together. Source: as [`AWS_GOOGLE`].
const AWS_ORACLE: [(&str, &str, &str, &str); 1] = [("us-east-1", "N. Virginia", "us-ashburn-1", "Ashburn")];

/// What a managed pair with Google may be ordered with, in Mbit/s. Source: the `bandwidth` of a transport
/// (`BPS_50M` to `BPS_100G`), Google Network Connectivity API v1, discovery document of 2026-10-29. AWS takes any
/// `<n>Mbps` or `<n>Gbps` here (AWS Interconnect API model of 2026-11), and each environment says at run time what is left.
const MANAGED_MBPS: [u64; 13] = [50, 100, 200, 300, 400, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// What both an AWS private virtual interface on a dedicated connection or LAG and a Google VLAN attachment carry, in
/// Mbit/s. Google sells an attachment in steps: `BPS_50M` to `BPS_50G` (Compute Engine API v1, discovery document of
/// 2026-11-06). AWS sells none for a virtual interface, so the port's own speed is the bound: 1, 10, 100 and 400 Gbit/s
/// (Direct Connect API model of 2026-11); a port of 10 Gbit/s or more holds every step up to its speed.
const DIRECT_MBPS: [u64; 12] = [50, 100, 200, 300, 400, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];

/// Every pair that this version knows, by id.
#[must_use]
pub fn environments() -> Vec<EnvironmentConfig> {
    let managed = |pairs: &[(&str, &str, &str, &str)], provider: &str, name: &str| -> Vec<Option<EnvironmentConfig>> {
        let pair = |(aws, at, other, there): &(&str, &str, &str, &str)| {
            let sites = [("aws", "AWS", *aws, *at), (provider, name, *other, *there)];
            environment(sites, ConnectionKind::Managed, &MANAGED_MBPS)
        };
        pairs.iter().map(pair).collect()
    };
    let direct = AWS_GOOGLE.iter().map(|(aws, at, google, there)| {
        let sites = [("aws", "AWS", *aws, *at), ("google", "Google Cloud", *google, *there)];
        environment(sites, ConnectionKind::Direct, &DIRECT_MBPS)
    });
    let mut all: Vec<EnvironmentConfig> = managed(&AWS_GOOGLE, "google", "Google Cloud")
        .into_iter()
        .chain(managed(&AWS_ORACLE, "oracle", "Oracle Cloud"))
        .chain(direct)
        .flatten()
        .collect();
    all.sort_by(|x, y| x.id.cmp(&y.id));
    all
}

/// The id of the environment of a pair; none where a site's name can be no part of an id.
fn id(sites: &[Site; 2], kind: ConnectionKind) -> Option<EnvironmentId> {
    let [first, second] = sites;
    let suffix = if kind == ConnectionKind::Direct { ".direct" } else { "" };
    format!("{}-{}.{}-{}{suffix}", first.provider, first.site, second.provider, second.site).parse().ok()
}

/// One pair; each site is provider, the provider's name, site, place. The constants are all well formed, which a test
/// holds.
fn environment(sites: [(&str, &str, &str, &str); 2], kind: ConnectionKind, mbps: &[u64]) -> Option<EnvironmentConfig> {
    let site = |(provider, name, site, place): (&str, &str, &str, &str)| {
        let display_name = format!("{name} {site} ({place})");
        Some(Site { provider: provider.parse().ok()?, site: site.to_owned(), display_name })
    };
    let [first, second] = sites;
    let sites = [site(first)?, site(second)?];
    Some(EnvironmentConfig {
        id: id(&sites, kind)?,
        kind,
        sites,
        bandwidths_mbps: mbps.iter().filter_map(|n| BandwidthMbps::try_from(*n).ok()).collect(),
        middle: Middle::None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    #[test]
    fn every_known_pair_is_there_once() {
        let all = environments();
        assert_eq!(all.len(), AWS_GOOGLE.len() * 2 + AWS_ORACLE.len());
        let ids: BTreeSet<_> = all.iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        for id in [
            "aws-us-east-1.google-us-east4",
            "aws-us-east-1.google-us-east4.direct",
            "aws-ap-southeast-1.google-asia-southeast1.direct",
            "aws-us-east-1.oracle-us-ashburn-1",
        ] {
            assert!(ids.contains(id), "{id}");
        }
    }

    #[test]
    fn kinds_sites_and_tiers_fit_their_ids() {
        for e in environments() {
            let direct = e.id.as_str().ends_with(".direct");
            assert_eq!(direct, e.kind == ConnectionKind::Direct);
            assert_eq!(e.bandwidths_mbps.len(), if direct { DIRECT_MBPS.len() } else { MANAGED_MBPS.len() });
            let [first, second] = &e.sites;
            assert!(first.provider < second.provider, "{}", e.id);
            assert!(e.id.as_str().starts_with(&format!("{}-{}.", first.provider, first.site)));
        }
    }

    #[test]
    fn an_own_environment_takes_the_place_of_a_built_in_one() {
        let mut own = environments().remove(0);
        own.bandwidths_mbps = [BandwidthMbps::try_from(1_000).unwrap()].into();
        let config = Config { environments: vec![own.clone()], ..Config::default() };
        let all = config.all_environments();
        assert_eq!(all.len(), environments().len());
        assert_eq!(all.iter().find(|e| e.id == own.id), Some(&own));
        // And the whole catalogue is a valid file.
        let config = Config { environments: environments(), ..Config::default() };
        assert_eq!(Config::parse(&toml::to_string(&config).unwrap(), "catalogue").unwrap(), config);
    }
}
