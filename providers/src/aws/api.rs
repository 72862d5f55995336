//! The IO half.

use async_trait::async_trait;
use aws_sdk_directconnect::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    operation::RequestId,
    types::{AddressFamily, NewPrivateVirtualInterface, Tag, VirtualInterface},
};
use secrecy::ExposeSecret;
use std::{collections::BTreeSet, time::Duration};
use tieline_openapi::config::AccountConfig;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use super::{PROVIDER, errors, limits, map, rules::PRIVATE_VIRTUAL_INTERFACE};
use crate::{
    api::{Accepted, CloudApi, ListPage, ListScope, Secrets, Target},
    call::{BGP_PASSWORD, Verb, failed, number, secret, text, within, without_secrets},
    credential::{ConnectError, CredentialRef},
    error::{CallError, CallErrorKind},
    resource::{Observed, Presence, ResourceKind},
};

const EXPECTED: &str = "ACCESS_KEY_ID:SECRET_ACCESS_KEY or ACCESS_KEY_ID:SECRET_ACCESS_KEY:SESSION_TOKEN";

/// One account and region.
#[derive(Debug)]
pub(super) struct AwsApi {
    client: Client,
}

impl AwsApi {
    pub(super) async fn connect(account: &AccountConfig) -> Result<Self, ConnectError> {
        let reference = CredentialRef::of(account)?;
        let region = Region::new(account.region.clone());
        let mut config = aws_sdk_directconnect::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .retry_config(RetryConfig::disabled());
        if let Some(endpoint) = &account.endpoint {
            let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
                return Err(ConnectError::Endpoint { account: account.id.to_string(), endpoint: endpoint.clone() });
            }
            config = config.endpoint_url(endpoint);
        }
        let config = match (reference.read(account, EXPECTED)?, &reference) {
            (Some(text), _) => {
                let parsed = credentials(text.expose_secret()).ok_or_else(|| ConnectError::Malformed {
                    account: account.id.to_string(),
                    reference: account.credential_ref.clone(),
                    expected: EXPECTED,
                })?;
                config.credentials_provider(parsed)
            }
            (None, CredentialRef::Anonymous) => config.allow_no_auth(),
            (None, _) => {
                let shared = aws_config::defaults(BehaviorVersion::latest()).region(region).load().await;
                let chain = shared.credentials_provider().ok_or_else(|| ConnectError::Client {
                    account: account.id.to_string(),
                    provider: PROVIDER,
                    source: "the SDK has no credential chain".into(),
                })?;
                config.credentials_provider(chain)
            }
        };
        Ok(Self { client: Client::from_conf(config.build()) })
    }

    /// What differs from the client's own configuration on one call.
    fn limited(timeout: Duration) -> aws_sdk_directconnect::config::Builder {
        let timeouts = TimeoutConfig::builder().operation_timeout(timeout).operation_attempt_timeout(timeout).build();
        aws_sdk_directconnect::Config::builder().timeout_config(timeouts)
    }

    /// One page, of one connection, of one interface, or of all.
    async fn page(
        &self,
        connection: Option<&str>,
        id: Option<&str>,
        page: Option<&str>,
        timeout: Duration,
    ) -> Result<(Vec<Observed>, Option<String>), CallError> {
        let call = self
            .client
            .describe_virtual_interfaces()
            .set_connection_id(connection.map(str::to_owned))
            .set_virtual_interface_id(id.map(str::to_owned))
            .set_next_token(page.map(str::to_owned));
        // A page length goes with lists only.
        let call = if id.is_none() { call.max_results(limits::PAGE as i32) } else { call };
        let answer = quiet(call.customize().config_override(Self::limited(timeout)).send()).await;
        let answer = answer.map_err(|e| errors::from_sdk(Verb::Read, e))?;
        let items = answer.virtual_interfaces().iter().map(observed).collect::<Result<_, _>>()?;
        Ok((items, answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned)))
    }

    /// By the recorded id; else whatever is in the slot, ours or not. A tombstone in the slot is shown only where it is of
    /// this very instance and nothing alive is there.
    async fn find(&self, target: &Target) -> Result<Option<Observed>, CallError> {
        if let Some(id) = &target.lookup.cloud_id {
            return match self.page(None, Some(id), None, target.timeout).await {
                Ok((items, _)) => Ok(items.into_iter().find(|seen| seen.cloud_id == *id)),
                Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
        let connection = text(PROVIDER, target, "connectionId")?;
        let vlan = &target.spec.fields["vlan"];
        let (mut page, mut found) = (None::<String>, None);
        loop {
            let (items, next) = self.page(Some(connection), None, page.as_deref(), target.timeout).await?;
            let same = |seen: &Observed| seen.fields["vlan"] == *vlan && seen.fields["connectionId"] == connection;
            for seen in items.into_iter().filter(same) {
                if seen.presence != Presence::Gone {
                    return Ok(Some(seen));
                }
                if seen.owner == Some(target.lookup.owner) {
                    found = Some(seen);
                }
            }
            if next.is_none() {
                return Ok(found);
            }
            page = next;
        }
    }

    /// The id to change or delete: the recorded one, else that of what is in the slot, if it is this very instance.
    async fn own_id(&self, target: &Target) -> Result<String, CallError> {
        if let Some(id) = &target.lookup.cloud_id {
            return Ok(id.clone());
        }
        let owner = Some(target.lookup.owner);
        let found = self.find(target).await?.filter(|seen| seen.presence != Presence::Gone && seen.owner == owner);
        found.map(|seen| seen.cloud_id).ok_or_else(|| {
            let slot = target.spec.slot.as_deref().unwrap_or("the slot");
            let message = format!("no virtual interface of this instance is at {slot}; nothing was sent");
            failed(PROVIDER, CallErrorKind::NotFound, "notFound", message)
        })
    }

    fn new_interface(target: &Target, secrets: &Secrets) -> Result<NewPrivateVirtualInterface, CallError> {
        let new = NewPrivateVirtualInterface::builder()
            .virtual_interface_name(target.lookup.owner.name())
            .vlan(number(PROVIDER, target, "vlan")?)
            .asn_long(number(PROVIDER, target, "asnLong")?)
            .mtu(number(PROVIDER, target, "mtu")?)
            .auth_key(secret(PROVIDER, secrets, BGP_PASSWORD)?.expose_secret())
            .amazon_address(text(PROVIDER, target, "amazonAddress")?)
            .customer_address(text(PROVIDER, target, "customerAddress")?)
            .address_family(AddressFamily::from(text(PROVIDER, target, "addressFamily")?))
            .direct_connect_gateway_id(text(PROVIDER, target, "directConnectGatewayId")?)
            .set_tags(Some(tags(target)?));
        new.build().map_err(unwritten)
    }

    async fn create_interface(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        let call = self
            .client
            .create_private_virtual_interface()
            .connection_id(text(PROVIDER, target, "connectionId")?)
            .new_private_virtual_interface(Self::new_interface(target, secrets)?);
        let answer = quiet(call.customize().config_override(Self::limited(target.timeout)).send()).await;
        let answer = answer.map_err(|e| errors::from_sdk(Verb::Create, e))?;
        let request_id = answer.request_id().map(str::to_owned);
        let cloud_id = answer.virtual_interface_id().map(str::to_owned);
        let cloud_id = cloud_id.ok_or_else(|| malformed("a new virtual interface without an id"))?;
        Ok(Accepted { cloud_id, request_id })
    }

    /// The MTU is all that can differ and be changed; the name goes with it, in case somebody has changed that.
    async fn update_interface(&self, target: &Target) -> Result<Accepted, CallError> {
        let cloud_id = self.own_id(target).await?;
        let call = self
            .client
            .update_virtual_interface_attributes()
            .virtual_interface_id(&cloud_id)
            .virtual_interface_name(target.lookup.owner.name())
            .mtu(number(PROVIDER, target, "mtu")?);
        let answer = quiet(call.customize().config_override(Self::limited(target.timeout)).send()).await;
        let answer = answer.map_err(|e| errors::from_sdk(Verb::Update, e))?;
        Ok(Accepted { cloud_id, request_id: answer.request_id().map(str::to_owned) })
    }

    async fn delete_interface(&self, target: &Target) -> Result<Accepted, CallError> {
        let cloud_id = self.own_id(target).await?;
        let call = self.client.delete_virtual_interface().virtual_interface_id(&cloud_id);
        let answer = quiet(call.customize().config_override(Self::limited(target.timeout)).send()).await;
        let answer = answer.map_err(|e| errors::from_sdk(Verb::Delete, e))?;
        Ok(Accepted { cloud_id, request_id: answer.request_id().map(str::to_owned) })
    }
}

#[async_trait]
impl CloudApi for AwsApi {
    /// The account that owns the Direct Connect gateways, else the LAGs, else the connections that the credential sees.
    /// Direct Connect shows a caller only its own of each, and channels and attach points exist before any connection, so
    /// there is one. (That AWS service which tells a caller's account directly is another API with another permission.)
    async fn identity(&self, timeout: Duration) -> Result<String, CallError> {
        within(PROVIDER, timeout, self.owner_account(timeout)).await
    }

    /// The interfaces of every type: others' public and transit ones hold VLANs as well. `scope.parent` may name a
    /// connection or LAG.
    async fn list(&self, scope: &ListScope, page: Option<&str>) -> Result<ListPage, CallError> {
        known(&scope.kind)?;
        within(PROVIDER, scope.timeout, async {
            let (items, next) = self.page(scope.parent.as_deref(), None, page, scope.timeout).await?;
            Ok(ListPage { items, next })
        })
        .await
    }

    async fn read(&self, target: &Target) -> Result<Option<Observed>, CallError> {
        known(&target.spec.key.kind)?;
        within(PROVIDER, target.timeout, self.find(target)).await
    }

    async fn create(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        known(&target.spec.key.kind)?;
        let call = within(PROVIDER, target.timeout, self.create_interface(target, secrets)).await;
        call.map_err(|e| without_secrets(e, secrets))
    }

    async fn update(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        known(&target.spec.key.kind)?;
        let call = within(PROVIDER, target.timeout, self.update_interface(target)).await;
        call.map_err(|e| without_secrets(e, secrets))
    }

    async fn delete(&self, target: &Target) -> Result<Accepted, CallError> {
        known(&target.spec.key.kind)?;
        within(PROVIDER, target.timeout, self.delete_interface(target)).await
    }
}

impl AwsApi {
    async fn owner_account(&self, timeout: Duration) -> Result<String, CallError> {
        macro_rules! owners {
            ($call:ident, $items:ident) => {{
                let call = self.client.$call().customize().config_override(Self::limited(timeout));
                let answer = quiet(call.send()).await.map_err(|e| errors::from_sdk(Verb::Read, e))?;
                let owners = answer.$items().iter().filter_map(|item| item.owner_account());
                one_owner(owners.map(str::to_owned).collect())?
            }};
        }
        if let Some(owner) = owners!(describe_direct_connect_gateways, direct_connect_gateways) {
            return Ok(owner);
        }
        if let Some(owner) = owners!(describe_lags, lags) {
            return Ok(owner);
        }
        if let Some(owner) = owners!(describe_connections, connections) {
            return Ok(owner);
        }
        let message =
            "the account has no Direct Connect gateway, LAG or connection that would tell its number; create the \
                       gateway that tieline.toml names"
                .to_owned();
        Err(failed(PROVIDER, CallErrorKind::Invalid, "identity", message))
    }
}

fn one_owner(owners: BTreeSet<String>) -> Result<Option<String>, CallError> {
    if owners.len() > 1 {
        return Err(malformed("objects of several owners where a caller sees only its own"));
    }
    Ok(owners.into_iter().next())
}

/// Runs a call without any log of the SDK's: at its most talkative it writes whole requests and answers, in which Direct
/// Connect repeats the BGP key in the clear.
fn quiet<F: Future>(call: F) -> impl Future<Output = F::Output> {
    call.with_subscriber(NoSubscriber::default())
}

/// `ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`; none of the three has a colon in it.
fn credentials(text: &str) -> Option<Credentials> {
    let parts: Vec<&str> = text.split(':').collect();
    let (id, secret, token) = match parts[..] {
        [id, secret] => (id, secret, None),
        [id, secret, token] if !token.is_empty() => (id, secret, Some(token.to_owned())),
        _ => return None,
    };
    let usable = !id.is_empty() && !secret.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| Credentials::new(id, secret, token, None, "tieline"))
}

