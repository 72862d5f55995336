//! The processes of a demo: the service, the gateways and the flows, each inside the lab and with a log file. They end with
//! the lab, and before it by the id that was started.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tieline_lab::cell;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// How long a process may take to say that it is ready, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child process; it is killed when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its standard error in `DIR/NAME.log`.
    pub(crate) fn start(name: &str, dir: &Path, command: std::process::Command) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{name} could not be started"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits for the first line on standard output: what the process says when it is ready.
    pub(crate) async fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("standard output was read already")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        match line {
            Ok(Ok(Some(line))) => {
                // Whatever follows is read and dropped, so that the pipe never fills.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(line)
            }
            Ok(Ok(None)) => bail!("{} ended before it was ready; its log: {}", self.name, self.log.display()),
            Ok(Err(error)) => Err(error).context(self.name.clone()),
            Err(_) => {
                bail!("{} was not ready within {} s; its log: {}", self.name, PATIENCE.as_secs(), self.log.display())
            }
        }
    }

    /// Keeps the latest line of its standard output.
    pub(crate) fn latest_line(&mut self) -> anyhow::Result<watch::Receiver<String>> {
        let stdout = self.child.stdout.take().context("standard output was read already")?;
        let (told, latest) = watch::channel(String::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                told.send_replace(line);
            }
        });
        Ok(latest)
    }

    /// Ends it at once, as a crash would (`SIGKILL`), and waits for its end.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(go_between) = self.child.id() {
            cell::kill_command(go_between).with_context(|| format!("{} could not be killed", self.name))?;
        }
        timeout(PATIENCE, self.child.wait()).await.with_context(|| format!("{} does not end", self.name))??;
        Ok(())
    }

    /// Lets go of it: it lives on after this command.
    pub(crate) fn keep(self) {
        // `kill_on_drop` acts on drop, which a leak prevents; this command ends right after.
        std::mem::forget(self);
    }
}
