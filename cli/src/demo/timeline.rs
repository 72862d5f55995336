//! What the demo prints: one line a moment, with the seconds since the intent was sent.

use std::time::Instant;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::output;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();
const HEAD: Style = Style::new().bold();

/// How a moment went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mood {
    /// As it should.
    Good,
    /// As it should not.
    Bad,
    /// Neither.
    Plain,
}

/// Prints moments, for people or as JSON lines. Colour appears on a terminal only.
pub(crate) struct Timeline {
    start: Instant,
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "atMs")]
    at_ms: u128,
    mood: Mood,
    what: &'a str,
    detail: &'a str,
}

impl Timeline {
    /// A timeline that starts now.
    pub(crate) fn new(json: bool) -> Self {
        Self { start: crate::clock::now(), json }
    }

    /// Counts from now on.
    pub(crate) fn restart(&mut self) {
        self.start = crate::clock::now();
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// A heading.
    pub(crate) fn head(&self, title: &str) {
        if !self.json {
            output::say!("\n{HEAD}{title}{HEAD:#}");
        }
    }

    /// A command to try.
    pub(crate) fn command(&self, line: &str) {
        if self.json {
            self.say(Mood::Plain, "try", line);
        } else {
            output::say!("  {line}");
        }
    }

    /// One moment.
    pub(crate) fn say(&self, mood: Mood, what: &str, detail: &str) {
        if self.json {
            let line = Line { at_ms: self.start.elapsed().as_millis(), mood, what, detail };
            if let Ok(text) = serde_json::to_string(&line) {
                output::say!("{text}");
            }
            return;
        }
        let (style, mark) = match mood {
            Mood::Good => (GOOD, "✓"),
            Mood::Bad => (BAD, "✗"),
            Mood::Plain => (QUIET, "·"),
        };
        let at = format!("{:8.3} s", self.seconds());
        if detail.is_empty() {
            output::say!("{QUIET}{at}{QUIET:#}  {style}{mark}{style:#} {what}");
        } else {
            // As wide as the longest stage of the two clouds.
            output::say!("{QUIET}{at}{QUIET:#}  {style}{mark}{style:#} {what:<35} {QUIET}{detail}{QUIET:#}");
        }
    }

    /// A moment that went as it should.
    pub(crate) fn good(&self, what: &str, detail: &str) {
        self.say(Mood::Good, what, detail);
    }

    /// A moment worth telling.
    pub(crate) fn plain(&self, what: &str, detail: &str) {
        self.say(Mood::Plain, what, detail);
    }

    /// A moment that went wrong.
    pub(crate) fn bad(&self, what: &str, detail: &str) {
        self.say(Mood::Bad, what, detail);
    }
}
