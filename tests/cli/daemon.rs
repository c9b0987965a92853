//! A daemon in a network namespace, and helpers to wait for it.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::netns::{Namespace, missing};
use super::{ENOTUN, stderr};

/// A network namespace with one interface, and a daemon in it. Both are gone when this is dropped.
pub struct Daemon {
    pub namespace: Namespace,
    pub daemon: Option<Child>,
}

impl Daemon {
    /// `None`, and a line that says why, where there cannot be one.
    pub fn new(test: &str) -> Option<Self> {
        if missing().is_some() {
            return None;
        }
        let namespace = Namespace::new("cli", test);
        for arguments in [
            "link add eth0 type veth peer name eth1",
            // No link-local addresses, which would appear in the middle of a test.
            "link set eth0 addrgenmode none",
            "link set eth1 addrgenmode none",
            "addr add 192.0.2.1/24 dev eth0",
            "link set eth0 up",
            "link set eth1 up",
        ] {
            namespace.ip(arguments);
        }
        Some(Self { namespace, daemon: None })
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(ENOTUN);
        command.args(arguments).args(["--instance", self.name()]);
        command
    }

    /// The namespace's name, and the instance's.
    pub fn name(&self) -> &str {
        &self.namespace.name
    }

    pub fn enotun(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a daemon and waits until it is ready.
    #[track_caller]
    pub fn up(&mut self, arguments: &[&str]) {
        let mut all = vec!["up"];
        all.extend(arguments);
        let log = std::fs::File::create(self.log()).unwrap();
        let mut child = self.command(&all).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        eventually(
            20,
            || self.logged(),
            || {
                assert_eq!(child.try_wait().unwrap(), None, "{}", self.logged());
                self.enotun(&["status"]).status.success()
            },
        );
        self.daemon = Some(child);
    }

    pub fn log(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}.log", self.name()))
    }

    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    /// Rules, routes, links and firewall, for comparing.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for command in [
            "ip rule",
            "ip -6 rule",
            "ip route show table all",
            "ip -br link",
            "nft list ruleset",
            "sysctl net.ipv4.tcp_early_demux net.ipv4.conf.eth0.forwarding net.ipv4.conf.all.rp_filter",
        ] {
            text.push_str(&self.namespace.exec(command));
        }
        text
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            let _ = self.enotun(&["down"]);
        }
        let _ = std::fs::remove_file(self.log());
    }
}

/// Waits until it is `so`, this many seconds at most; `why` is said if it never is.
#[track_caller]
pub fn eventually(seconds: u64, why: impl Fn() -> String, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !so() {
        assert!(Instant::now() < end, "{}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
}
