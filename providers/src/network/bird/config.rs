//! The text of a session, as BIRD reads it.

use std::fmt::Write as _;

use crate::network::Session;

/// Longest TCP MD5 key that Linux takes (`TCP_MD5SIG_MAXKEYLEN`), in bytes.
pub const MAX_KEY: usize = 80;

/// Whether BIRD can be told a key: its strings have no escapes, end at a quote and hold no control characters.
#[must_use]
pub fn key_fits(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && !key.chars().any(|c| c == '"' || c.is_control())
}

/// The protocol of a session. Nothing in it can end its own field.
///
/// # Errors
/// The rule that the session breaks.
pub(in crate::network) fn session(session: &Session) -> Result<String, String> {
    if !key_fits(session.password.expose()) {
        return Err(format!("the password must have 1 to {MAX_KEY} bytes, without quotes or control characters"));
    }
    if !session.channel.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
        return Err("the channel's id cannot be written into a configuration".to_owned());
    }
    let own: Vec<String> = session.announces.iter().map(|net| format!("{net}+")).collect();
    let own = own.iter().map(String::as_str).chain(["0.0.0.0/0", "127.0.0.0/8+", "169.254.0.0/16+"]);
    let own = own.collect::<Vec<_>>().join(", ");
    let announced: Vec<String> = session.announces.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    line(&mut text, format_args!("protocol bgp '{}' {{", session.name));
    line(&mut text, format_args!("  description \"{} {}\";", session.connection, session.channel));
    line(&mut text, format_args!("  local {} as {};", session.local_ip, session.local_asn));
    line(&mut text, format_args!("  neighbor {} as {};", session.peer_ip, session.peer_asn));
    line(&mut text, format_args!("  password \"{}\";", session.password.expose()));
    // Both ends are configured within seconds of each other: the one that is later is not waited for long.
    text.push_str("  bfd on; check link on;\n  connect delay time 1; connect retry time 5; error wait time 1, 30;\n");
    text.push_str("  ipv4 {\n    import filter {\n");
    line(&mut text, format_args!("      if net ~ [ {own} ] then reject;"));
    // RFC 8326 section 4.2: the receiver prefers any other way.
    text.push_str("      if (65535, 0) ~ bgp_community then bgp_local_pref = 0;\n");
    if session.drained {
        text.push_str("      bgp_local_pref = 0;\n");
    }
    text.push_str("      accept;\n    };\n    export filter {\n");
    if !announced.is_empty() {
        line(&mut text, format_args!("      if net ~ [ {} ] then {{", announced.join(", ")));
        if session.drained {
            // The community for those who honour it (RFC 8326 section 4.1), a longer path for others.
            text.push_str("        bgp_community.add((65535, 0));\n");
            for _ in 0..3 {
                line(&mut text, format_args!("        bgp_path.prepend({});", session.local_asn));
            }
        }
        text.push_str("        accept;\n      }\n");
    }
    text.push_str("      reject;\n    };\n  };\n}\n");
    Ok(text)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(arguments);
    text.push('\n');
}
