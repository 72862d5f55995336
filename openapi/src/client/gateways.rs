//! Gateways: how they join, what they are told and what they report.

use reqwest::Method;

use super::{Client, ClientError, PageQuery, Watch};
use crate::{
    ids::{GatewayGroupId, GatewayId},
    v1::{
        Gateway, GatewayConfiguration, GatewayList, IssuedJoinToken, JoinAnswer, JoinRequest, JoinTokenRequest,
        KernelLanes, Observations,
    },
};

impl Client {
    /// A page of gateways.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gateways(&self, page: &PageQuery) -> Result<GatewayList, ClientError> {
        self.get("/v1/gateways", &page.pairs()).await
    }

    /// One gateway.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gateway(&self, id: GatewayId) -> Result<Gateway, ClientError> {
        self.get(&format!("/v1/gateways/{id}"), &[]).await
    }

    /// Issues a one-time right to join a group. Its secret is shown this once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn issue_join_token(
        &self,
        group: &GatewayGroupId,
        request: &JoinTokenRequest,
    ) -> Result<IssuedJoinToken, ClientError> {
        self.write(Method::POST, &format!("/v1/gatewayGroups/{group}:issueJoinToken"), Some(request)).await?.json()
    }

    /// Joins as a gateway. The client's token is the join token; the answer's credential is for every later call
    /// ([`Client::with_token`]).
    ///
    /// # Errors
    /// [`ClientError`]; `unauthenticated` if the join token was used or has ended.
    pub async fn join_gateway(&self, request: &JoinRequest) -> Result<JoinAnswer, ClientError> {
        self.write(Method::POST, "/v1/gateways:join", Some(request)).await?.json()
    }

    /// The gateway's configuration, whole, now and with every change. `version` is the one that the gateway has already.
    /// A broken stream is taken up where it stopped.
    #[must_use]
    pub fn watch_configuration(&self, id: GatewayId, version: Option<u64>) -> Watch<GatewayConfiguration> {
        let path = format!("/v1/gateways/{id}/configuration:watch");
        Watch::new(self.clone(), path, version.map(|version| version.to_string()))
    }

    /// Reports. Sent again with the same sequence it is stored once, so a report may be repeated until it is taken.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn observe(&self, id: GatewayId, observations: &Observations) -> Result<(), ClientError> {
        self.write(Method::POST, &format!("/v1/gateways/{id}/observations"), Some(observations)).await.map(drop)
    }

    /// Says which lanes in its kernel the gateway has, and for which peers; all of them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_kernel_lanes(&self, id: GatewayId, lanes: &KernelLanes) -> Result<(), ClientError> {
        self.write(Method::PUT, &format!("/v1/gateways/{id}/kernelLanes"), Some(lanes)).await.map(drop)
    }
}
