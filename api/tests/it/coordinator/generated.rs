//! A client that is not ours: generated from the published document by openapi-typescript, it drives a whole connection over
//! mutual TLS. What is generated is not kept.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use super::{fixture::Pair, pairing};

/// Runs a program in a folder; what it said.
async fn run(command: &mut Command) -> Result<String, String> {
    let output = tokio::time::timeout(Duration::from_secs(120), command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| "it does not end".to_owned())?.map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.trim().to_owned()) } else { Err(format!("{out}\n{err}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_generated_from_the_published_document_drives_a_connection() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = here.join("../../shared/specs/interconnect/published.yaml");
    if !document.exists() {
        println!("SKIPPED: {} is not there", document.display());
        return;
    }
    let sources = here.join("tests/node");
    let packages = match run(Command::new(here.join("../scripts/node-with.sh")).arg(&sources)).await {
        Ok(folder) => folder,
        Err(reason) => {
            println!("SKIPPED: the npm packages cannot be had here: {reason}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["client.ts", "tsconfig.json", "package.json"] {
        std::fs::copy(sources.join(name), folder.path().join(name)).unwrap();
    }
    let modules = Path::new(&packages).join("node_modules");
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules")).unwrap();
    let tool = |name: &str| {
        let mut command = Command::new(modules.join(".bin").join(name));
        command.current_dir(folder.path());
        command
    };
    run(tool("openapi-typescript").arg(&document).args(["-o", "api.d.ts"])).await.unwrap();
    run(tool("tsc").args(["-p", "."])).await.unwrap();

    let pair = Pair::start().await;
    let (key, _) = pairing::issue(&pair.north, "south", 5_000).await;
    let mut client = Command::new("node");
    client.arg("out/client.js").arg(&pair.south.config.peers[0].endpoint).current_dir(folder.path());
    client.args(["ca.pem", "south.pem", "south.key"].map(|name| pair.ca.path(name))).arg(key);
    assert_eq!(run(&mut client).await.unwrap(), "driven");
    pair.north.until_empty("south").await;
    let audit = super::surface::audit(&pair).await;
    for operation in ["ConfirmActivationKey", "CreateFeature", "NotifyConnectionStatus", "DeleteConnection"] {
        assert!(audit.contains(&("peer:south".to_owned(), operation.to_owned())), "{operation}: {audit:?}");
    }
    pair.end().await;
}
