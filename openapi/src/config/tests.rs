//! `tieline.toml`: what is refused, and in which words.

use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"# line 1
[[accounts]]
id = "aws-main"
provider = "aws"
externalId = "123456789012"
credentialRef = "anonymous"
region = "us-east-1"
endpoint = "http://127.0.0.1:4001"

[[accounts]]
id = "google-main"
provider = "google"
externalId = "project-1"
credentialRef = "env:GOOGLE_CREDENTIALS"
region = "us-east4"

[[environments]]
id = "lab"
kind = "DIRECT"
bandwidthsMbps = [1000, "10Gbps"]
sites = [
  { provider = "aws", site = "us-east-1", displayName = "Virginia" },
  { provider = "google", site = "us-east4", displayName = "Ashburn" },
]

[[interconnects]]
id = "ic1"
environmentId = "lab"
maxBandwidthMbps = 10000

[[interconnects.channels]]
id = "ch1"
a = { accountId = "aws-main", portId = "dxlag-1", device = "d1" }
b = { accountId = "google-main", portId = "cci-1", device = "d1" }

[[interconnects.channels]]
id = "ch2"
a = { accountId = "aws-main", portId = "dxlag-2", device = "d2" }
b = { accountId = "google-main", portId = "cci-2", device = "d2" }

[[attachPoints]]
id = "dxgw"
accountId = "aws-main"
site = "us-east-1"
type = "DIRECT_CONNECT_GATEWAY"
cloudId = "5f294f92-bafb-4011-916d-9b0bdf7f7f2e"
asn = 64512
prefixes = ["10.0.0.0/16"]

[[attachPoints]]
id = "router"
accountId = "google-main"
site = "us-east4"
type = "CLOUD_ROUTER"
cloudId = "router-1"
asn = 64513

[engine]
leaseMs = 3000
callTimeoutMs = 2000
"#;

/// What is said of the good file with one text replaced, as `line key: message`, cut to the message's first words.
fn refusal(from: &str, to: &str) -> Vec<ConfigProblem> {
    assert!(GOOD.contains(from), "{from}");
    match Config::parse(&GOOD.replacen(from, to, 1), "tieline.toml") {
        Err(ConfigError::Invalid { path, problems }) => {
            assert_eq!(path, "tieline.toml");
            problems
        }
        other => panic!("expected a refusal: {other:?}"),
    }
}

/// The line of a text in the good file.
fn line(of: &str) -> usize {
    GOOD[..GOOD.find(of).unwrap()].matches('\n').count() + 1
}

fn check(from: &str, to: &str, key: &str, words: &str) {
    let problems = refusal(from, to);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].key, key, "{problems:?}");
    assert_eq!(problems[0].line, line(from), "{problems:?}");
    assert!(problems[0].message.contains(words), "{problems:?}");
}

#[test]
fn a_good_file_is_taken_and_comes_back_the_same() {
    let config = Config::parse(GOOD, "tieline.toml").unwrap();
    assert_eq!(config.accounts.len(), 2);
    assert_eq!(config.engine.lease_ms, 3_000);
    assert_eq!(config.engine.poll_ms, EngineConfig::default().poll_ms);
    let written = toml::to_string(&config).unwrap();
    assert_eq!(Config::parse(&written, "written").unwrap(), config, "{written}");
    let empty = Config::parse("", "empty").unwrap();
    assert_eq!(empty, Config::default());
    assert_eq!(Config::parse(&toml::to_string(&empty).unwrap(), "written").unwrap(), empty);
}

#[test]
fn a_bad_number_is_named_by_its_key_and_line() {
    check("asn = 64512", "asn = 23456", "attachPoints[0].asn", "AS_TRANS");
    check("asn = 64513", "asn = 0", "attachPoints[1].asn", "RFC 7607");
    check("asn = 64513", "asn = -1", "attachPoints[1].asn", "");
    check("bandwidthsMbps = [1000, \"10Gbps\"]", "bandwidthsMbps = [0]", "environments[0].bandwidthsMbps[0]", "1 to");
    check("leaseMs = 3000", "leaseMs = \"x\"", "engine.leaseMs", "invalid type");
}

