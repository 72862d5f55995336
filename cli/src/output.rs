//! What commands print on standard output.

use std::{
    fmt,
    io::{self, Write},
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use tieline_openapi::v1::Timestamp;

use crate::exit::Exit;

/// Prints a line. Where nobody reads any more, as behind `head`, the command ends without a word.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::output::line(format_args!($($line)*))
    };
}
pub(crate) use say;

/// See [`say`].
pub(crate) fn line(line: fmt::Arguments<'_>) {
    let mut out = anstream::stdout().lock();
    heard(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Prints bytes as they are.
pub(crate) fn bytes(all: &[u8]) {
    let mut out = io::stdout().lock();
    heard(out.write_all(all).and_then(|()| out.flush()));
}

/// Ends the command where it cannot print: what it still had to do was for its reader.
fn heard(written: io::Result<()>) {
    let Err(error) = written else { return };
    let exit = if error.kind() == io::ErrorKind::BrokenPipe {
        Exit::Unread
    } else {
        anstream::eprintln!("error: standard output cannot be written to, see where it leads: {error}");
        Exit::Failure
    };
    std::process::exit(exit as i32);
}

/// Prints a value as JSON, indented.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// An aligned table without lines: pleasant to read, and to `awk`.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    table
}

/// The same for long texts: on a terminal they are broken into its width.
pub(crate) fn wrapped(head: &[&str]) -> Table {
    let mut table = table(head);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// A time to the second, in UTC: one width, and it sorts as text.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An enum as it stands in JSON.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}
