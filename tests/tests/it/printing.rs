//! What the command line prints where nobody reads it, or only some of it.

use std::{
    io::Read as _,
    process::{Command, Stdio},
};

use crate::rig::binary;

#[test]
fn a_reader_that_goes_away_ends_a_command_without_a_word() -> anyhow::Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    for words in [&["completion", "bash"][..], &["conformance", "--list"]] {
        let out = Command::new(binary()).args(words).stdout(writer.try_clone()?).stderr(Stdio::piped()).output()?;
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{words:?}");
        assert_eq!(out.status.code(), Some(141), "{words:?}: as a shell counts SIGPIPE");
    }
    Ok(())
}

#[test]
fn a_machine_without_authorities_needs_none_for_plain_http() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    drop(listener);
    let none = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    let words = ["connections", "list", "--token", "x", "--url", &url];
    let out = Command::new(binary()).args(words).envs(none).output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(69), "it asks, and nobody listens there: {said}");
    Ok(())
}

#[test]
fn a_completion_script_is_one_that_bash_takes() -> anyhow::Result<()> {
    let mut script = String::new();
    let mut tieline = Command::new(binary()).args(["completion", "bash"]).stdout(Stdio::piped()).spawn()?;
    tieline.stdout.take().expect("it is piped").read_to_string(&mut script)?;
    assert!(tieline.wait()?.success());
    let asks = "source /dev/stdin; COMP_WORDS=(tieline connections li); COMP_CWORD=2; _tieline tieline li connections; \
                printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash").args(["-c", asks]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    std::io::Write::write_all(&mut bash.stdin.take().expect("it is piped"), script.as_bytes())?;
    let said = bash.wait_with_output()?;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "list\n");
    Ok(())
}
