//! MACsec keys behind a real program of the operator's: what it says is what counts, it is told every key by its standard
//! input alone, and where it cannot do what is wanted a person is told.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tieline_api::coordinator::RouterKeys;
use tieline_openapi::config::{ChannelRouterConfig, CommandConfig, CoordinatorConfig, RouterConfig, RouterDriver};

use super::{
    channels::{MACSEC, channel, has_changed, one, until_secure, with_macsec},
    fixture::{Devices, Pair, Side},
};
use crate::http::fixture::{Backing, Go};

/// The key of a channel changes by its age after so long.
const HOURS: u32 = 12;

/// A router's program: it keeps what each interface was told last in a file of its name. What it finds beside `answer`
/// changes how it answers: `INTERFACE.mute` has it use no newer key than the one that it used, `INTERFACE.dead` has it fail.
const PROGRAM: &str = r#"#!/bin/sh
umask 077
cd "$1" || exit 1
request=$(cat)
interface=$(printf %s "$request" | sed 's/.*"interface":"\([^"]*\)".*/\1/')
[ ! -e "$interface.dead" ] || exit 9
installed=$(printf %s "$request" | grep -o '"ckn":"[0-9a-f]*"' | sed 's/"ckn"://' | paste -sd, -)
active=$(printf %s "$request" | sed 's/.*"active"://; s/}$//')
[ ! -e "$interface.mute" ] || active=$(cat "$interface.active")
printf %s "$request" > "$interface.new" && mv "$interface.new" "$interface"
printf %s "$active" > "$interface.active"
printf '{"installed":[%s],"active":%s}' "$installed" "$active"
"#;

/// The routers of both sides, in one folder each.
struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, PROGRAM).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        for side in ["north", "south"] {
            fs::create_dir(dir.path().join(side)).unwrap();
        }
        Self(dir)
    }

    fn folder(&self, side: &str) -> PathBuf {
        self.0.path().join(side)
    }

    async fn pair(&self, change: impl Fn(&mut CoordinatorConfig)) -> Pair {
        let devices = |side: &'static str, config: &CoordinatorConfig| {
            let run = [&self.0.path().join("program"), &self.folder(side)].map(|path| path.display().to_string());
            let router = RouterConfig {
                id: "edge".parse().unwrap(),
                announces: vec![],
                poll_ms: 100,
                drain_ms: 0,
                driver: RouterDriver::Command(CommandConfig { run: run.to_vec(), timeout_ms: 10_000 }),
            };
            Devices { routers: vec![], macsec: Some(Arc::new(RouterKeys::new(config, &[router]))) }
        };
        let with_routers = |config: &mut CoordinatorConfig| {
            with_macsec(config);
            for interconnect in &mut config.peers[0].environments[0].interconnects {
                for channel in &mut interconnect.channels {
                    let interface = format!("{}-{}", interconnect.id, channel.id);
                    channel.router = Some(ChannelRouterConfig { id: "edge".parse().unwrap(), interface });
                }
            }
            change(config);
        };
        Pair::start_routed([Backing::sqlite(), Backing::sqlite()], with_routers, devices).await
    }

    /// What an interface was told last: CKN to CAK, and the CKN to use.
    fn told(&self, side: &str, interface: &str) -> (BTreeMap<String, String>, Option<String>) {
        let told: Value =
            serde_json::from_str(&fs::read_to_string(self.folder(side).join(interface)).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let keys = told["keys"].as_array().unwrap().iter().map(|key| (text(&key["ckn"]), text(&key["cak"])));
        (keys.collect(), told["active"].as_str().map(ToOwned::to_owned))
    }

    /// What the programs of both sides were told last, as soon as it is one key and the same: a key leaves the list before the
    /// router that had it is told.
    async fn agreed(&self, pair: &Pair, interface: &str) -> (BTreeMap<String, String>, Option<String>) {
        let north = || self.told("north", interface);
        pair.north.until(MACSEC, |_| north().0.len() == 1 && north() == self.told("south", interface)).await;
        north()
    }

    /// Waits until each channel was looked at, and then again: by then all has begun that was due before.
    async fn looked(&self, side: &str) {
        let files = || fs::read_dir(self.folder(side)).unwrap().map(|entry| entry.unwrap().path());
        let of_interface = |path: &PathBuf| path.extension().is_none();
        for _ in 0..2 {
            for file in files().filter(of_interface) {
                fs::remove_file(file).unwrap();
            }
            let waiting = async {
                while files().filter(of_interface).count() < 8 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("each channel is looked at");
        }
    }

    fn mark(&self, side: &str, name: &str) -> PathBuf {
        let path = self.folder(side).join(name);
        fs::write(&path, "").unwrap();
        path
    }
}

/// Every file below a folder that holds one of some words.
fn holding(folder: &Path, words: &[String]) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        words.iter().any(|word| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
    };
    files.filter(holds).collect()
}

