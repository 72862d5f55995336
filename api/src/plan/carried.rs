//! Which prefixes a link carries: what one end announces and the other accepts.

use std::collections::BTreeSet;

use ipnet::IpNet;
use tieline_openapi::{
    ids::{AttachPointId, ConnectionId},
    v1::{ConnectionIntent, End},
};

/// How a link and a prefix meet at an attach point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The network is behind this attach point, which announces it over the link.
    Announced,
    /// The network is behind the attach point at the link's other end, and its prefix is learned over the link.
    Learned,
}

/// One prefix of one link, at one attach point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The prefix.
    pub prefix: IpNet,
    /// How it meets the attach point.
    pub way: Way,
    /// Where the link's other end is: [`ConnectionIntent::place`].
    pub far: String,
    /// The link.
    pub connection_id: ConnectionId,
    /// Its name.
    pub link: String,
}

/// What is both advertised and accepted: of two nested prefixes the longer one. Without a list everything is accepted.
#[must_use]
pub fn accepted(advertised: &[IpNet], accepted: Option<&[IpNet]>) -> Vec<IpNet> {
    let Some(accepted) = accepted else { return advertised.to_vec() };
    let mut both = BTreeSet::new();
    for ours in advertised {
        for theirs in accepted {
            if theirs.contains(ours) {
                both.insert(*ours);
            } else if ours.contains(theirs) {
                both.insert(*theirs);
            }
        }
    }
    both.into_iter().collect()
}

/// What one end announces and the other accepts.
#[must_use]
pub fn announced(intent: &ConnectionIntent, end: End) -> Vec<IpNet> {
    accepted(&intent.end(end).advertised_prefixes, intent.end(end.other()).accepted_prefixes.as_deref())
}

/// Whether two prefixes share an address. A default route meets other default routes only: it covers everything on purpose,
/// and the longest match decides (RFC 4632 section 5.1).
#[must_use]
pub fn meets(one: &IpNet, other: &IpNet) -> bool {
    (one.contains(other) || other.contains(one)) && (one.prefix_len() == 0) == (other.prefix_len() == 0)
}

/// Everything that a link carries, by the attach point at which it is met.
pub fn by_attach_point(id: ConnectionId, intent: &ConnectionIntent) -> impl Iterator<Item = (&AttachPointId, Carried)> {
    let ours = End::BOTH.into_iter().filter_map(|end| Some((end, intent.end(end).attach_point_id.as_ref()?)));
    ours.flat_map(move |(end, here)| {
        let far = intent.place(end.other());
        let own = announced(intent, end).into_iter().map(|prefix| (prefix, Way::Announced));
        let theirs = announced(intent, end.other()).into_iter().map(|prefix| (prefix, Way::Learned));
        own.chain(theirs).map(move |(prefix, way)| {
            let carried = Carried { prefix, way, far: far.to_owned(), connection_id: id, link: intent.name.clone() };
            (here, carried)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn of_two_nested_prefixes_the_longer_one_is_accepted() {
        let advertised = nets(&["10.0.0.0/8", "172.16.0.0/16", "2001:db8::/32"]);
        assert_eq!(accepted(&advertised, None), advertised);
        let wanted = nets(&["10.1.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "::/0"]);
        assert_eq!(accepted(&advertised, Some(&wanted)), nets(&["10.1.0.0/16", "172.16.0.0/16", "2001:db8::/32"]));
        assert!(accepted(&advertised, Some(&[])).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_accepted_was_advertised_and_wanted(
            ours in prop::collection::vec((any::<u32>(), 0u8..=32), 0..6),
            theirs in prop::collection::vec((any::<u32>(), 0u8..=32), 0..6),
            address in any::<u32>(),
        ) {
            let net = |(bits, length): &(u32, u8)| {
                IpNet::from(ipnet::Ipv4Net::new((*bits).into(), *length).unwrap().trunc())
            };
            let ours: Vec<IpNet> = ours.iter().map(net).collect();
            let theirs: Vec<IpNet> = theirs.iter().map(net).collect();
            let both = accepted(&ours, Some(&theirs));
            // Addresses inside the prefixes and anywhere.
            let probes = ours.iter().chain(&theirs).map(IpNet::network).chain([IpAddr::V4(address.into())]);
            for probe in probes {
                let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&probe));
                prop_assert_eq!(within(&both), within(&ours) && within(&theirs));
            }
        }
    }
}
