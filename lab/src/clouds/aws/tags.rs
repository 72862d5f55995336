//! Tags: `DescribeTags`, `TagResource`, `UntagResource`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    state::{Aws, Tag},
    wire::AwsError,
};
use crate::clouds::sim::View;

/// The most tags on one resource.
const MOST: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Described {
    resource_arns: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tagging {
    resource_arn: String,
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Untagging {
    resource_arn: String,
    tag_keys: Vec<String>,
}

/// Checks tags as `TagKey` and `TagValue` of the model demand.
pub(super) fn check(tags: &[Tag]) -> Result<(), AwsError> {
    let allowed = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c));
    for (i, tag) in tags.iter().enumerate() {
        let (key, value) = (tag.key.chars().count(), tag.value.chars().count());
        if !(1..=128).contains(&key) || value > 256 || !allowed(&tag.key) || !allowed(&tag.value) {
            return Err(AwsError::client(format!("The tag {:?} is not valid.", tag.key)));
        }
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(AwsError::client("Tag keys that begin with aws: are reserved."));
        }
        if tags[..i].iter().any(|other| other.key == tag.key) {
            return Err(AwsError::new(400, "DuplicateTagKeysException", "A tag key was specified more than once."));
        }
    }
    if tags.len() > MOST {
        let message = "You have reached the limit on the number of tags that can be assigned.";
        return Err(AwsError::new(400, "TooManyTagsException", message));
    }
    Ok(())
}

impl Aws {
    fn exists(&self, arn: &str) -> Result<(), AwsError> {
        let known = self.interfaces.iter().any(|v| v.is_live() && self.arn("dxvif", &v.id) == arn)
            || self.lags.iter().any(|lag| self.arn("dxlag", &lag.id) == arn)
            || self.gateways.iter().any(|gateway| self.arn("dx-gateway", &gateway.id) == arn);
        if known { Ok(()) } else { Err(AwsError::client(format!("The resource {arn} does not exist"))) }
    }
}

impl Api {
    pub(super) fn describe_tags(&self, asked: &Described) -> Result<Value, AwsError> {
        self.sim.read(View::One, |aws| {
            let of = |arn: &String| {
                aws.exists(arn)?;
                let mut shown = json!({ "resourceArn": arn });
                if let Some(tags) = aws.tags.get(arn).filter(|tags| !tags.is_empty()) {
                    shown["tags"] = json!(tags);
                }
                Ok(shown)
            };
            Ok(json!({ "resourceTags": asked.resource_arns.iter().map(of).collect::<Result<Vec<_>, AwsError>>()? }))
        })
    }

    pub(super) fn tag_resource(&self, asked: Tagging) -> Result<Value, AwsError> {
        check(&asked.tags)?;
        self.sim.write(|aws, _| {
            aws.exists(&asked.resource_arn)?;
            let mut tags = aws.tags.get(&asked.resource_arn).cloned().unwrap_or_default();
            for tag in asked.tags {
                tags.retain(|old| old.key != tag.key);
                tags.push(tag);
            }
            check(&tags)?;
            aws.tags.insert(asked.resource_arn, tags);
            Ok(json!({}))
        })
    }

    pub(super) fn untag_resource(&self, asked: &Untagging) -> Result<Value, AwsError> {
        self.sim.write(|aws, _| {
            aws.exists(&asked.resource_arn)?;
            if let Some(tags) = aws.tags.get_mut(&asked.resource_arn) {
                tags.retain(|tag| !asked.tag_keys.contains(&tag.key));
                if tags.is_empty() {
                    aws.tags.remove(&asked.resource_arn);
                }
            }
            Ok(json!({}))
        })
    }
}
