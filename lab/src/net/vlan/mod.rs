//! 802.1Q interfaces on a trunk, on kernels with and without the module `8021q`.
//!
//! Three ways put the same bytes on the trunk (see [`VlanWay`]); the first that this machine can is taken. As a kernel
//! `vlan` device does, the other two follow the trunk's carrier: [`TaggedLink::follow`].

mod bpf;
mod relay;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::error::NetError;
use super::links::{LinkState, Links};
use super::namespace::Namespace;
use super::spec::VlanWay;

/// Interfaces are up to 15 bytes long (`IFNAMSIZ` less its end); the helper of a tagged one needs one more letter.
const MAX_NAME: usize = 14;

/// Makes tagged interfaces in one namespace.
#[derive(Debug)]
pub struct Vlans {
    forced: Option<VlanWay>,
    /// Index into [`WAYS`] of the first way that is not known to fail here.
    first: AtomicU8,
}

const WAYS: [VlanWay; 3] = [VlanWay::Kernel, VlanWay::Bpf, VlanWay::Relay];

/// One tagged interface.
#[derive(Debug)]
pub struct TaggedLink {
    name: String,
    parent: String,
    made: Made,
}

#[derive(Debug)]
enum Made {
    Kernel,
    Bpf { helper: String, _attached: [OwnedFd; 2] },
    Relay(relay::Relay),
}

impl Vlans {
    /// Takes the given way, or with `None` finds the best one at the first interface.
    #[must_use]
    pub fn new(forced: Option<VlanWay>) -> Self {
        Self { forced, first: AtomicU8::new(0) }
    }

    /// Makes the interface `name` on `parent`, a trunk or what encrypts one, and brings it up with the carrier of that.
    ///
    /// # Errors
    /// The last way's error where none works.
    pub async fn create(
        &self,
        namespace: &Namespace,
        links: &Links,
        parent: &str,
        name: &str,
        vlan: u16,
        mtu: u16,
    ) -> Result<TaggedLink, NetError> {
        let name = name.to_owned();
        if name.len() > MAX_NAME || !(1..=4094).contains(&vlan) {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(NetError::Vlan { interface: name, operation: "take this name and tag", source });
        }
        let trunk = links.get(parent).await?;
        let made = self.make(namespace, links, &trunk, &name, vlan).await?;
        let tagged = TaggedLink { name, parent: parent.to_owned(), made };
        let ready = async {
            tagged.set_mtu(links, mtu).await?;
            tagged.follow(links, &trunk).await?;
            links.set_up(&tagged.name, true).await
        };
        match ready.await {
            Ok(()) => Ok(tagged),
            Err(error) => {
                tagged.remove(links).await?;
                Err(error)
            }
        }
    }

    async fn make(
        &self,
        namespace: &Namespace,
        links: &Links,
        trunk: &LinkState,
        name: &str,
        vlan: u16,
    ) -> Result<Made, NetError> {
        if let Some(way) = self.forced {
            return make(way, namespace, links, trunk, name, vlan).await;
        }
        loop {
            let first = self.first.load(Relaxed);
            let way = WAYS[usize::from(first)];
            match make(way, namespace, links, trunk, name, vlan).await {
                Err(error) if usize::from(first) + 1 < WAYS.len() && cannot(&error) => {
                    tracing::debug!(?way, %error, "this machine cannot make tagged interfaces this way");
                    self.first.store(first + 1, Relaxed);
                }
                done => return done,
            }
        }
    }
}

/// Whether a way failed because the machine lacks it, not because of this one interface.
fn cannot(error: &NetError) -> bool {
    [libc::EOPNOTSUPP, libc::EPERM, libc::EACCES, libc::EINVAL, libc::ENOSYS].iter().any(|errno| error.is_errno(*errno))
}

async fn make(
    way: VlanWay,
    namespace: &Namespace,
    links: &Links,
    trunk: &LinkState,
    name: &str,
    vlan: u16,
) -> Result<Made, NetError> {
    match way {
        VlanWay::Kernel => links.add_vlan(name, trunk.index, vlan).await.map(|()| Made::Kernel),
        VlanWay::Relay => relay::Relay::start(namespace, &trunk.name, name, vlan).map(Made::Relay),
        VlanWay::Bpf => {
            let helper = format!("{name}p");
            links.add_veth(name, &helper, namespace).await?;
            let child = links.index(name).await?;
            let attached = namespace.run(|| bpf::attach(trunk.index, child, vlan))?;
            match attached {
                Ok(attached) => Ok(Made::Bpf { helper, _attached: attached }),
                Err(source) => {
                    links.delete(name).await?;
                    Err(NetError::Vlan { interface: name.to_owned(), operation: "attach its programs", source })
                }
            }
        }
    }
}

impl TaggedLink {
    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of what it stands on.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// How the interface is made.
    #[must_use]
    pub fn way(&self) -> VlanWay {
        match self.made {
            Made::Kernel => VlanWay::Kernel,
            Made::Bpf { .. } => VlanWay::Bpf,
            Made::Relay(_) => VlanWay::Relay,
        }
    }

    /// Gives the interface the carrier of its trunk. A kernel `vlan` device does so by itself.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn follow(&self, links: &Links, trunk: &LinkState) -> Result<(), NetError> {
        match &self.made {
            Made::Kernel => Ok(()),
            Made::Bpf { helper, .. } => links.set_up(helper, trunk.carrier).await,
            Made::Relay(relay) => relay.set_carrier(trunk.carrier),
        }
    }

    /// Sets the interface's MTU, in bytes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn set_mtu(&self, links: &Links, mtu: u16) -> Result<(), NetError> {
        if let Made::Bpf { helper, .. } = &self.made {
            links.set_mtu(helper, mtu.into()).await?;
        }
        links.set_mtu(&self.name, mtu.into()).await
    }

    /// Takes the interface away.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn remove(self, links: &Links) -> Result<(), NetError> {
        match self.made {
            Made::Kernel | Made::Bpf { .. } => links.delete(&self.name).await,
            Made::Relay(relay) => {
                drop(relay);
                Ok(())
            }
        }
    }
}
