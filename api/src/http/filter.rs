//! `filter=` of `GET /v1/connections`: the part of AIP-160 that is exact comparison. Terms joined by `AND`; terms about
//! `state` may be joined by `OR`, which binds tighter, as AIP-160 has it. A typo is an error with its position.

use tieline_openapi::{
    problem::FieldError,
    v1::{AddressFamily, ConnectionState},
};

use crate::{
    app::{connections::Wanted, error::field},
    store::ConnectionFilter,
};

/// The longest filter, in bytes.
const LONGEST: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Equals,
}

/// Reads a filter.
///
/// # Errors
/// What is wrong, and at which character.
pub(super) fn parse(text: &str) -> Result<Wanted, FieldError> {
    let at = |position: usize, message: &str| field("?filter", format!("at character {}: {message}", position + 1));
    if text.len() > LONGEST {
        return Err(field("?filter", format!("at most {LONGEST} bytes")));
    }
    let tokens = tokens(text).map_err(|(position, message)| at(position, message))?;
    let mut wanted = Wanted::default();
    let mut rest = tokens.as_slice();
    let mut or_allowed = false;
    let mut after_or = false;
    while !rest.is_empty() {
        let [(position, Token::Word(name)), (_, Token::Equals), (value_at, value), tail @ ..] = rest else {
            let position = rest.first().map_or(text.len(), |(position, _)| *position);
            return Err(at(position, "expected `field = value`"));
        };
        let value = match value {
            Token::Word(value) | Token::Text(value) => value.as_str(),
            Token::Equals => return Err(at(*value_at, "expected a value")),
        };
        if after_or && name != "state" {
            return Err(at(*position, "only terms about `state` can be joined by OR"));
        }
        if name == "state" && !wanted.states.is_empty() && !after_or {
            return Err(at(*position, "`state` stands twice; join its values by OR"));
        }
        term(&mut wanted, name, value).map_err(|(of_name, message)| at(if of_name { *position } else { *value_at }, &message))?;
        or_allowed = name == "state";
        rest = match tail {
            [] => return Ok(wanted),
            [(_, Token::Word(word)), more @ ..] if word == "AND" && !more.is_empty() => {
                after_or = false;
                more
            }
            [(_, Token::Word(word)), more @ ..] if word == "OR" && or_allowed && !more.is_empty() => {
                after_or = true;
                more
            }
            [(position, Token::Word(word)), ..] if word == "OR" && !or_allowed => {
                return Err(at(*position, "only terms about `state` can be joined by OR"));
            }
            [(position, _), ..] => return Err(at(*position, "expected AND followed by another term")),
        };
    }
    let _ = or_allowed;
    Ok(wanted)
}

/// Takes one term in; an error tells whether it is about the name.
fn term(wanted: &mut Wanted, name: &str, value: &str) -> Result<(), (bool, String)> {
    let ConnectionFilter { name: by_name, environment, labels, family, .. } = &mut wanted.stored;
    let once = |taken: bool| if taken { Err((true, format!("`{name}` stands twice"))) } else { Ok(()) };
    match name {
        "name" => {
            once(by_name.is_some())?;
            *by_name = Some(value.to_owned());
        }
        "environmentId" => {
            once(environment.is_some())?;
            *environment = Some(value.to_owned());
        }
        "family" => {
            once(family.is_some())?;
            *family = Some(word::<AddressFamily>(value).ok_or((false, "expected IPV4 or IPV6".to_owned()))?);
        }
        "state" => {
            let state = word::<ConnectionState>(value).ok_or_else(|| {
                let known = "PENDING, PROVISIONING, ACTIVE, DEGRADED, UPDATING, ACTION_REQUIRED or DELETING";
                (false, format!("expected {known}"))
            })?;
            wanted.states.push(state);
        }
        _ => match name.strip_prefix("labels.") {
            Some(key) if !key.is_empty() => {
                once(labels.contains_key(key))?;
                labels.insert(key.to_owned(), value.to_owned());
            }
            _ => {
                let known = "name, state, environmentId, family and labels.<key>";
                return Err((true, format!("there is no field `{name}`; there are {known}")));
            }
        },
    }
    Ok(())
}

fn word<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::from(value)).ok()
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, (usize, &'static str)> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((position, c)) = chars.next() {
        match c {
            ' ' => {}
            '=' => tokens.push((position, Token::Equals)),
            '"' => {
                let mut value = String::new();
                loop {
                    match chars.next() {
                        Some((_, '"')) => break,
                        Some((_, '\\')) => match chars.next() {
                            Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                            _ => return Err((position, "only \\\" and \\\\ are escapes")),
                        },
                        Some((_, other)) => value.push(other),
                        None => return Err((position, "the quote is not closed")),
                    }
                }
                tokens.push((position, Token::Text(value)));
            }
            c if is_word(c) => {
                let mut value = String::from(c);
                while let Some((_, next)) = chars.next_if(|(_, next)| is_word(*next)) {
                    value.push(next);
                }
                tokens.push((position, Token::Word(value)));
            }
            _ => return Err((position, "this character is not part of a filter")),
        }
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms_are_read() {
        let wanted = parse("state = ACTIVE OR state=DEGRADED AND labels.team = \"net \\\"x\\\"\" AND name=n").unwrap();
        assert_eq!(wanted.states, [ConnectionState::Active, ConnectionState::Degraded]);
        assert_eq!(wanted.stored.labels.get("team").map(String::as_str), Some("net \"x\""));
        assert_eq!(wanted.stored.name.as_deref(), Some("n"));
        assert_eq!(parse("").unwrap(), Wanted::default());
    }

    #[test]
    fn typos_are_errors_with_a_position() {
        let cases = [
            ("stat = ACTIVE", "character 1:"),
            ("state = ACTIV", "character 9:"),
            ("name = a OR name = b", "character 10:"),
            ("name = a AND", "character 10:"),
            ("name = a name = b", "character 10:"),
            ("name = a AND name = b", "character 14:"),
            ("name", "character 1:"),
            ("name = ", "character 1:"),
            ("name = \"a", "character 8:"),
            ("name > a", "character 6:"),
            ("state=ACTIVE AND state=DEGRADED", "character 18:"),
            ("state=ACTIVE OR name=x", "character 17:"),
            ("labels. = x", "character 1:"),
        ];
        for (text, position) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(position), "{text}: {}", error.message);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_name_can_be_asked_for(name in "[ -~]{0,30}") {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let wanted = parse(&format!("name = \"{quoted}\"")).unwrap();
            prop_assert_eq!(wanted.stored.name, Some(name));
        }
    }
}
