//! Hosts in namespaces, linked with each other.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::children::child;
use crate::netns::{Namespace, Process, missing, run};

/// A set of namespaces that goes away with the value.
pub struct Lab {
    hosts: Vec<(&'static str, Namespace)>,
    pub state: tempfile::TempDir,
}

impl Lab {
    /// `None` where namespaces cannot be made.
    pub fn new(hosts: &[&'static str]) -> Option<Self> {
        if missing().is_some() {
            return None;
        }
        let hosts = hosts.iter().map(|host| (*host, Namespace::new("plumb", host))).collect();
        Some(Self { hosts, state: tempfile::tempdir().expect("tempdir") })
    }

    /// Two hosts `a` (10.9.0.1, fd09::1) and `b` (10.9.0.2, fd09::2).
    pub fn pair() -> Option<Self> {
        let lab = Self::new(&["a", "b"])?;
        lab.link(("a", "eth0", "10.9.0.1/24", "fd09::1/64"), ("b", "eth0", "10.9.0.2/24", "fd09::2/64"));
        Some(lab)
    }

    fn host(&self, host: &str) -> &Namespace {
        self.hosts.iter().find(|(name, _)| *name == host).map(|(_, namespace)| namespace).expect("a host of the lab")
    }

    pub fn link(&self, a: (&str, &str, &str, &str), b: (&str, &str, &str, &str)) {
        self.ip(a.0, &format!("link add {} type veth peer name {} netns {}", a.1, b.1, self.host(b.0).name));
        for (host, interface, v4, v6) in [a, b] {
            // Duplicate address detection would still be changing things when a test has begun.
            self.sysctl(host, &format!("net.ipv6.conf.{interface}.accept_dad=0"));
            self.ip(host, &format!("addr add {v4} dev {interface}"));
            self.ip(host, &format!("addr add {v6} dev {interface} nodad"));
            self.ip(host, &format!("link set {interface} up"));
        }
        for (host, interface, ..) in [a, b] {
            let routes = || self.ip(host, &format!("-6 route show table local dev {interface}"));
            while !["multicast ff00::/8 ", "local fe80::"].iter().all(|line| routes().contains(line)) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub fn ip(&self, host: &str, arguments: &str) -> String {
        self.host(host).ip(arguments)
    }

    pub fn exec(&self, host: &str, command: &str) -> String {
        self.host(host).exec(command)
    }

    pub fn nft(&self, host: &str, rules: &str) {
        let path = self.state.path().join("rules.nft");
        fs::write(&path, rules).expect("write");
        self.exec(host, &format!("nft -f {}", path.display()));
    }

    pub fn sysctl(&self, host: &str, setting: &str) {
        self.exec(host, &format!("sysctl -qw {setting}"));
    }

    pub fn spawn(&self, host: &str, role: &str) -> Process {
        Process::start(&mut self.host(host).inside(&child(role)))
    }

    pub fn state(&self, host: &str) -> String {
        self.state.path().join(host).display().to_string()
    }

    /// A daemon that is up.
    pub fn up(&self, host: &str, arguments: &str) -> Process {
        let mut process = self.spawn(host, &format!("daemon {} {arguments}", self.state(host)));
        let line = process.line();
        assert!(line.starts_with("up "), "{line}");
        process
    }

    pub fn serve(&self, host: &str) -> Process {
        let mut process = self.spawn(host, "serve 7000");
        assert_eq!(process.line(), "up");
        process
    }

    pub fn fetch(&self, host: &str, addresses: &str) -> String {
        self.spawn(host, &format!("fetch {addresses}")).line()
    }

    /// Packets counted at an interface.
    pub fn packets(&self, host: &str, interface: &str) -> u64 {
        let text = self.exec(host, &format!("cat /sys/class/net/{interface}/statistics/tx_packets"));
        text.trim().parse().expect("number")
    }

    /// Packets counted at an interface once none has come for a while: what was before leaves nothing behind.
    pub fn quiet(&self, host: &str, interface: &str) -> u64 {
        let mut before = self.packets(host, interface);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.packets(host, interface);
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// Everything that may not be changed for good: rules, routes, nftables, sysctls, interfaces.
    pub fn snapshot(&self, host: &str) -> BTreeMap<&'static str, String> {
        // Sysctls that move by themselves.
        let moving = [
            "random",
            "inode",
            "dentry",
            "nr_",
            "ns_last_pid",
            "sched",
            "file-nr",
            "entropy",
            "nf_conntrack_count",
            "ipfrag",
            "aio",
        ];
        let sysctls = self.exec(host, "sysctl -a -e");
        let sysctls = sysctls.lines().filter(|line| !moving.iter().any(|word| line.contains(word)));
        BTreeMap::from([
            ("rules", self.ip(host, "rule")),
            ("rules of IPv6", self.ip(host, "-6 rule")),
            ("routes", self.ip(host, "route show table all")),
            ("routes of IPv6", self.ip(host, "-6 route show table all")),
            ("nftables", self.exec(host, "nft -s list ruleset")),
            ("sysctls", sysctls.map(|line| format!("{line}\n")).collect()),
            ("links", self.exec(host, "ls /sys/class/net")),
            ("files", run("find", &self.state(host))),
        ])
    }

    pub fn snapshot_without_state(&self, host: &str) -> BTreeMap<&'static str, String> {
        fs::create_dir_all(self.state(host)).expect("mkdir");
        self.snapshot(host)
    }
}

pub fn assert_same(before: &BTreeMap<&'static str, String>, after: &BTreeMap<&'static str, String>) {
    for (name, text) in before {
        let changed: Vec<&str> = {
            let old: Vec<&str> = text.lines().collect();
            let new: Vec<&str> = after[name].lines().collect();
            let gone = old.iter().filter(|line| !new.contains(line));
            gone.chain(new.iter().filter(|line| !old.contains(line))).copied().collect()
        };
        assert_eq!(&after[name], text, "{name} differ: {changed:#?}");
    }
}
