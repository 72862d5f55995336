//! The IO half.

use async_trait::async_trait;
use google_cloud_auth::credentials::Credentials;
use google_cloud_compute_v1::{
    client::{InterconnectAttachments, RegionOperations, Routers},
    model::{InterconnectAttachment, interconnect_attachment},
};
use google_cloud_gax::{options::RequestOptionsBuilder, retry_policy::NeverRetry};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tieline_openapi::config::AccountConfig;

use super::{
    PROVIDER, credentials, errors, limits, map,
    map::last_segment,
    router,
    rules::{INTERCONNECT_ATTACHMENT, ROUTER_PEER},
    wire::RouterWire,
};
use crate::{
    api::{Accepted, CloudApi, ListPage, ListScope, Secrets, Target},
    call::{BGP_PASSWORD, Verb, failed, number, secret, text, within, without_secrets},
    credential::ConnectError,
    error::{CallError, CallErrorKind},
    resource::{Lookup, Observed, OwnerTag, ResourceKind},
};

/// The API's own address.
const ENDPOINT: &str = "https://compute.googleapis.com";
/// The first wait between two looks at an operation, in milliseconds; each is twice the last, up to the longest.
const FIRST_LOOK_MS: u64 = 50;
/// The longest wait between two looks at an operation, in milliseconds.
const LONGEST_LOOK_MS: u64 = 2_000;

/// One project and region.
#[derive(Debug)]
pub(super) struct GoogleApi {
    project: String,
    region: String,
    attachments: InterconnectAttachments,
    routers: Routers,
    operations: RegionOperations,
    wire: RouterWire,
}