/// Whose it is, and what it is for.
fn tags(target: &Target) -> Result<Vec<Tag>, CallError> {
    let mut tags: Vec<(String, String)> =
        map::owner_tags(&target.lookup.owner).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    for (key, value) in target.spec.fields["tags"].as_object().into_iter().flatten() {
        tags.push((key.clone(), value.as_str().unwrap_or_default().to_owned()));
    }
    tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build().map_err(unwritten)).collect()
}

fn observed(seen: &VirtualInterface) -> Result<Observed, CallError> {
    map::virtual_interface(seen).ok_or_else(|| malformed("a virtual interface without an id"))
}

fn malformed(what: &str) -> CallError {
    failed(PROVIDER, CallErrorKind::Malformed, "answer", format!("the cloud answered with {what}"))
}

fn unwritten(error: aws_sdk_directconnect::error::BuildError) -> CallError {
    let message = "the request could not be written; nothing was sent".to_owned();
    CallError { source: Some(Box::new(error)), ..failed(PROVIDER, CallErrorKind::Invalid, "request", message) }
}

fn known(kind: &ResourceKind) -> Result<(), CallError> {
    if *kind == PRIVATE_VIRTUAL_INTERFACE {
        return Ok(());
    }
    let message = format!("{kind} is no kind of this provider; nothing was sent");
    Err(failed(PROVIDER, CallErrorKind::Invalid, "kind", message))
}
