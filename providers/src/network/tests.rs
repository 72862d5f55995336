//! Programs as they misbehave, and BIRD itself.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use proptest::prelude::*;
use tieline_openapi::{
    config::{BirdConfig, CommandConfig, RouterConfig, RouterDriver},
    coordinator::Sensitive,
    v1::BgpState,
};

use super::*;

fn owner() -> Owner {
    Owner::new(&["north", "south"])
}

fn session(channel: &str) -> Session {
    Session {
        name: owner().session(&["e1", "i1", "c", channel]),
        connection: "0192f0c1-2345-7abc-8def-0123456789ab".parse().unwrap(),
        channel: channel.to_owned(),
        interface: "eth1".to_owned(),
        vlan: 1_025u64.try_into().unwrap(),
        mtu_bytes: 1_500u64.try_into().unwrap(),
        bandwidth_mbps: 1_000u64.try_into().unwrap(),
        local_ip: [169, 254, 10, 1].into(),
        peer_ip: [169, 254, 10, 2].into(),
        prefix_len: 30,
        local_asn: 64_512u64.try_into().unwrap(),
        peer_asn: 64_513u64.try_into().unwrap(),
        password: Sensitive::new("s3cret-s3cret"),
        announces: vec!["10.0.0.0/16".parse().unwrap()],
        drained: false,
    }
}

fn script(dir: &Path, text: &str) -> CommandConfig {
    let path = dir.join("program");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    CommandConfig { run: vec![path.display().to_string()], timeout_ms: 500 }
}

fn behind(command: CommandConfig) -> Arc<dyn Device> {
    device(&RouterConfig {
        id: "edge-1".parse().unwrap(),
        announces: vec![],
        poll_ms: 100,
        drain_ms: 0,
        driver: RouterDriver::Command(command),
    })
}

#[tokio::test]
async fn a_program_is_told_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = session("ch1");
    let stranger = Owner::new(&["north", "east"]).session(&["x"]);
    let listed = format!(
        r#"{{"sessions":{{"{}":{{"fingerprint":"{}","bgp":"ESTABLISHED"}},"{stranger}":{{}}}}}}"#,
        wanted.name,
        wanted.fingerprint()
    );
    let log = dir.path().join("log");
    let text = format!(
        "cat >> {}; case $(tail -1 {}) in *listSessions*) echo '{listed}';; *) echo '{{}}';; esac",
        log.display(),
        log.display()
    );
    let device = behind(script(dir.path(), &text));
    device.put(&wanted).await.unwrap();
    device.delete(&wanted.name).await.unwrap();
    let all = device.list(&owner()).await.unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), [&wanted.name], "another owner's sessions are not seen");
    assert_eq!(
        (all[&wanted.name].bgp, all[&wanted.name].fingerprint.clone()),
        (BgpState::Established, wanted.fingerprint())
    );
    let told = fs::read_to_string(log).unwrap();
    let put: serde_json::Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!((&put["tieline"], &put["router"], &put["verb"]), (&1.into(), &"edge-1".into(), &"putSession".into()));
    assert_eq!((&put["session"]["password"], &put["session"]["vlan"]), (&"s3cret-s3cret".into(), &1_025.into()));
    assert_eq!(put["fingerprint"], wanted.fingerprint());
}

#[tokio::test]
async fn a_program_that_misbehaves_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = session("ch1");
    let fails = async |text: &str| behind(script(dir.path(), text)).put(&wanted).await.unwrap_err();
    assert!(matches!(fails("exec sleep 30").await, DeviceError::Slow { ms: 500, .. }));
    assert!(matches!(fails("exit 3").await, DeviceError::Ended { .. }));
    assert!(matches!(fails("echo what").await, DeviceError::Malformed { .. }));
    assert!(matches!(fails("head -c 5000000 /dev/zero").await, DeviceError::TooLong { .. }));
    let refused =
        fails(r#"cat >/dev/null; printf %s '{"error":"no key s3cret-s3cret\nhere"}'; exit 1"#).await.to_string();
    assert!(refused.contains("no key [password] here"), "{refused}");
    assert!(!format!("{wanted:?}").contains("s3cret"), "{wanted:?}");
    let nobody = behind(CommandConfig { run: vec!["/nonexistent/program".to_owned()], timeout_ms: 500 });
    assert!(matches!(nobody.list(&owner()).await.unwrap_err(), DeviceError::Start { .. }));
}