impl GoogleApi {
    pub(super) async fn connect(account: &AccountConfig) -> Result<Self, ConnectError> {
        let bad_endpoint = || ConnectError::Endpoint {
            account: account.id.to_string(),
            endpoint: account.endpoint.clone().unwrap_or_default(),
        };
        let client = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Client {
            account: account.id.to_string(),
            provider: PROVIDER,
            source,
        };
        let endpoint = account.endpoint.as_deref().unwrap_or(ENDPOINT);
        let url = reqwest::Url::parse(endpoint).map_err(|_| bad_endpoint())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(bad_endpoint());
        }
        let credentials: Credentials = credentials::of(account)?;
        macro_rules! build {
            ($client:ty) => {
                <$client>::builder()
                    .with_endpoint(endpoint)
                    .with_credentials(credentials.clone())
                    .with_retry_policy(NeverRetry)
                    .build()
                    .await
                    .map_err(|e| client(e.into()))?
            };
        }
        let (project, region) = (account.external_id.clone(), account.region.clone());
        Ok(Self {
            attachments: build!(InterconnectAttachments),
            routers: build!(Routers),
            operations: build!(RegionOperations),
            wire: RouterWire::new(&url, &project, &region, credentials.clone()).map_err(|e| client(e.into()))?,
            project,
            region,
        })
    }

    async fn read_attachment(&self, target: &Target) -> Result<Option<Observed>, CallError> {
        let name = target.lookup.owner.name();
        let call = self.attachments.get().set_project(&self.project).set_region(&self.region);
        let call = call.set_interconnect_attachment(name).with_attempt_timeout(target.timeout).send().await;
        match call {
            Ok(seen) => self.observed(&seen).map(Some),
            Err(error) => absent(errors::from_sdk(Verb::Read, error)),
        }
    }

    fn observed(&self, seen: &InterconnectAttachment) -> Result<Observed, CallError> {
        map::attachment(&self.project, &self.region, &json(seen)?)
            .ok_or_else(|| malformed("an interconnect attachment without a name"))
    }

    async fn read_peer(&self, target: &Target) -> Result<Option<Observed>, CallError> {
        let router = text(PROVIDER, target, "router")?;
        // A router that is not there holds no peer: but it exists before us, so its absence is an error.
        let seen = self.wire.get(router).await?;
        let name = target.lookup.owner.name();
        if !router::has_ours(&seen, &name) {
            return Ok(None);
        }
        let status = self.status(router, target.timeout).await?;
        Ok(map::router_peer(&self.project, &self.region, &seen, Some(&status), &name))
    }

    async fn status(&self, router: &str, timeout: Duration) -> Result<Value, CallError> {
        let call = self.routers.get_router_status().set_project(&self.project).set_region(&self.region);
        let call = call.set_router(router).with_attempt_timeout(timeout).send().await;
        json(&call.map_err(|e| errors::from_sdk(Verb::Read, e))?)
    }

    async fn attachment_page(
        &self,
        page: Option<&str>,
        timeout: Duration,
    ) -> Result<(Vec<Observed>, Option<String>), CallError> {
        let mut call =
            self.attachments.list().set_project(&self.project).set_region(&self.region).set_max_results(limits::PAGE);
        if let Some(page) = page {
            call = call.set_page_token(page);
        }
        let answer = call.with_attempt_timeout(timeout).send().await.map_err(|e| errors::from_sdk(Verb::Read, e))?;
        complete(&json(&answer.warning)?)?;
        let items = answer.items.iter().map(|seen| self.observed(seen)).collect::<Result<_, _>>()?;
        Ok((items, answer.next_page_token.filter(|token| !token.is_empty())))
    }

    /// The peers of one router, or of every router of the region (then without the sessions' states, which each router
    /// has to be asked for).
    async fn peer_page(&self, scope: &ListScope, page: Option<&str>) -> Result<ListPage, CallError> {
        if let Some(parent) = &scope.parent {
            let router = last_segment(parent);
            let seen = self.wire.get(router).await?;
            let status = self.status(router, scope.timeout).await?;
            return Ok(ListPage {
                items: map::router_peers(&self.project, &self.region, &seen, Some(&status)),
                next: None,
            });
        }
        let answer = self.router_page(page, limits::PAGE, scope.timeout).await?;
        complete(&answer["warning"])?;
        let routers = answer["items"].as_array().into_iter().flatten();
        let items = routers.flat_map(|seen| map::router_peers(&self.project, &self.region, seen, None)).collect();
        Ok(ListPage { items, next: answer["nextPageToken"].as_str().filter(|t| !t.is_empty()).map(str::to_owned) })
    }

    async fn router_page(&self, page: Option<&str>, length: u32, timeout: Duration) -> Result<Value, CallError> {
        let mut call = self.routers.list().set_project(&self.project).set_region(&self.region).set_max_results(length);
        if let Some(page) = page {
            call = call.set_page_token(page);
        }
        json(&call.with_attempt_timeout(timeout).send().await.map_err(|e| errors::from_sdk(Verb::Read, e))?)
    }

    /// The wanted attachment. An update names only what Google can change on a living one.
    fn attachment_body(&self, target: &Target, verb: Verb) -> Result<InterconnectAttachment, CallError> {
        let body = InterconnectAttachment::new()
            .set_bandwidth(interconnect_attachment::Bandwidth::from(text(PROVIDER, target, "bandwidth")?))
            .set_mtu(number::<i32>(PROVIDER, target, "mtu")?)
            .set_admin_enabled(target.spec.fields["adminEnabled"].as_bool().unwrap_or(true))
            .set_description(text(PROVIDER, target, "description")?);
        if verb == Verb::Update {
            return Ok(body);
        }
        let (project, region) = (&self.project, &self.region);
        let (interconnect, router) = (text(PROVIDER, target, "interconnect")?, text(PROVIDER, target, "router")?);
        let candidates = target.spec.fields["candidateSubnets"].as_array().into_iter().flatten();
        Ok(body
            .set_name(target.lookup.owner.name())
            .set_type(interconnect_attachment::Type::from(text(PROVIDER, target, "type")?))
            .set_interconnect(format!("projects/{project}/global/interconnects/{interconnect}"))
            .set_router(format!("projects/{project}/regions/{region}/routers/{router}"))
            .set_vlan_tag_8021_q(number::<i32>(PROVIDER, target, "vlanTag8021q")?)
            .set_candidate_subnets(candidates.filter_map(Value::as_str))
            .set_subnet_length(number::<i32>(PROVIDER, target, "subnetLength")?))
    }

    async fn create_attachment(&self, target: &Target) -> Result<Accepted, CallError> {
        let body = self.attachment_body(target, Verb::Create)?;
        let call = self.attachments.insert().set_project(&self.project).set_region(&self.region).set_body(body);
        let answer = call.with_attempt_timeout(target.timeout).send().await;
        let operation = json(&answer.map_err(|e| errors::from_sdk(Verb::Create, e))?)?;
        self.accepted_attachment(Verb::Create, &target.lookup, &operation)
    }

    async fn update_attachment(&self, target: &Target) -> Result<Accepted, CallError> {
        let body = self.attachment_body(target, Verb::Update)?;
        let call = self.attachments.patch().set_project(&self.project).set_region(&self.region).set_body(body);
        let call = call.set_interconnect_attachment(target.lookup.owner.name());
        let answer = call.with_attempt_timeout(target.timeout).send().await;
        let operation = json(&answer.map_err(|e| errors::from_sdk(Verb::Update, e))?)?;
        self.accepted_attachment(Verb::Update, &target.lookup, &operation)
    }

    async fn delete_attachment(&self, target: &Target) -> Result<Accepted, CallError> {
        let call = self.attachments.delete().set_project(&self.project).set_region(&self.region);
        let call = call.set_interconnect_attachment(target.lookup.owner.name());
        let answer = call.with_attempt_timeout(target.timeout).send().await;
        let operation = json(&answer.map_err(|e| errors::from_sdk(Verb::Delete, e))?)?;
        self.accepted_attachment(Verb::Delete, &target.lookup, &operation)
    }

    fn accepted_attachment(&self, verb: Verb, lookup: &Lookup, operation: &Value) -> Result<Accepted, CallError> {
        if let Some(error) = errors::of_operation(verb, operation) {
            return Err(error);
        }
        let cloud_id = map::attachment_path(&self.project, &self.region, &lookup.owner.name());
        Ok(Accepted { cloud_id, request_id: operation["name"].as_str().map(str::to_owned) })
    }

    /// Read, change our entries, one PATCH; then, in what is left of the time, wait until it is done and look at what
    /// others have.
    async fn write_peer(&self, verb: Verb, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        let router = text(PROVIDER, target, "router")?;
        let name = target.lookup.owner.name();
        // A PATCH that was sent has a verdict of its own: waiting for its end must not turn it into "no answer".
        let (send, look) = (target.timeout * 2 / 3, target.timeout / 3);
        let (before, operation) = within(PROVIDER, send, async {
            let before = self.wire.get(router).await?;
            let body = match verb {
                Verb::Create | Verb::Update => {
                    let password = secret(PROVIDER, secrets, BGP_PASSWORD)?;
                    let attachment = self.attachment_of(target).await?;
                    let path = map::attachment_path(&self.project, &self.region, &attachment);
                    let ours = router::OurParts::new(&name, &path, &target.spec.fields, password.expose_secret());
                    router::with_ours(&before, &name, ours)
                }
                Verb::Read | Verb::Delete => {
                    if !router::has_ours(&before, &name) {
                        let message = format!("the router {router} has no part called {name}; nothing was sent");
                        return Err(failed(PROVIDER, CallErrorKind::NotFound, "notFound", message));
                    }
                    router::without_ours(&before, &name)
                }
            };
            let operation = self.wire.patch(verb, router, &body).await?;
            Ok((before, operation))
        })
        .await?;
        if let Some(error) = errors::of_operation(verb, &operation) {
            return Err(error);
        }
        let request_id = operation["name"].as_str().map(str::to_owned);
        let looked = tokio::time::timeout(look, self.look_after(verb, router, &name, &before, operation)).await;
        match looked {
            Ok(result) => result?,
            Err(_) => tracing::warn!(router, name, "a Cloud Router's PATCH was not done in time to be looked after"),
        }
        Ok(Accepted { cloud_id: map::peer_path(&self.project, &self.region, router, &name), request_id })
    }

    /// Waits until the operation is over and compares what others have with what they had. Where Google does not tell, the
    /// PATCH stays accepted: what became of our own parts is a matter of `read`.
    async fn look_after(
        &self,
        verb: Verb,
        router: &str,
        name: &str,
        before: &Value,
        mut operation: Value,
    ) -> Result<(), CallError> {
        let mut wait = FIRST_LOOK_MS;
        while operation["status"] != "DONE" {
            let Some(id) = operation["name"].as_str().map(str::to_owned) else { return Ok(()) };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            wait = (wait * 2).min(LONGEST_LOOK_MS);
            let call = self.operations.get().set_project(&self.project).set_region(&self.region).set_operation(id);
            match call.send().await {
                Ok(answer) => operation = json(&answer)?,
                Err(error) => match errors::from_sdk(Verb::Read, error) {
                    // Nothing more will be told about it.
                    error if error.kind == CallErrorKind::NotFound => break,
                    // Throttled or out of reach: ask again while there is time.
                    error => {
                        tracing::debug!(router, error = &error as &dyn std::error::Error, "no look at an operation")
                    }
                },
            }
        }
        if let Some(error) = errors::of_operation(verb, &operation) {
            return Err(error);
        }
        let Ok(after) = self.wire.get(router).await else { return Ok(()) };
        let harmed = router::harmed(before, &after, name);
        if harmed.is_empty() {
            return Ok(());
        }
        tracing::warn!(router, name, ?harmed, "parts of a Cloud Router that are not ours changed during our write");
        let message =
            format!("parts of the router {router} that are not ours changed during our write: {}", harmed.join(", "));
        let mut error = failed(PROVIDER, CallErrorKind::Conflict, "foreignPartsChanged", message);
        error.detail.request_id = operation["name"].as_str().map(str::to_owned);
        Err(error)
    }

    /// The name of the attachment that the peer belongs to: the one of ours on the interconnect and VLAN, which Google
    /// keeps unique.
    async fn attachment_of(&self, target: &Target) -> Result<String, CallError> {
        let wanted = &target.spec.fields["attachment"];
        let ours = |owner: Option<OwnerTag>| owner.is_some_and(|o| o.installation == target.lookup.owner.installation);
        let mut page: Option<String> = None;
        loop {
            let (items, next) = self.attachment_page(page.as_deref(), target.timeout).await?;
            let found = items.iter().find(|seen| {
                ours(seen.owner)
                    && seen.fields["interconnect"] == wanted["interconnect"]
                    && seen.fields["vlanTag8021q"] == wanted["vlanTag8021q"]
            });
            if let Some(found) = found {
                return Ok(last_segment(&found.cloud_id).to_owned());
            }
            if next.is_none() {
                let message = format!(
                    "no attachment of this installation is on {} with VLAN {}; nothing was sent",
                    wanted["interconnect"], wanted["vlanTag8021q"]
                );
                return Err(failed(PROVIDER, CallErrorKind::NotFound, "attachmentMissing", message));
            }
            page = next;
        }
    }
}

