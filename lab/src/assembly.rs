//! One lab out of its parts: the network, both simulated clouds on top of it, and the `tieline.toml` that describes them.

pub mod coordinated;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    config::{AccountConfig, AttachPointConfig, Config, EngineConfig, EnvironmentConfig, InterconnectConfig},
    coordinator::NameError,
    ids::IdError,
    units::{Asn, BandwidthMbps, UnitError},
    v1::{
        AdminState, AttachPointType, Channel, ChannelPort, ConnectionKind, InterconnectState, Middle, ProbeSettings,
        Site,
    },
};
use tieline_providers::network::{bird::ControlError, file};

use crate::{
    cell::{Inside, LabSpec},
    clouds::{
        self, CloudSettings, Delays, Running, ServeError, SystemClock,
        network::Network,
        world::{AwsWorld, GoogleWorld},
    },
    net::{ChannelSpec, Configured, Impairment, NetSpec},
};

/// What a user may choose about a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabParameters {
    /// Channels between the two clouds.
    pub channels: usize,
    /// One-way delay of a private channel, in microseconds.
    pub private_delay_us: u64,
    /// One-way delay of the internet, in microseconds.
    pub internet_delay_us: u64,
    /// Whether the clouds take the time that hurried real clouds take, or none.
    pub slow_clouds: bool,
    /// Seeds everything that the lab draws.
    pub seed: u64,
}

impl Default for LabParameters {
    fn default() -> Self {
        Self { channels: 2, private_delay_us: 2_000, internet_delay_us: 8_000, slow_clouds: true, seed: 1 }
    }
}

/// What a running lab tells: written to `lab.json` in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabFacts {
    /// What it was made of.
    pub parameters: LabParameters,
    /// The simulated AWS.
    pub aws_url: String,
    /// The simulated Google.
    pub google_url: String,
    /// What `/_lab/...` of both wants in the header `x-lab-token`.
    pub admin_token: String,
    /// The `tieline.toml` that describes it.
    pub config: PathBuf,
    /// The environment that it offers.
    pub environment_id: String,
    /// The attach points of its two ends.
    pub attach_points: [String; 2],
}

/// The environment that a lab offers.
pub const ENVIRONMENT: &str = "lab.aws-us-east-1.google-us-east4";
/// The attach point on the AWS side.
pub const AWS_ATTACH_POINT: &str = "aws-core";
/// The attach point on the Google side.
pub const GOOGLE_ATTACH_POINT: &str = "google-core";

const FACTS: &str = "lab.json";
const CONFIG: &str = "tieline.toml";
const AWS_CREDENTIAL: &str = "aws.credential";
const GOOGLE_CREDENTIAL: &str = "google.credential";