/// A program of a router, asked about its MACsec.
async fn keys_of(
    dir: &Path,
    text: &str,
    keys: Vec<(&str, &str)>,
    active: Option<&str>,
) -> Result<MacSecHeld, DeviceError> {
    let config = RouterConfig {
        id: "edge-1".parse().unwrap(),
        announces: vec![],
        poll_ms: 100,
        drain_ms: 0,
        driver: RouterDriver::Command(script(dir, text)),
    };
    MacSecProgram::new(&config).put(&MacSecKeys { interface: "eth1", keys, active }).await
}

const CKN: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
const CAK: &str = "ca0beef0ca0beef0ca0beef0ca0beef0ca0beef0ca0beef0ca0beef0ca0beef0";

#[tokio::test]
async fn keys_go_by_standard_input_alone_and_what_the_program_says_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        r#"cat > {}; tr '\0' '\n' < /proc/$$/cmdline > {}; tr '\0' '\n' < /proc/$$/environ > {}
        echo '{{"installed":["{}"],"active":null}}'"#,
        at("told"),
        at("arguments"),
        at("environment"),
        CKN.to_uppercase()
    );
    let held = keys_of(dir.path(), &text, vec![(CKN, CAK)], Some(CKN)).await.unwrap();
    assert_eq!(held, MacSecHeld { installed: vec![CKN.to_uppercase()], active: None }, "not what was wanted of it");
    let read = |name: &str| fs::read_to_string(at(name)).unwrap();
    let told: serde_json::Value = serde_json::from_str(&read("told")).unwrap();
    let asked = serde_json::json!({"tieline": 1, "router": "edge-1", "verb": "putMacSecKeys", "interface": "eth1",
        "keys": [{"ckn": CKN, "cak": CAK}], "active": CKN});
    assert_eq!(told, asked);
    for place in ["arguments", "environment"] {
        let text = read(place);
        assert!(!text.is_empty() && !text.contains(CKN) && !text.contains(CAK), "{place}: {text}");
    }
}

