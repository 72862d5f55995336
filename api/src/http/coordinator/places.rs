//! What is agreed out of band: providers, environments, interconnects, channels.

use std::sync::Arc;

use axum::Router;
use tieline_openapi::coordinator::{
    Channel, ConfirmActivationKey, ConfirmActivationKeyResponse, Environment, GetActivationKeyParameters,
    GetActivationKeyParametersResponse, GetChannel, GetEnvironment, GetInterconnect, GetProvider, Interconnect,
    InterconnectPath, ListChannels, ListChannelsResponse, ListEnvironments, ListEnvironmentsResponse,
    ListInterconnects, ListInterconnectsResponse, ListProviders, ListProvidersResponse, Operation, Page, Provider,
    ResourceId,
};

use super::{Fault, Incoming, Peers, done, with};
use crate::{
    coordinator::{Catalogue, Coordination, cut},
    plan::coordinate::Reply,
};

type Shared = Arc<Coordination>;

pub(super) fn routes(router: Router<Peers>) -> Router<Peers> {
    let router = with::<ListProviders, _, _>(router, list_providers);
    let router = with::<GetProvider, _, _>(router, get_provider);
    let router = with::<ListEnvironments, _, _>(router, list_environments);
    let router = with::<GetEnvironment, _, _>(router, get_environment);
    let router = with::<ConfirmActivationKey, _, _>(router, confirm_activation_key);
    let router = with::<GetActivationKeyParameters, _, _>(router, get_activation_key_parameters);
    let router = with::<ListInterconnects, _, _>(router, list_interconnects);
    let router = with::<GetInterconnect, _, _>(router, get_interconnect);
    let router = with::<ListChannels, _, _>(router, list_channels);
    with::<GetChannel, _, _>(router, get_channel)
}

/// Notes a read in the audit log, and gives what the peer may see.
async fn seen<'c, O: Operation>(
    coordination: &'c Coordination,
    asked: &'c Incoming<O>,
) -> Result<Catalogue<'c>, Fault> {
    coordination.books().note(asked.call.audit.clone()).await?;
    Ok(Catalogue::new(coordination.config(), &asked.peer().config))
}

/// A page of a list by id.
fn page<O: Operation, T>(
    coordination: &Coordination,
    asked: &Incoming<O>,
    query: &Page,
    all: impl IntoIterator<Item = (ResourceId, T)>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let at = asked.cut(coordination, query.page_size, query.page_token.as_deref())?;
    let (items, last) = cut(all, at.after.as_deref(), at.size);
    Ok((items, at.next(coordination, last)?))
}

async fn list_providers(shared: Shared, asked: Incoming<ListProviders>) -> Result<ListProvidersResponse, Fault> {
    Ok(ListProvidersResponse::of(seen(&shared, &asked).await?.providers(), None))
}

async fn get_provider(shared: Shared, asked: Incoming<GetProvider>) -> Result<Provider, Fault> {
    seen(&shared, &asked).await?.provider(&asked.path.provider).ok_or_else(Fault::not_found)
}

async fn list_environments(
    shared: Shared,
    asked: Incoming<ListEnvironments>,
) -> Result<ListEnvironmentsResponse, Fault> {
    let all = seen(&shared, &asked).await?.environments();
    let (environments, next_page_token) = page(&shared, &asked, &asked.query, all)?;
    Ok(ListEnvironmentsResponse { environments, next_page_token })
}

async fn get_environment(shared: Shared, asked: Incoming<GetEnvironment>) -> Result<Environment, Fault> {
    let mut all = seen(&shared, &asked).await?.environments();
    all.remove(&asked.path.environment).ok_or_else(Fault::not_found)
}

async fn confirm_activation_key(
    shared: Shared,
    asked: Incoming<ConfirmActivationKey>,
) -> Result<ConfirmActivationKeyResponse, Fault> {
    if !asked.peer().terms().environments.contains_key(&asked.path.environment) {
        return Err(Fault::not_found());
    }
    let answered = shared.answer(&asked.call, |book| book.read_confirm(&asked.path, &asked.body)).await?;
    done(&answered.reply)?;
    Ok(ConfirmActivationKeyResponse { key_valid: Some(answered.reply == Reply::Key(true)) })
}

async fn get_activation_key_parameters(
    shared: Shared,
    asked: Incoming<GetActivationKeyParameters>,
) -> Result<GetActivationKeyParametersResponse, Fault> {
    let environment = &asked.path.environment;
    if !seen(&shared, &asked).await?.environments().contains_key(environment) {
        return Err(Fault::not_found());
    }
    Ok(shared.key_parameters(&asked.peer().id, environment).await?)
}

async fn list_interconnects(
    shared: Shared,
    asked: Incoming<ListInterconnects>,
) -> Result<ListInterconnectsResponse, Fault> {
    let all = seen(&shared, &asked).await?.interconnects(&asked.path).ok_or_else(Fault::not_found)?;
    let (interconnects, next_page_token) = page(&shared, &asked, &asked.query, all)?;
    Ok(ListInterconnectsResponse { interconnects, next_page_token })
}

async fn get_interconnect(shared: Shared, asked: Incoming<GetInterconnect>) -> Result<Interconnect, Fault> {
    let catalogue = seen(&shared, &asked).await?;
    let parent = crate::plan::coordinate::wire::environment_path(&asked.path.provider, &asked.path.environment);
    let one = catalogue.interconnects(&parent).and_then(|mut all| all.remove(&asked.path.interconnect));
    one.ok_or_else(Fault::not_found)
}

async fn list_channels(shared: Shared, asked: Incoming<ListChannels>) -> Result<ListChannelsResponse, Fault> {
    let all = seen(&shared, &asked).await?.channels(&asked.path).ok_or_else(Fault::not_found)?;
    let (channels, next_page_token) = page(&shared, &asked, &asked.query, all)?;
    Ok(ListChannelsResponse { channels, next_page_token })
}

/// A channel, and a note in the audit log.
async fn channel<O>(shared: &Coordination, asked: &Incoming<O>) -> Result<Channel, Fault>
where
    O: Operation<Path = tieline_openapi::coordinator::ChannelPath>,
{
    let path = &asked.path;
    let parent = InterconnectPath {
        provider: path.provider.clone(),
        environment: path.environment.clone(),
        interconnect: path.interconnect.clone(),
    };
    let one = seen(shared, asked).await?.channels(&parent).and_then(|mut all| all.remove(&path.channel));
    one.ok_or_else(Fault::not_found)
}

async fn get_channel(shared: Shared, asked: Incoming<GetChannel>) -> Result<Channel, Fault> {
    channel(&shared, &asked).await
}