#[async_trait]
impl CloudApi for GoogleApi {
    /// The project that the routers' list says it is of. The project stands in every URL, so this tells that the
    /// credential reaches that project, which is what a list can be believed for; the credential's own home may be
    /// elsewhere. `externalId` must be the project's id: its number is answered with the id.
    async fn identity(&self, timeout: Duration) -> Result<String, CallError> {
        within(PROVIDER, timeout, async {
            let answer = self.router_page(None, 1, timeout).await?;
            [&answer["selfLink"], &answer["id"], &answer["items"][0]["selfLink"]]
                .into_iter()
                .find_map(|link| project_of(link.as_str()?))
                .map(str::to_owned)
                .ok_or_else(|| malformed("a list of routers that does not say which project it is of"))
        })
        .await
    }

    async fn list(&self, scope: &ListScope, page: Option<&str>) -> Result<ListPage, CallError> {
        within(PROVIDER, scope.timeout, async {
            if scope.kind == INTERCONNECT_ATTACHMENT {
                let (items, next) = self.attachment_page(page, scope.timeout).await?;
                Ok(ListPage { items, next })
            } else if scope.kind == ROUTER_PEER {
                self.peer_page(scope, page).await
            } else {
                Err(unknown_kind(&scope.kind))
            }
        })
        .await
    }

