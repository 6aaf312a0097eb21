use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    rc::Rc,
};

use hyper::body::Bytes;
use tokio::sync::broadcast;

use super::{
    client::{ClientError, act, events, fetch, fetch_json, sessions},
    document::{ActionDocument, SessionsDocument, StatusDocument, tests as documents},
    event::{Event, EventKind},
    selector::Selector,
    server::{Action, ControlSocket, ServerError, Source, line},
};

#[test]
fn documents_arrive_as_they_were_sent() {
    let folder = Folder::new("documents");
    let socket = folder.path().join("run/control.sock");
    during_service(&socket, |socket| {
        assert_eq!(fetch::<StatusDocument>(socket).unwrap(), documents::status());
        assert_eq!(fetch::<SessionsDocument>(socket).unwrap(), documents::sessions());
        let expected = serde_json::to_string(&documents::status()).unwrap() + "\n";
        assert_eq!(fetch_json(socket, "/status").unwrap(), expected);
        let error = fetch_json(socket, "/metrics").unwrap_err();
        assert!(matches!(error, ClientError::Refused { status: 404, .. }), "{error}");
        assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o7777, 0o660);
    });
    assert!(!socket.exists(), "the daemon takes its socket away");
}

#[test]
fn only_get_is_answered() {
    let folder = Folder::new("methods");
    during_service(&folder.path().join("control.sock"), |socket| {
        let answer = talk(socket, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: GET\r\n"), "{answer}");
        let answer = talk(socket, "nonsense\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    });
}

#[test]
fn a_connection_that_says_nothing_keeps_nobody_waiting() {
    let folder = Folder::new("silent");
    during_service(&folder.path().join("control.sock"), |socket| {
        let _silent = UnixStream::connect(socket).unwrap();
        fetch::<StatusDocument>(socket).unwrap();
    });
}

#[test]
fn a_second_daemon_does_not_take_the_socket_of_a_live_one() {
    let folder = Folder::new("second");
    let socket = folder.path().join("control.sock");
    during_service(&socket, |socket| {
        let error = bind(socket).unwrap_err();
        let expected = format!("control socket in use by another turn-bpf: {}", socket.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        fetch::<StatusDocument>(socket).expect("the first still answers");
    });
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let folder = Folder::new("stale");
    let socket = folder.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a dead daemon leaves its socket");
    let error = fetch::<StatusDocument>(&socket).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    during_service(&socket, |socket| assert!(fetch::<StatusDocument>(socket).is_ok()));
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let folder = Folder::new("file");
    let path = folder.path().join("control.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path), Err(ServerError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert!(matches!(bind(&path.join("control.sock")), Err(ServerError::Folder { .. })));
}

#[test]
fn without_a_daemon_the_exit_code_is_3() {
    let folder = Folder::new("none");
    let error = fetch::<StatusDocument>(&folder.path().join("control.sock")).unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    assert_eq!(error.exit_code(), 3);
}

/// Gives out what it is given.
struct Documents {
    events: broadcast::Sender<Bytes>,
}

impl Source for Documents {
    fn status(&self) -> StatusDocument {
        documents::status()
    }

    fn sessions(&self, wanted: &Selector) -> SessionsDocument {
        let mut document = documents::sessions();
        document.sessions.retain(|row| wanted.matches(&row.ends()));
        document
    }

    fn events(&self) -> Option<broadcast::Receiver<Bytes>> {
        let events = self.events.subscribe();
        // More than the buffer holds, before the reader has taken any.
        for count in 0..EVENTS {
            let event = Event { count: Some(count), ..Event::now(EventKind::Armed) };
            self.events.send(line(&event)).unwrap();
        }
        Some(events)
    }

    fn act(&self, _: Action, on: &Selector) -> ActionDocument {
        ActionDocument { schema: 1, sessions: 7, paused: vec![on.clone()] }
    }
}

const EVENTS: u64 = 100;
const BUFFERED: usize = 16;

#[test]
fn only_the_sessions_that_are_wanted() {
    let folder = Folder::new("wanted");
    during_service(&folder.path().join("control.sock"), |socket| {
        let wanted = Selector::from_query("client=198.18.0.0/15").unwrap();
        assert_eq!(sessions(socket, &wanted).unwrap().sessions, documents::sessions().sessions[..1]);
        let error = fetch_json(socket, "/sessions?client=nobody").unwrap_err();
        assert!(matches!(error, ClientError::Refused { status: 400, .. }), "{error}");
        let answer = talk(socket, "GET /sessions?client=nobody HTTP/1.0\r\n\r\n");
        assert!(answer.contains("is neither an address"), "{answer}");
    });
}

#[test]
fn actions_are_posted() {
    let folder = Folder::new("actions");
    during_service(&folder.path().join("control.sock"), |socket| {
        let on = Selector::from_query("peer=2001:db8::/32&channel=0x4001").unwrap();
        let expected = ActionDocument { schema: 1, sessions: 7, paused: vec![on.clone()] };
        assert_eq!(act(socket, Action::Pause, &on).unwrap(), expected);
        let answer = talk(socket, "GET /evict HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.0 405 ") && answer.contains("\r\nallow: POST\r\n"), "{answer}");
    });
}

#[test]
fn a_slow_reader_of_events_is_told_what_he_missed() {
    let folder = Folder::new("events");
    during_service(&folder.path().join("control.sock"), |socket| {
        let mut told = Vec::new();
        let result = events(socket, |line| {
            let event: Event = serde_json::from_str(line).unwrap();
            told.push((event.event, event.count.unwrap()));
            if event.count == Some(EVENTS - 1) { Err(()) } else { Ok(()) }
        });
        assert_eq!(result.unwrap(), Err(()), "the reader had enough");
        let kept = EVENTS - BUFFERED as u64..EVENTS;
        assert_eq!(told[0], (EventKind::Missed, EVENTS - BUFFERED as u64));
        assert_eq!(told[1..], kept.map(|count| (EventKind::Armed, count)).collect::<Vec<_>>());
    });
}

/// Runs `client` on a thread of its own while this one serves `socket`.
fn during_service(socket: &Path, client: impl FnOnce(&Path) + Send) {
    std::thread::scope(|scope| {
        let (bound, is_bound) = std::sync::mpsc::channel();
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let client = scope.spawn(move || {
            let _done = done;
            is_bound.recv().unwrap();
            client(socket);
        });
        runtime().block_on(async {
            let server = ControlSocket::bind(socket).await.unwrap();
            bound.send(()).unwrap();
            let source = Rc::new(Documents { events: broadcast::Sender::new(BUFFERED) });
            tokio::select! {
                never = server.serve(source) => match never {},
                _ = is_done => {}
            }
        });
        client.join().unwrap();
    });
}

fn bind(path: &Path) -> Result<ControlSocket, ServerError> {
    runtime().block_on(ControlSocket::bind(path))
}

fn talk(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A folder for one test, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("turn-bpf-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
