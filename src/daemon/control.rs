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
mod tests;
