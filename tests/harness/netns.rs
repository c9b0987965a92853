//! Network namespaces for tests with a real kernel, and the processes in them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Why there can be no namespaces here, if there can be none; said on standard error as well.
pub fn missing() -> Option<&'static str> {
    let missing = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "no /dev/net/tun"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "no ip command"
    } else {
        return None;
    };
    eprintln!("skipped: {missing}");
    Some(missing)
}

/// Runs a program that has to succeed; what it prints.
#[track_caller]
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect(program);
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace, gone with everything in it when dropped.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    /// One with `lo` up. Its name begins with `test` and ends with `role`.
    pub fn new(test: &str, role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("{test}-{}-{n}-{role}", std::process::id()) };
        run("ip", &format!("netns add {}", namespace.name));
        namespace.ip("link set lo up");
        namespace
    }

    #[track_caller]
    pub fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.name))
    }

    /// Runs a command inside.
    #[track_caller]
    pub fn exec(&self, command: &str) -> String {
        run("ip", &format!("netns exec {} {command}", self.name))
    }

    /// A program inside, to be given arguments.
    pub fn command(&self, program: &str) -> Command {
        self.inside(&Command::new(program))
    }

    /// A command, with its arguments and what is set of its environment, inside.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?)))).stdin(Stdio::null());
        inside
    }

    /// Runs `f` on a thread inside.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| self.spawn(scope, f).join().unwrap())
    }

    /// Starts `f` on a thread inside.
    pub fn spawn<'s, R: Send + 's>(
        &self,
        scope: &'s Scope<'s, '_>,
        f: impl FnOnce() -> R + Send + 's,
    ) -> ScopedJoinHandle<'s, R> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A child process that is talked to line by line, and killed with the value.
pub struct Process {
    pub child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, output }
    }

    /// The next line that it says; `ended` if there is none.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        // The test harness prints a few lines of its own first.
        while self.output.read_line(&mut line).expect("child's output") > 0 {
            let text = line.trim().rsplit("... ").next().unwrap_or_default().to_owned();
            if !text.is_empty() && !text.starts_with("running ") {
                return text;
            }
            line.clear();
        }
        "ended".to_owned()
    }

    /// Tells it a line, and waits for its answer.
    pub fn tell(&mut self, line: &str) -> String {
        writeln!(self.child.stdin.as_mut().expect("stdin"), "{line}").expect("child listens");
        self.line()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
