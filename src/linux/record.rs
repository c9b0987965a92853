//! The record of changes: written before the first change, removed after the last one is undone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::{Error, HostSettings, KeptFlow, sys};
use crate::selector::Rule;

/// What survives the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) instance: String,
    pub(super) namespace: Namespace,
    /// The last selectors; a daemon that dies may leave encrypted connections among what they match.
    pub(super) rules: Vec<Rule>,
    /// Connections that were diverted as well.
    #[serde(default)]
    pub(super) kept: Vec<KeptFlow>,
    /// The changes, in the order they were made.
    pub(super) changes: Vec<Change>,
}

/// Identifies a network namespace and its boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Namespace {
    boot: String,
    cookie: u64,
    device: u64,
    inode: u64,
}

impl Namespace {
    /// This thread's.
    pub(super) fn current() -> Result<Self, Error> {
        let path = "/proc/thread-self/ns/net";
        let metadata = fs::metadata(path).map_err(|source| Error::file(path, source))?;
        let boot = "/proc/sys/kernel/random/boot_id";
        let boot = fs::read_to_string(boot).map_err(|source| Error::file(boot, source))?.trim().to_owned();
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0));
        let cookie = socket.and_then(|socket| sys::netns_cookie(socket.as_fd()));
        let cookie = cookie.map_err(|source| Error::netlink("identify the network namespace", source))?;
        Ok(Self { boot, cookie, device: metadata.dev(), inode: metadata.ino() })
    }

    fn is(&self, other: &Self) -> bool {
        self.boot == other.boot && self.cookie == other.cookie
    }

    /// Whether the namespace no longer exists: another boot, its inode number reused by `current`, or nobody holding
    /// it.
    fn is_gone(&self, current: &Self) -> bool {
        if self.boot != current.boot || (self.device, self.inode) == (current.device, current.inode) {
            return true;
        }
        self.path().is_none()
    }

    /// A file that represents the namespace: one made by `ip netns`, or of a process in it.
    fn path(&self) -> Option<PathBuf> {
        let holds = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode))
        };
        let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = entries("/run/netns").find(&holds);
        named.or_else(|| entries("/proc").map(|process| process.join("ns/net")).find(&holds))
    }
}

/// Moves this thread into the network namespace of the instance's record, if there is a record.
///
/// # Errors
/// If the record cannot be read, or the namespace cannot be entered.
pub fn enter_namespace(settings: &HostSettings) -> Result<(), Error> {
    let Some(record) = read(&settings.record_path())? else { return Ok(()) };
    let Some(path) = record.namespace.path() else { return Err(Error::OtherNamespace(record.instance)) };
    let file = File::open(&path).map_err(|source| Error::file(&path, source))?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
        .map_err(|errno| Error::file(path, errno.into()))
}

/// The record of an instance, held by the owner of the lock.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Store {
    /// Takes the instance's lock.
    pub(super) fn open(directory: &Path, instance: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if instance.is_empty() || instance.len() > 64 || instance.starts_with('.') || !instance.chars().all(plain) {
            return Err(Error::InstanceName(instance.to_owned()));
        }
        let refused = |error| Error::State { path: directory.to_owned(), error };
        fs::create_dir_all(directory).map_err(refused)?;
        let lock_path = directory.join(format!("{instance}.lock"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&lock_path).map_err(refused)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::Running(instance.to_owned()))?;
        Ok(Self { path: directory.join(format!("{instance}.json")), lock_path, _lock: lock })
    }

    /// The record that an earlier daemon of this instance left in this network namespace. `None`: there is none, or its
    /// namespace is gone.
    pub(super) fn load(&self) -> Result<Option<Record>, Error> {
        let Some(record) = read(&self.path)? else { return Ok(None) };
        let current = Namespace::current()?;
        if record.namespace.is(&current) {
            Ok(Some(record))
        } else if record.namespace.is_gone(&current) {
            Ok(None)
        } else {
            Err(Error::OtherNamespace(record.instance))
        }
    }

    /// Writes the record atomically.
    pub(super) fn save(&self, record: &Record) -> Result<(), Error> {
        let fail = |source| Error::file(&self.path, source);
        let text = serde_json::to_vec_pretty(record).map_err(|error| fail(error.into()))?;
        let new = self.path.with_extension("json.new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new).map_err(fail)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)?;
        fs::rename(&new, &self.path).map_err(fail)
    }

    /// Removes the record and the lock, and the directory with the last of them.
    pub(super) fn remove(self) -> Result<(), Error> {
        remove_if_there(&self.path)?;
        remove_if_there(&self.lock_path)?;
        if let Some(directory) = self.path.parent() {
            // Not empty: others are using it.
            let _ = fs::remove_dir(directory);
        }
        Ok(())
    }

    /// The records of other instances.
    pub(super) fn others(&self) -> Vec<Record> {
        let entries =
            self.path.parent().and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let records = paths.filter(|path| path.extension().is_some_and(|e| e == "json") && *path != self.path);
        records.filter_map(|path| read(&path).ok().flatten()).collect()
    }
}

impl Record {
    /// Whether the changes are to the network namespace `current`.
    pub(super) fn is_of(&self, current: &Namespace) -> bool {
        self.namespace.is(current)
    }
}

/// The record at `path`, if there is one; without its lock.
pub(super) fn read(path: &Path) -> Result<Option<Record>, Error> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Record { path: path.to_owned(), why: error.to_string() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, e)),
    }
}

/// Removes a file; it may be missing.
pub(super) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file(path, e)),
        _ => Ok(()),
    }
}