#[test]
fn an_unknown_key_is_named_by_its_line() {
    check("[engine]", "[motor]", "motor", "unknown key");
    check("region = \"us-east4\"", "regoin = \"us-east4\"", "accounts[1].regoin", "unknown field");
    check(
        "device = \"d2\" }\nb",
        "device = \"d2\", lag = 1 }\nb",
        "interconnects[0].channels[1].a.lag",
        "unknown field",
    );
    check("callTimeoutMs", "callTimeout", "engine.callTimeout", "unknown field");
}

#[test]
fn a_missing_key_is_told_at_its_entry() {
    let problems = refusal("cloudId = \"router-1\"\n", "");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].key.starts_with("attachPoints[1]"), "{problems:?}");
    assert!(problems[0].message.contains("cloudId"), "{problems:?}");
    assert!((line("[[attachPoints]]\nid = \"router\"")..=line("id = \"router\"")).contains(&problems[0].line));
}

#[test]
fn doubles_name_the_first() {
    // What refers to the second one dangles, and is told too.
    let problems = refusal("id = \"google-main\"", "id = \"aws-main\"");
    assert_eq!((problems[0].line, problems[0].key.as_str()), (line("id = \"google-main\""), "accounts[1].id"));
    assert_eq!(problems[0].message, "account `aws-main` stands in line 3 already");
    assert!(problems[1..].iter().all(|p| p.message.contains("no account `google-main`")), "{problems:?}");
    check("id = \"ch2\"", "id = \"ch1\"", "interconnects[0].channels[1].id", "already");
    check("id = \"router\"", "id = \"dxgw\"", "attachPoints[1].id", "already");
    let problems = refusal("portId = \"dxlag-2\"", "portId = \"dxlag-1\"");
    assert_eq!(problems[0].key, "interconnects[0].channels[1].a.portId");
    assert_eq!(problems[0].line, line("portId = \"dxlag-2\""));
    assert!(problems[0].message.contains(&format!("line {} already", line("portId = \"dxlag-1\""))), "{problems:?}");
    let problems = refusal("portId = \"cci-2\"", "portId = \"dxlag-1\"");
    assert!(problems[0].message.contains("port `dxlag-1`"), "{problems:?}");
}

#[test]
fn dangling_references_are_refused() {
    check(
        "environmentId = \"lab\"",
        "environmentId = \"lib\"",
        "interconnects[0].environmentId",
        "no environment `lib`",
    );
    let problems = refusal("accountId = \"aws-main\"\nsite", "accountId = \"nobody\"\nsite");
    assert_eq!((problems[0].key.as_str(), problems.len()), ("attachPoints[0].accountId", 1));
    assert!(problems[0].message.contains("there is aws-main, google-main"), "{problems:?}");
    let problems = refusal("b = { accountId = \"google-main\"", "b = { accountId = \"aws-main\"");
    assert_eq!(problems[0].key, "interconnects[0].channels[0].b.accountId");
    assert!(problems[0].message.contains("is in `aws`; this end of environment `lab` is in `google`"));
}

#[test]
fn credentials_and_endpoints_are_kept_safe() {
    check(
        "credentialRef = \"env:GOOGLE_CREDENTIALS\"",
        "credentialRef = \"AKIAEXAMPLE\"",
        "accounts[1].credentialRef",
        "never",
    );
    check(
        "credentialRef = \"env:GOOGLE_CREDENTIALS\"",
        "credentialRef = \"env:A-B\"",
        "accounts[1].credentialRef",
        "A-B",
    );
    check(
        "credentialRef = \"env:GOOGLE_CREDENTIALS\"",
        "credentialRef = \"anonymous\"",
        "accounts[1].credentialRef",
        "endpoint",
    );
    for (to, words) in [
        ("endpoint = \"http://10.0.0.1:4001\"", "in the clear"),
        ("endpoint = \"http://127.0.0.1.example.com\"", "in the clear"),
        ("endpoint = \"ftp://127.0.0.1\"", "neither"),
        ("endpoint = \"127.0.0.1:4001\"", "not a URL"),
        ("endpoint = \"http://u:p@127.0.0.1\"", "no credential"),
    ] {
        check("endpoint = \"http://127.0.0.1:4001\"", to, "accounts[0].endpoint", words);
    }
    for good in ["http://[::1]:1", "http://localhost:1", "https://vpce.example.com"] {
        let text = GOOD.replacen("http://127.0.0.1:4001", good, 1);
        Config::parse(&text, "tieline.toml").unwrap();
    }
}

