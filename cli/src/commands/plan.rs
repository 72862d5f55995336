//! `tieline plan`: what would be done, without doing it.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use tieline_openapi::v1::{self, ConnectionKind, Disruption, PlanAction, Severity, Verb};

use super::{client, connections};
use crate::{args, exit::Exit, output};

const ADD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Runs `tieline plan`. Exits with 2 where there is something to do, and with 1 where it cannot be done.
pub(crate) async fn run(command: args::Plan) -> anyhow::Result<ExitCode> {
    let intent = connections::read(&command.intent)?;
    show(&client(&command.api)?.plan_create(&intent).await?, command.api.json)
}

/// Prints a plan; its exit code says whether there is something to do.
pub(crate) fn show(plan: &v1::Plan, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(plan)?;
    } else {
        print(plan);
    }
    // What two providers agree on is no step of a plan.
    let shared = plan.after.as_ref().is_some_and(|after| after.kind == ConnectionKind::Coordinated);
    let nothing = plan.steps.is_empty() && !(shared && plan.action == PlanAction::Create);
    let exit = match (plan.applicable, nothing) {
        (false, _) => Exit::Failure,
        (true, true) => Exit::Ok,
        (true, false) => Exit::Changes,
    };
    Ok(exit.into())
}

fn print(plan: &v1::Plan) {
    for step in &plan.steps {
        let (style, sign) = match step.verb {
            Verb::Create => (ADD, '+'),
            Verb::Update => (WARN, '~'),
            Verb::Delete => (BAD, '-'),
        };
        let disruption = match step.disruption {
            Disruption::None => String::new(),
            Disruption::Brief | Disruption::Outage => format!(", disruption {}", output::word(&step.disruption)),
        };
        let channel = step.channel_id.as_ref().map_or_else(String::new, |channel| format!(", channel {channel}"));
        output::say!(
            "{style}{sign}{style:#} {:>2}  {} on end {}{channel}{disruption}",
            step.n,
            step.resource_type,
            step.end.as_str(),
        );
        for field in &step.fields {
            let value = match (&field.after, field.sensitive) {
                (_, true) => "(secret)".to_owned(),
                (Some(value), false) => value.to_string(),
                (None, false) => "(none)".to_owned(),
            };
            output::say!("        {} = {value}", field.pointer);
        }
    }
    for cost in &plan.costs {
        let price = match (cost.price_usd, &cost.as_of) {
            (Some(price), Some(day)) => format!("USD {price} a {}, as of {day}", cost.unit),
            _ => format!("by the {}; no published price is known", cost.unit),
        };
        let count = cost.count.map_or_else(String::new, |count| format!("{count} × "));
        output::say!("cost    end {}: {count}{}: {price} ({})", cost.end.as_str(), cost.what, cost.source);
    }
    for finding in &plan.findings {
        let (style, word) = match finding.severity {
            Severity::Error => (BAD, "error"),
            Severity::Warning => (WARN, "warning"),
            Severity::Info => (Style::new(), "note"),
        };
        output::say!("{style}{word}{style:#} {}: {} {}", finding.pointer, finding.message, finding.resolve);
    }
    output::say!("{} steps; disruption {}", plan.steps.len(), output::word(&plan.disruption));
}