    async fn read(&self, target: &Target) -> Result<Option<Observed>, CallError> {
        within(PROVIDER, target.timeout, async {
            match target.spec.key.kind.as_str() {
                kind if kind == INTERCONNECT_ATTACHMENT.as_str() => self.read_attachment(target).await,
                kind if kind == ROUTER_PEER.as_str() => self.read_peer(target).await,
                _ => Err(unknown_kind(&target.spec.key.kind)),
            }
        })
        .await
    }

    async fn create(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        let kind = &target.spec.key.kind;
        let call = async {
            if *kind == INTERCONNECT_ATTACHMENT {
                self.create_attachment(target).await
            } else if *kind == ROUTER_PEER {
                self.write_peer(Verb::Create, target, secrets).await
            } else {
                Err(unknown_kind(kind))
            }
        };
        within(PROVIDER, target.timeout, call).await.map_err(|e| without_secrets(e, secrets))
    }

    async fn update(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        let kind = &target.spec.key.kind;
        let call = async {
            if *kind == INTERCONNECT_ATTACHMENT {
                self.update_attachment(target).await
            } else if *kind == ROUTER_PEER {
                self.write_peer(Verb::Update, target, secrets).await
            } else {
                Err(unknown_kind(kind))
            }
        };
        within(PROVIDER, target.timeout, call).await.map_err(|e| without_secrets(e, secrets))
    }