#[test]
fn attach_points_fit_their_cloud() {
    check("type = \"CLOUD_ROUTER\"", "type = \"DRG\"", "attachPoints[1].type", "CLOUD_ROUTER");
    let prefixes = "prefixes = [\"10.0.0.0/16\"]";
    let problems = refusal(prefixes, "prefixes = [\n  \"10.2.0.0/16\",\n  \"10.0.0.1/16\",\n]");
    assert_eq!((problems[0].key.as_str(), problems[0].line), ("attachPoints[0].prefixes[1]", line(prefixes) + 2));
    assert!(problems[0].message.contains("10.0.0.0/16"));
}

#[test]
fn clocks_must_make_sense() {
    check("callTimeoutMs = 2000", "callTimeoutMs = 3000", "engine.callTimeoutMs", "less than leaseMs");
    check("leaseMs = 3000", "leaseMs = 0", "engine.leaseMs", "at least 1");
}

#[test]
fn empty_and_meaningless_entries_are_refused() {
    check("region = \"us-east4\"", "region = \" \"", "accounts[1].region", "must not be empty");
    check("cloudId = \"router-1\"", "cloudId = \"a\\u0007\"", "attachPoints[1].cloudId", "control characters");
    check(
        "bandwidthsMbps = [1000, \"10Gbps\"]",
        "bandwidthsMbps = []",
        "environments[0].bandwidthsMbps",
        "at least one",
    );
    check("leaseMs = 3000", "leaseMs = 9999999999999", "engine.leaseMs", "at most");
    let problems = refusal("[engine]", "[retention]\nledgerDays = 0\n\n[engine]");
    assert_eq!((problems[0].key.as_str(), problems[0].line), ("retention.ledgerDays", line("[engine]") + 1));
    let probe = "[probe]\ndeadPorts = 17\n\n[engine]";
    let problems = refusal("[engine]", probe);
    assert_eq!((problems[0].key.as_str(), problems[0].line), ("probe.deadPorts", line("[engine]") + 1));
    let problems = refusal("[engine]", "[probe]\nintervalMs = 0\n\n[engine]");
    assert_eq!(problems[0].key, "probe.intervalMs");
    let twice = "provider = \"google\", site = \"us-east4\", displayName = \"Ashburn\"";
    let problems = refusal(twice, "provider = \"aws\", site = \"us-east-1\", displayName = \"Ashburn\"");
    assert_eq!(problems[0].key, "environments[0].sites[1]");
    let same = "cloudId = \"router-1\"\nasn = 64513\n";
    let problems = refusal(
        same,
        &format!(
            "{same}\n[[attachPoints]]\nid = \"again\"\naccountId = \"google-main\"\n\
        site = \"us-east4\"\ntype = \"CLOUD_ROUTER\"\n{same}"
        ),
    );
    assert_eq!(problems[0].key, "attachPoints[2].cloudId");
    let start = GOOD.find("[[interconnects.channels]]").unwrap();
    let end = GOOD.find("[[attachPoints]]").unwrap();
    let problems = refusal(&GOOD[start..end], "channels = []\n");
    assert_eq!(problems[0].key, "interconnects[0].channels");
}

