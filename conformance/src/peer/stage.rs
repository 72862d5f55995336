//! What is agreed with the target out of band, as the suite's half shows it, and which case a request belongs to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tieline_openapi::coordinator::{GetActivationKeyParametersResponse, OperationId as Op};

use super::{
    channels::Channels,
    heard::Heard,
    plot::{Plot, Said},
};
use crate::session::Place;

/// Issues that are kept at most: whoever opens more is refused.
const ISSUES: usize = 1_000;

/// Environments, interconnects and channels, under the names by which the target calls them.
#[derive(Debug, Default)]
pub(crate) struct Statics {
    /// The suite's provider id.
    pub own: String,
    /// The target's.
    pub target: String,
    environments: BTreeMap<String, Value>,
    interconnects: BTreeMap<String, Value>,
    channels: BTreeMap<String, Value>,
    issues: Mutex<BTreeMap<String, (Value, Vec<Value>)>>,
    held: Arc<Channels>,
}

impl Statics {
    /// The mirror image of what the target shows.
    pub(crate) fn mirrored(own: &str, target: &str, places: &[Place], held: Arc<Channels>) -> Self {
        let mirror = |value: Value| {
            let text = value.to_string();
            let text = text.replace(&format!("providers/{own}/"), &format!("providers/{target}/"));
            serde_json::from_str(&text).unwrap_or(Value::Null)
        };
        let named = |value: Value| {
            let value: Value = mirror(value);
            (value["name"].as_str().unwrap_or_default().to_owned(), value)
        };
        let mut statics = Self { own: own.to_owned(), target: target.to_owned(), held, ..Self::default() };
        for place in places {
            statics.environments.extend([named(json!(place.environment.1))]);
            statics.interconnects.extend([named(json!(place.interconnect.1))]);
            statics.channels.extend(place.channels.iter().map(|channel| named(json!(channel))));
        }
        statics
    }

    pub(crate) fn has(&self, interconnect: &str) -> bool {
        self.interconnects.contains_key(interconnect)
    }

    /// The names of an interconnect's channels.
    pub(crate) fn channels(&self, interconnect: &str) -> Vec<String> {
        let parent = format!("{interconnect}/channels/");
        self.channels.keys().filter(|name| name.starts_with(&parent)).cloned().collect()
    }

    /// A channel.
    pub(crate) fn channel(&self, name: &str) -> Option<&Value> {
        self.channels.get(name)
    }

    /// The bandwidths that an interconnect takes, in Mbit/s.
    pub(crate) fn sizes(&self, interconnect: &str) -> Vec<i64> {
        let environment = interconnect.split("/interconnects/").next().unwrap_or_default();
        let of =
            |value: Option<&Value>| value.and_then(|value| value["supportedConnectionSizeMbps"].as_array()).cloned();
        let both = [of(self.interconnects.get(interconnect)), of(self.environments.get(environment))];
        both.into_iter().flatten().flatten().filter_map(|size| size.as_i64()).collect()
    }

    /// What a peer shows to everybody.
    pub(super) fn serve(&self, heard: &Heard) -> Said {
        let list = |of: &BTreeMap<String, Value>, field: &str, under: &str| {
            let under = |name: &str| name.starts_with(&format!("{under}/"));
            Said::good(json!({ field: of.iter().filter(|(name, _)| under(name)).map(|(_, v)| v).collect::<Vec<_>>() }))
        };
        let name = heard.path.trim_start_matches('/');
        let item = |of: &BTreeMap<String, Value>| {
            of.get(name).map_or_else(|| Said::no(404, "there is no such resource"), |value| Said::good(value.clone()))
        };
        let provider = format!("providers/{}", self.target);
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        let ours = json!({ "name": provider });
        match heard.op {
            Op::ListProviders => Said::good(json!({ "environments": [&ours], "providers": [&ours] })),
            Op::GetProvider if name == provider => Said::good(ours),
            Op::ListEnvironments => list(&self.environments, "environments", parent),
            Op::GetEnvironment => item(&self.environments),
            Op::ListInterconnects => list(&self.interconnects, "interconnects", parent),
            Op::GetInterconnect => item(&self.interconnects),
            Op::ListChannels => list(&self.channels, "channels", parent),
            Op::GetChannel => item(&self.channels),
            Op::GetMaintenanceEvents
            | Op::NotifyMaintenance
            | Op::RequestMacSecKeyRotation
            | Op::CreateMacSecKey
            | Op::ListMacSecKeys
            | Op::GetMacSecKey
            | Op::DeleteMacSecKey => self.held.serve(heard, self),
            Op::ConfirmActivationKey => Said::good(json!({ "keyValid": false })),
            // A hint about something that no case has made: heard, and nothing follows.
            Op::NotifyConnectionStatus => Said::good(json!({})),
            Op::ListIssues | Op::CreateIssue | Op::GetIssue | Op::CloseIssue | Op::ListComments | Op::AddComment => {
                self.issue(heard)
            }
            Op::GetProvider
            | Op::GetActivationKeyParameters
            | Op::ListConnections
            | Op::CreateConnection
            | Op::GetConnection
            | Op::UpdateConnection
            | Op::DeleteConnection
            | Op::GenerateFeatureGuidance
            | Op::ListFeatures
            | Op::CreateFeature
            | Op::GetFeature
            | Op::UpdateFeature
            | Op::DeleteFeature => Said::no(404, "there is no such resource"),
        }
    }

