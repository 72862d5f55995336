//! The text of `tieline.toml`: decoded entry by entry, so that one bad entry does not hide the next, and with the line of
//! every key.

use serde::de::DeserializeOwned;
use std::{fmt, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Config, ConfigProblem, check};

/// One step of the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a table.
    Key(String),
    /// Into an array.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way to a value: `interconnects[0].channels[1].a.portId`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Way(pub(super) Vec<Step>);

impl Way {
    /// One step further.
    pub(super) fn to(&self, step: impl Into<Step>) -> Self {
        let mut way = self.clone();
        way.0.push(step.into());
        way
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A text and where everything stands in it.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl Document<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
    }

    /// The line of a value, or of the nearest thing that holds it where it is not there.
    pub(super) fn line_of(&self, way: &Way) -> usize {
        let mut best = 0;
        let mut table = Some(self.root.get_ref());
        let mut array = None;
        for step in &way.0 {
            let value = match step {
                Step::Key(key) => {
                    let entry = table.and_then(|t| t.iter().find(|(name, _)| name.get_ref() == key));
                    // A table's own place may be elsewhere than its name's.
                    if let Some((name, _)) = entry.filter(|(name, _)| !name.span().is_empty()) {
                        best = name.span().start;
                    }
                    entry.map(|(_, value)| value)
                }
                Step::Index(index) => {
                    let value: Option<&Spanned<DeValue<'_>>> =
                        array.and_then(|a: &toml::de::DeArray<'_>| a.get(*index));
                    if let Some(value) = value.filter(|value| !value.span().is_empty()) {
                        best = value.span().start;
                    }
                    value
                }
            };
            let Some(value) = value else { break };
            table = value.get_ref().as_table();
            array = value.get_ref().as_array();
        }
        self.line(best)
    }

    /// The way to the innermost value, or unknown key, at a place.
    fn way_at(&self, span: &Range<usize>) -> Way {
        let mut way = Way::default();
        descend(self.root.get_ref(), span, &mut way);
        way
    }

    fn problem(&self, error: &toml::de::Error, within: &Way) -> ConfigProblem {
        let span = error.span().filter(|span| !span.is_empty());
        let way = span.as_ref().map_or_else(Way::default, |span| self.way_at(span));
        // A missing key has no place of its own: the entry that lacks it has.
        let way = if way.0.len() < within.0.len() { within.clone() } else { way };
        let line = match &span {
            Some(span) if !way.0.is_empty() => self.line(span.start),
            _ => self.line_of(&way),
        };
        ConfigProblem { line, key: way.to_string(), message: error.message().trim().replace('\n', " ") }
    }
}

fn inside(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Whether the place is in the table, and then the way to it.
fn descend(table: &DeTable<'_>, span: &Range<usize>, way: &mut Way) -> bool {
    table.iter().any(|(key, value)| {
        way.0.push(Step::Key(key.get_ref().to_string()));
        let found = descend_value(value, span, way) || inside(&key.span(), span);
        if !found {
            way.0.pop();
        }
        found
    })
}

fn descend_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, way: &mut Way) -> bool {
    let deeper = match value.get_ref() {
        DeValue::Table(table) => descend(table, span, way),
        DeValue::Array(array) => array.iter().enumerate().any(|(index, value)| {
            way.0.push(Step::Index(index));
            let found = descend_value(value, span, way);
            if !found {
                way.0.pop();
            }
            found
        }),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            false
        }
    };
    deeper || inside(&value.span(), span)
}

/// Decodes and checks. There is a configuration only where every entry could be decoded.
pub(super) fn read(text: &str) -> (Option<Config>, Vec<ConfigProblem>) {
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
            let message = error.message().trim().replace('\n', " ");
            return (None, vec![ConfigProblem { line, key: String::new(), message }]);
        }
    };
    let document = Document { text, root };
    let mut problems = Vec::new();
    let Some(config) = sections(&document, &mut problems) else { return (None, problems) };
    check::all(&config, &document, &mut problems);
    (Some(config), problems)
}

const SECTIONS: [&str; 11] = [
    "serve",
    "engine",
    "retention",
    "probe",
    "tunnel",
    "coordinator",
    "routers",
    "accounts",
    "environments",
    "interconnects",
    "attachPoints",
];

fn sections(document: &Document<'_>, problems: &mut Vec<ConfigProblem>) -> Option<Config> {
    let mut config = Config::default();
    for (key, value) in document.root.get_ref().iter() {
        let way = Way::default().to(key.get_ref().as_ref());
        match key.get_ref().as_ref() {
            "serve" => one(document, value, &way, &mut config.serve, problems),
            "engine" => one(document, value, &way, &mut config.engine, problems),
            "retention" => one(document, value, &way, &mut config.retention, problems),
            "probe" => one(document, value, &way, &mut config.probe, problems),
            "tunnel" => one(document, value, &way, &mut config.tunnel, problems),
            "coordinator" => one(document, value, &way, &mut config.coordinator, problems),
            "routers" => list(document, value, &way, &mut config.routers, problems),
            "accounts" => list(document, value, &way, &mut config.accounts, problems),
            "environments" => list(document, value, &way, &mut config.environments, problems),
            "interconnects" => list(document, value, &way, &mut config.interconnects, problems),
            "attachPoints" => list(document, value, &way, &mut config.attach_points, problems),
            other => problems.push(ConfigProblem {
                line: document.line(key.span().start),
                key: other.to_owned(),
                message: format!("unknown key, expected one of {}", SECTIONS.join(", ")),
            }),
        }
    }
    problems.is_empty().then_some(config)
}

fn one<T: DeserializeOwned>(
    document: &Document<'_>,
    value: &Spanned<DeValue<'_>>,
    way: &Way,
    into: &mut T,
    problems: &mut Vec<ConfigProblem>,
) {
    match T::deserialize(ValueDeserializer::from(value.clone())) {
        Ok(decoded) => *into = decoded,
        Err(error) => problems.push(document.problem(&error, way)),
    }
}

fn list<T: DeserializeOwned>(
    document: &Document<'_>,
    value: &Spanned<DeValue<'_>>,
    way: &Way,
    into: &mut Vec<T>,
    problems: &mut Vec<ConfigProblem>,
) {
    let Some(entries) = value.get_ref().as_array() else {
        problems.push(ConfigProblem {
            line: document.line_of(way),
            key: way.to_string(),
            message: format!("expected entries, each under [[{way}]]"),
        });
        return;
    };
    for (index, entry) in entries.iter().enumerate() {
        match T::deserialize(ValueDeserializer::from(entry.clone())) {
            Ok(decoded) => into.push(decoded),
            Err(error) => problems.push(document.problem(&error, &way.to(index))),
        }
    }
}
