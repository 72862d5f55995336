//! The result, for people and for programs.

use std::fmt::Write as _;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::suite::{Outcome, Role, Verdict};

/// What was found in one role, or in each.
pub type Reported = [(Role, Vec<Outcome>)];

/// Whom the suite tested, as whom.
#[derive(Debug, Clone)]
pub struct About {
    /// The target, as its operator calls it.
    pub target: String,
    /// The provider that the suite played.
    pub provider: String,
}

/// How many passed, failed, and were skipped.
#[must_use]
pub fn counts(outcomes: &[Outcome]) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for outcome in outcomes {
        match outcome.verdict {
            Verdict::Passed => counts.0 += 1,
            Verdict::Failed(_) => counts.1 += 1,
            Verdict::Skipped(_) => counts.2 += 1,
        }
    }
    counts
}

/// A Markdown document: a summary, and a table an area. The same for the same results.
#[must_use]
pub fn markdown(about: &About, reported: &Reported) -> String {
    let mut text = format!(
        "# Conformance of {}\n\nConnection Coordinator API; the suite plays the provider `{}`.\n",
        about.target, about.provider
    );
    for (role, outcomes) in reported {
        let (passed, failed, skipped) = counts(outcomes);
        let _ = write!(
            text,
            "\n## {} as {}\n\n{} rules: {passed} kept, {failed} broken, {skipped} not tested.\n",
            about.target,
            title(*role),
            outcomes.len()
        );
        areas(&mut text, outcomes);
    }
    text
}

const fn title(role: Role) -> &'static str {
    match role {
        Role::Responder => "Responder",
        Role::Negotiator => "Negotiator",
    }
}

fn areas(text: &mut String, outcomes: &[Outcome]) {
    let mut area = "";
    for outcome in outcomes {
        if outcome.case.area() != area {
            area = outcome.case.area();
            let _ = write!(text, "\n### {area}\n\n| case | rule | source | result |\n| --- | --- | --- | --- |\n");
        }
        let result = match &outcome.verdict {
            Verdict::Passed => "kept".to_owned(),
            Verdict::Failed(why) => format!("**broken**: {}", cell(why)),
            Verdict::Skipped(why) => format!("not tested: {}", cell(why)),
        };
        let case = outcome.case;
        let _ = writeln!(text, "| `{}` | {} | {} | {result} |", case.id, cell(case.rule), cell(case.source));
    }
}

/// What was sent and received in every case that failed, as Markdown.
#[must_use]
pub fn transcripts(reported: &Reported) -> String {
    let mut text = String::new();
    for outcome in reported
        .iter()
        .flat_map(|(_, outcomes)| outcomes)
        .filter(|outcome| matches!(outcome.verdict, Verdict::Failed(_)))
    {
        let _ = write!(text, "\n### What was said in `{}`\n\n```text\n{}```\n", outcome.case.id, transcript(outcome));
    }
    text
}

/// What was sent and received in a case.
#[must_use]
pub fn transcript(outcome: &Outcome) -> String {
    outcome.exchanges.iter().map(ToString::to_string).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// JUnit XML: one test suite an area of a role.
///
/// # Errors
/// Of the serializer.
pub fn junit(about: &About, reported: &Reported) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new(format!("conformance of {}", about.target));
    let mut suites: Vec<TestSuite> = Vec::new();
    for (role, outcome) in reported.iter().flat_map(|(role, outcomes)| outcomes.iter().map(move |o| (*role, o))) {
        let status = match &outcome.verdict {
            Verdict::Passed => TestCaseStatus::success(),
            Verdict::Skipped(why) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why);
                status
            }
            Verdict::Failed(why) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why);
                status.set_type(outcome.case.source);
                status.set_description(transcript(outcome));
                status
            }
        };
        let mut case = TestCase::new(outcome.case.id, status);
        let name = format!("{}.{}", role.as_str(), outcome.case.area());
        case.set_classname(name.as_str());
        case.set_time(outcome.took);
        match suites.last_mut().filter(|suite| suite.name.as_str() == name) {
            Some(suite) => {
                suite.add_test_case(case);
            }
            None => {
                let mut suite = TestSuite::new(name.as_str());
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    report.add_test_suites(suites);
    report.to_string()
}