    fn issue(&self, heard: &Heard) -> Said {
        let mut issues = self.issues.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.op == Op::ListIssues {
            return Said::good(json!({ "issues": issues.values().map(|(issue, _)| issue).collect::<Vec<_>>() }));
        }
        let id =
            if heard.op == Op::CreateIssue { heard.asked("issueId").unwrap_or_default() } else { heard.id("issue") };
        let name = format!("providers/{}/issues/{id}", heard.id("provider"));
        if heard.op == Op::CreateIssue {
            if id.is_empty() || issues.contains_key(&name) || issues.len() >= ISSUES {
                return Said::no(409, "the issue is there already, or there are too many");
            }
            let mut issue = heard.body.clone();
            issue["name"] = json!(name);
            issue["state"] = json!("STATE_OPEN");
            issues.insert(name, (issue.clone(), Vec::new()));
            return Said::good(issue);
        }
        let Some((issue, comments)) = issues.get_mut(&name) else { return Said::no(404, "there is no such issue") };
        if heard.op == Op::CloseIssue {
            issue["state"] = json!("STATE_CLOSED");
        }
        if heard.op == Op::AddComment && comments.len() < ISSUES {
            comments.insert(0, heard.body["comment"].clone());
            return Said::good(json!({ "comment": heard.body["comment"] }));
        }
        Said::good(if heard.op == Op::ListComments { json!({ "comments": comments }) } else { issue.clone() })
    }
}

/// Everything that the suite plays at a time.
#[derive(Default)]
pub(crate) struct Stage {
    statics: Mutex<Arc<Statics>>,
    channels: Arc<Channels>,
    plots: Mutex<Vec<Arc<Plot>>>,
    /// Which activation keys the suite takes: version 1 if nothing else is said.
    parameters: Mutex<Option<GetActivationKeyParametersResponse>>,
}

impl Stage {
    pub(crate) fn agree(&self, statics: Statics) {
        *self.statics.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(statics);
    }

    /// What the suite has on its channels.
    pub(crate) fn channels(&self) -> &Arc<Channels> {
        &self.channels
    }

    pub(crate) fn statics(&self) -> Arc<Statics> {
        Arc::clone(&self.statics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn enter(&self, plot: &Arc<Plot>) {
        self.plots.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(plot));
    }

    pub(crate) fn leave(&self, plot: &Arc<Plot>) {
        self.plots.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, plot));
    }

    pub(crate) fn takes_keys(&self, parameters: Option<GetActivationKeyParametersResponse>) {
        *self.parameters.lock().unwrap_or_else(PoisonError::into_inner) = parameters;
    }

    /// Answers a request; `None` is an answer that is lost.
    pub(super) async fn hear(&self, heard: Heard) -> Option<Said> {
        if heard.op == Op::GetActivationKeyParameters {
            let parameters = self.parameters.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let only = GetActivationKeyParametersResponse { supported_versions: vec![1], encryption: None };
            return Some(Said::good(json!(parameters.unwrap_or(only))));
        }
        let statics = self.statics();
        let plot = {
            let plots = self.plots.lock().unwrap_or_else(PoisonError::into_inner);
            plots.iter().find(|plot| plot.claims(&heard)).cloned()
        };
        match plot {
            Some(plot) => plot.hear(heard, &statics).await,
            None => Some(statics.serve(&heard)),
        }
    }
}
