//! `tieline lab`: a little internet on this machine.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use tieline_lab::{
    assembly::{self, LabFacts, LabParameters},
    cell::{self, Cell, LabSpec, Place, SpawnOptions, control::Client},
    net::MacSecWay,
    net::wire::{Cut, WireChange, WireStatus},
};

use crate::{
    args::Lab,
    exit::{Exit, Failure},
    output,
};

/// Runs `tieline lab ...`.
pub(crate) async fn run(lab: Lab) -> anyhow::Result<ExitCode> {
    match lab {
        Lab::Up { dir, channels, private_delay_us, internet_delay_us, slow_clouds } => {
            let parameters = LabParameters {
                channels: usize::from(channels),
                private_delay_us: u64::from(private_delay_us),
                internet_delay_us: u64::from(internet_delay_us),
                slow_clouds,
                ..LabParameters::default()
            };
            let facts = up(&dir, &parameters).await?;
            tell(&dir, &facts);
        }
        Lab::Down { dir } => {
            let was_up = cell::down(&dir).await?;
            output::say!("{}", if was_up { "the lab is down; nothing of it is left" } else { "no lab was up" });
        }
        Lab::Status { dir, json } => status(&dir, json).await?,
        Lab::Exec { dir, host, command } => {
            let (program, arguments) = command.split_first().context("a command is needed after `--`")?;
            let mut inside = cell::command(&dir, &Place::parse(&host), program)?;
            let status = inside.args(arguments).status().with_context(|| program.to_string_lossy().into_owned())?;
            return Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)));
        }
        Lab::Wire { dir, wire, cut, mend, delay_us, loss_ppm, json } => {
            let change = WireChange {
                cut: if cut { Some(Cut::Both) } else { mend.then_some(Cut::None) },
                delay_us: delay_us.map(u64::from),
                loss_ppm,
                ..WireChange::default()
            };
            let now = Client::open(&dir)?.change_wire(&wire, &change).await?;
            if json {
                output::json(&now)?;
            } else {
                tell_wire(&wire, &now);
            }
        }
    }
    Ok(Exit::Ok.into())
}

/// Starts a lab that goes on alone, or says what this machine lacks.
async fn up(dir: &Path, parameters: &LabParameters) -> anyhow::Result<LabFacts> {
    let (mut cell, facts) = attached(dir, parameters).await?;
    cell.detach()?;
    Ok(facts)
}

/// Starts a lab that ends with this process, however that ends, or says what this machine lacks.
pub(crate) async fn attached(dir: &Path, parameters: &LabParameters) -> anyhow::Result<(Cell, LabFacts)> {
    let cell = attached_cell(dir, parameters.spec()?).await?;
    let facts = assembly::facts(cell.dir())?;
    Ok((cell, facts))
}

/// The same, of any network.
pub(crate) async fn attached_cell(dir: &Path, spec: LabSpec) -> anyhow::Result<Cell> {
    let missing = cell::preflight();
    if !missing.is_empty() {
        let lines: Vec<_> = missing.iter().map(|m| format!("{} is missing: {}", m.what, m.remedy)).collect();
        return Err(Failure::new(Exit::Failure, format!("this machine cannot run a lab: {}", lines.join("; "))).into());
    }
    let arguments = ["lab-init".into(), "--dir".into(), std::path::absolute(dir)?.into()].to_vec();
    let options = SpawnOptions { attached: true, ..SpawnOptions::new(dir, spec, arguments) };
    Ok(cell::spawn(options).await?)
}

/// The first process of a lab's own namespaces.
pub(crate) fn init(dir: &Path) -> anyhow::Result<ExitCode> {
    Ok(cell::run_inside(dir, assembly::body)?)
}

fn tell(dir: &Path, facts: &LabFacts) {
    output::say!("a lab is up in {}", dir.display());
    output::say!("  AWS     {}", facts.aws_url);
    output::say!("  Google  {}", facts.google_url);
    output::say!("serve it:     tieline serve --config {}", facts.config.display());
    output::say!("look inside:  tieline lab exec --dir {} a-host -- ip addr", dir.display());
    output::say!("end it:       tieline lab down --dir {}", dir.display());
}

fn tell_wire(name: &str, wire: &WireStatus) {
    let state = if wire.cut == Cut::None { "whole" } else { "cut" };
    let lost = wire.a_to_b.lost + wire.b_to_a.lost;
    output::say!("wire     {name:<10} {state}, {} µs one way, {lost} frames lost", wire.wire.delay_us);
}

async fn status(dir: &Path, json: bool) -> anyhow::Result<()> {
    let status = Client::open(dir)?.status().await?;
    if json {
        return output::json(&status);
    }
    output::say!("hosts    {}", status.namespaces.join(" "));
    status.wires.iter().for_each(|(name, wire)| tell_wire(name, wire));
    for (site, sessions) in &status.sites {
        for (id, session) in sessions {
            let (bgp, bfd) = (output::word(&session.bgp), output::word(&session.bfd));
            output::say!("router   {site:<10} {id}: BGP {bgp}, BFD {bfd}, {} routes in", session.routes_in);
        }
    }
    for (site, trunks) in &status.macsec {
        for (trunk, macsec) in trunks {
            let way = match macsec.way {
                MacSecWay::Kernel => "the kernel's",
                MacSecWay::StandIn => "a stand-in, nothing is encrypted",
            };
            let (keys, used) = (macsec.installed, if macsec.active { "one in use" } else { "none in use" });
            output::say!("macsec   {site:<10} {trunk}: {keys} keys installed, {used} ({way})");
        }
    }
    Ok(())
}
