//! Activation keys of other providers.

use reqwest::Method;

use super::{
    Changed, Client, ClientError, Write,
    connections::{Mutation, encode},
};
use crate::v1::{ActivationKeyAcceptance, ActivationKeyText, DecodedActivationKey, Plan};

const ACCEPT: &str = "/v1/activationKeys:accept";

impl Client {
    /// Makes a connection from a key of the other provider.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where the key was brought before.
    pub async fn accept_activation_key(
        &self,
        acceptance: &ActivationKeyAcceptance,
        write: &Write,
    ) -> Result<Changed, ClientError> {
        self.change(acceptation(&encode(ACCEPT, acceptance)?, false), write).await
    }

    /// What accepting would do; nothing is written.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan_acceptance(&self, acceptance: &ActivationKeyAcceptance) -> Result<Plan, ClientError> {
        self.mutate(acceptation(&encode(ACCEPT, acceptance)?, true), &Write::default()).await?.json()
    }

    /// Tells what a key says.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decode_activation_key(&self, key: &ActivationKeyText) -> Result<DecodedActivationKey, ClientError> {
        self.write(Method::POST, "/v1/activationKeys:decode", Some(key)).await?.json()
    }
}

fn acceptation(body: &serde_json::Value, dry_run: bool) -> Mutation<'_> {
    let path = ACCEPT.to_owned();
    Mutation { method: Method::POST, path, generation: None, body: Some(("application/json", body)), dry_run }
}
