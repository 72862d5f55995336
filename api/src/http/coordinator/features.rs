//! Features.

use std::sync::Arc;

use axum::Router;
use tieline_openapi::coordinator::{
    ConnectionPath, CreateFeature, DeleteFeature, Empty, Feature, FeaturePath, GetFeature, ListFeatures,
    ListFeaturesResponse, Operation, ResourceId, UpdateFeature,
};

use super::{Fault, Incoming, Peers, done, never, with};
use crate::{
    coordinator::{Coordination, cut, features_of},
    plan::coordinate::{Ask, wire},
};

type Shared = Arc<Coordination>;

pub(super) fn routes(router: Router<Peers>) -> Router<Peers> {
    let router = with::<ListFeatures, _, _>(router, list);
    let router = with::<CreateFeature, _, _>(router, create);
    let router = with::<GetFeature, _, _>(router, show);
    let router = with::<UpdateFeature, _, _>(router, update);
    with::<DeleteFeature, _, _>(router, delete)
}

/// The features of a connection, by id.
async fn all<O: Operation>(
    shared: &Coordination,
    asked: &Incoming<O>,
    of: &ConnectionPath,
) -> Result<Vec<(ResourceId, Feature)>, Fault> {
    let place = wire::place_of(of);
    let look = Ask::Look { place: place.clone(), as_of: 0 };
    let answered = shared.answer(&asked.call, |_| Ok(look.clone())).await?;
    done(&answered.reply)?;
    Ok(features_of(&of.provider, &place, &answered.reply))
}

fn connection(of: &FeaturePath) -> ConnectionPath {
    ConnectionPath {
        provider: of.provider.clone(),
        environment: of.environment.clone(),
        interconnect: of.interconnect.clone(),
        connection: of.connection.clone(),
    }
}

/// One feature, or 404.
async fn one<O>(shared: &Coordination, asked: &Incoming<O>) -> Result<Feature, Fault>
where
    O: Operation<Path = FeaturePath>,
{
    let all = all(shared, asked, &connection(&asked.path)).await?;
    let found = all.into_iter().find(|(id, _)| *id == asked.path.feature);
    found.map(|(_, feature)| feature).ok_or_else(Fault::not_found)
}

async fn list(shared: Shared, asked: Incoming<ListFeatures>) -> Result<ListFeaturesResponse, Fault> {
    let at = asked.cut(&shared, asked.query.page_size, asked.query.page_token.as_deref())?;
    let all = all(&shared, &asked, &asked.path).await?;
    let (features, last) = cut(all, at.after.as_deref(), at.size);
    Ok(ListFeaturesResponse { features, next_page_token: at.next(&shared, last)? })
}

async fn create(shared: Shared, asked: Incoming<CreateFeature>) -> Result<Feature, Fault> {
    let (place, on) = (wire::place_of(&asked.path), asked.path.parent());
    let id = &asked.query.feature_id;
    let terms = asked.peer().terms();
    let read = || {
        let (channel, config) = wire::read_feature(&on, [&terms.us, &terms.them], &asked.body)?;
        let (place, request_id) = (place.clone(), asked.call.id());
        Ok(Ask::CreateFeature { place, channel, feature: id.clone(), config, request_id })
    };
    let answered = shared.answer(&asked.call, |_| read()).await?;
    done(&answered.reply)?;
    let (channel, config) = wire::read_feature(&on, [&terms.us, &terms.them], &asked.body)
        .map_err(crate::coordinator::CoordinationError::from)?;
    Ok(wire::feature_of(&asked.path.provider, &place, &channel, id, &config, Some(false)))
}

async fn show(shared: Shared, asked: Incoming<GetFeature>) -> Result<Feature, Fault> {
    one(&shared, &asked).await
}

/// A layer 3 feature is immutable (the specification's rule), and there are no others.
async fn update(shared: Shared, asked: Incoming<UpdateFeature>) -> Result<Feature, Fault> {
    one(&shared, &asked).await?;
    Err(never("a layer 3 feature is immutable: delete it, and create another"))
}

async fn delete(shared: Shared, asked: Incoming<DeleteFeature>) -> Result<Empty, Fault> {
    let place = wire::place_of(&connection(&asked.path));
    let ask = Ask::DeleteFeature { place, feature: asked.path.feature.clone(), request_id: asked.call.id() };
    done(&shared.answer(&asked.call, |_| Ok(ask.clone())).await?.reply)?;
    Ok(Empty {})
}
