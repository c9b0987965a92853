//! What the processes do that the tests start in the namespaces: they are this test binary once more.

use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use enotun::linux::{self, Host, HostSettings};
use enotun::selector::{Policy, Rule};

use crate::process::entrance;

/// What a child of this test binary is told to be, and its arguments.
const ROLE: &str = "ENOTUN_PLUMBING_ROLE";

/// This test binary once more, to be `role`.
pub fn child(role: &str) -> Command {
    let mut child = entrance(module_path!(), "child_process");
    child.env(ROLE, role);
    child
}

/// Not a test: the entrance for the processes that the tests start in the namespaces.
#[test]
#[ignore = "the entrance for child processes"]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split_whitespace();
    let verb = words.next().unwrap_or_default();
    let arguments: Vec<&str> = words.collect();
    match verb {
        "daemon" => daemon(&arguments),
        "down" => println!("{:?}", linux::down(&settings(arguments[0])).map_err(|e| e.to_string())),
        "serve" => serve(arguments[0]),
        "hold" => hold(arguments[0]),
        "watch" => watch(arguments[0]),
        "doctor" => {
            let findings = linux::doctor(&settings(arguments[0])).into_iter();
            let bad: Vec<String> = findings.filter(|f| f.level == linux::Level::Fail).map(|f| f.what).collect();
            println!("[{}]", bad.join("; "));
        }
        "fetch" => println!("{}", fetch(&arguments)),
        other => panic!("unknown role {other}"),
    }
    std::process::exit(0);
}

fn settings(state: &str) -> HostSettings {
    HostSettings {
        state_dir: PathBuf::from(state),
        rt_tables_dir: PathBuf::from(state).join("rt_tables.d"),
        ..HostSettings::default()
    }
}

fn rules(selectors: &[&str]) -> Vec<Rule> {
    let rule = |text: &&str| Rule::new(text.parse().expect("selector"), Policy::Opportunistic);
    selectors.iter().map(rule).collect()
}

/// Sets the host up, passes packets on until stdin says `down` (or ends), puts the host back. `STATE_DIR [gateway=IF]
/// SELECTOR...`
fn daemon(arguments: &[&str]) {
    let mut settings = settings(arguments[0]);
    settings.queues = if arguments.contains(&"queues=2") { 2 } else { 1 };
    settings.gateway = arguments.iter().filter_map(|a| a.strip_prefix("gateway=")).map(str::to_owned).collect();
    let selectors: Vec<&str> = arguments[1..].iter().filter(|a| !a.contains('=')).copied().collect();
    let (mut host, devices) = match Host::up(settings, &rules(&selectors)) {
        Ok(up) => up,
        Err(error) => {
            println!("error: {error}");
            return;
        }
    };
    println!("up recovered={}", host.orphans().is_some());
    std::thread::spawn(move || pass(&devices));
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("select", list)) => {
                host.update(&rules(&list.split(' ').collect::<Vec<_>>()), &[]).expect("update");
                println!("updated");
            }
            Some(("keep", ends)) => {
                let (local, remote) = ends.split_once(' ').expect("two ends");
                let (local, remote) = (local.parse().expect("address"), remote.parse().expect("address"));
                host.update(&[], &[linux::KeptFlow { local, remote }]).expect("update");
                println!("updated");
            }
            _ if line == "refresh" => println!("{:?}", host.refresh().map_err(|e| e.to_string())),
            _ => break,
        }
    }
    host.down().expect("down");
    println!("down");
}

/// Connects, and says how the connection ends.
fn hold(address: &str) {
    let address: SocketAddr = address.parse().expect("address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).expect("connect");
    println!("up");
    match stream.read(&mut [0; 1]) {
        Ok(n) => println!("{n} bytes"),
        Err(e) => println!("{}", e.kind()),
    }
}

/// Sets the host up and prints what the watcher says.
fn watch(state: &str) {
    let (_host, devices) = Host::up(settings(state), &[]).expect("up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut watcher = linux::watch(&devices).expect("watch");
        println!("up");
        loop {
            match watcher.next().await.expect("event") {
                linux::Event::Prefixes(prefixes) => println!("prefixes {prefixes:?}"),
                linux::Event::Host => println!("host"),
                other => println!("{other:?}"),
            }
        }
    });
}

fn pass(devices: &linux::TunDevices) {
    let (plain, wire) = (&devices.plain.queues[0], &devices.wire.queues[0]);
    let mut buffer = vec![0; 70_000];
    loop {
        let mut ready = [
            rustix::event::PollFd::new(plain, rustix::event::PollFlags::IN),
            rustix::event::PollFd::new(wire, rustix::event::PollFlags::IN),
        ];
        rustix::event::poll(&mut ready, None).expect("poll");
        for (from, to) in [(plain, wire), (wire, plain)] {
            while let Ok(len) = rustix::io::read(from.as_fd(), &mut buffer) {
                let _ = rustix::io::write(to.as_fd(), &buffer[..len]);
            }
        }
    }
}

const BYTES: usize = 1_500_000;

/// Takes everything in, then sends as much; on every address.
fn serve(port: &str) {
    let listener = std::net::TcpListener::bind(format!("[::]:{port}")).expect("bind");
    println!("up");
    for stream in listener.incoming() {
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut stream = stream?;
            std::io::copy(&mut stream, &mut std::io::sink())?;
            stream.write_all(&vec![7; BYTES])?;
            stream.shutdown(Shutdown::Write)
        });
    }
}

/// One exchange per address; `ok` or what went wrong for each.
fn fetch(addresses: &[&str]) -> String {
    let exchange = |address: &&str| -> std::io::Result<usize> {
        let address: SocketAddr = address.parse().expect("address");
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&vec![9; BYTES])?;
        stream.shutdown(Shutdown::Write)?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)
    };
    let verdict = |address| match exchange(address) {
        Ok(BYTES) => "ok".to_owned(),
        Ok(n) => format!("{n} bytes"),
        Err(e) => e.kind().to_string(),
    };
    addresses.iter().map(verdict).collect::<Vec<_>>().join(",")
}
