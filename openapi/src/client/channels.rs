//! Channels that are shared with a peer: their MACsec keys, and work on them.

use reqwest::Method;
use uuid::Uuid;

use super::{Client, ClientError, PageQuery};
use crate::v1::{
    MacSecChannel, MacSecChannelList, MacSecRotationRequest, MaintenanceEvent, MaintenanceEventList, MaintenanceRequest,
};

impl Client {
    /// A page of the channels on which MACsec is run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mac_sec_channels(&self, page: &PageQuery) -> Result<MacSecChannelList, ClientError> {
        self.get("/v1/macSecChannels", &page.pairs()).await
    }

    /// Wishes another MACsec key for a channel.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where MACsec is not run there, or a key is on its way already.
    pub async fn rotate_mac_sec_key(&self, request: &MacSecRotationRequest) -> Result<MacSecChannel, ClientError> {
        self.write(Method::POST, "/v1/macSecChannels:rotate", Some(request)).await?.json()
    }

    /// A page of work on channels, ours and the other providers'.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn maintenance_events(&self, page: &PageQuery) -> Result<MaintenanceEventList, ClientError> {
        self.get("/v1/maintenanceEvents", &page.pairs()).await
    }

    /// Work of ours.
    ///
    /// # Errors
    /// [`ClientError`]; `not-found` if it is not there.
    pub async fn maintenance_event(&self, id: Uuid) -> Result<MaintenanceEvent, ClientError> {
        self.get(&format!("/v1/maintenanceEvents/{id}"), &[]).await
    }

    /// Plans work on a channel, or begins it.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where another channel of the interconnect is under work at that time.
    pub async fn create_maintenance_event(
        &self,
        request: &MaintenanceRequest,
    ) -> Result<MaintenanceEvent, ClientError> {
        self.write(Method::POST, "/v1/maintenanceEvents", Some(request)).await?.json()
    }

    /// Ends work of ours, or calls it off.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where it was over before.
    pub async fn end_maintenance_event(&self, id: Uuid) -> Result<MaintenanceEvent, ClientError> {
        self.write::<()>(Method::DELETE, &format!("/v1/maintenanceEvents/{id}"), None).await?.json()
    }
}
