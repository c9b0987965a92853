//! The control socket's server: one task per client, so that a slow or broken one blocks nobody else. Requests go to
//! the daemon's loop through a channel and are answered there, one after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::instance::Instance;
use super::protocol::{Command, Failure, FailureKind, ITEMS_PER_LINE, Outcome, REQUEST_MAX, Reply, Request, VERSION};

/// Clients at a time. More are turned away.
const CLIENTS_MAX: usize = 32;
/// How long a client may take to send a request, and to read a line of a reply.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The daemon's answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// One value.
    One(Value),
    /// A list, sent in several lines if it is long.
    List(Vec<Value>),
}

impl Answer {
    /// `value` as an answer.
    ///
    /// # Errors
    /// If it cannot be encoded as JSON.
    pub fn one(value: impl Serialize) -> Result<Self, Failure> {
        serde_json::to_value(value).map(Self::One).map_err(internal)
    }

    /// `values` as an answer.
    ///
    /// # Errors
    /// If one of them cannot be encoded as JSON.
    pub fn list(values: impl IntoIterator<Item = impl Serialize>) -> Result<Self, Failure> {
        let values: Result<_, _> = values.into_iter().map(serde_json::to_value).collect();
        values.map(Self::List).map_err(internal)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn internal(error: serde_json::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("cannot encode the answer: {error}"))
}

/// A request that awaits the daemon's answer.
#[derive(Debug)]
pub struct PendingRequest {
    /// What is requested.
    pub command: Command,
    /// Where the answer goes. The client may be gone.
    pub answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// Binds the control socket, readable and writable by its owner only. Only for the one daemon of the instance: an
/// existing socket belongs to a dead one.
///
/// # Errors
/// If it cannot be bound.
pub fn bind(instance: &Instance) -> io::Result<UnixListener> {
    instance.remove_socket()?;
    // The mode applies from the start: between bind and a chmod anyone could connect.
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(instance.socket());
    rustix::process::umask(umask);
    listener
}

/// Serves clients until the daemon's loop is gone.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<PendingRequest>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: it will pass, and only control is affected.
                tracing::warn!("control socket: cannot accept a client: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let requests = requests.clone();
        let place = Arc::clone(&places).try_acquire_owned();
        tokio::spawn(async move {
            let result = match place {
                Ok(_place) => client(stream, requests).await,
                Err(_) => {
                    let (_, mut writer) = stream.into_split();
                    let failure = Failure::new(FailureKind::Busy, "too many clients at the control socket; try again");
                    write_outcome(&mut writer, Outcome::Error(failure), false).await
                }
            };
            if let Err(error) = result {
                tracing::debug!("control socket: a client went away: {error}");
            }
        });
    }
}

async fn client(stream: UnixStream, requests: mpsc::Sender<PendingRequest>) -> io::Result<()> {
    let privileged = {
        let uid = stream.peer_cred()?.uid();
        uid == 0 || uid == rustix::process::geteuid().as_raw()
    };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = match timeout(TIMEOUT, read_line(&mut reader)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(failure)) => return write_outcome(&mut writer, Outcome::Error(failure), false).await,
        };
        let command = match parse(&line, privileged) {
            Ok(command) => command,
            Err(failure) => {
                write_outcome(&mut writer, Outcome::Error(failure), false).await?;
                continue;
            }
        };
        let coming_down = command == (Command::Down {});
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::new(FailureKind::Busy, "the daemon is shutting down");
        let reply = match requests.send(PendingRequest { command, answer }).await {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        match reply {
            Ok(Answer::One(value)) => write_outcome(&mut writer, Outcome::Ok(value), false).await?,
            Ok(Answer::List(values)) => write_list(&mut writer, values).await?,
            Err(failure) => write_outcome(&mut writer, Outcome::Error(failure), false).await?,
        }
        if coming_down {
            // The end of the connection tells the client that the process is gone: keep it open until then.
            std::future::pending::<()>().await;
        }
    }
}

