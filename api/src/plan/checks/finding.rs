//! How findings are collected: every rule that stands in the way, each once.

use tieline_openapi::v1::{Finding, Severity};
use tieline_providers::Rule;

/// What one finding says, before its severity.
#[derive(Debug, Clone)]
pub struct Note<'a> {
    /// Stable code, kebab-case.
    pub code: &'static str,
    /// RFC 6901 pointer into the intent.
    pub pointer: &'a str,
    /// One sentence.
    pub message: String,
    /// The rule, or both rules where two conflict.
    pub rule: String,
    /// Where the rule comes from.
    pub source: String,
    /// What resolves it.
    pub resolve: String,
}

impl<'a> Note<'a> {
    /// A note about one rule that stands in a public document.
    #[must_use]
    pub fn new(code: &'static str, pointer: &'a str, message: String, rule: &Rule, resolve: String) -> Self {
        Self { code, pointer, message, rule: rule.text.clone(), source: rule.source.clone(), resolve }
    }

    /// A note about two rules that cannot hold together, each named with whose it is.
    #[must_use]
    pub fn conflict(
        code: &'static str,
        pointer: &'a str,
        message: String,
        rules: [(&str, &Rule); 2],
        resolve: String,
    ) -> Self {
        let [(who, rule), (other, other_rule)] = rules;
        Self {
            code,
            pointer,
            message,
            rule: format!("{who}: {}; {other}: {}", rule.text, other_rule.text),
            source: if rule.source == other_rule.source {
                rule.source.clone()
            } else {
                format!("{}; {}", rule.source, other_rule.source)
            },
            resolve,
        }
    }

    fn with(self, severity: Severity) -> Finding {
        Finding {
            severity,
            code: self.code.to_owned(),
            pointer: self.pointer.to_owned(),
            message: self.message,
            rule: self.rule,
            source: self.source,
            resolve: self.resolve,
        }
    }
}

/// Findings as they come up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
    lasting: bool,
    exhausted: bool,
}

impl Findings {
    /// Something that no change of allocations can cure.
    pub fn error(&mut self, note: Note<'_>) {
        self.lasting = true;
        self.push(note.with(Severity::Error));
    }

    /// Something that is used up right now, and may be free again later.
    pub fn used_up(&mut self, note: Note<'_>) {
        self.exhausted = true;
        self.push(note.with(Severity::Error));
    }

    /// Something that may surprise.
    pub fn warning(&mut self, note: Note<'_>) {
        self.push(note.with(Severity::Warning));
    }

    /// Something worth knowing.
    pub fn info(&mut self, note: Note<'_>) {
        self.push(note.with(Severity::Info));
    }

    /// Adds what another collection found.
    pub fn extend(&mut self, other: Self) {
        self.lasting |= other.lasting;
        self.exhausted |= other.exhausted;
        for finding in other.list {
            self.push(finding);
        }
    }

    /// Adds what stands in the way of each of several ways, of which one would do: another try could succeed if it could on
    /// any of them.
    pub fn alternatives(&mut self, ways: Vec<Self>) {
        let could = ways.iter().any(Self::only_exhausted);
        self.lasting |= !could;
        self.exhausted |= could;
        for finding in ways.into_iter().flat_map(|way| way.list) {
            self.push(finding);
        }
    }

    /// Whether any finding is an error.
    #[must_use]
    pub const fn any_error(&self) -> bool {
        self.lasting || self.exhausted
    }

    /// Whether the only errors are about things that are used up.
    #[must_use]
    pub const fn only_exhausted(&self) -> bool {
        self.exhausted && !self.lasting
    }

    /// The findings, errors first, otherwise as they came.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<Finding> {
        self.list.sort_by_key(|f| f.severity);
        self.list
    }

    fn push(&mut self, finding: Finding) {
        if !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }
}
