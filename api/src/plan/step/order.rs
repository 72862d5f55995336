//! In which order resources come and go.

use tieline_openapi::v1::End;
use tieline_providers::{ResourceKey, ResourceSpec};

use super::{Instance, Specs, instance::Case};

/// The spec of an instance, in its own channel generation.
pub(super) fn spec_of<'a>(specs: &'a Specs, instance: &Instance) -> Option<&'a ResourceSpec> {
    let ends = specs.get(&(instance.channel_id.clone(), instance.channel_generation))?;
    ends.get(instance.key.end).iter().find(|spec| spec.key == instance.key)
}

/// What must be gone before this may go: whatever came after it on its side; and, where its cloud picked the addresses,
/// everything on the other side that was built on them.
pub(super) fn blocks_delete<'a>(specs: &Specs, cases: &'a [Case<'_>], of: &Case<'_>) -> Option<&'a ResourceKey> {
    if of.instance.twin.is_some() {
        return None;
    }
    let same = |other: &&Case<'_>| {
        other.instance.id != of.instance.id
            && other.instance.channel_id == of.instance.channel_id
            && other.instance.channel_generation == of.instance.channel_generation
            && other.may_exist()
    };
    cases.iter().filter(same).find(|other| depends(specs, other.instance, of.instance)).map(|other| &other.instance.key)
}

/// Whether one resource must be gone before another of its channel generation may go.
pub(super) fn depends(specs: &Specs, dependent: &Instance, on: &Instance) -> bool {
    if dependent.key.end == on.key.end {
        return spec_of(specs, dependent).is_some_and(|spec| spec.after.contains(&on.key));
    }
    // Where both ends report addresses, only end a waits: two that wait for each other would wait for ever.
    teaches(on) && (!teaches(dependent) || dependent.key.end == End::A)
}

fn teaches(instance: &Instance) -> bool {
    instance.present().is_some_and(|observed| observed.learned.ipv4.is_some())
}
