//! The result, for people and for programs.

use std::fmt::Write as _;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::suite::{Outcome, Verdict};

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
pub fn markdown(about: &About, outcomes: &[Outcome]) -> String {
    let (passed, failed, skipped) = counts(outcomes);
    let mut text = format!(
        "# Conformance of {}\n\nConnection Coordinator API, the target as Responder, the suite as `{}`.\n\n\
         {} rules: {passed} kept, {failed} broken, {skipped} not tested.\n",
        about.target,
        about.provider,
        outcomes.len(),
    );
    let mut area = "";
    for outcome in outcomes {
        if outcome.case.area() != area {
            area = outcome.case.area();
            let _ = write!(text, "\n## {area}\n\n| case | rule | source | result |\n| --- | --- | --- | --- |\n");
        }
        let result = match &outcome.verdict {
            Verdict::Passed => "kept".to_owned(),
            Verdict::Failed(why) => format!("**broken**: {}", cell(why)),
            Verdict::Skipped(why) => format!("not tested: {}", cell(why)),
        };
        let case = outcome.case;
        let _ = writeln!(text, "| `{}` | {} | {} | {result} |", case.id, cell(case.rule), cell(case.source));
    }
    text
}

/// What was sent and received in every case that failed, as Markdown.
#[must_use]
pub fn transcripts(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Failed(_))) {
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

/// JUnit XML: one test suite an area.
///
/// # Errors
/// Of the serializer.
pub fn junit(about: &About, outcomes: &[Outcome]) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new(format!("conformance of {}", about.target));
    let mut suites: Vec<TestSuite> = Vec::new();
    for outcome in outcomes {
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
        case.set_classname(outcome.case.area());
        case.set_time(outcome.took);
        match suites.last_mut().filter(|suite| suite.name.as_str() == outcome.case.area()) {
            Some(suite) => {
                suite.add_test_case(case);
            }
            None => {
                let mut suite = TestSuite::new(outcome.case.area());
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    report.add_test_suites(suites);
    report.to_string()
}