#[tokio::test]
async fn a_program_that_misbehaves_about_keys_leaves_nothing_known_and_tells_none() {
    let dir = tempfile::tempdir().unwrap();
    let fails = async |text: &str| {
        let error = keys_of(dir.path(), text, vec![(CKN, CAK)], Some(CKN)).await.unwrap_err();
        let mut told = format!("{error:?} {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            told += &format!(" {cause}");
            source = cause.source();
        }
        let told_lower = told.to_lowercase();
        assert!(!told_lower.contains(&CAK[..8]) && !told_lower.contains(&CKN[..8]), "{told}");
        error
    };
    assert!(matches!(fails("exec sleep 30").await, DeviceError::Slow { ms: 500, .. }));
    assert!(matches!(fails("exit 3").await, DeviceError::Ended { .. }));
    assert!(matches!(fails("cat").await, DeviceError::Malformed { .. }));
    assert!(matches!(fails("echo '{}'").await, DeviceError::Malformed { .. }));
    assert!(matches!(fails("head -c 5000000 /dev/zero").await, DeviceError::TooLong { .. }));
    let quoted = format!(r#"echo '{{"installed":"{}"}}'"#, CAK.to_uppercase());
    assert!(matches!(fails(&quoted).await, DeviceError::Malformed { .. }));
    // A key at the end of the words that are kept.
    let long = format!(r#"printf '{{"error":"%0290d{CAK}"}}' 0"#);
    assert!(matches!(fails(&long).await, DeviceError::Refused { .. }));
    let many = format!(r#"echo '{{"installed":[{}"00"]}}'"#, r#""00","#.repeat(20));
    assert!(matches!(fails(&many).await, DeviceError::Refused { .. }));
    let contrary = r#"echo '{"installed":[],"active":"00"}'"#;
    assert!(fails(contrary).await.to_string().contains("not installed"));
}

#[test]
fn names_and_fingerprints_tell_apart() {
    let (one, two) = (session("ch1"), session("ch2"));
    assert_ne!(one.name, two.name);
    assert_eq!(one.name.to_string().parse::<SessionName>().unwrap(), one.name);
    assert!(owner().owns(&one.name) && !Owner::new(&["northsouth", ""]).owns(&one.name));
    for bad in ["", "tl-", "tl-00000000-", "../tl-00000000-0000000000000000", "tl-0000000G-0000000000000000"] {
        assert!(bad.parse::<SessionName>().is_err(), "{bad}");
    }
    let drained = Session { drained: true, ..one.clone() };
    let keyed = Session { password: Sensitive::new("other"), ..one.clone() };
    assert_ne!(one.fingerprint(), drained.fingerprint());
    assert_eq!(one.fingerprint(), keyed.fingerprint(), "a password is not told, not even by a digest");
}

/// A daemon of the test's own, which ends with it.
struct Daemon(std::process::Child, PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

fn bird() -> Option<&'static str> {
    ["/usr/sbin/bird", "/usr/local/sbin/bird", "/usr/bin/bird"].into_iter().find(|path| Path::new(path).is_file())
}

async fn daemon(dir: &Path) -> Option<(Daemon, bird::Bird)> {
    let Some(program) = bird() else {
        println!("skipped: bird is not installed");
        return None;
    };
    let includes = dir.join("tieline.d");
    fs::create_dir_all(&includes).unwrap();
    let text = format!("router id 10.0.0.1;\nprotocol bfd {{ }}\ninclude \"{}/tl-*.conf\";\n", includes.display());
    fs::write(dir.join("bird.conf"), text).unwrap();
    let log = fs::File::create(dir.join("bird.log")).unwrap();
    let child = Process::new(program)
        .args(["-f", "-c", "bird.conf", "-s", "bird.ctl"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let daemon = Daemon(child, dir.join("bird.ctl"));
    while bird::Control::connect(&daemon.1).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let hook = script(dir, &format!("cat >> {}/hook.log; echo '{{}}'", dir.display()));
    let config = BirdConfig {
        includes: includes.display().to_string(),
        control: daemon.1.display().to_string(),
        hook: CommandConfig { timeout_ms: 5_000, ..hook },
    };
    Some((daemon, bird::Bird::new("edge-1".parse().unwrap(), &config)))
}

async fn protocols(daemon: &Daemon) -> Vec<String> {
    let mut control = bird::Control::connect(&daemon.1).await.unwrap();
    let all = bird::parse_protocols(&control.ask("show protocols all").await.unwrap());
    all.into_iter().filter(|protocol| protocol.kind == "BGP").map(|protocol| protocol.name).collect()
}

#[tokio::test]
async fn bird_holds_what_it_is_given_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let Some((daemon, bird)) = daemon(dir.path()).await else { return };
    let (one, two) = (session("ch1"), Session { interface: "eth2".to_owned(), ..session("ch2") });
    for session in [&one, &two] {
        bird.put(session).await.unwrap();
        bird.put(session).await.unwrap();
    }
    assert_eq!(protocols(&daemon).await.len(), 2);
    let path = dir.path().join("tieline.d").join(format!("{}.conf", one.name));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = bird.list(&owner()).await.unwrap();
    assert_eq!(listed[&one.name].fingerprint, one.fingerprint());
    assert_ne!(listed[&one.name].bgp, BgpState::Established);
    // What BIRD cannot be told changes nothing and holds nobody.
    let quoted = Session { password: Sensitive::new("a\"b"), ..session("ch3") };
    assert!(matches!(bird.put(&quoted).await.unwrap_err(), DeviceError::Invalid { .. }));
    let drained = Session { drained: true, ..one.clone() };
    bird.put(&drained).await.unwrap();
    assert_eq!(bird.list(&owner()).await.unwrap()[&one.name].fingerprint, drained.fingerprint());
    assert!(bird.list(&Owner::new(&["else"])).await.unwrap().is_empty());
    for name in [&one.name, &two.name, &one.name] {
        bird.delete(name).await.unwrap();
    }
    assert!(bird.list(&owner()).await.unwrap().is_empty());
    assert!(protocols(&daemon).await.is_empty());
    assert_eq!(fs::read_dir(dir.path().join("tieline.d")).unwrap().count(), 0);
    let hook = fs::read_to_string(dir.path().join("hook.log")).unwrap();
    assert!(!hook.contains("s3cret"), "{hook}");
    let last: serde_json::Value = serde_json::from_str(hook.lines().last().unwrap()).unwrap();
    assert_eq!((&last["verb"], &last["link"]["name"]), (&"deleteLink".into(), &"eth2.1025".into()));
}

#[tokio::test]
async fn a_crash_between_two_steps_is_seen_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let Some((daemon, bird)) = daemon(dir.path()).await else { return };
    let one = session("ch1");
    bird.put(&one).await.unwrap();
    let path = dir.path().join("tieline.d").join(format!("{}.conf", one.name));
    let whole = fs::read_to_string(&path).unwrap();
    bird.delete(&one.name).await.unwrap();
    // Written, and the service died before BIRD was told: a new service's first look tells it.
    fs::write(&path, &whole).unwrap();
    assert!(protocols(&daemon).await.is_empty());
    let config = BirdConfig {
        includes: dir.path().join("tieline.d").display().to_string(),
        control: daemon.1.display().to_string(),
        hook: CommandConfig { run: vec![dir.path().join("program").display().to_string()], timeout_ms: 5_000 },
    };
    let again = bird::Bird::new("edge-1".parse().unwrap(), &config);
    assert_eq!(again.list(&owner()).await.unwrap()[&one.name].fingerprint, one.fingerprint());
    assert_eq!(protocols(&daemon).await, [one.name.to_string()]);
    // The interface was made and nothing else: it is listed as half made, and can be taken away.
    let head = whole.lines().next().unwrap().replace(&one.fingerprint(), "");
    fs::write(&path, head).unwrap();
    assert_eq!(again.list(&owner()).await.unwrap()[&one.name].fingerprint, "");
    again.delete(&one.name).await.unwrap();
    assert!(!path.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// BIRD itself reads every session that is not refused, and no value ends its own field.
    #[test]
    fn bird_reads_every_session(
        key in "[ -~é#{};\\\\]{0,81}",
        drained: bool,
        prefixes in prop::collection::vec((any::<u32>(), 8u8..=30), 0..4),
        channel in "[a-zA-Z0-9._~-]{1,20}",
    ) {
        let Some(program) = bird() else { return Ok(()) };
        let announces = prefixes.iter().map(|(a, l)| {
            ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::from_bits(*a), *l).trunc()
        });
        let session = Session { password: Sensitive::new(key), drained, announces: announces.collect(), ..session(&channel) };
        if let Ok(text) = bird::session(&session) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("bird.conf");
            fs::write(&file, format!("router id 10.0.0.1;\n{text}")).unwrap();
            let out = Process::new(program).arg("-p").arg("-c").arg(&file).output().unwrap();
            prop_assert!(out.status.success(), "{}\n{text}", String::from_utf8_lossy(&out.stderr));
        }
    }
}
