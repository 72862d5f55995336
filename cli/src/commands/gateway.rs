//! `tieline gateway`: one member of a site's group.

use std::process::ExitCode;

use secrecy::SecretString;
use tieline_dataplane::GatewayOptions;

use super::serve::{logs, stop_on_signal};
use crate::{args, exit::Exit};

/// Runs a gateway until it is told to stop.
pub(crate) async fn run(gateway: args::Gateway) -> anyhow::Result<ExitCode> {
    logs(gateway.log_format);
    let options = GatewayOptions {
        api_url: gateway.url,
        join_token: gateway.join_token.map(SecretString::from),
        state_dir: gateway.state_dir,
        netns: gateway.netns,
        name: gateway.name,
        private_address: gateway.private_address,
        wan_endpoint: gateway.endpoint,
        listen_port: gateway.listen_port,
        private_next_hop: gateway.private_next_hop,
        tun_name: gateway.tun,
        lanes: gateway.lanes,
        uapi: Some(gateway.uapi).filter(|folder| folder.as_os_str() != "none"),
        switched_off: gateway.without_offload,
    };
    tieline_dataplane::run(options, stop_on_signal()?).await?;
    Ok(Exit::Ok.into())
}