#[test]
fn everything_is_told_at_once() {
    let text = GOOD.replace("asn = 64512", "asn = 23456").replace("region = \"us-east4\"", "regoin = \"us-east4\"");
    let error = Config::parse(&text, "tieline.toml").unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].starts_with(&format!("tieline.toml:{}: accounts[1].regoin: ", line("region = \"us-east4\""))));
    assert!(lines[1].starts_with(&format!("tieline.toml:{}: attachPoints[0].asn: ", line("asn = 64512"))));

    let text = GOOD.replace("portId = \"cci-2\"", "portId = \"cci-1\"").replace("\"anonymous\"", "\"secret\"");
    let error = Config::parse(&text, "tieline.toml").unwrap_err().to_string();
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn no_toml_and_no_file_are_told_plainly() {
    let error = Config::parse("a = 1\nb = [", "x.toml").unwrap_err().to_string();
    assert!(error.starts_with("x.toml:2: "), "{error}");
    let error = Config::read(Path::new("/nowhere/tieline.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/tieline.toml");
}

proptest! {
    /// A damaged file is refused with a line that it has, or taken; it is never a panic.
    #[test]
    fn a_damaged_file_is_no_panic(at in 0usize..GOOD.len(), length in 0usize..40, put in "[a-z0-9\"\\[\\]{}=.,\n -]{0,6}") {
        let end = (at + length).min(GOOD.len());
        let text = format!("{}{put}{}", &GOOD[..at], &GOOD[end..]);
        if let Err(ConfigError::Invalid { problems, .. }) = Config::parse(&text, "tieline.toml") {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(problem.line >= 1 && problem.line <= text.matches('\n').count() + 1);
            }
        }
    }
}

const PAIRED: &str = r#"[coordinator]
provider = "north"
listen = "127.0.0.1:7443"
certificateFile = "north.pem"
keyFile = "north.key"

[[coordinator.peers]]
provider = "south"
endpoint = "https://south.example/coordinator/v1"
caFile = "ca.pem"
identity = { dnsName = "south.example" }

[[coordinator.peers.environments]]
id = "e1"
ourSite = "n-1"
theirSite = "s-1"
bandwidthsMbps = [1000, "5Gbps"]

[[coordinator.peers.environments.interconnects]]
id = "i1"
maxBandwidthMbps = 10000

[[coordinator.peers.environments.interconnects.channels]]
id = "c1"
device = "d1"
asn = 64512
subnets = ["169.254.10.0/24"]
sizeGbps = 10
macsecManager = "south"

[[coordinator.peers.environments.interconnects.channels]]
id = "c2"
device = "d2"
asn = 64512
vlans = [1025, 1100]
subnets = ["169.254.10.0/24"]
sizeGbps = 10
"#;

#[test]
fn a_pairing_is_taken_and_comes_back_the_same() {
    let config = Config::parse(PAIRED, "tieline.toml").unwrap();
    let coordinator = config.coordinator.as_ref().unwrap();
    let channel = &coordinator.peers[0].environments[0].interconnects[0].channels[0];
    assert_eq!((channel.vlans, channel.prefix_lengths.as_slice()), ((1_025, 4_094), [29, 30].as_slice()));
    let written = toml::to_string(&config).unwrap();
    assert_eq!(Config::parse(&written, "written").unwrap(), config, "{written}");
}

#[test]
fn what_is_wrong_with_a_pairing_is_named() {
    let peer = "coordinator.peers[0]";
    let channel = "coordinator.peers[0].environments[0].interconnects[0].channels[1]";
    let pin = "identity = { spkiSha256 = [\"00\"] }";
    for (from, to, key, words) in [
        ("provider = \"south\"", "provider = \"north\"", format!("{peer}.provider"), "another provider id"),
        ("https://south.example", "http://127.0.0.1", format!("{peer}.endpoint"), "TLS 1.3"),
        ("\"south.example\" }", "\"no name\" }", format!("{peer}.identity.dnsName"), "no DNS name"),
        ("identity = { dnsName = \"south.example\" }", pin, format!("{peer}.identity.spkiSha256[0]"), "64"),
        ("[1000, \"5Gbps\"]", "[]", format!("{peer}.environments[0].bandwidthsMbps"), "at least one"),
        ("device = \"d2\"", "device = \"d1\"", format!("{channel}.device"), "already"),
        ("[1025, 1100]", "[1000, 1100]", format!("{channel}.vlans"), "reserved"),
        ("[1025, 1100]", "[1100, 1025]", format!("{channel}.vlans"), "range"),
        ("ourSite = \"n-1\"", "ourSiet = \"n-1\"", format!("{peer}.environments[0].ourSiet"), "unknown field"),
        ("\"north.key\"", "\"north.key\"\nsecret = 1", "coordinator.secret".to_owned(), "unknown field"),
        (
            "macsecManager = \"south\"",
            "macsecManager = \"east\"",
            channel.replace("[1]", "[0]") + ".macsecManager",
            "two",
        ),
    ] {
        let problems = match Config::parse(&PAIRED.replacen(from, to, 1), "tieline.toml") {
            Err(ConfigError::Invalid { problems, .. }) => problems,
            other => panic!("{from}: expected a refusal: {other:?}"),
        };
        let line = PAIRED[..PAIRED.find(from).unwrap()].matches('\n').count() + 1;
        let found = problems.iter().find(|problem| problem.key == key);
        let found = found.unwrap_or_else(|| panic!("{key}: {problems:?}"));
        assert!(found.message.contains(words), "{found:?}");
        assert!((line..=line + 1).contains(&found.line), "{line}: {found:?}");
    }
}