fn rotate(side: &Side, body: &Value) -> reqwest::RequestBuilder {
    side.ask(Method::POST, "/v1/macSecChannels:rotate").json(body)
}

fn passes(pair: &Pair, time: Duration) {
    for side in [&pair.north, &pair.south] {
        side.time.pass(time);
    }
}

/// Issues of a code that are open.
fn open<'v>(issues: &'v Value, code: &str) -> Vec<&'v Value> {
    let all = issues["issues"].as_array().unwrap().iter();
    all.filter(|issue| issue["code"] == code && issue["state"] == "OPEN").collect()
}

fn stuck(issues: &Value) -> Vec<&Value> {
    open(issues, "macsec-rotation-stuck")
}

fn silent(issues: &Value) -> Vec<&Value> {
    open(issues, "macsec-device-silent")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_in_use_when_the_program_says_so_and_a_change_that_is_stuck_is_an_issue() {
    let programs = Programs::new();
    let pair = programs.pair(|config| config.macsec_bake_seconds = 0).await;
    let [before, _] = until_secure(&pair).await;
    let north = programs.agreed(&pair, "i1-c1").await;
    // Sealed at rest: nothing of a key is in either store.
    let (ckn, cak) = north.0.iter().next().unwrap();
    for side in [&pair.north, &pair.south] {
        assert_eq!(holding(side.backing.folder(), &[ckn.clone(), cak.clone()]), Vec::<PathBuf>::new());
    }
    // The router of the south takes the new key, and does not come to use it.
    let mute = programs.mark("south", "i1-c1.mute");
    rotate(&pair.north, &one("south", "c1")).go(StatusCode::ACCEPTED).await;
    let half = |list: &Value| {
        let one = channel(list, "i1/c1").unwrap();
        let keys = one["keys"].as_array().unwrap();
        keys.len() == 2 && keys[0]["state"] == "ACTIVE" && keys[1]["state"] == "STANDBY"
    };
    tokio::join!(pair.north.until(MACSEC, half), pair.south.until(MACSEC, half));
    let told = || programs.told("north", "i1-c1");
    pair.north.until(MACSEC, |_| told().0.len() == 2).await;
    assert_eq!(told().1, north.1, "the manager stays on the key that the other end uses");
    assert!(stuck(&pair.north.get("/v1/issues").await).is_empty(), "it may take its time");
    passes(&pair, Duration::from_secs(31 * 60));
    let issues = pair.north.until("/v1/issues", |issues| !stuck(issues).is_empty()).await;
    let [issue] = stuck(&issues)[..] else { panic!("{issues}") };
    assert_eq!(issue["about"][0], "providers/south/environments/e1/interconnects/i1/channels/c1");
    assert!(issue["remediation"].as_str().unwrap().contains("macsec rotate"), "{issue}");
    // As it says: another key in its place, once the router does what it is told.
    fs::remove_file(mute).unwrap();
    rotate(&pair.north, &one("south", "c1")).answer().await;
    let changed = has_changed("i1/c1", &before);
    tokio::join!(pair.north.until(MACSEC, &changed), pair.south.until(MACSEC, &changed));
    passes(&pair, Duration::from_secs(61));
    pair.north.until("/v1/issues", |issues| stuck(issues).is_empty()).await;
    programs.agreed(&pair, "i1-c1").await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_makes_no_key_active() {
    let programs = Programs::new();
    let dead = programs.mark("south", "i1-c1.dead");
    let pair = programs.pair(|_| {}).await;
    let all_but_one = |list: &Value| {
        let all = list["macSecChannels"].as_array().unwrap();
        all.iter().filter(|channel| channel["secure"] == true).count() == 7
    };
    let (north, south) = tokio::join!(pair.north.until(MACSEC, all_but_one), pair.south.until(MACSEC, all_but_one));
    for list in [&north, &south] {
        assert_eq!(channel(list, "i1/c1").unwrap()["secure"], false, "{list}");
    }
    assert!(programs.told("north", "i1-c1").1.is_none(), "the manager uses no key that the other end does not");
    fs::remove_file(dead).unwrap();
    until_secure(&pair).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_says_nothing_any_more_is_an_issue() {
    let programs = Programs::new();
    let pair = programs.pair(|_| {}).await;
    until_secure(&pair).await;
    let dead = programs.mark("south", "i1-c1.dead");
    let later = |issues: &Value, is_open: bool| {
        passes(&pair, Duration::from_secs(61));
        silent(issues).is_empty() != is_open
    };
    let issues = pair.south.until("/v1/issues", |issues| later(issues, true)).await;
    let [issue] = silent(&issues)[..] else { panic!("{issues}") };
    assert_eq!(issue["about"][0], "providers/north/environments/e1/interconnects/i1/channels/c1");
    assert!(issue["remediation"].as_str().unwrap().contains("exit status: 9"), "what the program did is told: {issue}");
    assert_eq!(channel(&pair.south.get(MACSEC).await, "i1/c1").unwrap()["secure"], true, "nothing was changed for it");
    assert!(silent(&pair.north.get("/v1/issues").await).is_empty(), "north's router is well");
    fs::remove_file(dead).unwrap();
    pair.south.until("/v1/issues", |issues| later(issues, false)).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_old_change_one_channel_at_a_time() {
    let programs = Programs::new();
    // South has no such rule: what it manages stays as it is.
    let pair = programs
        .pair(|config| {
            if config.provider.as_str() == "north" {
                config.macsec_rotation_hours = Some(HOURS);
            }
        })
        .await;
    let [before, _] = until_secure(&pair).await;
    let ids = |list: &Value, name: &str| -> Vec<Value> {
        channel(list, name).unwrap()["keys"].as_array().unwrap().iter().map(|key| key["id"].clone()).collect()
    };
    let news = |list: &Value| -> Vec<String> {
        let all = ["i1/c1", "i1/c2", "i1/c3", "i1/c4", "i2/c1", "i2/c2", "i2/c3", "i2/c4"];
        all.into_iter().filter(|name| ids(list, name) != ids(&before, name)).map(str::to_owned).collect()
    };
    let calm = |list: &Value| {
        let all = list["macSecChannels"].as_array().unwrap();
        all.iter()
            .all(|one| one["rotation"] == "NONE" && one["keys"].as_array().unwrap().len() == 1 && one["secure"] == true)
    };
    passes(&pair, Duration::from_secs(u64::from(HOURS) * 3_600 - 600));
    programs.looked("north").await;
    assert_eq!(news(&pair.north.get(MACSEC).await), Vec::<String>::new(), "no key is old yet");
    passes(&pair, Duration::from_secs(660));
    let one_each = |list: &Value| calm(list) && news(list).len() == 2;
    let (north, south) = tokio::join!(pair.north.until(MACSEC, one_each), pair.south.until(MACSEC, one_each));
    let first = news(&north);
    assert_eq!(first, news(&south));
    let manages = |name: &String| name.ends_with("c1") || name.ends_with("c2");
    assert!(first.iter().all(manages) && first[0][..2] != first[1][..2], "one of each interconnect: {first:?}");
    passes(&pair, Duration::from_secs(2 * 3_600));
    let four = |list: &Value| calm(list) && news(list).len() == 4;
    let (north, _) = tokio::join!(pair.north.until(MACSEC, four), pair.south.until(MACSEC, four));
    assert!(news(&north).iter().all(manages), "{:?}", news(&north));
    pair.end().await;
}
