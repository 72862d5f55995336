//! A channel whose negotiated values a cloud refused gets other ones, as its next generation.

use std::collections::BTreeMap;

use tieline_openapi::{ids::ChannelId, problem::ProviderDetail};

use super::{Engine, draft::Draft, failpoints};
use crate::{
    plan::{
        negotiate::{Refused, Request, Touched, channel_allocations, negotiate},
        step::{Trouble, TroubleCode},
    },
    store::{EngineWrite, SealedSecret, StoreError},
};

impl Engine {
    /// Negotiates a channel anew and writes its next generation with what it takes; the old generation is walked back by
    /// the steps that follow. Where nothing is left to negotiate, the channel is stuck.
    pub(super) async fn walk_back(
        &self,
        draft: &mut Draft,
        channel_id: &ChannelId,
        generation: u32,
        refused: Refused,
        detail: Option<ProviderDetail>,
    ) -> Result<(), StoreError> {
        let touched = Touched::of(&self.topology, &draft.record.intent);
        let mut allocated = self.store.allocated(&touched).await?;
        allocated.release(draft.record.id, &draft.wanted);
        let keep = draft
            .wanted
            .iter()
            .filter(|c| c.channel_id != *channel_id)
            .map(|c| (c.channel_id.clone(), c.clone()))
            .collect();
        let request = Request {
            connection_id: draft.record.id,
            intent: &draft.record.intent,
            keep,
            refused: BTreeMap::from([(channel_id.clone(), refused)]),
        };
        let found = negotiate(&self.topology, &allocated, &request)
            .ok()
            .and_then(|n| n.channels.into_iter().find(|c| c.channel_id == *channel_id));
        let Some(mut channel) = found else {
            draft.stuck.insert(channel_id.clone(), no_alternative(channel_id, detail));
            return Ok(());
        };
        channel.generation = generation.saturating_add(1);
        let Some(secrets) = self.reseal(draft, channel_id, generation, channel.generation) else {
            draft.stuck.insert(channel_id.clone(), no_alternative(channel_id, detail));
            return Ok(());
        };
        let mut status = draft.record.status.clone();
        let walked = draft.walk_backs.get(channel_id).copied().unwrap_or(0).saturating_add(1);
        if status.walk_backs_generation != draft.record.generation {
            status.walk_backs.clear();
            status.walk_backs_generation = draft.record.generation;
        }
        status.walk_backs.insert(channel_id.to_string(), walked);
        let put = EngineWrite::PutChannel {
            channel: Box::new(channel.clone()),
            allocations: channel_allocations(&channel),
            secrets: secrets.clone(),
        };
        let put_status = EngineWrite::PutStatus { status: Box::new(status.clone()), observed_generation: None };
        let why = detail.as_ref().map(|d| d.message.clone()).unwrap_or_default();
        let data =
            serde_json::json!({ "channelId": channel_id.as_str(), "generation": channel.generation, "why": why });
        let event = self.event(draft, "channel.walkedBack", self.now(draft), data);
        match self.write(draft, vec![put, put_status, event]).await {
            Ok(()) => {}
            Err(StoreError::AllocationTaken { what }) => {
                // Somebody was faster; the next pass negotiates again.
                draft.stuck.insert(channel_id.clone(), no_room(channel_id, &what));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        tracing::info!(connection = %draft.record.id, channel = %channel_id, generation = channel.generation, why, "a channel is walked back");
        draft.walk_backs.insert(channel_id.clone(), walked);
        draft.record.status = status;
        draft.channels.push(channel);
        draft.secrets.extend(secrets);
        draft.settle_channels(self.topology.as_ref());
        draft.progressed = true;
        self.failpoints.hit(failpoints::WALKED_BACK).await;
        Ok(())
    }

    /// The channel's secrets, sealed for its next generation; `None` where one cannot be opened.
    fn reseal(&self, draft: &Draft, channel: &ChannelId, from: u32, to: u32) -> Option<Vec<SealedSecret>> {
        let old = draft.secrets.iter().filter(|s| s.channel_id == *channel && s.generation == from);
        old.map(|sealed| {
            let secret = self.vault.open(draft.record.id, sealed).ok()?;
            self.vault.seal(draft.record.id, channel, to, &sealed.name, &secret).ok()
        })
        .collect()
    }
}

fn no_alternative(channel: &ChannelId, detail: Option<ProviderDetail>) -> Trouble {
    Trouble {
        code: TroubleCode::NoAlternative,
        channel_id: channel.clone(),
        key: None,
        instance_id: None,
        message: format!("a cloud refused what was negotiated for channel {channel}, and nothing else is left"),
        remediation: "free VLANs or subnets on the ports, or wish for others in `wanted`".to_owned(),
        detail,
    }
}

fn no_room(channel: &ChannelId, what: &str) -> Trouble {
    Trouble {
        code: TroubleCode::NoAlternative,
        channel_id: channel.clone(),
        key: None,
        instance_id: None,
        message: format!("channel {channel} cannot have {what}: it is taken"),
        remediation: "free it in the cloud, or delete the connection that holds it; Tieline tries again by itself"
            .to_owned(),
        detail: None,
    }
}