const ROUTED: &str = r#"
[[routers]]
id = "edge-1"
announces = ["10.0.0.0/16"]

[routers.driver.bird]
includes = "/etc/bird/tieline.d"
control = "/run/bird/bird.ctl"
hook = { run = ["/usr/local/lib/tieline/links"] }

[[routers]]
id = "edge-2"
driver = { command = { run = ["/usr/local/lib/tieline/edge", "--quiet"], timeoutMs = 5000 } }
"#;

fn routed() -> String {
    let one = "device = \"d1\"\nrouter = { id = \"edge-1\", interface = \"eth1\" }";
    let two = "device = \"d2\"\nrouter = { id = \"edge-2\", interface = \"et-0/0/1\" }";
    PAIRED.replace("device = \"d1\"", one).replace("device = \"d2\"", two) + ROUTED
}

#[test]
fn routers_are_taken_and_come_back_the_same() {
    let config = Config::parse(&routed(), "tieline.toml").unwrap();
    let RouterDriver::Bird(bird) = &config.routers[0].driver else { panic!("{:?}", config.routers) };
    assert_eq!((bird.hook.timeout_ms, config.routers[0].poll_ms), (20_000, 5_000));
    let written = toml::to_string(&config).unwrap();
    assert_eq!(Config::parse(&written, "written").unwrap(), config, "{written}");
}

#[test]
fn what_is_wrong_with_a_router_is_named() {
    let channel = "coordinator.peers[0].environments[0].interconnects[0].channels";
    for (from, to, key, words) in [
        ("id = \"edge-2\"\ndriver", "id = \"edge-1\"\ndriver", "routers[1].id".to_owned(), "already"),
        ("10.0.0.0/16", "10.0.0.1/16", "routers[0].announces[0]".to_owned(), "host bits"),
        ("\"/etc/bird/tieline.d\"", "\"tieline.d\"", "routers[0].driver.bird.includes".to_owned(), "absolute"),
        ("[\"/usr/local/lib/tieline/links\"]", "[]", "routers[0].driver.bird.hook.run".to_owned(), "names a program"),
        ("timeoutMs = 5000", "timeoutMs = 5", "routers[1].driver.command.timeoutMs".to_owned(), "from 100"),
        ("id = \"edge-1\", i", "id = \"edge-3\", i", format!("{channel}[0].router.id"), "no router"),
        ("\"eth1\"", "\"eth0000000001\"", format!("{channel}[0].router.interface"), "at most 10"),
        ("\"eth1\"", "\"eth/1\"", format!("{channel}[0].router.interface"), "name of an interface"),
        (
            "\"edge-2\", interface = \"et-0/0/1\"",
            "\"edge-1\", interface = \"eth1\"",
            format!("{channel}[1].router.interface"),
            "already",
        ),
    ] {
        let text = routed();
        assert!(text.contains(from), "{from}");
        let problems = match Config::parse(&text.replacen(from, to, 1), "tieline.toml") {
            Err(ConfigError::Invalid { problems, .. }) => problems,
            other => panic!("{from}: expected a refusal: {other:?}"),
        };
        let found = problems.iter().find(|problem| problem.key == key);
        let found = found.unwrap_or_else(|| panic!("{key}: {problems:?}"));
        assert!(found.message.contains(words), "{found:?}");
        let line = text[..text.find(from).unwrap()].matches('\n').count() + 1;
        assert!((line..=line + 1).contains(&found.line), "{line}: {found:?}");
    }
}
