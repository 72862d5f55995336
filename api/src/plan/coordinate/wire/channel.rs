//! Keys of channels, and work on them.

use tieline_openapi::coordinator::{
    ChannelPath, MacSecKey, MacSecKeyPath, MaintenanceEvent, ResourceId, Sensitive, Timestamp,
};

use super::{
    super::channels::{ChannelPlace, PeerEvent, SeenKey},
    WireError, environment_path, wrong,
};

/// The longest id of an event that is kept, in characters.
const LONGEST_ID: usize = 200;

/// The name of a channel, under the provider that calls.
#[must_use]
pub fn channel_path(caller: &ResourceId, at: &ChannelPlace) -> ChannelPath {
    environment_path(caller, &at.environment).interconnect(at.interconnect.clone()).channel(at.channel.clone())
}

/// The place that a channel's name tells.
#[must_use]
pub fn channel_of(path: &ChannelPath) -> ChannelPlace {
    ChannelPlace {
        environment: path.environment.clone(),
        interconnect: path.interconnect.clone(),
        channel: path.channel.clone(),
    }
}

/// The name of a key.
#[must_use]
pub fn key_path(of: &ChannelPath, key: &ResourceId) -> MacSecKeyPath {
    MacSecKeyPath {
        provider: of.provider.clone(),
        environment: of.environment.clone(),
        interconnect: of.interconnect.clone(),
        channel: of.channel.clone(),
        mac_sec_key: key.clone(),
    }
}

fn digits(
    field: &'static str,
    text: Option<&Sensitive>,
    octets: std::ops::RangeInclusive<usize>,
) -> Result<Sensitive, WireError> {
    let text = text.map(Sensitive::expose).unwrap_or_default();
    let whole = text.len().is_multiple_of(2) && octets.contains(&(text.len() / 2));
    if whole && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Sensitive::new(text.to_ascii_lowercase()));
    }
    let (least, most) = (octets.start() * 2, octets.end() * 2);
    let length = if least == most { most.to_string() } else { format!("{least} to {most}, an even number") };
    Err(wrong(field, format!("a {} is hexadecimal digits, and of them {length}", field.to_ascii_uppercase())))
}

/// CreateMacSecKey's body: CAK and CKN. A CAK has 256 bits, for GCM-AES-256 and nothing weaker; a CKN 1 to 32 octets
/// (IEEE 802.1X-2020, 9.3.1).
///
/// # Errors
/// [`WireError`] of the half that is none. It does not repeat it.
pub fn read_key(body: &MacSecKey) -> Result<(Sensitive, Sensitive), WireError> {
    Ok((digits("cak", body.cak.as_ref(), 32..=32)?, digits("ckn", body.ckn.as_ref(), 1..=32)?))
}

/// CreateMacSecKey's body, as we send it.
#[must_use]
pub fn key_of(cak: &Sensitive, ckn: &Sensitive) -> MacSecKey {
    MacSecKey { cak: Some(cak.clone()), ckn: Some(ckn.clone()), ..MacSecKey::default() }
}

/// A key as a server shows it: its halves are never shown.
#[must_use]
pub fn shown_key(of: &ChannelPath, seen: &SeenKey) -> MacSecKey {
    MacSecKey {
        name: Some(key_path(of, &seen.id).to_string()),
        start_time: seen.start_time,
        active: Some(seen.active),
        ..MacSecKey::default()
    }
}

/// ListMacSecKeys' answer.
///
/// # Errors
/// [`WireError`] of a key whose name is none of this channel.
pub fn read_keys(of: &ChannelPath, all: &[MacSecKey]) -> Result<Vec<SeenKey>, WireError> {
    let read = |key: &MacSecKey| {
        let none = || wrong("macSecKeys", format!("each has a `name` under {of}"));
        let name: MacSecKeyPath = key.name.as_deref().and_then(|name| name.parse().ok()).ok_or_else(none)?;
        if key_path(of, &name.mac_sec_key) != name {
            return Err(none());
        }
        Ok(SeenKey { id: name.mac_sec_key, start_time: key.start_time, active: key.active.unwrap_or(false) })
    };
    all.iter().map(read).collect()
}

/// An event as a server shows it.
#[must_use]
pub fn event_of(event: &PeerEvent) -> MaintenanceEvent {
    MaintenanceEvent { start_time: event.start, end_time: event.end, maintenance_id: Some(event.id.clone()) }
}

/// An event of GetMaintenanceEvents' answer.
#[must_use]
pub fn read_event(event: &MaintenanceEvent) -> PeerEvent {
    let id = event.maintenance_id.as_deref().unwrap_or_default().chars().take(LONGEST_ID).collect();
    // The store holds whole milliseconds.
    let whole = |at: Timestamp| Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
    PeerEvent { id, start: event.start_time.map(whole), end: event.end_time.map(whole) }
}