/// Why a lab could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A simulated cloud could not start.
    #[error("the simulated clouds could not start")]
    Clouds(#[from] ServeError),
    /// A file could not be written or read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} is not what a lab wrote: start the lab anew", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration could not be written down.
    #[error("the lab's tieline.toml could not be written down")]
    Encode(#[from] toml::ser::Error),
    /// An id of the lab is malformed.
    #[error("the lab's own ids are malformed")]
    Id(#[from] IdError),
    /// The parameters that the lab was started with cannot be read.
    #[error("the lab's parameters are not what this version writes")]
    Parameters(#[source] serde_json::Error),
    /// A name that two providers share is malformed.
    #[error("the lab's own names are malformed")]
    Name(#[from] NameError),
    /// The certificates of two providers could not be made.
    #[error("the certificates of the lab's providers could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A router does not answer.
    #[error("a router of the lab does not answer")]
    Router(#[from] ControlError),
    /// A number of the lab is out of bounds.
    #[error("the lab's own numbers are out of bounds")]
    Unit(#[from] UnitError),
}

/// Both simulated clouds of a running lab.
struct Clouds {
    /// AWS.
    aws: Running,
    /// Google.
    google: Running,
    /// What the lab tells.
    facts: LabFacts,
}

impl LabParameters {
    fn worlds(&self) -> (AwsWorld, GoogleWorld) {
        let net = NetSpec::default();
        (
            AwsWorld::with_channels(self.channels, vec![net.a.prefix]),
            GoogleWorld::with_channels(self.channels, vec![net.b.prefix]),
        )
    }

    /// What the lab's cell is started with.
    ///
    /// # Errors
    /// [`AssemblyError::Parameters`] never in practice: numbers and booleans always encode.
    pub fn spec(&self) -> Result<LabSpec, AssemblyError> {
        let parameters = serde_json::to_value(self).map_err(AssemblyError::Parameters)?;
        Ok(LabSpec { network: self.net(), parameters })
    }

    /// The network below the clouds: channel `i` is the wire `ch{i}`, each a millisecond longer than the one before.
    fn net(&self) -> NetSpec {
        let (aws, google) = self.worlds();
        let channels = aws.lags.iter().zip(&google.interconnects).enumerate();
        NetSpec {
            channels: channels
                .map(|(i, (lag, interconnect))| ChannelSpec {
                    a_port: lag.id.clone(),
                    b_port: interconnect.name.clone(),
                    wire: Impairment::delay_us(self.private_delay_us + 1_000 * i as u64),
                })
                .collect(),
            internet: Impairment::delay_us(self.internet_delay_us),
            seed: self.seed,
            ..NetSpec::default()
        }
    }

    fn settings(&self) -> CloudSettings {
        let delays = if self.slow_clouds { Delays::default() } else { Delays::NONE };
        CloudSettings { delays, seed: self.seed, ..CloudSettings::default() }
    }

    /// The `tieline.toml` of a lab whose clouds listen at these addresses.
    fn config(&self, dir: &Path, aws_url: &str, google_url: &str) -> Result<Config, AssemblyError> {
        let (aws, google) = self.worlds();
        let credential = |file: &str| format!("file:{}", dir.join(file).display());
        let account = |id: &str, provider: &str, external: &str, file, region: &str, url: &str| {
            Ok::<_, IdError>(AccountConfig {
                id: id.parse()?,
                provider: provider.parse()?,
                external_id: external.to_owned(),
                credential_ref: credential(file),
                region: region.to_owned(),
                endpoint: Some(url.to_owned()),
            })
        };
        let channel = |i: usize| {
            Ok::<_, IdError>(Channel {
                id: format!("ch{i}").parse()?,
                admin_state: AdminState::Enabled,
                a: ChannelPort {
                    account_id: "aws-lab".parse()?,
                    port_id: aws.lags[i].id.parse()?,
                    device: aws.lags[i].device.clone(),
                },
                b: ChannelPort {
                    account_id: "google-lab".parse()?,
                    port_id: google.interconnects[i].name.parse()?,
                    device: google.interconnects[i].location.clone(),
                },
            })
        };
        let sold = [1_000, 2_000, 5_000, 10_000].into_iter().map(BandwidthMbps::try_from);
        Ok(Config {
            engine: lab_clocks(),
            probe: ProbeSettings::default(),
            accounts: vec![
                account("aws-lab", "aws", &aws.account, AWS_CREDENTIAL, &aws.region, aws_url)?,
                account("google-lab", "google", &google.project, GOOGLE_CREDENTIAL, &google.region, google_url)?,
            ],
            environments: vec![EnvironmentConfig {
                id: ENVIRONMENT.parse()?,
                kind: ConnectionKind::Direct,
                sites: [
                    Site {
                        provider: "aws".parse()?,
                        site: aws.region.clone(),
                        display_name: "AWS in the lab".to_owned(),
                    },
                    Site {
                        provider: "google".parse()?,
                        site: google.region.clone(),
                        display_name: "Google in the lab".to_owned(),
                    },
                ],
                bandwidths_mbps: sold.collect::<Result<BTreeSet<_>, _>>()?,
                middle: Middle::None,
            }],
            interconnects: vec![InterconnectConfig {
                id: "lab".parse()?,
                environment_id: ENVIRONMENT.parse()?,
                state: InterconnectState::Active,
                max_bandwidth_mbps: BandwidthMbps::try_from(10_000)?,
                channels: (0..self.channels).map(channel).collect::<Result<_, _>>()?,
            }],
            attach_points: vec![
                AttachPointConfig {
                    id: AWS_ATTACH_POINT.parse()?,
                    account_id: "aws-lab".parse()?,
                    site: aws.region.clone(),
                    kind: AttachPointType::DirectConnectGateway,
                    cloud_id: aws.gateway_id.clone(),
                    asn: Asn::try_from(u64::from(aws.gateway_asn))?,
                    prefixes: aws.allowed_prefixes.iter().copied().map(IpNet::V4).collect(),
                },
                AttachPointConfig {
                    id: GOOGLE_ATTACH_POINT.parse()?,
                    account_id: "google-lab".parse()?,
                    site: google.region.clone(),
                    kind: AttachPointType::CloudRouter,
                    cloud_id: google.router.clone(),
                    asn: Asn::try_from(u64::from(google.router_asn))?,
                    prefixes: google.subnets.iter().copied().map(IpNet::V4).collect(),
                },
            ],
            ..Config::default()
        })
    }
}

/// The engine's clocks in a lab: the clouds there are close and do not lag.
const fn lab_clocks() -> EngineConfig {
    EngineConfig {
        lease_ms: 10_000,
        call_timeout_ms: 4_000,
        visibility_lag_ms: 400,
        quarantine_ms: 2_000,
        poll_ms: 150,
        settled_poll_ms: 1_000,
        sweep_ms: 5_000,
        calls_per_second: 100,
    }
}

/// Starts both clouds over a network, and writes `tieline.toml`, the credentials and `lab.json` into the lab's folder.
async fn assemble(parameters: &LabParameters, dir: &Path, network: Arc<dyn Network>) -> Result<Clouds, AssemblyError> {
    let (aws_world, google_world) = parameters.worlds();
    let settings = parameters.settings();
    let aws = clouds::aws::serve(settings.clone(), aws_world, Arc::clone(&network), Arc::new(SystemClock)).await?;
    let google = clouds::google::serve(settings.clone(), google_world, network, Arc::new(SystemClock)).await?;

    let key = format!("{}:{}", settings.access_key_id, settings.secret_access_key);
    write(&dir.join(AWS_CREDENTIAL), key.as_bytes())?;
    write(&dir.join(GOOGLE_CREDENTIAL), settings.bearer_token.as_bytes())?;
    let config = dir.join(CONFIG);
    let (aws_url, google_url) = (aws.url().to_owned(), google.url().to_owned());
    write(&config, toml::to_string(&parameters.config(dir, &aws_url, &google_url)?)?.as_bytes())?;
    let facts = LabFacts {
        parameters: parameters.clone(),
        aws_url,
        google_url,
        admin_token: settings.admin_token,
        config,
        environment_id: ENVIRONMENT.to_owned(),
        attach_points: [AWS_ATTACH_POINT.to_owned(), GOOGLE_ATTACH_POINT.to_owned()],
    };
    let path = dir.join(FACTS);
    let text =
        serde_json::to_vec_pretty(&facts).map_err(|source| AssemblyError::Decode { path: path.clone(), source })?;
    write(&path, &text)?;
    Ok(Clouds { aws, google, facts })
}

/// Runs the clouds of a lab, where it has any, inside its cell until the lab shall end: the body for [`crate::cell::run_inside`].
///
/// # Errors
/// [`AssemblyError`].
pub async fn body(inside: Inside) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if inside.network.spec().routers == Configured::ByOperator {
        inside.ready(serde_json::Value::Null);
        inside.shutdown.cancelled().await;
        return Ok(());
    }
    let parameters: LabParameters =
        serde_json::from_value(inside.parameters.clone()).map_err(AssemblyError::Parameters)?;
    let clouds = assemble(&parameters, &inside.dir, Arc::clone(&inside.network) as Arc<dyn Network>).await?;
    inside.ready(serde_json::to_value(&clouds.facts).map_err(AssemblyError::Parameters)?);
    inside.shutdown.cancelled().await;
    clouds.aws.shutdown().await;
    clouds.google.shutdown().await;
    Ok(())
}

/// What the lab in a folder tells.
///
/// # Errors
/// [`AssemblyError::File`] where no lab runs.
pub fn facts(dir: &Path) -> Result<LabFacts, AssemblyError> {
    let path = dir.join(FACTS);
    let text = fs::read(&path).map_err(|source| AssemblyError::File { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| AssemblyError::Decode { path, source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), AssemblyError> {
    file::replace(path, content).map_err(|source| AssemblyError::File { path: path.to_owned(), source })
}
