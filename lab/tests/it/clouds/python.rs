//! The vendors' own Python clients against the simulators.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use tieline_lab::clouds::{
    CloudSettings, Delays, SystemClock, aws, google,
    network::Unplugged,
    world::{AwsWorld, GoogleWorld},
};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?}: {}", command.get_program(), said.lines().last().unwrap_or_default()))
}

/// A Python with the pinned packages.
fn python() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python-with.sh");
    let output = run(Command::new(script).arg(here().join("requirements.txt")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

#[allow(clippy::print_stdout, reason = "a skipped test says why")]
async fn script(name: &str, environment: Vec<(&str, String)>) {
    let interpreter = match tokio::task::spawn_blocking(python).await.expect("the task") {
        Ok(interpreter) => interpreter,
        Err(reason) => {
            println!("SKIPPED {name}: the vendors' Python clients cannot be had here: {reason}");
            return;
        }
    };
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(here().join(name)).envs(environment).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let output = command.kill_on_drop(true).output();
    let output =
        tokio::time::timeout(std::time::Duration::from_secs(120), output).await.expect("in time").expect("runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed\n{out}\n{err}");
}

fn settings() -> CloudSettings {
    let delays = Delays { operation_pending_ms: 100, operation_running_ms: 700, deleting_ms: 30, ..Delays::NONE };
    CloudSettings { delays, poll_ms: 5, ..CloudSettings::default() }
}

#[tokio::test]
async fn boto3_drives_direct_connect() {
    let world = AwsWorld::with_channels(2, vec!["10.0.0.0/16".parse().expect("a prefix")]);
    let (settings, network) = (settings(), Arc::new(Unplugged::default()));
    let cloud = aws::serve(settings.clone(), world.clone(), network, Arc::new(SystemClock)).await.expect("serves");
    let before = cloud.dump();
    let environment = vec![
        ("LAB_URL", cloud.url().to_owned()),
        ("LAB_KEY", settings.access_key_id),
        ("LAB_SECRET", settings.secret_access_key),
        ("LAB_ADMIN", settings.admin_token),
        ("LAB_GATEWAY", world.gateway_id),
        ("LAB_PORT", world.lags[0].id.clone()),
    ];
    script("aws_client.py", environment).await;
    assert_eq!(cloud.dump(), before, "the client left nothing behind");
}

#[tokio::test]
async fn google_cloud_compute_drives_interconnects_and_routers() {
    let world = GoogleWorld::with_channels(2, vec!["10.1.0.0/16".parse().expect("a prefix")]);
    let (settings, network) = (settings(), Arc::new(Unplugged::default()));
    let cloud = google::serve(settings.clone(), world.clone(), network, Arc::new(SystemClock)).await.expect("serves");
    let before = cloud.dump();
    let environment = vec![
        ("LAB_URL", cloud.url().to_owned()),
        ("LAB_TOKEN", settings.bearer_token),
        ("LAB_ADMIN", settings.admin_token),
        ("LAB_PROJECT", world.project),
        ("LAB_REGION", world.region),
        ("LAB_ROUTER", world.router),
        ("LAB_INTERCONNECT", world.interconnects[0].name.clone()),
    ];
    script("google_client.py", environment).await;
    assert_eq!(cloud.dump(), before, "the client left nothing behind");
}