    async fn delete(&self, target: &Target) -> Result<Accepted, CallError> {
        let kind = &target.spec.key.kind;
        within(PROVIDER, target.timeout, async {
            if *kind == INTERCONNECT_ATTACHMENT {
                self.delete_attachment(target).await
            } else if *kind == ROUTER_PEER {
                self.write_peer(Verb::Delete, target, &Secrets::new()).await
            } else {
                Err(unknown_kind(kind))
            }
        })
        .await
    }
}

/// The SDK's types are the API's JSON: what the wire said, as one shape for all.
fn json<T: Serialize>(answer: &T) -> Result<Value, CallError> {
    serde_json::to_value(answer).map_err(|_| malformed("an answer that is no JSON"))
}

fn malformed(what: &str) -> CallError {
    failed(PROVIDER, CallErrorKind::Malformed, "answer", format!("the cloud answered with {what}"))
}

fn unknown_kind(kind: &ResourceKind) -> CallError {
    failed(PROVIDER, CallErrorKind::Invalid, "kind", format!("{kind} is no kind of this provider; nothing was sent"))
}

/// Only Google's own "not found" about the resource is an absence; one about the project says nothing.
fn absent(error: CallError) -> Result<Option<Observed>, CallError> {
    let about_project = error.detail.message.to_ascii_lowercase().contains("failed to find project");
    if error.kind == CallErrorKind::NotFound && !about_project { Ok(None) } else { Err(error) }
}

/// A list with a warning that parts of it are missing is no list.
fn complete(warning: &Value) -> Result<(), CallError> {
    match warning["code"].as_str() {
        Some(code @ ("UNREACHABLE" | "PARTIAL_SUCCESS" | "LIST_OVERHEAD_QUOTA_EXCEED")) => {
            let message = warning["message"].as_str().unwrap_or("the list is not complete").to_owned();
            Err(failed(PROVIDER, CallErrorKind::Unavailable, code, message))
        }
        _ => Ok(()),
    }
}

/// The project in a URL or path: `.../projects/<project>/...`.
fn project_of(link: &str) -> Option<&str> {
    let rest = link.rsplit_once("projects/")?.1;
    rest.split('/').next().filter(|project| !project.is_empty())
}
