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
