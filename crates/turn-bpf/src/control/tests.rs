use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    client::{ClientError, fetch, fetch_json},
    document::{SessionsDocument, StatusDocument, tests as documents},
    server::{ControlSocket, ServerError, Source},
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

struct Documents;

impl Source for Documents {
    fn status(&self) -> StatusDocument {
        documents::status()
    }

    fn sessions(&self) -> SessionsDocument {
        documents::sessions()
    }
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
            tokio::select! {
                never = server.serve(Rc::new(Documents)) => match never {},
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
