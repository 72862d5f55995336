//! What the target asks of the suite.

use std::time::Duration;

use serde_json::Value;
use tieline_openapi::coordinator::{ChannelPath, Method, OperationId as Op};

/// One request of the target, and what it was answered.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// When it came, since the suite began.
    pub at: Duration,
    pub op: Op,
    /// The path under the base path: the name of a resource, and for a verb the verb.
    pub path: String,
    pub ids: Vec<(&'static str, String)>,
    pub query: Vec<(String, String)>,
    pub body: Value,
    /// Whether a body that came says that it is JSON.
    pub says_json: bool,
    /// Whether the target presented a client certificate of the authorities that the suite trusts.
    pub certified: bool,
    /// Status and body; none if it was lost, or is yet to come.
    pub answer: Option<(u16, Value)>,
}

impl Heard {
    /// The id that stands in its path for this key of the template.
    pub(crate) fn id(&self, key: &str) -> &str {
        self.ids.iter().find(|(known, _)| *known == key).map_or("", |(_, id)| id)
    }

    /// A value of its query.
    pub(crate) fn asked(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn request_id(&self) -> Option<&str> {
        self.asked("requestId")
    }

    /// What makes two requests the same: all but the request id.
    pub(crate) fn content(&self) -> String {
        let mut query: Vec<_> = self.query.iter().filter(|(key, _)| key != "requestId").collect();
        query.sort();
        format!("{} {} {query:?} {}", self.op.as_str(), self.path, self.body)
    }

    /// The name of the connection that it is about, made or to be made.
    pub(crate) fn connection(&self) -> Option<String> {
        let id = if self.op == Op::CreateConnection { self.asked("connectionId") } else { Some(self.id("connection")) };
        let id = id.filter(|id| !id.is_empty())?;
        Some(format!("{}/connections/{id}", self.interconnect()))
    }

    pub(crate) fn interconnect(&self) -> String {
        let (provider, environment) = (self.id("provider"), self.id("environment"));
        format!("providers/{provider}/environments/{environment}/interconnects/{}", self.id("interconnect"))
    }

    /// Whether it is about this channel, whichever provider's half of it.
    pub(crate) fn is_of(&self, at: &ChannelPath) -> bool {
        let here = [self.id("environment"), self.id("interconnect"), self.id("channel")];
        here == [at.environment.as_str(), at.interconnect.as_str(), at.channel.as_str()]
    }

    pub(crate) fn was_good(&self) -> bool {
        self.answer.as_ref().is_some_and(|(status, _)| (200..300).contains(status))
    }
}

/// The operation that a method and a path under the base path name.
pub(super) fn operation(method: &str, path: &str) -> Option<(Op, Vec<(&'static str, String)>)> {
    Op::ALL.iter().filter(|op| Method::as_str(op.method()) == method).find_map(|op| Some((*op, ids(*op, path)?)))
}

fn ids(op: Op, path: &str) -> Option<Vec<(&'static str, String)>> {
    let (template, path): (Vec<_>, Vec<_>) = (op.template().split('/').collect(), path.split('/').collect());
    if template.len() != path.len() {
        return None;
    }
    let mut ids = Vec::new();
    for (wanted, is) in template.into_iter().zip(path) {
        match wanted.strip_prefix('{').and_then(|wanted| wanted.strip_suffix('}')) {
            Some(key) if !is.is_empty() => ids.push((key, is.to_owned())),
            None if wanted == is => {}
            Some(_) | None => return None,
        }
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_operation_and_its_ids() {
        let (op, ids) = operation("POST", "/providers/a/environments/e/interconnects/i/connections").unwrap();
        assert_eq!(op, Op::CreateConnection);
        assert_eq!(ids.last(), Some(&("interconnect", "i".to_owned())));
        let verb = operation("POST", "/providers/a/environments/e/ConfirmActivationKey").unwrap().0;
        assert_eq!(verb, Op::ConfirmActivationKey);
        assert!(operation("PUT", "/providers/a").is_none());
        assert!(operation("GET", "/providers//environments").is_none());
    }
}