/// Reads a request; `None` at the end of the connection.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = reader.take(REQUEST_MAX as u64).read_until(b'\n', &mut line).await;
    match read {
        Ok(_) if line.ends_with(b"\n") => Ok(Some(line)),
        Ok(length) if length >= REQUEST_MAX => {
            Err(Failure::new(FailureKind::BadRequest, format!("a request is at most {REQUEST_MAX} bytes long")))
        }
        // Gone, perhaps in the middle of a line.
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Parses a line from a client; `privileged` if the client may change things.
///
/// # Errors
/// What is sent back to it.
pub fn parse(line: &[u8], privileged: bool) -> Result<Command, Failure> {
    // The version first: the format of another version's requests is unknown.
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bad = |error: serde_json::Error| Failure::new(FailureKind::BadRequest, format!("not a request: {error}"));
    let Versioned { version } = serde_json::from_slice(line).map_err(bad)?;
    if version != VERSION {
        let message = format!(
            "this daemon speaks version {VERSION} of the control protocol, not {version}; use its own `enotun`"
        );
        return Err(Failure::new(FailureKind::Version, message));
    }
    let Request { request, .. } = serde_json::from_slice(line).map_err(bad)?;
    if request.changes() && !privileged {
        return Err(Failure::new(FailureKind::NotPermitted, "only root may do that"));
    }
    Ok(request)
}

async fn write_list(writer: &mut (impl AsyncWrite + Unpin), values: Vec<Value>) -> io::Result<()> {
    let mut rest = values.into_iter().peekable();
    loop {
        let part: Vec<Value> = rest.by_ref().take(ITEMS_PER_LINE).collect();
        let more = rest.peek().is_some();
        write_outcome(writer, Outcome::Ok(Value::Array(part)), more).await?;
        if !more {
            return Ok(());
        }
    }
}

async fn write_outcome(writer: &mut (impl AsyncWrite + Unpin), outcome: Outcome, more: bool) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Reply { version: VERSION, outcome, more })?;
    line.push(b'\n');
    timeout(TIMEOUT, writer.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_before_its_request_is_looked_at() {
        let failure = parse(br#"{"version":2,"question":"status"}"#, true).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Version);
    }

    #[test]
    fn only_root_may_change_anything() {
        let down = br#"{"version":1,"request":{"command":"down"}}"#;
        assert_eq!(parse(down, false).unwrap_err().kind, FailureKind::NotPermitted);
        assert_eq!(parse(down, true).unwrap(), Command::Down {});
        assert_eq!(parse(br#"{"version":1,"request":{"command":"flows"}}"#, false).unwrap(), Command::Flows {});
    }

    /// A daemon's loop that answers everything with a list of 300 numbers.
    fn start() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (requests, mut inbox) = mpsc::channel::<PendingRequest>(1);
        tokio::spawn(serve(listener, requests));
        tokio::spawn(async move {
            while let Some(request) = inbox.recv().await {
                let _ = request.answer.send(Answer::list(0..300));
            }
        });
        (dir, path)
    }

    async fn ask(path: &std::path::Path) -> Vec<Reply> {
        let mut stream = BufReader::new(UnixStream::connect(path).await.unwrap());
        stream.write_all(b"{\"version\":1,\"request\":{\"command\":\"flows\"}}\n").await.unwrap();
        let mut replies = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let reply: Reply = serde_json::from_str(&line).unwrap();
            let more = reply.more;
            replies.push(reply);
            if !more {
                return replies;
            }
        }
    }

    #[tokio::test]
    async fn a_long_list_comes_in_several_lines() {
        let (_dir, path) = start();
        let replies = ask(&path).await;
        let lengths: Vec<_> = replies
            .iter()
            .map(|reply| match &reply.outcome {
                Outcome::Ok(Value::Array(values)) => values.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [128, 128, 44]);
    }

    #[tokio::test]
    async fn a_client_that_never_reads_or_never_asks_blocks_nobody() {
        let (_dir, path) = start();
        let _silent = UnixStream::connect(&path).await.unwrap();
        let mut deaf = UnixStream::connect(&path).await.unwrap();
        for _ in 0..500 {
            if deaf.try_write(b"{\"version\":1,\"request\":{\"command\":\"flows\"}}\n").is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(timeout(Duration::from_secs(5), ask(&path)).await.unwrap().len(), 3);
        deaf.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn an_endless_request_is_cut_off() {
        let (_dir, path) = start();
        let stream = UnixStream::connect(&path).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let flood = tokio::spawn(async move { writer.write_all(&vec![b'x'; REQUEST_MAX + 1]).await });
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).await.unwrap();
        let Outcome::Error(failure) = serde_json::from_str::<Reply>(&line).unwrap().outcome else { panic!("{line}") };
        assert_eq!(failure.kind, FailureKind::BadRequest);
        let _ = flood.await;
    }

    #[tokio::test]
    async fn garbage_is_answered_and_the_connection_goes_on() {
        let (_dir, path) = start();
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        stream.write_all(b"hello\n{\"version\":1,\"request\":{\"command\":\"flows\"}}\n").await.unwrap();
        let mut first = String::new();
        stream.read_line(&mut first).await.unwrap();
        assert!(first.contains("bad-request"), "{first}");
        let mut second = String::new();
        stream.read_line(&mut second).await.unwrap();
        assert!(second.contains("\"ok\""), "{second}");
    }

    #[tokio::test]
    async fn too_many_clients_are_told_so() {
        let (_dir, path) = start();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS_MAX {
            clients.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut late = BufReader::new(UnixStream::connect(&path).await.unwrap());
        let mut line = String::new();
        late.read_line(&mut line).await.unwrap();
        assert!(line.contains("busy"), "{line}");
    }
}
